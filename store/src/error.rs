//! What can go wrong here, told so that a person can mend it.

use daybook_domain::event::DecodeError;
use daybook_domain::{RunId, StreamId};

/// Why the store could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database is away: not started, restarting, out of connections, or the network is down. Trying again helps.
    #[error("the database cannot be reached ({0}); check that PostgreSQL runs and that DATABASE_URL is right")]
    Unavailable(String),
    /// The store was closed.
    #[error("the store is closed")]
    Closed,
    /// More is asked than the log takes in; trying again later helps.
    #[error("the log's queue is full; try again in a moment")]
    Overloaded,
    /// The database URL is not one.
    #[error("DATABASE_URL is not a PostgreSQL URL ({0}); it looks like postgres://user:password@host:5432/database")]
    BadUrl(String),
    /// A newer program migrated this database.
    #[error(
        "the database was migrated by a newer program (migration {0} is unknown to this one); upgrade this program"
    )]
    NewerDatabase(i64),
    /// A migration failed or was changed after it ran.
    #[error("the database cannot be migrated: {0}")]
    Migration(#[source] sqlx::migrate::MigrateError),
    /// The master key is not the one the database was written with.
    #[error("the master key is not the one this database was written with; give the key it was made with")]
    WrongMasterKey,
    /// The master key cannot be read.
    #[error("the master key is unusable: {0}")]
    BadMasterKey(String),
    /// The key file cannot be read or written.
    #[error("the key file {path} cannot be used: {source}")]
    KeyFile {
        /// Which file.
        path: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// The request could never be stored, whatever the log holds.
    #[error("this cannot be stored: {0}")]
    Invalid(String),
    /// A stored event cannot be read by this program.
    #[error("the event at position {position} cannot be read: {source}")]
    Decode {
        /// Its position.
        position: u64,
        /// What is wrong with it.
        source: DecodeError,
    },
    /// Stored bytes do not open under their key: they were changed, or moved from another place.
    #[error("{0} does not open under its key; it was changed after it was written")]
    Tampered(String),
    /// The database answered what this program does not understand.
    #[error("the database answered unexpectedly: {0}")]
    Unexpected(&'static str),
    /// A cipher or the random source failed, which does not happen on a healthy machine.
    #[error("encryption failed in {0}")]
    Crypto(&'static str),
    /// The database refused a statement.
    #[error("the database refused: {0}")]
    Database(#[source] sqlx::Error),
}

impl StoreError {
    /// Whether the same call may succeed later.
    pub fn is_temporary(&self) -> bool {
        matches!(self, Self::Unavailable(_) | Self::Overloaded)
    }
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        use sqlx::Error as E;
        match &error {
            E::PoolClosed => Self::Closed,
            _ if is_connection_loss(&error) || is_incapable(&error) => Self::Unavailable(error.to_string()),
            _ => Self::Database(error),
        }
    }
}

/// Whether the connection, not the statement, failed: the statement's outcome is unknown then.
pub(crate) fn is_connection_loss(error: &sqlx::Error) -> bool {
    use sqlx::Error as E;
    match error {
        E::Io(_) | E::Tls(_) | E::Protocol(_) | E::PoolTimedOut | E::PoolClosed | E::WorkerCrashed => true,
        // 08: connection, 53300: too many connections, 57P01-3: shut down, crashed, starting up.
        E::Database(error) => error.code().is_some_and(|code| {
            code.starts_with("08") || matches!(code.as_ref(), "53300" | "57P01" | "57P02" | "57P03")
        }),
        _ => false,
    }
}

/// Whether the database undid the statement for want of something that an operator can give back to it.
/// Codes: <https://www.postgresql.org/docs/current/errcodes-appendix.html>.
pub(crate) fn is_incapable(error: &sqlx::Error) -> bool {
    // 53: disk full, out of memory; 58030: the disk fails; 25006: only reads are taken, as on a standby;
    // 55000: the database takes no connections, or recovers.
    let code = error.as_database_error().and_then(|error| error.code());
    code.is_some_and(|code| code.starts_with("53") || matches!(code.as_ref(), "58030" | "25006" | "55000"))
}

/// Why an append wrote nothing.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// A stream is not at the expected version: read it again and decide anew.
    #[error("stream {stream} is at version {actual}, not where the writer expected it")]
    Conflict {
        /// The stream.
        stream: StreamId,
        /// Its version now.
        actual: u64,
    },
    /// The command was executed before.
    #[error("the command with this key was executed before, for {resource:?}")]
    Duplicate {
        /// What the first execution made or touched.
        resource: String,
        /// Whether it asked for the same; if not, the key was used for something else.
        same_body: bool,
    },
    /// The writer no longer holds the run tree's lease, or it was already taken.
    #[error("the lease of run tree {tree} is not held by this writer: another node took it over")]
    LostLease {
        /// The root run.
        tree: RunId,
    },
    /// The store failed. After [`StoreError::Unavailable`] the outcome is unknown: read the stream before deciding.
    #[error(transparent)]
    Store(#[from] StoreError),
}
