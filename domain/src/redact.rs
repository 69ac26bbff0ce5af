//! Keeps secrets out of the log: what looks like one is replaced before an event is stored.

use std::sync::LazyLock;

use serde_json::Value;

/// What stands where a secret stood.
pub const REDACTED: &str = "[redacted]";

/// Names whose values are secrets wherever they appear as an object's key.
const SECRET_NAMES: &[&str] = &[
    "authorization",
    "proxy-authorization",
    "cookie",
    "set-cookie",
    "password",
    "passwd",
    "secret",
    "client_secret",
    "api_key",
    "apikey",
    "x-api-key",
    "access_token",
    "refresh_token",
    "private_key",
];

/// How known tokens begin, and how long they are at least.
const TOKEN_SHAPES: &[(&str, usize)] = &[
    ("sk-ant-", 24),
    ("sk-proj-", 24),
    ("sk-", 32),
    ("xoxb-", 20),
    ("xoxp-", 20),
    ("xapp-", 20),
    ("ghp_", 30),
    ("github_pat_", 30),
    ("glpat-", 20),
    ("AKIA", 20),
    ("AIza", 35),
    ("agno_pat_", 20),
    ("eyJhbGciOi", 40),
];

static DEFAULT: LazyLock<Redactor> = LazyLock::new(|| Redactor::new([]));

/// Replaces secrets in texts and JSON values.
#[derive(Debug, Clone)]
pub struct Redactor {
    names: Vec<String>,
}

impl Redactor {
    /// A redactor for the built-in names and shapes, and the operator's own names.
    pub fn new(extra_names: impl IntoIterator<Item = String>) -> Self {
        let names = SECRET_NAMES.iter().map(|name| (*name).to_owned());
        Self { names: names.chain(extra_names.into_iter().map(|name| name.to_lowercase())).collect() }
    }

    /// The built-in names and shapes only.
    pub fn built_in() -> &'static Self {
        &DEFAULT
    }

    /// `text` without known tokens and without the credentials of an `Authorization` header.
    pub fn text(&self, text: &str) -> String {
        if !might_hold_secret(text) {
            return text.to_owned();
        }
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        let mut bearer = false;
        while !rest.is_empty() {
            let end = rest.find(|c: char| !is_token_char(c)).unwrap_or(rest.len());
            if end == 0 {
                let step = rest.chars().next().map_or(1, char::len_utf8);
                out.push_str(&rest[..step]);
                rest = &rest[step..];
                continue;
            }
            let word = &rest[..end];
            let secret = (bearer && word.len() >= 8)
                || TOKEN_SHAPES.iter().any(|(start, len)| word.len() >= *len && word.starts_with(start));
            out.push_str(if secret { REDACTED } else { word });
            bearer = word.eq_ignore_ascii_case("bearer") || word.eq_ignore_ascii_case("basic");
            rest = &rest[end..];
        }
        out
    }

    /// Replaces the values of secret names, and tokens in every text, in place.
    pub fn value(&self, value: &mut Value) {
        match value {
            Value::String(text) if might_hold_secret(text) => {
                *text = self.text(text);
            }
            Value::Array(items) => items.iter_mut().for_each(|item| self.value(item)),
            Value::Object(map) => self.object(map),
            _ => {}
        }
    }

    /// As [`Redactor::value`], for an object.
    pub fn object(&self, map: &mut serde_json::Map<String, Value>) {
        for (name, inner) in map.iter_mut() {
            if inner.is_string() && self.names.contains(&name.to_lowercase()) {
                *inner = Value::String(REDACTED.to_owned());
            } else {
                self.value(inner);
            }
        }
    }
}

fn is_token_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '+' | '/' | '=')
}

/// A cheap look before the careful one: most texts hold no token at all.
fn might_hold_secret(text: &str) -> bool {
    TOKEN_SHAPES.iter().any(|(start, _)| text.contains(start))
        || ["earer ", "EARER ", "asic ", "ASIC "].iter().any(|word| text.contains(word))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn tokens_and_credentials_go_and_words_stay() {
        let redactor = Redactor::built_in();
        let text = "use sk-abcdefghijklmnopqrstuvwxyz0123456789 or Bearer abcdef123456, a basic idea, ask-me";
        assert_eq!(redactor.text(text), "use [redacted] or Bearer [redacted], a basic idea, ask-me");
    }

    #[test]
    fn secret_names_are_found_at_any_depth_and_in_any_case() {
        let mut value = json!({"headers": [{"Authorization": "x"}], "my_pin": "1234", "city": "Oslo", "secret": 5});
        Redactor::new(["MY_PIN".to_owned()]).value(&mut value);
        let expected =
            json!({"headers": [{"Authorization": REDACTED}], "my_pin": REDACTED, "city": "Oslo", "secret": 5});
        assert_eq!(value, expected);
    }
}
