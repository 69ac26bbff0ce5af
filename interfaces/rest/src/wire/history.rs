//! The events of runs that were streamed, without their text pieces: from the log for one run, from the fold for lists.

use daybook_domain::DomainEvent;
use daybook_domain::message::Role;
use daybook_domain::run::{
    ErrorKind, MemberAsk, RunCancelled, RunEvent, RunFailed, RunPaused, RunStage, RunState, RunStatus, RunSucceeded,
    ToolOutcome,
};
use daybook_engine::{FrameBody, RunDetail, RunMeta, frames_of};
use daybook_store::Recorded;
use serde_json::Value;

use super::events::Event;
use super::{flow_history, pause};

/// Whether a run's events are shown: it was streamed, and is not going on.
pub(crate) fn shows_events(state: &RunState) -> bool {
    state.keeps_frames() && (state.status.is_end() || state.status == RunStatus::Paused)
}

/// The events of a run's own as they were streamed, each with its index.
pub(crate) fn events_from_log(recorded: &[Recorded], meta: &RunMeta, children: &[RunDetail]) -> Vec<(u64, Value)> {
    let (mut state, mut events) = (RunState::default(), Vec::new());
    for recorded in recorded {
        let DomainEvent::Run(event) = &recorded.event else { continue };
        state.evolve(event);
        let (first, bodies) = frames_of(event, &state);
        let at = state.updated_ms / 1000;
        for (mut body, index) in bodies.into_iter().zip(first..).filter(|(body, _)| !is_text(body)) {
            with_children(&mut body, children);
            events.push((index, Event { index: Some(index), at, run: meta, body: &body }.value()));
        }
    }
    events
}

fn is_text(body: &FrameBody) -> bool {
    matches!(body, FrameBody::Content { .. })
}

/// What a run tells last tells of the runs under it.
fn with_children(body: &mut FrameBody, children: &[RunDetail]) {
    if let FrameBody::Completed(end) = body {
        end.children = children.to_vec();
    }
}

/// The events of a run and those under it as far as their folds know them: without indices, restarts, and times finer
/// than those of messages.
pub(crate) fn events_from_fold(detail: &RunDetail) -> Vec<Value> {
    let Some(meta) = RunMeta::of(&detail.state, &detail.config) else { return Vec::new() };
    let at = detail.state.accepted.as_ref().map_or(0, |run| run.at_ms / 1000);
    let mut told = Told { meta: &meta, children: &detail.children, at, events: Vec::new() };
    if detail.state.is_flow() {
        told.steps(detail);
    } else {
        told.messages(&detail.state);
    }
    told.last(&detail.state, &pause::asks_below(detail));
    told.events
}

struct Told<'a> {
    meta: &'a RunMeta,
    children: &'a [RunDetail],
    at: i64,
    events: Vec<Value>,
}

impl Told<'_> {
    /// What the steps of a workflow did.
    fn steps(&mut self, detail: &RunDetail) {
        self.say(&FrameBody::RunStarted);
        for told in flow_history::steps(detail) {
            match told {
                flow_history::Told::Own(body) => self.say(&body),
                flow_history::Told::Below(run) => self.events.extend(events_from_fold(run)),
            }
        }
    }

    /// What the model said, and what its calls did.
    fn messages(&mut self, state: &RunState) {
        self.say(if state.base > 0 { &FrameBody::Continued } else { &FrameBody::RunStarted });
        for message in state.own_messages() {
            match message.role {
                Role::System | Role::User => {}
                Role::Assistant => {
                    self.say(&FrameBody::ModelRequestStarted);
                    self.at = message.created_at;
                    self.text(message.content.as_ref());
                    let metrics = message.metrics.clone().unwrap_or_default();
                    self.say(&FrameBody::ModelRequestCompleted { metrics });
                    message.tool_calls.iter().for_each(|call| self.call(state, &call.id, false));
                }
                Role::Tool => {
                    self.at = message.created_at;
                    message.answers.iter().for_each(|answered| self.call(state, &answered.call_id, true));
                }
            }
        }
        // A call that gave no message was cut off or failed.
        let cut_off = state.messages.last().is_some_and(|last| last.role != Role::Assistant);
        if cut_off && state.status != RunStatus::Paused {
            self.say(&FrameBody::ModelRequestStarted);
        }
    }

    /// How it stands; `asks` is what the runs under it wait for.
    fn last(&mut self, state: &RunState, asks: &[MemberAsk]) {
        self.at = state.updated_ms / 1000;
        for mut body in last_event(state, asks).iter().flat_map(|last| frames_of(last, state).1) {
            with_children(&mut body, self.children);
            self.say(&body);
        }
    }

    /// What a step's model said, in one piece: clients find it among the events of a workflow.
    fn text(&mut self, text: Option<&String>) {
        let step = self.meta.parent.as_ref().is_some_and(|parent| parent.step.is_some());
        if let Some(text) = text.filter(|text| step && !text.is_empty()) {
            self.say(&FrameBody::Content { text: Some(text.clone()), reasoning: None, provider_data: None });
        }
    }

    fn say(&mut self, body: &FrameBody) {
        self.events.push(Event { index: None, at: self.at, run: self.meta, body }.value());
    }

    fn call(&mut self, state: &RunState, id: &str, ended: bool) {
        let Some(record) = state.tools.iter().find(|tool| tool.call.id == id && tool.attempts > 0) else { return };
        let mut tool = Box::new(record.clone());
        if !ended {
            tool.outcome = None;
            let children = tool.children.clone();
            self.say(&FrameBody::ToolCallStarted { tool });
            let of_call = |child: &&RunDetail| children.iter().any(|known| child.state.run_id() == Some(&known.run_id));
            return self.events.extend(self.children.iter().filter(of_call).flat_map(events_from_fold));
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
fn last_event(state: &RunState, asks: &[MemberAsk]) -> Option<RunEvent> {
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
        RunStatus::Paused => RunEvent::Paused(RunPaused {
            requirements: state.requirements.clone(),
            frame,
            at_ms,
            members: Some(asks.to_vec()).filter(|asks| !asks.is_empty()).into(),
            steps: state.flow.iter().flat_map(|flow| flow.open()).map(|(asked, _)| asked.clone()).collect(),
        }),
        RunStatus::Pending | RunStatus::Running => return None,
    })
}
