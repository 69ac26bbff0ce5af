//! Answers to what a paused run asks. They are recorded at once; when nothing is left open, the run goes on in the same
//! append, here or, when this node lacks what it needs, wherever it is claimed. When no living node has that, nothing is
//! recorded.

use std::collections::BTreeSet;
use std::sync::{Arc, PoisonError};

use daybook_domain::command::{CancelRun, Envelope, Principal};
use daybook_domain::component::ComponentConfig;
use daybook_domain::event::DomainEvent;
use daybook_domain::ids::{LogId, RunId, StreamId};
use daybook_domain::run::{RunAccepted, RunContinued, RunEvent, RunMode, RunState, RunStatus};
use daybook_domain::session::Admission;
use daybook_store::{Append, AppendError, CommandKey, Expected, LeaseOp, Meta, StoreError, StreamWrite, Subject};

use crate::drive::Driver;
use crate::engine::{Inner, Outcome, fold_run};
use crate::error::{ExecuteError, QueryError};
use crate::frame::{RunMeta, frames_of};
use crate::hub::Hub;
use crate::live::LiveRun;
use crate::registry::Component;
use crate::stranded::lacking;

/// How often something is tried when others write to the same streams at the same time.
pub(crate) const MAX_TRIES: u32 = 100;

/// A run as it stands in the log, with what it was accepted with.
#[derive(Clone)]
pub(crate) struct Standing {
    pub state: RunState,
    pub version: u64,
    pub accepted: RunAccepted,
    pub config: Arc<ComponentConfig>,
}

impl Standing {
    /// Reads the run; `None` when there is none.
    pub async fn read(inner: &Inner, log: LogId, run: &RunId) -> Result<Option<Self>, ExecuteError> {
        let (state, version) = fold_run(&inner.store, log, run).await.map_err(refused)?;
        let Some(accepted) = state.accepted.clone() else { return Ok(None) };
        let config = inner.config(log, &accepted.config_hash).await.map_err(refused)?;
        Ok(Some(Self { state, version, accepted, config }))
    }

    /// Whose keys protect what is recorded of it.
    pub fn subject(&self) -> Subject {
        Subject { session: self.accepted.session_id.clone(), user: self.accepted.user_id.clone() }
    }
}

/// Why a settlement was not recorded.
pub(crate) enum Unsettled {
    /// Others wrote to the run, or to an approval, meanwhile: look again.
    Conflict,
    /// The same command was executed before.
    Duplicate,
    /// For good.
    Refused(ExecuteError),
}

impl<E: Into<ExecuteError>> From<E> for Unsettled {
    fn from(error: E) -> Self {
        Self::Refused(error.into())
    }
}

/// What is to be recorded of a run tree.
pub(crate) struct Settlement<'a> {
    pub inner: &'a Arc<Inner>,
    pub envelope: &'a Envelope,
    /// The run at the top.
    pub root: Standing,
    /// Answers to what it asks itself, each fitting it.
    pub answers: Vec<RunEvent>,
    /// Answers to what runs under it ask, likewise.
    pub below: Vec<(Standing, Vec<RunEvent>)>,
    /// What happens to approvals in the same append.
    pub beside: Vec<StreamWrite>,
    /// How who answers waits.
    pub mode: RunMode,
    pub key: Option<CommandKey>,
}

impl<'a> Settlement<'a> {
    /// Of answers to what `run` asks, wherever in its tree that is.
    pub async fn of(
        inner: &'a Arc<Inner>,
        envelope: &'a Envelope,
        run: Standing,
        answers: Vec<RunEvent>,
        beside: Vec<StreamWrite>,
    ) -> Result<Self, ExecuteError> {
        let (mode, key) = (RunMode::Background, None);
        let Some(parent) = run.accepted.parent.clone() else {
            return Ok(Self { inner, envelope, root: run, answers, below: Vec::new(), beside, mode, key });
        };
        let unknown = || ExecuteError::UnknownRun(parent.root.to_string());
        let root = Standing::read(inner, envelope.log_id, &parent.root).await?.ok_or_else(unknown)?;
        Ok(Self { inner, envelope, root, answers: Vec::new(), below: vec![(run, answers)], beside, mode, key })
    }

