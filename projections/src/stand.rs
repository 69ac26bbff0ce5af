//! How far the views are, for who looks from outside of a running server.

use daybook_domain::{LogId, StreamId};
use sqlx::PgConnection;

use crate::approvals::Approvals;
use crate::error::ViewError;
use crate::parked;
use crate::projection::{Projection, Scope};
use crate::runs::Runs;
use crate::sessions::Sessions;

/// How far one view is.
#[derive(Debug, Clone)]
pub struct ViewStand {
    /// Its name.
    pub name: &'static str,
    /// How many events of the log it has not taken in.
    pub behind: u64,
    /// The first streams it could not go on with, and why.
    pub parked: Vec<(StreamId, String)>,
}

/// How far each view of a log is. The database must be at this program's version.
///
/// # Errors
/// [`ViewError`] when the database does not answer.
pub async fn views_stand(db: &mut PgConnection, log: LogId) -> Result<Vec<ViewStand>, ViewError> {
    Ok(vec![stand::<Runs>(db, log).await?, stand::<Sessions>(db, log).await?, stand::<Approvals>(db, log).await?])
}

async fn stand<P: Projection>(db: &mut PgConnection, log: LogId) -> Result<ViewStand, ViewError> {
    let behind: Option<i64> = sqlx::query_scalar(
        "SELECT h.position - coalesce(c.position, 0) FROM log_head h LEFT JOIN projection_checkpoints c \
         ON c.log_id = h.log_id AND c.projection = $2 AND c.version = $3 WHERE h.log_id = $1",
    )
    .bind(log.0)
    .bind(P::NAME)
    .bind(P::VERSION)
    .fetch_optional(&mut *db)
    .await?;
    let parked = parked::told(db, P::NAME, Scope { log, version: P::VERSION }).await?;
    Ok(ViewStand { name: P::NAME, behind: behind.unwrap_or_default().max(0).unsigned_abs(), parked })
}
