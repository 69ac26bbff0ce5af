//! What a driver commits: outcomes together with what comes next, in one append, and then shows to the watchers.

use std::time::Duration;

use backon::BackoffBuilder;
use daybook_domain::approval::{ApprovalEvent, ApprovalRequested};
use daybook_domain::event::DomainEvent;
use daybook_domain::ids::StreamId;
use daybook_domain::run::{CancelRequested, RunCommand, RunEvent, RunState};
use daybook_domain::session::SessionEvent;
use daybook_store::{Append, AppendError, Expected, LeaseOp, Meta, StreamWrite, Subject};

use crate::drive::{Driver, Exit};
use crate::engine::Inner;
use crate::frame::{FrameBody, frames_of, set_frame};
use crate::history::History;
use crate::plan::{Action, Plan};

/// What happens in other streams together with a run's events.
#[derive(Default)]
pub(crate) struct Beside {
    /// In its session.
    pub session: Vec<SessionEvent>,
    /// Approvals it asks for.
    pub approvals: Vec<ApprovalRequested>,
    /// Whether the run ends or waits for a person: with the run at the top, the tree leaves this node.
    pub leaves: bool,
}

impl Driver {
    /// Takes in what is in the log and not in the state: requests to cancel, and what this node appended without ever
    /// hearing that it was done. That has its frames' indexes, so it is shown before anything else gets them.
    pub async fn catch_up(&mut self) -> Result<(), Exit> {
        let stream = StreamId::run(&self.meta.run_id);
        for recorded in self.engine.store.read_stream(self.live.log, &stream, self.version).await? {
            if let DomainEvent::Run(event) = &recorded.event {
                self.state.evolve(event);
                let (first, frames) = frames_of(event, &self.state);
                if first == self.live.hub.next_index() && !frames.is_empty() {
                    self.live.hub.push(self.state.updated_ms / 1000, &self.meta, frames);
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
            let session: Vec<SessionEvent> = session.iter().cloned().chain(plan.session).collect();
            if events.is_empty() && session.is_empty() {
                return Ok(plan.action);
            }
            self.gather_children(&state).await?;
            let beside = Beside { session, approvals: plan.approvals, leaves: plan.leaves };
            let live = self.live.clone();
            let turn = live.turn_to_append().await;
            let appended = self.append(&mut events, &beside).await;
            if let (Ok(()), Some(last)) = (&appended, written) {
                self.live.hub.flushed(last);
            }
            match appended {
                Ok(()) if matches!(plan.action, Action::Stop) && !plan.leaves => return Err(Exit::Moved),
                Ok(()) => return Ok(plan.action),
                Err(AppendError::Conflict { .. }) => self.catch_up().await?,
                Err(AppendError::LostLease { .. } | AppendError::Duplicate { .. }) => return Err(Exit::Moved),
                Err(AppendError::Store(error)) if error.is_temporary() => {
                    tracing::warn!(run = %self.meta.run_id, %error, "the log does not answer; the run waits");
                    self.find_out(&mut backoff).await?;
                }
                Err(AppendError::Store(error)) => return Err(error.into()),
            }
            drop(turn);
        }
    }

    /// Waits until it is known whether an append was done that nobody answered for. Until then no other run of the tree
    /// may number frames: these may have the next indexes.
    async fn find_out(&mut self, backoff: &mut impl Iterator<Item = Duration>) -> Result<(), Exit> {
        loop {
            if self.pause_for(backoff.next().unwrap_or(Duration::from_secs(2))).await {
                self.live.lost.cancel();
                return Err(Exit::Moved);
            }
            match self.catch_up().await {
                Ok(()) => return Ok(()),
                Err(error) => tracing::debug!(run = %self.meta.run_id, %error, "still waiting for the log"),
            }
        }
    }

    /// Commits one event alone, without planning what comes next; false when others appended to the run meanwhile.
    pub async fn record(&mut self, event: RunEvent) -> Result<bool, Exit> {
        let live = self.live.clone();
        let _turn = live.turn_to_append().await;
        match self.append(&mut [event], &Beside::default()).await {
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
                Err(why) => tracing::debug!(run = %self.meta.run_id, %why, "an outcome came too late"),
            }
        }
        if self.is_to_end(&state) {
            let (by, at_ms) = ("system".to_owned(), self.engine.now_ms());
            let request = RunEvent::CancelRequested(CancelRequested { by, why: None.into(), at_ms });
            state.evolve(&request);
            events.push(request);
        }
        (events, state)
    }

    async fn plan(
        &mut self,
        state: &mut RunState,
        events: &mut Vec<RunEvent>,
        session: &[SessionEvent],
    ) -> Result<Plan, Exit> {
        if self.engine.stopping.is_cancelled() || self.moved {
            // Nothing new starts; what happened is recorded, and tools that run are awaited.
            return match (events.is_empty(), self.in_flight.is_empty()) {
                (true, true) => Err(Exit::Moved),
                (_, false) => Ok(Plan::only(Action::AwaitTools)),
                (false, true) => Ok(Plan::only(Action::Stop)),
            };
        }
        if self.in_flight.is_empty() && !self.waiting.is_empty() {
            // It would pause: unless what it waits for was answered meanwhile.
            self.look_at_waiting().await?;
        }
        if self.component.config.workflow().is_none() {
            self.learn_history().await?;
        }
        let mut session_state = {
            let (log, session) = (self.live.log, &self.live.hub.meta.session_id);
            let mut known = self.engine.sessions.lock(log, session).await;
            if known.version == 0 {
                self.engine.sessions.refresh(log, session, &mut known).await?;
            }
            known.state.state.clone()
        };
        for event in session {
            if let SessionEvent::StateChanged(changed) = event
                && let Some(patch) = changed.patch.get()
            {
                patch.apply(&mut session_state);
            }
        }
        let history = self.history.as_ref().map(History::as_seen).unwrap_or_default();
        loop {
            let planner = self.planner(history, session_state.clone());
            let plan = planner.plan(state)?;
            plan.events.iter().for_each(|event| state.evolve(event));
            events.extend(plan.events.iter().cloned());
            // Calls whose outcome is unknown were set aside: something else comes next.
            if matches!(plan.action, Action::AwaitTools) && self.in_flight.is_empty() && plan.due.is_none() {
                continue;
            }
            self.due = plan.due;
            return Ok(plan);
        }
    }

    async fn learn_history(&mut self) -> Result<(), Exit> {
        if self.history.is_some() {
            return Ok(());
        }
        let (log, session) = (self.live.log, &self.live.hub.meta.session_id);
        let history = if self.state.iterations > 0 {
            let summary = self.state.summary.map(|version| (session, version));
            self.engine.history(log, summary, self.state.history.clone(), !self.is_root()).await?
        } else {
            let state = {
                let mut known = self.engine.sessions.lock(log, session).await;
                if known.version == 0 {
                    self.engine.sessions.refresh(log, session, &mut known).await?;
                }
                known.state.clone()
            };
            match self.sees {
                Some(runs) => self.engine.history_of_others(log, &state, runs).await?,
                None => self.engine.history_now(log, &state, &self.component.config, None).await?,
            }
        };
        self.history = Some(history);
        Ok(())
    }

    /// Commits events of the run and what happens beside it, all or nothing, and shows them.
    pub async fn append(&mut self, events: &mut [RunEvent], beside: &Beside) -> Result<(), AppendError> {
        let (after, shown) = self.after(events, self.live.hub.next_index());
        let meta = &self.meta;
        let subject = Subject { session: meta.session_id.clone(), user: meta.user_id.clone() };
        let mut writes = Vec::with_capacity(2);
        if !events.is_empty() {
            writes.push(StreamWrite {
                stream: StreamId::run(&meta.run_id),
                expected: Expected::Version(self.version),
                subject: Some(subject.clone()),
                events: events.iter().cloned().map(DomainEvent::from).collect(),
            });
        }
        for approval in &beside.approvals {
            writes.push(StreamWrite {
                stream: StreamId::approval(&approval.approval_id),
                expected: Expected::Version(0),
                subject: Some(subject.clone()),
                events: vec![ApprovalEvent::Requested(Box::new(approval.clone())).into()],
            });
        }
        let session = &beside.session;
        if !session.is_empty() {
            writes.push(StreamWrite {
                stream: StreamId::session(&meta.session_id),
                expected: Expected::Any,
                subject: Some(subject),
                events: session.iter().cloned().map(DomainEvent::from).collect(),
            });
        }
        let (tree, node, epoch) = (self.live.run_id.clone(), self.engine.node_id.clone(), self.epoch);
        let lease = match beside.leaves && self.is_root() {
            true => LeaseOp::Release { tree, node, epoch },
            false => LeaseOp::Hold { tree, node, epoch },
        };
        let meta = self.engine.meta();
        let request = Append { log_id: self.live.log, writes, command: None, lease, meta };
        let appended = self.engine.store.append(request).await?;
        if !events.is_empty() {
            self.version = appended.versions.first().copied().unwrap_or(self.version);
        }
        if beside.leaves && self.is_root() {
            self.live.set_released();
        }
        self.state = after;
        for (at, frames) in shown {
            self.live.hub.push(at, &self.meta, frames);
        }
        self.engine.frames.soon(&self.live);
        if self.state.failure.is_some() || self.state.cancel.is_some() {
            // Whatever works for this run need not go on.
            self.below.cancel();
        }
        if let (false, Some(version)) = (session.is_empty(), appended.versions.last()) {
            self.engine.session_appended(self.live.log, &self.live.hub.meta.session_id, session, *version).await;
        }
        Ok(())
    }

    /// The state after `events`, whose frames are numbered from `index` on, and these frames with their times.
    fn after(&self, events: &mut [RunEvent], mut index: u64) -> (RunState, Vec<(i64, Vec<FrameBody>)>) {
        let (mut after, mut shown) = (self.state.clone(), Vec::with_capacity(events.len()));
        for event in events {
            set_frame(event, index);
            after.evolve(event);
            let mut frames = frames_of(event, &after).1;
            frames.iter_mut().for_each(|frame| frame.with_children(|| self.children_of(&after)));
            index += frames.len() as u64;
            shown.push((after.updated_ms / 1000, frames));
        }
        (after, shown)
    }

    /// Shows a piece of text or reasoning.
    pub fn show_piece(&self, piece: FrameBody) {
        self.live.hub.push_piece(self.engine.now_ms() / 1000, &self.meta, piece);
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

/// How long to wait for a database that does not answer, time after time.
pub(crate) fn backoff() -> impl Iterator<Item = Duration> {
    backon::ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(100))
        .with_max_delay(Duration::from_secs(2))
        .without_max_times()
        .with_jitter()
        .build()
}
