//! From a run's fold to the events and the work that come next.

use std::collections::{HashMap, HashSet};

use daybook_domain::approval::{ApprovalRequested, call_hash};
use daybook_domain::component::{ComponentConfig, TeamMode};
use daybook_domain::ids::ApprovalId;
use daybook_domain::run::{
    ChildRef, Ending, MemberAsk, ModelCallRequested, Next, Requirement, RequirementKind, RunAccepted, RunCancelled,
    RunEvent, RunFailed, RunPaused, RunStage, RunState, RunStatus, RunSucceeded, Task, TaskChanged, TaskStatus,
    ToolCallRequested, ToolOutcome, ToolOutcomeUnknown, ToolRecord, after_a_crash, can_be_answered, child_run_id,
    needed,
};
use daybook_domain::session::{SessionEvent, SessionRunEnded};
use daybook_domain::tool::{Effect, Gate, ToolSpec};
use daybook_models::ChatRequest;
use serde_json::{Map, Value};

use crate::child::Asks;
use crate::delegation::{Assignment, Order, read_order};
use crate::flow::{FlowCode, StepStart};
use crate::history::Seen;
use crate::prompt::{build_request, json_hash};
use crate::registry::Checks;
use crate::secrets::cannot_wait;

/// Work that comes after the planned events are in the log.
#[derive(Debug)]
pub(crate) enum Action {
    /// Call the model.
    Model(Box<ModelCall>),
    /// Call these tools.
    Tools(Vec<ToolStart>),
    /// Run these steps of a workflow.
    Steps(Vec<StepStart>),
    /// Wait for tools or steps that run already, or until a step is due.
    AwaitTools,
    /// See what comes next.
    LookOn,
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
    /// The call as it is recorded, with what a person filled in.
    pub call: Box<ToolRecord>,
    pub idempotency_key: String,
    /// Why it is not called at all: what would have to be asked about it cannot be.
    pub refusal: Option<String>,
    /// What it hands out, where it does that; or why it cannot.
    pub order: Option<Result<Order, String>>,
    /// Whether it was never started before.
    pub fresh: bool,
}

/// Events to append together with what led to them, and the work after that.
#[derive(Debug)]
pub(crate) struct Plan {
    pub events: Vec<RunEvent>,
    pub session: Vec<SessionEvent>,
    /// Approvals that the run asks for.
    pub approvals: Vec<ApprovalRequested>,
    /// Whether the run ended or waits for a person.
    pub leaves: bool,
    /// Unix milliseconds when a step runs again that failed.
    pub due: Option<i64>,
    pub action: Action,
}

