//! What an HTTP answer holds, in a form a model can read.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use daybook_domain::media::{Media, MediaContent, MediaKind};
use reqwest::header;
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::net::Answer;

/// Image types that models look at.
const IMAGES: [&str; 4] = ["image/png", "image/jpeg", "image/gif", "image/webp"];

/// The body of an answer.
pub(crate) enum Content {
    /// Nothing.
    Empty,
    /// JSON, exactly as it came: numbers keep their digits.
    Json(Box<RawValue>),
    /// Other text.
    Text(String),
    /// A picture.
    Image(Box<Media>),
    /// Bytes that are no text.
    Binary,
}

/// Tells what the answer holds, by its media type and, where that says nothing, by its bytes.
pub(crate) fn content(answer: &Answer) -> Content {
    if answer.body.is_empty() {
        return Content::Empty;
    }
    let kind = answer.media_type();
    if IMAGES.contains(&kind.as_str()) {
        return Content::Image(Box::new(image(&kind, &answer.body)));
    }
    if !is_text(&kind, &answer.body) {
        return Content::Binary;
    }
    let text = decode(answer);
    if is_json(&kind)
        && let Ok(json) = serde_json::from_str::<Box<RawValue>>(&text)
    {
        return Content::Json(json);
    }
    Content::Text(text)
}

/// Words for a body that a model cannot read.
pub(crate) fn describe_binary(answer: &Answer) -> String {
    let kind = answer.media_type();
    let kind = if kind.is_empty() { "unknown type" } else { kind.as_str() };
    format!("{} bytes of {}, which is not text and is not shown", answer.body.len(), crate::text::clip(kind, 100))
}

fn image(kind: &str, bytes: &[u8]) -> Media {
    Media {
        id: Uuid::now_v7().to_string(),
        kind: MediaKind::Image,
        mime_type: Some(kind.to_owned()),
        filename: None,
        format: kind.strip_prefix("image/").map(str::to_owned),
        content: MediaContent::Base64(BASE64_STANDARD.encode(bytes)),
        metadata: None,
    }
}

/// Whether the media type is JSON.
pub(crate) fn is_json(kind: &str) -> bool {
    kind == "application/json" || kind.ends_with("+json")
}

fn is_text(kind: &str, bytes: &[u8]) -> bool {
    const TEXTS: [&str; 7] = [
        "application/xml",
        "application/javascript",
        "application/x-javascript",
        "application/yaml",
        "application/x-yaml",
        "application/x-ndjson",
        "application/x-www-form-urlencoded",
    ];
    let named = kind.starts_with("text/") || is_json(kind) || kind.ends_with("+xml") || TEXTS.contains(&kind);
    let unnamed = kind.is_empty() || kind == "application/octet-stream";
    named || unnamed && !bytes.contains(&0) && std::str::from_utf8(bytes).is_ok()
}

fn decode(answer: &Answer) -> String {
    let value = answer.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let value = value.to_ascii_lowercase();
    let charset = value.split(';').filter_map(|part| part.trim().strip_prefix("charset=")).next();
    let charset = charset.unwrap_or_default().trim_matches('"');
    if matches!(charset, "iso-8859-1" | "latin1" | "us-ascii") {
        return answer.body.iter().copied().map(char::from).collect();
    }
    let text = String::from_utf8_lossy(&answer.body);
    text.strip_prefix('\u{feff}').unwrap_or(&text).to_owned()
}
