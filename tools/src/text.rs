//! Texts of bounded length.

use crate::ToolError;

/// The fault of a tool in the words of another that stands in front of it: by the name that the model knows.
pub(crate) fn renamed(fault: ToolError, own: &str, known: &str) -> ToolError {
    match fault {
        ToolError::Arguments(words) => {
            let rest = words.strip_prefix(own).filter(|rest| rest.starts_with(" was not called"));
            ToolError::Arguments(rest.map(|rest| format!("{known}{rest}")).unwrap_or(words))
        }
        other => other,
    }
}

/// The text, or as much of it as fits `most` bytes, with a mark where it was cut.
pub(crate) fn clip(text: &str, most: usize) -> String {
    if text.len() <= most {
        return text.to_owned();
    }
    let cut = text.floor_char_boundary(most);
    format!("{}… ({} bytes in all)", &text[..cut], text.len())
}
