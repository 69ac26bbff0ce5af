//! Looks at an embedded server without starting, creating or locking anything.

use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::signal::kill;
use nix::unistd::Pid;
use secrecy::SecretString;

use super::binaries::Search;
use super::{EmbeddedError, EmbeddedOptions};

/// What there is of an embedded server.
#[derive(Debug)]
pub struct Look {
    /// Its data directory, there or to be made.
    pub data: PathBuf,
    /// The major version that wrote the data; none when there is none yet.
    pub data_version: Option<u32>,
    /// Where to connect, when it runs.
    pub running: Option<SecretString>,
    /// The programs that would serve it, with their major version.
    pub programs: Result<(PathBuf, u32), EmbeddedError>,
}

/// Looks for a server and its programs.
pub async fn look(options: &EmbeddedOptions) -> Look {
    let note = std::fs::read_to_string(options.dir.join("postgres.location"));
    let base = note.map_or_else(|_| options.dir.clone(), |at| PathBuf::from(at.trim()));
    let data = base.join("postgres");
    let data_version = std::fs::read_to_string(data.join("PG_VERSION")).ok().and_then(|text| text.trim().parse().ok());
    let programs = Search::usual(options.bin_dir.clone()).find(&data, data_version).await;
    let programs = programs.map(|found| (found.dir, found.major));
    Look { running: running(&data), data, data_version, programs }
}

/// PostgreSQL notes its process, port and socket directory in its data.
fn running(data: &Path) -> Option<SecretString> {
    let noted = std::fs::read_to_string(data.join("postmaster.pid")).ok()?;
    let mut lines = noted.lines();
    let pid = lines.next()?.trim().parse().ok()?;
    if kill(Pid::from_raw(pid), None) == Err(Errno::ESRCH) {
        return None;
    }
    let (port, socket_dir) = (lines.nth(2)?.trim(), lines.next()?.trim());
    Some(super::url(socket_dir, port))
}
