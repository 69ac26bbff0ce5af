//! A call's result as the model gets it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use daybook_domain::media::{Media, MediaContent, MediaKind};
use rmcp::model::{CallToolResult, ContentBlock, ResourceContents, ServerResult};
use serde_json::Value;
use uuid::Uuid;

use super::words::shortened;
use crate::{ToolError, ToolOutput};

/// The longest text of a result, in bytes.
const MAX_TEXT: usize = 4 * 1024 * 1024;

/// The most media of a result, in bytes after decoding.
const MAX_MEDIA: usize = 16 * 1024 * 1024;

/// The most pieces of media of a result.
const MAX_PIECES: usize = 100;

/// What the model reads of the server's answer.
///
/// # Errors
/// That the tool failed, in its words, or that the result is too long or none.
pub(super) fn output(answer: ServerResult) -> Result<ToolOutput, ToolError> {
    match answer {
        ServerResult::CallToolResult(result) => of_result(result),
        ServerResult::EmptyResult(_) | ServerResult::TaskAckResult(_) => Ok(ToolOutput::default()),
        ServerResult::InputRequiredResult(_) => {
            Err(ToolError::failed("the tool asks a person something, which MCP servers cannot do here"))
        }
        ServerResult::CreateTaskResult(_) => Err(ToolError::failed("the tool answers later, which is not waited for")),
        ServerResult::CustomResult(result) => lenient(result.0),
        _ => Err(no_result()),
    }
}

fn no_result() -> ToolError {
    ToolError::failed("the server's result is none: it does not keep to the Model Context Protocol")
}

/// A result with parts of a kind that is not known: they are left out.
fn lenient(result: Value) -> Result<ToolOutput, ToolError> {
    let Value::Object(mut result) = result else { return Err(no_result()) };
    let parts = match result.remove("content") {
        Some(Value::Array(parts)) => parts,
        // An answer that holds nothing but what is said about it.
        None if result.keys().all(|key| key == "_meta") => Vec::new(),
        _ => return Err(no_result()),
    };
    let read = |part: Value| {
        let kind = shortened(part.get("type").and_then(Value::as_str).unwrap_or("none"), 50);
        serde_json::from_value(part)
            .unwrap_or_else(|_| ContentBlock::text(format!("[a part of the result cannot be read; its type: {kind}]")))
    };
    let mut whole = CallToolResult::default();
    whole.content = parts.into_iter().map(read).collect();
    whole.structured_content = result.remove("structuredContent");
    whole.is_error = result.get("isError").and_then(Value::as_bool);
    of_result(whole)
}

fn of_result(result: CallToolResult) -> Result<ToolOutput, ToolError> {
    let mut parts = Parts::default();
    for block in result.content {
        parts.add(block)?;
    }
    let words = parts.texts.join("\n");
    if result.is_error == Some(true) {
        let structured = || result.structured_content.as_ref().map(Value::to_string);
        let words = if words.is_empty() { structured().unwrap_or_default() } else { words };
        let words = if words.is_empty() { "the tool failed and did not say why".to_owned() } else { words };
        return Err(ToolError::failed(bounded(words)?));
    }
    let text = match result.structured_content {
        // The text parts of such a result repeat it.
        Some(structured) => structured.to_string(),
        None => words,
    };
    Ok(ToolOutput { text: bounded(text)?, media: parts.media })
}

fn bounded(text: String) -> Result<String, ToolError> {
    if text.len() > MAX_TEXT {
        return Err(ToolError::failed(format!(
            "the result has {} bytes of text, and {MAX_TEXT} are taken: ask for less",
            text.len()
        )));
    }
    Ok(text)
}

#[derive(Default)]
struct Parts {
    texts: Vec<String>,
    media: Vec<Media>,
    bytes: usize,
}

impl Parts {
    fn add(&mut self, block: ContentBlock) -> Result<(), ToolError> {
        match block {
            ContentBlock::Text(text) => self.texts.push(text.text),
            ContentBlock::Image(image) => {
                self.piece(image.data, Some(image.mime_type), None, Some(MediaKind::Image))?
            }
            ContentBlock::Audio(audio) => {
                self.piece(audio.data, Some(audio.mime_type), None, Some(MediaKind::Audio))?
            }
            ContentBlock::Resource(embedded) => match embedded.resource {
                ResourceContents::TextResourceContents { text, .. } => self.texts.push(text),
                ResourceContents::BlobResourceContents { uri, mime_type, blob, .. } => {
                    self.piece(blob, mime_type, Some(&uri), None)?;
                }
                _ => self.texts.push("[a resource of an unknown kind]".to_owned()),
            },
            ContentBlock::ResourceLink(link) => self.texts.push(match link.description {
                Some(description) => format!("{}: {} ({description})", link.name, link.uri),
                None => format!("{}: {}", link.name, link.uri),
            }),
            _ => self.texts.push("[a part of an unknown kind]".to_owned()),
        }
        Ok(())
    }

