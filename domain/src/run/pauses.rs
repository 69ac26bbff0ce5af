//! Events of a run that waits for people, goes on, and ends.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::command::RunMode;
use super::event::ErrorKind;
use super::requirement::{Decision, Requirement};
use super::tree::MemberAsk;
use crate::ids::{ApprovalId, RunId};
use crate::personal::Personal;
use crate::session::Admission;
use crate::workflow::{Place, StepRequirement};

/// The run waits for a person.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunPaused {
    /// What for.
    pub requirements: Vec<Requirement>,
    /// What its child runs wait for. They are answered, not this one: what is here is a copy for those who watch.
    #[serde(default, skip_serializing_if = "Personal::is_absent")]
    pub members: Personal<Option<Vec<MemberAsk>>>,
    /// What is asked about the steps of a workflow.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<StepRequirement>,
    /// The index of the `RunPaused` frame.
    pub frame: u64,
    /// Unix milliseconds.
    pub at_ms: i64,
}

/// A person answered what was asked about a tool call. Nothing runs before everything asked was answered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RequirementResolved {
    /// The tool call.
    pub call_id: String,
    /// What was decided.
    pub decision: Decision,
    /// Why, for the model.
    #[serde(default, skip_serializing_if = "Personal::is_absent")]
    pub note: Personal<Option<String>>,
    /// Values by argument, or chosen labels by question.
    #[serde(default, skip_serializing_if = "Personal::is_absent")]
    pub values: Personal<Option<Map<String, Value>>>,
    /// What the model is given as the call's result.
    #[serde(default, skip_serializing_if = "Personal::is_absent")]
    pub result: Personal<Option<String>>,
    /// Who answered, as the server knows the caller.
    pub by: String,
    /// The approval that answered, where one did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approval: Option<ApprovalId>,
    /// Whether the run fails, because nobody decided in time.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub fails: bool,
    /// Unix milliseconds.
    pub at_ms: i64,
}

/// Everything was answered: the run goes on, or waits for its session.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunContinued {
    /// How who continued it waits.
    pub mode: RunMode,
    /// How the session let it in again.
    pub admission: Admission,
    /// The steps of a workflow that it waited for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<Place>,
    /// The index of the `RunContinued` frame, or of the first `StepContinued` frame.
    pub frame: u64,
    /// Unix milliseconds.
    pub at_ms: i64,
}

/// Another run took this ended one's place: it is no longer part of the conversation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunReplaced {
    /// The other run.
    pub by: RunId,
    /// Unix milliseconds.
    pub at_ms: i64,
}

/// Somebody asked the run to stop; no tool starts after this.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CancelRequested {
    /// Who.
    pub by: String,
    /// Why, if they said.
    #[serde(default)]
    pub why: Personal<Option<String>>,
    /// Unix milliseconds.
    pub at_ms: i64,
}

/// The run ended well.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunSucceeded {
    /// The session's state when it ended.
    #[serde(default)]
    pub session_state: Personal<Map<String, Value>>,
    /// Seconds from acceptance.
    pub duration: f64,
    /// The index of the `RunContentCompleted` frame, which `RunCompleted` follows.
    pub frame: u64,
    /// Unix milliseconds.
    pub at_ms: i64,
}

/// The run ended with an error.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunFailed {
    /// What kind.
    pub error: ErrorKind,
    /// What happened, for people.
    pub message: Personal<String>,
    /// The session's state when it ended.
    #[serde(default)]
    pub session_state: Personal<Map<String, Value>>,
    /// Seconds from acceptance.
    pub duration: f64,
    /// The index of the `RunError` frame.
    pub frame: u64,
    /// Unix milliseconds.
    pub at_ms: i64,
}

/// The run was stopped.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunCancelled {
    /// Why, for people.
    pub reason: Personal<String>,
    /// Whether it waited in the queue, ran or was paused.
    pub stage: RunStage,
    /// What the open model call had said and watchers had seen.
    #[serde(default)]
    pub partial: Personal<Option<String>>,
    /// What the provider had told about the open model call.
    #[serde(default)]
    pub provider_data: Option<Value>,
    /// Seconds to the first token of the open model call.
    #[serde(default)]
    pub time_to_first_token: Option<f64>,
    /// The session's state when it ended.
    #[serde(default)]
    pub session_state: Personal<Map<String, Value>>,
    /// Seconds from acceptance.
    pub duration: f64,
    /// The index of the `RunCancelled` frame, which `RunCompleted` follows.
    pub frame: u64,
    /// Unix milliseconds.
    pub at_ms: i64,
}

/// How far a run was when it was cancelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum RunStage {
    /// It waited in its session's queue.
    Pending,
    /// It ran.
    Executing,
    /// It waited for a person.
    Paused,
}
