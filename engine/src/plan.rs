//! From a run's fold to the events and the work that come next.

use std::collections::HashSet;

use daybook_domain::component::AgentConfig;
use daybook_domain::ids::RunId;
use daybook_domain::message::Message;
use daybook_domain::redact::REDACTED;
use daybook_domain::run::{
    Ending, ModelCallRequested, Next, PendingTool, Requirement, RequirementKind, RunCancelled, RunEvent, RunFailed,
    RunPaused, RunStage, RunState, RunStatus, RunSucceeded, ToolCallRequested, ToolOutcomeUnknown,
};
use daybook_domain::session::{SessionEvent, SessionRunEnded};
use daybook_domain::tool::Effect;
use daybook_models::ChatRequest;
use serde_json::{Map, Value};

use crate::prompt::{build_request, json_hash};

/// Work that comes after the planned events are in the log.
#[derive(Debug)]
pub(crate) enum Action {
    /// Call the model.
    Model(Box<ModelCall>),
    /// Call these tools.
    Tools(Vec<ToolStart>),
    /// Wait for tools that run already.
    AwaitTools,
    /// Wait for the session.
    AwaitTurn,
    /// Nothing more on this node.
    Stop,
}

/// A model call to make.
#[derive(Debug)]
pub(crate) struct ModelCall {
    pub call_id: String,
    pub request: ChatRequest,
}

/// A tool call to make.
#[derive(Debug)]
pub(crate) struct ToolStart {
    pub call_id: String,
    pub tool: String,
    pub arguments: String,
    pub idempotency_key: String,
}

/// Events to append together with what led to them, and the work after that.
#[derive(Debug)]
pub(crate) struct Plan {
    pub events: Vec<RunEvent>,
    pub session: Vec<SessionEvent>,
    /// Whether the run leaves its node: it ended, or waits for a person.
    pub leaves: bool,
    pub action: Action,
}

impl Plan {
    /// Nothing to append.
    pub fn only(action: Action) -> Self {
        Self { events: Vec::new(), session: Vec::new(), leaves: false, action }
    }
}

/// What an open model call had given when it was dropped.
#[derive(Debug, Clone, Default)]
pub(crate) struct Partial {
    pub text: Option<String>,
    pub provider_data: Option<Value>,
    pub time_to_first_token: Option<f64>,
}

/// What planning reads beside the fold.
pub(crate) struct Planner<'a> {
    pub config: &'a AgentConfig,
    pub now_ms: i64,
    /// A fresh id, for the case that one is needed.
    pub fresh_id: &'a (dyn Fn() -> uuid::Uuid + Send + Sync),
    /// Earlier runs whose messages this run sees, and those messages.
    pub history: (&'a [RunId], &'a [Message]),
    /// Whether the session lets the run go.
    pub granted: bool,
    /// Tool calls that run in this process.
    pub in_flight: &'a HashSet<String>,
    /// What an open model call had said, when it was dropped.
    pub partial: Partial,
    /// The session's state, for the record of the end.
    pub session_state: Map<String, Value>,
}

