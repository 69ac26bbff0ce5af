//! `read_file`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use daybook_domain::media::{Media, MediaContent, MediaKind};
use schemars::JsonSchema;
use serde::Deserialize;
use tokio_util::sync::CancellationToken;

use super::root::{InRoot, Root};
use crate::{ToolError, ToolOutput};

pub(super) const DESCRIPTION: &str = "Reads a text file, as it is, or looks at a picture (png, jpeg, gif, webp). Of a \
                                      long text it gives a part and says how to read on; of other files it tells the \
                                      type and the size.";

/// The most lines of one answer unless the call says otherwise, and its most bytes: more would fill a model's memory.
const LINES: usize = 2_000;
const MAX_ANSWER: usize = 128 * 1024;

#[derive(Deserialize, JsonSchema)]
pub(super) struct Arguments {
    /// The file, such as `notes/today.md`.
    path: String,
    /// The first line to read, counted from 1.
    #[serde(default)]
    offset: Option<usize>,
    /// The most lines to read; 2000 when left out.
    #[serde(default)]
    limit: Option<usize>,
}

pub(super) fn read(root: &Root, arguments: &Arguments, _: &CancellationToken) -> Result<ToolOutput, ToolError> {
    let path = InRoot::of(&arguments.path)?;
    let (first, limit) = (arguments.offset.unwrap_or(1), arguments.limit.unwrap_or(LINES));
    if first == 0 || limit == 0 {
        return Err(ToolError::Arguments("`offset` counts lines from 1, and `limit` is at least 1".to_owned()));
    }
    let (bytes, size) = root.read(&path)?;
    let whole = size <= bytes.len() as u64;
    if let Some(kind) = picture(&bytes) {
        return Ok(show(&path, kind, &bytes, size, whole));
    }
    match text_of(&bytes, whole) {
        Some(text) => part(&path, text, first, limit, (!whole).then_some(size)).map(Into::into),
        None => Ok(format!("[{path} is binary: {}, {size} bytes]", binary(&bytes)).into()),
    }
}

/// The bytes as text. What was cut off may end within a character.
pub(super) fn text_of(bytes: &[u8], whole: bool) -> Option<&str> {
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) if !whole && error.error_len().is_none() => {
            std::str::from_utf8(&bytes[..error.valid_up_to()]).ok()?
        }
        Err(_) => return None,
    };
    (!text.contains('\0')).then_some(text)
}

/// The asked lines. Nothing is added to a text that is given whole; `size` is told when the text is the file's beginning.
fn part(path: &InRoot, text: &str, first: usize, limit: usize, size: Option<u64>) -> Result<String, ToolError> {
    let total = text.lines().count();
    if text.is_empty() {
        return Ok(format!("[{path} is empty]"));
    }
    if first > total {
        let message = format!("{path} has {total} lines{}; read from one of them", beginning(text, size));
        return Err(ToolError::Arguments(message));
    }
    let mut given = String::new();
    let mut last = first - 1;
    for line in text.split_inclusive('\n').skip(first - 1).take(limit) {
        if given.len() + line.len() > MAX_ANSWER {
            break;
        }
        given.push_str(line);
        last += 1;
    }
    if last < first {
        let line = text.lines().nth(first - 1).unwrap_or_default();
        let end = line.floor_char_boundary(MAX_ANSWER);
        let note = format!("\n[line {first} of {total} has {} bytes; these are the first {end}]", line.len());
        return Ok(line[..end].to_owned() + &note);
    }
    if (first, last) == (1, total) && size.is_none() {
        return Ok(given);
    }
    if !given.ends_with('\n') {
        given.push('\n');
    }
    let more = if last < total { format!("; read on with offset {}", last + 1) } else { String::new() };
    given.push_str(&format!("[lines {first} to {last} of {total}{more}{}]", beginning(text, size)));
    Ok(given)
}

fn beginning(text: &str, size: Option<u64>) -> String {
    let told = |size| format!("; of its {size} bytes only the first {} can be read", text.len());
    size.map(told).unwrap_or_default()
}

/// A picture's media type and format, by its first bytes.
fn picture(bytes: &[u8]) -> Option<(&'static str, &'static str)> {
    match bytes {
        [0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1a, b'\n', ..] => Some(("image/png", "png")),
        [0xff, 0xd8, 0xff, ..] => Some(("image/jpeg", "jpeg")),
        [b'G', b'I', b'F', b'8', b'7' | b'9', b'a', ..] => Some(("image/gif", "gif")),
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => Some(("image/webp", "webp")),
        _ => None,
    }
}

fn binary(bytes: &[u8]) -> &'static str {
    match bytes {
        [b'%', b'P', b'D', b'F', ..] => "application/pdf",
        [b'P', b'K', 3, 4, ..] => "application/zip (or a document that is one, such as docx)",
        [0x1f, 0x8b, ..] => "application/gzip",
        [0x7f, b'E', b'L', b'F', ..] => "a program",
        _ => "application/octet-stream",
    }
}

fn show(path: &InRoot, (kind, format): (&str, &str), bytes: &[u8], size: u64, whole: bool) -> ToolOutput {
    if !whole {
        let most = bytes.len();
        return format!("[{path} is a picture: {kind}, {size} bytes; {most} are the most that can be shown]").into();
    }
    let picture = Media {
        id: uuid::Uuid::now_v7().to_string(),
        kind: MediaKind::Image,
        mime_type: Some(kind.to_owned()),
        filename: path.path.file_name().map(|name| name.to_string_lossy().into_owned()),
        format: Some(format.to_owned()),
        content: MediaContent::Base64(STANDARD.encode(bytes)),
        metadata: None,
    };
    ToolOutput { text: format!("[{path} is a picture: {kind}, {size} bytes]"), media: vec![picture] }
}
