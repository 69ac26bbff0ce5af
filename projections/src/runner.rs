//! The one runner: a tracked task per projection, and what they are up to.

use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use backon::{ExponentialBuilder, Retryable};
use daybook_domain::{LogId, StreamId};
use daybook_store::Store;
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use crate::approvals::Approvals;
use crate::error::{PostError, ViewError};
use crate::lead;
use crate::parked;
use crate::post::Poster;
use crate::progress::Hub;
use crate::projection::{Projection, Scope};
use crate::runs::Runs;
use crate::sessions::Sessions;
use crate::views::Views;

/// The first and the longest wait before posting is tried again after the database failed.
pub(crate) const RETRY_AFTER: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

/// How a projection is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProjectionStatus {
    /// Its name.
    pub name: &'static str,
    /// The position it reached.
    pub position: u64,
    /// The log's head.
    pub head: u64,
    /// Whether this node posts it.
    pub leading: bool,
    /// Streams it could not go on with, and why; the first 100.
    pub parked: Vec<(StreamId, String)>,
    /// Why it stopped for good on this node, if it did.
    pub stopped: Option<String>,
    /// What it is trying to get over, if anything.
    pub trouble: Option<String>,
}

/// A projection's task as the runner sees it.
struct Posting {
    name: &'static str,
    version: i32,
    stopped: watch::Receiver<Option<String>>,
    trouble: watch::Receiver<Option<String>>,
}

/// Posts all views of one log. One node of many leads each view; the others stand by. Dropping it stops it soon,
/// [`Runner::stop`] waits for the end.
pub struct Runner {
    store: Store,
    log: LogId,
    hub: Arc<Hub>,
    tasks: TaskTracker,
    stop: CancellationToken,
    postings: Vec<Posting>,
    _stop_on_drop: DropGuard,
}

impl Runner {
    /// Starts posting all views. Must be called inside a tokio runtime.
    pub fn start(store: Store, log: LogId) -> Self {
        Self::start_some(store, log, |_| true)
    }

    /// Starts posting the views whose names are wanted: what one costs by itself. Must be called inside a tokio runtime.
    pub fn start_some(store: Store, log: LogId, wanted: impl Fn(&str) -> bool) -> Self {
        let stop = CancellationToken::new();
        let mut runner = Self {
            store,
            log,
            hub: Arc::default(),
            tasks: TaskTracker::new(),
            _stop_on_drop: stop.clone().drop_guard(),
            stop,
            postings: Vec::new(),
        };
        runner.post::<Runs>(&wanted);
        runner.post::<Sessions>(&wanted);
        runner.post::<Approvals>(&wanted);
        runner.tasks.close();
        runner
    }

    fn post<P: Projection>(&mut self, wanted: impl Fn(&str) -> bool) {
        if !wanted(P::NAME) {
            return;
        }
        let (stopped, trouble) = (watch::Sender::new(None), watch::Sender::new(None));
        self.postings.push(Posting {
            name: P::NAME,
            version: P::VERSION,
            stopped: stopped.subscribe(),
            trouble: trouble.subscribe(),
        });
        let poster = Arc::new(Poster::<P> {
            store: self.store.clone(),
            log: self.log,
            progress: self.hub.progress(self.log, P::NAME, P::VERSION),
            stop: self.stop.clone(),
            silence: lead::SILENCE,
            trouble,
            projection: PhantomData,
        });
        self.tasks.spawn(keep_posting(poster, stopped));
    }

    /// The queries, told at once what this node has posted.
    pub fn views(&self) -> Views {
        Views::told_by(self.store.clone(), self.hub.clone())
    }

    /// Stops posting and gives up the lead, so that another node takes over. Returns when all tasks have ended.
    pub async fn stop(&self) {
        self.stop.cancel();
        self.tasks.wait().await;
    }

    /// How the projections are doing, for `/health`.
    ///
    /// # Errors
    /// [`ViewError`] when the database cannot be asked.
    pub async fn status(&self) -> Result<Vec<ProjectionStatus>, ViewError> {
        let head = self.store.head(self.log).await?;
        let mut all = Vec::with_capacity(self.postings.len());
        for posting in &self.postings {
            let (name, scope) = (posting.name, Scope { log: self.log, version: posting.version });
            let position: Option<i64> = sqlx::query_scalar(
                "SELECT position FROM projection_checkpoints WHERE log_id = $1 AND projection = $2 AND version = $3",
            )
            .bind(self.log.0)
            .bind(name)
            .bind(posting.version)
            .fetch_optional(self.store.pool())
            .await?;
            all.push(ProjectionStatus {
                name,
                position: position.unwrap_or_default().unsigned_abs(),
                head,
                leading: self.hub.progress(self.log, name, posting.version).is_leading(),
                parked: parked::told(self.store.pool(), name, scope).await?,
                stopped: posting.stopped.borrow().clone(),
                trouble: posting.trouble.borrow().clone(),
            });
        }
        Ok(all)
    }
}

/// Posts until stopped; after a failure of the database, or when overtaken, begins again from the checkpoint.
async fn keep_posting<P: Projection>(poster: Arc<Poster<P>>, stopped: watch::Sender<Option<String>>) {
    let (first, longest) = RETRY_AFTER;
    let delays =
        ExponentialBuilder::default().with_min_delay(first).with_max_delay(longest).without_max_times().with_jitter();
    let attempt = || {
        let poster = poster.clone();
        async move { poster.lead().await }
    };
    let posting = attempt.retry(delays).when(PostError::may_pass).notify(|error, wait| {
        tracing::warn!(projection = P::NAME, %error, ?wait, "posting broke off and is tried again");
        poster.trouble.send_replace(Some(error.to_string()));
    });
    // Breaking off anywhere is safe: what was not committed did not happen, and a closed connection lets go of the lock.
    if let Some(Err(error)) = poster.stop.run_until_cancelled(posting).await {
        tracing::error!(projection = P::NAME, %error, "posting stopped");
        stopped.send_replace(Some(error.to_string()));
    }
}
