//! Media that come with a run: files of a multipart form, and media given as JSON.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use daybook_domain::media::{Media, MediaContent, MediaKind};
use serde_json::{Map, Value};
use uuid::Uuid;

use super::media_types::{ending, is_text, of_file};
use crate::errors::{ApiError, At};
use crate::forms::Upload;

/// The most media of a run.
pub(super) const MAX_MEDIA: usize = 50;

/// The longest address of a piece of media, in bytes.
const MAX_URL: usize = 8192;

/// The files of a form, with what is kept with them by position.
///
/// # Errors
/// 400 for a type no run takes, 422 for metadata that are no objects.
pub(super) fn uploaded(files: Vec<Upload>, metadata: Vec<Value>) -> Result<Vec<Media>, ApiError> {
    let at = At("body", "files_metadata");
    if metadata.len() > files.len() {
        return Err(at.wrong("more entries than files", metadata.len().into()));
    }
    let kept = metadata.into_iter().map(|entry| match entry {
        Value::Null => Ok(None),
        Value::Object(map) => Ok(Some(map)),
        other => Err(at.wrong("expected a JSON list of objects", other)),
    });
    let mut kept = kept.collect::<Result<Vec<_>, _>>()?.into_iter();
    files.into_iter().map(|file| upload(file, kept.next().flatten())).collect()
}

fn upload(file: Upload, metadata: Option<Map<String, Value>>) -> Result<Media, ApiError> {
    let known = of_file(file.content_type.as_deref(), &file.name);
    let (mime_type, kind) = known.ok_or_else(|| ApiError::bad("Unsupported file type"))?;
    Ok(Media {
        id: Uuid::now_v7().to_string(),
        kind,
        mime_type: Some(mime_type.to_owned()),
        format: ending(&file.name).or_else(|| subtype(mime_type)),
        filename: Some(file.name).filter(|name| !name.is_empty()),
        content: content(file.bytes, mime_type),
        metadata,
    })
}

/// Bytes as text where they are, else as base64.
fn content(bytes: Vec<u8>, mime_type: &str) -> MediaContent {
    if !is_text(mime_type) {
        return MediaContent::Base64(STANDARD.encode(bytes));
    }
    match String::from_utf8(bytes) {
        Ok(text) => MediaContent::Text(text),
        Err(error) => MediaContent::Base64(STANDARD.encode(error.as_bytes())),
    }
}

fn subtype(mime_type: &str) -> Option<String> {
    mime_type.split_once('/').map(|(_, subtype)| subtype.to_owned())
}

/// A piece of media given as JSON in `field`.
///
/// # Errors
/// 422 when it is no object, or has not exactly one of an address and bytes.
pub(super) fn given(field: &str, kind: MediaKind, value: Value) -> Result<Media, ApiError> {
    let at = At("body", field);
    let Value::Object(map) = value else { return Err(at.wrong("expected a JSON list of objects", value)) };
    let text = |name: &str| map.get(name).and_then(Value::as_str).filter(|text| !text.is_empty()).map(str::to_owned);
    if map.get("filepath").is_some_and(|path| !path.is_null()) {
        return Err(at.wrong("files of the server cannot be sent: give url or content", Value::Null));
    }
    let mime_type = text("mime_type").map(|mime| mime.to_ascii_lowercase());
    let content = match (text("url"), map.get("content").filter(|content| !content.is_null())) {
        (Some(url), None) => address(at, url)?,
        (None, Some(Value::String(bytes))) => bytes_given(at, kind, bytes, mime_type.as_deref())?,
        (None, Some(_)) => return Err(at.wrong("content must be base64 in a string", Value::Null)),
        _ => return Err(at.wrong("each needs exactly one of url and content", Value::Null)),
    };
    let filename = text("filename").or_else(|| text("name"));
    let format = text("format").or_else(|| filename.as_deref().and_then(ending));
    Ok(Media {
        id: text("id").unwrap_or_else(|| Uuid::now_v7().to_string()),
        kind,
        format: format.or_else(|| mime_type.as_deref().and_then(subtype)),
        mime_type,
        filename,
        content,
        metadata: map.get("metadata").and_then(Value::as_object).cloned(),
    })
}

