//! Secrets in a text that is JSON. Only its strings are looked at, one by one: a long text costs no tree of values, and
//! what is no secret stays byte for byte.

use serde::de::IgnoredAny;

use super::{REDACTED, Redactor};

impl Redactor {
    /// `text` without secrets: when it is JSON, without the values of secret names too, as [`Redactor::value`] takes them
    /// out; when it is not, as [`Redactor::text`] leaves it. Everything else stays as it was written.
    pub fn json(&self, text: &str) -> String {
        // An escape that serde_json itself would not write can hide a name from the cheap look.
        let hidden = text.contains("\\u") || text.contains("\\/");
        if !hidden && !self.may_change(text) {
            return text.to_owned();
        }
        if serde_json::from_str::<IgnoredAny>(text).is_err() {
            return self.text(text);
        }
        let mut out = String::with_capacity(text.len());
        let (mut copied, mut at) = (0, 0);
        // Whether a secret's name stands before.
        let mut named = false;
        while let Some(found) = text[at..].find('"') {
            let start = at + found;
            let end = end_of(text, start);
            let literal = &text[start..end];
            // A list or an object begins, or an item: then the name was another value's.
            named &= text[at..start].chars().all(|c| c == ':' || c.is_ascii_whitespace());
            at = end;
            if text[end..].trim_ascii_start().starts_with(':') {
                named = serde_json::from_str::<String>(literal).is_ok_and(|name| self.names_a_secret(&name));
                continue;
            }
            let clean = if named { Some(format!("\"{REDACTED}\"")) } else { self.literal(literal) };
            named = false;
            if let Some(clean) = clean {
                out.push_str(&text[copied..start]);
                out.push_str(&clean);
                copied = end;
            }
        }
        out.push_str(&text[copied..]);
        out
    }

    /// A string as JSON writes it, without secrets; `None` when it holds none.
    fn literal(&self, literal: &str) -> Option<String> {
        if !literal.contains('\\') && !self.may_change(literal) {
            return None;
        }
        let Ok(said) = serde_json::from_str::<String>(literal) else { return Some(self.text(literal)) };
        let clean = self.text(&said);
        (clean != said).then(|| serde_json::Value::String(clean).to_string())
    }
}

/// Where the string that begins at `start` has ended; in JSON, none goes on for ever.
pub(crate) fn end_of(text: &str, start: usize) -> usize {
    let mut escaped = false;
    for (at, byte) in text.bytes().enumerate().skip(start + 1) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn what_is_no_secret_stays_byte_for_byte() {
        let redactor = Redactor::built_in();
        let text = "{ \"a\":1.0,\n\"password\" : \"hunter2\", \"password\":[\"kept\"], \"note\": \"Bearer abcdef123456\\n\" }\n";
        let expected = "{ \"a\":1.0,\n\"password\" : \"[redacted]\", \"password\":[\"kept\"], \"note\": \"Bearer [redacted]\\n\" }\n";
        assert_eq!(redactor.json(text), expected);
        assert_eq!(redactor.json("Authorization: Bearer abcdef123456 {"), "Authorization: Bearer [redacted] {");
        for same in
            ["", "\"password\"", "[\"password\", \"x\"]", "{\"a\": \"password\", \"b\": \"x\"}", "{\"password\": 5}"]
        {
            assert_eq!(redactor.json(same), same);
        }
    }

    #[test]
    fn an_escape_hides_no_name_and_no_token() {
        let redactor = Redactor::built_in();
        assert_eq!(redactor.json(r#"{"pass\u0077ord": "hunter2"}"#), r#"{"pass\u0077ord": "[redacted]"}"#);
        assert_eq!(redactor.json(r#"["\u0042earer abcdef123456"]"#), r#"["Bearer [redacted]"]"#);
        // A half of a pair is no text; what stands beside it is looked at all the same.
        assert_eq!(redactor.json(r#"["\ud800 Bearer abcdef123456"]"#), r#"["\ud800 Bearer [redacted]"]"#);
    }

    /// The value with every character of its strings escaped.
    fn escaped(value: &Value) -> String {
        let text = |text: &str| {
            text.encode_utf16().fold(String::new(), |mut out, unit| {
                write!(out, "\\u{unit:04x}").unwrap();
                out
            })
        };
        match value {
            Value::String(said) => format!("\"{}\"", text(said)),
            Value::Array(items) => format!("[{}]", items.iter().map(escaped).collect::<Vec<_>>().join(",")),
            Value::Object(map) => {
                let all = map.iter().map(|(name, value)| format!("\"{}\" : {}", text(name), escaped(value)));
                format!("{{{}}}", all.collect::<Vec<_>>().join(" , "))
            }
            other => other.to_string(),
        }
    }

    proptest::proptest! {
        #[test]
        fn it_finds_what_a_walk_over_the_values_finds(words in proptest::collection::vec(
            proptest::sample::select(vec!["Bearer", "bASIC", "abcdef123456", "dXNlcjpwYXNz", "Authorization", "eyJhbGciOi",
                "AKIAIOSFODNN7EXAMPLE", "x\"y", "\u{1}", "a\\", "ö", "0123456789012345678901234567890123456789", ": ", " "]), 0..8),
            name in proptest::sample::select(vec!["PassWord", "ap\"i", "a/b", "other", "ÖL", ""]))
        {
            let redactor = Redactor::new(["ap\"i".to_owned(), "a/b".to_owned(), "Öl".to_owned()]);
            let value = json!({name: words.concat(), "list": [words.join(" "), {name: [words.concat()]}, {name: 5}],
                "inner": {name: words.join(" ")}});
            let mut expected = value.clone();
            redactor.value(&mut expected);
            for text in [value.to_string(), serde_json::to_string_pretty(&value).unwrap(), escaped(&value)] {
                let clean: Value = serde_json::from_str(&redactor.json(&text)).unwrap();
                proptest::prop_assert_eq!(&clean, &expected);
            }
        }
    }
}
