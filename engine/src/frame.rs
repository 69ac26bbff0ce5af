//! What watchers of a run receive. Frames made of events can be made again from the log for ever; text pieces are a cache.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use daybook_domain::component::{ComponentConfig, ComponentKind, ComponentRef};
use daybook_domain::ids::{RunId, SessionId, UserId};
use daybook_domain::message::CallMetrics;
use daybook_domain::run::{
    MemberAsk, Parent, Requirement, RunAccepted, RunEvent, RunState, Task, TaskStatus, ToolRecord,
};
use daybook_domain::usage::Usage;
use daybook_domain::workflow::{Decision, StepOutput, StepRequirement};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::detail::RunDetail;
use crate::flow::{StepAsked, StepTag, go_on_frames, pause_frames, step_frames};
use crate::prompt::output_schema;

/// What all frames of a run have in common.
#[derive(Debug, Clone, PartialEq)]
pub struct RunMeta {
    /// The run.
    pub run_id: RunId,
    /// Its session.
    pub session_id: SessionId,
    /// Whom it is for.
    pub user_id: Option<UserId>,
    /// What runs.
    pub component: ComponentRef,
    /// Its name for people.
    pub name: String,
    /// The model's id; empty where it has none of its own.
    pub model: String,
    /// The model's provider, likewise.
    pub provider: String,
    /// What the shape of its answer is called, when it must have one.
    pub output: Option<String>,
    /// The run that started it, where it is a child run.
    pub parent: Option<Parent>,
}

impl RunMeta {
    /// The meta of an accepted run; `None` before its acceptance.
    pub fn of(state: &RunState, config: &ComponentConfig) -> Option<Self> {
        state.accepted.as_ref().map(|accepted| Self::accepted(accepted, config))
    }

    /// The meta of a run from its acceptance.
    pub fn accepted(accepted: &RunAccepted, config: &ComponentConfig) -> Self {
        let (model, provider) =
            config.model().map(|model| (model.id.clone(), model.provider.clone())).unwrap_or_default();
        Self {
            run_id: accepted.run_id.clone(),
            session_id: accepted.session_id.clone(),
            user_id: accepted.user_id.clone(),
            component: config.component(),
            name: config.name().to_owned(),
            model,
            provider,
            output: output_schema(config, accepted).map(|shape| shape.name.clone()),
            parent: accepted.parent.as_deref().cloned(),
        }
    }
}

/// One frame. Interfaces encode it once and share the bytes.
#[derive(Debug)]
pub struct Frame {
    /// Strictly increases over the run tree; a client resumes after it.
    pub index: u64,
    /// Unix seconds.
    pub at: i64,
    /// The run it is of.
    pub run: Arc<RunMeta>,
    /// What it says.
    pub body: FrameBody,
    sse: OnceLock<Bytes>,
}

impl Frame {
    /// A frame of `run`.
    pub fn new(index: u64, at: i64, run: Arc<RunMeta>, body: FrameBody) -> Self {
        Self { index, at, run, body, sse: OnceLock::new() }
    }

    /// The frame as SSE bytes, encoded by the first watcher who asks.
    pub fn sse(&self, encode: impl FnOnce(&Frame) -> Bytes) -> Bytes {
        self.sse.get_or_init(|| encode(self)).clone()
    }
}

