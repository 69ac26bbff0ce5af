//! What a frame's JSON may hold: for the documentation; [`super::events`] writes it.

use poem_openapi::Object;
use serde_json::Value;

/// One event of a run. Only the members that belong to the event are there.
#[derive(Object)]
pub(crate) struct RunEvent {
    /// Unix seconds.
    pub created_at: i64,
    /// The event's name, as in the frame's `event` line: `RunStarted`, `RunContent`, `RunContentCompleted`,
    /// `RunCompleted`, `RunError`, `RunCancelled`, `RunPaused`, `RunRestarted`, `ModelRequestStarted`,
    /// `ModelRequestCompleted`, `ToolCallStarted`, `ToolCallCompleted`, `ToolCallError`, or `CustomEvent` when a tool
    /// tells how far it is.
    pub event: String,
    /// The agent.
    pub agent_id: String,
    /// Its name for people.
    pub agent_name: String,
    /// The run.
    pub run_id: String,
    /// Its session.
    pub session_id: String,
    /// How many runs are around it.
    pub nested_depth: u32,
    /// Increases over the run; resume after it. Also in the frame's `id` line.
    pub event_index: u64,
    /// A piece of the answer, all of it, or what is said of a tool call; an object where the answer must have a shape.
    pub content: Option<Value>,
    /// `str`, or what the answer's shape is called.
    pub content_type: Option<String>,
    /// What the model thought aloud.
    pub reasoning_content: Option<String>,
    /// What the provider told about the response.
    pub model_provider_data: Option<Value>,
    /// Whether a workflow's agent speaks.
    pub workflow_agent: Option<bool>,
    /// The model.
    pub model: Option<String>,
    /// Its provider.
    pub model_provider: Option<String>,
    /// Tokens read by the model call.
    pub input_tokens: Option<u64>,
    /// Tokens written by it.
    pub output_tokens: Option<u64>,
    /// Both.
    pub total_tokens: Option<u64>,
    /// Seconds to its first token.
    pub time_to_first_token: Option<f64>,
    /// Tokens spent reasoning.
    pub reasoning_tokens: Option<u64>,
    /// Tokens read from a cache.
    pub cache_read_tokens: Option<u64>,
    /// Tokens written to a cache.
    pub cache_write_tokens: Option<u64>,
    /// The tool call.
    pub tool: Option<Value>,
    /// The id of the tool call that tells how far it is.
    pub tool_call_id: Option<String>,
    /// Its tool.
    pub tool_name: Option<String>,
    /// The tool calls a paused run asks about.
    pub tools: Option<Vec<Value>>,
    /// What a paused run waits for.
    pub requirements: Option<Vec<Value>>,
    /// What went wrong with a tool.
    pub error: Option<String>,
    /// What kind of thing went wrong with the run.
    pub error_type: Option<String>,
    /// Why the run was cancelled.
    pub reason: Option<String>,
    /// What the run cost.
    pub metrics: Option<Value>,
    /// What the caller keeps with the run.
    pub metadata: Option<Value>,
    /// The session's state.
    pub session_state: Option<Value>,
    /// After a restart: which one it was.
    pub epoch: Option<u64>,
}
