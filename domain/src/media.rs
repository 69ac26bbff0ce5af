//! Images, audio, videos and files that come with a message.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// What a piece of media is to a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MediaKind {
    /// A picture.
    Image,
    /// Sound.
    Audio,
    /// Moving pictures.
    Video,
    /// A document of any kind.
    File,
}

/// Where the bytes are.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MediaContent {
    /// Here, as standard base64.
    Base64(String),
    /// Here, as text (documents whose type is text).
    Text(String),
    /// Elsewhere, at an address the model's provider reads.
    Url(String),
    /// In the blob store under this SHA-256 (hex), because it is large.
    Blob {
        /// SHA-256 of the bytes, hex.
        hash: String,
        /// Length in bytes.
        len: u64,
        /// Whether the bytes are the text of a document.
        text: bool,
    },
}

/// One piece of media.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Media {
    /// Its id, a UUID.
    pub id: String,
    /// What it is.
    pub kind: MediaKind,
    /// Its media type, such as `image/png`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mime_type: Option<String>,
    /// The name it was sent under.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filename: Option<String>,
    /// The short name of its format, such as `png`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<String>,
    /// Its bytes, or where they are.
    pub content: MediaContent,
    /// What the caller said about it (`files_metadata`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Map<String, Value>>,
}

impl Media {
    /// How many bytes of text a model is given for it; `None` for what is not text, or is read elsewhere.
    pub fn text_bytes(&self) -> Option<usize> {
        match &self.content {
            MediaContent::Text(words) => Some(words.len()),
            MediaContent::Blob { len, text: true, .. } => Some(usize::try_from(*len).unwrap_or(usize::MAX)),
            MediaContent::Base64(_) | MediaContent::Url(_) | MediaContent::Blob { .. } => None,
        }
    }
}
