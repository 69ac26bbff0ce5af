//! Partitions made ahead and old frames dropped.

use std::sync::Arc;
use std::time::Duration;

use sqlx::PgPool;
use tokio::sync::Notify;
use tracing::warn;

use crate::error::StoreError;

/// Positions in a partition of `events`; the migrations say the same.
pub(crate) const PARTITION_SIZE: u64 = 1_000_000;
const EVERY: Duration = Duration::from_secs(600);

/// Lets a writer ask for more partitions.
#[derive(Clone, Default)]
pub(crate) struct Partitions(Arc<Notify>);

impl Partitions {
    pub(crate) fn wanted(&self) {
        self.0.notify_one();
    }

    /// Keeps house every ten minutes and when asked. Runs for ever.
    pub(crate) async fn keep(self, pool: PgPool) {
        let mut ticks = tokio::time::interval(EVERY);
        // The first comes at once, and opening the store has done it.
        ticks.tick().await;
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = self.0.notified() => {}
            }
            if let Err(error) = make_partitions(&pool).await {
                warn!(%error, "partitions cannot be made ahead; this is tried again");
            }
            if let Err(error) = drop_old_frames(&pool).await {
                warn!(%error, "old frames cannot be dropped; this is tried again");
            }
        }
    }
}

pub(crate) async fn make_partitions(pool: &PgPool) -> Result<(), StoreError> {
    sqlx::query("SELECT make_partitions()").execute(pool).await?;
    Ok(())
}

/// Drops the frames of days that ended more than a day ago; returns how many days went.
pub(crate) async fn drop_old_frames(pool: &PgPool) -> Result<u64, StoreError> {
    let dropped: i64 = sqlx::query_scalar("SELECT drop_old_frames()").fetch_one(pool).await?;
    Ok(dropped as u64)
}
