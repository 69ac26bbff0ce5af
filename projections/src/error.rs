//! What can go wrong with views, told so that a person can mend it.

use daybook_store::StoreError;

/// Why a view could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ViewError {
    /// The log or the database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A row of the view is not what this program writes.
    #[error("the view's row of {what} cannot be read ({source}); delete the view's checkpoint row to post it again")]
    Unreadable {
        /// Which row.
        what: String,
        /// What is wrong with it.
        source: serde_json::Error,
    },
}

impl From<sqlx::Error> for ViewError {
    fn from(error: sqlx::Error) -> Self {
        Self::Store(error.into())
    }
}

/// Why posting a view broke off.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PostError {
    /// The log or the database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Another runner moved the checkpoint: this one does not lead any more.
    #[error("the checkpoint was moved by another node, which posts this view now")]
    Overtaken,
    /// A newer program wrote an event that this one does not know.
    #[error("event type {kind:?} at position {position} is unknown to this program; upgrade it to post this view on")]
    UnknownType {
        /// The event's type.
        kind: String,
        /// Where it is.
        position: u64,
    },
}

impl PostError {
    /// Whether trying again can help without a person's doing.
    pub(crate) fn may_pass(&self) -> bool {
        !matches!(self, Self::UnknownType { .. } | Self::Store(StoreError::Closed))
    }
}

impl From<sqlx::Error> for PostError {
    fn from(error: sqlx::Error) -> Self {
        Self::Store(error.into())
    }
}

/// Why events could not be taken into a view.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApplyError {
    /// The database failed or refused.
    #[error(transparent)]
    Database(#[from] sqlx::Error),
    /// An event does not fit the row it belongs to.
    #[error("{0}")]
    Event(String),
    /// A row is not what this program writes, or cannot be written.
    #[error("the view's row cannot be read or written: {0}")]
    Row(#[from] serde_json::Error),
}

impl ApplyError {
    /// Whether the events or rows are at fault, so that the same events would fail again; otherwise the database is.
    pub(crate) fn is_about_data(&self) -> bool {
        match self {
            Self::Event(_) | Self::Row(_) => true,
            // 22: the value does not fit, 23: a constraint, 54: a limit such as an index entry's size.
            Self::Database(sqlx::Error::Database(error)) => {
                error.code().is_some_and(|code| ["22", "23", "54"].iter().any(|class| code.starts_with(class)))
            }
            Self::Database(error) => {
                matches!(error, sqlx::Error::Decode(_) | sqlx::Error::ColumnDecode { .. } | sqlx::Error::Encode(_))
            }
        }
    }
}

impl From<ApplyError> for PostError {
    fn from(error: ApplyError) -> Self {
        match error {
            ApplyError::Database(error) => error.into(),
            other => Self::Store(StoreError::Invalid(other.to_string())),
        }
    }
}
