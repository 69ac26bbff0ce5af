//! Group commit: one task per log takes what is queued, appends it as one statement, and answers each request.
//!
//! When the connection breaks, the outcome of the batch is unknown. The old backend is ended first, so that it cannot
//! commit late; then the events' ids tell which requests are in the log, and only the others are sent again.

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::Duration;

use backon::{ExponentialBuilder, Retryable};
use chrono::{DateTime, Utc};
use daybook_domain::LogId;
use sqlx::pool::PoolConnection;
use sqlx::{PgPool, Postgres};
use tokio::sync::{mpsc, oneshot};
use tracing::{error, warn};
use uuid::Uuid;

use crate::batch::{Outcome, Refused, submit};
use crate::error::{StoreError, is_connection_loss, is_incapable};
use crate::heads::Heads;
use crate::housekeeping::{PARTITION_SIZE, Partitions, make_partitions};
use crate::prepare::Prepared;
use crate::types::{Append, Appended, Expected, LeaseOp};

const MAX_BATCH: usize = 256;
const MAX_BATCH_BYTES: usize = 4 * 1024 * 1024;
/// Requests waiting in the channel; more wait at the door.
pub(crate) const QUEUE: usize = 2048;
/// Requests looked through for those that can go together.
const MAX_HELD: usize = 1024;
/// No batch takes this long on a database that lives.
const BATCH_TIMEOUT: Duration = Duration::from_secs(30);
const ATTEMPTS: usize = 4;

/// A request and who waits for its outcome.
pub(crate) struct Pending {
    pub prepared: Prepared,
    pub reply: oneshot::Sender<Outcome>,
}

impl Pending {
    fn answer(self, outcome: Outcome) {
        // A caller that went away no longer wants to know; what it asked for is done.
        self.reply.send(outcome).ok();
    }
}

struct Connection {
    inner: PoolConnection<Postgres>,
    backend: Backend,
}

/// Names one server process for ever, other than its pid alone.
#[derive(Clone, Copy, sqlx::FromRow)]
struct Backend {
    pid: i32,
    started: DateTime<Utc>,
}

/// The task that appends to one log.
pub(crate) struct Writer {
    pool: PgPool,
    log: LogId,
    heads: Heads,
    partitions: Partitions,
    queue: mpsc::Receiver<Pending>,
    connection: Option<Connection>,
    /// Everything of this writer's with an unknown outcome is after it.
    seen: u64,
}

impl Writer {
    pub(crate) fn new(
        pool: PgPool,
        log: LogId,
        heads: Heads,
        partitions: Partitions,
        queue: mpsc::Receiver<Pending>,
    ) -> Self {
        Self { pool, log, heads, partitions, queue, connection: None, seen: 0 }
    }

    /// Runs until the queue is closed and everything in it is answered.
    pub(crate) async fn run(mut self) {
        let mut held = VecDeque::new();
        loop {
            if held.is_empty() {
                match self.queue.recv().await {
                    Some(pending) => held.push_back(pending),
                    None => return,
                }
            }
            while held.len() < MAX_HELD {
                match self.queue.try_recv() {
                    Ok(pending) => held.push_back(pending),
                    Err(_) => break,
                }
            }
            let batch = select(&mut held);
            self.execute(batch).await;
            // Who was just answered may have more: it goes with what queued up meanwhile, instead of one batch later.
            tokio::task::yield_now().await;
        }
    }

    async fn execute(&mut self, mut batch: Vec<Pending>) {
        for _ in 0..ATTEMPTS {
            let error = match self.try_batch(&batch).await {
                Ok(outcomes) => return self.answer(batch, outcomes),
                Err(error) => error,
            };
            match error {
                Failure::NotSent(error) => return refuse_all(batch, &error),
                Failure::Unknown(error, backend) => {
                    warn!(%error, requests = batch.len(), "the connection broke during an append; looking for its outcome");
                    batch = match self.settle(batch, backend).await {
                        Some(rest) if rest.is_empty() => return,
                        Some(rest) => rest,
                        None => return,
                    };
                }
                Failure::Rejected(error) if lacks_partition(&error) => {
                    if let Err(error) = make_partitions(&self.pool).await {
                        return refuse_all(batch, &error);
                    }
                }
                Failure::Rejected(error) if is_incapable(&error) => return refuse_all(batch, &error.into()),
                Failure::Rejected(error) => return self.execute_apart(batch, error).await,
            }
        }
        refuse_all(batch, &StoreError::Unavailable("the connection broke again and again".to_owned()));
    }

    /// A bad request fails its whole batch in the database: send each alone, so that it fails alone.
    async fn execute_apart(&mut self, mut batch: Vec<Pending>, error: sqlx::Error) {
        if batch.len() > 1 {
            warn!(%error, requests = batch.len(), "the database refused a batch; its requests are sent one by one");
            for pending in batch {
                Box::pin(self.execute(vec![pending])).await;
            }
        } else if let Some(pending) = batch.pop() {
            error!(%error, log = %self.log, "the database refused an append");
            pending.answer(Err(StoreError::Database(error).into()));
        }
    }

