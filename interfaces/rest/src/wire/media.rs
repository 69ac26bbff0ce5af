//! Media as clients see them: images, audio, videos and files apart, with their bytes or their address.

use daybook_domain::media::{Media, MediaContent, MediaKind};
use serde_json::Value;

use super::members::Members;

/// Samples per second and channels that clients expect for audio that says nothing of them.
const AUDIO: (u32, u32) = (24_000, 1);

/// One piece. Bytes that were not put back in place are left out.
fn piece(media: &Media) -> Value {
    let members = Members::default()
        .with("id", media.id.as_str())
        .maybe("mime_type", media.mime_type.as_deref())
        .maybe("filename", media.filename.as_deref().filter(|_| media.kind == MediaKind::File))
        .maybe("format", media.format.as_deref())
        .maybe("metadata", media.metadata.clone());
    let members = match media.kind {
        MediaKind::Audio => members.with("sample_rate", AUDIO.0).with("channels", AUDIO.1),
        _ => members,
    };
    match &media.content {
        MediaContent::Base64(text) | MediaContent::Text(text) => members.with("content", text.as_str()).done(),
        MediaContent::Url(url) => members.with("url", url.as_str()).done(),
        MediaContent::Blob { .. } => members.done(),
    }
}

/// All pieces of one kind.
pub(crate) fn of_kind(media: &[Media], kind: MediaKind) -> Vec<Value> {
    media.iter().filter(|media| media.kind == kind).map(piece).collect()
}
