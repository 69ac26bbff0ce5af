//! The engine's handle: the one door for commands, and the queries that are answered from folds.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use daybook_domain::approval::ApprovalState;
use daybook_domain::command::{Command, Envelope};
use daybook_domain::component::{ComponentConfig, ComponentEvent};
use daybook_domain::event::DomainEvent;
use daybook_domain::ids::{ApprovalId, LogId, RunId, SessionId, StreamId};
use daybook_domain::long_result::WholeResult;
use daybook_domain::media::{Media, MediaContent};
use daybook_domain::message::Message;
use daybook_domain::redact::Redactor;
use daybook_domain::run::{RunState, RunStatus};
use daybook_domain::session::SessionState;
use daybook_store::{Store, StoreError};
use moka::future::Cache;
use moka::policy::EvictionPolicy;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::compact::CompactionOutcome;
use crate::error::{ExecuteError, QueryError};
use crate::frame_writer::FrameWriter;
use crate::history::Summary;
use crate::live::LiveRun;
use crate::registry::Registry;
use crate::sessions::Sessions;
use crate::watch::Watch;
use crate::{approvals, cancel, compact, continue_run, create_session, fork_session, node, start};

/// How long the engine sleeps at a time until something is due, in milliseconds.
const MOST_SLEEP_MS: u64 = 250;

/// How often a run that is not on this node is looked at, should no hint come.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Looks are at least this far apart.
const APART: Duration = Duration::from_millis(20);

/// How an engine behaves.
#[derive(Debug, Clone)]
pub struct EngineOptions {
    /// The machine's name, so that a restarted server finds what its dead predecessor left.
    pub host: String,
    /// The most runs this node holds at once, waiting ones included; more are refused with 429.
    pub max_runs: usize,
    /// How long running tools may finish when the server stops.
    pub grace: Duration,
    /// Names, beside the built-in ones, whose values never enter the log.
    pub redact: Vec<String>,
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self { host: "localhost".to_owned(), max_runs: 10_000, grace: Duration::from_secs(10), redact: Vec::new() }
    }
}

/// What the engine takes from the world: tests give their own.
#[derive(Clone)]
pub struct Ports {
    /// Unix milliseconds now.
    pub clock: Arc<dyn Fn() -> i64 + Send + Sync>,
    /// A fresh id.
    pub ids: Arc<dyn Fn() -> uuid::Uuid + Send + Sync>,
}

impl Default for Ports {
    fn default() -> Self {
        Self { clock: Arc::new(|| chrono::Utc::now().timestamp_millis()), ids: Arc::new(uuid::Uuid::now_v7) }
    }
}

/// What executing a command came to.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// The run was accepted, now or earlier under the same key.
    Accepted {
        /// The run.
        run_id: RunId,
        /// Its session.
        session_id: SessionId,
        /// Whether it waits for its session.
        queued: bool,
    },
    /// The run goes on, or still waits for further answers.
    Continued {
        /// The run.
        run_id: RunId,
        /// Its session.
        session_id: SessionId,
        /// Whether it waits for its session.
        queued: bool,
        /// The index of the last frame before it went on: what comes after is the continuation.
        after: Option<u64>,
    },
    /// The session was created, now or earlier under the same key.
    SessionCreated(Box<SessionState>),
    /// The session was copied.
    Forked {
        /// The copy.
        session_id: SessionId,
    },
    /// What compacting a session came to.
    Compaction(CompactionOutcome),
    /// The approval as it stands now.
    Approval(Box<ApprovalState>),
    /// The run is stopping, has stopped, or there is no such run: it tells a stranger nothing.
    Cancelled,
}

