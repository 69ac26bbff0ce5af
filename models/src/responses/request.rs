//! A request as the Responses API takes it.

use daybook_domain::media::Media;
use daybook_domain::message::{Message, ToolCall};
use daybook_domain::output::OutputSchema;
use serde_json::{Map, Value, json};

use super::{PROTOCOL, Responses};
use crate::conversation::{Conversation, Outcome, Turn, replayed};
use crate::media::{self, Piece};
use crate::options::Effort;
use crate::port::{ChatRequest, ModelError};
use crate::schema;
use crate::text::sendable_arguments;

impl Responses {
    pub(super) fn write(&self, request: &ChatRequest) -> Result<Value, ModelError> {
        let conversation = Conversation::of(&request.messages)?;
        let mut body = Map::new();
        let mut set = |key: &str, value: Value| drop(body.insert(key.to_owned(), value));
        set("model", self.model.as_str().into());
        set("stream", true.into());
        set("store", false.into());
        if !conversation.system.is_empty() {
            set("instructions", conversation.system.as_str().into());
        }
        set("input", Value::Array(self.input(&conversation.turns)?));
        if !request.tools.is_empty() {
            // Strict tools would need schemas of one kind only; arguments are checked where tools are called.
            let tool = |tool: &daybook_domain::tool::ToolSpec| {
                json!({"type": "function", "name": tool.name, "description": tool.description,
                    "parameters": tool.parameters, "strict": false})
            };
            set("tools", request.tools.iter().map(tool).collect());
        }
        if let Some(temperature) = request.temperature {
            set("temperature", temperature.into());
        }
        if let Some(most) = request.max_tokens.or(self.max_tokens) {
            set("max_output_tokens", most.into());
        }
        if self.thinks() {
            set("include", json!(["reasoning.encrypted_content"]));
        }
        if let Some(reasoning) = self.reasoning() {
            set("reasoning", reasoning);
        }
        if let Some(output) = &request.output_schema {
            set("text", json!({"format": format(output)}));
        }
        if let Some(key) = &self.prompt_cache_key {
            set("prompt_cache_key", key.as_str().into());
        }
        Ok(Value::Object(body))
    }

    fn reasoning(&self) -> Option<Value> {
        let given = self.reasoning?;
        let mut reasoning = Map::new();
        if let Some(effort) = given.effort {
            reasoning.insert("effort".to_owned(), effort.as_str().into());
        }
        if given.show.unwrap_or(true) && given.effort != Some(Effort::None) {
            reasoning.insert("summary".to_owned(), "auto".into());
        }
        (!reasoning.is_empty()).then_some(Value::Object(reasoning))
    }

    fn input(&self, turns: &[Turn<'_>]) -> Result<Vec<Value>, ModelError> {
        let mut input = Vec::new();
        for turn in turns {
            match turn {
                Turn::User(message) => input.push(json!({"role": "user", "content": said(message)?})),
                Turn::Assistant(message) => self.answered(message, &mut input),
                Turn::Outcomes(all) => {
                    for outcome in all {
                        input.push(output(outcome)?);
                    }
                }
            }
        }
        Ok(input)
    }

    /// The model's turn: with its encrypted thoughts where they were, if they are this model's.
    fn answered(&self, message: &Message, input: &mut Vec<Value>) {
        let mut text = message.content.as_deref().filter(|text| !text.is_empty());
        let mut calls: Vec<&ToolCall> = message.tool_calls.iter().collect();
        for item in replayed(message, PROTOCOL, &self.model) {
            match item["type"].as_str() {
                Some("message") => {
                    input.extend(text.take().map(|text| match item.get("phase") {
                        Some(phase) => json!({"role": "assistant", "content": text, "phase": phase}),
                        None => json!({"role": "assistant", "content": text}),
                    }));
                }
                Some("function_call") => {
                    let id = item["call_id"].as_str();
                    if let Some(at) = calls.iter().position(|call| Some(call.id.as_str()) == id) {
                        input.push(function_call(calls.remove(at)));
                    }
                }
                _ => input.push(item.clone()),
            }
        }
        input.extend(text.map(|text| json!({"role": "assistant", "content": text})));
        input.extend(calls.into_iter().map(function_call));
    }
}

fn format(output: &OutputSchema) -> Value {
    let schema = schema::closed(&output.schema);
    let strict = output.strict && schema::fits_strict(&schema);
    json!({"type": "json_schema", "name": schema::name(&output.name), "schema": schema, "strict": strict})
}

fn function_call(call: &ToolCall) -> Value {
    json!({"type": "function_call", "call_id": call.id, "name": call.name, "arguments": sendable_arguments(call)})
}

fn said(message: &Message) -> Result<Value, ModelError> {
    let text = message.content.as_deref().unwrap_or_default();
    if message.media.is_empty() {
        return Ok(text.into());
    }
    let mut parts = Vec::with_capacity(message.media.len() + 1);
    if !text.is_empty() {
        parts.push(text_part(text));
    }
    for media in &message.media {
        parts.push(part(media)?);
    }
    Ok(Value::Array(parts))
}

fn output(outcome: &Outcome<'_>) -> Result<Value, ModelError> {
    let output = if outcome.media.is_empty() {
        Value::from(outcome.text)
    } else {
        let mut parts = vec![text_part(outcome.text)];
        for media in outcome.media {
            parts.push(part(media)?);
        }
        Value::Array(parts)
    };
    Ok(json!({"type": "function_call_output", "call_id": outcome.call_id, "output": output}))
}

fn text_part(text: &str) -> Value {
    json!({"type": "input_text", "text": text})
}

fn part(media: &Media) -> Result<Value, ModelError> {
    let image = |url: &str| json!({"type": "input_image", "image_url": url, "detail": "auto"});
    Ok(match media::sort(media)? {
        Piece::Text(text) => text_part(&media::document(media, &text)),
        Piece::ImageUrl(url) => image(url),
        Piece::Image { mime, data } => image(&format!("data:{mime};base64,{data}")),
        Piece::Bytes { mime, data } if mime == "application/pdf" => json!({
            "type": "input_file",
            "filename": media.filename.as_deref().unwrap_or("document.pdf"),
            "file_data": format!("data:{mime};base64,{data}"),
        }),
        Piece::Url { mime, url } if mime == "application/pdf" => json!({"type": "input_file", "file_url": url}),
        Piece::Bytes { .. } | Piece::Url { .. } => text_part(&media::unreadable(media)),
    })
}
