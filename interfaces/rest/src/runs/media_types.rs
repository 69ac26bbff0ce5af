//! Which files a run takes, by media type, or by the name's ending where the type says nothing.

use daybook_domain::media::MediaKind;

/// A media type, the endings of names it stands for, and what it is to a model.
type Known = (&'static str, &'static [&'static str], MediaKind);

use MediaKind::{Audio, File, Image, Video};

const KNOWN: &[Known] = &[
    ("image/png", &["png"], Image),
    ("image/jpeg", &["jpg", "jpeg"], Image),
    ("image/jpg", &[], Image),
    ("image/gif", &["gif"], Image),
    ("image/webp", &["webp"], Image),
    ("image/bmp", &["bmp"], Image),
    ("image/tiff", &["tiff", "tif"], Image),
    ("image/tif", &[], Image),
    ("image/avif", &["avif"], Image),
    ("image/heic", &["heic"], Image),
    ("image/heif", &["heif"], Image),
    ("audio/wav", &["wav"], Audio),
    ("audio/wave", &[], Audio),
    ("audio/mpeg", &["mp3"], Audio),
    ("audio/mp3", &[], Audio),
    ("audio/mp4", &[], Audio),
    ("audio/m4a", &["m4a"], Audio),
    ("audio/ogg", &["ogg", "oga"], Audio),
    ("audio/flac", &["flac"], Audio),
    ("audio/aac", &["aac"], Audio),
    ("video/mp4", &["mp4"], Video),
    ("video/quicktime", &["mov"], Video),
    ("video/webm", &["webm"], Video),
    ("video/mpeg", &["mpeg", "mpg"], Video),
    ("video/mpg", &[], Video),
    ("video/mpegs", &[], Video),
    ("video/mpgs", &[], Video),
    ("video/wmv", &["wmv"], Video),
    ("video/x-flv", &["flv"], Video),
    ("video/3gpp", &["3gp"], Video),
    ("text/plain", &["txt"], File),
    ("text/markdown", &["md"], File),
    ("text/csv", &["csv"], File),
    ("text/html", &["html", "htm"], File),
    ("text/css", &["css"], File),
    ("text/xml", &["xml"], File),
    ("text/rtf", &["rtf"], File),
    ("text/javascript", &["js"], File),
    ("text/x-python", &["py"], File),
    ("application/x-javascript", &[], File),
    ("application/x-python", &[], File),
    ("application/json", &["json"], File),
    ("application/pdf", &["pdf"], File),
    ("application/zip", &["zip"], File),
    ("application/msword", &["doc"], File),
    ("application/vnd.openxmlformats-officedocument.wordprocessingml.document", &["docx"], File),
    ("application/vnd.ms-excel", &["xls"], File),
    ("application/vnd.openxmlformats-officedocument.spreadsheetml.sheet", &["xlsx"], File),
    ("application/vnd.ms-powerpoint", &["ppt"], File),
    ("application/vnd.openxmlformats-officedocument.presentationml.presentation", &["pptx"], File),
    ("message/rfc822", &["eml"], File),
    ("application/vnd.ms-outlook", &["msg"], File),
];

/// The ending of a name, in small letters.
pub(super) fn ending(name: &str) -> Option<String> {
    name.rsplit_once('.').map(|(_, ending)| ending.to_ascii_lowercase()).filter(|ending| !ending.is_empty())
}

/// The media type of a file and what it is to a model; `None` for what no run takes.
pub(super) fn of_file(content_type: Option<&str>, name: &str) -> Option<(&'static str, MediaKind)> {
    let said = content_type.map(|said| said.split(';').next().unwrap_or_default().trim().to_ascii_lowercase());
    let known = match said.as_deref() {
        None | Some("" | "application/octet-stream") => {
            let ending = ending(name)?;
            KNOWN.iter().find(|(_, endings, _)| endings.contains(&ending.as_str()))
        }
        Some(said) => KNOWN.iter().find(|(name, _, _)| *name == said),
    };
    known.map(|(name, _, kind)| (*name, *kind))
}

/// Whether bytes of this type are text that a model can read as such.
pub(super) fn is_text(mime_type: &str) -> bool {
    let code = ["application/json", "application/x-javascript", "application/x-python"];
    (mime_type.starts_with("text/") && mime_type != "text/rtf") || code.contains(&mime_type)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_type_decides_and_the_ending_where_there_is_none() {
        assert_eq!(of_file(Some("image/png"), "a.txt"), Some(("image/png", Image)));
        assert_eq!(of_file(Some("text/plain; charset=utf-8"), "a"), Some(("text/plain", File)));
        assert_eq!(of_file(Some("application/octet-stream"), "a.PDF"), Some(("application/pdf", File)));
        assert_eq!(of_file(None, "talk.mp3"), Some(("audio/mpeg", Audio)));
        assert_eq!(of_file(Some("application/x-msdownload"), "a.txt"), None);
        assert_eq!(of_file(None, "a.exe"), None);
        assert_eq!(of_file(None, "noending"), None);
    }

    #[test]
    fn every_ending_stands_for_one_type() {
        let mut endings: Vec<&str> = KNOWN.iter().flat_map(|(_, endings, _)| endings.iter().copied()).collect();
        let count = endings.len();
        endings.sort_unstable();
        endings.dedup();
        assert_eq!(endings.len(), count);
    }
}
