//! The events of a streamed response.

use std::collections::BTreeMap;

use daybook_domain::message::Replay;
use daybook_domain::usage::Usage;
use serde_json::{Value, json};

use super::PROTOCOL;
use crate::answer::Answer;
use crate::provider::{Heard, Reader, Unread};

/// Reads them.
pub(super) struct Events {
    model: String,
    /// The calls, by the place of their item in the output.
    calls: BTreeMap<u64, usize>,
    /// The items so far: thoughts as they came, words and calls by name only.
    items: BTreeMap<u64, Value>,
    /// Whether there is a thought among the items.
    thought: bool,
    /// Whether a part of the thoughts was told already: parts are set apart by an empty line.
    told_thoughts: bool,
    refused: bool,
}

impl Events {
    pub(super) fn new(model: &str) -> Self {
        Self {
            model: model.to_owned(),
            calls: BTreeMap::new(),
            items: BTreeMap::new(),
            thought: false,
            told_thoughts: false,
            refused: false,
        }
    }

    /// Thoughts are told apart by an empty line.
    fn another_thought(&mut self, answer: &mut Answer) {
        if std::mem::replace(&mut self.told_thoughts, true) {
            answer.reasoning("\n\n");
        }
    }

    fn added(&mut self, event: &Value, answer: &mut Answer) {
        let (place, item) = (place(event), &event["item"]);
        answer.begun();
        match item["type"].as_str() {
            Some("function_call") => {
                let index = answer.start_call(item["call_id"].as_str(), item["name"].as_str().unwrap_or_default());
                let id = answer.call(index).map(|call| call.id.clone());
                self.calls.insert(place, index);
                self.items.insert(place, json!({"type": "function_call", "call_id": id}));
            }
            Some("message") => drop(self.items.insert(place, json!({"type": "message"}))),
            _ => {}
        }
    }

    fn arguments(&self, event: &Value, answer: &mut Answer) {
        if let Some(index) = self.calls.get(&place(event)) {
            answer.arguments(*index, event["delta"].as_str().unwrap_or_default());
        }
    }

    fn done(&mut self, event: &Value, answer: &mut Answer) {
        let (place, item) = (place(event), &event["item"]);
        match item["type"].as_str() {
            Some("function_call") => {
                if !self.calls.contains_key(&place) {
                    self.added(event, answer);
                }
                if let Some(index) = self.calls.get(&place) {
                    answer.whole_arguments(*index, item["arguments"].as_str().unwrap_or_default());
                }
            }
            // Without its encrypted content, a thought is known to the provider only, which stored none.
            Some("reasoning") if item["encrypted_content"].is_string() => {
                let mut item = item.clone();
                if let Some(item) = item.as_object_mut() {
                    item.shift_remove("status");
                }
                self.thought = true;
                self.items.insert(place, item);
            }
            Some("message") => {
                let mut kept = json!({"type": "message"});
                if item["phase"].is_string() {
                    kept["phase"] = item["phase"].clone();
                }
                self.items.insert(place, kept);
            }
            _ => {}
        }
    }

    fn end(&mut self, response: &Value, answer: &mut Answer) {
        answer.usage = usage(&response["usage"]);
        let reason = response["incomplete_details"]["reason"].as_str();
        answer.finish = match (response["status"].as_str(), reason) {
            (Some("incomplete"), Some("max_output_tokens")) => Some("length".to_owned()),
            (Some("incomplete"), Some(reason)) => Some(reason.to_owned()),
            (Some("incomplete"), None) => Some("length".to_owned()),
            _ if self.refused => Some("refusal".to_owned()),
            _ if self.calls.is_empty() => Some("stop".to_owned()),
            _ => Some("tool_calls".to_owned()),
        };
        if self.thought {
            let items = std::mem::take(&mut self.items).into_values().collect();
            answer.replay = Some(Replay { protocol: PROTOCOL.to_owned(), model: self.model.clone(), items });
        }
    }
}

impl Reader for Events {
    fn take(&mut self, frame: &str, answer: &mut Answer) -> Result<Heard, Unread> {
        let event = &serde_json::from_str::<Value>(frame)?;
        let delta = event["delta"].as_str().unwrap_or_default();
        let response = &event["response"];
        match event["type"].as_str() {
            Some("response.created" | "response.in_progress" | "response.queued") => {
                answer.about(&[("id", response["id"].as_str())]);
            }
            Some("response.output_item.added") => self.added(event, answer),
            Some("response.output_text.delta") => answer.text(delta),
            Some("response.refusal.delta") => {
                self.refused = true;
                answer.text(delta);
            }
            Some("response.reasoning_summary_part.added") => self.another_thought(answer),
            Some("response.reasoning_summary_text.delta" | "response.reasoning_text.delta") => answer.reasoning(delta),
            Some("response.function_call_arguments.delta") => self.arguments(event, answer),
            Some("response.output_item.done") => self.done(event, answer),
            Some("response.completed" | "response.incomplete") => {
                answer.about(&[("id", response["id"].as_str())]);
                self.end(response, answer);
                return Ok(Heard::End);
            }
            Some("response.failed") => {
                return Ok(Heard::Error(json!({"error": response["error"]}).to_string()));
            }
            Some("error") => {
                // The event holds the error's members, or the error as a whole.
                let error = if event["error"].is_object() { &event["error"] } else { event };
                let error = json!({"error": {"code": error["code"], "message": error["message"]}});
                return Ok(Heard::Error(error.to_string()));
            }
            _ => {}
        }
        Ok(Heard::More)
    }
}

fn place(event: &Value) -> u64 {
    event["output_index"].as_u64().unwrap_or_default()
}

fn usage(usage: &Value) -> Usage {
    let count = |place: &str| usage.pointer(place).and_then(Value::as_u64);
    let input_tokens = count("/input_tokens").unwrap_or_default();
    let output_tokens = count("/output_tokens").unwrap_or_default();
    Usage {
        input_tokens,
        output_tokens,
        total_tokens: count("/total_tokens").unwrap_or_else(|| input_tokens.saturating_add(output_tokens)),
        cache_read_tokens: count("/input_tokens_details/cached_tokens").unwrap_or_default(),
        cache_write_tokens: count("/input_tokens_details/cache_write_tokens").unwrap_or_default(),
        reasoning_tokens: count("/output_tokens_details/reasoning_tokens").unwrap_or_default(),
    }
}
