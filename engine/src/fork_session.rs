//! Copying a session: its ended runs under new ids in a new session, which then goes its own way.

use std::collections::{HashMap, HashSet};

use daybook_domain::command::{Envelope, ForkSession};
use daybook_domain::event::DomainEvent;
use daybook_domain::ids::{LogId, RunId, SessionId, StreamId};
use daybook_domain::long_result::WholeResult;
use daybook_domain::media::{Media, MediaContent};
use daybook_domain::personal::Personal;
use daybook_domain::run::{RunAccepted, RunEvent, RunState};
use daybook_domain::session::{
    Admission, SessionCompacted, SessionCreated, SessionEvent, SessionRunAdmitted, SessionRunEnded, SessionState,
    SessionStateChanged, StatePatch,
};
use daybook_domain::workflow::{Ask, Place};
use daybook_store::{Append, AppendError, Expected, LeaseOp, StreamWrite, Subject};

use crate::engine::{Engine, Inner, Outcome};
use crate::error::ExecuteError;
use crate::settle::meta_of;

/// The most runs of a session that is copied: each is read and written once more.
const MAX_RUNS: usize = 1_000;

pub(crate) async fn fork_session(
    engine: &Engine,
    envelope: &Envelope,
    command: ForkSession,
) -> Result<Outcome, ExecuteError> {
    let inner = &engine.inner;
    let log = envelope.log_id;
    let source = read_session(inner, log, &command).await?;
    let (session, runs) = (&source.session, &source.runs);
    if runs.is_empty() {
        return Err(ExecuteError::CannotContinue("Source session has no runs to fork.".to_owned()));
    }
    if runs.len() > MAX_RUNS {
        let why = format!("the session has {} runs; one of at most {MAX_RUNS} can be copied", runs.len());
        return Err(ExecuteError::CannotContinue(why));
    }
    let copy = SessionId::from((inner.ports.ids)());
    let subject = Subject { session: copy.clone(), user: session.user_id.clone() };
    let names: HashMap<RunId, RunId> = runs.iter().map(|run| (run.clone(), RunId::from((inner.ports.ids)()))).collect();
    let mut copies = Copies {
        inner,
        log,
        session: &command.session_id,
        subject: &subject,
        names,
        steps: HashMap::new(),
        summaries: source.places(),
    };
    let mut ended = HashMap::new();
    for run in runs {
        let Copy { name, events, state, mut below } = copies.run(run).await?;
        if !state.status.is_end() {
            continue;
        }
        append(inner, envelope, StreamId::run(&name), &subject, events.into_iter().map(DomainEvent::from)).await?;
        ended.insert(run.clone(), (name, state));
        while let Some(child) = below.pop() {
            let Copy { name, events, below: more, .. } = copies.run(&child).await?;
            below.extend(more);
            if !events.is_empty() {
                let events = events.into_iter().map(DomainEvent::from);
                append(inner, envelope, StreamId::run(&name), &subject, events).await?;
            }
        }
    }
    // Last, so that a copy is there whole or not at all.
    let events = source.copied(&copies, &copy, &ended, inner.now_ms() / 1000);
    append(inner, envelope, StreamId::session(&copy), &subject, events.into_iter().map(DomainEvent::from)).await?;
    Ok(Outcome::Forked { session_id: copy })
}

/// The session that is copied.
#[derive(Default)]
struct Source {
    session: SessionState,
    /// Its runs, in the order they were let in.
    runs: Vec<RunId>,
    /// What the copy's stream has too, in its order.
    kept: Vec<Kept>,
}

/// What a copy has of a session's stream.
enum Kept {
    /// A run ended.
    Ended(RunId),
    /// Runs were summarised.
    Compacted(Box<SessionCompacted>),
}

impl Kept {
    fn run(&self) -> Option<&RunId> {
        match self {
            Self::Ended(run) => Some(run),
            Self::Compacted(_) => None,
        }
    }

    /// How many events it is in the copy's stream.
    fn events(&self) -> u64 {
        match self {
            // As in `ran`.
            Self::Ended(_) => 2,
            Self::Compacted(_) => 1,
        }
    }
}

async fn read_session(inner: &Inner, log: LogId, command: &ForkSession) -> Result<Source, ExecuteError> {
    let mut source = Source::default();
    for recorded in inner.store.read_stream(log, &StreamId::session(&command.session_id), 0).await? {
        let DomainEvent::Session(event) = recorded.event else { continue };
        source.session.evolve(&event);
        match event {
            SessionEvent::RunAdmitted(admitted) if !admitted.again => source.runs.push(admitted.run_id),
            SessionEvent::RunEnded(ended) if ended.status.is_end() => source.kept.push(Kept::Ended(ended.run_id)),
            SessionEvent::Compacted(compacted) => source.kept.push(Kept::Compacted(Box::new(compacted))),
            _ => {}
        }
    }
    let session = &source.session;
    let owned = session.user_id.is_none() || session.user_id == command.user_id;
    let known = session.component.as_ref().is_none_or(|component| *component == command.component);
    if session.exists() && owned && known { Ok(source) } else { Err(ExecuteError::UnknownSession) }
}

