//! The store itself: opening, appending, and the doors to everything kept.

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use backon::{ExponentialBuilder, Retryable};
use daybook_domain::redact::Redactor;
use daybook_domain::{LogId, RunId, SessionId, StreamId, UserId};
use secrecy::{ExposeSecret, SecretString};
use sqlx::PgPool;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use crate::batch::Refused;
use crate::crypto::MasterKey;
use crate::error::{AppendError, StoreError};
use crate::frames::FrameStore;
use crate::heads::Heads;
use crate::housekeeping::{Partitions, make_partitions};
use crate::kept::Snapshot;
use crate::keys::Keyring;
use crate::prepare::prepare;
use crate::types::{
    Abilities, Append, Appended, Lease, MigrateError, MigrateOutcome, NodeInfo, RawRecorded, Recorded, StrandedLease,
    StreamInfo, Subject,
};
use crate::writer::{Pending, QUEUE, Writer};
use crate::{kept, migrate, nodes, read};

const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);
/// A connection unused for longer is asked whether it lives; younger ones are believed to.
const TRUSTED_IDLE: Duration = Duration::from_secs(5);
/// How long a request waits at the door of a full queue.
const DOOR: Duration = Duration::from_secs(10);
/// Key conflicts come from erasures or other nodes meeting the same new session; more than a few are a defect.
const KEY_ATTEMPTS: usize = 5;

/// How to open a [`Store`].
#[derive(Debug)]
pub struct StoreOptions {
    /// Where the database is: `postgres://...`.
    pub database_url: SecretString,
    /// What protects personal values.
    pub master_key: MasterKey,
    /// Connections at most; one is kept by the listener and one by each log's writer.
    pub max_connections: u32,
    /// The second wall against secrets in the log; the first is the engine's.
    pub redactor: Option<Redactor>,
}

impl StoreOptions {
    /// 16 connections, no redactor.
    pub fn new(database_url: SecretString, master_key: MasterKey) -> Self {
        Self { database_url, master_key, max_connections: 16, redactor: None }
    }
}

/// The log and all that is kept beside it. Cheap to clone; close it once, at the end.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    pool: PgPool,
    keyring: Arc<Keyring>,
    heads: Heads,
    partitions: Partitions,
    redactor: Option<Redactor>,
    /// One queue per log; `None` once closed.
    writers: Mutex<Option<HashMap<LogId, mpsc::Sender<Pending>>>>,
    tasks: TaskTracker,
    stop: CancellationToken,
    // A store dropped without being closed still ends its tasks.
    _stop_on_drop: DropGuard,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").finish_non_exhaustive()
    }
}

impl Store {
    /// Connects, migrates, checks the master key, makes partitions ahead and starts the background tasks.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when the database stays away for some seconds, [`StoreError::NewerDatabase`] and
    /// [`StoreError::WrongMasterKey`] when it is not this program's to open.
    pub async fn open(options: StoreOptions) -> Result<Store, StoreError> {
        let pool = connect(&options).await?;
        match Self::start(&pool, options).await {
            Ok(store) => Ok(store),
            Err(error) => {
                pool.close().await;
                Err(error)
            }
        }
    }

    async fn start(pool: &PgPool, options: StoreOptions) -> Result<Store, StoreError> {
        migrate::run(pool).await?;
        let keyring = Arc::new(Keyring::open(pool.clone(), &options.master_key).await?);
        make_partitions(pool).await?;
        let (heads, partitions) = (Heads::default(), Partitions::default());
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let until = || stop.clone().cancelled_owned();
        tasks.spawn(race(until(), heads.clone().poll(pool.clone())));
        tasks.spawn(race(until(), heads.clone().listen(pool.clone(), keyring.clone())));
        tasks.spawn(race(until(), partitions.clone().keep(pool.clone())));
        let inner = Inner {
            pool: pool.clone(),
            keyring,
            heads,
            partitions,
            redactor: options.redactor,
            writers: Mutex::new(Some(HashMap::new())),
            tasks,
            _stop_on_drop: stop.clone().drop_guard(),
            stop,
        };
        Ok(Store { inner: Arc::new(inner) })
    }

    /// Writes what is queued, stops every task and closes the connections. Later calls fail with
    /// [`StoreError::Closed`].
    pub async fn close(&self) {
        let inner = &self.inner;
        inner.writers.lock().unwrap_or_else(PoisonError::into_inner).take();
        inner.stop.cancel();
        inner.tasks.close();
        inner.tasks.wait().await;
        inner.pool.close().await;
    }

