//! The chunks of a streamed answer. Calls come whole; a signature comes with the part it belongs to.

use daybook_domain::message::Replay;
use daybook_domain::usage::Usage;
use serde_json::{Value, json};

use super::PROTOCOL;
use crate::answer::Answer;
use crate::port::ModelError;
use crate::provider::{Ending, Heard, Reader, Unread};

/// Reads them.
pub(super) struct Chunks {
    model: String,
    /// The signatures, each with the call it came with, if it came with one; calls that have an id without signature too.
    items: Vec<Value>,
    calls: usize,
    finished: bool,
}

impl Chunks {
    pub(super) fn new(model: &str) -> Self {
        Self { model: model.to_owned(), items: Vec::new(), calls: 0, finished: false }
    }

    fn part(&mut self, part: &Value, answer: &mut Answer) {
        let signature = part.get("thoughtSignature").filter(|signature| signature.is_string());
        if let Some(call) = part.get("functionCall") {
            let id = call["id"].as_str().filter(|id| !id.is_empty());
            let index = answer.start_call(id, call["name"].as_str().unwrap_or_default());
            self.calls += 1;
            let arguments = match &call["args"] {
                // Kept as it came, for the model to be told what is wrong with it.
                Value::String(text) => text.clone(),
                Value::Null => String::new(),
                other => other.to_string(),
            };
            answer.whole_arguments(index, &arguments);
            let ours = answer.call(index).map(|call| call.id.clone());
            if signature.is_some() || id.is_some() {
                let mut item = json!({"call": ours});
                if let Some(id) = id {
                    item["id"] = id.into();
                }
                if let Some(signature) = signature {
                    item["thoughtSignature"] = signature.clone();
                }
                self.items.push(item);
            }
            return;
        }
        let text = part["text"].as_str().unwrap_or_default();
        if part["thought"].as_bool() == Some(true) {
            answer.reasoning(text);
            return;
        }
        answer.text(text);
        if let Some(signature) = signature {
            answer.begun();
            self.items.push(json!({"thoughtSignature": signature}));
        }
    }

    fn finish(&mut self, candidate: &Value, answer: &mut Answer) -> Result<(), ModelError> {
        let Some(reason) = candidate["finishReason"].as_str() else { return Ok(()) };
        self.finished = true;
        let told = candidate["finishMessage"].as_str();
        let word = match reason {
            "STOP" if self.calls > 0 => "tool_calls",
            "STOP" => "stop",
            "MAX_TOKENS" => "length",
            "SAFETY" | "RECITATION" | "LANGUAGE" | "BLOCKLIST" | "PROHIBITED_CONTENT" | "SPII" | "IMAGE_SAFETY" => {
                answer.refusal = Some(told.unwrap_or(reason).to_owned());
                "content_filter"
            }
            "MALFORMED_FUNCTION_CALL" | "UNEXPECTED_TOOL_CALL" | "MALFORMED_RESPONSE" | "MISSING_THOUGHT_SIGNATURE" => {
                let told = told.map(|told| format!(": {told}")).unwrap_or_default();
                return Err(ModelError::Malformed(format!("the provider ended it with {reason}{told}")));
            }
            other => other,
        };
        answer.finish = Some(word.to_owned());
        Ok(())
    }
}

impl Reader for Chunks {
    fn take(&mut self, frame: &str, answer: &mut Answer) -> Result<Heard, Unread> {
        let chunk = &serde_json::from_str::<Value>(frame)?;
        if chunk.get("error").is_some() {
            return Ok(Heard::Error(frame.to_owned()));
        }
        answer.about(&[("id", chunk["responseId"].as_str())]);
        if let Some(usage) = chunk.get("usageMetadata") {
            answer.usage = tokens(usage);
        }
        if let Some(reason) = chunk.pointer("/promptFeedback/blockReason").and_then(Value::as_str) {
            let told = chunk.pointer("/promptFeedback/blockReasonMessage").and_then(Value::as_str);
            return Err(ModelError::Refused(told.unwrap_or(reason).to_owned()).into());
        }
        let Some(candidate) = chunk.pointer("/candidates/0") else { return Ok(Heard::Nothing) };
        for part in candidate.pointer("/content/parts").and_then(Value::as_array).into_iter().flatten() {
            self.part(part, answer);
        }
        self.finish(candidate, answer)?;
        if !self.items.is_empty() {
            let (protocol, model) = (PROTOCOL.to_owned(), self.model.clone());
            answer.replay = Some(Replay { protocol, model, items: self.items.clone() });
        }
        Ok(Heard::More)
    }

    /// There is no last chunk but the one after which nothing comes.
    fn closed(&mut self, _: &mut Answer) -> Ending {
        if self.finished { Ending::Whole } else { Ending::Broken }
    }
}

/// Gemini counts thoughts apart from what was said, and what tools of its own read apart from the prompt.
fn tokens(usage: &Value) -> Usage {
    let count = |key: &str| usage[key].as_u64().unwrap_or_default();
    let input_tokens = count("promptTokenCount").saturating_add(count("toolUsePromptTokenCount"));
    let output_tokens = count("candidatesTokenCount").saturating_add(count("thoughtsTokenCount"));
    Usage {
        input_tokens,
        output_tokens,
        total_tokens: usage["totalTokenCount"].as_u64().unwrap_or_else(|| input_tokens.saturating_add(output_tokens)),
        cache_read_tokens: count("cachedContentTokenCount"),
        cache_write_tokens: 0,
        reasoning_tokens: count("thoughtsTokenCount"),
    }
}
