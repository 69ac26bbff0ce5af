//! What comes with messages, as far as all protocols treat it alike.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use daybook_domain::media::{Media, MediaContent, MediaKind};

use crate::port::ModelError;

/// One piece of media, sorted by what a protocol can do with it.
#[derive(Debug, PartialEq)]
pub(crate) enum Piece<'a> {
    /// A picture as base64.
    Image {
        /// Its media type.
        mime: String,
        /// The bytes.
        data: &'a str,
    },
    /// A picture at an address.
    ImageUrl(&'a str),
    /// Words, of a document whose type is text, or as they were given.
    Text(String),
    /// Any other bytes: a PDF, sound, moving pictures.
    Bytes {
        /// Their media type.
        mime: String,
        /// The bytes.
        data: &'a str,
    },
    /// Anything but a picture at an address.
    Url {
        /// Its likely media type.
        mime: String,
        /// Where it is.
        url: &'a str,
    },
}

/// Sorts a piece of media.
///
/// # Errors
/// [`ModelError::Unsupported`] for one whose bytes were not read yet.
pub(crate) fn sort(media: &Media) -> Result<Piece<'_>, ModelError> {
    let mime = mime_type(media);
    let image = media.kind == MediaKind::Image || mime.starts_with("image/");
    Ok(match &media.content {
        MediaContent::Blob { hash, .. } => {
            return Err(ModelError::Unsupported(format!("media {} was not read from its blob {hash}", media.id)));
        }
        MediaContent::Text(text) => Piece::Text(text.clone()),
        MediaContent::Url(url) if image => Piece::ImageUrl(url),
        MediaContent::Url(url) => Piece::Url { mime, url },
        MediaContent::Base64(data) if image => {
            let mime = if mime.starts_with("image/") { mime } else { "image/png".to_owned() };
            Piece::Image { mime, data }
        }
        MediaContent::Base64(data) => match text_of(&mime, data) {
            Some(text) => Piece::Text(text),
            None => Piece::Bytes { mime, data },
        },
    })
}

/// The media type as given, or the likely one of its kind and format, in lower case and without parameters.
pub(crate) fn mime_type(media: &Media) -> String {
    if let Some(mime) = &media.mime_type {
        return mime.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    }
    let format = media.format.as_deref().map(str::to_ascii_lowercase).or_else(|| ending(media));
    match (media.kind, format.as_deref()) {
        (MediaKind::Image, Some("jpg")) => "image/jpeg".to_owned(),
        (MediaKind::Image, format) => format!("image/{}", format.unwrap_or("png")),
        (MediaKind::Audio, format) => format!("audio/{}", format.unwrap_or("wav")),
        (MediaKind::Video, format) => format!("video/{}", format.unwrap_or("mp4")),
        (MediaKind::File, Some("pdf")) => "application/pdf".to_owned(),
        (MediaKind::File, Some("txt" | "md" | "csv")) => "text/plain".to_owned(),
        (MediaKind::File, _) => "application/octet-stream".to_owned(),
    }
}

/// How its name, or the path of its address, ends.
fn ending(media: &Media) -> Option<String> {
    let path = match (&media.filename, &media.content) {
        (Some(name), _) => name.clone(),
        (None, MediaContent::Url(url)) => reqwest::Url::parse(url).ok()?.path().to_owned(),
        (None, _) => return None,
    };
    let (_, ending) = path.rsplit('/').next()?.rsplit_once('.')?;
    let short = (1..=4).contains(&ending.len()) && ending.chars().all(|c| c.is_ascii_alphanumeric());
    short.then(|| ending.to_ascii_lowercase())
}

/// A document's words, under its name.
pub(crate) fn document(media: &Media, text: &str) -> String {
    match &media.filename {
        Some(name) => format!("[file {name}]\n{text}"),
        None => text.to_owned(),
    }
}

/// What the model is told of what it cannot see, so that it can say so, and the run goes on.
pub(crate) fn unreadable(media: &Media) -> String {
    let mime = mime_type(media);
    let name = match (&media.filename, &media.content) {
        (Some(name), _) => name.as_str(),
        (None, MediaContent::Url(url)) => url.as_str(),
        (None, _) => "without a name",
    };
    format!("[attached file {name} ({mime}), not readable by this model]")
}

/// What precedes the media a tool returned where they cannot be part of its answer.
pub(crate) fn returned_by(tool: &str) -> String {
    format!("[returned by the tool {tool}]")
}

/// The text of a document whose type is text.
fn text_of(mime: &str, data: &str) -> Option<String> {
    let text = mime.starts_with("text/")
        || mime.ends_with("+json")
        || mime.ends_with("+xml")
        || matches!(mime, "application/json" | "application/xml" | "application/yaml" | "application/javascript");
    if !text {
        return None;
    }
    String::from_utf8(STANDARD.decode(data).ok()?).ok()
}
