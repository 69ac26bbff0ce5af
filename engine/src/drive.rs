//! Drives one run: commits what happened together with what comes next, then does it, until nothing comes next here.

use std::collections::{HashMap, HashSet};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use daybook_domain::ids::RunId;
use daybook_domain::run::{Ending, ErrorKind, RunState, RunStatus};
use daybook_store::{AppendError, StoreError};
use futures::FutureExt as _;
use serde_json::{Map, Value};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::{AbortHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::child::Asks;
use crate::commit::Beside;
use crate::detail::RunDetail;
use crate::engine::Inner;
use crate::error::QueryError;
use crate::flow::StepDone;
use crate::frame::{FrameBody, RunMeta};
use crate::history::{History, Seen};
use crate::live::{Left, LiveRun};
use crate::plan::{Action, Partial, Planner};
use crate::registry::Component;
use crate::tool_calls::End;

/// How often a run whose session is busy looks for itself whether it may go; it is rung up sooner.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// How often a run that met an error of our own tries to go on before it is ended with that error.
const MAX_STUMBLES: u32 = 10;

/// How often a run's driver may panic on a node before it is ended there.
const MAX_PANICS: u32 = 3;

/// How many words of tools may wait to be shown; further ones are not.
const PROGRESS: usize = 64;

/// Why a run is no longer driven here, though it has not ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Exit {
    /// The lease went to another node, or this node is stopping.
    #[error("the run goes on elsewhere")]
    Moved,
    /// The log refused.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Something recorded could not be read.
    #[error(transparent)]
    Query(#[from] QueryError),
    /// Something could not be written.
    #[error(transparent)]
    Json(#[from] serde_json::Error),
}

impl Exit {
    /// Whether it may go better a little later.
    pub fn is_temporary(&self) -> bool {
        matches!(self, Self::Store(error) | Self::Query(QueryError::Store(error)) if error.is_temporary())
    }
}

/// Drives one run on this node.
pub(crate) struct Driver {
    pub engine: Arc<Inner>,
    /// The tree it belongs to.
    pub live: Arc<LiveRun>,
    /// The run itself: the one at the top of the tree, or one under it.
    pub meta: Arc<RunMeta>,
    /// What the run was accepted with, whatever its id stands for by now.
    pub component: Arc<Component>,
    pub state: RunState,
    pub version: u64,
    pub epoch: u64,
    /// What this run sees of earlier ones; read when it goes first.
    pub history: Option<History>,
    /// Arguments as the model wrote them, where the log keeps them without a secret.
    pub arguments: HashMap<String, String>,
    pub in_flight: HashSet<String>,
    pub tools: JoinSet<End>,
    /// Stops the calls that are code, by their ids. Those that child runs carry out end by themselves.
    pub stops: HashMap<String, AbortHandle>,
    /// Calls and steps whose child runs wait for a person, and what they ask.
    pub waiting: HashMap<String, Asks>,
    /// Steps that ended and are not recorded yet.
    pub steps_done: Vec<StepDone>,
    /// Unix milliseconds when a step runs again that failed.
    pub due: Option<i64>,
    /// Child runs that ended here.
    pub ended: HashMap<RunId, RunDetail>,
    /// How many child runs may go on at once.
    pub places: Arc<Semaphore>,
    /// Fires when the run is to stop: its cancel is in the log, or its parent is stopping.
    pub cancelled: CancellationToken,
    /// Fires when the runs under it are to stop.
    pub below: CancellationToken,
    /// How many of the session's earlier runs it sees, where that is not its own component's to say.
    pub sees: Option<u32>,
    /// Whether a run under it goes on elsewhere: then it does too.
    pub moved: bool,
    /// What tools tell of how far they are. Frames are numbered here only, so they pass through here.
    pub progress: (mpsc::Sender<FrameBody>, mpsc::Receiver<FrameBody>),
    /// What the open model call had said when it was dropped.
    pub partial: Partial,
    pub granted: bool,
    /// Whether the log and the watchers were told of this lease; the first lease is told by the acceptance.
    pub opened: bool,
}

impl Driver {
    /// A driver at `state`, before anything is in flight.
    pub fn new(
        engine: Arc<Inner>,
        live: Arc<LiveRun>,
        component: Arc<Component>,
        state: RunState,
        version: u64,
        epoch: u64,
    ) -> Self {
        Self {
            engine,
            meta: live.hub.meta.clone(),
            cancelled: live.cancelled.clone(),
            below: live.cancelled.child_token(),
            live,
            places: Arc::new(Semaphore::new(places(&component))),
            component,
            state,
            version,
            epoch,
            history: None,
            arguments: HashMap::new(),
            in_flight: HashSet::new(),
            tools: JoinSet::new(),
            stops: HashMap::new(),
            waiting: HashMap::new(),
            steps_done: Vec::new(),
            due: None,
            ended: HashMap::new(),
            sees: None,
            moved: false,
            progress: mpsc::channel(PROGRESS),
            partial: Partial::default(),
            granted: false,
            opened: epoch == 1,
        }
    }

    /// Whether it is the run at the top of its tree.
    pub fn is_root(&self) -> bool {
        self.meta.parent.is_none()
    }

    /// Drives the run from `action` until it ends, waits for a person, or moves.
    pub async fn drive(self, action: Action) {
        self.guarded(Some(action)).await;
    }

    /// Drives a run that was taken over, from where its fold stands.
    pub async fn drive_on(self) {
        self.guarded(None).await;
    }

    /// A defect ends the driving, not the run: its lease is found without a run, given up, and taken up by who can.
    async fn guarded(self, next: Option<Action>) {
        let (engine, live) = (self.engine.clone(), self.live.clone());
        if AssertUnwindSafe(Box::pin(self.run(next))).catch_unwind().await.is_err() {
            tracing::error!(run = %live.run_id, "a run's driver panicked; the run is given up, to be taken up anew");
            engine.broke_down(&live).await;
            engine.forget(&(live.log, live.run_id.clone()), &live);
            live.leave(Left::Moved);
        }
    }

    async fn broke_down_too_often(&self) -> bool {
        let key = (self.live.log, self.live.run_id.clone());
        self.engine.panics.get(&key).await.is_some_and(|panics| panics >= MAX_PANICS)
    }

    async fn run(mut self, mut next: Option<Action>) {
        let mut stumbles = 0;
        let live = self.live.clone();
        // Each time it may have cost a model call. A run that is new here has not broken down yet.
        let taken_up = next.is_none();
        if taken_up && self.broke_down_too_often().await && self.catch_up().await.is_ok() {
            let message = "Daybook could not go on with this run: it broke down again and again (see the server's log)";
            if Box::pin(self.give_up(message)).await {
                let left = Left::Finished(Arc::new(self.state.clone()));
                return Box::pin(self.leave(left)).await;
            }
        }
        let left = loop {
            let gone = live.lost.run_until_cancelled(Box::pin(self.go(next.take()))).await;
            match gone.unwrap_or(Err(Exit::Moved)) {
                Ok(()) => break Left::Finished(Arc::new(self.state.clone())),
                Err(Exit::Moved) => break Left::Moved,
                Err(error) => {
                    // An outage of the database ends no run, however long it lasts.
                    stumbles += u32::from(!error.is_temporary());
                    tracing::error!(run = %self.live.run_id, %error, stumbles, "a run stumbled");
                    if self.pause_for(Duration::from_secs(1)).await {
                        break Left::Moved;
                    }
                    let message = || format!("Daybook could not go on with this run: {error}");
                    if stumbles >= MAX_STUMBLES && Box::pin(self.give_up(&message())).await {
                        break Left::Finished(Arc::new(self.state.clone()));
                    }
                }
            }
        };
        Box::pin(self.leave(left)).await;
    }

    /// The run is no longer driven here.
    async fn leave(&mut self, left: Left) {
        // What is left now is made from events, and can be made again from them. What a node without the lease says is
        // not the run's any more.
        if !self.live.lost.is_cancelled() && self.engine.frames.flush(&self.live).await.is_err() {
            tracing::debug!(run = %self.live.run_id, "the last frames were not written");
        }
        let key = (self.live.log, self.live.run_id.clone());
        if self.state.status == RunStatus::Completed {
            let remembered = (self.engine.store.erasures(), key.0, key.1.clone());
            self.engine.ended.insert(remembered, Arc::new(self.state.for_history())).await;
            self.engine.compact_when_due(self.live.log, &self.live.hub.meta.session_id, &self.component);
        }
        self.engine.forget(&key, &self.live);
        self.live.leave(left);
        if self.state.status == RunStatus::Paused && !self.waiting.is_empty() {
            // Somebody may have answered a run under this one while it was not paused yet.
            self.engine.go_on_if_answered(self.live.log, &self.live.run_id).await;
        }
    }

    /// Ends a run that cannot go on, and those under it, rather than leave its caller waiting for ever; false when that
    /// failed too.
    async fn give_up(&mut self, message: &str) -> bool {
        self.tools.shutdown().await;
        let ended = match self.end_below(message).await {
            Ok(()) => self.end_itself(message).await,
            Err(error) => Err(error),
        };
        if let Err(error) = &ended {
            tracing::error!(run = %self.meta.run_id, %error, "a run that cannot go on could not be ended either");
        }
        ended.is_ok()
    }

    async fn end_itself(&mut self, message: &str) -> Result<(), AppendError> {
        let planner = self.planner(Seen::default(), Map::new());
        let mut plan = planner.finish(&self.state, Ending::Fail(ErrorKind::InternalError, message.to_owned()));
        let beside = Beside { session: plan.session, leaves: true, ..Beside::default() };
        let live = self.live.clone();
        let _turn = live.turn_to_append().await;
        self.append(&mut plan.events, &beside).await
    }

    /// Ends the runs under this one that have not ended, those at the bottom first.
    async fn end_below(&mut self, message: &str) -> Result<(), AppendError> {
        let (log, engine, live) = (self.live.log, self.engine.clone(), self.live.clone());
        let unread = |error: QueryError| match error {
            QueryError::Store(error) => AppendError::Store(error),
            QueryError::MissingConfig(hash) => {
                AppendError::Store(StoreError::Invalid(format!("configuration {hash} is not in the log")))
            }
        };
        let mut below = engine.open_below(log, &self.state).await.map_err(unread)?;
        while let Some((state, version)) = below.pop() {
            let Some(accepted) = state.accepted.clone() else { continue };
            let config = engine.config(log, &accepted.config_hash).await.map_err(unread)?;
            let component = engine.registry().pinned(config, &accepted.config_hash);
            let meta = Arc::new(RunMeta::accepted(&accepted, &component.config));
            let mut child = Driver::new(engine.clone(), live.clone(), component, state, version, self.epoch);
            child.meta = meta;
            child.end_itself(message).await?;
        }
        Ok(())
    }

    /// What plans, from what this driver knows.
    pub fn planner<'a>(&'a self, history: Seen<'a>, session_state: Map<String, Value>) -> Planner<'a> {
        Planner {
            config: &self.component.config,
            now_ms: self.engine.now_ms(),
            fresh_id: &*self.engine.ports.ids,
            history,
            granted: self.granted,
            in_flight: &self.in_flight,
            waiting: &self.waiting,
            code: self.component.flow.as_deref(),
            checks: &self.component.checks,
            partial: self.partial.clone(),
            session_state,
        }
    }

    /// True when the node is stopping.
    pub async fn pause_for(&self, time: Duration) -> bool {
        tokio::time::timeout(time, self.engine.stopping.cancelled()).await.is_ok()
    }

    /// A run spends its life waiting for its model. What it does before and after is boxed, so that only what is going on
    /// takes room: many runs are open at once.
    pub async fn go(&mut self, first: Option<Action>) -> Result<(), Exit> {
        let mut action = match first {
            Some(action) => action,
            None => Box::pin(self.take_up()).await?,
        };
        loop {
            action = match action {
                Action::Model(call) => {
                    let facts = Box::pin(self.call_model(*call)).await?;
                    Box::pin(self.advance(facts, Vec::new())).await?
                }
                Action::Tools(starts) => {
                    Box::pin(self.start_tools(starts)).await;
                    Box::pin(self.await_tool()).await?
                }
                Action::Steps(starts) => {
                    Box::pin(self.start_steps(starts)).await;
                    Box::pin(self.await_tool()).await?
                }
                Action::AwaitTools => Box::pin(self.await_tool()).await?,
                Action::LookOn => Box::pin(self.advance(Vec::new(), Vec::new())).await?,
                Action::AwaitTurn => {
                    Box::pin(self.await_turn()).await?;
                    Box::pin(self.advance(Vec::new(), Vec::new())).await?
                }
                Action::Stop => return Ok(()),
            }
        }
    }

    /// Finds out where a run that was taken over stands, and what comes next.
    async fn take_up(&mut self) -> Result<Action, Exit> {
        self.catch_up().await?;
        if !self.opened {
            self.open_epoch().await?;
        }
        self.advance(Vec::new(), Vec::new()).await
    }

    /// Waits until the session lets the run go, or the run is cancelled.
    async fn await_turn(&mut self) -> Result<(), Exit> {
        self.live.set_waiting(true);
        loop {
            {
                let mut known = self.engine.sessions.lock(self.live.log, &self.live.hub.meta.session_id).await;
                self.engine.sessions.refresh(self.live.log, &self.live.hub.meta.session_id, &mut known).await?;
                if known.state.may_run(&self.meta.run_id) {
                    self.granted = true;
                    self.live.set_waiting(false);
                    return Ok(());
                }
            }
            tokio::select! {
                () = self.live.turn.notified() => {}
                () = tokio::time::sleep(LOOK_AGAIN) => {}
                () = self.cancelled.cancelled() => return self.catch_up().await,
                () = self.engine.stopping.cancelled() => return Err(Exit::Moved),
            }
        }
    }
}

impl Inner {
    /// Counts that a driver of this tree broke down.
    pub async fn broke_down(&self, live: &LiveRun) {
        let key = (live.log, live.run_id.clone());
        let before = self.panics.get(&key).await.unwrap_or(0);
        self.panics.insert(key, before + 1).await;
    }
}

/// How many runs under one of this component go on at once.
fn places(component: &Component) -> usize {
    if component.config.workflow().is_some() {
        // Its steps say how many of them go on at once.
        return Semaphore::MAX_PERMITS;
    }
    let team = component.config.agent().and_then(|agent| agent.team.as_ref());
    team.map_or(1, |team| usize::try_from(team.max_parallel).unwrap_or(usize::MAX).clamp(1, Semaphore::MAX_PERMITS))
}
