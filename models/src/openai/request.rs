//! A request as chat completions take it.

use daybook_domain::media::Media;
use daybook_domain::message::{Message, Role};
use daybook_domain::output::OutputSchema;
use daybook_domain::tool::ToolSpec;
use serde_json::{Map, Value, json};

use super::Chat;
use crate::media::{self, Piece};
use crate::port::{ChatRequest, ModelError};
use crate::schema;
use crate::text::sendable_arguments;

impl Chat {
    pub(super) fn write(&self, request: &ChatRequest) -> Result<Value, ModelError> {
        let mut body = Map::new();
        let mut set = |key: &str, value: Value| drop(body.insert(key.to_owned(), value));
        set("model", self.model.as_str().into());
        set("messages", Value::Array(messages(&request.messages)?));
        if !request.tools.is_empty() {
            set("tools", request.tools.iter().map(tool).collect::<Result<_, _>>()?);
        }
        if let Some(temperature) = request.temperature {
            set("temperature", temperature.into());
        }
        if let Some(most) = request.max_tokens.or(self.max_tokens) {
            set(self.limit(), most.into());
        }
        if let Some(effort) = self.effort {
            set("reasoning_effort", effort.as_str().into());
        }
        if let Some(key) = &self.prompt_cache_key {
            set("prompt_cache_key", key.as_str().into());
        }
        if let Some(output) = &request.output_schema {
            set("response_format", response_format(output));
        }
        set("stream_options", json!({"include_usage": true}));
        set("stream", true.into());
        Ok(Value::Object(body))
    }
}

fn tool(tool: &ToolSpec) -> Result<Value, ModelError> {
    if tool.name.is_empty() {
        return Err(ModelError::Unsupported("a tool has no name: give every tool one".to_owned()));
    }
    let function = json!({"name": tool.name, "description": tool.description, "parameters": tool.parameters});
    Ok(json!({"type": "function", "function": function}))
}

/// Strict where the schema is of the kind OpenAI can hold an answer to.
fn response_format(output: &OutputSchema) -> Value {
    let schema = schema::closed(&output.schema);
    let strict = output.strict && schema::fits_strict(&schema);
    json!({"type": "json_schema", "json_schema": {"name": schema::name(&output.name), "schema": schema, "strict": strict}})
}

/// `messages` as the protocol writes them.
fn messages(messages: &[Message]) -> Result<Vec<Value>, ModelError> {
    if messages.is_empty() {
        return Err(ModelError::Unsupported("there is no message to answer".to_owned()));
    }
    let mut out = Vec::with_capacity(messages.len());
    let mut from_tools = Vec::new();
    for message in messages {
        if message.role != Role::Tool {
            flush_tool_media(&mut out, &mut from_tools);
        }
        let text = message.content.as_deref().unwrap_or_default();
        match message.role {
            Role::System => out.push(json!({"role": "system", "content": text})),
            Role::User if message.media.is_empty() => out.push(json!({"role": "user", "content": text})),
            Role::User => {
                let mut parts = Vec::with_capacity(message.media.len() + 1);
                if !text.is_empty() {
                    parts.push(text_part(text));
                }
                for media in &message.media {
                    parts.push(media_part(media)?);
                }
                out.push(json!({"role": "user", "content": parts}));
            }
            Role::Assistant => out.push(assistant(message)),
            Role::Tool => {
                let Some(answers) = &message.answers else {
                    return Err(ModelError::Unsupported(format!("tool message {} answers no call", message.id)));
                };
                out.push(json!({"role": "tool", "tool_call_id": answers.call_id, "content": text}));
                for media in &message.media {
                    from_tools.push(text_part(&format!("[returned by the tool {}]", answers.tool)));
                    from_tools.push(media_part(media)?);
                }
            }
        }
    }
    flush_tool_media(&mut out, &mut from_tools);
    Ok(out)
}

/// A tool message holds text only, so what tools returned besides follows their answers as a user message.
fn flush_tool_media(out: &mut Vec<Value>, parts: &mut Vec<Value>) {
    if !parts.is_empty() {
        out.push(json!({"role": "user", "content": std::mem::take(parts)}));
    }
}