pub(crate) struct Inner {
    pub store: Store,
    registry: RwLock<Arc<Registry>>,
    /// Held while the registry is being replaced, and while the others are told what is in it.
    pub replacing: tokio::sync::Mutex<()>,
    pub options: EngineOptions,
    pub ports: Ports,
    pub redactor: Redactor,
    pub node_id: String,
    pub runs: Mutex<HashMap<(LogId, RunId), Arc<LiveRun>>>,
    /// What stops the child runs that go on here.
    pub stops: Mutex<HashMap<(LogId, RunId), CancellationToken>>,
    pub sessions: Sessions,
    pub frames: FrameWriter,
    pub pulse: node::Pulse,
    /// Runs that no living node could go on with at the last look, and what every node lacks for them.
    pub stranded: Mutex<BTreeMap<RunId, String>>,
    pub stopping: CancellationToken,
    /// Ends every task where it stands.
    pub abandoned: CancellationToken,
    pub tasks: TaskTracker,
    pub configs: Cache<String, Arc<ComponentConfig>>,
    /// Messages of ended runs, for the histories of later ones. Those that were read before something was erased are not
    /// found any more: the first number is the store's count of erasures.
    pub ended: Cache<(u64, LogId, RunId), Arc<Vec<Message>>>,
    /// Summaries, by their versions in their sessions' streams, likewise.
    pub summaries: Cache<(u64, LogId, SessionId, u64), Arc<Summary>>,
    /// Held while a session's summary is being made here.
    pub compacting: Cache<(LogId, SessionId), Arc<tokio::sync::Mutex<()>>>,
    /// How often the drivers of runs panicked here.
    pub panics: Cache<(LogId, RunId), u32>,
}

/// The run engine. Cheap to clone.
#[derive(Clone)]
pub struct Engine {
    pub(crate) inner: Arc<Inner>,
}

impl Engine {
    /// Joins the log as a node: records the components' configurations, takes over what dead nodes left, and is ready.
    ///
    /// # Errors
    /// [`ExecuteError::Store`] when the log does not answer.
    pub async fn start(
        store: Store,
        registry: Registry,
        options: EngineOptions,
        ports: Ports,
    ) -> Result<Self, ExecuteError> {
        let tasks = TaskTracker::new();
        let inner = Arc::new(Inner {
            frames: FrameWriter::start(store.clone()),
            redactor: Redactor::new(options.redact.clone()),
            node_id: (ports.ids)().to_string(),
            runs: Mutex::default(),
            stops: Mutex::default(),
            sessions: Sessions::new(store.clone()),
            pulse: node::Pulse::start(),
            stranded: Mutex::default(),
            stopping: CancellationToken::new(),
            abandoned: CancellationToken::new(),
            configs: Cache::new(10_000),
            panics: Cache::new(10_000),
            ended: Cache::builder()
                .eviction_policy(EvictionPolicy::lru())
                .weigher(|_, messages: &Arc<Vec<Message>>| weigh(messages))
                .max_capacity(64 << 20)
                .build(),
            summaries: Cache::builder()
                .eviction_policy(EvictionPolicy::lru())
                .weigher(|_, summary: &Arc<Summary>| u32::try_from(256 + summary.text.len()).unwrap_or(u32::MAX))
                .max_capacity(16 << 20)
                .build(),
            compacting: Cache::new(10_000),
            store,
            registry: RwLock::new(Arc::new(registry)),
            replacing: tokio::sync::Mutex::default(),
            options,
            ports,
            tasks,
        });
        inner.registry().warn_of_secrets(&inner.redactor);
        let engine = Self { inner };
        node::join(&engine).await?;
        Ok(engine)
    }

