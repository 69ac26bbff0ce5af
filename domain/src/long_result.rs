//! Results of tools that are too long for an event and for a model. Their beginning and end are recorded and given to the
//! model, with a note of what lies between; the whole is kept apart, encrypted under the session's key.

use serde::{Deserialize, Serialize};

/// The longest result that is recorded and given to the model as it is, in bytes. Events stay small up to here, and 64 KiB
/// are some 16,000 tokens, which every further model call of the run pays for again.
pub const LONGEST: usize = 64 * 1024;

/// How much of a longer one the model is given: of its beginning, in bytes. There a result mostly says what it is.
const BEGINNING: usize = 32 * 1024;

/// And of its end, in bytes. There a log has its error, and a list its sum.
const END: usize = 16 * 1024;

/// The most that is kept of a result, in bytes: it is held in memory when it is kept, read and copied.
pub const MOST_KEPT: usize = 16 * 1024 * 1024;

/// The tool that reads such results, for agents that have it.
pub const READ_RESULT: &str = "read_result";

/// Where all of a long result is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WholeResult {
    /// SHA-256 of what is kept, hex: its name in its session's blob store.
    pub hash: String,
    /// How many bytes are kept.
    pub len: u64,
    /// How many bytes came after those and are not kept.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub lost: u64,
    /// With how many of its first bytes the recorded result begins.
    pub beginning: u64,
    /// With how many of its last kept bytes the recorded result ends.
    pub end: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands references")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl WholeResult {
    /// What it is called in notes and addresses; the same in a copy of its session.
    pub fn id(&self) -> &str {
        self.hash.get(..16).unwrap_or(&self.hash)
    }

    /// Whether `name` names it.
    pub fn is_called(&self, name: &str) -> bool {
        name == self.id() || name == self.hash
    }

    /// How long the result was, in bytes.
    pub fn total(&self) -> u64 {
        self.len.saturating_add(self.lost)
    }
}

/// Cuts `text` to what is kept of it; gives how many bytes were lost. No character is cut in half.
pub fn cut(text: &mut String) -> u64 {
    let whole = text.len();
    if whole > MOST_KEPT {
        text.truncate(text.floor_char_boundary(MOST_KEPT));
    }
    (whole - text.len()) as u64
}

/// What is recorded of a long result that is kept as `hash`, and given to the model: its beginning, a note of what is left
/// out and how it can be had, and its end. `lost` bytes came after it; `readable` is whether the model has [`READ_RESULT`].
pub fn shorten(text: &str, hash: String, lost: u64, readable: bool) -> (String, WholeResult) {
    let beginning = &text[..text.floor_char_boundary(BEGINNING)];
    let end = &text[text.ceil_char_boundary(text.len().saturating_sub(END)).max(beginning.len())..];
    let bytes = |text: &str| text.len() as u64;
    let whole = WholeResult { hash, len: bytes(text), lost, beginning: bytes(beginning), end: bytes(end) };
    let (id, total, from) = (whole.id(), whole.total(), whole.beginning);
    let left = total.saturating_sub(whole.beginning).saturating_sub(whole.end);
    let mut note = format!("[{left} of {total} bytes are left out here. ");
    if lost > 0 {
        note.push_str(&format!("The first {} bytes are kept, no more. ", whole.len));
    }
    note.push_str(&match readable {
        true => format!("To read on, call {READ_RESULT} with result \"{id}\" and offset {from}.]"),
        false => format!("They are kept with the run, as result {id}.]"),
    });
    (format!("{beginning}\n\n{note}\n\n{end}"), whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash() -> String {
        "0123456789abcdef".repeat(4)
    }

    #[test]
    fn the_beginning_the_note_and_the_end_are_recorded() {
        let text: String = (0..300_000).map(|n| format!("{n:09} ")).collect();
        let (shown, whole) = shorten(&text, hash(), 0, false);
        assert_eq!((whole.len, whole.lost, whole.beginning, whole.end), (3_000_000, 0, 32_768, 16_384));
        let note = "\n\n[2950848 of 3000000 bytes are left out here. They are kept with the run, as result 0123456789abcdef.]\n\n";
        assert_eq!(shown, [&text[..32_768], note, &text[3_000_000 - 16_384..]].concat());
        assert!(shown.len() < LONGEST);
        let (shown, _) = shorten(&text, hash(), 7, true);
        let note = "[2950855 of 3000007 bytes are left out here. The first 3000000 bytes are kept, no more. To read on, \
            call read_result with result \"0123456789abcdef\" and offset 32768.]";
        assert!(shown.contains(note), "{}", &shown[32_768..33_000]);
        assert!(whole.is_called(whole.id()) && whole.is_called(&hash()) && !whole.is_called("0123456789abcde"));
    }

    #[test]
    fn no_character_is_cut_in_half() {
        for letter in ["ö", "€", "🦀"] {
            for shift in ["", "a", "ab", "abc"] {
                let text = format!("{shift}{}", letter.repeat(LONGEST));
                let (shown, whole) = shorten(&text, hash(), 0, false);
                let (beginning, end) = (whole.beginning as usize, whole.end as usize);
                assert!(shown.starts_with(&text[..beginning]) && shown.ends_with(&text[text.len() - end..]));
                assert!(BEGINNING - beginning < 4 && END - end < 4);
                let mut long = format!("{shift}{}", letter.repeat(MOST_KEPT));
                let before = long.len() as u64;
                let lost = cut(&mut long);
                assert!(MOST_KEPT - long.len() < 4 && lost + long.len() as u64 == before);
            }
        }
        let mut short = "ö".to_owned();
        assert_eq!((cut(&mut short), short.as_str()), (0, "ö"));
    }

    #[test]
    fn what_is_left_out_is_never_counted_twice() {
        let text = "x".repeat(BEGINNING + 10);
        let (shown, whole) = shorten(&text, hash(), 0, false);
        assert_eq!((whole.beginning, whole.end), (32_768, 10));
        assert!(shown.contains("[0 of 32778 bytes"));
    }
}
