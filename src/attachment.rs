//! Files that go with a message.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use daybook_domain::media::{Media, MediaContent, MediaKind};
use uuid::Uuid;

/// A file that goes with a message: an image, sound, a video or a document.
#[derive(Debug, Clone, PartialEq)]
pub struct Attachment {
    kind: MediaKind,
    mime_type: Option<String>,
    name: Option<String>,
    content: MediaContent,
}

impl Attachment {
    /// Bytes of a type such as `image/png`, which also says what they are to a model.
    pub fn bytes(mime_type: impl Into<String>, bytes: &[u8]) -> Self {
        Self::of(mime_type.into(), MediaContent::Base64(STANDARD.encode(bytes)))
    }

    /// A document of a text type such as `text/markdown`.
    pub fn text(mime_type: impl Into<String>, text: impl Into<String>) -> Self {
        Self::of(mime_type.into(), MediaContent::Text(text.into()))
    }

    /// Something that the model's provider fetches from an address.
    pub fn url(kind: MediaKind, url: impl Into<String>) -> Self {
        Self { kind, mime_type: None, name: None, content: MediaContent::Url(url.into()) }
    }

    /// The name the file has.
    #[must_use]
    pub fn named(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    fn of(mime_type: String, content: MediaContent) -> Self {
        let kind = match mime_type.split('/').next() {
            Some("image") => MediaKind::Image,
            Some("audio") => MediaKind::Audio,
            Some("video") => MediaKind::Video,
            _ => MediaKind::File,
        };
        Self { kind, mime_type: Some(mime_type), name: None, content }
    }
}

impl From<Attachment> for Media {
    fn from(file: Attachment) -> Self {
        let Attachment { kind, mime_type, name, content } = file;
        let ending = name.as_deref().and_then(|name| name.rsplit_once('.')).map(|(_, ending)| ending.to_lowercase());
        let subtype = || mime_type.as_deref().and_then(|mime| mime.split_once('/')).map(|(_, sub)| sub.to_owned());
        Self {
            id: Uuid::now_v7().to_string(),
            kind,
            format: ending.or_else(subtype),
            mime_type,
            filename: name,
            content,
            metadata: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_what_its_type_says() {
        let photo = Media::from(Attachment::bytes("image/png", b"x").named("a.JPG"));
        assert_eq!((photo.kind, photo.format.as_deref()), (MediaKind::Image, Some("jpg")));
        assert_eq!(photo.content, MediaContent::Base64("eA==".to_owned()));
        let page = Media::from(Attachment::text("text/markdown", "# x"));
        assert_eq!((page.kind, page.format.as_deref()), (MediaKind::File, Some("markdown")));
        assert_ne!(page.id, Media::from(Attachment::text("text/markdown", "# x")).id);
        assert_eq!(Media::from(Attachment::url(MediaKind::Audio, "https://x/y.mp3")).mime_type, None);
    }
}
