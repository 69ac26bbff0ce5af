//! How far views are, as this node knows it: told by its runner when it leads, else asked from the checkpoints.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use daybook_domain::LogId;
use sqlx::PgPool;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep};

/// How often a node that does not lead asks how far the leader is.
const POLL: Duration = Duration::from_millis(10);
/// How often a leading node asks nevertheless: it may have lost the lead without knowing yet.
const DOUBT: Duration = Duration::from_millis(100);

/// Rows fit to be read, and up to which event they were posted. Later versions are further.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Served {
    /// The version of the rows.
    pub version: i32,
    /// The position they reached.
    pub position: u64,
}

/// How far one view of one log is.
#[derive(Debug)]
pub(crate) struct Progress {
    log: LogId,
    projection: &'static str,
    /// The version of this program's code.
    version: i32,
    served: watch::Sender<Served>,
    leading: AtomicBool,
    /// A reader waits: the leader should not linger.
    pub(crate) wanted: Notify,
    /// Held by the one reader that asks for all that wait.
    asking: tokio::sync::Mutex<()>,
}

impl Progress {
    fn new(log: LogId, projection: &'static str, version: i32) -> Self {
        let served = watch::Sender::new(Served { version: 0, position: 0 });
        let (leading, wanted, asking) = (AtomicBool::new(false), Notify::new(), tokio::sync::Mutex::new(()));
        Self { log, projection, version, served, leading, wanted, asking }
    }

    /// Tells waiting readers how far the view is.
    pub(crate) fn publish(&self, served: Served) {
        self.served.send_if_modified(|known| {
            let news = served > *known;
            *known = served.max(*known);
            news
        });
    }

    /// Says whether this node posts the view.
    pub(crate) fn set_leading(&self, leading: bool) {
        self.leading.store(leading, Ordering::Release);
    }

    /// Whether this node posts the view.
    pub(crate) fn is_leading(&self) -> bool {
        self.leading.load(Ordering::Acquire)
    }

    /// Waits until the view reaches `head`, no longer than `patience`, and says which rows to read.
    ///
    /// # Errors
    /// When the database cannot be asked.
    pub(crate) async fn reach(&self, pool: &PgPool, head: u64, patience: Duration) -> Result<Served, sqlx::Error> {
        let deadline = Instant::now() + patience;
        let mut news = self.served.subscribe();
        loop {
            let known = *news.borrow_and_update();
            // Rows of another version may be dropped at any time: never trust memory about them.
            if known.version == self.version && known.position >= head {
                return Ok(known);
            }
            self.wanted.notify_one();
            if !self.is_leading()
                && let Ok(_turn) = self.asking.try_lock()
            {
                let served = self.ask(pool).await?;
                if served.position >= head {
                    return Ok(served);
                }
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return self.ask(pool).await;
            }
            let pause = if self.is_leading() { DOUBT } else { POLL };
            tokio::select! {
                // The sender is `self`: it cannot be gone.
                _ = news.changed() => {}
                () = sleep(pause.min(left)) => {
                    if self.is_leading() && let Ok(_turn) = self.asking.try_lock() {
                        self.ask(pool).await?;
                    }
                }
            }
        }
    }

    /// Asks the checkpoints: this program's version once it is ready, else the newest older one that is.
    async fn ask(&self, pool: &PgPool) -> Result<Served, sqlx::Error> {
        let row: Option<(i32, i64)> = sqlx::query_as(
            "SELECT version, position FROM projection_checkpoints \
             WHERE log_id = $1 AND projection = $2 AND version <= $3 \
             ORDER BY ready DESC, version DESC LIMIT 1",
        )
        .bind(self.log.0)
        .bind(self.projection)
        .bind(self.version)
        .fetch_optional(pool)
        .await?;
        let (version, position) = row.unwrap_or((self.version, 0));
        let served = Served { version, position: u64::try_from(position).unwrap_or_default() };
        self.publish(served);
        Ok(served)
    }
}

/// The progress of all views this node reads or posts.
#[derive(Debug, Default)]
pub(crate) struct Hub {
    known: Mutex<HashMap<(LogId, &'static str), Arc<Progress>>>,
}

impl Hub {
    /// The progress of one view of one log.
    pub(crate) fn progress(&self, log: LogId, projection: &'static str, version: i32) -> Arc<Progress> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.entry((log, projection)).or_insert_with(|| Arc::new(Progress::new(log, projection, version))).clone()
    }
}