fn assistant(message: &Message) -> Value {
    if message.tool_calls.is_empty() {
        return json!({"role": "assistant", "content": message.content.as_deref().unwrap_or_default()});
    }
    let calls: Vec<Value> = message
        .tool_calls
        .iter()
        .map(|call| {
            let function = json!({"name": call.name, "arguments": sendable_arguments(call)});
            json!({"id": call.id, "type": "function", "function": function})
        })
        .collect();
    json!({"role": "assistant", "content": message.content, "tool_calls": calls})
}

fn text_part(text: &str) -> Value {
    json!({"type": "text", "text": text})
}

/// One piece of media as the part that carries it, or as a text that names it when no part can.
fn media_part(media: &Media) -> Result<Value, ModelError> {
    let image = |url: &str| json!({"type": "image_url", "image_url": {"url": url}});
    Ok(match media::sort(media)? {
        Piece::Text(text) => text_part(&media::document(media, &text)),
        Piece::ImageUrl(url) => image(url),
        Piece::Image { mime, data } => image(&format!("data:{mime};base64,{data}")),
        Piece::Bytes { mime, data } => match audio_format(&mime) {
            Some(format) => json!({"type": "input_audio", "input_audio": {"data": data, "format": format}}),
            None if mime == "application/pdf" => json!({"type": "file", "file": {
                "filename": media.filename.as_deref().unwrap_or("document.pdf"),
                "file_data": format!("data:application/pdf;base64,{data}"),
            }}),
            None => text_part(&media::unreadable(media)),
        },
        Piece::Url { .. } => text_part(&media::unreadable(media)),
    })
}