    /// The owner's connections, for projections.
    pub fn pool(&self) -> &PgPool {
        &self.inner.pool
    }

    pub(crate) fn keyring(&self) -> &Keyring {
        &self.inner.keyring
    }

    pub(crate) fn heads(&self) -> &Heads {
        &self.inner.heads
    }

    /// Appends a request, all or nothing, together with whatever else is waiting. When this returns, it is on disk.
    ///
    /// # Errors
    /// [`AppendError`]; after [`StoreError::Unavailable`] the outcome is unknown.
    pub async fn append(&self, request: Append) -> Result<Appended, AppendError> {
        let request = Arc::new(request);
        let inner = &self.inner;
        for _ in 0..KEY_ATTEMPTS {
            let prepared = prepare(request.clone(), &inner.pool, &inner.keyring, inner.redactor.as_ref()).await?;
            let keys = prepared.keys.clone();
            let (reply, outcome) = oneshot::channel();
            let queue = self.queue(request.log_id)?;
            queue.send_timeout(Pending { prepared, reply }, DOOR).await.map_err(|error| match error {
                mpsc::error::SendTimeoutError::Timeout(_) => StoreError::Overloaded,
                mpsc::error::SendTimeoutError::Closed(_) => StoreError::Closed,
            })?;
            drop(queue);
            match outcome.await.map_err(|_| StoreError::Closed)? {
                Ok(appended) => return Ok(appended),
                Err(Refused::Append(error)) => return Err(error),
                Err(Refused::Key) => {
                    for key in keys {
                        inner.keyring.forget(request.log_id, &key).await;
                    }
                }
            }
        }
        Err(StoreError::Invalid("the session's key changes again and again; is it being erased?".to_owned()).into())
    }

    fn queue(&self, log: LogId) -> Result<mpsc::Sender<Pending>, StoreError> {
        let inner = &self.inner;
        let mut writers = inner.writers.lock().unwrap_or_else(PoisonError::into_inner);
        let writers = writers.as_mut().ok_or(StoreError::Closed)?;
        let queue = writers.entry(log).or_insert_with(|| {
            let (sender, receiver) = mpsc::channel(QUEUE);
            let (heads, partitions) = (inner.heads.clone(), inner.partitions.clone());
            // Ends when its queue does, so that what was accepted is written.
            inner.tasks.spawn(Writer::new(inner.pool.clone(), log, heads, partitions, receiver).run());
            sender
        });
        Ok(queue.clone())
    }

    /// A stream's events after a version, in order.
    ///
    /// # Errors
    /// [`StoreError::Decode`] or [`StoreError::Tampered`] at the first event that cannot be read.
    pub async fn read_stream(
        &self,
        log: LogId,
        stream: &StreamId,
        after_version: u64,
    ) -> Result<Vec<Recorded>, StoreError> {
        let raws = read::raw_stream(&self.inner.pool, log, stream, after_version).await?;
        self.decode_all(raws).await?.into_iter().collect()
    }

