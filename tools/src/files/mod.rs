//! Tools for the files of one directory, and of no other: paths are opened beneath a handle of it (`cap-std`), so that
//! neither `..`, nor absolute paths, nor links, nor a race with another program leads out.
//! Two doors are inherent: a hard link in the directory is a file of the directory, wherever else it has a name, and
//! what is mounted in it belongs to it. Links that stay within it are followed.

mod list;
mod read;
mod root;
mod search;
#[cfg(test)]
mod tests;
mod walk;
mod write;

use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::Arc;

use daybook_domain::tool::Effect;
use schemars::JsonSchema;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio_util::sync::CancellationToken;

use self::root::Root;
use crate::{FunctionTool, Tool, ToolContext, ToolError, ToolOutput};

/// The most that one file may be allowed to have, in bytes: it is held in memory, several times while it is edited.
const MOST_FILE_BYTES: u32 = 64 << 20;

/// The directory that an agent works in, and what it may do there.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FilesOptions {
    /// The directory. Nothing outside it can be reached.
    pub root: PathBuf,
    /// Whether files may be written, edited and deleted; they are only read unless said.
    #[serde(default)]
    pub write: bool,
    /// The most that is read or written of one file, in bytes; 1,048,576 (1 MiB) unless said, at most 67,108,864.
    #[serde(default = "max_file_bytes")]
    pub max_file_bytes: NonZeroU32,
    /// The most entries of one list, and the most lines that one search finds; 500 unless said.
    #[serde(default = "max_entries")]
    pub max_entries: NonZeroU32,
}

impl FilesOptions {
    /// Reads in this directory, with the usual limits.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into(), write: false, max_file_bytes: max_file_bytes(), max_entries: max_entries() }
    }
}

fn max_file_bytes() -> NonZeroU32 {
    NonZeroU32::MIN.saturating_add((1 << 20) - 1)
}

fn max_entries() -> NonZeroU32 {
    NonZeroU32::MIN.saturating_add(499)
}

/// Why there are no tools for a directory.
#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    /// The directory cannot be opened.
    #[error("the directory {root:?} cannot be opened: {error}; create it, or let the server's user read it")]
    Root {
        /// Which directory.
        root: PathBuf,
        /// Why not.
        error: std::io::Error,
    },
    /// A limit beyond what fits in memory.
    #[error("`max_file_bytes` is {given}; the most is {MOST_FILE_BYTES}, because a file is held in memory")]
    TooLarge {
        /// What was given.
        given: u32,
    },
}

/// `list_files`, `read_file` and `search_files`, and for a directory that may be written `write_file`, `edit_file` and
/// `delete_file`. The directory is opened here, once: it stays the same when another takes its name.
///
/// # Errors
/// [`FilesError`] when the directory cannot be opened or a limit is too large.
pub fn files(options: &FilesOptions) -> Result<Vec<Arc<dyn Tool>>, FilesError> {
    if options.max_file_bytes.get() > MOST_FILE_BYTES {
        return Err(FilesError::TooLarge { given: options.max_file_bytes.get() });
    }
    let root = Root::open(options).map_err(|error| FilesError::Root { root: options.root.clone(), error })?;
    let root = Arc::new(root);
    let mut tools: Vec<Arc<dyn Tool>> = vec![
        tool(&root, "list_files", list::DESCRIPTION, Effect::Pure, list::list),
        tool(&root, "read_file", read::DESCRIPTION, Effect::Pure, read::read),
        tool(&root, "search_files", search::DESCRIPTION, Effect::Pure, search::search),
    ];
    if options.write {
        tools.push(tool(&root, "write_file", write::WRITE, Effect::Idempotent, write::write));
        // A second edit may find the old text again in the new one.
        tools.push(tool(&root, "edit_file", write::EDIT, Effect::Unsafe, write::edit));
        tools.push(tool(&root, "delete_file", write::DELETE, Effect::Idempotent, write::delete));
    }
    Ok(tools)
}

type Work<A> = fn(&Root, &A, &CancellationToken) -> Result<ToolOutput, ToolError>;

/// A tool whose work is done on a thread that may wait for the disk. When the call is dropped, its token fires: searches
/// end, and writes are finished, since half of one is worse.
fn tool<A>(root: &Arc<Root>, name: &str, description: &str, effect: Effect, work: Work<A>) -> Arc<dyn Tool>
where
    A: DeserializeOwned + JsonSchema + Send + 'static,
{
    let root = Arc::clone(root);
    let call = move |_: ToolContext, arguments: A| {
        let (root, stop) = (Arc::clone(&root), CancellationToken::new());
        async move {
            let _dropped = stop.clone().drop_guard();
            let done = tokio::task::spawn_blocking(move || work(&root, &arguments, &stop)).await;
            done.unwrap_or_else(|error| Err(ToolError::failed(format!("the file tool broke off: {error}"))))
        }
    };
    Arc::new(FunctionTool::new(name, description, effect, call))
}
