//! A request as the Messages API takes it.

use daybook_domain::media::Media;
use daybook_domain::message::{Message, ToolCall};
use serde_json::{Map, Value, json};

use super::{Anthropic, PROTOCOL};
use crate::conversation::{Conversation, Outcome, Turn, replayed};
use crate::media::{self, Piece};
use crate::options::{CacheTime, Effort, Reasoning};
use crate::port::{ChatRequest, ModelError};
use crate::schema;
use crate::text::sendable_arguments;

/// The pictures Claude sees.
const IMAGES: [&str; 4] = ["image/jpeg", "image/png", "image/gif", "image/webp"];

impl Anthropic {
    pub(super) fn write(&self, request: &ChatRequest) -> Result<Value, ModelError> {
        let conversation = Conversation::of(&request.messages)?;
        let max_tokens = request.max_tokens.unwrap_or(self.max_tokens);
        let mut body = Map::new();
        body.insert("model".to_owned(), self.model.as_str().into());
        body.insert("max_tokens".to_owned(), max_tokens.into());
        body.insert("stream".to_owned(), true.into());
        if !conversation.system.trim().is_empty() {
            body.insert("system".to_owned(), conversation.system.as_str().into());
        }
        body.insert("messages".to_owned(), Value::Array(self.messages(&conversation.turns)?));
        if !request.tools.is_empty() {
            let tool = |tool: &daybook_domain::tool::ToolSpec| json!({"name": tool.name, "description": tool.description, "input_schema": tool.parameters});
            body.insert("tools".to_owned(), request.tools.iter().map(tool).collect());
        }
        if let Some(temperature) = request.temperature {
            body.insert("temperature".to_owned(), temperature.into());
        }
        if let Some(thinking) = self.thinking(max_tokens)? {
            body.insert("thinking".to_owned(), thinking);
        }
        let config = self.output_config(request);
        if !config.is_empty() {
            body.insert("output_config".to_owned(), Value::Object(config));
        }
        // At the top it marks the last block of every request, so each call reads what the one before wrote.
        if let Some(time) = self.prompt_cache {
            let ttl = if time == CacheTime::OneHour { "1h" } else { "5m" };
            body.insert("cache_control".to_owned(), json!({"type": "ephemeral", "ttl": ttl}));
        }
        Ok(Value::Object(body))
    }

    fn thinking(&self, max_tokens: u64) -> Result<Option<Value>, ModelError> {
        let Some(Reasoning { effort, budget_tokens, show }) = self.reasoning else { return Ok(None) };
        if effort == Some(Effort::None) {
            return Ok(Some(json!({"type": "disabled"})));
        }
        let mut thinking = Map::new();
        match budget_tokens {
            None => {
                thinking.insert("type".to_owned(), "adaptive".into());
            }
            Some(budget) if budget >= max_tokens => {
                return Err(ModelError::Unsupported(format!(
                    "max_tokens is {max_tokens}, which leaves no room for a thinking budget of {budget}"
                )));
            }
            Some(budget) => {
                thinking.insert("type".to_owned(), "enabled".into());
                thinking.insert("budget_tokens".to_owned(), budget.into());
            }
        }
        let display = if show.unwrap_or(true) { "summarized" } else { "omitted" };
        thinking.insert("display".to_owned(), display.into());
        Ok(Some(Value::Object(thinking)))
    }

    fn output_config(&self, request: &ChatRequest) -> Map<String, Value> {
        let mut config = Map::new();
        let effort = self.reasoning.and_then(|reasoning| reasoning.effort).filter(|effort| *effort != Effort::None);
        if let Some(effort) = effort {
            config.insert("effort".to_owned(), effort.as_str().into());
        }
        if let Some(output) = &request.output_schema {
            let schema = schema::closed(&output.schema);
            config.insert("format".to_owned(), json!({"type": "json_schema", "schema": schema}));
        }
        config
    }

