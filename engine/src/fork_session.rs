//! Copying a session: its ended runs under new ids in a new session, which then goes its own way.

use std::collections::HashMap;

use daybook_domain::command::{Envelope, ForkSession};
use daybook_domain::event::DomainEvent;
use daybook_domain::ids::{LogId, RunId, SessionId, StreamId};
use daybook_domain::long_result::WholeResult;
use daybook_domain::media::{Media, MediaContent};
use daybook_domain::personal::Personal;
use daybook_domain::run::{RunAccepted, RunEvent, RunState};
use daybook_domain::session::{
    Admission, SessionCreated, SessionEvent, SessionRunAdmitted, SessionRunEnded, SessionState, SessionStateChanged,
    StatePatch,
};
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
    let (session, runs) = read_session(inner, log, &command).await?;
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
    let mut ended = Vec::new();
    for run in &runs {
        let Some(name) = names.get(run) else { continue };
        let Some((events, state)) = copied(inner, log, &command.session_id, &subject, (run, name), &names).await?
        else {
            continue;
        };
        append(inner, envelope, StreamId::run(name), &subject, events.into_iter().map(DomainEvent::from)).await?;
        ended.push((name.clone(), state));
    }
    // Last, so that a copy is there whole or not at all.
    let events = session_events(&session, &copy, &ended, inner.now_ms() / 1000);
    append(inner, envelope, StreamId::session(&copy), &subject, events.into_iter().map(DomainEvent::from)).await?;
    Ok(Outcome::Forked { session_id: copy })
}

async fn read_session(
    inner: &Inner,
    log: LogId,
    command: &ForkSession,
) -> Result<(SessionState, Vec<RunId>), ExecuteError> {
    let (mut session, mut runs) = (SessionState::default(), Vec::new());
    for recorded in inner.store.read_stream(log, &StreamId::session(&command.session_id), 0).await? {
        let DomainEvent::Session(event) = recorded.event else { continue };
        if let SessionEvent::RunAdmitted(admitted) = &event
            && !admitted.again
        {
            runs.push(admitted.run_id.clone());
        }
        session.evolve(&event);
    }
    let owned = session.user_id.is_none() || session.user_id == command.user_id;
    let known = session.component.as_ref().is_none_or(|component| *component == command.component);
    if session.exists() && owned && known { Ok((session, runs)) } else { Err(ExecuteError::UnknownSession) }
}

/// The events of a run under its new name; `None` when it has not ended.
async fn copied(
    inner: &Inner,
    log: LogId,
    session: &SessionId,
    subject: &Subject,
    (run, name): (&RunId, &RunId),
    names: &HashMap<RunId, RunId>,
) -> Result<Option<(Vec<RunEvent>, RunState)>, ExecuteError> {
    let blobs = Blobs { inner, log, session, subject };
    let (mut events, mut state) = (Vec::new(), RunState::default());
    for recorded in inner.store.read_stream(log, &StreamId::run(run), 0).await? {
        let DomainEvent::Run(event) = recorded.event else { continue };
        let event = match event {
            RunEvent::Accepted(accepted) => RunEvent::Accepted(renamed(&blobs, name, accepted).await?),
            RunEvent::ModelCallRequested(mut requested) => {
                requested.history.iter_mut().for_each(|run| {
                    if let Some(name) = names.get(run) {
                        run.clone_from(name);
                    }
                });
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
            other => other,
        };
        state.evolve(&event);
        events.push(event);
    }
    Ok(state.status.is_end().then_some((events, state)))
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

fn session_events(session: &SessionState, copy: &SessionId, runs: &[(RunId, RunState)], at: i64) -> Vec<SessionEvent> {
    let mut events = vec![SessionEvent::Created(SessionCreated {
        session_id: copy.clone(),
        user_id: session.user_id.clone(),
        component: session.component.clone(),
        name: session.name.clone().into(),
        metadata: session.metadata.clone().into(),
        at,
    })];
    for (run_id, state) in runs {
        let (run_id, admission, again) = (run_id.clone(), Admission::Active, false);
        events.push(SessionEvent::RunAdmitted(SessionRunAdmitted { run_id: run_id.clone(), admission, again, at }));
        let (status, usage, model) = (state.status, state.usage, None);
        events.push(SessionEvent::RunEnded(SessionRunEnded { run_id, status, usage, model, at }));
    }
    let patch = StatePatch { set: session.state.clone(), unset: Vec::new() };
    if !patch.is_empty() {
        events.push(SessionEvent::StateChanged(SessionStateChanged { run_id: None, patch: patch.into(), at }));
    }
    events
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
