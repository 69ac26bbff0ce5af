//! The fold of a run's stream.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use uuid::Uuid;

use super::command::{RunCommand, RunError, RunMode};
use super::event::{ErrorKind, ModelCallCompleted, ModelCallRequested, RunAccepted, RunEvent};
use super::pauses::{CancelRequested, RunContinued, RunStage};
use super::requirement::Requirement;
use super::task::Task;
use super::tools::{Attached, ToolOutcome, ToolRecord};
use crate::component::{ComponentKind, ComponentRef};
use crate::ids::{RunId, SessionId, UserId};
use crate::message::{CallMetrics, Message, Role, ToolCall};
use crate::session::Admission;
use crate::usage::{Spent, Usage};
use crate::workflow::FlowState;

/// The states of a run, with their names on the wire.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum RunStatus {
    /// It waits in its session's queue.
    #[default]
    Pending,
    /// It runs.
    Running,
    /// It waits for a person.
    Paused,
    /// It ended well.
    Completed,
    /// It ended with an error.
    Error,
    /// It was stopped.
    Cancelled,
    /// It ended well, and another run took its place in the conversation.
    Regenerated,
}

impl RunStatus {
    /// The status on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "PENDING",
            Self::Running => "RUNNING",
            Self::Paused => "PAUSED",
            Self::Completed => "COMPLETED",
            Self::Error => "ERROR",
            Self::Cancelled => "CANCELLED",
            Self::Regenerated => "REGENERATED",
        }
    }

    /// Whether nothing more happens to the run.
    pub fn is_end(self) -> bool {
        matches!(self, Self::Completed | Self::Error | Self::Cancelled | Self::Regenerated)
    }
}

/// A model call that has no outcome yet.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OpenModelCall {
    /// Its id.
    pub call_id: String,
    /// Its attempt.
    pub attempt: u32,
}

/// The fold of a run's stream.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RunState {
    /// The acceptance, once there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub accepted: Option<RunAccepted>,
    /// Where it stands.
    pub status: RunStatus,
    /// The version of the session's event whose summary the model sees first; fixed by the first model call.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub summary: Option<u64>,
    /// Earlier runs whose messages the model sees, oldest first; fixed by the first model call.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<RunId>,
    /// This run's messages: the person's, then the model's and the tools' in order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub messages: Vec<Message>,
    /// How many of them are another run's, which this one goes on from.
    #[serde(skip_serializing_if = "is_zero")]
    pub base: usize,
    /// All tool calls, in order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tools: Vec<ToolRecord>,
    /// How many model calls were asked for, attempts not counted.
    pub iterations: u32,
    /// The model call without outcome.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub open_call: Option<OpenModelCall>,
    /// What ends the run with an error: the failure of its last model call, or of something it cannot do without.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<(ErrorKind, String)>,
    /// Whether what a tool said is the run's answer.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub answered: bool,
    /// The tasks of a team's list.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tasks: Vec<Task>,
    /// Where the steps of a workflow stand, once one was reached.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flow: Option<Box<FlowState>>,
    /// The request to stop.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cancel: Option<CancelRequested>,
    /// What was asked of a person, answered or not; see [`RunState::open_requirements`].
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub requirements: Vec<Requirement>,
    /// What ended it badly, for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<(ErrorKind, String)>,
    /// Why it was cancelled, for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cancel_reason: Option<String>,
    /// How far it was when cancelled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cancel_stage: Option<RunStage>,
    /// What the model had said when it was cut off.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub partial: Option<String>,
    /// What its model calls cost.
    pub usage: Usage,
    /// How much of that its session was told when it paused.
    #[serde(skip_serializing_if = "Usage::is_zero")]
    pub counted: Usage,
    /// What its child runs cost.
    #[serde(skip_serializing_if = "Spent::is_empty")]
    pub spent: Spent,
    /// How much of that its session was told when it paused.
    #[serde(skip_serializing_if = "Spent::is_empty")]
    pub counted_spent: Spent,
    /// How it went on after its last pause.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub continued: Option<RunContinued>,
    /// The index of the first frame of its last pause.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub paused_frame: Option<u64>,
    /// The run that took its place.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replaced_by: Option<RunId>,
    /// Seconds to the first token of the first model call that had one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time_to_first_token: Option<f64>,
    /// What the provider told about the last response.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub provider_data: Option<Value>,
    /// The session's state when the run ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session_state: Option<Map<String, Value>>,
    /// Seconds from acceptance to the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duration: Option<f64>,
    /// The lease's epoch as far as the run knows.
    pub epoch: u64,
    /// The first frame index not taken by an event yet; text frames may have gone further.
    pub next_frame: u64,
    /// Unix milliseconds of the last event.
    pub updated_ms: i64,
}