    async fn try_batch(&mut self, batch: &[Pending]) -> Result<Vec<Outcome>, Failure> {
        let log = self.log;
        let connection = self.connect().await.map_err(Failure::NotSent)?;
        let prepared: Vec<&Prepared> = batch.iter().map(|pending| &pending.prepared).collect();
        let backend = connection.backend;
        let sent = tokio::time::timeout(BATCH_TIMEOUT, submit(&mut connection.inner, log, &prepared)).await;
        match sent {
            Ok(Ok(outcomes)) => Ok(outcomes),
            Ok(Err(error)) if !is_connection_loss(&error) => Err(Failure::Rejected(error)),
            Ok(Err(error)) => {
                self.disconnect();
                Err(Failure::Unknown(error.to_string(), backend))
            }
            Err(_) => {
                self.disconnect();
                Err(Failure::Unknown("no answer within 30 s".to_owned(), backend))
            }
        }
    }

    fn answer(&mut self, batch: Vec<Pending>, outcomes: Vec<Outcome>) {
        let head = outcomes.iter().flatten().map(|appended| appended.last_position).max().unwrap_or(0);
        self.moved(head);
        for (pending, outcome) in batch.into_iter().zip(outcomes) {
            if outcome.is_ok() {
                pending.prepared.keys.iter().for_each(|key| key.set_stored());
            }
            pending.answer(outcome);
        }
    }

    fn moved(&mut self, head: u64) {
        if head > self.seen {
            if head / PARTITION_SIZE > self.seen / PARTITION_SIZE {
                self.partitions.wanted();
            }
            self.seen = head;
            self.heads.moved(self.log, head);
        }
    }

    async fn connect(&mut self) -> Result<&mut Connection, StoreError> {
        let connection = match self.connection.take() {
            Some(connection) => connection,
            None => {
                let pool = &self.pool;
                // Each attempt waits as long as the pool does, trying to connect.
                let retries = ExponentialBuilder::default().with_max_times(2).with_jitter();
                let log = self.log;
                let (connection, head) = (|| connect(pool, log)).retry(retries).when(StoreError::is_temporary).await?;
                // Not `moved`: with a new connection nothing is in flight, so this only sets the mark.
                self.seen = self.seen.max(head);
                connection
            }
        };
        Ok(self.connection.insert(connection))
    }

    fn disconnect(&mut self) {
        if let Some(connection) = self.connection.take() {
            // A statement may be under way on it: it must not go back to the pool.
            drop(connection.inner.detach());
        }
    }

    /// Finds out what became of `batch` and answers what is in the log; returns what is not. `None`: everything is
    /// answered, because the database stayed away.
    async fn settle(&mut self, batch: Vec<Pending>, backend: Backend) -> Option<Vec<Pending>> {
        let since = self.seen;
        let found = match self.find_after_loss(&batch, backend, since).await {
            Ok(found) => found,
            Err(error) => {
                self.disconnect();
                refuse_all(batch, &error);
                return None;
            }
        };
        let mut rest = Vec::new();
        for pending in batch {
            match appended_before(&pending.prepared, &found) {
                Some(appended) => {
                    self.moved(appended.last_position);
                    pending.prepared.keys.iter().for_each(|key| key.set_stored());
                    pending.answer(Ok(appended));
                }
                // Who holds a lease counts on this append to make safe what it wrote before, text for watchers. That may
                // be lost with the database's process: it must write both again.
                None if holds_lease(&pending.prepared) => {
                    let why = "the connection broke; nothing of the append was recorded";
                    pending.answer(Err(StoreError::Unavailable(why.to_owned()).into()));
                }
                // Nothing in the log tells whether a request without events was executed.
                None if last_ids(&pending.prepared).next().is_none() => {
                    let why = "the connection broke; whether the lease or command was recorded is unknown";
                    pending.answer(Err(StoreError::Unavailable(why.to_owned()).into()));
                }
                None => rest.push(pending),
            }
        }
        Some(rest)
    }

    async fn find_after_loss(
        &mut self,
        batch: &[Pending],
        backend: Backend,
        since: u64,
    ) -> Result<HashMap<Uuid, Found>, StoreError> {
        let log = self.log;
        let ids: Vec<Uuid> = batch.iter().flat_map(|pending| last_ids(&pending.prepared)).collect();
        let connection = self.connect().await?;
        // Its own role may end it; gone already is as good.
        let ended: Option<bool> = sqlx::query_scalar(
            "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE pid = $1 AND backend_start = $2",
        )
        .bind(backend.pid)
        .bind(backend.started)
        .fetch_optional(&mut *connection.inner)
        .await?;
        if ended == Some(false) {
            return Err(StoreError::Unavailable("a broken connection's process does not end".to_owned()));
        }
        let found: Vec<(Uuid, Found)> = sqlx::query_as(
            "SELECT event_id, position, version, recorded_at FROM events \
             WHERE log_id = $1 AND position > $2 AND event_id = ANY ($3)",
        )
        .bind(log.0)
        .bind(since as i64)
        .bind(&ids)
        .fetch_all(&mut *connection.inner)
        .await?
        .into_iter()
        .map(|(id, position, version, recorded): (Uuid, i64, i64, DateTime<Utc>)| {
            (id, Found { position: position as u64, version: version as u64, recorded })
        })
        .collect();
        Ok(found.into_iter().collect())
    }
}

