//! Small helpers for texts that others wrote: bounded, harmless to print.

use daybook_domain::message::ToolCall;
use serde_json::json;
use uuid::Uuid;

/// The longest provider message that is passed on, in bytes.
pub(crate) const MAX_MESSAGE_BYTES: usize = 2048;
/// The longest excerpt of an answer nobody understood, in bytes.
pub(crate) const MAX_EXCERPT_BYTES: usize = 200;

/// `text` cut to at most `limit` bytes at a character boundary, control characters but newlines replaced by spaces.
pub(crate) fn bounded(text: &str, limit: usize) -> String {
    let text = text.trim();
    let cut = text.floor_char_boundary(limit);
    let mut short: String = text[..cut].chars().map(|c| if c.is_control() && c != '\n' { ' ' } else { c }).collect();
    if cut < text.len() {
        short.push('…');
    }
    short
}

/// An id for a tool call whose provider gave none.
pub(crate) fn fresh_call_id() -> String {
    format!("call_{}", Uuid::now_v7().simple())
}

/// The arguments as they were written, when they are an object. Several servers refuse a whole conversation for one
/// call whose arguments are not, so such arguments go back inside an object.
pub(crate) fn sendable_arguments(call: &ToolCall) -> String {
    if call.arguments.trim().is_empty() {
        return "{}".to_owned();
    }
    match call.parsed() {
        Ok(_) => call.arguments.clone(),
        Err(_) => json!({"invalid_arguments": call.arguments}).to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::bounded;

    #[test]
    fn long_text_is_cut_between_characters() {
        assert_eq!(bounded("  añb\u{7}c  ", 100), "añb c");
        assert_eq!(bounded("añb", 2), "a…");
    }
}
