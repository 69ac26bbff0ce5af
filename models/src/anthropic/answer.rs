//! The events of a streamed message.

use std::collections::BTreeMap;

use daybook_domain::message::Replay;
use daybook_domain::usage::Usage;
use serde_json::{Value, json};

use super::PROTOCOL;
use crate::answer::Answer;
use crate::provider::{Heard, Reader, Unread};

/// A block that is not done yet.
enum Block {
    Text,
    Thinking { thinking: String, signature: String },
    Call { index: usize, input: Value },
}

/// Reads them.
pub(super) struct Events {
    model: String,
    open: BTreeMap<u64, Block>,
    /// All blocks so far: thoughts as they came, words and calls by name only.
    items: Vec<Value>,
    thought: bool,
    tokens: Tokens,
}

/// What Anthropic counts. Its input tokens leave out what a cache had part in.
#[derive(Default)]
struct Tokens {
    input: u64,
    cache_read: u64,
    cache_write: u64,
    output: u64,
    thinking: u64,
}

impl Events {
    pub(super) fn new(model: &str) -> Self {
        Self {
            model: model.to_owned(),
            open: BTreeMap::new(),
            items: Vec::new(),
            thought: false,
            tokens: Tokens::default(),
        }
    }

    fn start(&mut self, event: &Value, answer: &mut Answer) {
        let (index, block) = (index(event), &event["content_block"]);
        let text = |key: &str| block[key].as_str().unwrap_or_default();
        answer.begun();
        match block["type"].as_str() {
            Some("text") => {
                answer.text(text("text"));
                self.items.push(json!({"type": "text"}));
                self.open.insert(index, Block::Text);
            }
            Some("thinking") => {
                answer.reasoning(text("thinking"));
                let (thinking, signature) = (text("thinking").to_owned(), text("signature").to_owned());
                self.open.insert(index, Block::Thinking { thinking, signature });
            }
            Some("redacted_thinking") => {
                self.thought = true;
                self.items.push(block.clone());
            }
            Some("tool_use") => {
                let at = answer.start_call(block["id"].as_str(), text("name"));
                let id = answer.call(at).map(|call| call.id.clone());
                self.items.push(json!({"type": "tool_use", "id": id}));
                self.open.insert(index, Block::Call { index: at, input: block["input"].clone() });
            }
            // What only comes when it was asked for, such as searches on the provider's side.
            _ => {}
        }
    }

    fn delta(&mut self, event: &Value, answer: &mut Answer) {
        let delta = &event["delta"];
        let text = |key: &str| delta[key].as_str().unwrap_or_default();
        match (self.open.get_mut(&index(event)), delta["type"].as_str()) {
            (Some(Block::Text), Some("text_delta")) => answer.text(text("text")),
            (Some(Block::Thinking { thinking, .. }), Some("thinking_delta")) => {
                thinking.push_str(text("thinking"));
                answer.reasoning(text("thinking"));
            }
            (Some(Block::Thinking { signature, .. }), Some("signature_delta")) => {
                signature.push_str(text("signature"));
            }
            (Some(Block::Call { index, .. }), Some("input_json_delta")) => {
                answer.arguments(*index, text("partial_json"));
            }
            _ => {}
        }
    }

    fn stop(&mut self, event: &Value, answer: &mut Answer) {
        match self.open.remove(&index(event)) {
            Some(Block::Thinking { thinking, signature }) => {
                self.thought = true;
                self.items.push(json!({"type": "thinking", "thinking": thinking, "signature": signature}));
            }
            // Some gateways tell the whole input at the start.
            Some(Block::Call { index, input }) => {
                let whole = if input.is_object() { input.to_string() } else { String::new() };
                answer.whole_arguments(index, &whole);
            }
            Some(Block::Text) | None => {}
        }
    }

    fn usage(&mut self, usage: &Value, answer: &mut Answer) {
        let told = |key: &str, kept: &mut u64| *kept = usage[key].as_u64().unwrap_or(*kept);
        let tokens = &mut self.tokens;
        told("input_tokens", &mut tokens.input);
        told("cache_read_input_tokens", &mut tokens.cache_read);
        told("cache_creation_input_tokens", &mut tokens.cache_write);
        told("output_tokens", &mut tokens.output);
        tokens.thinking = usage["output_tokens_details"]["thinking_tokens"].as_u64().unwrap_or(tokens.thinking);
        let input_tokens = tokens.input.saturating_add(tokens.cache_read).saturating_add(tokens.cache_write);
        answer.usage = Usage {
            input_tokens,
            output_tokens: tokens.output,
            total_tokens: input_tokens.saturating_add(tokens.output),
            cache_read_tokens: tokens.cache_read,
            cache_write_tokens: tokens.cache_write,
            reasoning_tokens: tokens.thinking,
        };
    }

    fn stopped(delta: &Value, answer: &mut Answer) {
        let Some(reason) = delta["stop_reason"].as_str() else { return };
        let word = match reason {
            "end_turn" | "stop_sequence" => "stop",
            "tool_use" => "tool_calls",
            "max_tokens" | "model_context_window_exceeded" => "length",
            other => other,
        };
        answer.finish = Some(word.to_owned());
        let details = &delta["stop_details"];
        if reason == "refusal" {
            let why = ["explanation", "category"].iter().find_map(|key| details[*key].as_str());
            answer.refusal = why.map(str::to_owned);
        }
    }
}

impl Reader for Events {
    fn take(&mut self, frame: &str, answer: &mut Answer) -> Result<Heard, Unread> {
        let event = &serde_json::from_str::<Value>(frame)?;
        match event["type"].as_str() {
            Some("message_start") => {
                answer.about(&[("id", event["message"]["id"].as_str())]);
                self.usage(&event["message"]["usage"], answer);
            }
            Some("content_block_start") => self.start(event, answer),
            Some("content_block_delta") => self.delta(event, answer),
            Some("content_block_stop") => self.stop(event, answer),
            Some("message_delta") => {
                self.usage(&event["usage"], answer);
                Self::stopped(&event["delta"], answer);
            }
            Some("message_stop") => {
                if self.thought {
                    let (protocol, model) = (PROTOCOL.to_owned(), self.model.clone());
                    answer.replay = Some(Replay { protocol, model, items: std::mem::take(&mut self.items) });
                }
                return Ok(Heard::End);
            }
            Some("error") => return Ok(Heard::Error(frame.to_owned())),
            Some("ping") => {}
            _ => return Ok(Heard::Nothing),
        }
        Ok(Heard::More)
    }
}

fn index(event: &Value) -> u64 {
    event["index"].as_u64().unwrap_or_default()
}
