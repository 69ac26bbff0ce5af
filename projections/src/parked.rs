//! Streams a projection could not go on with: kept aside, so that the rest of the log is not held up.

use daybook_domain::StreamId;
use sqlx::{PgConnection, PgExecutor};

use crate::projection::Scope;
use crate::text;

/// The most parked streams a status tells.
const TOLD: i64 = 100;

/// A stream left at an event.
#[derive(Debug, Clone)]
pub(crate) struct Parked {
    /// The stream.
    pub stream: StreamId,
    /// The version of the event that could not be taken in.
    pub version: u64,
    /// Its position.
    pub position: u64,
    /// What is wrong with it.
    pub error: String,
}

/// All parked streams: which, and the version of the event each stands before.
pub(crate) async fn all(
    db: &mut PgConnection,
    name: &'static str,
    scope: Scope,
) -> Result<Vec<(StreamId, u64)>, sqlx::Error> {
    let rows: Vec<(String, i64)> = sqlx::query_as(
        "SELECT stream_id, stream_version FROM projection_parked \
         WHERE log_id = $1 AND projection = $2 AND version = $3 ORDER BY position",
    )
    .bind(scope.log.0)
    .bind(name)
    .bind(scope.version)
    .fetch_all(db)
    .await?;
    Ok(rows.into_iter().map(|(stream, version)| (StreamId::from_log(stream), version.unsigned_abs())).collect())
}

/// The first parked streams with their errors, for people.
pub(crate) async fn told(
    db: impl PgExecutor<'_>,
    name: &'static str,
    scope: Scope,
) -> Result<Vec<(StreamId, String)>, sqlx::Error> {
    let rows: Vec<(String, String)> = sqlx::query_as(
        "SELECT stream_id, error FROM projection_parked \
         WHERE log_id = $1 AND projection = $2 AND version = $3 ORDER BY position LIMIT $4",
    )
    .bind(scope.log.0)
    .bind(name)
    .bind(scope.version)
    .bind(TOLD)
    .fetch_all(db)
    .await?;
    Ok(rows.into_iter().map(|(stream, error)| (StreamId::from_log(stream), error)).collect())
}

/// Parks a stream.
pub(crate) async fn park(
    db: &mut PgConnection,
    name: &'static str,
    scope: Scope,
    parked: &Parked,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO projection_parked (log_id, projection, version, stream_id, stream_version, position, error) \
         VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT DO NOTHING",
    )
    .bind(scope.log.0)
    .bind(name)
    .bind(scope.version)
    .bind(parked.stream.as_str())
    .bind(parked.version.cast_signed())
    .bind(parked.position.cast_signed())
    .bind(text::clean(&parked.error).as_ref())
    .execute(db)
    .await?;
    Ok(())
}

/// Forgets that a stream was parked.
pub(crate) async fn unpark(
    db: &mut PgConnection,
    name: &'static str,
    scope: Scope,
    stream: &StreamId,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "DELETE FROM projection_parked WHERE log_id = $1 AND projection = $2 AND version = $3 AND stream_id = $4",
    )
    .bind(scope.log.0)
    .bind(name)
    .bind(scope.version)
    .bind(stream.as_str())
    .execute(db)
    .await?;
    Ok(())
}
