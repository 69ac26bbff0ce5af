//! Text as PostgreSQL takes it.

use std::borrow::Cow;

/// `text` with U+0000, which PostgreSQL's text type refuses, shown as U+FFFD.
pub(crate) fn clean(text: &str) -> Cow<'_, str> {
    if text.contains('\0') { Cow::Owned(text.replace('\0', "\u{FFFD}")) } else { Cow::Borrowed(text) }
}

/// At most the first `chars` characters, cleaned.
pub(crate) fn cut(text: &str, chars: usize) -> String {
    text.chars().take(chars).map(|c| if c == '\0' { '\u{FFFD}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_becomes_the_replacement_character() {
        assert_eq!(clean("a\0b"), "a\u{FFFD}b");
        assert_eq!(clean("plain"), "plain");
        assert_eq!(cut("äb\0c", 3), "äb\u{FFFD}");
    }
}
