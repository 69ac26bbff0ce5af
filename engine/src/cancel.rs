//! Cancelling: after the answer nothing starts any more, and what was said is kept.

use std::time::Duration;

use daybook_domain::command::{CancelRun, Envelope};
use daybook_domain::event::DomainEvent;
use daybook_domain::ids::StreamId;
use daybook_domain::personal::Personal;
use daybook_domain::run::{CancelRequested, RunCommand, RunEvent, RunState, RunStatus};
use daybook_store::{Append, AppendError, Expected, LeaseOp, StreamWrite, Subject};

use crate::approvals::cancelled;
use crate::engine::{Engine, Outcome, fold_run};
use crate::error::ExecuteError;
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
        let request = if paused {
            end_paused(engine, envelope, &command, state, version).await?
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
                if live.is_none() && !paused {
                    end_unheld(inner, envelope.log_id, &command.run_id).await;
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
    Some(append(engine, envelope, state, Expected::Any, events))
}

/// A paused run is on no node: whoever cancels it ends it.
async fn end_paused(
    engine: &Engine,
    envelope: &Envelope,
    command: &CancelRun,
    mut state: RunState,
    version: u64,
) -> Result<Option<Append>, ExecuteError> {
    let inner = &engine.inner;
    let Some(accepted) = state.accepted.clone() else { return Ok(None) };
    let config = inner.config(envelope.log_id, &accepted.config_hash).await.map_err(refused)?;
    let session_state = inner.sessions.lock(envelope.log_id, &accepted.session_id).await.state.state.clone();
    let now_ms = inner.now_ms();
    let before = state.clone();
    let mut events = vec![requested(envelope, command, now_ms)];
    events.iter().for_each(|event| state.evolve(event));
    let planner = Planner {
        config: &config,
        now_ms,
        fresh_id: &*inner.ports.ids,
        history: Default::default(),
        granted: false,
        in_flight: &Default::default(),
        checks: &Default::default(),
        partial: Partial::default(),
        session_state,
    };
    let mut plan = planner.plan(&state)?;
    plan.events.iter_mut().for_each(|event| crate::frame::set_frame(event, before.next_frame));
    events.append(&mut plan.events);
    // The session let the run go, and counted its tokens, when it paused.
    let mut request = append(engine, envelope, &before, Expected::Version(version), events);
    request.writes.extend(cancelled(inner, envelope.log_id, &before, None).await?);
    Ok(Some(request))
}

fn append(engine: &Engine, envelope: &Envelope, state: &RunState, expected: Expected, events: Vec<RunEvent>) -> Append {
    let mut writes = Vec::new();
    if let Some(accepted) = &state.accepted {
        let subject = Subject { session: accepted.session_id.clone(), user: accepted.user_id.clone() };
        writes.push(StreamWrite {
            stream: StreamId::run(&accepted.run_id),
            expected,
            subject: Some(subject),
            events: events.into_iter().map(DomainEvent::from).collect(),
        });
    }
    Append {
        log_id: envelope.log_id,
        writes,
        command: None,
        lease: LeaseOp::None,
        meta: meta_of(envelope, engine.inner.now_ms()),
    }
}
