//! Drives one run: commits what happened together with what comes next, then does it, until nothing comes next here.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use backon::BackoffBuilder;
use daybook_domain::event::DomainEvent;
use daybook_domain::ids::{RunId, StreamId};
use daybook_domain::message::Message;
use daybook_domain::run::{Ending, ErrorKind, RunCommand, RunEvent, RunState, RunStatus};
use daybook_domain::session::SessionEvent;
use daybook_store::{Append, AppendError, Expected, LeaseOp, Meta, StoreError, StreamWrite, Subject};
use serde_json::{Map, Value};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::engine::Inner;
use crate::error::QueryError;
use crate::frame::{FrameBody, frame_count, frames_of, set_frame};
use crate::live::{Left, LiveRun};
use crate::plan::{Action, Partial, Plan, Planner};
use crate::registry::Agent;
use crate::tool_calls::ToolEnd;

/// How often a run whose session is busy looks for itself whether it may go; it is rung up sooner.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// How often a run that met an error of our own tries to go on before it is ended with that error.
const MAX_STUMBLES: u32 = 10;

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
    fn is_temporary(&self) -> bool {
        matches!(self, Self::Store(error) | Self::Query(QueryError::Store(error)) if error.is_temporary())
    }
}

/// Drives one run on this node.
pub(crate) struct Driver {
    pub engine: Arc<Inner>,
    pub live: Arc<LiveRun>,
    /// What the run was accepted with, whatever its id stands for by now.
    pub agent: Arc<Agent>,
    pub state: RunState,
    pub version: u64,
    pub epoch: u64,
    /// Earlier runs whose messages this run sees; read when it goes first.
    pub history: Option<(Vec<RunId>, Vec<Message>)>,
    /// Arguments as the model wrote them, where the log keeps them without a secret.
    pub arguments: HashMap<String, String>,
    pub in_flight: HashSet<String>,
    pub tools: JoinSet<ToolEnd>,
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
        agent: Arc<Agent>,
        state: RunState,
        version: u64,
        epoch: u64,
    ) -> Self {
        Self {
            engine,
            live,
            agent,
            state,
            version,
            epoch,
            history: None,
            arguments: HashMap::new(),
            in_flight: HashSet::new(),
            tools: JoinSet::new(),
            progress: mpsc::channel(PROGRESS),
            partial: Partial::default(),
            granted: false,
            opened: epoch == 1,
        }
    }

    /// Drives the run from `action` until it ends, waits for a person, or moves.
    pub async fn drive(self, action: Action) {
        Box::pin(self.run(Some(action))).await;
    }

    /// Drives a run that was taken over, from where its fold stands.
    pub async fn drive_on(self) {
        Box::pin(self.run(None)).await;
    }

    async fn run(mut self, mut next: Option<Action>) {
        let mut stumbles = 0;
        let live = self.live.clone();
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
                    if stumbles >= MAX_STUMBLES && Box::pin(self.give_up(&error)).await {
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
            self.engine.ended.insert(key.clone(), Arc::new(self.state.messages.clone())).await;
        }
        self.engine.forget(&key, &self.live);
        self.live.leave(left);
    }

    /// Ends a run that cannot go on, rather than leave its caller waiting for ever; false when that failed too.
    async fn give_up(&mut self, error: &Exit) -> bool {
        let message = format!("Daybook could not go on with this run: {error}");
        let planner = self.planner((&[], &[]), Map::new());
        let mut plan = planner.finish(&self.state, Ending::Fail(ErrorKind::InternalError, message));
        let ended = self.append(&mut plan.events, &plan.session, true).await;
        if let Err(error) = &ended {
            tracing::error!(run = %self.live.run_id, %error, "a run that cannot go on could not be ended either");
        }
        ended.is_ok()
    }

    fn planner<'a>(&'a self, history: (&'a [RunId], &'a [Message]), session_state: Map<String, Value>) -> Planner<'a> {
        Planner {
            config: &self.agent.config,
            now_ms: self.engine.now_ms(),
            fresh_id: &*self.engine.ports.ids,
            history,
            granted: self.granted,
            in_flight: &self.in_flight,
            partial: self.partial.clone(),
            session_state,
        }
    }

    /// True when the node is stopping.
    async fn pause_for(&self, time: Duration) -> bool {
        tokio::time::timeout(time, self.engine.stopping.cancelled()).await.is_ok()
    }

    /// A run spends its life waiting for its model. What it does before and after is boxed, so that only what is going on
    /// takes room: many runs are open at once.
    async fn go(&mut self, first: Option<Action>) -> Result<(), Exit> {
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
                Action::AwaitTools => Box::pin(self.await_tool()).await?,
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
                if known.state.may_run(&self.live.run_id) {
                    self.granted = true;
                    self.live.set_waiting(false);
                    return Ok(());
                }
            }
            tokio::select! {
                () = self.live.turn.notified() => {}
                () = tokio::time::sleep(LOOK_AGAIN) => {}
                () = self.live.cancelled.cancelled() => return self.catch_up().await,
                () = self.engine.stopping.cancelled() => return Err(Exit::Moved),
            }
        }
    }

    /// Takes in what is in the log and not in the state: requests to cancel, and what this node appended without ever
    /// hearing that it was done. That has its frames' indexes, so it is shown before anything else gets them.
    pub async fn catch_up(&mut self) -> Result<(), Exit> {
        let stream = StreamId::run(&self.live.run_id);
        for recorded in self.engine.store.read_stream(self.live.log, &stream, self.version).await? {
            if let DomainEvent::Run(event) = &recorded.event {
                self.state.evolve(event);
                let (first, frames) = frames_of(event, &self.state);
                if first == self.live.hub.next_index() && !frames.is_empty() {
                    self.live.hub.push(self.state.updated_ms / 1000, frames);
                    self.engine.frames.soon(&self.live);
                }
            }
            self.version = recorded.version;
        }
        Ok(())
    }

    /// Commits `facts` and what comes next in one append; gives the work that comes next.
    /// Facts that others made untrue meanwhile (the run was cancelled) are dropped.
    pub async fn advance(&mut self, facts: Vec<RunEvent>, session: Vec<SessionEvent>) -> Result<Action, Exit> {
        let mut backoff = backoff();
        loop {
            // Text must be in the table before the event that says it is complete, or that ends a run that was cancelled
            // or taken over in the middle of it; again, when the event was not taken.
            let Ok(written) = self.engine.frames.flush(&self.live).await else {
                if self.pause_for(backoff.next().unwrap_or(Duration::from_secs(2))).await {
                    return Err(Exit::Moved);
                }
                continue;
            };
            let (mut events, mut state) = self.still_true(&facts);
            // What came too late changes nothing in the session either.
            let session = if events.is_empty() && !facts.is_empty() { &[][..] } else { &session[..] };
            let plan = self.plan(&mut state, &mut events, session).await?;
            let session_events: Vec<SessionEvent> = session.iter().cloned().chain(plan.session).collect();
            if events.is_empty() && session_events.is_empty() {
                return Ok(plan.action);
            }
            let appended = self.append(&mut events, &session_events, plan.leaves).await;
            if let (Ok(()), Some(last)) = (&appended, written) {
                self.live.hub.flushed(last);
            }
            match appended {
                Ok(()) if matches!(plan.action, Action::Stop) && !plan.leaves => return Err(Exit::Moved),
                Ok(()) => return Ok(plan.action),
                Err(AppendError::Conflict { .. }) => self.catch_up().await?,
                Err(AppendError::LostLease { .. } | AppendError::Duplicate { .. }) => return Err(Exit::Moved),
                Err(AppendError::Store(error)) if error.is_temporary() => {
                    tracing::warn!(run = %self.live.run_id, %error, "the log does not answer; the run waits");
                    if self.pause_for(backoff.next().unwrap_or(Duration::from_secs(2))).await {
                        return Err(Exit::Moved);
                    }
                    if let Err(error) = self.catch_up().await {
                        tracing::debug!(run = %self.live.run_id, %error, "still waiting for the log");
                    }
                }
                Err(AppendError::Store(error)) => return Err(error.into()),
            }
        }
    }

    /// Commits one event alone, without planning what comes next; false when others appended to the run meanwhile.
    pub async fn record(&mut self, event: RunEvent) -> Result<bool, Exit> {
        match self.append(&mut [event], &[], false).await {
            Ok(()) => Ok(true),
            Err(AppendError::Conflict { .. }) => Ok(false),
            Err(AppendError::Store(error)) => Err(error.into()),
            Err(_) => Err(Exit::Moved),
        }
    }

    fn still_true(&self, facts: &[RunEvent]) -> (Vec<RunEvent>, RunState) {
        let mut state = self.state.clone();
        let mut events = Vec::new();
        for fact in facts {
            match state.decide(RunCommand(fact.clone())) {
                Ok(decided) => {
                    decided.iter().for_each(|event| state.evolve(event));
                    events.extend(decided);
                }
                Err(why) => tracing::debug!(run = %self.live.run_id, %why, "an outcome came too late"),
            }
        }
        (events, state)
    }

    async fn plan(
        &mut self,
        state: &mut RunState,
        events: &mut Vec<RunEvent>,
        session: &[SessionEvent],
    ) -> Result<Plan, Exit> {
        if self.engine.stopping.is_cancelled() {
            // Nothing new starts; what happened is recorded, and tools that run are awaited.
            return match (events.is_empty(), self.in_flight.is_empty()) {
                (true, true) => Err(Exit::Moved),
                (_, false) => Ok(Plan::only(Action::AwaitTools)),
                (false, true) => Ok(Plan::only(Action::Stop)),
            };
        }
        self.learn_history().await?;
        let mut session_state = {
            let known = self.engine.sessions.lock(self.live.log, &self.live.hub.meta.session_id).await;
            known.state.state.clone()
        };
        for event in session {
            if let SessionEvent::StateChanged(changed) = event
                && let Some(patch) = changed.patch.get()
            {
                patch.apply(&mut session_state);
            }
        }
        let (ids, messages) = self.history.as_ref().map_or((&[][..], &[][..]), |(ids, read)| (ids, read));
        loop {
            let planner = self.planner((ids, messages), session_state.clone());
            let plan = planner.plan(state)?;
            plan.events.iter().for_each(|event| state.evolve(event));
            events.extend(plan.events.iter().cloned());
            // Calls whose outcome is unknown were set aside: something else comes next.
            if matches!(plan.action, Action::AwaitTools) && self.in_flight.is_empty() {
                continue;
            }
            return Ok(plan);
        }
    }

    async fn learn_history(&mut self) -> Result<(), Exit> {
        if self.history.is_some() {
            return Ok(());
        }
        let ids = if self.state.iterations > 0 {
            self.state.history.clone()
        } else {
            let mut known = self.engine.sessions.lock(self.live.log, &self.live.hub.meta.session_id).await;
            if known.version == 0 {
                self.engine.sessions.refresh(self.live.log, &self.live.hub.meta.session_id, &mut known).await?;
            }
            last_runs(&known.state.recent, self.agent.config.history_runs)
        };
        let messages = self.engine.history(self.live.log, &ids).await?;
        self.history = Some((ids, messages));
        Ok(())
    }

    async fn append(
        &mut self,
        events: &mut [RunEvent],
        session: &[SessionEvent],
        leaves: bool,
    ) -> Result<(), AppendError> {
        let mut index = self.live.hub.next_index();
        for event in events.iter_mut() {
            set_frame(event, index);
            index += frame_count(event);
        }
        let meta = &self.live.hub.meta;
        let subject = Subject { session: meta.session_id.clone(), user: meta.user_id.clone() };
        let mut writes = Vec::with_capacity(2);
        if !events.is_empty() {
            writes.push(StreamWrite {
                stream: StreamId::run(&self.live.run_id),
                expected: Expected::Version(self.version),
                subject: Some(subject.clone()),
                events: events.iter().cloned().map(DomainEvent::from).collect(),
            });
        }
        if !session.is_empty() {
            writes.push(StreamWrite {
                stream: StreamId::session(&meta.session_id),
                expected: Expected::Any,
                subject: Some(subject),
                events: session.iter().cloned().map(DomainEvent::from).collect(),
            });
        }
        let (tree, node, epoch) = (self.live.run_id.clone(), self.engine.node_id.clone(), self.epoch);
        let lease = if leaves { LeaseOp::Release { tree, node, epoch } } else { LeaseOp::Hold { tree, node, epoch } };
        let meta = self.engine.meta();
        let request = Append { log_id: self.live.log, writes, command: None, lease, meta };
        let appended = self.engine.store.append(request).await?;
        if !events.is_empty() {
            self.version = appended.versions.first().copied().unwrap_or(self.version);
        }
        self.show(events);
        if let (false, Some(version)) = (session.is_empty(), appended.versions.last()) {
            self.engine.session_appended(self.live.log, &self.live.hub.meta.session_id, session, *version).await;
        }
        Ok(())
    }

    /// Takes committed events into the state and shows them to the watchers.
    pub fn show(&mut self, events: &[RunEvent]) {
        for event in events {
            self.state.evolve(event);
            let (_, frames) = frames_of(event, &self.state);
            if !frames.is_empty() {
                self.live.hub.push(self.state.updated_ms / 1000, frames);
            }
        }
        self.engine.frames.soon(&self.live);
    }

    /// Shows a piece of text or reasoning.
    pub fn show_piece(&self, piece: FrameBody) {
        self.live.hub.push(self.engine.now_ms() / 1000, [piece]);
        self.engine.frames.soon(&self.live);
    }
}