/// What a frame says. Stored with `v`, the version of this shape.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "t", rename_all = "snake_case")]
pub enum FrameBody {
    /// The run began.
    RunStarted,
    /// A node took the run over: what was streamed before is void, the text from here on is the whole text.
    Restarted {
        /// The lease's new epoch.
        epoch: u64,
    },
    /// The model is called.
    ModelRequestStarted,
    /// A piece of text or of reasoning.
    Content {
        /// Text, if this is text.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        text: Option<String>,
        /// Reasoning, if this is reasoning.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reasoning: Option<String>,
        /// What the provider told about the response.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        provider_data: Option<Value>,
    },
    /// The model has answered.
    ModelRequestCompleted {
        /// Tokens and times.
        metrics: CallMetrics,
    },
    /// A tool is called.
    ToolCallStarted {
        /// The call.
        tool: Box<ToolRecord>,
    },
    /// A tool tells how far it is. Shown and forgotten.
    ToolProgress {
        /// The call's id.
        call_id: String,
        /// The tool.
        tool: String,
        /// How far it is.
        text: String,
    },
    /// A tool call has an outcome, good or bad.
    ToolCallCompleted {
        /// The call.
        tool: Box<ToolRecord>,
    },
    /// Follows `ToolCallCompleted` when the outcome was bad.
    ToolCallError {
        /// The call.
        tool: Box<ToolRecord>,
        /// What went wrong.
        error: String,
    },
    /// All text was sent.
    ContentCompleted,
    /// The run ended, well or cancelled.
    Completed(Box<RunEnd>),
    /// A task of the team's list was added or came further; what the whole list looks like follows.
    Task {
        /// The task as it stands now.
        task: Box<Task>,
        /// Whether it is new.
        created: bool,
    },
    /// The team's list as it stands now.
    Tasks {
        /// All of it.
        tasks: Vec<Task>,
    },
    /// The run waits for a person.
    Paused {
        /// What for.
        requirements: Vec<Requirement>,
        /// What its child runs wait for.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        members: Vec<MemberAsk>,
        /// All calls of the run.
        tools: Vec<ToolRecord>,
        /// What was said so far.
        content: String,
    },
    /// The run goes on after a pause, or goes on from another run.
    Continued,
    /// A step of a workflow runs.
    StepStarted {
        /// The step.
        step: StepTag,
    },
    /// A step tells how far it is. Shown and forgotten.
    StepProgress {
        /// The step.
        step: StepTag,
        /// The attempt.
        attempt: u32,
        /// How far it is.
        text: String,
    },
    /// What a function said; `StepCompleted` follows.
    StepOutput {
        /// The step.
        step: StepTag,
        /// What it came to.
        output: Arc<StepOutput>,
    },
    /// A step went well.
    StepCompleted {
        /// The step.
        step: StepTag,
        /// What it came to.
        output: Arc<StepOutput>,
    },
    /// A step failed, and the workflow fails or waits for a person.
    StepError {
        /// The step.
        step: StepTag,
        /// What went wrong.
        error: String,
    },
    /// A step waits for a person.
    StepPaused(Box<StepAsked>),
    /// A step goes on that waited for a person.
    StepContinued {
        /// The step.
        step: StepTag,
        /// What was asked about it.
        requirement: Option<Box<StepRequirement>>,
    },
    /// A block of steps was entered.
    BlockStarted {
        /// The block.
        step: StepTag,
        /// What was decided about it.
        decision: Decision,
    },
    /// An iteration of a loop begins.
    IterationStarted {
        /// The loop.
        step: StepTag,
        /// Which, from 1.
        number: u32,
        /// The most there may be.
        max_iterations: u32,
    },
    /// An iteration of a loop ended.
    IterationCompleted {
        /// The loop.
        step: StepTag,
        /// Which, from 1.
        number: u32,
        /// The most there may be.
        max_iterations: u32,
        /// Whether the next one begins.
        goes_on: bool,
        /// What its steps came to.
        outputs: Vec<Arc<StepOutput>>,
    },
    /// Nothing more runs in a block.
    BlockCompleted {
        /// The block.
        step: StepTag,
        /// What was decided when it was entered.
        decision: Decision,
        /// Of a loop, how many iterations there were.
        iteration: u32,
        /// Of a loop, what the steps of its last iterations came to.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        iterations: Vec<Vec<Arc<StepOutput>>>,
        /// What it came to.
        output: Arc<StepOutput>,
    },
    /// A workflow's run waits for a person.
    FlowPaused {
        /// What is asked about its steps, and what was asked and answered before.
        steps: Vec<StepAsked>,
        /// What its child runs wait for.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        members: Vec<MemberAsk>,
        /// What its steps came to so far.
        results: Vec<Arc<StepOutput>>,
    },
    /// The run ended with an error.
    Error {
        /// What happened, for people.
        message: String,
        /// What kind of thing went wrong.
        error_type: String,
    },
    /// The run was stopped; `Completed` follows.
    Cancelled {
        /// What had been said.
        content: String,
        /// Why.
        reason: String,
    },
}

impl FrameBody {
    /// Adds the runs under the run, where the frame tells of all of it.
    pub(crate) fn with_children(&mut self, children: impl FnOnce() -> Vec<RunDetail>) {
        if let Self::Completed(end) = self {
            end.children = children();
        }
    }
}