impl Plan {
    /// Nothing to append.
    pub fn only(action: Action) -> Self {
        Self { events: Vec::new(), session: Vec::new(), approvals: Vec::new(), leaves: false, due: None, action }
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
    pub config: &'a ComponentConfig,
    pub now_ms: i64,
    /// A fresh id, for the case that one is needed.
    pub fresh_id: &'a (dyn Fn() -> uuid::Uuid + Send + Sync),
    /// What this run sees of earlier ones.
    pub history: Seen<'a>,
    /// Whether the session lets the run go.
    pub granted: bool,
    /// Tool calls that run in this process.
    pub in_flight: &'a HashSet<String>,
    /// Calls and steps whose child runs wait for a person.
    pub waiting: &'a HashMap<String, Asks>,
    /// The code of a workflow.
    pub code: Option<&'a FlowCode>,
    /// What arguments are held against before a person is asked about them.
    pub checks: &'a Checks,
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
        if let Some(workflow) = self.config.workflow() {
            return Ok(self.flow(workflow, state));
        }
        Ok(match state.next(self.max_iterations(), self.granted) {
            Next::Done | Next::AwaitPerson => Plan::only(Action::Stop),
            Next::AwaitTurn => Plan::only(Action::AwaitTurn),
            Next::CallModel { iteration, attempt, call_id } => self.model(state, iteration, attempt, call_id)?,
            Next::CallTools(pending) => self.tools(state, pending),
            Next::Pause(_) => self.pause(state, Vec::new()),
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
        let (Some(accepted), Some(config)) = (&state.accepted, self.config.agent()) else {
            return Ok(Plan::only(Action::Stop));
        };
        let request = build_request(config, accepted, self.history.messages, &state.messages);
        let call_id = call_id.unwrap_or_else(|| (self.fresh_id)().to_string());
        let requested = ModelCallRequested {
            call_id: call_id.clone(),
            iteration,
            attempt,
            summary: self.history.summary,
            history: self.history.runs.to_vec(),
            own_messages: state.messages.len(),
            prompt_hash: json_hash(&request)?,
            tools_hash: json_hash(&request.tools)?,
            frame: 0,
            at_ms: self.now_ms,
        };
        Ok(Plan {
            events: vec![RunEvent::ModelCallRequested(requested)],
            ..Plan::only(Action::Model(Box::new(ModelCall { call_id, request })))
        })
    }

    /// What may run starts beside what runs; when nothing does, a person is asked about the rest.
    fn tools(&self, state: &RunState, pending: Vec<ToolRecord>) -> Plan {
        let (mut events, mut starts, mut asked) = (Vec::new(), Vec::new(), Vec::new());
        let here = |id: &String| self.in_flight.contains(id) || self.waiting.contains_key(id);
        for tool in pending.into_iter().filter(|tool| !here(&tool.call.id)) {
            if !tool.children.is_empty() {
                // The runs that carry it out are there: they go on, and nothing is requested anew.
                starts.push(self.start(state, &tool, None));
                continue;
            }
            let lost = tool.attempts > 0 && !tool.again;
            if lost && tool.effect == Effect::Unsafe {
                let (call_id, at_ms) = (tool.call.id, self.now_ms);
                events.push(RunEvent::ToolOutcomeUnknown(ToolOutcomeUnknown { call_id, at_ms }));
                continue;
            }
            let refusal = match self.asks(&tool) {
                Some(Ok(requirement)) => {
                    asked.push((requirement, tool));
                    continue;
                }
                Some(Err(refusal)) => Some(refusal),
                None => None,
            };
            let start = self.start(state, &tool, refusal);
            events.push(RunEvent::ToolCallRequested(ToolCallRequested {
                call_id: start.call_id.clone(),
                tool: start.tool.clone(),
                idempotency_key: start.idempotency_key.clone(),
                effect: if tool.attempts > 0 { tool.effect } else { self.effect(&tool.call.name) },
                attempt: tool.attempts + 1,
                children: self.children(state, &start),
                frame: 0,
                at_ms: self.now_ms,
            }));
            events.extend(self.begun(state, &start));
            starts.push(start);
        }
        if starts.is_empty() && events.is_empty() && self.in_flight.is_empty() {
            return self.pause(state, asked);
        }
        let action = if starts.is_empty() { Action::AwaitTools } else { Action::Tools(starts) };
        Plan { events, action, ..Plan::only(Action::AwaitTools) }
    }

    /// What a person must be asked before the call may run; an error when there is no sense in asking, because the call
    /// cannot be made as it stands.
    fn asks(&self, tool: &ToolRecord) -> Option<Result<Requirement, String>> {
        let spec = self.spec(&tool.call.name)?;
        let requirement = needed(spec, tool)?;
        if let Some(refusal) = cannot_wait(&tool.call) {
            return Some(Err(refusal));
        }
        let fits = |arguments: &Map<String, Value>| match self.checks.get(&tool.call.name) {
            // What a person fills in is not there yet.
            Some(check) if requirement.kind == RequirementKind::UserInput => check.check_before_input(arguments),
            Some(check) => check.check(arguments),
            None => Ok(()),
        };
        let arguments = tool.call.exactly().map(|arguments| tool.with_input(arguments));
        let checked = arguments.and_then(|arguments| fits(&arguments).map_err(|error| error.to_string()));
        let checked =
            checked.and_then(|()| if spec.gate == Gate::Feedback { can_be_answered(&tool.call) } else { Ok(()) });
        Some(checked.map(|()| requirement))
    }

    /// The runs that carry a call out.
    fn children(&self, state: &RunState, start: &ToolStart) -> Vec<ChildRef> {
        let (Some(Ok(Order::Hand(work))), Some(run)) = (&start.order, state.run_id()) else { return Vec::new() };
        let child = |(at, work): (usize, &Assignment)| ChildRef {
            run_id: child_run_id(run, &start.call_id, at),
            component: work.member.component.clone(),
        };
        work.iter().enumerate().map(child).collect()
    }

    /// The tasks of the list that a call has begun.
    fn begun(&self, state: &RunState, start: &ToolStart) -> Vec<RunEvent> {
        let Some(Ok(Order::Hand(work))) = &start.order else { return Vec::new() };
        let tasks = work.iter().filter_map(|work| state.task(work.task_id.as_ref()?));
        let begun = |task: &Task| {
            RunEvent::TaskChanged(TaskChanged {
                task: Task { status: TaskStatus::InProgress, ..task.clone() },
                frame: 0,
                at_ms: self.now_ms,
            })
        };
        tasks.map(begun).collect()
    }

    /// What a call hands out; `None` when it is code that carries it out.
    fn order(&self, state: &RunState, tool: &ToolRecord) -> Option<Result<Order, String>> {
        let team = self.config.agent()?.team.as_ref()?;
        team.tools.iter().find(|spec| spec.name == tool.call.name)?;
        let check = |arguments: Map<String, Value>| match self.checks.get(&tool.call.name) {
            Some(check) => check.check(&arguments).map(|()| arguments).map_err(|error| error.to_string()),
            None => Ok(arguments),
        };
        let arguments = tool.call.exactly().and_then(check);
        let again = tool.attempts > 0;
        // The answer is one member's: a second one has nobody to go to.
        let before = state.tools.iter().take_while(|other| other.call.id != tool.call.id);
        let handed =
            |other: &&ToolRecord| !matches!(other.outcome, Some(ToolOutcome::Failed(_) | ToolOutcome::Rejected(_)));
        if team.mode == TeamMode::Route
            && !again
            && before.filter(handed).any(|other| other.call.name == tool.call.name)
        {
            return Some(
                Err("the request was handed to another member already, whose answer is the team's".to_owned()),
            );
        }
        Some(arguments.and_then(|arguments| read_order(team, &state.tasks, &tool.call.name, &arguments, again)))
    }

    fn start(&self, state: &RunState, tool: &ToolRecord, refusal: Option<String>) -> ToolStart {
        let known = Some(tool.idempotency_key.clone()).filter(|_| tool.attempts > 0);
        ToolStart {
            call_id: tool.call.id.clone(),
            tool: tool.call.name.clone(),
            call: Box::new(tool.clone()),
            idempotency_key: known.unwrap_or_else(|| (self.fresh_id)().to_string()),
            refusal,
            order: self.order(state, tool),
            fresh: tool.attempts == 0,
        }
    }

    fn max_iterations(&self) -> u32 {
        self.config.agent().map_or(1, |agent| agent.max_iterations.max(1))
    }

    fn spec(&self, name: &str) -> Option<&ToolSpec> {
        self.config.tool(name)
    }

    /// A tool the agent does not have is never run: the call fails at once and may fail again.
    fn effect(&self, name: &str) -> Effect {
        self.spec(name).map_or(Effect::Pure, |tool| tool.effect)
    }

    /// Asks about `calls`, and about those whose outcome nobody knows.
    fn pause(&self, state: &RunState, calls: Vec<(Requirement, ToolRecord)>) -> Plan {
        let unknown = state.tools.iter().filter(|tool| tool.outcome == Some(ToolOutcome::Unknown));
        let again = |tool: &ToolRecord| (after_a_crash(self.spec(&tool.call.name), &tool.call.id), tool.clone());
        let (mut requirements, mut approvals) = (Vec::new(), Vec::new());
        for (mut requirement, tool) in unknown.map(again).chain(calls) {
            // The approval that a call had was for one call: to run it again needs another.
            if requirement.kind.lets_run() {
                approvals.extend(self.approval(state, &mut requirement, &tool));
            }
            requirements.push(requirement);
        }
        let mut members: Vec<MemberAsk> = Vec::new();
        for tool in &state.tools {
            members.extend(self.waiting.get(&tool.call.id).iter().flat_map(|asks| asks.members.iter().cloned()));
        }
        let members = Some(members).filter(|asks| !asks.is_empty()).into();
        let (steps, frame, at_ms) = (Vec::new(), 0, self.now_ms);
        let paused = RunEvent::Paused(RunPaused { requirements, members, steps, frame, at_ms });
        Plan { approvals, ..self.leave(state, paused, RunStatus::Paused) }
    }

    /// The approval of a call whose tool needs one before it runs.
    fn approval(
        &self,
        state: &RunState,
        requirement: &mut Requirement,
        tool: &ToolRecord,
    ) -> Option<ApprovalRequested> {
        let accepted = state.accepted.as_ref()?;
        let spec = self.spec(&tool.call.name).filter(|spec| spec.needs_approval())?;
        requirement.approval = Some(ApprovalId::from((self.fresh_id)()));
        approval_of(accepted, self.config, spec, requirement, tool, self.now_ms)
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

    pub(crate) fn leave(&self, state: &RunState, event: RunEvent, status: RunStatus) -> Plan {
        let mut session = Vec::new();
        // Child runs never count in their session.
        if let Some(run_id) = state.run_id().filter(|_| state.parent().is_none()).cloned() {
            session.push(SessionEvent::RunEnded(SessionRunEnded {
                run_id,
                status,
                usage: state.usage.since(state.counted),
                model: self.config.model().map(|model| (model.id.clone(), model.provider.clone())),
                at: self.now_ms / 1000,
                others: state.spent.since(&state.counted_spent),
            }));
        }
        Plan { events: vec![event], session, leaves: true, ..Plan::only(Action::Stop) }
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

/// An approval for this call with these arguments; `None` when the requirement names none or there are no arguments.
pub(crate) fn approval_of(
    accepted: &RunAccepted,
    config: &ComponentConfig,
    spec: &ToolSpec,
    requirement: &Requirement,
    tool: &ToolRecord,
    at_ms: i64,
) -> Option<ApprovalRequested> {
    let (rule, arguments) = (spec.approval.clone()?, tool.arguments().ok()?);
    let after = |seconds: u64| i64::try_from(seconds).unwrap_or(i64::MAX).saturating_mul(1000).saturating_add(at_ms);
    Some(ApprovalRequested {
        approval_id: requirement.approval.clone()?,
        run_id: accepted.run_id.clone(),
        session_id: accepted.session_id.clone(),
        user_id: accepted.user_id.clone(),
        component: accepted.component.clone(),
        source_name: config.name().to_owned(),
        requirement: requirement.clone(),
        tool: spec.name.clone(),
        call_hash: call_hash(&spec.name, &arguments),
        arguments: arguments.into(),
        expires_at_ms: rule.expires_after_seconds.map(after),
        rule,
        at_ms,
    })
}
