//! What happens to the steps of a run. An event says what is new, and never repeats what earlier steps came to.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::output::{Executor, StepType};
use super::place::Place;
use super::policy::OnError;
use crate::media::Media;
use crate::personal::Personal;
use crate::run::ChildRef;
use crate::tool::Effect;
use crate::usage::Spent;

/// A step that runs one thing is about to run it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StepStarted {
    /// Where it is.
    pub place: Place,
    /// Its name.
    pub name: String,
    /// What carries it out.
    pub executor: Executor,
    /// Counts from 1; failures, reviews and crashes make it more.
    pub attempt: u32,
    /// What running it again does.
    pub effect: Effect,
    /// The same for every attempt that is to have the same outcome.
    pub idempotency_key: String,
    /// The run that carries it out, where it runs a component.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub child: Option<ChildRef>,
    /// A tool's arguments, or what an expression made the input; nothing where it is what the earlier steps said.
    #[serde(default, skip_serializing_if = "Personal::is_absent")]
    pub input: Personal<Option<Value>>,
    /// The index of the `StepStarted` frame.
    pub frame: u64,
    /// Unix milliseconds.
    pub at_ms: i64,
}

/// What becomes of a step that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AfterError {
    /// It runs again, by itself.
    Retry,
    /// The workflow fails.
    Fail,
    /// The workflow goes on.
    Skip,
    /// A person says whether it runs again.
    Pause,
}

impl From<OnError> for AfterError {
    fn from(on_error: OnError) -> Self {
        match on_error {
            OnError::Fail => Self::Fail,
            OnError::Skip => Self::Skip,
            OnError::Pause => Self::Pause,
        }
    }
}

/// A step has an outcome.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StepEnded {
    /// Where it is.
    pub place: Place,
    /// Its name.
    pub name: String,
    /// Its type.
    #[serde(default)]
    pub kind: StepType,
    /// The attempt; 0 of a block that could not be decided, and of a step that is not to run any more.
    pub attempt: u32,
    /// What it said.
    #[serde(default)]
    pub content: Personal<Value>,
    /// Media that came with it.
    #[serde(default, skip_serializing_if = "Personal::is_absent")]
    pub media: Personal<Option<Vec<Media>>>,
    /// What went wrong, where it failed.
    #[serde(default, skip_serializing_if = "Personal::is_absent")]
    pub error: Personal<Option<String>>,
    /// What becomes of it, where it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub then: Option<AfterError>,
    /// Whether it wants the workflow to end after it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub stop: bool,
    /// What its child run cost.
    #[serde(default, skip_serializing_if = "Spent::is_empty")]
    pub spent: Spent,
    /// Seconds to the first token of its child run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_to_first_token: Option<f64>,
    /// Seconds it took.
    pub duration: f64,
    /// The index of the first frame it is shown as; see [`FlowState::frames_of_end`](super::FlowState::frames_of_end).
    pub frame: u64,
    /// Unix milliseconds.
    pub at_ms: i64,
}

/// A block was entered, or what it does next was decided. Expressions and functions that decide are never asked twice.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BlockDecided {
    /// Where it is.
    pub place: Place,
    /// Its name.
    pub name: String,
    /// What was decided.
    pub decision: Decision,
    /// The index of the first frame: the block's beginning, or the end of an iteration and the beginning of the next.
    pub frame: u64,
    /// Unix milliseconds.
    pub at_ms: i64,
}

/// What was decided about a block.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Decision {
    /// Whether a condition's test holds.
    Condition {
        /// Whether it does.
        holds: bool,
    },
    /// A parallel block was entered.
    Parallel {
        /// How many steps it has.
        steps: u32,
    },
    /// A loop was entered, and its first iteration begins.
    Loop {
        /// The most iterations.
        max_iterations: u32,
    },
    /// An iteration of a loop ended.
    Iteration {
        /// Which, from 1.
        number: u32,
        /// Whether the next one begins.
        goes_on: bool,
    },
    /// The chosen steps of a router.
    Router {
        /// Their names, in the order they run in.
        chosen: Vec<String>,
    },
    /// A group was entered.
    Group {
        /// How many steps it has.
        steps: u32,
    },
}

impl Decision {
    /// The type of block it is about.
    pub fn block(&self) -> StepType {
        match self {
            Self::Condition { .. } => StepType::Condition,
            Self::Parallel { .. } => StepType::Parallel,
            Self::Loop { .. } | Self::Iteration { .. } => StepType::Loop,
            Self::Router { .. } => StepType::Router,
            Self::Group { .. } => StepType::Steps,
        }
    }

    /// How many frames it is shown as: the end of an iteration and the beginning of the next are one each.
    pub fn frames(&self) -> u64 {
        match self {
            Self::Loop { .. } | Self::Iteration { goes_on: true, .. } => 2,
            _ => 1,
        }
    }
}

/// Nothing more runs in a block. What it came to follows from what its steps came to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BlockEnded {
    /// Where it is.
    pub place: Place,
    /// Its name.
    pub name: String,
    /// The index of the frame.
    pub frame: u64,
    /// Unix milliseconds.
    pub at_ms: i64,
}

/// A person answered what was asked about a step. Nothing runs before everything asked was answered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StepAnswered {
    /// Where the step is.
    pub place: Place,
    /// Yes or no, to what was asked.
    pub confirmed: bool,
    /// Why, or what to do better.
    #[serde(default, skip_serializing_if = "Personal::is_absent")]
    pub feedback: Personal<Option<String>>,
    /// What was filled in.
    #[serde(default, skip_serializing_if = "Personal::is_absent")]
    pub values: Personal<Option<Map<String, Value>>>,
    /// The steps that a router runs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub choices: Vec<String>,
    /// What takes the place of the step's input.
    #[serde(default, skip_serializing_if = "Personal::is_absent")]
    pub input: Personal<Option<Value>>,
    /// What takes the place of the step's output, or is its output.
    #[serde(default, skip_serializing_if = "Personal::is_absent")]
    pub output: Personal<Option<Value>>,
    /// Who answered, as the server knows the caller.
    pub by: String,
    /// Unix milliseconds.
    pub at_ms: i64,
}
