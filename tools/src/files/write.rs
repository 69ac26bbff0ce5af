//! `write_file`, `edit_file` and `delete_file`. A file is replaced as a whole, by a rename: a reader sees the old one or
//! the new one, and of a hard link only this name gets the new one. A crash may leave a `.daybook-*.tmp` beside it.

use std::ffi::OsStr;
use std::io::{self, Write as _};
use std::path::Path;
use std::sync::PoisonError;

use cap_std::fs::{Dir, OpenOptions, OpenOptionsExt as _, Permissions, PermissionsExt as _};
use schemars::JsonSchema;
use serde::Deserialize;
use tokio_util::sync::CancellationToken;

use super::read::text_of;
use super::root::{InRoot, Root};
use crate::{ToolError, ToolOutput};

pub(super) const WRITE: &str = "Creates a text file, or replaces a file as a whole. Missing directories are made.";
pub(super) const EDIT: &str = "Replaces a part of a text file: the old text must be in it exactly once.";
pub(super) const DELETE: &str = "Deletes a file, or a link. Directories stay.";

#[derive(Deserialize, JsonSchema)]
pub(super) struct Writing {
    /// The file, such as `notes/today.md`.
    path: String,
    /// All of its text.
    content: String,
}

#[derive(Deserialize, JsonSchema)]
pub(super) struct Edit {
    /// The file, such as `notes/today.md`.
    path: String,
    /// What is there now, exactly, with enough around it that it is there once.
    old_text: String,
    /// What shall be there instead.
    new_text: String,
}

#[derive(Deserialize, JsonSchema)]
pub(super) struct Deletion {
    /// The file, such as `notes/today.md`.
    path: String,
}

pub(super) fn write(root: &Root, arguments: &Writing, _: &CancellationToken) -> Result<ToolOutput, ToolError> {
    let path = InRoot::of(&arguments.path)?;
    let _changing = root.changing.lock().unwrap_or_else(PoisonError::into_inner);
    let created = replace(root, &path, &arguments.content, true)?;
    let done = if created { "created" } else { "replaced" };
    Ok(format!("{done} {path}, {} bytes", arguments.content.len()).into())
}

pub(super) fn edit(root: &Root, arguments: &Edit, _: &CancellationToken) -> Result<ToolOutput, ToolError> {
    let path = InRoot::of(&arguments.path)?;
    path.split()?;
    let refuse = |fault: &str| Err(ToolError::Arguments(format!("{path} was not edited: {fault}")));
    let (old, new) = (&arguments.old_text, &arguments.new_text);
    if old.is_empty() || old == new {
        return refuse("`old_text` is empty, or is what `new_text` is");
    }
    let _changing = root.changing.lock().unwrap_or_else(PoisonError::into_inner);
    let (bytes, size) = root.read(&path)?;
    if size > bytes.len() as u64 {
        return refuse(&format!("it has {size} bytes, and {} are the most", bytes.len()));
    }
    let Some(text) = text_of(&bytes, true) else { return refuse("it is not a text in UTF-8") };
    // The first and the last place differ also where two overlap.
    match (text.find(old.as_str()), text.rfind(old.as_str())) {
        (Some(first), Some(last)) if first == last => {
            let edited = [&text[..first], new, &text[first + old.len()..]].concat();
            replace(root, &path, &edited, false)?;
            let line = text[..first].matches('\n').count() + 1;
            Ok(format!("edited {path} at line {line}").into())
        }
        (None, _) => refuse("`old_text` is not in it; read it again, and give the text exactly, with its spaces"),
        _ => refuse("`old_text` is in it more than once; give more of the text around it"),
    }
}

pub(super) fn delete(root: &Root, arguments: &Deletion, _: &CancellationToken) -> Result<ToolOutput, ToolError> {
    let path = InRoot::of(&arguments.path)?;
    let (parent, name) = path.split()?;
    let _changing = root.changing.lock().unwrap_or_else(PoisonError::into_inner);
    // A second call after a crash finds what it was to bring about.
    let gone = || Ok(format!("there is no {path}").into());
    let dir = match root.dir.open_dir(&parent.path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return gone(),
        dir => dir.map_err(|error| path.fault(&error))?,
    };
    match dir.symlink_metadata(name) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return gone(),
        Err(error) => return Err(path.fault(&error)),
        Ok(found) if !found.is_file() && !found.is_symlink() => {
            return Err(ToolError::Arguments(format!("{path} is not a file, and is left alone")));
        }
        Ok(_) => {}
    }
    dir.remove_file(name).map_err(|error| path.fault(&error))?;
    Ok(format!("deleted {path}").into())
}

/// Puts a new file in the place of the old one; gives whether there was none.
fn replace(root: &Root, path: &InRoot, content: &str, make_dirs: bool) -> Result<bool, ToolError> {
    if content.len() as u64 > root.max_file_bytes {
        let (len, most) = (content.len(), root.max_file_bytes);
        return Err(ToolError::Arguments(format!("{path} would have {len} bytes; {most} are the most")));
    }
    let (parent, name) = path.split()?;
    if make_dirs && !parent.is_root() {
        root.dir.create_dir_all(&parent.path).map_err(|error| parent.fault(&error))?;
    }
    let dir = root.dir.open_dir(&parent.path).map_err(|error| path.fault(&error))?;
    let permissions = match dir.symlink_metadata(name) {
        Ok(old) if old.is_file() => Some(old.permissions()),
        Ok(old) => {
            let is =
                if old.is_symlink() { "a link; give the path it leads to" } else { "not a file, and is left alone" };
            return Err(ToolError::Arguments(format!("{path} is {is}")));
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(path.fault(&error)),
    };
    let created = permissions.is_none();
    put(&dir, name, content.as_bytes(), permissions).map_err(|error| path.fault(&error))?;
    Ok(created)
}

fn put(dir: &Dir, name: &OsStr, content: &[u8], permissions: Option<Permissions>) -> io::Result<()> {
    // Who may read and write it stays, from the first byte on; what else a mode holds (setuid) was for the old content.
    let mode = permissions.map(|old| old.mode() & 0o777);
    let beside = Beside { dir, name: format!(".daybook-{}.tmp", uuid::Uuid::now_v7().simple()) };
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(mode.unwrap_or(0o666));
    let mut file = dir.open_with(&beside.name, &options)?;
    file.write_all(content)?;
    if let Some(mode) = mode {
        // The process's mask may have taken some of it away.
        file.set_permissions(Permissions::from_mode(mode))?;
    }
    // The log will say that it was written: it must outlive a loss of power, as the log does.
    file.sync_all()?;
    dir.rename(&beside.name, dir, Path::new(name))?;
    // Not every file system can do this for a directory.
    let _ = dir.open(".").and_then(|dir| dir.sync_all());
    Ok(())
}

/// The new file while it has not got its name; when that fails, it goes.
struct Beside<'a> {
    dir: &'a Dir,
    name: String,
}

impl Drop for Beside<'_> {
    fn drop(&mut self) {
        // After the rename there is none.
        let _ = self.dir.remove_file(&self.name);
    }
}
