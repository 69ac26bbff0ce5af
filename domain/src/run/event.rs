//! Events of a run. `frame` is the index of the first frame an event is shown as; see the engine's frames.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::command::{OnBusy, RunMode};
use super::pauses::{
    CancelRequested, RequirementResolved, RunCancelled, RunContinued, RunFailed, RunPaused, RunReplaced, RunSucceeded,
};
use super::task::TaskChanged;
use super::tree::{ChildRef, Parent};
use crate::component::ComponentRef;
use crate::event::{DomainEvent, events};
use crate::ids::{RunId, SessionId, UserId};
use crate::long_result::WholeResult;
use crate::media::Media;
use crate::message::{CallMetrics, Message, Replay, ToolCall};
use crate::output::OutputSchema;
use crate::personal::Personal;
use crate::session::Admission;
use crate::tool::Effect;
use crate::usage::Spent;
use crate::workflow::{BlockDecided, BlockEnded, StepAnswered, StepEnded, StepStarted};

/// The run was accepted; from here on it is never lost.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunAccepted {
    /// Its id.
    pub run_id: RunId,
    /// Its session.
    pub session_id: SessionId,
    /// Whom it is for.
    #[serde(default)]
    pub user_id: Option<UserId>,
    /// What runs.
    pub component: ComponentRef,
    /// The hash of the configuration it runs with, also after a restart with another one.
    pub config_hash: String,
    /// How the caller waits.
    pub mode: RunMode,
    /// What it asked for when the session was busy.
    #[serde(default)]
    pub on_busy: OnBusy,
    /// How the session let it in.
    pub admission: Admission,
    /// Whether it is cancelled when its client goes away.
    #[serde(default)]
    pub cancel_on_disconnect: bool,
    /// What was said.
    pub message: Personal<String>,
    /// What came with it.
    #[serde(default)]
    pub media: Personal<Vec<Media>>,
    /// For the tools of this run only.
    #[serde(default)]
    pub dependencies: Personal<Option<Map<String, Value>>>,
    /// Kept with the run.
    #[serde(default)]
    pub metadata: Personal<Option<Map<String, Value>>>,
    /// The shape of the answer, where the caller wants another than the agent's.
    #[serde(default, skip_serializing_if = "Personal::is_absent")]
    pub output_schema: Personal<Option<OutputSchema>>,
    /// The run it goes on from, where it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forked: Option<Forked>,
    /// What was said in that run up to there; the run's own messages follow.
    #[serde(default, skip_serializing_if = "Personal::is_absent")]
    pub base: Personal<Option<Vec<Message>>>,
    /// The session it was first of, where it is the copy of a run there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub copied_from: Option<SessionId>,
    /// The run that started it, where it is a child run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<Box<Parent>>,
    /// The index of the `RunStarted` frame; 0 but for a child run.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub frame: u64,
    /// Unix milliseconds.
    pub at_ms: i64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands references")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// Where a run goes on from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Forked {
    /// The other run.
    pub run_id: RunId,
    /// How many of its messages are taken over, its system message included.
    pub message_index: u32,
    /// Whether its last answer is given anew.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub regenerated: bool,
}

/// Another node took the run over, or the same after a restart.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunTakenOver {
    /// The node that runs it now.
    pub node: String,
    /// The lease's new epoch.
    pub epoch: u64,
    /// The index of the restart frame.
    pub frame: u64,
    /// Unix milliseconds.
    pub at_ms: i64,
}

/// The model is about to be called.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelCallRequested {
    /// Names the call; an attempt after a crash keeps it.
    pub call_id: String,
    /// 1 for the first call of the run, 2 after the first tools, ...
    pub iteration: u32,
    /// 1, or more when a crash hid the outcome.
    pub attempt: u32,
    /// The version of the session's event whose summary precedes all else that was said, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub summary: Option<u64>,
    /// Earlier runs whose messages precede this run's, oldest first.
    #[serde(default)]
    pub history: Vec<RunId>,
    /// How many messages this run itself gave to the call, without the system message.
    pub own_messages: usize,
    /// SHA-256 of the canonical request, hex: proves a rebuilt request.
    pub prompt_hash: String,
    /// SHA-256 of the tool schemas, hex.
    pub tools_hash: String,
    /// The index of the `ModelRequestStarted` frame.
    pub frame: u64,
    /// Unix milliseconds.
    pub at_ms: i64,
}

