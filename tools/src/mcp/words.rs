//! Words of servers, as they are told to others.

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
    fn texts_are_cut_at_characters() {
        assert_eq!(shortened(" a\nü¢d ", 3), "a ü…");
        assert_eq!(shortened("abc", 3), "abc");
    }
}
