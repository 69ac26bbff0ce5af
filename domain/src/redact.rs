//! Keeps secrets out of the log: what looks like one is replaced before an event is stored.

mod json;

pub(crate) use json::end_of;

use std::sync::LazyLock;

use aho_corasick::AhoCorasick;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
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
    /// Finds whatever could make a careful look necessary, in any case of ASCII letters; `None` when it could not be
    /// built: then everything is looked at.
    hints: Option<AhoCorasick>,
}

impl Redactor {
    /// A redactor for the built-in names and shapes, and the operator's own names. Case does not count in ASCII letters.
    pub fn new(extra_names: impl IntoIterator<Item = String>) -> Self {
        let names: Vec<String> = SECRET_NAMES.iter().map(|name| (*name).to_owned()).chain(extra_names).collect();
        // As object keys stand in JSON.
        let keys = names.iter().map(|name| serde_json::Value::from(name.as_str()).to_string());
        let shapes = TOKEN_SHAPES.iter().map(|(start, _)| *start).chain(["bearer", "basic"]).map(str::to_owned);
        let hints = AhoCorasick::builder().ascii_case_insensitive(true).build(keys.chain(shapes)).ok();
        Self { names, hints }
    }

    /// The built-in names and shapes only.
    pub fn built_in() -> &'static Self {
        &DEFAULT
    }

    /// Whether `text`, plain or JSON as serde_json writes it, may hold a secret: a cheap look before the careful one.
    pub fn may_change(&self, text: &str) -> bool {
        self.hints.as_ref().is_none_or(|hints| hints.is_match(text))
    }

    /// `text` without known tokens and without the credentials of an `Authorization` header.
    pub fn text(&self, text: &str) -> String {
        if !self.may_change(text) {
            return text.to_owned();
        }
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        let mut before = Before::Words;
        while !rest.is_empty() {
            let end = rest.find(|c: char| !is_token_char(c)).unwrap_or(rest.len());
            if end == 0 {
                let step = rest.chars().next().map_or(1, char::len_utf8);
                out.push_str(&rest[..step]);
                rest = &rest[step..];
                continue;
            }
            let word = &rest[..end];
            match if before.makes_secret(word) { Some(0) } else { token_in(word) } {
                Some(at) => {
                    out.push_str(&word[..at]);
                    out.push_str(REDACTED);
                }
                None => out.push_str(word),
            }
            before = before.then(word);
            rest = &rest[end..];
        }
        out
    }

    /// Replaces the values of secret names, and tokens in every text, in place.
    pub fn value(&self, value: &mut Value) {
        match value {
            Value::String(text) if self.may_change(text) => {
                *text = self.text(text);
            }
            Value::Array(items) => items.iter_mut().for_each(|item| self.value(item)),
            Value::Object(map) => self.object(map),
            _ => {}
        }
    }

    /// Whether the value of this name is a secret.
    pub fn names_a_secret(&self, name: &str) -> bool {
        self.names.iter().any(|secret| secret.eq_ignore_ascii_case(name))
    }

    /// As [`Redactor::value`], for an object.
    pub fn object(&self, map: &mut serde_json::Map<String, Value>) {
        for (name, inner) in map.iter_mut() {
            if inner.is_string() && self.names_a_secret(name) {
                *inner = Value::String(REDACTED.to_owned());
            } else {
                self.value(inner);
            }
        }
    }
}

/// What the last words announce.
#[derive(Clone, Copy)]
enum Before {
    /// Nothing.
    Words,
    /// An `Authorization` header.
    Header,
    /// Credentials; `header` when the header's name stood before.
    Credentials { scheme: Scheme, header: bool },
}

/// The schemes of the `Authorization` header (RFC 7617, RFC 6750).
#[derive(Clone, Copy)]
enum Scheme {
    Basic,
    Bearer,
}

impl Before {
    fn then(self, word: &str) -> Self {
        let scheme = match word {
            word if word.eq_ignore_ascii_case("bearer") => Scheme::Bearer,
            word if word.eq_ignore_ascii_case("basic") => Scheme::Basic,
            word if word.eq_ignore_ascii_case("authorization") => return Self::Header,
            _ => return Self::Words,
        };
        Self::Credentials { scheme, header: matches!(self, Self::Header) }
    }

