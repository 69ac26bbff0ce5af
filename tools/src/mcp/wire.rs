//! Lines of a server's standard output as messages. A line that cannot be used ends the call it answers, where that can be
//! told, and never the wait for it in a timeout.

use rmcp::model::{ErrorCode, ErrorData, NumberOrString, ServerJsonRpcMessage};
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

/// The longest message, in bytes: the largest result a call may have, and room for how it is written.
pub(super) const MAX_MESSAGE: usize = 32 * 1024 * 1024;

/// The message of a line; nothing when the line is none and answers nothing.
pub(super) fn message(line: &[u8]) -> Option<ServerJsonRpcMessage> {
    if line.iter().all(u8::is_ascii_whitespace) {
        return None;
    }
    match serde_json::from_slice(line) {
        Ok(message) => Some(message),
        Err(fault) => {
            let id = answered(line);
            // Not the line itself: it may hold anything.
            tracing::debug!(bytes = line.len(), answers = id.is_some(), fault = ?fault.classify(), "no MCP message");
            Some(refusal(id?, "the server's answer is no answer of the Model Context Protocol"))
        }
    }
}

/// The answer to the call whose real answer was too long.
pub(super) fn too_long(start: &[u8], end: &[u8]) -> Option<ServerJsonRpcMessage> {
    let id = id_at_start(start).or_else(|| id_at_end(end))?;
    Some(refusal(id, &format!("the answer is longer than {} MiB: ask for less", MAX_MESSAGE / 1024 / 1024)))
}

fn refusal(id: i64, words: &str) -> ServerJsonRpcMessage {
    let error = ErrorData::new(ErrorCode::INTERNAL_ERROR, words.to_owned(), None);
    ServerJsonRpcMessage::error(error, Some(NumberOrString::Number(id)))
}

/// Which call a line answers that is JSON but no message.
fn answered(line: &[u8]) -> Option<i64> {
    #[derive(Deserialize)]
    struct Answer<'a> {
        id: i64,
        #[serde(borrow, default)]
        method: Option<&'a RawValue>,
    }
    let answer: Answer<'_> = serde_json::from_slice(line).ok()?;
    answer.method.is_none().then_some(answer.id)
}

/// The id in `{"jsonrpc":"2.0","id":7,`. Other members may come first; they hold no ids then.
fn id_at_start(start: &[u8]) -> Option<i64> {
    let text: String = String::from_utf8_lossy(start).chars().filter(|c| !c.is_whitespace()).collect();
    let rest = text.strip_prefix("{\"jsonrpc\":\"2.0\",\"id\":").or_else(|| text.strip_prefix("{\"id\":"))?;
    digits(rest.split_once(',')?.0)
}

/// The id in `,"jsonrpc":"2.0","id":7}`: what follows the last brace but one of a message is its own.
fn id_at_end(end: &[u8]) -> Option<i64> {
    let text: String = String::from_utf8_lossy(end).chars().filter(|c| !c.is_whitespace()).collect();
    let members = text.strip_suffix('}')?.rsplit_once('}')?.1;
    let value: Value = serde_json::from_str(&format!("{{{}}}", members.trim_start_matches(','))).ok()?;
    value.get("id")?.as_i64()
}

fn digits(text: &str) -> Option<i64> {
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id_of(message: Option<ServerJsonRpcMessage>) -> Option<Value> {
        message.map(|message| serde_json::to_value(message).unwrap()["id"].clone())
    }

    #[test]
    fn what_is_no_message_is_passed_over_or_answers_its_call() {
        for line in
            ["", "  ", "Listening on port 3000", "[1,2", "\u{0}\u{1}", "{\"method\":5,\"id\":1}", "{\"id\":\"a\"}"]
        {
            assert_eq!(message(line.as_bytes()).map(|message| format!("{message:?}")), None, "{line}");
        }
        assert_eq!(id_of(message(br#"{"jsonrpc":"2.0","id":4}"#)), Some(4.into()));
        assert_eq!(id_of(message(br#"{"jsonrpc":"2.0","id":5,"error":"no"}"#)), Some(5.into()));
        assert_eq!(id_of(message(br#"{"jsonrpc":"2.0","id":6,"result":{}}"#)), Some(6.into()));
        let deep = format!(r#"{{"jsonrpc":"2.0","id":7,"result":{}{}}}"#, "[".repeat(10_000), "]".repeat(10_000));
        message(deep.as_bytes());
    }

    #[test]
    fn the_call_that_a_long_answer_is_for_is_found_at_either_end() {
        let id = |start: &str, end: &str| id_of(too_long(start.as_bytes(), end.as_bytes()));
        assert_eq!(id(r#"{"jsonrpc": "2.0", "id": 3, "result": {"co"#, "x"), Some(3.into()));
        assert_eq!(id(r#"{"result":{"content":[{"#, r#"xx"}]},"jsonrpc":"2.0","id":8}"#), Some(8.into()));
        assert_eq!(id(r#"{"result":{"content":[{"#, r#"{"id":8}]}}"#), None);
        assert_eq!(id(r#"{"result":{"id":5,"#, "xxx"), None);
    }
}
