//! An operator's secrets, kept from the model: a server may send back what it was sent.

use std::fmt;

use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_STANDARD_NO_PAD, BASE64_URL_SAFE, BASE64_URL_SAFE_NO_PAD};
use daybook_domain::redact::REDACTED;
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;
use serde_json::value::{RawValue, to_raw_value};

use crate::content::Content;

/// The shortest secret that is hidden, in bytes: what is shorter stands in every other word, and keeps nobody out.
const SHORTEST: usize = 6;

/// Values that no model may read.
#[derive(Clone, Default)]
pub(crate) struct Secrets(Vec<SecretString>);

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secrets({} forms)", self.0.len())
    }
}

impl Secrets {
    /// These values of headers, parameters and passwords, in the forms in which a server may repeat them: with and
    /// without a scheme such as `Bearer`, as they are, escaped as in JSON, percent-encoded, and in base64, alone or
    /// within a longer text.
    pub fn new<'a>(values: impl IntoIterator<Item = &'a str>) -> Self {
        let mut forms: Vec<String> = values.into_iter().flat_map(plain).flat_map(|value| forms(&value)).collect();
        // The longest first: another may be a part of it.
        forms.sort_by(|one, other| other.len().cmp(&one.len()).then_with(|| one.cmp(other)));
        forms.dedup();
        Self(forms.into_iter().map(SecretString::from).collect())
    }

    /// The text with a mark where a secret stood.
    pub fn hide(&self, text: &str) -> String {
        let mut hidden = text.to_owned();
        for secret in self.0.iter().map(ExposeSecret::expose_secret) {
            if hidden.contains(secret) {
                hidden = hidden.replace(secret, REDACTED);
            }
        }
        hidden
    }

    /// What an answer holds, without the secrets. Pictures are as they came.
    pub fn hide_in(&self, content: Content) -> Content {
        match content {
            Content::Text(text) => Content::Text(self.hide(&text)),
            Content::Json(json) if !self.0.is_empty() => self.hide_in_json(json),
            other => other,
        }
    }

    fn hide_in_json(&self, json: Box<RawValue>) -> Content {
        // JSON can write any letter as an escape. Where one hides a secret the whole is written anew, and numbers may
        // lose digits.
        let decoded = || {
            let value: Value = serde_json::from_str(json.get()).ok().filter(|_| json.get().contains('\\'))?;
            let hidden = self.hide_in_value(value.clone());
            (hidden != value).then(|| to_raw_value(&hidden).ok()).flatten()
        };
        let json = decoded().unwrap_or(json);
        let hidden = self.hide(json.get());
        if hidden == json.get() {
            return Content::Json(json);
        }
        // A secret may have been a number.
        RawValue::from_string(hidden.clone()).map_or(Content::Text(hidden), Content::Json)
    }

    fn hide_in_value(&self, value: Value) -> Value {
        match value {
            Value::String(text) => Value::String(self.hide(&text)),
            Value::Array(items) => items.into_iter().map(|item| self.hide_in_value(item)).collect(),
            Value::Object(fields) => {
                fields.into_iter().map(|(name, field)| (self.hide(&name), self.hide_in_value(field))).collect()
            }
            other => other,
        }
    }
}

/// What of a value is secret: all of it, what follows its scheme, and the password in a basic one.
fn plain(value: &str) -> Vec<String> {
    let mut all = vec![value.to_owned()];
    if let Some((scheme, rest)) = value.split_once(' ') {
        let pair = BASE64_STANDARD.decode(rest.trim()).ok().filter(|_| scheme.eq_ignore_ascii_case("basic"));
        if let Some(pair) = pair.and_then(|pair| String::from_utf8(pair).ok()) {
            all.extend(pair.split_once(':').map(|(_, password)| password.to_owned()));
            all.push(pair);
        }
        all.push(rest.trim().to_owned());
    }
    all.retain(|secret| secret.len() >= SHORTEST);
    all
}