    /// Executes a command: the one way to change anything.
    ///
    /// # Errors
    /// [`ExecuteError`] says why nothing was recorded.
    pub async fn execute(&self, envelope: Envelope) -> Result<Outcome, ExecuteError> {
        if self.inner.stopping.is_cancelled() {
            return Err(ExecuteError::Stopping);
        }
        match envelope.command.clone() {
            Command::StartRun(command) => start::start_run(self, &envelope, *command).await,
            Command::CancelRun(command) => Box::pin(cancel::cancel_run(self, &envelope, command)).await,
            Command::ContinueRun(command) => Box::pin(continue_run::continue_run(self, &envelope, *command)).await,
            Command::ResolveApproval(command) => Box::pin(approvals::resolve(self, &envelope, *command)).await,
            Command::DeleteApproval(id) => Box::pin(approvals::delete(self, &envelope, &id)).await,
            Command::CreateSession(command) => {
                Box::pin(create_session::create_session(self, &envelope, *command)).await
            }
            Command::ForkSession(command) => Box::pin(fork_session::fork_session(self, &envelope, command)).await,
            Command::CompactSession(command) => Box::pin(compact::compact_session(self, &envelope, command)).await,
            Command::WatchApproval(id) => Box::pin(approvals::watch(self, &envelope, &id)).await,
        }
    }

    /// What this server can run, as of now.
    pub fn registry(&self) -> Arc<Registry> {
        self.inner.registry()
    }

    /// Puts `registry` in the place of what this server can run. Runs that were accepted, also those that wait, end
    /// with what they were accepted with, also when their agents or models are gone.
    ///
    /// # Errors
    /// [`ExecuteError::Store`] when the log does not answer; then nothing has changed.
    pub async fn replace(&self, mut registry: Registry) -> Result<(), ExecuteError> {
        let _alone = self.inner.replacing.lock().await;
        registry.warn_of_secrets(&self.inner.redactor);
        registry.succeed(&self.inner.registry());
        // Before a run can refer to them.
        node::record_configs(&self.inner, &registry).await?;
        node::announce(&self.inner, &registry).await?;
        *self.inner.registry.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(registry);
        Ok(())
    }