impl RunState {
    /// Its id.
    pub fn run_id(&self) -> Option<&RunId> {
        self.accepted.as_ref().map(|accepted| &accepted.run_id)
    }

    /// Its session.
    pub fn session_id(&self) -> Option<&SessionId> {
        self.accepted.as_ref().map(|accepted| &accepted.session_id)
    }

    /// Whom it is for.
    pub fn user_id(&self) -> Option<&UserId> {
        self.accepted.as_ref().and_then(|accepted| accepted.user_id.as_ref())
    }

    /// What runs.
    pub fn component(&self) -> Option<&ComponentRef> {
        self.accepted.as_ref().map(|accepted| &accepted.component)
    }

    /// The id of this run's message at `index`: the same in every fold.
    pub fn message_id(run: &RunId, index: usize) -> String {
        derived_id(run, &format!("message {index}"))
    }

    /// The id of the system message this run was given.
    pub fn system_message_id(run: &RunId) -> String {
        derived_id(run, "system message")
    }

    /// What happens on `command`: the event itself, or nothing when it already happened.
    ///
    /// # Errors
    /// [`RunError`] when the event does not fit the run's state.
    pub fn decide(&self, command: RunCommand) -> Result<Vec<RunEvent>, RunError> {
        let RunCommand(event) = command;
        if matches!(event, RunEvent::Accepted(_)) {
            return if self.accepted.is_some() { Err(RunError::Exists) } else { Ok(vec![event]) };
        }
        if self.accepted.is_none() {
            return Err(RunError::Unknown);
        }
        if matches!(event, RunEvent::CancelRequested(_)) {
            // Asking twice, or too late, changes nothing.
            let late = self.status.is_end() || self.cancel.is_some();
            return Ok(if late { vec![] } else { vec![event] });
        }
        if let RunEvent::Replaced(_) = event {
            let fits = matches!(self.status, RunStatus::Completed | RunStatus::Regenerated);
            return if fits { Ok(vec![event]) } else { Err(RunError::NotCompleted) };
        }
        if self.status.is_end() {
            return Err(RunError::Ended);
        }
        let starts = matches!(
            event,
            RunEvent::ModelCallRequested(_)
                | RunEvent::ToolCallRequested(_)
                | RunEvent::StepStarted(_)
                | RunEvent::BlockDecided(_)
                | RunEvent::BlockEnded(_)
                | RunEvent::Continued(_)
        );
        if self.cancel.is_some() && (starts || matches!(event, RunEvent::Succeeded(_) | RunEvent::Paused(_))) {
            return Err(RunError::Cancelling);
        }
        self.check_call(&event)?;
        Ok(vec![event])
    }