impl Inner {
    /// What the log records of the engine's own appends.
    pub fn meta(&self) -> Meta {
        Meta {
            principal: "system".to_owned(),
            interface: "engine".to_owned(),
            correlation_id: None,
            causation_id: None,
            occurred_at_ms: self.now_ms(),
        }
    }

    /// Takes session events that this node appended into its fold, and rings up the run whose turn it is.
    pub async fn session_appended(
        &self,
        log: daybook_domain::LogId,
        session: &daybook_domain::SessionId,
        events: &[SessionEvent],
        version: u64,
    ) {
        let mut known = self.sessions.lock(log, session).await;
        known.appended(events.iter(), version);
        if events.iter().any(|event| matches!(event, SessionEvent::RunEnded(_))) {
            if known.version < version
                && let Err(error) = self.sessions.refresh(log, session, &mut known).await
            {
                tracing::warn!(%session, %error, "a session was not read; its next run looks for itself");
            }
            let waiting = known.state.active.as_ref().and_then(|run| self.live(log, run));
            if let Some(next) = waiting {
                next.turn.notify_one();
            }
        }
    }
}

/// The last `count` of `recent`, oldest first.
pub(crate) fn last_runs(recent: &std::collections::VecDeque<RunId>, count: u32) -> Vec<RunId> {
    let count = usize::try_from(count).unwrap_or(usize::MAX);
    recent.iter().skip(recent.len().saturating_sub(count)).cloned().collect()
}

fn backoff() -> impl Iterator<Item = Duration> {
    backon::ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(100))
        .with_max_delay(Duration::from_secs(2))
        .without_max_times()
        .with_jitter()
        .build()
}