/// What the last frame of a run says about all of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunEnd {
    /// All that was said.
    pub content: String,
    /// What was said last, when that is not all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<String>,
    /// What was thought aloud.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reasoning: Option<String>,
    /// What the provider told about the last response.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider_data: Option<Value>,
    /// What the caller keeps with the run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Map<String, Value>>,
    /// The session's state.
    #[serde(default)]
    pub session_state: Map<String, Value>,
    /// Tokens of all model calls.
    pub usage: Usage,
    /// Seconds to the first token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_to_first_token: Option<f64>,
    /// Seconds from acceptance.
    pub duration: f64,
    /// Whether the run was cancelled.
    #[serde(default)]
    pub cancelled: bool,
    /// The runs under it, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub children: Vec<RunDetail>,
    /// What the steps of a workflow came to, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub results: Vec<Arc<StepOutput>>,
    /// What a workflow said, where that is no text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub said: Option<Value>,
}

impl RunEnd {
    fn of(state: &RunState) -> Self {
        let content = state.content();
        Self {
            answer: state.answer().filter(|answer| *answer != content).map(str::to_owned),
            content,
            reasoning: Some(state.reasoning()).filter(|text| !text.is_empty()),
            provider_data: state.provider_data.clone(),
            metadata: state.accepted.as_ref().and_then(|accepted| accepted.metadata.get().cloned().flatten()),
            session_state: state.session_state.clone().unwrap_or_default(),
            usage: state.usage,
            time_to_first_token: state.time_to_first_token,
            duration: state.duration.unwrap_or_default(),
            cancelled: state.cancel_stage.is_some(),
            children: Vec::new(),
            results: state.flow.iter().flat_map(|flow| flow.results()).collect(),
            said: state.flow.as_ref().and_then(|flow| flow.content()).filter(|said| !said.is_string()),
        }
    }
}

/// The frames an event is shown as, given the state after it, with the index of the first; empty for events nobody watches.
pub fn frames_of(event: &RunEvent, after: &RunState) -> (u64, Vec<FrameBody>) {
    match event {
        RunEvent::Accepted(e) => {
            (e.frame, vec![if e.forked.is_some() { FrameBody::Continued } else { FrameBody::RunStarted }])
        }
        RunEvent::Continued(e) if after.is_flow() => (e.frame, go_on_frames(&e.steps, after)),
        RunEvent::Continued(e) => (e.frame, vec![FrameBody::Continued]),
        RunEvent::TakenOver(e) => (e.frame, vec![FrameBody::Restarted { epoch: e.epoch }]),
        RunEvent::ModelCallRequested(e) => (e.frame, vec![FrameBody::ModelRequestStarted]),
        RunEvent::ModelCallCompleted(e) => {
            (e.frame, vec![FrameBody::ModelRequestCompleted { metrics: e.metrics.clone() }])
        }
        RunEvent::ToolCallRequested(e) => {
            let tool = record(after, &e.call_id);
            (e.frame, tool.map(|tool| FrameBody::ToolCallStarted { tool }).into_iter().collect())
        }
        RunEvent::ToolCallCompleted(e) => {
            let tool = record(after, &e.call_id).map(|tool| FrameBody::ToolCallCompleted { tool });
            let text = e.result.get().filter(|_| e.answers).cloned();
            let answer = text.map(|text| FrameBody::Content { text: Some(text), reasoning: None, provider_data: None });
            (e.frame, tool.into_iter().chain(answer).collect())
        }
        RunEvent::ToolCallFailed(e) => {
            let error = e.error.get().cloned().unwrap_or_default();
            let frames = record(after, &e.call_id).map(|tool| {
                vec![FrameBody::ToolCallCompleted { tool: tool.clone() }, FrameBody::ToolCallError { tool, error }]
            });
            (e.frame, frames.unwrap_or_default())
        }
        RunEvent::Paused(e) if after.is_flow() => {
            let steps = StepAsked::all(after);
            let members = e.members.get().cloned().flatten().unwrap_or_default();
            let results = after.flow.iter().flat_map(|flow| flow.results()).collect();
            (e.frame, pause_frames(&e.steps, after, FrameBody::FlowPaused { steps, members, results }))
        }
        RunEvent::Paused(e) => {
            let (requirements, tools, content) = (e.requirements.clone(), after.tools.clone(), after.content());
            let members = e.members.get().cloned().flatten().unwrap_or_default();
            let paused = FrameBody::Paused { requirements, members, tools, content };
            // As clients of the AgentOS API know it: only an agent that pauses says that its text is complete.
            let agent = after.component().is_none_or(|component| component.kind == ComponentKind::Agent);
            (e.frame, Some(FrameBody::ContentCompleted).filter(|_| agent).into_iter().chain([paused]).collect())
        }
        RunEvent::Succeeded(e) if after.is_flow() => (e.frame, vec![FrameBody::Completed(Box::new(RunEnd::of(after)))]),
        RunEvent::Succeeded(e) => {
            (e.frame, vec![FrameBody::ContentCompleted, FrameBody::Completed(Box::new(RunEnd::of(after)))])
        }
        RunEvent::Failed(e) => {
            let message = e.message.get().cloned().unwrap_or_default();
            (e.frame, vec![FrameBody::Error { message, error_type: e.error.as_str().to_owned() }])
        }
        RunEvent::Cancelled(e) => {
            let reason = e.reason.get().cloned().unwrap_or_default();
            let cancelled = FrameBody::Cancelled { content: after.content(), reason };
            (e.frame, vec![cancelled, FrameBody::Completed(Box::new(RunEnd::of(after)))])
        }
        RunEvent::StepStarted(_) | RunEvent::StepEnded(_) | RunEvent::BlockDecided(_) | RunEvent::BlockEnded(_) => {
            step_frames(event, after)
        }
        RunEvent::AnswerMissed(_)
        | RunEvent::ModelCallFailed(_)
        | RunEvent::ToolOutcomeUnknown(_)
        | RunEvent::RequirementResolved(_)
        | RunEvent::StepAnswered(_)
        | RunEvent::Replaced(_)
        | RunEvent::CancelRequested(_) => (0, vec![]),
        RunEvent::TaskChanged(e) => {
            let created = after.task(&e.task.id).is_some_and(|task| task.status == TaskStatus::Pending);
            let changed = FrameBody::Task { task: Box::new(e.task.clone()), created };
            (e.frame, vec![changed, FrameBody::Tasks { tasks: after.tasks.clone() }])
        }
    }
}