fn audio_format(mime: &str) -> Option<&'static str> {
    match mime {
        "audio/wav" | "audio/x-wav" | "audio/wave" | "audio/vnd.wave" => Some("wav"),
        "audio/mp3" | "audio/mpeg" => Some("mp3"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use daybook_domain::media::{MediaContent, MediaKind};
    use daybook_domain::message::{Answered, ToolCall};

    use super::*;

    fn message(role: Role, content: &str) -> Message {
        Message {
            id: "m".into(),
            role,
            content: Some(content.into()),
            reasoning: None,
            tool_calls: vec![],
            answers: None,
            whole: None,
            repair: false,
            media: vec![],
            provider_data: None,
            replay: None,
            metrics: None,
            created_at: 0,
        }
    }

    fn media(kind: MediaKind, mime: &str, name: &str, content: MediaContent) -> Media {
        Media {
            id: "x".into(),
            kind,
            mime_type: Some(mime.into()),
            filename: Some(name.into()),
            format: None,
            content,
            metadata: None,
        }
    }

    fn base64(text: &str) -> MediaContent {
        MediaContent::Base64(STANDARD.encode(text))
    }

    #[test]
    fn a_conversation_with_tools_keeps_ids_and_arguments() {
        let call =
            |id: &str, arguments: &str| ToolCall { id: id.into(), name: "add".into(), arguments: arguments.into() };
        let mut asked = message(Role::Assistant, "");
        asked.content = None;
        let long = "call_0123456789012345678901234567890123456789012345678901234567890123456789";
        asked.tool_calls = vec![call(long, "{\"a\": 1.0,  \"b\":2}"), call("c2", "{\"a\": oops"), call("c3", "")];
        let mut answer = message(Role::Tool, "3");
        answer.answers =
            Some(Answered { call_id: long.into(), tool: "add".into(), arguments: Value::Null, failed: false });
        let sent = messages(&[message(Role::System, "be brief"), message(Role::User, "hi"), asked, answer]).unwrap();
        assert_eq!(sent[0], json!({"role": "system", "content": "be brief"}));
        assert_eq!(sent[1], json!({"role": "user", "content": "hi"}));
        assert_eq!(sent[2]["content"], Value::Null);
        assert_eq!(sent[2]["tool_calls"][0]["id"], long);
        assert_eq!(sent[2]["tool_calls"][0]["function"]["arguments"], "{\"a\": 1.0,  \"b\":2}");
        assert_eq!(sent[2]["tool_calls"][1]["function"]["arguments"], r#"{"invalid_arguments":"{\"a\": oops"}"#);
        assert_eq!(sent[2]["tool_calls"][2]["function"]["arguments"], "{}");
        assert_eq!(sent[3], json!({"role": "tool", "tool_call_id": long, "content": "3"}));
    }

    #[test]
    fn media_go_as_parts_or_are_named() {
        let mut asked = message(Role::User, "look");
        asked.media = vec![
            media(MediaKind::Image, "image/jpeg", "a.jpg", MediaContent::Base64("QUJD".into())),
            media(MediaKind::Image, "image/png", "b.png", MediaContent::Url("https://x/b.png".into())),
            media(MediaKind::File, "text/csv; charset=utf-8", "c.csv", base64("a,b")),
            media(MediaKind::File, "text/plain", "d.txt", MediaContent::Text("hello".into())),
            media(MediaKind::File, "application/pdf", "e.pdf", MediaContent::Base64("JVBERg==".into())),
            media(MediaKind::Audio, "audio/wav", "f.wav", MediaContent::Base64("UklGRg==".into())),
            media(MediaKind::Audio, "audio/flac", "g.flac", MediaContent::Base64("ZkxhQw==".into())),
            media(MediaKind::Video, "video/mp4", "h.mp4", MediaContent::Base64("AAAA".into())),
        ];
        let sent = messages(&[asked]).unwrap();
        let parts = sent[0]["content"].as_array().unwrap();
        assert_eq!(parts[0], json!({"type": "text", "text": "look"}));
        assert_eq!(parts[1]["image_url"]["url"], "data:image/jpeg;base64,QUJD");
        assert_eq!(parts[2]["image_url"]["url"], "https://x/b.png");
        assert_eq!(parts[3]["text"], "[file c.csv]\na,b");
        assert_eq!(parts[4]["text"], "[file d.txt]\nhello");
        assert_eq!(parts[5]["file"]["filename"], "e.pdf");
        assert_eq!(parts[5]["file"]["file_data"], "data:application/pdf;base64,JVBERg==");
        assert_eq!(parts[6]["input_audio"], json!({"data": "UklGRg==", "format": "wav"}));
        assert_eq!(parts[7]["text"], "[attached file g.flac (audio/flac), not readable by this model]");
        assert_eq!(parts[8]["text"], "[attached file h.mp4 (video/mp4), not readable by this model]");
    }

    #[test]
    fn what_tools_return_besides_text_follows_their_answers() {
        let answer = |id: &str, media: Vec<Media>| {
            let mut answer = message(Role::Tool, "done");
            answer.answers =
                Some(Answered { call_id: id.into(), tool: "draw".into(), arguments: Value::Null, failed: false });
            answer.media = media;
            answer
        };
        let picture = media(MediaKind::Image, "image/png", "p.png", MediaContent::Base64("QUJD".into()));
        let sent = messages(&[answer("c1", vec![picture]), answer("c2", vec![]), message(Role::User, "next")]).unwrap();
        let roles: Vec<&str> = sent.iter().map(|message| message["role"].as_str().unwrap()).collect();
        assert_eq!(roles, ["tool", "tool", "user", "user"]);
        assert_eq!(sent[2]["content"][1]["type"], "image_url");
    }

    #[test]
    fn what_cannot_be_sent_is_refused() {
        assert!(matches!(messages(&[]), Err(ModelError::Unsupported(_))));
        assert!(matches!(messages(&[message(Role::Tool, "x")]), Err(ModelError::Unsupported(_))));
        let mut asked = message(Role::User, "look");
        let blob = MediaContent::Blob { hash: "ab".into(), len: 1, text: false };
        asked.media = vec![media(MediaKind::Image, "image/png", "a.png", blob)];
        assert!(matches!(messages(&[asked]), Err(ModelError::Unsupported(_))));
    }
}
