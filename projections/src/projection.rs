//! What a projection is: which events it wants and how it takes a batch of them into its tables.

use std::future::Future;

use daybook_domain::LogId;
use daybook_store::Entry;
use sqlx::PgConnection;

use crate::error::ApplyError;

/// The rows a projection works on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scope {
    /// The log.
    pub log: LogId,
    /// The version of the projection's code.
    pub version: i32,
}

/// A view that is posted from the log.
pub(crate) trait Projection: Send + Sync + 'static {
    /// Its name, for ever.
    const NAME: &'static str;
    /// The version of its code. Raise it when the same events give other rows: the view is then built anew beside the
    /// old one. Versions only grow.
    const VERSION: i32;

    /// Whether it takes events of this type.
    fn wants(kind: &str) -> bool;

    /// Takes `events`, in the log's order and all wanted, into the rows of `scope`. Runs inside a transaction.
    fn apply(
        db: &mut PgConnection,
        scope: Scope,
        events: &[Entry],
    ) -> impl Future<Output = Result<(), ApplyError>> + Send;

    /// Deletes all rows of `scope`.
    fn clear(db: &mut PgConnection, scope: Scope) -> impl Future<Output = Result<(), sqlx::Error>> + Send;
}