/// Sets the index of an event's first frame.
pub(crate) fn set_frame(event: &mut RunEvent, index: u64) {
    match event {
        RunEvent::TakenOver(e) => e.frame = index,
        RunEvent::TaskChanged(e) => e.frame = index,
        RunEvent::ModelCallRequested(e) => e.frame = index,
        RunEvent::ModelCallCompleted(e) => e.frame = index,
        RunEvent::ToolCallRequested(e) => e.frame = index,
        RunEvent::ToolCallCompleted(e) => e.frame = index,
        RunEvent::ToolCallFailed(e) => e.frame = index,
        RunEvent::Paused(e) => e.frame = index,
        RunEvent::Continued(e) => e.frame = index,
        RunEvent::Succeeded(e) => e.frame = index,
        RunEvent::Failed(e) => e.frame = index,
        RunEvent::Cancelled(e) => e.frame = index,
        RunEvent::Accepted(e) => e.frame = index,
        RunEvent::StepStarted(e) => e.frame = index,
        RunEvent::StepEnded(e) => e.frame = index,
        RunEvent::BlockDecided(e) => e.frame = index,
        RunEvent::BlockEnded(e) => e.frame = index,
        RunEvent::AnswerMissed(_)
        | RunEvent::ModelCallFailed(_)
        | RunEvent::StepAnswered(_)
        | RunEvent::ToolOutcomeUnknown(_)
        | RunEvent::RequirementResolved(_)
        | RunEvent::Replaced(_)
        | RunEvent::CancelRequested(_) => {}
    }
}

fn record(state: &RunState, call_id: &str) -> Option<Box<ToolRecord>> {
    state.tool(call_id).cloned().map(Box::new)
}

/// A frame as the table keeps it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct StoredFrame {
    /// The version of the shape.
    pub v: u8,
    /// The frame's index.
    pub i: u64,
    /// Unix seconds.
    pub at: i64,
    /// What it says.
    pub body: FrameBody,
    /// The run it is of, where that is not the one at the top.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub r: Option<RunId>,
}
