//! `list_files`.

use std::fmt::Write as _;
use std::ops::ControlFlow;

use schemars::JsonSchema;
use serde::Deserialize;
use tokio_util::sync::CancellationToken;

use super::root::{InRoot, Root};
use super::walk::{Found, Pattern, Walk, shown};
use crate::{ToolError, ToolOutput};

pub(super) const DESCRIPTION: &str = "Lists the files and directories of a directory, with sizes in bytes. Directories \
                                      end with /, and links show what they hold. Links are not followed.";

#[derive(Deserialize, JsonSchema)]
pub(super) struct Arguments {
    /// The directory, such as `notes`; the tool's own directory when left out.
    #[serde(default = "here")]
    path: String,
    /// Only what fits this pattern: `*.md` is about names, `src/**/*.rs` about paths beneath the directory.
    #[serde(default)]
    glob: Option<String>,
    /// Whether the directories in it are listed too. A pattern of paths always looks into them.
    #[serde(default)]
    recursive: bool,
}

pub(super) fn here() -> String {
    ".".to_owned()
}

pub(super) fn list(root: &Root, arguments: &Arguments, stop: &CancellationToken) -> Result<ToolOutput, ToolError> {
    let path = InRoot::of(&arguments.path)?;
    let only = arguments.glob.as_deref().map(Pattern::of).transpose()?;
    let recursive = arguments.recursive || only.as_ref().is_some_and(|only| only.of_paths);
    let dir = root.dir.open_dir(&path.path).map_err(|error| path.fault(&error))?;
    let (mut listed, mut count, mut more) = (String::new(), 0, false);
    let mut walk = Walk::new(recursive, only, stop);
    walk.go(&dir, &path, &mut |found| {
        if count == root.max_entries {
            more = true;
            return ControlFlow::Break(());
        }
        count += 1;
        listed.push_str(&line(&found));
        listed.push('\n');
        ControlFlow::Continue(())
    })?;
    if count == 0 {
        listed.push_str("[nothing]\n");
    }
    if more {
        let _ = writeln!(listed, "[these are the first {count}; name a directory or a pattern to see others]");
    }
    listed.push_str(&walk.told());
    Ok(listed.into())
}

fn line(found: &Found<'_>) -> String {
    let path = shown(found.path);
    if found.kind.is_dir() {
        return format!("{path}/");
    }
    if found.kind.is_symlink() {
        // Only read, never followed: it may lead out.
        let target = found.dir.read_link_contents(found.entry.file_name());
        return format!("{path} -> {}", target.map_or_else(|_| "?".to_owned(), |target| shown(&target)));
    }
    match found.entry.metadata() {
        Ok(metadata) if metadata.is_file() => format!("{path} ({} bytes)", metadata.len()),
        Ok(_) => format!("{path} (neither a file nor a directory)"),
        Err(error) => format!("{path} ({error})"),
    }
}
