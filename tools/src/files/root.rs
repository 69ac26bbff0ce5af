//! The directory, the paths in it, and how a file of it is opened.

use std::ffi::OsStr;
use std::fmt;
use std::io::{self, Read as _};
use std::path::{Component, Path, PathBuf};
use std::sync::Mutex;

use cap_std::ambient_authority;
use cap_std::fs::{Dir, File, Metadata, OpenOptions, OpenOptionsExt as _};
use nix::errno::Errno;
use nix::fcntl::OFlag;

use super::FilesOptions;
use crate::ToolError;

/// The longest path, in bytes, and the longest of its names: what Linux takes.
const MAX_PATH: usize = 4096;
const MAX_NAME: usize = 255;

/// One directory and its limits.
pub(super) struct Root {
    pub(super) dir: Dir,
    pub(super) max_file_bytes: u64,
    pub(super) max_entries: usize,
    /// Held while a file changes: an edit reads what it replaces.
    pub(super) changing: Mutex<()>,
}

impl Root {
    pub(super) fn open(options: &FilesOptions) -> io::Result<Self> {
        Ok(Self {
            dir: Dir::open_ambient_dir(&options.root, ambient_authority())?,
            max_file_bytes: u64::from(options.max_file_bytes.get()),
            max_entries: usize::try_from(options.max_entries.get()).unwrap_or(usize::MAX),
            changing: Mutex::new(()),
        })
    }

    /// At most `max_file_bytes` of a regular file, and how long it is.
    pub(super) fn read(&self, path: &InRoot) -> Result<(Vec<u8>, u64), ToolError> {
        let (file, metadata) = open_regular(&self.dir, &path.path).map_err(|error| path.fault(&error))?;
        let mut bytes = Vec::new();
        file.take(self.max_file_bytes).read_to_end(&mut bytes).map_err(|error| path.fault(&error))?;
        Ok((bytes, metadata.len()))
    }
}

/// A path that a call gave, in the form in which it is opened.
#[derive(Debug)]
pub(super) struct InRoot {
    pub(super) path: PathBuf,
}

impl InRoot {
    /// The path of a file or a directory; `.` is the root.
    pub(super) fn of(given: &str) -> Result<Self, ToolError> {
        let refuse = |fault: &str| {
            let start: String = given.chars().take(100).collect();
            let more = if start.len() < given.len() { "..." } else { "" };
            Err(ToolError::Arguments(format!("the path {start:?}{more} {fault}; give one such as `notes/today.md`")))
        };
        if given.is_empty() {
            return refuse("is empty");
        }
        if given.contains('\0') {
            return refuse("contains U+0000");
        }
        if given.len() > MAX_PATH {
            return refuse(&format!("has {} bytes, and {MAX_PATH} are the most", given.len()));
        }
        let mut path = PathBuf::new();
        for component in Path::new(given).components() {
            match component {
                Component::Normal(name) if name.len() > MAX_NAME => {
                    return refuse(&format!("has a name of {} bytes, and {MAX_NAME} are the most", name.len()));
                }
                Component::Normal(name) => path.push(name),
                Component::CurDir => {}
                Component::ParentDir => return refuse("goes up by `..`, which is never followed"),
                Component::RootDir | Component::Prefix(_) => {
                    return refuse("is absolute, and paths start at the tool's own directory");
                }
            }
        }
        if path.as_os_str().is_empty() {
            path.push(".");
        }
        Ok(Self { path })
    }

    /// Whether it is the root itself.
    pub(super) fn is_root(&self) -> bool {
        self.path == Path::new(".")
    }

    /// The directory it is in, and its name there. The root is in none.
    pub(super) fn split(&self) -> Result<(Self, &OsStr), ToolError> {
        match (self.path.parent(), self.path.file_name()) {
            (Some(parent), Some(name)) => {
                let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
                Ok((Self { path: parent.to_owned() }, name))
            }
            _ => Err(ToolError::Arguments(format!("{self} is the directory itself; give the path of a file"))),
        }
    }

    /// What the model reads of an error of the system: what it can mend is about its arguments.
    pub(super) fn fault(&self, error: &io::Error) -> ToolError {
        use io::ErrorKind::{
            AlreadyExists, InvalidFilename, InvalidInput, IsADirectory, NotADirectory, NotFound, PermissionDenied,
        };
        let arguments = |fault: &str| ToolError::Arguments(format!("{self} {fault}"));
        match error.kind() {
            NotFound => arguments("does not exist; list_files shows what there is"),
            // An escape has no error number: it is found before the system is asked, or is told by another one.
            PermissionDenied if error.raw_os_error().is_none() => arguments("leads out of the tool's directory"),
            InvalidInput if error.raw_os_error().is_none() => arguments(&error.to_string()),
            IsADirectory => arguments("is a directory; list_files shows what is in it"),
            // Directories are made where nothing is.
            NotADirectory | AlreadyExists => arguments("leads through, or is, something that is not a directory"),
            _ if error.raw_os_error() == Some(Errno::ELOOP as i32) => arguments("leads through too many links"),
            InvalidFilename => arguments("is too long"),
            _ => ToolError::failed(format!("{self}: {error}")),
        }
    }
}

impl fmt::Display for InRoot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.path)
    }
}

/// Opens a regular file for reading. Others may wait for ever (a FIFO for its writer) or act when opened (a device): they
/// are told by their type first, and the open does not wait in case another took the name in between.
pub(super) fn open_regular(dir: &Dir, path: &Path) -> io::Result<(File, Metadata)> {
    regular(&dir.metadata(path)?)?;
    let flags = OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    let file = dir.open_with(path, OpenOptions::new().read(true).custom_flags(flags.bits()))?;
    let metadata = file.metadata()?;
    regular(&metadata)?;
    Ok((file, metadata))
}

fn regular(metadata: &Metadata) -> io::Result<()> {
    if metadata.is_file() {
        return Ok(());
    }
    if metadata.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    Err(io::Error::new(io::ErrorKind::InvalidInput, "is neither a file nor a directory, and is left alone"))
}
