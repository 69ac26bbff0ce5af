//! `search_files`.

use std::fmt::Write as _;
use std::io::Read as _;
use std::ops::ControlFlow;
use std::path::Path;

use cap_std::fs::{Dir, File};
use schemars::JsonSchema;
use serde::Deserialize;
use tokio_util::sync::CancellationToken;

use super::list::here;
use super::read::text_of;
use super::root::{InRoot, Root, open_regular};
use super::walk::{Pattern, Walk, shown};
use crate::{ToolError, ToolOutput};

pub(super) const DESCRIPTION: &str = "Finds a text in the text files of a directory and of the directories in it, or in \
                                      one file. Gives path:line: and the line, for each line that has it.";

/// The most files and bytes that one search reads.
const MAX_FILES: usize = 10_000;
const MAX_BYTES: u64 = 256 << 20;
/// What is shown of a line, in bytes, and of all lines together.
const MAX_LINE: usize = 300;
const MAX_ANSWER: usize = 128 * 1024;
/// The longest text that is looked for, in bytes.
const MAX_TEXT: usize = 1_000;

#[derive(Deserialize, JsonSchema)]
pub(super) struct Arguments {
    /// What to find, within one line, exactly as it stands there; not a pattern.
    text: String,
    /// The directory or the file to look in; the tool's own directory when left out.
    #[serde(default = "here")]
    path: String,
    /// Only in files that fit this pattern: `*.md` is about names, `src/**/*.rs` about paths beneath the directory.
    #[serde(default)]
    glob: Option<String>,
    /// Whether capitals and small letters are the same.
    #[serde(default)]
    ignore_case: bool,
}

pub(super) fn search(root: &Root, arguments: &Arguments, stop: &CancellationToken) -> Result<ToolOutput, ToolError> {
    let path = InRoot::of(&arguments.path)?;
    let text = &arguments.text;
    if text.trim().is_empty() || text.contains('\n') || text.len() > MAX_TEXT {
        let message = format!("`text` is a part of one line, not empty, and of at most {MAX_TEXT} bytes");
        return Err(ToolError::Arguments(message));
    }
    let only = arguments.glob.as_deref().map(Pattern::of).transpose()?;
    let mut finder = Finder::new(root, text, arguments.ignore_case);
    let mut walk = Walk::new(true, only, stop);
    match root.dir.open_dir(&path.path) {
        Ok(dir) => walk.go(&dir, &path, &mut |found| {
            if stop.is_cancelled() {
                return ControlFlow::Break(());
            }
            if !found.kind.is_file() {
                return ControlFlow::Continue(());
            }
            finder.look_into(found.dir, Path::new(&found.entry.file_name()), found.path)
        })?,
        Err(error) if error.kind() == std::io::ErrorKind::NotADirectory => {
            let (file, _) = open_regular(&root.dir, &path.path).map_err(|error| path.fault(&error))?;
            let _ = finder.read(file, &path.path);
        }
        Err(error) => return Err(path.fault(&error)),
    }
    Ok(finder.told(&walk.told()).into())
}

/// Looks for one text in one file after another.
struct Finder<'a> {
    root: &'a Root,
    text: String,
    ignore_case: bool,
    files: usize,
    bytes: u64,
    cut: usize,
    unread: usize,
    found: usize,
    lines: String,
    ended: Option<&'static str>,
}

impl<'a> Finder<'a> {
    fn new(root: &'a Root, text: &str, ignore_case: bool) -> Self {
        let text = if ignore_case { text.to_lowercase() } else { text.to_owned() };
        let (lines, ended) = (String::new(), None);
        Self { root, text, ignore_case, files: 0, bytes: 0, cut: 0, unread: 0, found: 0, lines, ended }
    }

    fn look_into(&mut self, dir: &Dir, name: &Path, path: &Path) -> ControlFlow<()> {
        if self.files == MAX_FILES || self.bytes >= MAX_BYTES {
            self.ended = Some("the search read as much as it may; name a directory or a pattern");
            return ControlFlow::Break(());
        }
        match open_regular(dir, name) {
            Ok((file, _)) => self.read(file, path),
            Err(_) => {
                self.unread += 1;
                ControlFlow::Continue(())
            }
        }
    }

    fn read(&mut self, mut file: File, path: &Path) -> ControlFlow<()> {
        let mut bytes = Vec::new();
        // One byte more tells whether there is more.
        let read = (&mut file).take(self.root.max_file_bytes + 1).read_to_end(&mut bytes);
        self.files += 1;
        self.bytes += bytes.len() as u64;
        let whole = bytes.len() as u64 <= self.root.max_file_bytes;
        if read.is_err() {
            self.unread += 1;
        }
        let Some(text) = text_of(&bytes, whole) else { return ControlFlow::Continue(()) };
        self.cut += usize::from(!whole);
        for (number, line) in text.lines().enumerate() {
            let at = if self.ignore_case { line.to_lowercase().find(&self.text) } else { line.find(&self.text) };
            let Some(at) = at else { continue };
            if self.found == self.root.max_entries || self.lines.len() > MAX_ANSWER {
                self.ended = Some("there are more; look for a longer text, or name a directory or a pattern");
                return ControlFlow::Break(());
            }
            self.found += 1;
            let _ = writeln!(self.lines, "{}:{}: {}", shown(path), number + 1, excerpt(line, at));
        }
        ControlFlow::Continue(())
    }

    fn told(self, left_out: &str) -> String {
        let mut told = self.lines;
        if self.found == 0 {
            let _ = writeln!(told, "[not found in {} files]", self.files);
        }
        if let Some(ended) = self.ended {
            let _ = writeln!(told, "[{ended}]");
        }
        if self.cut > 0 {
            let most = self.root.max_file_bytes;
            let _ = writeln!(told, "[of {} long files only the first {most} bytes were searched]", self.cut);
        }
        if self.unread > 0 {
            let _ = writeln!(told, "[{} files could not be read]", self.unread);
        }
        told + left_out
    }
}

/// The line, or what is around the place where the text begins.
fn excerpt(line: &str, at: usize) -> String {
    if line.len() <= MAX_LINE {
        return line.to_owned();
    }
    let start = line.floor_char_boundary(at.saturating_sub(MAX_LINE / 3));
    let end = line.floor_char_boundary(start + MAX_LINE);
    let before = if start > 0 { "..." } else { "" };
    let after = if end < line.len() { "..." } else { "" };
    format!("{before}{}{after}", &line[start..end])
}