    /// "Basic" and "bearer" are words too: without the header's name, what follows must look like credentials.
    fn makes_secret(self, word: &str) -> bool {
        match self {
            Self::Credentials { header: true, .. } => true,
            Self::Credentials { scheme: Scheme::Basic, .. } => {
                STANDARD.decode(word).is_ok_and(|plain| plain.contains(&b':'))
            }
            Self::Credentials { scheme: Scheme::Bearer, .. } => {
                let marked = word.contains(|c: char| c.is_ascii_digit() || matches!(c, '.' | '_' | '='));
                word.len() >= 20 || (word.len() >= 8 && marked)
            }
            Self::Words | Self::Header => false,
        }
    }
}

/// Where a token begins: with the word, or behind an equals sign, as in what `env` prints and in addresses.
fn token_in(word: &str) -> Option<usize> {
    let behind = word.match_indices('=').map(|(at, _)| at + 1);
    std::iter::once(0).chain(behind).find(|at| has_token_shape(&word[*at..]))
}

fn has_token_shape(word: &str) -> bool {
    TOKEN_SHAPES.iter().any(|(start, len)| word.len() >= *len && word.starts_with(start))
}

fn is_token_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '+' | '/' | '=')
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
        let variables = "PATH=/bin\nOPENAI_API_KEY=sk-abcdefghijklmnopqrstuvwxyz0123456789\nA=b=ghp_abcdefghijklmnopqrstuvwxyz0123\nC=sk-x";
        let expected = "PATH=/bin\nOPENAI_API_KEY=[redacted]\nA=b=[redacted]\nC=sk-x";
        assert_eq!(redactor.text(variables), expected);
        assert_eq!(redactor.text("/v1?key=AIzaabcdefghijklmnopqrstuvwxyz0123456789&a=b"), "/v1?key=[redacted]&a=b");
        let header = "AUTHORIZATION: bearer letters; authorization: Basic dXNlcjpwYXNz, basic dXNlcjpwYXNz";
        assert_eq!(
            redactor.text(header),
            "AUTHORIZATION: bearer [redacted]; authorization: Basic [redacted], basic [redacted]"
        );
    }

    #[test]
    fn words_that_name_a_scheme_hide_no_words_after_them() {
        for text in ["a basic understanding of JavaScript", "the ring bearer travelled on", "Basic requirements"] {
            assert_eq!(Redactor::built_in().text(text), text);
        }
    }

    proptest::proptest! {
        #[test]
        fn the_cheap_look_misses_nothing(words in proptest::collection::vec(
            proptest::sample::select(vec!["Bearer", "bASIC", "abcdef123456", "dXNlcjpwYXNz", "Authorization", "ghp_", "eyJhbGciOi",
                "AKIAIOSFODNN7EXAMPLE", "x\"y", "\u{1}", "sk-", "ö", "0123456789012345678901234567890123456789", ": ", " "]), 0..8),
            name in proptest::sample::select(vec!["PassWord", "ap\"i", "pIn", "other", "ÖL"]))
        {
            let blind = Redactor { hints: None, ..Redactor::new(["ap\"i".to_owned(), "pin".to_owned(), "Öl".to_owned()]) };
            let seeing = Redactor::new(["ap\"i".to_owned(), "pin".to_owned(), "Öl".to_owned()]);
            let value = json!({name: words.concat(), "list": [words.join(" ")]});
            let mut careful = value.clone();
            blind.value(&mut careful);
            let mut cheap = value.clone();
            seeing.value(&mut cheap);
            proptest::prop_assert_eq!(&cheap, &careful);
            proptest::prop_assert!(careful == value || seeing.may_change(&value.to_string()));
        }
    }

    #[test]
    fn secret_names_are_found_at_any_depth_and_in_any_case() {
        let mut value = json!({"headers": [{"Authorization": "x"}], "My_Pin": "1234", "city": "Oslo", "secret": 5});
        Redactor::new(["MY_PIN".to_owned()]).value(&mut value);
        let expected =
            json!({"headers": [{"Authorization": REDACTED}], "My_Pin": REDACTED, "city": "Oslo", "secret": 5});
        assert_eq!(value, expected);
    }
}
