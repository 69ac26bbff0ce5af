//! A request as Ollama takes it.

use daybook_domain::media::Media;
use daybook_domain::message::{Message, ToolCall};
use serde_json::{Map, Value, json};

use super::Ollama;
use crate::conversation::{Conversation, Outcome, Turn};
use crate::media::{self, Piece};
use crate::options::Effort;
use crate::port::{ChatRequest, ModelError};
use crate::text::sendable_arguments;

impl Ollama {
    pub(super) fn write(&self, request: &ChatRequest) -> Result<Value, ModelError> {
        let conversation = Conversation::of(&request.messages)?;
        let mut body = Map::new();
        let mut set = |key: &str, value: Value| drop(body.insert(key.to_owned(), value));
        set("model", self.model.as_str().into());
        set("stream", true.into());
        set("messages", Value::Array(messages(&conversation)?));
        if !request.tools.is_empty() {
            let tool = |tool: &daybook_domain::tool::ToolSpec| {
                json!({"type": "function", "function":
                    {"name": tool.name, "description": tool.description, "parameters": tool.parameters}})
            };
            set("tools", request.tools.iter().map(tool).collect());
        }
        if let Some(output) = &request.output_schema {
            set("format", Value::Object(output.schema.clone()));
        }
        if let Some(reasoning) = self.reasoning {
            set(
                "think",
                match reasoning.effort {
                    Some(Effort::None) => false.into(),
                    Some(effort) => effort.as_str().into(),
                    None => true.into(),
                },
            );
        }
        if let Some(time) = &self.keep_alive {
            // A bare number is a count of seconds there, a text has a unit.
            set("keep_alive", time.parse::<i64>().map_or_else(|_| time.as_str().into(), Value::from));
        }
        let options = self.options(request);
        if !options.is_empty() {
            set("options", Value::Object(options));
        }
        Ok(Value::Object(body))
    }

    fn options(&self, request: &ChatRequest) -> Map<String, Value> {
        let mut options = Map::new();
        if let Some(temperature) = request.temperature {
            options.insert("temperature".to_owned(), temperature.into());
        }
        if let Some(most) = request.max_tokens.or(self.max_tokens) {
            options.insert("num_predict".to_owned(), most.into());
        }
        if let Some(size) = self.context_tokens {
            options.insert("num_ctx".to_owned(), size.into());
        }
        options
    }
}

fn messages(conversation: &Conversation<'_>) -> Result<Vec<Value>, ModelError> {
    let mut messages = Vec::with_capacity(conversation.turns.len() + 1);
    if !conversation.system.is_empty() {
        messages.push(json!({"role": "system", "content": conversation.system}));
    }
    for turn in &conversation.turns {
        match turn {
            Turn::User(message) => {
                messages.push(said("user", message.content.as_deref().unwrap_or_default(), &message.media)?);
            }
            Turn::Assistant(message) => messages.push(answered(message)),
            Turn::Outcomes(all) => {
                for outcome in all {
                    messages.push(tool_message(outcome)?);
                }
            }
        }
    }
    Ok(messages)
}

/// What was said with what came with it: pictures as bytes, documents as words.
fn said(role: &str, text: &str, all: &[Media]) -> Result<Value, ModelError> {
    let (mut content, mut images) = (text.to_owned(), Vec::new());
    for media in all {
        let words = match media::sort(media)? {
            Piece::Image { data, .. } => {
                images.push(data);
                continue;
            }
            Piece::ImageUrl(_) => {
                let why = "Ollama takes pictures as bytes only, not by their address: send the picture itself";
                return Err(ModelError::Unsupported(why.to_owned()));
            }
            Piece::Text(text) => media::document(media, &text),
            Piece::Bytes { .. } | Piece::Url { .. } => media::unreadable(media),
        };
        if !content.is_empty() {
            content.push_str("\n\n");
        }
        content.push_str(&words);
    }
    let mut message = json!({"role": role, "content": content});
    if !images.is_empty() {
        message["images"] = json!(images);
    }
    Ok(message)
}

/// Thoughts that led to calls go back with them; the model's template decides what it does with them.
fn answered(message: &Message) -> Value {
    let mut answered = json!({"role": "assistant", "content": message.content.as_deref().unwrap_or_default()});
    if !message.tool_calls.is_empty() {
        if let Some(thoughts) = &message.reasoning {
            answered["thinking"] = thoughts.as_str().into();
        }
        answered["tool_calls"] = message.tool_calls.iter().map(tool_call).collect();
    }
    answered
}

fn tool_call(call: &ToolCall) -> Value {
    let arguments: Value = serde_json::from_str(&sendable_arguments(call)).unwrap_or_else(|_| json!({}));
    json!({"id": call.id, "function": {"name": call.name, "arguments": arguments}})
}

fn tool_message(outcome: &Outcome<'_>) -> Result<Value, ModelError> {
    let mut message = said("tool", outcome.text, outcome.media)?;
    message["tool_name"] = outcome.tool.into();
    message["tool_call_id"] = outcome.call_id.into();
    Ok(message)
}
