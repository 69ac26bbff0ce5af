//! Snapshots and blobs: beside the log, encrypted like it.

use daybook_domain::{LogId, SessionId, StreamId};
use sqlx::PgPool;
use uuid::Uuid;

use crate::error::StoreError;
use crate::keys::Keyring;
use crate::leaf::sha256;
use crate::types::Subject;

/// A fold's state at a version of its stream.
pub(crate) struct Snapshot<'a> {
    pub log: LogId,
    pub stream: &'a StreamId,
    pub version: u64,
    pub position: u64,
    pub fold_version: u32,
    pub state: &'a str,
}

fn snapshot_place(log: LogId, stream: &StreamId, fold: u32, version: u64) -> String {
    format!("snapshot|{log}|{stream}|{fold}|{version}")
}

pub(crate) async fn save_snapshot(
    pool: &PgPool,
    keyring: &Keyring,
    snapshot: Snapshot<'_>,
    subject: &Subject,
) -> Result<(), StoreError> {
    let key = keyring.stored(snapshot.log, subject).await?;
    let place = snapshot_place(snapshot.log, snapshot.stream, snapshot.fold_version, snapshot.version);
    let body = key.sealer.seal(&place, snapshot.state.as_bytes())?;
    sqlx::query("SELECT put_snapshot($1, $2, $3, $4, $5, $6, $7)")
        .bind(snapshot.log.0)
        .bind(snapshot.stream.as_str())
        .bind(i64::from(snapshot.fold_version))
        .bind(snapshot.version as i64)
        .bind(snapshot.position as i64)
        .bind(key.id)
        .bind(body)
        .execute(pool)
        .await?;
    Ok(())
}

pub(crate) async fn load_snapshot(
    pool: &PgPool,
    keyring: &Keyring,
    log: LogId,
    stream: &StreamId,
    fold_version: u32,
) -> Result<Option<(u64, u64, String)>, StoreError> {
    let row: Option<(i64, i64, Uuid, Vec<u8>)> = sqlx::query_as(
        "SELECT version, position, key_id, body FROM snapshots \
         WHERE log_id = $1 AND stream_id = $2 AND fold_version = $3",
    )
    .bind(log.0)
    .bind(stream.as_str())
    .bind(i64::from(fold_version))
    .fetch_optional(pool)
    .await?;
    let Some((version, position, key_id, body)) = row else { return Ok(None) };
    let Some(key) = keyring.by_id(log, key_id).await? else { return Ok(None) };
    let (version, position) = (version as u64, position as u64);
    let state = key
        .sealer
        .open(&snapshot_place(log, stream, fold_version, version), &body)
        .and_then(|bytes| String::from_utf8(bytes).ok())
        .ok_or_else(|| StoreError::Tampered(format!("the snapshot of {stream}")))?;
    Ok(Some((version, position, state)))
}

fn blob_place(log: LogId, session: &SessionId, hash: &str) -> String {
    format!("blob|{log}|{session}|{hash}")
}

pub(crate) async fn put_blob(
    pool: &PgPool,
    keyring: &Keyring,
    log: LogId,
    subject: &Subject,
    bytes: &[u8],
) -> Result<String, StoreError> {
    let key = keyring.stored(log, subject).await?;
    let hash = hex::encode(sha256(bytes));
    // One under an erased key makes way.
    sqlx::query(
        "INSERT INTO blobs AS b (log_id, session_id, hash, key_id, body) VALUES ($1, $2, $3, $4, $5) \
         ON CONFLICT (log_id, session_id, hash) DO UPDATE SET key_id = excluded.key_id, body = excluded.body \
         WHERE b.key_id <> excluded.key_id",
    )
    .bind(log.0)
    .bind(subject.session.as_str())
    .bind(&hash)
    .bind(key.id)
    .bind(key.sealer.seal(&blob_place(log, &subject.session, &hash), bytes)?)
    .execute(pool)
    .await?;
    Ok(hash)
}

pub(crate) async fn get_blob(
    pool: &PgPool,
    keyring: &Keyring,
    log: LogId,
    session: &SessionId,
    hash: &str,
) -> Result<Option<Vec<u8>>, StoreError> {
    let row: Option<(Uuid, Vec<u8>)> =
        sqlx::query_as("SELECT key_id, body FROM blobs WHERE log_id = $1 AND session_id = $2 AND hash = $3")
            .bind(log.0)
            .bind(session.as_str())
            .bind(hash)
            .fetch_optional(pool)
            .await?;
    let Some((key_id, body)) = row else { return Ok(None) };
    let Some(key) = keyring.by_id(log, key_id).await? else { return Ok(None) };
    let opened = key.sealer.open(&blob_place(log, session, hash), &body);
    opened.map(Some).ok_or_else(|| StoreError::Tampered(format!("the blob {hash}")))
}
