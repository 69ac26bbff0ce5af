//! The lines of a streamed answer. Calls come whole, with their arguments as an object.

use daybook_domain::usage::Usage;
use serde_json::Value;

use crate::answer::Answer;
use crate::provider::{Heard, Reader, Unread};

/// Reads them.
#[derive(Default)]
pub(super) struct Lines {
    calls: usize,
}

impl Lines {
    fn message(&mut self, message: &Value, answer: &mut Answer) {
        answer.reasoning(message["thinking"].as_str().unwrap_or_default());
        answer.text(message["content"].as_str().unwrap_or_default());
        for call in message["tool_calls"].as_array().into_iter().flatten() {
            let function = &call["function"];
            let index = answer.start_call(call["id"].as_str(), function["name"].as_str().unwrap_or_default());
            self.calls += 1;
            let arguments = match &function["arguments"] {
                Value::String(text) => text.clone(),
                Value::Null => String::new(),
                other => other.to_string(),
            };
            answer.whole_arguments(index, &arguments);
        }
    }
}

impl Reader for Lines {
    fn take(&mut self, frame: &str, answer: &mut Answer) -> Result<Heard, Unread> {
        let line = &serde_json::from_str::<Value>(frame)?;
        if line.get("error").is_some() {
            return Ok(Heard::Error(frame.to_owned()));
        }
        let Some(message) = line.get("message") else { return Ok(Heard::Nothing) };
        self.message(message, answer);
        if line["done"].as_bool() != Some(true) {
            return Ok(Heard::More);
        }
        let count = |key: &str| line[key].as_u64().unwrap_or_default();
        let (input_tokens, output_tokens) = (count("prompt_eval_count"), count("eval_count"));
        answer.usage = Usage {
            input_tokens,
            output_tokens,
            total_tokens: input_tokens.saturating_add(output_tokens),
            ..Usage::default()
        };
        let reason = line["done_reason"].as_str().unwrap_or("stop");
        let word = if reason == "stop" && self.calls > 0 { "tool_calls" } else { reason };
        answer.finish = Some(word.to_owned());
        Ok(Heard::End)
    }
}
