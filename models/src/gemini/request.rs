//! A request as Gemini takes it.

use std::collections::BTreeMap;

use daybook_domain::media::Media;
use daybook_domain::message::{Message, ToolCall};
use serde_json::{Map, Value, json};

use super::{Gemini, PROTOCOL};
use crate::conversation::{Conversation, Outcome, Turn, replayed};
use crate::media::{self, Piece};
use crate::options::{Effort, Reasoning};
use crate::port::{ChatRequest, ModelError};
use crate::text::sendable_arguments;

/// The provider's own ids of calls, by ours: an outcome carries the id of its call, where there was one.
type Ids<'a> = BTreeMap<&'a str, &'a str>;

impl Gemini {
    pub(super) fn write(&self, request: &ChatRequest) -> Result<Value, ModelError> {
        let conversation = Conversation::of(&request.messages)?;
        let mut body = Map::new();
        if !conversation.system.is_empty() {
            body.insert("systemInstruction".to_owned(), json!({"parts": [{"text": conversation.system}]}));
        }
        body.insert("contents".to_owned(), Value::Array(self.contents(&conversation.turns)?));
        if !request.tools.is_empty() {
            let tool = |tool: &daybook_domain::tool::ToolSpec| json!({"name": tool.name, "description": tool.description, "parametersJsonSchema": tool.parameters});
            let all: Vec<Value> = request.tools.iter().map(tool).collect();
            body.insert("tools".to_owned(), json!([{"functionDeclarations": all}]));
        }
        let generation = self.generation(request);
        if !generation.is_empty() {
            body.insert("generationConfig".to_owned(), Value::Object(generation));
        }
        Ok(Value::Object(body))
    }

    fn generation(&self, request: &ChatRequest) -> Map<String, Value> {
        let mut config = Map::new();
        let mut set = |key: &str, value: Value| drop(config.insert(key.to_owned(), value));
        if let Some(temperature) = request.temperature {
            set("temperature", temperature.into());
        }
        if let Some(most) = request.max_tokens.or(self.max_tokens) {
            set("maxOutputTokens", most.into());
        }
        if let Some(output) = &request.output_schema {
            set("responseMimeType", "application/json".into());
            set("responseJsonSchema", Value::Object(output.schema.clone()));
        }
        if let Some(Reasoning { effort, budget_tokens, show }) = self.reasoning {
            let mut thinking = match (effort, budget_tokens) {
                (Some(Effort::None), _) => json!({"thinkingBudget": 0}),
                (Some(effort), _) => json!({"thinkingLevel": effort.as_str()}),
                (None, Some(budget)) => json!({"thinkingBudget": budget}),
                (None, None) => json!({}),
            };
            if show.unwrap_or(true) && effort != Some(Effort::None) {
                thinking["includeThoughts"] = true.into();
            }
            set("thinkingConfig", thinking);
        }
        config
    }

    /// The turns, with the person's and the tools' joined: they have the same role.
    fn contents(&self, turns: &[Turn<'_>]) -> Result<Vec<Value>, ModelError> {
        let mut ids = Ids::new();
        let mut contents: Vec<(&str, Vec<Value>)> = Vec::new();
        for turn in turns {
            let (role, parts) = match turn {
                Turn::User(message) => ("user", said(message)?),
                Turn::Assistant(message) => ("model", self.answered(message, &mut ids)),
                Turn::Outcomes(all) => ("user", outcomes(all, &ids)?),
            };
            if parts.is_empty() {
                continue;
            }
            match contents.last_mut() {
                Some((last, before)) if *last == role => before.extend(parts),
                _ => contents.push((role, parts)),
            }
        }
        Ok(contents.into_iter().map(|(role, parts)| json!({"role": role, "parts": parts})).collect())
    }

    /// The model's turn, each part with the signature it came with, if it is this model's.
    fn answered<'a>(&self, message: &'a Message, ids: &mut Ids<'a>) -> Vec<Value> {
        let text = message.content.as_deref().filter(|text| !text.is_empty());
        let mut parts: Vec<Value> = text.map(|text| json!({"text": text})).into_iter().collect();
        let items = replayed(message, PROTOCOL, &self.model);
        // A signature of the words came after them, in a part of its own.
        let of_words = items.iter().filter(|item| item.get("call").is_none());
        parts.extend(of_words.map(|item| json!({"text": "", "thoughtSignature": item["thoughtSignature"]})));
        for call in &message.tool_calls {
            let item = items.iter().find(|item| item["call"].as_str() == Some(&call.id));
            let id = item.and_then(|item| item["id"].as_str());
            if let Some(id) = id {
                ids.insert(&call.id, id);
            }
            parts.push(function_call(call, id, item.and_then(|item| item.get("thoughtSignature"))));
        }
        parts
    }
}

fn function_call(call: &ToolCall, id: Option<&str>, signature: Option<&Value>) -> Value {
    let args: Value = serde_json::from_str(&sendable_arguments(call)).unwrap_or_else(|_| json!({}));
    let mut part = json!({"functionCall": {"name": call.name, "args": args}});
    if let Some(id) = id {
        part["functionCall"]["id"] = id.into();
    }
    if let Some(signature) = signature {
        part["thoughtSignature"] = signature.clone();
    }
    part
}

/// The outcomes, then what the tools returned besides: not every model takes media inside an outcome.
fn outcomes(all: &[Outcome<'_>], ids: &Ids<'_>) -> Result<Vec<Value>, ModelError> {
    let mut parts = Vec::with_capacity(all.len());
    for outcome in all {
        let key = if outcome.failed { "error" } else { "output" };
        let mut response = json!({"name": outcome.tool, "response": {key: outcome.text}});
        if let Some(id) = ids.get(outcome.call_id) {
            response["id"] = (*id).into();
        }
        parts.push(json!({"functionResponse": response}));
    }
    for outcome in all.iter().filter(|outcome| !outcome.media.is_empty()) {
        parts.push(text_part(&media::returned_by(outcome.tool)));
        for media in outcome.media {
            parts.push(part(media)?);
        }
    }
    Ok(parts)
}

fn said(message: &Message) -> Result<Vec<Value>, ModelError> {
    let mut parts = message.media.iter().map(part).collect::<Result<Vec<_>, _>>()?;
    let text = message.content.as_deref().unwrap_or_default();
    if !text.is_empty() || parts.is_empty() {
        parts.push(text_part(text));
    }
    Ok(parts)
}

fn text_part(text: &str) -> Value {
    json!({"text": text})
}

fn part(media: &Media) -> Result<Value, ModelError> {
    let readable = |mime: &str| {
        mime == "application/pdf" || ["image/", "audio/", "video/"].iter().any(|kind| mime.starts_with(kind))
    };
    Ok(match media::sort(media)? {
        Piece::Text(text) => text_part(&media::document(media, &text)),
        Piece::Image { mime, data } => json!({"inlineData": {"mimeType": mime, "data": data}}),
        Piece::Bytes { mime, data } if readable(&mime) => json!({"inlineData": {"mimeType": mime, "data": data}}),
        Piece::ImageUrl(url) => json!({"fileData": {"mimeType": media::mime_type(media), "fileUri": url}}),
        Piece::Url { mime, url } if readable(&mime) => json!({"fileData": {"mimeType": mime, "fileUri": url}}),
        Piece::Bytes { .. } | Piece::Url { .. } => text_part(&media::unreadable(media)),
    })
}