    /// Where a stream stands; `None` when it does not exist.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn stream_info(&self, log: LogId, stream: &StreamId) -> Result<Option<StreamInfo>, StoreError> {
        read::stream_info(&self.inner.pool, log, stream).await
    }

    /// At most `limit` events after a position: the next ones, without gaps.
    ///
    /// # Errors
    /// As [`Store::read_stream`].
    pub async fn read_after(&self, log: LogId, position: u64, limit: usize) -> Result<Vec<Recorded>, StoreError> {
        let raws = self.read_raw_after(log, position, limit).await?;
        self.decode_all(raws).await?.into_iter().collect()
    }

    /// As [`Store::read_after`], undecoded, for who can go on past an event that cannot be read.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn read_raw_after(
        &self,
        log: LogId,
        position: u64,
        limit: usize,
    ) -> Result<Vec<RawRecorded>, StoreError> {
        read::raw_after(&self.inner.pool, log, position, limit).await
    }

    /// Decrypts and decodes one event. Without its key, what is personal reads as erased.
    ///
    /// # Errors
    /// [`StoreError::Decode`] when its type or shape is unknown, [`StoreError::Tampered`] when it was changed.
    pub async fn decode(&self, raw: RawRecorded) -> Result<Recorded, StoreError> {
        let key = match raw.key_id {
            Some(id) => self.inner.keyring.by_id(raw.log_id, id).await?,
            None => None,
        };
        read::decode(&self.inner.pool, &self.inner.keyring, raw, key.as_deref()).await
    }

    /// Decodes many of one log, one result each in the same order, looking their keys up at once.
    ///
    /// # Errors
    /// [`StoreError`] when the keys cannot be looked up.
    pub async fn decode_all(&self, raws: Vec<RawRecorded>) -> Result<Vec<Result<Recorded, StoreError>>, StoreError> {
        read::decode_all(&self.inner.pool, &self.inner.keyring, raws).await
    }

    /// The position of the log's last event; 0 when it has none.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn head(&self, log: LogId) -> Result<u64, StoreError> {
        read::head(&self.inner.pool, log).await
    }

    /// The head as it moves, by any node. Begins at 0 and is right within a fraction of a second; never ahead of what
    /// can be read.
    pub fn watch_head(&self, log: LogId) -> watch::Receiver<u64> {
        self.inner.heads.watch(log)
    }

    /// Keeps a fold's state, unless a later one of the same fold version is kept. Snapshots may be lost.
    ///
    /// # Errors
    /// [`StoreError`] when the database or a key fails.
    #[expect(clippy::too_many_arguments, reason = "a snapshot has that many parts")]
    pub async fn save_snapshot(
        &self,
        log: LogId,
        stream: &StreamId,
        version: u64,
        position: u64,
        fold_version: u32,
        state_json: &str,
        subject: &Subject,
    ) -> Result<(), StoreError> {
        let snapshot = Snapshot { log, stream, version, position, fold_version, state: state_json };
        kept::save_snapshot(&self.inner.pool, &self.inner.keyring, snapshot, subject).await
    }

    /// The latest state kept by this fold version: the stream's version, its position, the state. `None` also when
    /// its key was erased.
    ///
    /// # Errors
    /// [`StoreError::Tampered`] when it was changed, others when the database fails.
    pub async fn load_snapshot(
        &self,
        log: LogId,
        stream: &StreamId,
        fold_version: u32,
    ) -> Result<Option<(u64, u64, String)>, StoreError> {
        kept::load_snapshot(&self.inner.pool, &self.inner.keyring, log, stream, fold_version).await
    }

    /// Keeps bytes for a session and returns their name: SHA-256, hex. Keeping the same again changes nothing.
    ///
    /// # Errors
    /// [`StoreError`] when the database or a key fails.
    pub async fn put_blob(&self, log: LogId, subject: &Subject, bytes: &[u8]) -> Result<String, StoreError> {
        kept::put_blob(&self.inner.pool, &self.inner.keyring, log, subject, bytes).await
    }

    /// A session's blob by its name; `None` when the session has none of that name or was erased.
    ///
    /// # Errors
    /// [`StoreError::Tampered`] when it was changed, others when the database fails.
    pub async fn get_blob(&self, log: LogId, session: &SessionId, hash: &str) -> Result<Option<Vec<u8>>, StoreError> {
        kept::get_blob(&self.inner.pool, &self.inner.keyring, log, session, hash).await
    }

    /// The cache of frames.
    pub fn frames(&self) -> FrameStore {
        FrameStore { pool: self.inner.pool.clone(), keyring: self.inner.keyring.clone() }
    }

    /// Changes whenever something personal was, or may have been, erased, here or on another node: what was read before must
    /// not be remembered beyond that.
    pub fn erasures(&self) -> u64 {
        self.inner.keyring.erasures()
    }

    /// Destroys a session's key and blobs: whatever is personal of it reads as erased from now on, here at once, on
    /// other nodes as soon as they hear of it. Returns whether there was a key.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn erase_session(&self, log: LogId, session: &SessionId) -> Result<bool, StoreError> {
        self.inner.keyring.erase_session(log, session).await
    }

    /// As [`Store::erase_session`], for all of a user's sessions and the user's own key.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn erase_user(&self, log: LogId, user: &UserId) -> Result<bool, StoreError> {
        self.inner.keyring.erase_user(log, user).await
    }

    /// Makes this node known, living from now; or, of one that is known, what it can run from now on.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn join_node(&self, node: &NodeInfo) -> Result<(), StoreError> {
        nodes::join(&self.inner.pool, node).await
    }

    /// Says that the node lives. `false`: others declared it dead; it has no leases and must join anew.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn heartbeat(&self, node_id: &str) -> Result<bool, StoreError> {
        nodes::heartbeat(&self.inner.pool, node_id).await
    }

    /// Gives all the node's leases up, for others to claim at once, and removes it.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn leave_node(&self, node_id: &str) -> Result<(), StoreError> {
        nodes::remove(&self.inner.pool, node_id).await
    }

    /// Removes a node known to be gone, so that its leases need not wait for its heartbeat to grow old.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn declare_dead(&self, node_id: &str) -> Result<(), StoreError> {
        nodes::remove(&self.inner.pool, node_id).await
    }

    /// The nodes registered on a host, by id and pid: the program there can see which of the processes are gone.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn dead_neighbours(&self, host: &str) -> Result<Vec<(String, u32)>, StoreError> {
        nodes::on_host(&self.inner.pool, host).await
    }

    /// Claims up to `limit` run trees that no living node holds (no heartbeat for 6 s), whose component and tools the
    /// node has. Whoever held one before cannot append for it any more.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn claim_leases(
        &self,
        log: LogId,
        node_id: &str,
        components: &[String],
        tools: &[String],
        limit: i64,
    ) -> Result<Vec<Lease>, StoreError> {
        nodes::claim(&self.inner.pool, log, node_id, components, tools, limit).await
    }

    /// Claims one run tree that no living node holds, whatever it needs: for a run that is only to be ended. `None` when
    /// a living node holds it, or nobody can, because it ended.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn claim_lease(&self, log: LogId, node_id: &str, tree: &RunId) -> Result<Option<Lease>, StoreError> {
        nodes::claim_one(&self.inner.pool, log, node_id, tree).await
    }

    /// What each living node (a heartbeat within 6 s) can run; `None` for one of an older version, which does not say.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn living_nodes(&self) -> Result<Vec<Option<Abilities>>, StoreError> {
        nodes::living(&self.inner.pool).await
    }

    /// Up to `limit` leases that no living node holds and none could claim, the longest known first.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn stranded_leases(&self, log: LogId, limit: i64) -> Result<Vec<StrandedLease>, StoreError> {
        nodes::stranded(&self.inner.pool, log, limit).await
    }

    /// The leases a node holds, by run tree and epoch.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn leases_of(&self, log: LogId, node_id: &str) -> Result<Vec<(RunId, u64)>, StoreError> {
        nodes::leases_of(&self.inner.pool, log, node_id).await
    }

    /// Gives one lease up for whoever claims it next, unless it has another epoch or holder by now.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn give_up_lease(&self, log: LogId, node_id: &str, tree: &RunId, epoch: u64) -> Result<(), StoreError> {
        nodes::give_up(&self.inner.pool, log, node_id, tree, epoch).await
    }

    /// The lease of one run tree as it stands: the node that holds it, if any, and the epoch.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn lease(&self, log: LogId, tree: &RunId) -> Result<Option<(Option<String>, u64)>, StoreError> {
        nodes::lease(&self.inner.pool, log, tree).await
    }

    /// Brings the database to `target` (none: the latest), which is where every served version is already.
    ///
    /// # Errors
    /// [`MigrateError`] when the target is not a version or not one this program serves.
    pub async fn migrate(&self, target: Option<&str>) -> Result<MigrateOutcome, MigrateError> {
        migrate::to(&self.inner.pool, target).await
    }
}

async fn connect(options: &StoreOptions) -> Result<PgPool, StoreError> {
    let url = options.database_url.expose_secret();
    // The URL may hold a password: tell what is wrong with it, never what it is.
    let target = PgConnectOptions::from_str(url).map_err(|error| StoreError::BadUrl(error.to_string()))?;
    let pool = PgPoolOptions::new()
        .max_connections(options.max_connections.max(4))
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .test_before_acquire(false)
        .before_acquire(|connection, meta| {
            Box::pin(async move {
                if meta.idle_for > TRUSTED_IDLE {
                    sqlx::Connection::ping(connection).await?;
                }
                Ok(true)
            })
        })
        .connect_lazy_with(target.application_name("daybook"));
    let retries = ExponentialBuilder::default().with_max_times(2).with_jitter();
    let attempt = || async { pool.acquire().await.map(drop).map_err(StoreError::from) };
    attempt.retry(retries).when(StoreError::is_temporary).await?;
    Ok(pool)
}

async fn race(stop: impl Future<Output = ()>, work: impl Future<Output = ()>) {
    tokio::select! {
        () = stop => {}
        () = work => {}
    }
}