impl Source {
    /// The ended runs whose ends are not in the session's stream: they were paused and then ended without going on, or
    /// ended just now.
    fn others<'a>(&'a self, ended: &'a HashMap<RunId, (RunId, RunState)>) -> impl Iterator<Item = &'a RunId> {
        let told: HashSet<&RunId> = self.kept.iter().filter_map(Kept::run).collect();
        self.runs.iter().filter(move |run| ended.contains_key(*run) && !told.contains(run))
    }

    /// The summaries' versions in the copy's stream, by those they have here.
    fn places(&self) -> HashMap<u64, u64> {
        // The first event is the copy's creation.
        let (mut version, mut places) = (1, HashMap::new());
        for kept in &self.kept {
            version += kept.events();
            if let Kept::Compacted(compacted) = kept {
                places.insert(compacted.version, version);
            }
        }
        places
    }

    fn copied(
        &self,
        copies: &Copies<'_>,
        copy: &SessionId,
        ended: &HashMap<RunId, (RunId, RunState)>,
        at: i64,
    ) -> Vec<SessionEvent> {
        let session = &self.session;
        let mut events = vec![SessionEvent::Created(SessionCreated {
            session_id: copy.clone(),
            user_id: session.user_id.clone(),
            component: session.component.clone(),
            name: session.name.clone().into(),
            metadata: session.metadata.clone().into(),
            at,
        })];
        let run = |run: &RunId| ended.get(run).into_iter().flat_map(move |(name, state)| ran(name, state, at));
        for kept in &self.kept {
            match kept {
                Kept::Ended(id) => events.extend(run(id)),
                Kept::Compacted(compacted) => events.push(SessionEvent::Compacted(copies.summary(compacted))),
            }
        }
        events.extend(self.others(ended).flat_map(run));
        let patch = StatePatch { set: session.state.clone(), unset: Vec::new() };
        if !patch.is_empty() {
            events.push(SessionEvent::StateChanged(SessionStateChanged { run_id: None, patch: patch.into(), at }));
        }
        events
    }
}

/// What the copy's stream tells of a run.
fn ran(run_id: &RunId, state: &RunState, at: i64) -> [SessionEvent; 2] {
    let (run_id, admission, again) = (run_id.clone(), Admission::Active, false);
    let admitted = SessionRunAdmitted { run_id: run_id.clone(), admission, again, at };
    let (status, usage, model, others) = (state.status, state.usage, None, state.spent.clone());
    let ended = SessionRunEnded { run_id, status, usage, model, others, at };
    [SessionEvent::RunAdmitted(admitted), SessionEvent::RunEnded(ended)]
}

/// A run under its new name.
struct Copy {
    name: RunId,
    events: Vec<RunEvent>,
    state: RunState,
    /// The runs under it, by their old names.
    below: Vec<RunId>,
}

/// Makes the copies of what a session has.
struct Copies<'a> {
    inner: &'a Inner,
    log: LogId,
    session: &'a SessionId,
    subject: &'a Subject,
    /// The copies' names, by the runs'.
    names: HashMap<RunId, RunId>,
    /// The ids of the copies' steps, by the steps' ids.
    steps: HashMap<String, String>,
    /// The versions of the copied summaries, by the summaries'.
    summaries: HashMap<u64, u64>,
}