    /// Records it.
    pub async fn commit(self) -> Result<Outcome, Unsettled> {
        let inner = self.inner;
        if self.root.state.status != RunStatus::Paused || self.is_open().await? {
            return self.wait_on().await;
        }
        let component = inner.registry().pinned(self.root.config.clone(), &self.root.accepted.config_hash);
        let tree = inner.tree(self.envelope.log_id, &component).await.map_err(refused)?;
        let here = tree.iter().all(|component| component.is_whole());
        if here && inner.is_full() {
            return Err(ExecuteError::TooManyRuns(inner.options.max_runs).into());
        }
        if !here && let Some(lacks) = self.lacking_everywhere(&tree).await? {
            return Err(ExecuteError::NobodyCan(lacks).into());
        }
        let session = &self.root.accepted.session_id;
        let mut known = inner.sessions.lock(self.envelope.log_id, session).await;
        inner.sessions.refresh(self.envelope.log_id, session, &mut known).await?;
        for _ in 0..MAX_TRIES {
            let (admission, admitted) = known.state.readmit(self.root.accepted.run_id.clone(), inner.now_ms() / 1000);
            let continued = RunEvent::Continued(RunContinued {
                mode: self.mode,
                admission,
                steps: self.root.state.flow.as_ref().map(|flow| flow.paused.clone()).unwrap_or_default(),
                frame: self.root.state.next_frame,
                at_ms: inner.now_ms(),
            });
            let events: Vec<RunEvent> = self.answers.iter().cloned().chain([continued]).collect();
            let at = Expected::Version(known.version);
            let session = write(&self.root, StreamId::session(session), at, [admitted.clone()]);
            let append = self.append(&events, vec![session], self.take(&tree, here));
            match inner.store.append(append).await {
                Ok(appended) => {
                    let version = appended.versions.get(1).copied().unwrap_or_default();
                    known.appended([&admitted].into_iter(), version);
                    drop(known);
                    let run_version = appended.versions.first().copied().unwrap_or_default();
                    return Ok(self.go_on(&component, here, &events, run_version, admission));
                }
                Err(AppendError::Conflict { stream, .. }) if stream.as_session().is_some() => {
                    inner.sessions.refresh(self.envelope.log_id, &self.root.accepted.session_id, &mut known).await?;
                }
                Err(error) => return Err(unsettled(error)),
            }
        }
        Err(ExecuteError::Contended.into())
    }

    /// Whether something is asked yet in the tree, after these answers.
    async fn is_open(&self) -> Result<bool, ExecuteError> {
        let mut after = self.root.state.clone();
        self.answers.iter().for_each(|event| after.evolve(event));
        if after.is_asking() {
            return Ok(true);
        }
        let mut below = self.inner.open_below(self.envelope.log_id, &self.root.state).await.map_err(refused)?;
        for (run, _) in &mut below {
            let id = run.run_id().cloned();
            let answers = self.below.iter().filter(|(member, _)| Some(&member.accepted.run_id) == id.as_ref());
            answers.flat_map(|(_, events)| events).for_each(|event| run.evolve(event));
        }
        Ok(below.iter().any(|(run, _)| run.status == RunStatus::Paused && run.cancel.is_none() && run.is_asking()))
    }

    /// What every living node lacks to go on with the tree; `None` when one can.
    async fn lacking_everywhere(&self, tree: &[Arc<Component>]) -> Result<Option<String>, StoreError> {
        let models = tree.iter().filter_map(|known| known.config.model()).map(|model| model.key.clone());
        let models: Vec<String> = models.collect();
        let component = self.root.accepted.component.to_string();
        let nodes = self.inner.store.living_nodes().await?;
        Ok(lacking(&nodes, &component, &models, &tools_of(tree)))
    }

    /// More is asked, or the run at the top goes on beside: the answers are recorded and the rest stays where it is.
    async fn wait_on(self) -> Result<Outcome, Unsettled> {
        let (inner, log) = (self.inner, self.envelope.log_id);
        let append = self.append(&self.answers, Vec::new(), LeaseOp::None);
        if !append.writes.is_empty() {
            inner.store.append(append).await.map_err(unsettled)?;
        }
        let (run_id, after) = (self.root.accepted.run_id.clone(), self.root.state.paused_frame);
        if self.root.state.status != RunStatus::Paused {
            // It may have paused meanwhile, for what was just answered.
            inner.go_on_if_answered(log, &run_id).await;
        }
        Ok(Outcome::Continued { run_id, session_id: self.root.accepted.session_id.clone(), queued: false, after })
    }

    fn append(&self, events: &[RunEvent], more: Vec<StreamWrite>, lease: LeaseOp) -> Append {
        let answered = |run: &Standing, events: &[RunEvent]| {
            let (stream, at) = (StreamId::run(&run.accepted.run_id), Expected::Version(run.version));
            write(run, stream, at, events.iter().cloned())
        };
        let mut writes: Vec<StreamWrite> = Vec::new();
        if !events.is_empty() {
            writes.push(answered(&self.root, events));
        }
        writes.extend(more);
        writes.extend(self.below.iter().map(|(run, events)| answered(run, events)));
        writes.extend(self.beside.iter().cloned());
        let meta = meta_of(self.envelope, self.inner.now_ms());
        Append { log_id: self.envelope.log_id, writes, command: self.key.clone(), lease, meta }
    }

    fn take(&self, tree: &[Arc<Component>], here: bool) -> LeaseOp {
        LeaseOp::Take {
            tree: self.root.accepted.run_id.clone(),
            // Nobody has this name, so whoever has what the run needs claims it.
            node: if here { self.inner.node_id.clone() } else { "nobody".to_owned() },
            epoch: self.root.state.epoch.max(1),
            component: self.root.accepted.component.to_string(),
            tools: tools_of(tree),
        }
    }