    fn check_call(&self, event: &RunEvent) -> Result<(), RunError> {
        let open_model = |id: &str| self.open_call.as_ref().is_some_and(|call| call.call_id == id);
        let open_tool = |id: &str| self.tool(id).is_some_and(|tool| tool.outcome.is_none());
        // What a person is asked about does not start before the answer.
        let may_start = |id: &str| open_tool(id) && !self.tool(id).is_some_and(super::ToolRecord::is_open);
        let asked =
            |id: &str| self.status == RunStatus::Paused && self.tool(id).is_some_and(super::ToolRecord::is_open);
        let (fits, id) = match event {
            RunEvent::ModelCallCompleted(e) => (open_model(&e.call_id), &e.call_id),
            RunEvent::ModelCallFailed(e) => (open_model(&e.call_id), &e.call_id),
            RunEvent::AnswerMissed(e) => (self.ends_with_an_answer(), &e.call_id),
            RunEvent::ToolCallRequested(e) => (may_start(&e.call_id), &e.call_id),
            RunEvent::RequirementResolved(e) => (asked(&e.call_id), &e.call_id),
            RunEvent::Continued(_) if self.open_requirements().next().is_some() => return Err(RunError::Unanswered),
            RunEvent::Continued(_) if self.open_steps().next().is_some() => return Err(RunError::Unanswered),
            RunEvent::Continued(_) if self.status != RunStatus::Paused => return Err(RunError::NotPaused),
            RunEvent::ToolCallCompleted(e) => (open_tool(&e.call_id), &e.call_id),
            RunEvent::ToolCallFailed(e) => (open_tool(&e.call_id), &e.call_id),
            RunEvent::ToolOutcomeUnknown(e) => (open_tool(&e.call_id), &e.call_id),
            other => return self.check_step(other),
        };
        if fits { Ok(()) } else { Err(RunError::NoSuchCall(id.clone())) }
    }

