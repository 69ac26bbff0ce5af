//! What messages look like. Clients of the recorded API read the events of what they started as SSE blocks in text
//! messages, and everything else as JSON; who chooses an encoding in the address gets that one for everything.

use daybook_engine::Frame;
use poem_openapi::Enum;
use serde_json::Value;

use crate::errors::{ApiError, At};
use crate::params::{Raw, text};
use crate::wire::events::sse;
use crate::wire::spaced;

/// One encoding for all messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
#[oai(rename_all = "lowercase")]
pub(super) enum Encoding {
    /// A JSON object.
    Json,
    /// An SSE block, `event: NAME` and `data: {json}`.
    Sse,
}

impl Encoding {
    /// Reads the query's choice.
    ///
    /// # Errors
    /// 422 for another word.
    pub fn read(raw: &Option<Raw<Self>>) -> Result<Option<Self>, ApiError> {
        match text(raw) {
            None => Ok(None),
            Some("json") => Ok(Some(Self::Json)),
            Some("sse") => Ok(Some(Self::Sse)),
            Some(other) => Err(At("query", "encoding").no_word(other, "'json' or 'sse'")),
        }
    }

    /// A message about the connection or a watch.
    pub fn control(self, message: &Value) -> String {
        let json = spaced(message);
        match self {
            Self::Json => json,
            Self::Sse => block(message["event"].as_str().unwrap_or_default(), &json),
        }
    }

    /// A frame of a run.
    pub fn frame(self, frame: &Frame) -> String {
        // The frame's own watchers share these bytes.
        let bytes = sse(frame);
        let text = std::str::from_utf8(&bytes).unwrap_or_default();
        let line = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
        let json = apart(line("data: "));
        match self {
            Self::Json => json,
            Self::Sse => block(line("event: "), &json),
        }
    }
}

fn block(name: &str, json: &str) -> String {
    format!("event: {name}\ndata: {json}\n\n")
}

/// Compact JSON with a space after commas and colons, as these messages carry it.
fn apart(json: &str) -> String {
    let mut out = String::with_capacity(json.len() + json.len() / 8);
    let (mut in_text, mut escaped) = (false, false);
    for letter in json.chars() {
        out.push(letter);
        match letter {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => in_text = !in_text,
            ',' | ':' if !in_text => out.push(' '),
            _ => {}
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use daybook_engine::FrameBody;
    use serde_json::json;

    use super::*;
    use crate::wire::events::tests::meta;

    #[test]
    fn spaces_stand_outside_of_texts_only() {
        let value = json!({"a": [1, 2.5, null], "b\"c": {"d,e": "f:g,\\", "h": "\\\""}, "i": true, "j": []});
        assert_eq!(apart(&value.to_string()), spaced(&value));
    }

    #[test]
    fn a_frame_is_a_block_or_json() {
        let frame = Frame::new(3, 17, meta(), FrameBody::ContentCompleted);
        let json = "{\"created_at\": 17, \"event\": \"RunContentCompleted\", \"agent_id\": \"my-agent\", \
            \"agent_name\": \"My Agent\", \"run_id\": \"r1\", \"session_id\": \"s1\", \"nested_depth\": 0, \
            \"event_index\": 3}";
        assert_eq!(Encoding::Json.frame(&frame), json);
        assert_eq!(Encoding::Sse.frame(&frame), format!("event: RunContentCompleted\ndata: {json}\n\n"));
    }

    #[test]
    fn a_control_message_is_a_block_or_json() {
        let pong = json!({"event": "pong"});
        assert_eq!(Encoding::Json.control(&pong), "{\"event\": \"pong\"}");
        assert_eq!(Encoding::Sse.control(&pong), "event: pong\ndata: {\"event\": \"pong\"}\n\n");
    }
}
