//! Answers to what a paused run asks. They are recorded at once; when nothing is left open, the run goes on in the same
//! append, here or, when this node lacks what it needs, wherever it is claimed. When no living node has that, nothing is
//! recorded.

use std::sync::{Arc, PoisonError};

use daybook_domain::command::Envelope;
use daybook_domain::component::ComponentConfig;
use daybook_domain::event::DomainEvent;
use daybook_domain::ids::{LogId, RunId, StreamId};
use daybook_domain::run::{RunAccepted, RunContinued, RunEvent, RunMode, RunState};
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

/// What is to be recorded.
pub(crate) struct Settlement<'a> {
    pub inner: &'a Arc<Inner>,
    pub envelope: &'a Envelope,
    pub run: Standing,
    /// Answers, each fitting the run.
    pub answers: Vec<RunEvent>,
    /// What happens to approvals in the same append.
    pub beside: Vec<StreamWrite>,
    /// How who answers waits.
    pub mode: RunMode,
    pub key: Option<CommandKey>,
}

impl Settlement<'_> {
    /// Records it.
    pub async fn commit(self) -> Result<Outcome, Unsettled> {
        let mut after = self.run.state.clone();
        self.answers.iter().for_each(|event| after.evolve(event));
        if after.open_requirements().next().is_some() {
            return self.wait_on().await;
        }
        let inner = self.inner;
        let agent = inner.registry().pinned(self.run.config.clone(), &self.run.accepted.config_hash);
        let here = agent.is_whole();
        if here && inner.is_full() {
            return Err(ExecuteError::TooManyRuns(inner.options.max_runs).into());
        }
        if !here && let Some(lacks) = self.lacking_everywhere().await? {
            return Err(ExecuteError::NobodyCan(lacks).into());
        }
        let session = &self.run.accepted.session_id;
        let mut known = inner.sessions.lock(self.envelope.log_id, session).await;
        inner.sessions.refresh(self.envelope.log_id, session, &mut known).await?;
        for _ in 0..MAX_TRIES {
            let (admission, admitted) = known.state.readmit(self.run.accepted.run_id.clone(), inner.now_ms() / 1000);
            let continued = RunEvent::Continued(RunContinued {
                mode: self.mode,
                admission,
                frame: self.run.state.next_frame,
                at_ms: inner.now_ms(),
            });
            let events: Vec<RunEvent> = self.answers.iter().cloned().chain([continued]).collect();
            let session = self.write(StreamId::session(session), Expected::Version(known.version), [admitted.clone()]);
            let append = self.append(&events, vec![session], self.take(&agent, here));
            match inner.store.append(append).await {
                Ok(appended) => {
                    let version = appended.versions.get(1).copied().unwrap_or_default();
                    known.appended([&admitted].into_iter(), version);
                    drop(known);
                    let run_version = appended.versions.first().copied().unwrap_or_default();
                    return Ok(self.go_on(&agent, here, &events, run_version, admission));
                }
                Err(AppendError::Conflict { stream, .. }) if stream.as_session().is_some() => {
                    inner.sessions.refresh(self.envelope.log_id, &self.run.accepted.session_id, &mut known).await?;
                }
                Err(error) => return Err(unsettled(error)),
            }
        }
        Err(ExecuteError::Contended.into())
    }

    /// What every living node lacks to go on with the run; `None` when one can.
    async fn lacking_everywhere(&self) -> Result<Option<String>, StoreError> {
        let config = &self.run.config;
        let tools: Vec<String> = config.tools().iter().map(|tool| tool.name.clone()).collect();
        let component = self.run.accepted.component.to_string();
        let nodes = self.inner.store.living_nodes().await?;
        Ok(lacking(&nodes, &component, config.model().map(|model| model.key.as_str()), &tools))
    }

    /// More is asked: the answers are recorded and the run stays where it is.
    async fn wait_on(self) -> Result<Outcome, Unsettled> {
        let append = self.append(&self.answers, Vec::new(), LeaseOp::None);
        self.inner.store.append(append).await.map_err(unsettled)?;
        let after = self.run.state.paused_frame;
        Ok(Outcome::Continued {
            run_id: self.run.accepted.run_id.clone(),
            session_id: self.run.accepted.session_id.clone(),
            queued: false,
            after,
        })
    }

    fn write<E: Into<DomainEvent>>(
        &self,
        stream: StreamId,
        expected: Expected,
        events: impl IntoIterator<Item = E>,
    ) -> StreamWrite {
        let events = events.into_iter().map(Into::into).collect();
        StreamWrite { stream, expected, subject: Some(self.run.subject()), events }
    }

    fn append(&self, events: &[RunEvent], more: Vec<StreamWrite>, lease: LeaseOp) -> Append {
        let run = StreamId::run(&self.run.accepted.run_id);
        let mut writes = vec![self.write(run, Expected::Version(self.run.version), events.iter().cloned())];
        writes.extend(more);
        writes.extend(self.beside.iter().cloned());
        let meta = meta_of(self.envelope, self.inner.now_ms());
        Append { log_id: self.envelope.log_id, writes, command: self.key.clone(), lease, meta }
    }

    fn take(&self, agent: &Component, here: bool) -> LeaseOp {
        LeaseOp::Take {
            tree: self.run.accepted.run_id.clone(),
            // Nobody has this name, so whoever has what the run needs claims it.
            node: if here { self.inner.node_id.clone() } else { "nobody".to_owned() },
            epoch: self.run.state.epoch.max(1),
            component: self.run.accepted.component.to_string(),
            tools: agent.config.tools().iter().map(|tool| tool.name.clone()).collect(),
        }
    }

    /// It is in the log: from here on it goes by itself.
    fn go_on(
        self,
        agent: &Arc<Component>,
        here: bool,
        events: &[RunEvent],
        version: u64,
        admission: Admission,
    ) -> Outcome {
        let (inner, log) = (self.inner, self.envelope.log_id);
        let (before, run_id) = (self.run.state, self.run.accepted.run_id);
        let outcome = Outcome::Continued {
            run_id: run_id.clone(),
            session_id: self.run.accepted.session_id,
            queued: admission == Admission::Queued,
            after: before.next_frame.checked_sub(1),
        };
        let mut state = before.clone();
        events.iter().for_each(|event| state.evolve(event));
        let Some(meta) = RunMeta::of(&state, &agent.config).filter(|_| here) else { return outcome };
        let hub = Hub::new(Arc::new(meta), before.next_frame, state.keeps_frames());
        for event in events {
            hub.push(state.updated_ms / 1000, frames_of(event, &state).1);
        }
        let live = LiveRun::new(log, state.epoch.max(1), hub);
        inner.runs.lock().unwrap_or_else(PoisonError::into_inner).insert((log, run_id), live.clone());
        inner.frames.soon(&live);
        let epoch = live.epoch;
        let mut driver = Driver::new(inner.clone(), live, agent.clone(), state, version, epoch);
        driver.opened = true;
        inner.spawn(driver.drive_on());
        outcome
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
