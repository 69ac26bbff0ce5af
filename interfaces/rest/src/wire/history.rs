//! The events of runs that were streamed, without their text pieces: from the log for one run, from the fold for lists.

use std::sync::Arc;

use daybook_domain::DomainEvent;
use daybook_domain::message::Role;
use daybook_domain::run::{
    ErrorKind, RunCancelled, RunEvent, RunFailed, RunPaused, RunStage, RunState, RunStatus, RunSucceeded, ToolOutcome,
};
use daybook_engine::{FrameBody, RunMeta, frames_of};
use daybook_store::Recorded;
use serde_json::Value;

use super::events::Event;

/// Whether a run's events are shown: it was streamed, and is not going on.
pub(crate) fn shows_events(state: &RunState) -> bool {
    state.keeps_frames() && (state.status.is_end() || state.status == RunStatus::Paused)
}

/// The events as they were streamed, with their indices.
pub(crate) fn events_from_log(recorded: &[Recorded], meta: &Arc<RunMeta>) -> Vec<Value> {
    let (mut state, mut events) = (RunState::default(), Vec::new());
    for recorded in recorded {
        let DomainEvent::Run(event) = &recorded.event else { continue };
        state.evolve(event);
        let (first, bodies) = frames_of(event, &state);
        let at = state.updated_ms / 1000;
        events.extend(
            bodies.iter().zip(first..).map(|(body, index)| Event { index: Some(index), at, run: meta, body }.value()),
        );
    }
    events
}

/// The events as far as the fold knows them: without indices, restarts, and times finer than those of messages.
pub(crate) fn events_from_fold(state: &RunState, meta: &RunMeta) -> Vec<Value> {
    let mut told = Told { meta, at: state.accepted.as_ref().map_or(0, |run| run.at_ms / 1000), events: Vec::new() };
    told.say(if state.base > 0 { &FrameBody::Continued } else { &FrameBody::RunStarted });
    for message in state.own_messages() {
        match message.role {
            Role::System | Role::User => {}
            Role::Assistant => {
                told.say(&FrameBody::ModelRequestStarted);
                told.at = message.created_at;
                let metrics = message.metrics.clone().unwrap_or_default();
                told.say(&FrameBody::ModelRequestCompleted { metrics });
                message.tool_calls.iter().for_each(|call| told.call(state, &call.id, false));
            }
            Role::Tool => {
                told.at = message.created_at;
                message.answers.iter().for_each(|answered| told.call(state, &answered.call_id, true));
            }
        }
    }
    // A call that gave no message was cut off or failed.
    let cut_off = state.messages.last().is_some_and(|last| last.role != Role::Assistant);
    if cut_off && state.status != RunStatus::Paused {
        told.say(&FrameBody::ModelRequestStarted);
    }
    told.at = state.updated_ms / 1000;
    last_event(state).iter().flat_map(|last| frames_of(last, state).1).for_each(|body| told.say(&body));
    told.events
}

struct Told<'a> {
    meta: &'a RunMeta,
    at: i64,
    events: Vec<Value>,
}

impl Told<'_> {
    fn say(&mut self, body: &FrameBody) {
        self.events.push(Event { index: None, at: self.at, run: self.meta, body }.value());
    }

    fn call(&mut self, state: &RunState, id: &str, ended: bool) {
        let Some(record) = state.tools.iter().find(|tool| tool.call.id == id && tool.attempts > 0) else { return };
        let mut tool = Box::new(record.clone());
        if !ended {
            tool.outcome = None;
            return self.say(&FrameBody::ToolCallStarted { tool });
        }
        let failure = match &tool.outcome {
            Some(ToolOutcome::Failed(error)) => Some(error.clone()),
            _ => None,
        };
        self.say(&FrameBody::ToolCallCompleted { tool: tool.clone() });
        if let Some(error) = failure {
            self.say(&FrameBody::ToolCallError { tool, error });
        }
    }
}

/// The event that brought the run where it is.
fn last_event(state: &RunState) -> Option<RunEvent> {
    let (duration, at_ms, frame) = (state.duration.unwrap_or_default(), state.updated_ms, 0);
    let session_state = state.session_state.clone().unwrap_or_default().into();
    Some(match state.status {
        RunStatus::Completed | RunStatus::Regenerated => {
            RunEvent::Succeeded(RunSucceeded { session_state, duration, frame, at_ms })
        }
        RunStatus::Error => {
            let (error, message) = state.error.clone().unwrap_or((ErrorKind::InternalError, String::new()));
            RunEvent::Failed(RunFailed { error, message: message.into(), session_state, duration, frame, at_ms })
        }
        RunStatus::Cancelled => RunEvent::Cancelled(RunCancelled {
            provider_data: None,
            time_to_first_token: None,
            reason: state.cancel_reason.clone().unwrap_or_default().into(),
            stage: state.cancel_stage.unwrap_or(RunStage::Executing),
            partial: state.partial.clone().into(),
            session_state,
            duration,
            frame,
            at_ms,
        }),
        RunStatus::Paused => {
            RunEvent::Paused(RunPaused { requirements: state.requirements.clone(), frame, at_ms, members: None.into() })
        }
        RunStatus::Pending | RunStatus::Running => return None,
    })
}