fn address(at: At, url: String) -> Result<MediaContent, ApiError> {
    let web = ["https://", "http://"].iter().any(|scheme| url.starts_with(scheme));
    if !web || url.len() > MAX_URL || url.chars().any(|c| c.is_control() || c.is_whitespace()) {
        let start: String = url.chars().take(200).collect();
        return Err(at.wrong(format!("a url starts with http and has at most {MAX_URL} bytes"), start.into()));
    }
    Ok(MediaContent::Url(url))
}

/// Base64, or for documents the text itself, which is how clients of the AgentOS API send it.
fn bytes_given(at: At, kind: MediaKind, text: &str, mime_type: Option<&str>) -> Result<MediaContent, ApiError> {
    match STANDARD.decode(text) {
        Ok(bytes) => Ok(content(bytes, mime_type.unwrap_or_default())),
        Err(_) if kind == MediaKind::File => Ok(MediaContent::Text(text.to_owned())),
        Err(error) => Err(at.wrong(format!("content is not base64: {error}"), Value::Null)),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn file(name: &str, content_type: Option<&str>, bytes: &[u8]) -> Upload {
        Upload { name: name.to_owned(), content_type: content_type.map(str::to_owned), bytes: bytes.to_vec() }
    }

    #[test]
    fn files_become_text_or_base64() {
        let files = vec![
            file("a.txt", Some("text/plain"), b"hello"),
            file("a.png", Some("image/png"), b"\x89PNG"),
            file("b.txt", None, b"\xff\xfe"),
        ];
        let media = uploaded(files, vec![json!({"k": "v"})]).unwrap();
        assert_eq!(media[0].content, MediaContent::Text("hello".to_owned()));
        assert_eq!((media[0].format.as_deref(), media[0].filename.as_deref()), (Some("txt"), Some("a.txt")));
        assert_eq!(Value::from(media[0].metadata.clone()), json!({"k": "v"}));
        assert_eq!((media[1].kind, &media[1].metadata), (MediaKind::Image, &None));
        assert_eq!(media[1].content, MediaContent::Base64("iVBORw==".to_owned()));
        assert_eq!(media[2].content, MediaContent::Base64("//4=".to_owned()));
    }

    #[test]
    fn what_no_run_takes_is_refused() {
        assert!(matches!(uploaded(vec![file("a.exe", None, b"MZ")], vec![]), Err(ApiError::Bad(_))));
        let one = || vec![file("a.txt", None, b"x")];
        assert!(uploaded(one(), vec![json!(1)]).is_err());
        assert!(uploaded(one(), vec![json!({}), json!({})]).is_err());
    }

    #[test]
    fn media_given_as_json_have_an_address_or_bytes() {
        let image = |value| given("images", MediaKind::Image, value);
        let url = image(json!({"url": "https://x.example/a.png", "content": null, "filepath": null})).unwrap();
        assert_eq!(url.content, MediaContent::Url("https://x.example/a.png".to_owned()));
        let bytes = image(json!({"content": "iVBORw==", "mime_type": "image/png", "id": "i1"})).unwrap();
        assert_eq!((bytes.id.as_str(), bytes.format.as_deref()), ("i1", Some("png")));
        for wrong in [
            json!("x"),
            json!({}),
            json!({"url": "https://x.example", "content": "iVBORw=="}),
            json!({"content": "not base64!"}),
            json!({"url": "file:///etc/passwd"}),
            json!({"filepath": "/etc/passwd"}),
            json!({"content": [1]}),
        ] {
            assert!(image(wrong.clone()).is_err(), "{wrong}");
        }
        let text = given("input_files", MediaKind::File, json!({"content": "hi", "mime_type": "text/plain"})).unwrap();
        assert_eq!(text.content, MediaContent::Text("hi".to_owned()));
    }
}