/// The model answered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelCallCompleted {
    /// The call.
    pub call_id: String,
    /// What it said; empty for tool calls only.
    pub text: Personal<String>,
    /// What it thought aloud.
    #[serde(default)]
    pub reasoning: Personal<Option<String>>,
    /// What the provider wants given back with the answer.
    #[serde(default, skip_serializing_if = "Personal::is_absent")]
    pub replay: Personal<Option<Replay>>,
    /// The tools it asked for; names and ids are not personal, arguments are.
    #[serde(default)]
    pub tool_calls: Vec<RequestedCall>,
    /// Why it stopped: `stop`, `tool_calls`, `length`, ...
    pub finish_reason: String,
    /// What the provider told about the response.
    #[serde(default)]
    pub provider_data: Option<Value>,
    /// Tokens and times.
    pub metrics: CallMetrics,
    /// The index of the `ModelRequestCompleted` frame.
    pub frame: u64,
    /// Unix milliseconds.
    pub at_ms: i64,
}

/// A tool call as an event keeps it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RequestedCall {
    /// The call's id.
    pub id: String,
    /// The tool's name.
    pub name: String,
    /// Its arguments as the model wrote them.
    pub arguments: Personal<String>,
}

impl From<ToolCall> for RequestedCall {
    fn from(call: ToolCall) -> Self {
        Self { id: call.id, name: call.name, arguments: call.arguments.into() }
    }
}

/// The answer does not have the shape it must have, and the model is told so. It is asked again: what it said is no part of
/// what the run says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AnswerMissed {
    /// The model call that gave the answer.
    pub call_id: String,
    /// Counts the run's repairs from 1.
    pub repair: u32,
    /// What the model is told, word for word.
    pub told: Personal<String>,
    /// Unix milliseconds.
    pub at_ms: i64,
}

/// What kind of thing went wrong; shown to clients as `error_type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorKind {
    /// The provider answered with an error, nonsense or half an answer, or not at all.
    ModelProviderError,
    /// The provider took too long.
    ModelTimeout,
    /// The run made as many model calls as it may.
    IterationLimit,
    /// Nobody decided in time, and the tool's rule says that the run fails then.
    ApprovalExpired,
    /// A member of the team failed, and the team's rule says that the run fails then.
    MemberError,
    /// A step of the workflow failed, and its policy says that the run fails then.
    StepError,
    /// Daybook itself could not go on.
    InternalError,
}

impl ErrorKind {
    /// The kind's name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ModelProviderError => "model_provider_error",
            Self::ModelTimeout => "model_timeout",
            Self::IterationLimit => "iteration_limit",
            Self::ApprovalExpired => "approval_expired",
            Self::MemberError => "member_error",
            Self::StepError => "step_error",
            Self::InternalError => "internal_error",
        }
    }
}

/// The model call failed for good.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelCallFailed {
    /// The call.
    pub call_id: String,
    /// What kind of failure.
    pub error: ErrorKind,
    /// What happened, for people.
    pub message: Personal<String>,
    /// What watchers had seen of the answer.
    #[serde(default)]
    pub partial: Personal<Option<String>>,
    /// Unix milliseconds.
    pub at_ms: i64,
}

/// A tool is about to be called.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ToolCallRequested {
    /// The call the model asked for.
    pub call_id: String,
    /// The tool.
    pub tool: String,
    /// The same for every attempt of this call.
    pub idempotency_key: String,
    /// What a second call of it does.
    pub effect: Effect,
    /// 1, or more when a crash hid the outcome.
    pub attempt: u32,
    /// The runs that carry it out, where it hands out work.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub children: Vec<ChildRef>,
    /// The index of the `ToolCallStarted` frame.
    pub frame: u64,
    /// Unix milliseconds.
    pub at_ms: i64,
}