    /// How many runs this node holds.
    pub fn run_count(&self) -> usize {
        self.inner.runs.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// The most runs this node holds.
    pub fn max_runs(&self) -> usize {
        self.inner.options.max_runs
    }

    /// Whether it stops: it takes no more commands, and what it had goes on elsewhere.
    pub fn is_stopping(&self) -> bool {
        self.inner.stopping.is_cancelled()
    }

    /// How long ago the database last heard that this node lives. After [`SILENCE`](crate::SILENCE) others take over.
    pub fn silent_for(&self) -> Duration {
        self.inner.pulse.age()
    }

    /// The runs that are under way and that no living node can go on with, each with what is lacking; at most the 1,000
    /// that were taken up longest ago. Known from a look every 3 seconds, not from the log.
    pub fn stranded(&self) -> BTreeMap<RunId, String> {
        self.inner.stranded.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The node's id.
    pub fn node_id(&self) -> &str {
        &self.inner.node_id
    }

    /// The fold of a run, from the log; `None` when there is no such run.
    ///
    /// # Errors
    /// [`QueryError::Store`] when the log does not answer.
    pub async fn run(&self, log: LogId, run: &RunId) -> Result<Option<RunState>, QueryError> {
        let (state, _) = fold_run(&self.inner.store, log, run).await?;
        Ok(state.accepted.is_some().then_some(state))
    }

    /// An approval as it stands; `None` when there is none, or it was deleted.
    ///
    /// # Errors
    /// [`QueryError::Store`] when the log does not answer.
    pub async fn approval(&self, log: LogId, id: &ApprovalId) -> Result<Option<ApprovalState>, QueryError> {
        let (state, _) = approvals::fold_approval(&self.inner.store, log, id).await?;
        Ok(state.visible().is_some().then_some(state))
    }

    /// Waits until the run has ended or waits for a person, then gives its fold; `None` when there is no such run.
    /// When this node stops, it gives the fold of a run that goes on elsewhere.
    ///
    /// # Errors
    /// [`QueryError::Store`] when the log does not answer.
    pub async fn wait(&self, log: LogId, run: &RunId) -> Result<Option<RunState>, QueryError> {
        let mut head = self.inner.store.watch_head(log);
        loop {
            if let Some(live) = self.inner.live(log, run)
                && let Some(state) = live.finished().await
            {
                return Ok(Some(state));
            }
            head.mark_unchanged();
            let Some(state) = self.run(log, run).await? else { return Ok(None) };
            let over = state.status.is_end() || state.status == RunStatus::Paused;
            if over || self.inner.stopping.is_cancelled() {
                return Ok(Some(state));
            }
            // Another node has it, or nobody yet: the log tells when it moves, and a busy log must not cost a read each.
            let moved = async {
                tokio::time::sleep(APART).await;
                tokio::time::timeout(LOOK_AGAIN, head.changed()).await.is_ok()
            };
            tokio::select! {
                _ = moved => {}
                () = self.inner.stopping.cancelled() => {}
            }
        }
    }

    /// A configuration by hash.
    ///
    /// # Errors
    /// [`QueryError::MissingConfig`] when the log has none of this hash.
    pub async fn config(&self, log: LogId, hash: &str) -> Result<Arc<ComponentConfig>, QueryError> {
        self.inner.config(log, hash).await
    }

    /// Puts the bytes of large media back in place, as base64 or text.
    ///
    /// # Errors
    /// [`QueryError::Store`] when the blob store does not answer. Erased bytes come back empty.
    pub async fn inline_media(&self, log: LogId, session: &SessionId, media: &mut [Media]) -> Result<(), QueryError> {
        self.inner.inline_media(log, session, media).await
    }

    /// All that is kept of a long result of this session; `None` when it was erased.
    ///
    /// # Errors
    /// [`QueryError::Store`] when the blob store does not answer.
    pub async fn whole_result(
        &self,
        log: LogId,
        session: &SessionId,
        result: &WholeResult,
    ) -> Result<Option<String>, QueryError> {
        Ok(self.inner.whole_result(log, session, result).await?)
    }

    /// Watches a run after frame `after`, or from its first; `None` when there is no such run.
    ///
    /// # Errors
    /// [`QueryError`] when the log does not answer.
    pub async fn watch(&self, log: LogId, run: &RunId, after: Option<u64>) -> Result<Option<Watch>, QueryError> {
        Watch::open(self.clone(), log, run.clone(), after).await
    }

    /// Drops everything as a crash would: nothing is finished, written or handed over. For tests.
    #[doc(hidden)]
    pub fn abandon(self) {
        self.inner.abandoned.cancel();
    }

    /// Stops: no new runs, running ones are handed over for other nodes or the next start, watchers' streams end.
    pub async fn shutdown(&self) {
        node::leave(self).await;
    }
}

impl Inner {
    /// Runs `task` on the engine's tracker until it ends or the engine is abandoned.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let abandoned = self.abandoned.clone();
        self.tasks.spawn(async move { abandoned.run_until_cancelled(task).await });
    }

    pub fn registry(&self) -> Arc<Registry> {
        self.registry.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether it holds as many runs as it may.
    pub fn is_full(&self) -> bool {
        self.runs.lock().unwrap_or_else(PoisonError::into_inner).len() >= self.options.max_runs
    }

    pub fn live(&self, log: LogId, run: &RunId) -> Option<Arc<LiveRun>> {
        self.runs.lock().unwrap_or_else(PoisonError::into_inner).get(&(log, run.clone())).cloned()
    }

    /// Keeps the frames of `live` for watchers who come back, from the oldest in memory on. False when the run is no longer
    /// this node's: one that stood still may not know yet, and what it wrote would look like all there is.
    ///
    /// # Errors
    /// [`QueryError::Store`] when the log does not answer.
    pub async fn keep_frames(&self, live: &LiveRun) -> Result<bool, QueryError> {
        if live.hub.is_kept() {
            return Ok(true);
        }
        let lease = self.store.lease(live.log, &live.run_id).await?;
        let ours = lease.is_some_and(|(node, epoch)| epoch == live.epoch && node.as_ref() == Some(&self.node_id));
        if ours {
            live.hub.keep();
        }
        Ok(ours)
    }

    /// Waits until this moment by the engine's clock; for ever without one.
    pub async fn until(&self, due_ms: Option<i64>) {
        let Some(due_ms) = due_ms else { return std::future::pending().await };
        // The clock is asked again and again: it may be set, and in tests it stands still.
        while let Ok(left @ 1..) = u64::try_from(due_ms.saturating_sub(self.now_ms())) {
            tokio::time::sleep(std::time::Duration::from_millis(left.min(MOST_SLEEP_MS))).await;
        }
    }

    /// Takes `live` out of this node's runs, unless a later lease of the same run has taken its place.
    pub fn forget(&self, key: &(LogId, RunId), live: &Arc<LiveRun>) {
        let mut runs = self.runs.lock().unwrap_or_else(PoisonError::into_inner);
        if runs.get(key).is_some_and(|known| Arc::ptr_eq(known, live)) {
            runs.remove(key);
        }
    }

    pub fn now_ms(&self) -> i64 {
        (self.ports.clock)()
    }

    pub async fn config(&self, log: LogId, hash: &str) -> Result<Arc<ComponentConfig>, QueryError> {
        if let Some(known) = self.registry().by_hash(hash) {
            return Ok(known.config.clone());
        }
        if let Some(config) = self.configs.get(hash).await {
            return Ok(config);
        }
        for recorded in self.store.read_stream(log, &StreamId::config(hash), 0).await? {
            if let DomainEvent::Component(ComponentEvent::Configured(configured)) = recorded.event {
                let config = Arc::new(configured.config);
                self.configs.insert(hash.to_owned(), config.clone()).await;
                return Ok(config);
            }
        }
        Err(QueryError::MissingConfig(hash.to_owned()))
    }

    pub async fn whole_result(
        &self,
        log: LogId,
        session: &SessionId,
        result: &WholeResult,
    ) -> Result<Option<String>, StoreError> {
        let bytes = self.store.get_blob(log, session, &result.hash).await?;
        // It was put there as text.
        let text = |bytes| {
            String::from_utf8(bytes).map_err(|_| StoreError::Invalid(format!("result {} is no text", result.id())))
        };
        bytes.map(text).transpose()
    }

    pub async fn inline_media(&self, log: LogId, session: &SessionId, media: &mut [Media]) -> Result<(), QueryError> {
        use base64::Engine as _;
        for item in media {
            if let MediaContent::Blob { hash, text, .. } = &item.content {
                let bytes = self.store.get_blob(log, session, hash).await?.unwrap_or_default();
                item.content = match String::from_utf8(bytes) {
                    Ok(words) if *text => MediaContent::Text(words),
                    Ok(words) => MediaContent::Base64(base64::engine::general_purpose::STANDARD.encode(words)),
                    Err(raw) => MediaContent::Base64(base64::engine::general_purpose::STANDARD.encode(raw.as_bytes())),
                };
            }
        }
        Ok(())
    }
}

/// Folds a run's whole stream; gives the stream's version too.
pub(crate) async fn fold_run(store: &Store, log: LogId, run: &RunId) -> Result<(RunState, u64), QueryError> {
    let mut state = RunState::default();
    let mut version = 0;
    for recorded in store.read_stream(log, &StreamId::run(run), 0).await? {
        version = recorded.version;
        if let DomainEvent::Run(event) = &recorded.event {
            state.evolve(event);
        }
    }
    Ok((state, version))
}

fn weigh(messages: &[Message]) -> u32 {
    let bytes: usize = messages.iter().map(|message| 256 + message.content.as_ref().map_or(0, String::len)).sum();
    u32::try_from(bytes).unwrap_or(u32::MAX)
}