    /// The turns, with the person's and the tools' joined: after calls, a turn must begin with their outcomes.
    fn messages(&self, turns: &[Turn<'_>]) -> Result<Vec<Value>, ModelError> {
        let mut messages: Vec<(&str, Vec<Value>)> = Vec::new();
        for turn in turns {
            let (role, blocks) = match turn {
                Turn::User(message) => ("user", said(message)?),
                Turn::Assistant(message) => ("assistant", self.answered(message)),
                Turn::Outcomes(all) => ("user", all.iter().map(outcome).collect::<Result<Vec<_>, _>>()?),
            };
            if blocks.is_empty() {
                continue;
            }
            match messages.last_mut() {
                Some((last, before)) if *last == role => before.extend(blocks),
                _ => messages.push((role, blocks)),
            }
        }
        Ok(messages.into_iter().map(|(role, content)| json!({"role": role, "content": content})).collect())
    }

    /// The model's turn: as it was, thoughts and all, where it is this model's; else its words, then its calls.
    fn answered(&self, message: &Message) -> Vec<Value> {
        let mut text = text_block(message.content.as_deref().unwrap_or_default());
        let mut calls: Vec<&ToolCall> = message.tool_calls.iter().collect();
        let mut blocks = Vec::new();
        for item in replayed(message, PROTOCOL, &self.model) {
            match item.get("type").and_then(Value::as_str) {
                Some("text") => blocks.extend(text.take()),
                Some("tool_use") => {
                    let id = item.get("id").and_then(Value::as_str);
                    if let Some(at) = calls.iter().position(|call| Some(call.id.as_str()) == id) {
                        blocks.push(tool_use(calls.remove(at)));
                    }
                }
                _ => blocks.push(item.clone()),
            }
        }
        blocks.extend(text);
        blocks.extend(calls.into_iter().map(tool_use));
        blocks
    }
}

/// A block of text; none for an empty one, which the protocol refuses.
fn text_block(text: &str) -> Option<Value> {
    (!text.trim().is_empty()).then(|| json!({"type": "text", "text": text}))
}

fn tool_use(call: &ToolCall) -> Value {
    let input: Value = serde_json::from_str(&sendable_arguments(call)).unwrap_or_else(|_| json!({}));
    json!({"type": "tool_use", "id": plain_id(&call.id), "name": call.name, "input": input})
}

/// An id as the protocol takes it: other providers' ids may hold what it refuses.
fn plain_id(id: &str) -> String {
    id.chars().map(|c| if c.is_ascii_alphanumeric() || c == '-' || c == '_' { c } else { '_' }).collect()
}

fn said(message: &Message) -> Result<Vec<Value>, ModelError> {
    let mut blocks = message.media.iter().map(block).collect::<Result<Vec<_>, _>>()?;
    blocks.extend(text_block(message.content.as_deref().unwrap_or_default()));
    if blocks.is_empty() {
        blocks.push(json!({"type": "text", "text": "[an empty message]"}));
    }
    Ok(blocks)
}

fn outcome(outcome: &Outcome<'_>) -> Result<Value, ModelError> {
    let mut content: Vec<Value> = text_block(outcome.text).into_iter().collect();
    for media in outcome.media {
        content.push(block(media)?);
    }
    let mut result = json!({"type": "tool_result", "tool_use_id": plain_id(outcome.call_id), "content": content});
    if outcome.failed {
        result["is_error"] = true.into();
    }
    Ok(result)
}

fn block(media: &Media) -> Result<Value, ModelError> {
    let note = || json!({"type": "text", "text": media::unreadable(media)});
    Ok(match media::sort(media)? {
        Piece::Image { mime, data } if IMAGES.contains(&mime.as_str()) => {
            json!({"type": "image", "source": {"type": "base64", "media_type": mime, "data": data}})
        }
        Piece::ImageUrl(url) => json!({"type": "image", "source": {"type": "url", "url": url}}),
        Piece::Text(text) if text.trim().is_empty() => note(),
        Piece::Text(text) => document(media, json!({"type": "text", "media_type": "text/plain", "data": text})),
        Piece::Bytes { mime, data } if mime == "application/pdf" => {
            document(media, json!({"type": "base64", "media_type": mime, "data": data}))
        }
        Piece::Url { mime, url } if mime == "application/pdf" => document(media, json!({"type": "url", "url": url})),
        Piece::Image { .. } | Piece::Bytes { .. } | Piece::Url { .. } => note(),
    })
}

fn document(media: &Media, source: Value) -> Value {
    match &media.filename {
        Some(name) => json!({"type": "document", "source": source, "title": name}),
        None => json!({"type": "document", "source": source}),
    }
}
