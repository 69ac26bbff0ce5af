//! Texts of bounded length.

/// The text, or as much of it as fits `most` bytes, with a mark where it was cut.
pub(crate) fn clip(text: &str, most: usize) -> String {
    if text.len() <= most {
        return text.to_owned();
    }
    let cut = text.floor_char_boundary(most);
    format!("{}… ({} bytes in all)", &text[..cut], text.len())
}
