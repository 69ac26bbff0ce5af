//! What a tool promises: its schema and what a second call of it may do.

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
}

fn default_timeout() -> u64 {
    60
}