    /// Takes `event` into the state.
    pub fn evolve(&mut self, event: &RunEvent) {
        match event {
            RunEvent::Accepted(e) => self.accept(e),
            RunEvent::TakenOver(e) => {
                self.epoch = e.epoch;
                self.saw(e.frame + 1, e.at_ms);
            }
            RunEvent::ModelCallRequested(e) => self.model_requested(e),
            RunEvent::ModelCallCompleted(e) => self.model_completed(e),
            RunEvent::AnswerMissed(e) => {
                let told = e.told.get().cloned();
                self.push_message(Role::User, told, e.at_ms, |message| message.repair = true);
                self.saw(self.next_frame, e.at_ms);
            }
            RunEvent::ModelCallFailed(e) => {
                self.open_call = None;
                self.partial = e.partial.get().cloned().flatten();
                self.failure = Some((e.error, e.message.get().cloned().unwrap_or_default()));
                self.saw(self.next_frame, e.at_ms);
            }
            RunEvent::ToolCallRequested(e) => {
                self.status = RunStatus::Running;
                self.tool_requested(e);
                self.saw(e.frame + 1, e.at_ms);
            }
            RunEvent::ToolCallCompleted(e) => {
                let result = ToolOutcome::Completed(e.result.get().cloned().unwrap_or_default());
                let media = e.media.get().cloned().flatten().unwrap_or_default();
                let attached = Attached { media, whole: e.whole.get().cloned().flatten() };
                self.tool_ended(&e.call_id, result, e.duration, e.at_ms, attached);
                self.spent.extend(&e.spent);
                if e.answers {
                    self.answered = true;
                    self.push_message(Role::Assistant, e.result.get().cloned(), e.at_ms, |_| ());
                }
                self.saw(e.frame + 1, e.at_ms);
            }
            RunEvent::ToolCallFailed(e) => {
                let error = e.error.get().cloned().unwrap_or_default();
                let attached = Attached { media: Vec::new(), whole: e.whole.get().cloned().flatten() };
                if e.fatal {
                    // What failed first is why; the others were stopped for it.
                    self.failure.get_or_insert_with(|| (ErrorKind::MemberError, error.clone()));
                }
                self.tool_ended(&e.call_id, ToolOutcome::Failed(error), e.duration, e.at_ms, attached);
                self.spent.extend(&e.spent);
                self.saw(e.frame + 2, e.at_ms);
            }
            RunEvent::ToolOutcomeUnknown(e) => {
                self.tool_ended(&e.call_id, ToolOutcome::Unknown, 0.0, e.at_ms, Attached::default());
                self.saw(self.next_frame, e.at_ms);
            }
            RunEvent::TaskChanged(e) => {
                self.task_changed(&e.task);
                self.saw(e.frame + 2, e.at_ms);
            }
            RunEvent::StepStarted(_)
            | RunEvent::StepEnded(_)
            | RunEvent::BlockDecided(_)
            | RunEvent::BlockEnded(_)
            | RunEvent::StepAnswered(_) => self.step_changed(event),
            RunEvent::Paused(e) => {
                self.status = RunStatus::Paused;
                self.counted = self.usage;
                self.counted_spent.clone_from(&self.spent);
                self.paused_frame = Some(e.frame);
                self.duration = self.accepted.as_ref().map(|accepted| seconds_between(accepted.at_ms, e.at_ms));
                self.asked(&e.requirements, e.at_ms);
                if !e.steps.is_empty() {
                    self.flow_mut().ask(&e.steps);
                }
                // That its text is complete, which an agent says first, is a frame of its own.
                let agent = self.component().is_none_or(|component| component.kind == ComponentKind::Agent);
                let own = if self.is_flow() { event.frame_count(true) } else { 1 + u64::from(agent) };
                self.saw(e.frame + own, e.at_ms);
            }
            RunEvent::RequirementResolved(e) => {
                self.resolved(e);
                self.saw(self.next_frame, e.at_ms);
            }
            RunEvent::Continued(e) => {
                self.status = status_of(e.admission);
                self.continued = Some(e.clone());
                self.duration = None;
                self.saw(e.frame + event.frame_count(self.is_flow()), e.at_ms);
            }
            RunEvent::Replaced(e) => {
                self.status = RunStatus::Regenerated;
                self.replaced_by = Some(e.by.clone());
                self.saw(self.next_frame, e.at_ms);
            }
            RunEvent::CancelRequested(e) => {
                self.cancel = Some(e.clone());
                self.saw(self.next_frame, e.at_ms);
            }
            RunEvent::Succeeded(e) => {
                self.answer_of_flow(e.at_ms);
                self.end(RunStatus::Completed, e.session_state.get(), e.duration);
                self.saw(e.frame + event.frame_count(self.is_flow()), e.at_ms);
            }
            RunEvent::Failed(e) => {
                self.error = Some((e.error, e.message.get().cloned().unwrap_or_default()));
                self.end(RunStatus::Error, e.session_state.get(), e.duration);
                self.saw(e.frame + 1, e.at_ms);
            }
            RunEvent::Cancelled(e) => {
                self.cancel_reason = e.reason.get().cloned();
                self.cancel_stage = Some(e.stage);
                self.time_to_first_token = self.time_to_first_token.or(e.time_to_first_token);
                if e.provider_data.is_some() {
                    self.provider_data.clone_from(&e.provider_data);
                }
                self.partial = e.partial.get().cloned().flatten();
                self.flow.iter_mut().for_each(|flow| flow.cut_off());
                self.end(RunStatus::Cancelled, e.session_state.get(), e.duration);
                self.saw(e.frame + 2, e.at_ms);
            }
        }
    }

    pub(super) fn saw(&mut self, next_frame: u64, at_ms: i64) {
        self.next_frame = self.next_frame.max(next_frame);
        self.updated_ms = at_ms;
    }

    fn accept(&mut self, accepted: &RunAccepted) {
        self.status = status_of(accepted.admission);
        self.epoch = accepted.parent.as_ref().map_or(1, |parent| parent.epoch);
        self.accepted = Some(RunAccepted { base: None.into(), ..accepted.clone() });
        self.messages = accepted.base.get().cloned().flatten().unwrap_or_default();
        self.base = self.messages.len();
        let content = accepted.message.get().cloned();
        // A run that goes on from another need not be told anything.
        if accepted.forked.is_none() || content.as_ref().is_some_and(|text| !text.is_empty()) {
            let media = accepted.media.get().cloned().unwrap_or_default();
            self.push_message(Role::User, content, accepted.at_ms, |message| message.media = media);
        }
        self.saw(accepted.frame + 1, accepted.at_ms);
    }

