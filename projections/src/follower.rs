//! Who tells the world outside what happened to approvals: follows the log like a view, on one node at a time, and moves
//! its checkpoint when the world has been told. What a crash interrupts is told again.

use std::sync::Arc;
use std::time::Duration;

use backon::{ExponentialBuilder, Retryable};
use daybook_domain::approval::{ApprovalEvent, ApprovalState};
use daybook_domain::{DomainEvent, LogId, StreamId};
use daybook_store::{Store, StoreError};
use sqlx::{Connection, PgConnection};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use crate::batch::{Batch, Reader, is_unreadable};
use crate::error::PostError;
use crate::kinds;
use crate::lead::{self, lock_key};
use crate::projection::Scope;
use crate::runner::RETRY_AFTER;

/// Its checkpoint's name, for ever.
const NAME: &str = "approval_notices";

/// The version of that checkpoint.
const VERSION: i32 = 1;

/// How long new events may gather before they are looked at.
const LINGER: Duration = Duration::from_millis(50);

/// After so many events that concern it not, the checkpoint is moved all the same.
const FAR: u64 = 10_000;

/// Tells of what happens to approvals. Dropping it stops it at once, [`Follower::stop`] waits for the end.
pub struct Follower {
    inner: Arc<Inner>,
    tasks: TaskTracker,
    _cut_on_drop: DropGuard,
}

struct Inner {
    store: Store,
    log: LogId,
    /// Begins nothing new.
    stop: CancellationToken,
    /// Leaves what it is at.
    cut: CancellationToken,
}

/// Where the lead of this node stands.
struct Place {
    db: PgConnection,
    /// Up to here all was told.
    position: u64,
    /// The same, as the checkpoint says it.
    saved: u64,
}

impl Follower {
    /// Remembers where the log is, unless a follower did so before: what comes later will be told.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn mark(store: Store, log: LogId) -> Result<Self, StoreError> {
        let head = store.head(log).await?;
        sqlx::query(
            "INSERT INTO projection_checkpoints (log_id, projection, version, position, ready) \
             VALUES ($1, $2, $3, $4, true) ON CONFLICT DO NOTHING",
        )
        .bind(log.0)
        .bind(NAME)
        .bind(VERSION)
        .bind(head.cast_signed())
        .execute(store.pool())
        .await?;
        let cut = CancellationToken::new();
        let inner = Inner { store, log, stop: cut.child_token(), cut: cut.clone() };
        Ok(Self { inner: Arc::new(inner), tasks: TaskTracker::new(), _cut_on_drop: cut.drop_guard() })
    }

    /// Tells `react` of each event, with the approval as it stands by then: in the log's order, one after the other, and
    /// again when it was interrupted. Must be called once, inside a tokio runtime.
    pub fn follow<R>(&self, react: impl Fn(ApprovalEvent, ApprovalState) -> R + Send + Sync + 'static)
    where
        R: Future<Output = ()> + Send,
    {
        let inner = self.inner.clone();
        self.tasks.spawn(async move {
            let following = inner.keep_following(&react);
            // Breaking off anywhere is safe: what is not behind the checkpoint is told again.
            inner.cut.run_until_cancelled(following).await
        });
        self.tasks.close();
    }

    /// Tells nothing new and gives up the lead, so that another node goes on. What is being told has `grace` to end.
    pub async fn stop(&self, grace: Duration) {
        self.inner.stop.cancel();
        self.tasks.close();
        if timeout(grace, self.tasks.wait()).await.is_err() {
            self.inner.cut.cancel();
            self.tasks.wait().await;
        }
    }
}

impl Inner {
    fn scope(&self) -> Scope {
        Scope { log: self.log, version: VERSION }
    }

    /// Follows until stopped; after a failure of the database, or when overtaken, begins again from the checkpoint.
    async fn keep_following<R>(&self, react: &(impl Fn(ApprovalEvent, ApprovalState) -> R + Sync))
    where
        R: Future<Output = ()> + Send,
    {
        let (first, longest) = RETRY_AFTER;
        let delays = ExponentialBuilder::default()
            .with_min_delay(first)
            .with_max_delay(longest)
            .without_max_times()
            .with_jitter();
        let attempt = || self.lead(react);
        let following = attempt.retry(delays).when(PostError::may_pass).notify(|error, wait| {
            tracing::warn!(%error, ?wait, "what happens to approvals is not told for now; it is tried again");
        });
        if let Err(error) = following.await {
            tracing::error!(%error, "what happens to approvals is not told any more");
        }
    }

