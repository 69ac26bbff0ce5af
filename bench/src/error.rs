//! What can go wrong, in one sentence for standard error.

use daybook_projections::ViewError;
use daybook_store::embedded::EmbeddedError;
use daybook_store::{AppendError, MigrateError, StoreError};

/// Why a measurement could not be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The system refused.
    #[error("could not {doing}: {source}")]
    Io {
        /// What was tried.
        doing: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// A child process did not do what it was started for.
    #[error("{name} {what}{}", tail(log))]
    Child {
        /// Which one.
        name: String,
        /// What it did.
        what: String,
        /// The end of what it wrote on standard error.
        log: String,
    },
    /// Something that must be there is not.
    #[error("{0}")]
    Missing(String),
    /// The private PostgreSQL.
    #[error(transparent)]
    Embedded(#[from] EmbeddedError),
    /// The log.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A migration.
    #[error(transparent)]
    Migrate(#[from] MigrateError),
    /// An append.
    #[error(transparent)]
    Append(#[from] AppendError),
    /// A view.
    #[error(transparent)]
    View(#[from] ViewError),
    /// Daybook itself.
    #[error(transparent)]
    Daybook(Box<daybook::Error>),
    /// A result that is no JSON, which no child of ours prints.
    #[error("a result is not the JSON it should be: {0}")]
    Json(#[from] serde_json::Error),
    /// A signal came.
    #[error("stopped by a signal; the processes that were started have ended")]
    Stopped,
}

impl From<daybook::Error> for Error {
    fn from(error: daybook::Error) -> Self {
        Self::Daybook(Box::new(error))
    }
}

impl Error {
    /// Names what was tried, for `map_err`.
    pub fn io(doing: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let doing = doing.into();
        move |source| Self::Io { doing, source }
    }
}

fn tail(log: &str) -> String {
    if log.is_empty() { String::new() } else { format!("; it last said:\n{log}") }
}
