//! What can go wrong with the embedded PostgreSQL, said so that a person can mend it.

use std::{io, path::PathBuf};

/// Why the embedded PostgreSQL did not start or stop.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EmbeddedError {
    /// No usable binaries were found anywhere.
    #[error(
        "Daybook found no PostgreSQL {min} or newer (the programs initdb and postgres) on this machine: {remedy}, \
         or set DATABASE_URL to use a server you already have.",
        min = super::binaries::OLDEST_MAJOR
    )]
    NoBinaries {
        /// What to install here, for example "install them with `apt-get install postgresql`".
        remedy: String,
    },
    /// The directory named by the caller holds no usable binaries.
    #[error(
        "{} does not hold the programs initdb and postgres of PostgreSQL {min} or newer; name the directory that \
         does, or leave the setting out so that Daybook looks for them itself.",
        dir.display(), min = super::binaries::OLDEST_MAJOR
    )]
    BadBinDir {
        /// The directory that was named.
        dir: PathBuf,
    },
    /// The directory named by the caller cannot be one.
    #[error(
        "{} cannot be the data directory ({source}); name a directory that can be written with --data-dir.",
        dir.display()
    )]
    BadDir {
        /// The directory that was named.
        dir: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The data was written by a major version that is not installed.
    #[error(
        "The database in {} was written by PostgreSQL {wanted}, but this machine only has {found}; install \
         PostgreSQL {wanted} beside it, or bring the data over with pg_upgrade.",
        data.display()
    )]
    WrongVersion {
        /// The data directory.
        data: PathBuf,
        /// Major version that wrote it.
        wanted: u32,
        /// The versions that were found.
        found: String,
    },
    /// Another server holds the lock of this directory.
    #[error("Another Daybook ({who}) is using {}; stop it or choose another directory with --data-dir.", dir.display())]
    InUse {
        /// The contested directory.
        dir: PathBuf,
        /// "pid N", or "pid unknown".
        who: String,
    },
    /// PostgreSQL refuses to run as root and no other user is there to run it.
    #[error(
        "PostgreSQL does not run as root, and this machine has neither a user postgres nor nobody; \
         create one with `useradd --system postgres`, or start Daybook as an ordinary user."
    )]
    NoUser,
    /// The user that runs PostgreSQL cannot get to its data.
    #[error(
        "PostgreSQL runs as the user {user}, who may not enter {}; allow it with `chmod a+x {}`, \
         or choose another directory with --data-dir.",
        at.display(), at.display()
    )]
    Unreachable {
        /// Name of the user that runs PostgreSQL.
        user: String,
        /// The first directory on the way that is closed to it.
        at: PathBuf,
    },
    /// The data was placed elsewhere and is no longer there.
    #[error(
        "The database of {} was kept in {}, which is gone; bring it back, or remove {} to begin with an empty one.",
        dir.display(), at.display(), note.display()
    )]
    Gone {
        /// The directory of this Daybook.
        dir: PathBuf,
        /// Where the data was.
        at: PathBuf,
        /// The file that says so.
        note: PathBuf,
    },
    /// No directory is both private and short enough for a Unix socket.
    #[error("{} cannot hold PostgreSQL's socket ({why}); remove it, or choose a shorter directory with --data-dir.", dir.display())]
    SocketDir {
        /// The directory that was tried.
        dir: PathBuf,
        /// What is wrong with it.
        why: &'static str,
    },
    /// initdb failed.
    #[error("PostgreSQL's initdb could not create the database in {}: {output}", data.display())]
    Init {
        /// The data directory.
        data: PathBuf,
        /// The end of what initdb said.
        output: String,
    },
    /// The server ended or never answered.
    #[error("PostgreSQL did not start ({why}); its log {} ends with: {tail}", log.display())]
    NotStarted {
        /// "it ended with ..." or "no answer after ...".
        why: String,
        /// Path of the server's log.
        log: PathBuf,
        /// The telling lines of that log.
        tail: String,
    },
    /// The server would not end.
    #[error("PostgreSQL (pid {pid}) did not stop, not even when killed; end it by hand before the next start.")]
    NotStopped {
        /// The process that is left.
        pid: u32,
    },
    /// A file or directory could not be used.
    #[error("Daybook could not {doing} {}: {source}", path.display())]
    Io {
        /// What was tried, for example "create".
        doing: &'static str,
        /// On which path.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The server answered, but not as expected.
    #[error("The embedded PostgreSQL answered with an error: {0}")]
    Database(#[from] sqlx::Error),
}

impl EmbeddedError {
    /// For `map_err`: names what was tried on which path.
    pub(super) fn io(doing: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { doing, path, source }
    }
}
