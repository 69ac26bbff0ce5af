//! What a tool promises: its schema, what a second call of it may do, and what a person is asked before it runs.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What calling a tool again does. Decides what happens to a call whose outcome a crash hid.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// Changes nothing: called again freely.
    Pure,
    /// Changes the world once per idempotency key: called again with the same key.
    Idempotent,
    /// May do harm when called twice: a person is asked.
    #[default]
    Unsafe,
}

/// What is asked of a person before the tool runs, or instead of running it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Gate {
    /// Nothing.
    #[default]
    None,
    /// Whether it may run.
    Confirmation,
    /// Some of its arguments.
    UserInput {
        /// The arguments a person fills in; what the model wrote for them is dropped. All of them when empty.
        fields: Vec<String>,
    },
    /// Choices: the call's argument `questions` holds what is asked, and the choices are its result.
    Feedback,
    /// To run it elsewhere and give its result.
    External {
        /// Whether the wait is left without words to the person who talks to the agent.
        #[serde(default)]
        silent: bool,
    },
}

impl Gate {
    /// Whether nothing is asked.
    pub fn is_none(&self) -> bool {
        *self == Self::None
    }
}

/// Whether somebody with authority must agree to a call, or the decision is only recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ApprovalKind {
    /// The call runs only when an approval of its exact arguments was granted, whoever continues the run.
    Required,
    /// What was decided is recorded as an approval.
    Audit,
}

/// What happens to a run when nobody decided in time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnExpiry {
    /// The call counts as rejected, and the run goes on.
    #[default]
    Deny,
    /// The run fails.
    Fail,
    /// It keeps waiting; the approval can still be resolved.
    Wait,
}

/// The approval a tool's calls need.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApprovalRule {
    /// Whether it gates or records.
    pub kind: ApprovalKind,
    /// Seconds until the approval expires; never when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_after_seconds: Option<u64>,
    /// What happens then.
    #[serde(default)]
    pub on_expiry: OnExpiry,
    /// Seconds between reminders while nobody has decided; none when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remind_every_seconds: Option<u64>,
    /// Whether the user whose run it is may not decide.
    #[serde(default)]
    pub not_by_requester: bool,
}

impl ApprovalRule {
    /// An approval of this kind that never expires and that anybody may decide.
    pub fn new(kind: ApprovalKind) -> Self {
        Self {
            kind,
            expires_after_seconds: None,
            on_expiry: OnExpiry::default(),
            remind_every_seconds: None,
            not_by_requester: false,
        }
    }

    /// What is wrong with the rule, and how to mend it; `None` when it can be followed.
    pub fn fault(&self) -> Option<&'static str> {
        let waits = self.expires_after_seconds.is_some()
            || self.on_expiry != OnExpiry::default()
            || self.remind_every_seconds.is_some();
        if self.kind == ApprovalKind::Audit && (waits || self.not_by_requester) {
            return Some(
                "an approval of kind `audit` records what was decided, and waits for nobody: say `kind: required`, or take \
                 out expires_after_seconds, on_expiry, remind_every_seconds and not_by_requester",
            );
        }
        if self.on_expiry != OnExpiry::default() && self.expires_after_seconds.is_none() {
            return Some("`on_expiry` needs `expires_after_seconds`: without it an approval never expires");
        }
        match (self.expires_after_seconds, self.remind_every_seconds) {
            (Some(0), _) => Some("`expires_after_seconds` is in seconds, and at least 1"),
            (_, Some(0)) => Some("`remind_every_seconds` is in seconds, and at least 1"),
            _ => None,
        }
    }
}

/// A tool as the model and the log know it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ToolSpec {
    /// The name the model calls.
    pub name: String,
    /// What it does, for the model.
    #[serde(default)]
    pub description: String,
    /// JSON Schema of its arguments.
    pub parameters: Value,
    /// What calling it again does.
    #[serde(default)]
    pub effect: Effect,
    /// The longest one call may take, in seconds.
    #[serde(default = "default_timeout")]
    pub timeout_seconds: u64,
    /// How often a call that failed is tried again at once. Calls of an unsafe tool never are.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub retries: u32,
    /// What is asked of a person first.
    #[serde(default, skip_serializing_if = "Gate::is_none")]
    pub gate: Gate,
    /// The approval its calls need.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approval: Option<ApprovalRule>,
}

impl ToolSpec {
    /// A tool with these arguments (JSON Schema of an object), unsafe, with 60 seconds a call and without gates.
    pub fn new(name: impl Into<String>, description: impl Into<String>, parameters: Value) -> Self {
        Self {
            name: name.into(),
            description: description.into(),
            parameters,
            effect: Effect::default(),
            timeout_seconds: default_timeout(),
            retries: 0,
            gate: Gate::None,
            approval: None,
        }
    }

    /// What a second call of it does.
    #[must_use]
    pub fn effect(self, effect: Effect) -> Self {
        Self { effect, ..self }
    }

    /// Whether a call runs only when an approval was granted.
    pub fn needs_approval(&self) -> bool {
        self.approval.as_ref().is_some_and(|rule| rule.kind == ApprovalKind::Required)
    }
}

fn default_timeout() -> u64 {
    60
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands references")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}
