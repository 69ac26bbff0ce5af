//! Who posts a view: one node holds its advisory lock and shows at times that it lives; the others wait for the lock,
//! and end the connection of a holder that stands still.

use std::time::Duration;

use sqlx::PgConnection;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::projection::Scope;

/// How long a leader may be silent before others take the lead from it. PostgreSQL does not notice that a machine was
/// switched off, or a process stopped, for hours.
pub(crate) const SILENCE: Duration = Duration::from_secs(8);

/// What the leader of a view locks.
pub(crate) fn lock_key(name: &str, scope: Scope) -> String {
    format!("daybook projection {name} of log {} version {}", scope.log, scope.version)
}

/// Takes the lock; `false` when asked to stop while waiting for it.
pub(crate) async fn take(
    db: &mut PgConnection,
    key: &str,
    silence: Duration,
    stop: &CancellationToken,
) -> Result<bool, sqlx::Error> {
    loop {
        let leads: bool = sqlx::query_scalar("SELECT pg_try_advisory_lock(hashtextextended($1, 0))")
            .bind(key)
            .fetch_one(&mut *db)
            .await?;
        if leads {
            return Ok(true);
        }
        if depose(db, key, silence).await? {
            tracing::warn!(key, "the node that posted a view stood still; its connection was ended");
            continue;
        }
        tokio::select! {
            () = stop.cancelled() => return Ok(false),
            () = sleep(silence / 4) => {}
        }
    }
}

/// Shows that the leader lives.
pub(crate) async fn show_life(db: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::query("SELECT").execute(db).await.map(drop)
}

/// Ends the holder's connection if the database waits for its next statement and has had none for `silence`. What it
/// had begun is undone, and when it goes on it finds that it has lost the lock.
async fn depose(db: &mut PgConnection, key: &str, silence: Duration) -> Result<bool, sqlx::Error> {
    // pg_locks shows the two halves of the key: <https://www.postgresql.org/docs/current/view-pg-locks.html>.
    let ended: Option<bool> = sqlx::query_scalar(
        "SELECT pg_terminate_backend(a.pid, 5000) FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid \
         WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1 \
             AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database()) \
             AND (l.classid::bigint << 32) | l.objid::bigint = hashtextextended($1, 0) \
             AND a.state <> 'active' AND a.state_change < clock_timestamp() - $2 * interval '1 millisecond'",
    )
    .bind(key)
    .bind(i64::try_from(silence.as_millis()).unwrap_or(i64::MAX))
    .fetch_optional(db)
    .await?;
    Ok(ended == Some(true))
}