    /// It is in the log: from here on it goes by itself.
    fn go_on(
        self,
        component: &Arc<Component>,
        here: bool,
        events: &[RunEvent],
        version: u64,
        admission: Admission,
    ) -> Outcome {
        let (inner, log) = (self.inner, self.envelope.log_id);
        let (before, run_id) = (self.root.state, self.root.accepted.run_id);
        let outcome = Outcome::Continued {
            run_id: run_id.clone(),
            session_id: self.root.accepted.session_id,
            queued: admission == Admission::Queued,
            after: before.next_frame.checked_sub(1),
        };
        let mut state = before.clone();
        events.iter().for_each(|event| state.evolve(event));
        let Some(meta) = RunMeta::of(&state, &component.config).filter(|_| here) else { return outcome };
        let hub = Hub::new(Arc::new(meta), before.next_frame, state.keeps_frames());
        for event in events {
            hub.push(state.updated_ms / 1000, &hub.meta, frames_of(event, &state).1);
        }
        let live = LiveRun::new(log, state.epoch.max(1), hub);
        inner.runs.lock().unwrap_or_else(PoisonError::into_inner).insert((log, run_id), live.clone());
        inner.frames.soon(&live);
        let epoch = live.epoch;
        let mut driver = Driver::new(inner.clone(), live, component.clone(), state, version, epoch);
        driver.opened = true;
        inner.spawn(driver.drive_on());
        outcome
    }
}

fn write<E: Into<DomainEvent>>(
    run: &Standing,
    stream: StreamId,
    expected: Expected,
    events: impl IntoIterator<Item = E>,
) -> StreamWrite {
    let events = events.into_iter().map(Into::into).collect();
    StreamWrite { stream, expected, subject: Some(run.subject()), events }
}

/// The names of the tools that these call.
pub(crate) fn tools_of(tree: &[Arc<Component>]) -> Vec<String> {
    let names = tree.iter().flat_map(|known| known.needs());
    names.collect::<BTreeSet<String>>().into_iter().collect()
}

impl Inner {
    /// The component and all that its runs run, at any depth: from the log, where this node does not have them.
    pub async fn tree(&self, log: LogId, component: &Arc<Component>) -> Result<Vec<Arc<Component>>, QueryError> {
        let (mut open, mut tree) = (vec![component.clone()], Vec::<Arc<Component>>::new());
        while let Some(next) = open.pop() {
            if tree.iter().any(|known| known.hash == next.hash) {
                continue;
            }
            for (_, hash) in next.config.children() {
                open.push(self.registry().pinned(self.config(log, hash).await?, hash));
            }
            tree.push(next);
        }
        Ok(tree)
    }

    /// Goes on with a run that paused for what runs under it asked, if all of that was answered by now. Whoever answers
    /// does this after the answer, and the run's node after the pause: one of them sees both.
    pub async fn go_on_if_answered(self: &Arc<Self>, log: LogId, root: &RunId) {
        for _ in 0..MAX_TRIES {
            match Box::pin(self.try_to_go_on(log, root)).await {
                Ok(()) => return,
                Err(Unsettled::Conflict) => {}
                Err(Unsettled::Duplicate) => return,
                Err(Unsettled::Refused(error)) => {
                    tracing::warn!(run = %root, %error, "a run whose questions are answered does not go on; continue it");
                    return;
                }
            }
        }
    }

    async fn try_to_go_on(self: &Arc<Self>, log: LogId, root: &RunId) -> Result<(), Unsettled> {
        let Some(root) = Standing::read(self, log, root).await? else { return Ok(()) };
        if root.state.status != RunStatus::Paused {
            return Ok(());
        }
        let command =
            CancelRun { component: None, run_id: root.accepted.run_id.clone(), session_id: None, reason: None };
        let envelope = Envelope { log_id: log, ..Envelope::new(Principal::system(), "engine", command) };
        let mode = root.state.mode();
        let settlement = Settlement { mode, ..Settlement::of(self, &envelope, root, Vec::new(), Vec::new()).await? };
        if !settlement.is_open().await? {
            settlement.commit().await?;
        }
        Ok(())
    }
}

fn unsettled(error: AppendError) -> Unsettled {
    match error {
        AppendError::Conflict { .. } | AppendError::LostLease { .. } => Unsettled::Conflict,
        AppendError::Duplicate { same_body: true, .. } => Unsettled::Duplicate,
        AppendError::Duplicate { .. } => Unsettled::Refused(ExecuteError::KeyReused),
        AppendError::Store(error) => error.into(),
    }
}

/// What the log records of where a command came from.
pub(crate) fn meta_of(envelope: &Envelope, now_ms: i64) -> Meta {
    Meta {
        principal: envelope.principal.name.clone(),
        interface: envelope.interface.to_owned(),
        correlation_id: envelope.correlation_id.clone(),
        causation_id: envelope.causation_id.clone(),
        occurred_at_ms: now_ms,
    }
}

/// A query's error, of a command that had to ask.
pub(crate) fn refused(error: QueryError) -> ExecuteError {
    match error {
        QueryError::Store(error) => ExecuteError::Store(error),
        QueryError::MissingConfig(hash) => {
            ExecuteError::Store(StoreError::Invalid(format!("configuration {hash} is not in the log")))
        }
    }
}