fn forms(secret: &str) -> Vec<String> {
    let json = Value::from(secret).to_string().trim_matches('"').to_owned();
    let plus: String = url::form_urlencoded::byte_serialize(secret.as_bytes()).collect();
    let percent = plus.replace('+', "%20");
    let small = |encoded: &str| {
        let mut parts = encoded.split('%');
        let first = parts.next().unwrap_or_default().to_owned();
        parts.fold(first, |text, part| {
            let (code, rest) = part.split_at_checked(2).unwrap_or((part, ""));
            format!("{text}%{}{rest}", code.to_ascii_lowercase())
        })
    };
    // Names of hosts and types are told in small letters.
    let mut all = vec![secret.to_owned(), secret.to_ascii_lowercase(), json.replace('/', "\\/"), json];
    all.extend([small(&plus), small(&percent), plus, percent]);
    all.extend([&BASE64_STANDARD, &BASE64_URL_SAFE].map(|base64| base64.encode(secret)));
    for base64 in [&BASE64_STANDARD_NO_PAD, &BASE64_URL_SAFE_NO_PAD] {
        all.push(base64.encode(secret));
        all.extend((0..3).map(|before| within(base64, secret, before)));
    }
    all
}

/// The letters that stand for the secret, whatever is around it, in a base64 text where it begins after a multiple of
/// three bytes and `before` more.
fn within(base64: &impl base64::Engine, secret: &str, before: usize) -> String {
    let bytes = [&vec![0; before], secret.as_bytes()].concat();
    // A letter is six bits; those at the ends are shared with the neighbours.
    let (first, last) = ((before * 8).div_ceil(6), bytes.len() * 8 / 6);
    base64.encode(&bytes).get(first..last).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "p\"a/SS+wo?rd1";

    #[test]
    fn secrets_are_hidden_in_every_form() {
        let secrets = Secrets::new([format!("Bearer {SECRET}").as_str()]);
        let base64 = |text: String| BASE64_STANDARD.encode(text);
        for text in [
            format!("Bearer {SECRET}"),
            format!("x{SECRET}y"),
            SECRET.to_lowercase(),
            "k=p%22a%2FSS%2Bwo%3Frd1".to_owned(),
            "k=p%22a%2fSS%2bwo%3frd1".to_owned(),
            serde_json::json!({ "a": SECRET }).to_string(),
            r#"{"a":"p\"a\/SS+wo?rd1"}"#.to_owned(),
            base64(SECRET.to_owned()),
            base64(format!("u:{SECRET}")),
            base64(format!("authorization: Bearer {SECRET}\r\naccept: */*")),
            base64(format!("id: {SECRET} and more")),
            BASE64_URL_SAFE_NO_PAD.encode(SECRET),
        ] {
            let hidden = secrets.hide(&text);
            assert!(hidden.contains(REDACTED), "{text}: {hidden}");
            for left in ["rd1", "p\"a", "p\\\"a", "cmQx", "p%22a"] {
                assert!(!hidden.contains(left), "{text}: {hidden}");
            }
        }
        assert_eq!(secrets.hide("Bearer nothing"), "Bearer nothing");
        assert!(!format!("{secrets:?}").contains("rd1"));
    }

    #[test]
    fn a_password_is_hidden_without_its_user() {
        let secrets = Secrets::new([format!("Basic {}", BASE64_STANDARD.encode("bob:hunter22")).as_str()]);
        assert_eq!(secrets.hide("bob has hunter22"), format!("bob has {REDACTED}"));
        assert_eq!(secrets.hide(&BASE64_STANDARD.encode("bob:hunter22")), REDACTED);
    }

    #[test]
    fn what_is_short_is_no_secret_and_neither_is_a_scheme() {
        let secrets = Secrets::new(["abc", "", "Bearer x", "Bearer hunter2hunter2"]);
        assert_eq!(secrets.hide("abc, x, Bearer y"), "abc, x, Bearer y");
    }

    #[test]
    fn json_stays_json_and_keeps_its_digits_elsewhere() {
        let secrets = Secrets::new(["hunter22", "12345678"]);
        let hide = |json: &str| match secrets.hide_in(Content::Json(RawValue::from_string(json.to_owned()).unwrap())) {
            Content::Json(json) => json.get().to_owned(),
            Content::Text(text) => format!("text: {text}"),
            _ => String::new(),
        };
        let digits = r#"{"n":98765432109876543210987,"a":"x\ny"}"#;
        assert_eq!(hide(digits), digits);
        assert_eq!(hide(r#"{"hunter22":"a hunter22"}"#), r#"{"[redacted]":"a [redacted]"}"#);
        assert_eq!(hide(r#"{"a":["\u0068unter22"]}"#), r#"{"a":["[redacted]"]}"#);
        assert_eq!(hide(r#"{"n":12345678}"#), r#"text: {"n":[redacted]}"#);
    }
}
