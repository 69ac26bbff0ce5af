//! Cancelling: after the answer nothing starts any more, and what was said is kept.

use std::time::Duration;

use daybook_domain::command::{CancelRun, Envelope};
use daybook_domain::event::DomainEvent;
use daybook_domain::ids::StreamId;
use daybook_domain::personal::Personal;
use daybook_domain::run::{CancelRequested, Ending, RunCommand, RunEvent, RunState, RunStatus};
use daybook_store::{Append, AppendError, Expected, LeaseOp, StreamWrite, Subject};

use crate::approvals::cancelled;
use crate::engine::{Engine, Outcome, fold_run};
use crate::error::ExecuteError;
use crate::frame::frames_of;
use crate::plan::{Partial, Planner};
use crate::settle::{meta_of, refused};
use crate::stranded::end_unheld;

/// How long the answer waits for the run's end; the request to cancel is in the log before.
const WAIT: Duration = Duration::from_secs(5);

/// How often a paused run is tried to be ended when others write to it at the same time.
const MAX_TRIES: u32 = 10;

pub(crate) async fn cancel_run(
    engine: &Engine,
    envelope: &Envelope,
    command: CancelRun,
) -> Result<Outcome, ExecuteError> {
    let inner = &engine.inner;
    for _ in 0..MAX_TRIES {
        let (state, version) = fold_run(&inner.store, envelope.log_id, &command.run_id).await.map_err(refused)?;
        if !is_callers(&state, &command) || state.status.is_end() {
            return Ok(Outcome::Cancelled);
        }
        let paused = state.status == RunStatus::Paused;
        let live = inner.live(envelope.log_id, &command.run_id);
        if let Some(live) = &live {
            live.set_closing(true);
        }
        let request = if paused && state.parent().is_none() {
            end_paused(engine, envelope, &command, state.clone(), version).await?
        } else {
            ask(engine, envelope, &command, &state)
        };
        let appended = match request {
            Some(request) => inner.store.append(request).await.map(Some),
            None => Ok(None),
        };
        match appended {
            Ok(_) => {
                if let Some(live) = &live {
                    live.cancelled.cancel();
                }
                let root = state.root().cloned().unwrap_or_else(|| command.run_id.clone());
                if root != command.run_id {
                    inner.stops().get(&(envelope.log_id, command.run_id.clone())).iter().for_each(|stop| stop.cancel());
                    // When its tree waits for nothing else, it goes on, and the run ends with that.
                    inner.go_on_if_answered(envelope.log_id, &root).await;
                } else if live.is_none() && !paused {
                    end_unheld(inner, envelope.log_id, &root).await;
                }
                // The run's end is worth a short wait: the caller then reads the cancelled run.
                let _ = tokio::time::timeout(WAIT, engine.wait(envelope.log_id, &command.run_id)).await;
                return Ok(Outcome::Cancelled);
            }
            Err(AppendError::Conflict { .. }) => continue,
            Err(error) => {
                if let Some(live) = &live {
                    live.set_closing(false);
                }
                return match error {
                    AppendError::Store(error) => Err(error.into()),
                    _ => Ok(Outcome::Cancelled),
                };
            }
        }
    }
    Ok(Outcome::Cancelled)
}

/// Whether the run is the one the caller means; another's run is as good as none.
fn is_callers(state: &RunState, command: &CancelRun) -> bool {
    let Some(accepted) = &state.accepted else { return false };
    command.component.as_ref().is_none_or(|component| *component == accepted.component)
        && command.session_id.as_ref().is_none_or(|session| *session == accepted.session_id)
}

fn requested(envelope: &Envelope, command: &CancelRun, at_ms: i64) -> RunEvent {
    RunEvent::CancelRequested(CancelRequested {
        by: envelope.principal.name.clone(),
        why: Personal::Known(command.reason.clone()),
        at_ms,
    })
}

/// The request to cancel, for the node that runs it; `None` when there was one before.
fn ask(engine: &Engine, envelope: &Envelope, command: &CancelRun, state: &RunState) -> Option<Append> {
    let event = requested(envelope, command, engine.inner.now_ms());
    let events = state.decide(RunCommand(event)).ok().filter(|events| !events.is_empty())?;
    Some(append(engine, envelope, write(state, Expected::Any, events).into_iter().collect()))
}

/// A paused run is on no node: whoever cancels it ends it, and the runs under it with it.
async fn end_paused(
    engine: &Engine,
    envelope: &Envelope,
    command: &CancelRun,
    state: RunState,
    version: u64,
) -> Result<Option<Append>, ExecuteError> {
    let inner = &engine.inner;
    let mut below = inner.open_below(envelope.log_id, &state).await.map_err(refused)?;
    // Those at the bottom end first.
    below.reverse();
    let mut index = below.iter().map(|(run, _)| run.next_frame).fold(state.next_frame, u64::max);
    let mut writes = Vec::new();
    for (run, version) in below.into_iter().chain([(state, version)]) {
        writes.extend(ended(engine, envelope, command, run, version, &mut index).await?);
    }
    Ok(Some(append(engine, envelope, writes)))
}

/// The end of one paused run, whose frames are numbered from `index` on, and what becomes of its approvals.
async fn ended(
    engine: &Engine,
    envelope: &Envelope,
    command: &CancelRun,
    mut state: RunState,
    version: u64,
    index: &mut u64,
) -> Result<Vec<StreamWrite>, ExecuteError> {
    let inner = &engine.inner;
    let Some(accepted) = state.accepted.clone() else { return Ok(Vec::new()) };
    let config = inner.config(envelope.log_id, &accepted.config_hash).await.map_err(refused)?;
    let session_state = inner.sessions.lock(envelope.log_id, &accepted.session_id).await.state.state.clone();
    let now_ms = inner.now_ms();
    let before = state.clone();
    let mut events = Vec::new();
    if state.cancel.is_none() {
        events.push(requested(envelope, command, now_ms));
    }
    events.iter().for_each(|event| state.evolve(event));
    let planner = Planner {
        config: &config,
        now_ms,
        fresh_id: &*inner.ports.ids,
        history: Default::default(),
        granted: false,
        in_flight: &Default::default(),
        waiting: &Default::default(),
        code: None,
        checks: &Default::default(),
        partial: Partial::default(),
        session_state,
    };
    let mut plan = planner.finish(&state, Ending::Cancel);
    for event in &mut plan.events {
        crate::frame::set_frame(event, *index);
        state.evolve(event);
        *index += frames_of(event, &state).1.len() as u64;
    }
    events.append(&mut plan.events);
    // The session let the run go, and counted its tokens, when it paused.
    let mut writes: Vec<StreamWrite> = write(&before, Expected::Version(version), events).into_iter().collect();
    writes.extend(cancelled(inner, envelope.log_id, &before, None).await?);
    Ok(writes)
}

fn write(state: &RunState, expected: Expected, events: Vec<RunEvent>) -> Option<StreamWrite> {
    let accepted = state.accepted.as_ref()?;
    Some(StreamWrite {
        stream: StreamId::run(&accepted.run_id),
        expected,
        subject: Some(Subject { session: accepted.session_id.clone(), user: accepted.user_id.clone() }),
        events: events.into_iter().map(DomainEvent::from).collect(),
    })
}

fn append(engine: &Engine, envelope: &Envelope, writes: Vec<StreamWrite>) -> Append {
    let meta = meta_of(envelope, engine.inner.now_ms());
    Append { log_id: envelope.log_id, writes, command: None, lease: LeaseOp::None, meta }
}
