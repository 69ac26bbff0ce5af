//! Values that must not be shown, wherever a server repeats them.

use secrecy::{ExposeSecret as _, SecretString};

/// A shorter value is not looked for: it would be found in ordinary words.
const SHORTEST: usize = 6;

/// The values of `env` and `headers`.
pub(super) struct Secrets(Vec<SecretString>);

impl Secrets {
    pub(super) fn new(values: impl Iterator<Item = SecretString>) -> Self {
        let mut kept: Vec<SecretString> = Vec::new();
        for value in values {
            // `Bearer KEY`: a server repeats the key alone.
            let words = value.expose_secret().split_whitespace().map(SecretString::from).collect::<Vec<_>>();
            kept.extend(words.into_iter().chain([value]).filter(|part| part.expose_secret().len() >= SHORTEST));
        }
        kept.sort_by_key(|value| std::cmp::Reverse(value.expose_secret().len()));
        Self(kept)
    }

    /// The text without them.
    pub(super) fn hide(&self, text: &str) -> String {
        let mut shown = text.to_owned();
        for secret in &self.0 {
            if shown.contains(secret.expose_secret()) {
                shown = shown.replace(secret.expose_secret(), "[secret]");
            }
        }
        shown
    }
}

/// At most `limit` characters of a text, on one line.
pub(super) fn shortened(text: &str, limit: usize) -> String {
    let mut short: String = text.trim().chars().take(limit).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if text.trim().chars().nth(limit).is_some() {
        short.push('…');
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_and_the_keys_in_them_are_hidden() {
        let secrets = Secrets::new(["Bearer hunter2hunter2", "no"].map(SecretString::from).into_iter());
        let shown = secrets.hide("no key: hunter2hunter2, sent as Bearer hunter2hunter2");
        assert_eq!(shown, "no key: [secret], sent as [secret]");
    }

    #[test]
    fn texts_are_cut_at_characters() {
        assert_eq!(shortened(" a\nü¢d ", 3), "a ü…");
        assert_eq!(shortened("abc", 3), "abc");
    }
}
