//! Which streams had events of some types, without reading the events: how a node hears of what others did.

use daybook_domain::{LogId, RunId, StreamId};
use tokio::sync::broadcast;

use crate::error::StoreError;
use crate::store::Store;

/// The most positions one look goes over.
const SPAN: u64 = 5_000;

impl Store {
    /// Asks the node that runs `run` to keep its frames, because somebody watches it here. A hint: it may be lost.
    ///
    /// # Errors
    /// [`StoreError`] when the database does not answer.
    pub async fn ask_to_keep(&self, log: LogId, run: &RunId) -> Result<(), StoreError> {
        let payload = format!("{log} {run}");
        sqlx::query("SELECT pg_notify('daybook_watch', $1)").bind(payload).execute(self.pool()).await?;
        Ok(())
    }

    /// The runs that other nodes, and this one, ask to keep the frames of.
    pub fn asked_to_keep(&self) -> broadcast::Receiver<(LogId, RunId)> {
        self.heads().asked()
    }

    /// The types and streams of the events of `kinds` after `position`, in order, and the position looked up to.
    ///
    /// # Errors
    /// [`StoreError`] when the database does not answer.
    pub async fn signals(
        &self,
        log: LogId,
        position: u64,
        kinds: &[&str],
    ) -> Result<(u64, Vec<(String, StreamId)>), StoreError> {
        let upto = self.head(log).await?.min(position + SPAN);
        if upto <= position {
            return Ok((position, Vec::new()));
        }
        let rows: Vec<(String, String)> = sqlx::query_as(
            "SELECT type, stream_id FROM events \
             WHERE log_id = $1 AND position > $2 AND position <= $3 AND type = ANY ($4) ORDER BY position",
        )
        .bind(log.0)
        .bind(i64::try_from(position).unwrap_or(i64::MAX))
        .bind(i64::try_from(upto).unwrap_or(i64::MAX))
        .bind(kinds)
        .fetch_all(self.pool())
        .await?;
        Ok((upto, rows.into_iter().map(|(kind, stream)| (kind, StreamId::from_log(stream))).collect()))
    }
}