    /// Waits for the lead and follows until asked to stop.
    async fn lead<R>(&self, react: &(impl Fn(ApprovalEvent, ApprovalState) -> R + Sync)) -> Result<(), PostError>
    where
        R: Future<Output = ()> + Send,
    {
        let mut head = self.store.watch_head(self.log);
        let mut db = PgConnection::connect_with(&self.store.pool().connect_options()).await?;
        if !lead::take(&mut db, &lock_key(NAME, self.scope()), lead::SILENCE, &self.stop).await? {
            return Ok(());
        }
        let mut place = self.open(db).await?;
        tracing::info!(log = %self.log, position = place.position, "telling what happens to approvals");
        let reader = Reader::new(&self.store, self.log, kinds::is_approval);
        while !self.stop.is_cancelled() {
            let known = self.store.head(self.log).await?;
            while let Some(batch) = reader.read(place.position, known).await? {
                self.tell(&mut place, batch, react).await?;
                if self.stop.is_cancelled() {
                    return Ok(());
                }
            }
            self.wait(&mut head, &mut place).await?;
        }
        Ok(())
    }

    async fn open(&self, mut db: PgConnection) -> Result<Place, PostError> {
        let position: i64 = sqlx::query_scalar(
            "SELECT position FROM projection_checkpoints WHERE log_id = $1 AND projection = $2 AND version = $3",
        )
        .bind(self.log.0)
        .bind(NAME)
        .bind(VERSION)
        .fetch_one(&mut db)
        .await?;
        let position = position.unsigned_abs();
        Ok(Place { db, position, saved: position })
    }

    /// Tells what the batch holds; as much of it as comes before a stop.
    async fn tell<R>(
        &self,
        place: &mut Place,
        batch: Batch,
        react: &(impl Fn(ApprovalEvent, ApprovalState) -> R + Sync),
    ) -> Result<(), PostError>
    where
        R: Future<Output = ()> + Send,
    {
        for fault in &batch.faults {
            tracing::error!(stream = %fault.stream, error = fault.error, "what happened to an approval cannot be told");
        }
        for entry in batch.events {
            if self.stop.is_cancelled() {
                return Ok(());
            }
            if let (DomainEvent::Approval(event), Some(state)) = (entry.event, self.fold(&entry.stream).await?) {
                place.while_it_lives(react(event, state)).await?;
            }
            place.position = entry.position;
            self.save(place).await?;
        }
        place.position = batch.until.max(place.position);
        if place.position >= place.saved + FAR {
            self.save(place).await?;
        }
        batch.stops.map_or(Ok(()), Err)
    }

    /// The approval as it stands; nothing where it cannot be read.
    async fn fold(&self, stream: &StreamId) -> Result<Option<ApprovalState>, PostError> {
        let recorded = match self.store.read_stream(self.log, stream, 0).await {
            Ok(recorded) => recorded,
            Err(error) if is_unreadable(&error) => {
                tracing::error!(%stream, %error, "what happened to an approval cannot be told");
                return Ok(None);
            }
            Err(error) => return Err(error.into()),
        };
        let mut state = ApprovalState::default();
        for recorded in &recorded {
            if let DomainEvent::Approval(event) = &recorded.event {
                state.evolve(event);
            }
        }
        Ok(Some(state))
    }

    /// Moves the checkpoint from where this node left it.
    async fn save(&self, place: &mut Place) -> Result<(), PostError> {
        let moved = sqlx::query(
            "UPDATE projection_checkpoints SET position = $5 \
             WHERE log_id = $1 AND projection = $2 AND version = $3 AND position = $4",
        )
        .bind(self.log.0)
        .bind(NAME)
        .bind(VERSION)
        .bind(place.saved.cast_signed())
        .bind(place.position.cast_signed())
        .execute(&mut place.db)
        .await?;
        if moved.rows_affected() != 1 {
            return Err(PostError::Overtaken);
        }
        place.saved = place.position;
        Ok(())
    }

    /// Waits for new events, and a moment longer for more of them.
    async fn wait(&self, head: &mut watch::Receiver<u64>, place: &mut Place) -> Result<(), PostError> {
        let position = place.position;
        let moved = async { head.wait_for(|head| *head > position).await.map(drop) };
        tokio::select! {
            () = self.stop.cancelled() => return Ok(()),
            moved = place.while_it_lives(moved) => moved?.map_err(|_| StoreError::Closed)?,
        }
        tokio::select! {
            () = self.stop.cancelled() => {}
            () = sleep(LINGER) => {}
        }
        Ok(())
    }
}

impl Place {
    /// Does `work`, and shows meanwhile that the leader lives.
    async fn while_it_lives<T>(&mut self, work: impl Future<Output = T>) -> Result<T, PostError> {
        tokio::pin!(work);
        loop {
            tokio::select! {
                done = &mut work => return Ok(done),
                () = sleep(lead::SILENCE / 4) => lead::show_life(&mut self.db).await?,
            }
        }
    }
}