    fn model_requested(&mut self, e: &ModelCallRequested) {
        self.status = RunStatus::Running;
        self.iterations = self.iterations.max(e.iteration);
        self.summary = e.summary;
        self.history.clone_from(&e.history);
        self.open_call = Some(OpenModelCall { call_id: e.call_id.clone(), attempt: e.attempt });
        self.saw(e.frame + 1, e.at_ms);
    }

    fn model_completed(&mut self, e: &ModelCallCompleted) {
        self.open_call = None;
        self.usage += e.metrics.usage;
        self.time_to_first_token = self.time_to_first_token.or(e.metrics.time_to_first_token);
        self.provider_data.clone_from(&e.provider_data);
        let calls: Vec<ToolCall> = e
            .tool_calls
            .iter()
            .map(|call| ToolCall {
                id: call.id.clone(),
                name: call.name.clone(),
                arguments: call.arguments.get().cloned().unwrap_or_default(),
            })
            .collect();
        self.tools.extend(calls.iter().map(|call| ToolRecord::new(call.clone(), e.at_ms)));
        let text = e.text.get().filter(|text| !text.is_empty()).cloned();
        self.push_message(Role::Assistant, text, e.at_ms, |message| {
            message.reasoning = e.reasoning.get().cloned().flatten();
            message.tool_calls = calls;
            message.replay = e.replay.get().cloned().flatten();
            message.provider_data.clone_from(&e.provider_data);
            message.metrics = Some(CallMetrics { ..e.metrics.clone() });
        });
        self.saw(e.frame + 1, e.at_ms);
    }

    pub(super) fn push_message(
        &mut self,
        role: Role,
        content: Option<String>,
        at_ms: i64,
        fill: impl FnOnce(&mut Message),
    ) {
        let index = self.messages.len();
        let id = self.run_id().map(|run| Self::message_id(run, index)).unwrap_or_default();
        let mut message = Message::said(id, role, content, at_ms / 1000);
        fill(&mut message);
        self.messages.push(message);
    }

    fn end(&mut self, status: RunStatus, session_state: Option<&Map<String, Value>>, duration: f64) {
        self.status = status;
        self.open_call = None;
        self.session_state = session_state.cloned();
        self.duration = Some(duration);
    }

    /// Whether its caller watches or waits in the background, where frames were asked for from the start.
    pub fn keeps_frames(&self) -> bool {
        let continued = self.continued.as_ref().is_some_and(|continued| continued.mode.keeps_frames());
        continued || self.accepted.as_ref().is_some_and(|accepted| accepted.mode.keeps_frames())
    }

    /// How its caller waits.
    pub fn mode(&self) -> RunMode {
        self.accepted.as_ref().map(|accepted| accepted.mode).unwrap_or_default()
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands references")]
fn is_zero(number: &usize) -> bool {
    *number == 0
}

fn status_of(admission: Admission) -> RunStatus {
    match admission {
        Admission::Active | Admission::Parallel => RunStatus::Running,
        Admission::Queued | Admission::Interrupting => RunStatus::Pending,
    }
}

#[expect(clippy::cast_precision_loss, reason = "milliseconds of a run fit a float exactly")]
fn seconds_between(from_ms: i64, to_ms: i64) -> f64 {
    (to_ms - from_ms).max(0) as f64 / 1000.0
}

/// A UUID that every fold of this run derives alike.
fn derived_id(run: &RunId, what: &str) -> String {
    Uuid::new_v5(&Uuid::NAMESPACE_OID, format!("daybook {run} {what}").as_bytes()).to_string()
}