    fn piece(
        &mut self,
        data: String,
        mime_type: Option<String>,
        uri: Option<&str>,
        kind: Option<MediaKind>,
    ) -> Result<(), ToolError> {
        let data = match STANDARD.decode(&data) {
            Ok(bytes) => self.weigh(bytes.len()).map(|()| data)?,
            // Some break the lines.
            Err(_) => match STANDARD.decode(data.split_ascii_whitespace().collect::<String>()) {
                Ok(bytes) => self.weigh(bytes.len()).map(|()| STANDARD.encode(bytes))?,
                Err(_) => {
                    self.texts.push("[a picture or file is left out: its data are no base64]".to_owned());
                    return Ok(());
                }
            },
        };
        let mime_type = mime_type.filter(|mime| !mime.is_empty()).map(|mime| mime.to_ascii_lowercase());
        self.media.push(Media {
            id: Uuid::now_v7().to_string(),
            kind: kind.unwrap_or_else(|| kind_of(mime_type.as_deref().unwrap_or_default())),
            format: mime_type.as_deref().and_then(|mime| mime.split_once('/')).map(|(_, subtype)| subtype.to_owned()),
            filename: uri.and_then(last_segment),
            mime_type,
            content: MediaContent::Base64(data),
            metadata: None,
        });
        Ok(())
    }

    fn weigh(&mut self, bytes: usize) -> Result<(), ToolError> {
        self.bytes += bytes;
        if self.bytes > MAX_MEDIA || self.media.len() >= MAX_PIECES {
            return Err(ToolError::failed(format!(
                "the result has more than {MAX_PIECES} pictures and files or {MAX_MEDIA} bytes of them: ask for less"
            )));
        }
        Ok(())
    }
}

fn kind_of(mime_type: &str) -> MediaKind {
    match mime_type.split_once('/').map(|(kind, _)| kind) {
        Some("image") => MediaKind::Image,
        Some("audio") => MediaKind::Audio,
        Some("video") => MediaKind::Video,
        _ => MediaKind::File,
    }
}

fn last_segment(uri: &str) -> Option<String> {
    let path = uri.split(['?', '#']).next()?.trim_end_matches('/');
    path.rsplit('/').next().filter(|name| !name.is_empty() && !name.contains(':')).map(|name| shortened(name, 200))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(result: Value) -> Result<ToolOutput, ToolError> {
        output(serde_json::from_value(result).unwrap())
    }

    #[test]
    fn texts_are_joined_and_structured_results_stand_for_them() {
        let texts = json!([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]);
        assert_eq!(read(json!({"content": texts})).unwrap().text, "a\nb");
        let structured = json!({"content": texts, "structuredContent": {"b": 1, "a": [2]}});
        assert_eq!(read(structured).unwrap().text, r#"{"b":1,"a":[2]}"#);
        assert_eq!(read(json!({})).unwrap(), ToolOutput::default());
        assert_eq!(read(json!({"_meta": {"a": 1}})).unwrap(), ToolOutput::default());
    }

    #[test]
    fn pictures_sounds_and_files_are_media() {
        let output = read(json!({"content": [
            {"type": "image", "data": "AAEC", "mimeType": "image/PNG"},
            {"type": "audio", "data": "AA\nEC", "mimeType": "audio/wav"},
            {"type": "resource", "resource": {"uri": "file:///a/b.pdf?x=1", "blob": "AAEC", "mimeType": "application/pdf"}},
            {"type": "resource", "resource": {"uri": "demo://x", "text": "words"}},
            {"type": "resource_link", "uri": "https://example.com/a", "name": "A"},
            {"type": "image", "data": "!", "mimeType": "image/png"},
        ]}))
        .unwrap();
        assert_eq!(
            output.text,
            "words\nA: https://example.com/a\n[a picture or file is left out: its data are no base64]"
        );
        let of = |at: usize| {
            (output.media[at].kind, output.media[at].mime_type.as_deref(), output.media[at].content.clone())
        };
        let data = MediaContent::Base64("AAEC".to_owned());
        assert_eq!(of(0), (MediaKind::Image, Some("image/png"), data.clone()));
        assert_eq!(of(1), (MediaKind::Audio, Some("audio/wav"), data.clone()));
        assert_eq!(of(2), (MediaKind::File, Some("application/pdf"), data));
        assert_eq!(output.media[2].filename.as_deref(), Some("b.pdf"));
        assert_eq!(output.media[0].format.as_deref(), Some("png"));
    }

    #[test]
    fn failures_are_told_in_the_tools_words() {
        let failed = |content: Value| read(json!({"content": content, "isError": true})).unwrap_err().to_string();
        assert_eq!(failed(json!([{"type": "text", "text": "no disk"}])), "no disk");
        assert_eq!(failed(json!([])), "the tool failed and did not say why");
    }

    #[test]
    fn parts_of_a_kind_not_known_are_told_and_other_answers_refused() {
        let text =
            read(json!({"content": [{"type": "text", "text": "a"}, {"type": "hologram", "x": 1}]})).unwrap().text;
        assert_eq!(text, "a\n[a part of the result cannot be read; its type: hologram]");
        for nonsense in [json!("a"), json!(5), json!({"content": "a"}), json!({"other": 1})] {
            assert!(read(nonsense.clone()).is_err(), "{nonsense}");
        }
    }

    #[test]
    fn results_are_bounded() {
        let text = read(json!({"content": [{"type": "text", "text": "x".repeat(MAX_TEXT + 1)}]})).unwrap_err();
        assert!(text.to_string().contains("ask for less"));
        let image = json!({"type": "image", "data": "A".repeat(12 * 1024 * 1024), "mimeType": "image/png"});
        assert!(read(json!({"content": [image]})).is_ok());
        assert!(read(json!({"content": [image, image]})).unwrap_err().to_string().contains("ask for less"));
    }
}