/// The tool answered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ToolCallCompleted {
    /// The call.
    pub call_id: String,
    /// What it said, as the model reads it: of a long result the beginning and the end.
    pub result: Personal<String>,
    /// Where all of it is, when it was too long.
    #[serde(default, skip_serializing_if = "Personal::is_absent")]
    pub whole: Personal<Option<WholeResult>>,
    /// Media that came with it.
    #[serde(default, skip_serializing_if = "Personal::is_absent")]
    pub media: Personal<Option<Vec<Media>>>,
    /// Whether what it said is the run's answer: the model is not asked again.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub answers: bool,
    /// What the runs that carried it out cost.
    #[serde(default, skip_serializing_if = "Spent::is_empty")]
    pub spent: Spent,
    /// Seconds it took.
    pub duration: f64,
    /// The index of the `ToolCallCompleted` frame.
    pub frame: u64,
    /// Unix milliseconds.
    pub at_ms: i64,
}

/// The tool failed; the model is told and may go on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ToolCallFailed {
    /// The call.
    pub call_id: String,
    /// What went wrong, as the model reads it: of a long text the beginning and the end.
    pub error: Personal<String>,
    /// Where all of it is, when it was too long.
    #[serde(default, skip_serializing_if = "Personal::is_absent")]
    pub whole: Personal<Option<WholeResult>>,
    /// Whether the run fails with it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub fatal: bool,
    /// What the runs that carried it out cost.
    #[serde(default, skip_serializing_if = "Spent::is_empty")]
    pub spent: Spent,
    /// Seconds it took.
    pub duration: f64,
    /// The index of the `ToolCallCompleted` frame, which the `ToolCallError` frame follows.
    pub frame: u64,
    /// Unix milliseconds.
    pub at_ms: i64,
}

/// Nobody knows whether the tool did its work: a crash or a cancel came between.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ToolOutcomeUnknown {
    /// The call.
    pub call_id: String,
    /// Unix milliseconds.
    pub at_ms: i64,
}

events! {
    /// What happens to a run.
    RunEvent, "Run" {
        /// It was accepted.
        Accepted(Box<RunAccepted>) = 1,
        /// Another node has it now.
        TakenOver(RunTakenOver) = 1,
        /// The model is about to be called.
        ModelCallRequested(ModelCallRequested) = 1,
        /// The model answered.
        ModelCallCompleted(ModelCallCompleted) = 1,
        /// The answer does not have its shape; the model is asked again.
        AnswerMissed(AnswerMissed) = 1,
        /// The model call failed for good.
        ModelCallFailed(ModelCallFailed) = 1,
        /// A tool is about to be called.
        ToolCallRequested(ToolCallRequested) = 1,
        /// A tool answered.
        ToolCallCompleted(ToolCallCompleted) = 1,
        /// A tool failed.
        ToolCallFailed(ToolCallFailed) = 1,
        /// Nobody knows what a tool did.
        ToolOutcomeUnknown(ToolOutcomeUnknown) = 1,
        /// A task of the team's list was added, or came further.
        TaskChanged(TaskChanged) = 1,
        /// A step of a workflow is about to run.
        StepStarted(StepStarted) = 1,
        /// A step has an outcome.
        StepEnded(StepEnded) = 1,
        /// What a block of steps does next was decided.
        BlockDecided(BlockDecided) = 1,
        /// Nothing more runs in a block of steps.
        BlockEnded(BlockEnded) = 1,
        /// A person answered what was asked about a step.
        StepAnswered(StepAnswered) = 1,
        /// It waits for a person.
        Paused(RunPaused) = 1,
        /// A person answered.
        RequirementResolved(RequirementResolved) = 1,
        /// It goes on.
        Continued(RunContinued) = 1,
        /// Another took its place.
        Replaced(RunReplaced) = 1,
        /// Somebody asked it to stop.
        CancelRequested(CancelRequested) = 1,
        /// It ended well.
        Succeeded(RunSucceeded) = 1,
        /// It ended with an error.
        Failed(RunFailed) = 1,
        /// It was stopped.
        Cancelled(RunCancelled) = 1,
    }
}

impl RunEvent {
    pub(crate) fn wrap(self) -> DomainEvent {
        DomainEvent::Run(self)
    }

    /// Whether it ends the run.
    pub fn is_end(&self) -> bool {
        matches!(self, Self::Succeeded(_) | Self::Failed(_) | Self::Cancelled(_))
    }
}
