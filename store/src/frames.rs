//! Frames: what watchers of a run tree received, kept a day so that they can resume. A cache, never truth.

use std::collections::HashMap;
use std::sync::Arc;

use daybook_domain::{LogId, RunId};
use sqlx::PgPool;
use uuid::Uuid;

use crate::error::StoreError;
use crate::keys::{DataKey, Keyring};
use crate::types::{FrameChunk, Subject};

/// Writes and reads frames; cheap to clone.
#[derive(Clone)]
pub struct FrameStore {
    pub(crate) pool: PgPool,
    pub(crate) keyring: Arc<Keyring>,
}

/// When frames are safe from a crash of PostgreSQL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// When the call returns.
    Now,
    /// With the next event that is appended: the write-ahead log is one sequence.
    WithNextEvent,
}

#[derive(Default)]
struct Columns {
    log: Vec<i64>,
    tree: Vec<String>,
    first: Vec<i64>,
    last: Vec<i64>,
    count: Vec<i64>,
    key: Vec<Uuid>,
    body: Vec<Vec<u8>>,
}

#[derive(sqlx::FromRow)]
struct FrameRow {
    first_index: i64,
    last_index: i64,
    count: i64,
    key_id: Uuid,
    body: Vec<u8>,
}

impl FrameStore {
    /// Keeps `chunks`, all or none. A chunk may overlap an earlier one of its run; frames of one index are the same.
    ///
    /// # Errors
    /// [`StoreError`] when the database or a key fails.
    pub async fn put(&self, chunks: &[FrameChunk], durability: Durability) -> Result<(), StoreError> {
        if chunks.is_empty() {
            return Ok(());
        }
        let mut keys: HashMap<(LogId, Subject), Arc<DataKey>> = HashMap::new();
        let mut columns = Columns::default();
        for chunk in chunks {
            let at = (chunk.log, chunk.subject.clone());
            let key = match keys.get(&at) {
                Some(key) => key.clone(),
                None => {
                    let key = self.keyring.stored(at.0, &at.1).await?;
                    keys.insert(at, key.clone());
                    key
                }
            };
            let place = frame_place(chunk.log, &chunk.tree, chunk.first_index);
            columns.body.push(key.sealer.seal(&place, &chunk.body)?);
            columns.log.push(chunk.log.0);
            columns.tree.push(chunk.tree.to_string());
            columns.first.push(chunk.first_index as i64);
            columns.last.push(chunk.last_index as i64);
            columns.count.push(i64::from(chunk.count));
            columns.key.push(key.id);
        }
        sqlx::query("SELECT put_frames($1, $2, $3, $4, $5, $6, $7, $8)")
            .bind(columns.log)
            .bind(columns.tree)
            .bind(columns.first)
            .bind(columns.last)
            .bind(columns.count)
            .bind(columns.key)
            .bind(columns.body)
            .bind(durability == Durability::Now)
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    /// The first and the last index of each chunk of a run tree, in order, without reading what is in them. Chunks may
    /// overlap; those whose key was erased are left out.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn spans(&self, log: LogId, tree: &RunId) -> Result<Vec<(u64, u64)>, StoreError> {
        let rows: Vec<(i64, i64)> = sqlx::query_as(
            "SELECT f.first_index, f.last_index FROM frames f WHERE f.log_id = $1 AND f.tree_id = $2 \
             AND (SELECT k.key_id FROM keys k WHERE k.log_id = $1 AND k.key_id = f.key_id) IS NOT NULL \
             ORDER BY f.first_index",
        )
        .bind(log.0)
        .bind(tree.as_str())
        .fetch_all(&self.pool)
        .await?;
        Ok(rows.into_iter().map(|(first, last)| (first as u64, last as u64)).collect())
    }

    /// At most `limit` chunks of a run tree that hold frames after `after_index` (or from the first), in order. The
    /// first may begin before it. Chunks whose key was erased are left out.
    ///
    /// # Errors
    /// [`StoreError::Tampered`] when a chunk was changed, others when the database fails.
    pub async fn read(
        &self,
        log: LogId,
        tree: &RunId,
        after_index: Option<u64>,
        limit: usize,
    ) -> Result<Vec<FrameChunk>, StoreError> {
        let rows: Vec<FrameRow> = sqlx::query_as(
            "SELECT first_index, last_index, count, key_id, body FROM frames \
             WHERE log_id = $1 AND tree_id = $2 AND last_index > $3 ORDER BY first_index LIMIT $4",
        )
        .bind(log.0)
        .bind(tree.as_str())
        .bind(after_index.map_or(-1, |index| i64::try_from(index).unwrap_or(i64::MAX)))
        .bind(i64::try_from(limit).unwrap_or(i64::MAX))
        .fetch_all(&self.pool)
        .await?;
        let keys = self.keyring.by_ids(log, rows.iter().map(|row| row.key_id).collect()).await?;
        let mut chunks = Vec::with_capacity(rows.len());
        for row in rows {
            let Some(key) = keys.get(&row.key_id).and_then(Option::as_ref) else { continue };
            let first_index = row.first_index as u64;
            let body = key
                .sealer
                .open(&frame_place(log, tree, first_index), &row.body)
                .ok_or_else(|| StoreError::Tampered(format!("frame {first_index} of run {tree}")))?;
            chunks.push(FrameChunk {
                log,
                tree: tree.clone(),
                subject: key.subject.clone(),
                first_index,
                last_index: row.last_index as u64,
                count: row.count as u32,
                body,
            });
        }
        Ok(chunks)
    }
}

fn frame_place(log: LogId, tree: &RunId, first_index: u64) -> String {
    format!("frame|{log}|{tree}|{first_index}")
}