impl Planner<'_> {
    /// What comes next for `state`.
    ///
    /// # Errors
    /// When a request cannot be written as JSON.
    pub fn plan(&self, state: &RunState) -> serde_json::Result<Plan> {
        Ok(match state.next(self.config.max_iterations.max(1)) {
            Next::Done | Next::AwaitPerson => Plan::only(Action::Stop),
            Next::AwaitTurn if self.granted => self.model(state, 1, 1, None)?,
            Next::AwaitTurn => Plan::only(Action::AwaitTurn),
            Next::CallModel { iteration, attempt, call_id } => self.model(state, iteration, attempt, call_id)?,
            Next::CallTools(pending) => self.tools(pending),
            Next::Pause(calls) => self.pause(state, calls),
            Next::Finish(ending) => self.finish(state, ending),
        })
    }

    fn model(
        &self,
        state: &RunState,
        iteration: u32,
        attempt: u32,
        call_id: Option<String>,
    ) -> serde_json::Result<Plan> {
        let Some(accepted) = &state.accepted else { return Ok(Plan::only(Action::Stop)) };
        let request = build_request(self.config, accepted, self.history.1, &state.messages);
        let call_id = call_id.unwrap_or_else(|| (self.fresh_id)().to_string());
        let requested = ModelCallRequested {
            call_id: call_id.clone(),
            iteration,
            attempt,
            history: self.history.0.to_vec(),
            own_messages: state.messages.len(),
            prompt_hash: json_hash(&request)?,
            tools_hash: json_hash(&request.tools)?,
            frame: 0,
            at_ms: self.now_ms,
        };
        Ok(Plan {
            events: vec![RunEvent::ModelCallRequested(requested)],
            session: Vec::new(),
            leaves: false,
            action: Action::Model(Box::new(ModelCall { call_id, request })),
        })
    }

    fn tools(&self, pending: Vec<PendingTool>) -> Plan {
        let (mut events, mut starts) = (Vec::new(), Vec::new());
        for tool in pending.into_iter().filter(|tool| !self.in_flight.contains(&tool.call.id)) {
            let lost = tool.attempts > 0;
            if lost && tool.effect == Some(Effect::Unsafe) {
                let (call_id, at_ms) = (tool.call.id, self.now_ms);
                events.push(RunEvent::ToolOutcomeUnknown(ToolOutcomeUnknown { call_id, at_ms }));
                continue;
            }
            let start = self.start(&tool);
            events.push(RunEvent::ToolCallRequested(ToolCallRequested {
                call_id: start.call_id.clone(),
                tool: start.tool.clone(),
                idempotency_key: start.idempotency_key.clone(),
                effect: tool.effect.unwrap_or_else(|| self.effect(&tool.call.name)),
                attempt: tool.attempts + 1,
                frame: 0,
                at_ms: self.now_ms,
            }));
            starts.push(start);
        }
        let action = if starts.is_empty() { Action::AwaitTools } else { Action::Tools(starts) };
        Plan { events, session: Vec::new(), leaves: false, action }
    }

    fn start(&self, tool: &PendingTool) -> ToolStart {
        let fresh = || (self.fresh_id)().to_string();
        ToolStart {
            call_id: tool.call.id.clone(),
            tool: tool.call.name.clone(),
            arguments: tool.call.arguments.clone(),
            idempotency_key: tool.idempotency_key.clone().unwrap_or_else(fresh),
        }
    }

    /// A tool the agent does not have is never run: the call fails at once and may fail again.
    fn effect(&self, name: &str) -> Effect {
        self.config.tools.iter().find(|tool| tool.name == name).map_or(Effect::Pure, |tool| tool.effect)
    }

    fn pause(&self, state: &RunState, calls: Vec<String>) -> Plan {
        let requirement = |call_id| Requirement { call_id, kind: RequirementKind::UnknownOutcome };
        let requirements = calls.into_iter().map(requirement).collect();
        let paused = RunEvent::Paused(RunPaused { requirements, frame: 0, at_ms: self.now_ms });
        self.leave(state, paused, RunStatus::Paused)
    }

    /// The end of the run, whatever its fold says.
    pub fn finish(&self, state: &RunState, ending: Ending) -> Plan {
        let accepted_ms = state.accepted.as_ref().map_or(self.now_ms, |accepted| accepted.at_ms);
        #[expect(clippy::cast_precision_loss, reason = "milliseconds of a run fit a float exactly")]
        let duration = (self.now_ms - accepted_ms).max(0) as f64 / 1000.0;
        let (session_state, frame, at_ms) = (self.session_state.clone().into(), 0, self.now_ms);
        let (end, status) = match ending {
            Ending::Succeed => {
                let end = RunSucceeded { session_state, duration, frame, at_ms };
                (RunEvent::Succeeded(end), RunStatus::Completed)
            }
            Ending::Fail(error, message) => {
                let end = RunFailed { error, message: message.into(), session_state, duration, frame, at_ms };
                (RunEvent::Failed(end), RunStatus::Error)
            }
            Ending::Cancel => {
                let end = RunCancelled {
                    reason: cancel_reason(state).into(),
                    stage: stage(state),
                    partial: self.partial.text.clone().or_else(|| state.partial.clone()).into(),
                    provider_data: self.partial.provider_data.clone(),
                    time_to_first_token: self.partial.time_to_first_token,
                    session_state,
                    duration,
                    frame,
                    at_ms,
                };
                (RunEvent::Cancelled(end), RunStatus::Cancelled)
            }
        };
        self.leave(state, end, status)
    }

    fn leave(&self, state: &RunState, event: RunEvent, status: RunStatus) -> Plan {
        let mut session = Vec::new();
        if let Some(run_id) = state.run_id().cloned() {
            session.push(SessionEvent::RunEnded(SessionRunEnded {
                run_id,
                status,
                usage: state.usage,
                model: Some((self.config.model.id.clone(), self.config.model.provider.clone())),
                at: self.now_ms / 1000,
            }));
        }
        Plan { events: vec![event], session, leaves: true, action: Action::Stop }
    }
}

fn stage(state: &RunState) -> RunStage {
    match state.status {
        RunStatus::Pending => RunStage::Pending,
        RunStatus::Paused => RunStage::Paused,
        _ => RunStage::Executing,
    }
}

fn cancel_reason(state: &RunState) -> String {
    let why = state.cancel.as_ref().and_then(|cancel| cancel.why.get().cloned().flatten());
    let run = state.run_id().map(ToString::to_string).unwrap_or_default();
    why.unwrap_or_else(|| format!("Run {run} was cancelled"))
}

/// Whether recorded arguments lack a secret that was never recorded, so that the call cannot be made again.
pub(crate) fn lost_a_secret(arguments: &str) -> bool {
    arguments.contains(REDACTED)
}
