//! Goes through directories, bounded in entries and depth, without following links, so that it ends.

use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use cap_std::fs::{Dir, DirEntry, FileType};
use globset::{GlobBuilder, GlobMatcher};
use tokio_util::sync::CancellationToken;

use super::root::InRoot;
use crate::ToolError;

/// The most entries that one call looks at.
const MAX_VISITED: usize = 50_000;
/// The deepest directory beneath the one that was named.
const MAX_DEPTH: usize = 32;
/// The longest pattern, in bytes: what it costs to match grows with it.
const MAX_GLOB: usize = 200;

/// Something in a directory.
pub(super) struct Found<'a> {
    /// The directory it is in.
    pub(super) dir: &'a Dir,
    pub(super) entry: &'a DirEntry,
    pub(super) kind: FileType,
    /// Its path from the root.
    pub(super) path: &'a Path,
}

/// A walk through the directories beneath one.
pub(super) struct Walk<'a> {
    pub(super) recursive: bool,
    pub(super) only: Option<Pattern>,
    pub(super) stop: &'a CancellationToken,
    visited: usize,
    /// What was left out, for the reader.
    pub(super) notes: Vec<String>,
}

impl<'a> Walk<'a> {
    pub(super) fn new(recursive: bool, only: Option<Pattern>, stop: &'a CancellationToken) -> Self {
        Self { recursive, only, stop, visited: 0, notes: Vec::new() }
    }

    /// Shows everything that fits, in the order of the names, until `each` breaks it off.
    pub(super) fn go(
        &mut self,
        dir: &Dir,
        from: &InRoot,
        each: &mut dyn FnMut(Found<'_>) -> ControlFlow<()>,
    ) -> Result<(), ToolError> {
        let top = if from.is_root() { PathBuf::new() } else { from.path.clone() };
        self.inside(dir, &top, Path::new(""), 0, each).map(|_| ()).map_err(|error| from.fault(&error))
    }

    fn inside(
        &mut self,
        dir: &Dir,
        path: &Path,
        beneath: &Path,
        depth: usize,
        each: &mut dyn FnMut(Found<'_>) -> ControlFlow<()>,
    ) -> io::Result<ControlFlow<()>> {
        for entry in self.entries(dir)? {
            let Ok(kind) = entry.file_type() else { continue };
            let (path, beneath) = (path.join(entry.file_name()), beneath.join(entry.file_name()));
            if self.only.as_ref().is_none_or(|only| only.fits(&beneath))
                && each(Found { dir, entry: &entry, kind, path: &path }).is_break()
            {
                return Ok(ControlFlow::Break(()));
            }
            if !(self.recursive && kind.is_dir()) {
                continue;
            }
            if depth == MAX_DEPTH {
                self.note(format!("what is deeper than {MAX_DEPTH} directories"));
                continue;
            }
            let inner = entry.open_dir().and_then(|inner| self.inside(&inner, &path, &beneath, depth + 1, each));
            match inner {
                Ok(ControlFlow::Continue(())) => {}
                Ok(ControlFlow::Break(())) => return Ok(ControlFlow::Break(())),
                Err(error) => self.note(format!("directories that could not be read, such as {path:?} ({error})")),
            }
        }
        let ends = self.stop.is_cancelled() || self.visited >= MAX_VISITED;
        Ok(if ends { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    }

    /// The entries of a directory by name, no more than may still be visited.
    fn entries(&mut self, dir: &Dir) -> io::Result<Vec<DirEntry>> {
        let mut entries = Vec::new();
        for entry in dir.entries()? {
            if self.visited >= MAX_VISITED {
                self.note(format!("what came after the first {MAX_VISITED} entries; name a directory further inside"));
                break;
            }
            if self.stop.is_cancelled() {
                break;
            }
            self.visited += 1;
            entries.push(entry?);
        }
        entries.sort_by_cached_key(DirEntry::file_name);
        Ok(entries)
    }

    fn note(&mut self, left_out: String) {
        // One of a kind is enough.
        let kind: String = left_out.chars().take(20).collect();
        if !self.notes.iter().any(|note| note.starts_with(&kind)) {
            self.notes.push(left_out);
        }
    }

    /// The notes as lines for the reader.
    pub(super) fn told(&self) -> String {
        self.notes.iter().map(|note| format!("[left out: {note}]\n")).collect()
    }
}

/// A pattern of file names, such as `*.md` or `src/**/*.rs`.
#[derive(Debug)]
pub(super) struct Pattern {
    matcher: GlobMatcher,
    /// Whether it is about paths rather than names.
    pub(super) of_paths: bool,
}

impl Pattern {
    pub(super) fn of(glob: &str) -> Result<Self, ToolError> {
        if glob.len() > MAX_GLOB {
            let message = format!("the pattern has {} bytes; {MAX_GLOB} are the most", glob.len());
            return Err(ToolError::Arguments(message));
        }
        let made = GlobBuilder::new(glob).literal_separator(true).build();
        let glob = made.map_err(|error| {
            ToolError::Arguments(format!("{glob:?} is not a pattern of names such as *.md: {}", error.kind()))
        })?;
        Ok(Self { of_paths: glob.glob().contains('/'), matcher: glob.compile_matcher() })
    }

    fn fits(&self, beneath: &Path) -> bool {
        if self.of_paths {
            return self.matcher.is_match(beneath);
        }
        beneath.file_name().is_some_and(|name| self.matcher.is_match(name))
    }
}

/// A name or a path in one line: what would break the line is escaped, as in a string of JSON.
pub(super) fn shown(path: &Path) -> String {
    let text = path.to_string_lossy();
    if text.chars().any(char::is_control) { format!("{text:?}") } else { text.into_owned() }
}