enum Failure {
    /// The database had nothing of it.
    NotSent(StoreError),
    /// The database undid it.
    Rejected(sqlx::Error),
    /// It may have been done.
    Unknown(String, Backend),
}

struct Found {
    position: u64,
    version: u64,
    recorded: DateTime<Utc>,
}

async fn connect(pool: &PgPool, log: LogId) -> Result<(Connection, u64), StoreError> {
    let mut inner = pool.acquire().await?;
    let backend: Backend =
        sqlx::query_as("SELECT pid, backend_start AS started FROM pg_stat_activity WHERE pid = pg_backend_pid()")
            .fetch_one(&mut *inner)
            .await?;
    let head: Option<i64> = sqlx::query_scalar("SELECT position FROM log_head WHERE log_id = $1")
        .bind(log.0)
        .fetch_optional(&mut *inner)
        .await?;
    Ok((Connection { inner, backend }, head.unwrap_or(0) as u64))
}

fn refuse_all(batch: Vec<Pending>, error: &StoreError) {
    for pending in batch {
        pending.answer(Err(Refused::from(match error {
            StoreError::Closed => StoreError::Closed,
            other => StoreError::Unavailable(other.to_string()),
        })));
    }
}

fn lacks_partition(error: &sqlx::Error) -> bool {
    // PostgreSQL reports "no partition of relation found for row" as a failed check (23514) that has no name.
    let Some(error) = error.as_database_error() else { return false };
    error.code().is_some_and(|code| code == "23514") && error.constraint().is_none()
}

fn holds_lease(prepared: &Prepared) -> bool {
    matches!(prepared.request.lease, LeaseOp::Hold { .. } | LeaseOp::Release { .. })
}

/// The last event of each write: with it in the log, all of the request is.
fn last_ids(prepared: &Prepared) -> impl Iterator<Item = Uuid> {
    prepared.writes.iter().filter_map(|events| events.last().map(|event| event.id))
}

fn appended_before(prepared: &Prepared, found: &HashMap<Uuid, Found>) -> Option<Appended> {
    let first = found.get(&last_ids(prepared).next()?)?;
    let mut appended =
        Appended { last_position: 0, versions: Vec::new(), recorded_at_ms: first.recorded.timestamp_millis() };
    for (events, write) in prepared.writes.iter().zip(&prepared.request.writes) {
        let version = match (events.last(), write.expected) {
            (Some(event), _) => {
                let found = found.get(&event.id)?;
                appended.last_position = appended.last_position.max(found.position);
                found.version
            }
            (None, Expected::Version(version)) => version,
            (None, Expected::Any) => 0,
        };
        appended.versions.push(version);
    }
    Some(appended)
}

/// Takes from `held`, in order, what can go together: no stream, command or lease twice. What is left keeps its order.
fn select(held: &mut VecDeque<Pending>) -> Vec<Pending> {
    let mut seen = HashSet::new();
    let (mut count, mut bytes) = (0, 0);
    let mut together = Vec::with_capacity(held.len());
    for pending in held.iter() {
        let size = pending.prepared.bytes;
        let full = count == MAX_BATCH || (count > 0 && bytes + size > MAX_BATCH_BYTES);
        // All names are noted also when it is left, so that none of its kind overtakes it.
        let taken = names(&pending.prepared.request).filter(|name| !seen.insert(*name)).count();
        let goes = taken == 0 && !full;
        if goes {
            count += 1;
            bytes += size;
        }
        together.push(goes);
    }
    drop(seen);
    let mut batch = Vec::with_capacity(count);
    let mut left = VecDeque::with_capacity(held.len() - count);
    for (pending, goes) in held.drain(..).zip(together) {
        if goes {
            batch.push(pending);
        } else {
            left.push_back(pending);
        }
    }
    *held = left;
    batch
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Name<'a> {
    Stream(&'a str),
    Command(&'a str, &'a str, &'a str),
    Lease(&'a str),
}

fn names(request: &Append) -> impl Iterator<Item = Name<'_>> {
    let streams = request.writes.iter().map(|write| Name::Stream(write.stream.as_str()));
    let command = request.command.iter().map(|c| Name::Command(&c.principal, &c.route, &c.key));
    let lease = match &request.lease {
        LeaseOp::None => None,
        LeaseOp::Take { tree, .. } | LeaseOp::Hold { tree, .. } | LeaseOp::Release { tree, .. } => {
            Some(Name::Lease(tree.as_str()))
        }
    };
    streams.chain(command).chain(lease)
}