impl Copies<'_> {
    /// The events of a run under its new name, and their fold.
    async fn run(&mut self, run: &RunId) -> Result<Copy, ExecuteError> {
        let blobs = Blobs { inner: self.inner, log: self.log, session: self.session, subject: self.subject };
        let name = self.name(run);
        let (mut events, mut state, mut below) = (Vec::new(), RunState::default(), Vec::new());
        for recorded in self.inner.store.read_stream(self.log, &StreamId::run(run), 0).await? {
            let DomainEvent::Run(mut event) = recorded.event else { continue };
            for child in event.children_mut() {
                below.push(child.run_id.clone());
                let fresh = || RunId::from((self.inner.ports.ids)());
                child.run_id = self.names.entry(child.run_id.clone()).or_insert_with(fresh).clone();
            }
            let event = match event {
                RunEvent::Accepted(mut accepted) => {
                    if let Some(parent) = &mut accepted.parent {
                        let of_step = parent.step.as_ref().is_some_and(|step| step.workflow_run_id == parent.run_id);
                        (parent.run_id, parent.root) = (self.name(&parent.run_id), self.name(&parent.root));
                        if let Some(step) = &mut parent.step {
                            // A step's id is made of its run's.
                            step.workflow_run_id = self.name(&step.workflow_run_id);
                            if of_step {
                                let id = Place::recorded(parent.cause.clone()).step_id(&step.workflow_run_id);
                                self.steps.insert(step.step_id.clone(), id);
                            }
                            step.step_id = self.steps.get(&step.step_id).unwrap_or(&step.step_id).clone();
                        }
                    }
                    RunEvent::Accepted(Box::new(renamed(&blobs, &name, *accepted).await?))
                }
                RunEvent::ModelCallRequested(mut requested) => {
                    requested.history.iter_mut().for_each(|run| *run = self.name(run));
                    requested.summary = requested.summary.map(|version| self.place(version));
                    RunEvent::ModelCallRequested(requested)
                }
                RunEvent::ToolCallCompleted(mut completed) => {
                    if let Personal::Known(Some(media)) = &mut completed.media {
                        blobs.copy(media).await?;
                    }
                    blobs.copy_whole(completed.whole.get().and_then(Option::as_ref)).await?;
                    RunEvent::ToolCallCompleted(completed)
                }
                RunEvent::ToolCallFailed(failed) => {
                    blobs.copy_whole(failed.whole.get().and_then(Option::as_ref)).await?;
                    RunEvent::ToolCallFailed(failed)
                }
                RunEvent::Paused(mut paused) => {
                    for asked in &mut paused.steps {
                        if let Ask::Executor { child, .. } = &mut asked.ask {
                            child.run_id = self.name(&child.run_id);
                        }
                    }
                    RunEvent::Paused(paused)
                }
                other => other,
            };
            state.evolve(&event);
            events.push(event);
        }
        Ok(Copy { name, events, state, below })
    }

    /// A run that is not of the session keeps its name.
    fn name(&self, run: &RunId) -> RunId {
        self.names.get(run).unwrap_or(run).clone()
    }

    fn place(&self, version: u64) -> u64 {
        self.summaries.get(&version).copied().unwrap_or(version)
    }

    fn summary(&self, compacted: &SessionCompacted) -> SessionCompacted {
        SessionCompacted {
            version: self.place(compacted.version),
            previous: compacted.previous.map(|version| self.place(version)),
            runs: compacted.runs.iter().map(|run| self.name(run)).collect(),
            ..compacted.clone()
        }
    }
}

async fn renamed(blobs: &Blobs<'_>, name: &RunId, mut accepted: RunAccepted) -> Result<RunAccepted, ExecuteError> {
    if let Personal::Known(media) = &mut accepted.media {
        blobs.copy(media).await?;
    }
    if let Personal::Known(Some(messages)) = &mut accepted.base {
        for message in messages {
            blobs.copy(&mut message.media).await?;
            blobs.copy_whole(message.whole.as_ref()).await?;
        }
    }
    Ok(RunAccepted {
        run_id: name.clone(),
        session_id: blobs.subject.session.clone(),
        // A copy of a copy names the session that the run was first of.
        copied_from: Some(accepted.copied_from.clone().unwrap_or_else(|| blobs.session.clone())),
        ..accepted
    })
}

/// Bytes belong to their session: a copy gets its own.
struct Blobs<'a> {
    inner: &'a Inner,
    log: LogId,
    session: &'a SessionId,
    subject: &'a Subject,
}

impl Blobs<'_> {
    async fn copy(&self, media: &mut [Media]) -> Result<(), ExecuteError> {
        let store = &self.inner.store;
        for item in media {
            if let MediaContent::Blob { hash, .. } = &mut item.content
                && let Some(bytes) = store.get_blob(self.log, self.session, hash).await?
            {
                *hash = store.put_blob(self.log, self.subject, &bytes).await?;
            }
        }
        Ok(())
    }

    /// Bytes have the same name in every session.
    async fn copy_whole(&self, result: Option<&WholeResult>) -> Result<(), ExecuteError> {
        let (store, Some(result)) = (&self.inner.store, result) else { return Ok(()) };
        if let Some(bytes) = store.get_blob(self.log, self.session, &result.hash).await? {
            store.put_blob(self.log, self.subject, &bytes).await?;
        }
        Ok(())
    }
}

async fn append(
    inner: &Inner,
    envelope: &Envelope,
    stream: StreamId,
    subject: &Subject,
    events: impl Iterator<Item = DomainEvent>,
) -> Result<(), ExecuteError> {
    let write = StreamWrite {
        stream,
        expected: Expected::Version(0),
        subject: Some(subject.clone()),
        events: events.collect(),
    };
    let meta = meta_of(envelope, inner.now_ms());
    let request = Append { log_id: envelope.log_id, writes: vec![write], command: None, lease: LeaseOp::None, meta };
    match inner.store.append(request).await {
        Ok(_) => Ok(()),
        Err(AppendError::Store(error)) => Err(error.into()),
        Err(_) => Err(ExecuteError::Contended),
    }
}
