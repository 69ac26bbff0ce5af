//! What happens when a step fails, takes long, or needs a person.

use serde::{Deserialize, Serialize};

use crate::run::InputField;

/// The policies of a step.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Policies {
    /// How often it is tried again when it failed.
    #[serde(skip_serializing_if = "Retries::is_none")]
    pub retries: Retries,
    /// Seconds one attempt may take; without end when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout_seconds: Option<u64>,
    /// What becomes of the workflow when it failed for good.
    pub on_error: OnError,
    /// What a person is asked about it.
    #[serde(skip_serializing_if = "HumanReview::is_none")]
    pub review: HumanReview,
}

impl Policies {
    /// Whether nothing differs from the defaults.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// How often a step is tried again when it failed, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Retries {
    /// How often, beyond the first attempt.
    pub count: u32,
    /// Milliseconds before the first of them.
    pub delay_ms: u64,
    /// Whether the wait doubles each time.
    pub exponential: bool,
    /// The longest wait, in milliseconds.
    pub cap_ms: u64,
}

impl Default for Retries {
    fn default() -> Self {
        Self { count: 0, delay_ms: 1_000, exponential: true, cap_ms: 60_000 }
    }
}

impl Retries {
    /// Whether nothing differs from the defaults: it is never tried again.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }

    /// Milliseconds to wait after the failure of this number, which counts from 1; `None` when it does not run again.
    pub fn wait_ms(&self, failures: u32) -> Option<u64> {
        if failures > self.count {
            return None;
        }
        let doubled = if self.exponential { failures.saturating_sub(1) } else { 0 };
        let factor = 1_u64.checked_shl(doubled).unwrap_or(u64::MAX);
        Some(self.delay_ms.saturating_mul(factor).min(self.cap_ms))
    }
}

/// What becomes of the workflow when a step failed for good.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnError {
    /// It fails.
    Fail,
    /// It goes on; the step's output says that it failed.
    #[default]
    Skip,
    /// It pauses, and a person says whether the step runs again or is skipped.
    Pause,
}

/// What a person is asked about a step.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct HumanReview {
    /// Whether it may run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub confirmation: Option<Confirmation>,
    /// Values it needs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_input: Option<UserInput>,
    /// Whether its input is right.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input: Option<InputReview>,
    /// Whether its output is right.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output: Option<OutputReview>,
}

impl HumanReview {
    /// Whether nobody is asked anything.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

/// A person says whether the step may run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Confirmation {
    /// What the person is asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// What a no means.
    pub on_reject: OnReject,
}

/// What becomes of a step that a person did not let run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnReject {
    /// It is left out, and the workflow goes on.
    #[default]
    Skip,
    /// The workflow is cancelled.
    Cancel,
    /// For a condition: its other steps run.
    Else,
}

impl OnReject {
    /// The name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Skip => "skip",
            Self::Cancel => "cancel",
            Self::Else => "else",
        }
    }
}

/// A person fills in values, which the step gets beside its input.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct UserInput {
    /// What the person is asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// The values; any when empty.
    pub fields: Vec<InputField>,
}

/// A person sees the step's input before it runs, and may change it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct InputReview {
    /// What the person is asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// What a no means.
    pub on_reject: OnReject,
}

/// A person sees the step's output before the workflow goes on, and may change it. A no runs the step again, with what
/// the person said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct OutputReview {
    /// What the person is asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// How often a no runs the step again; the step fails with the next.
    pub max_rejections: u32,
}

impl Default for OutputReview {
    fn default() -> Self {
        Self { message: None, max_rejections: 3 }
    }
}
