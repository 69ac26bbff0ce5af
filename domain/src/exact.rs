//! Numbers in JSON that would not be kept as they were written.

use crate::redact::end_of;

/// The most digits that a number with a fraction or an exponent is sure to keep.
const MAX_DIGITS: usize = 17;

/// The first number in a JSON text that would silently become another: a whole one beyond 64 bits, or one with more digits
/// than a double holds.
pub fn inexact_number(text: &str) -> Option<&str> {
    let bytes = text.as_bytes();
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'"' => at = end_of(text, at),
            b'-' | b'0'..=b'9' => {
                let is_part = |byte: &&u8| matches!(**byte, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E');
                let end = at + bytes[at..].iter().take_while(is_part).count();
                let number = &text[at..end];
                if !is_exact(number) {
                    return Some(number);
                }
                at = end;
            }
            _ => at += 1,
        }
    }
    None
}

fn is_exact(number: &str) -> bool {
    if !number.contains(['.', 'e', 'E']) {
        return number.parse::<i64>().is_ok() || number.parse::<u64>().is_ok();
    }
    let mantissa = number.split(['e', 'E']).next().unwrap_or_default();
    let digits: String = mantissa.chars().filter(char::is_ascii_digit).collect();
    digits.trim_matches('0').len() <= MAX_DIGITS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_would_change_are_found() {
        for (text, number) in [
            (r#"{"n": 12345678901234567890123}"#, "12345678901234567890123"),
            (r#"{"n": [1, -9223372036854775809]}"#, "-9223372036854775809"),
            (r#"{"n": 18446744073709551616}"#, "18446744073709551616"),
            (r#"{"a\"": 1, "n":1234567890.123456789}"#, "1234567890.123456789"),
        ] {
            assert_eq!(inexact_number(text), Some(number), "{text}");
        }
        for text in [
            r#"{"n": 18446744073709551615, "m": -9223372036854775808}"#,
            r#"{"n": 0.30000000000000004, "m": 1e22, "o": -0, "p": 1.5E+300, "q": 0.00000000000000000000001}"#,
            r#"{"12345678901234567890123": "12345678901234567890123 \" 12345678901234567890123"}"#,
            "",
            "\"",
        ] {
            assert_eq!(inexact_number(text), None, "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn what_is_not_found_is_read_as_it_was_written(number in proptest::num::i128::ANY, bits in 0_u32..127) {
            let text = (number >> bits).to_string();
            let read: serde_json::Value = serde_json::from_str(&text).unwrap();
            let same = read.to_string();
            proptest::prop_assert_eq!(inexact_number(&text).is_none(), same == text);
        }
    }
}
