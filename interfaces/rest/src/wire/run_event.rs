//! What a frame's JSON may hold: for the documentation; [`super::events`] writes it.

use poem_openapi::Object;
use serde_json::Value;

/// One event of a run. Only the members that belong to the event are there.
#[derive(Object)]
pub(crate) struct RunEvent {
    /// Unix seconds.
    pub created_at: i64,
    /// The event's name, as in the frame's `event` line: `RunStarted`, `RunContent`, `RunContentCompleted`,
    /// `RunCompleted`, `RunError`, `RunCancelled`, `RunPaused`, `RunContinued`, `RunRestarted`, `ModelRequestStarted`,
    /// `ModelRequestCompleted`, `ToolCallStarted`, `ToolCallCompleted`, `ToolCallError`, or `CustomEvent` when a tool
    /// tells how far it is. Of a team's own run each begins with `Team`, `CustomEvent` apart, and there are
    /// `TeamTaskCreated`, `TeamTaskUpdated` and `TeamTaskStateUpdated`. The runs of members and steps are in the stream
    /// too, under the names of what they run.
    pub event: String,
    /// The agent, where the run is an agent's.
    pub agent_id: Option<String>,
    /// Its name for people.
    pub agent_name: Option<String>,
    /// The team, where the run is a team's.
    pub team_id: Option<String>,
    /// Its name for people.
    pub team_name: Option<String>,
    /// The run.
    pub run_id: String,
    /// The run that it is a member's of.
    pub parent_run_id: Option<String>,
    /// Its session.
    pub session_id: String,
    /// The workflow, where the run is a workflow's or carries out one of its steps.
    pub workflow_id: Option<String>,
    /// Its name for people.
    pub workflow_name: Option<String>,
    /// The workflow's run, where this one carries out a step.
    pub workflow_run_id: Option<String>,
    /// The step.
    pub step_id: Option<String>,
    /// The block that the step is in.
    pub parent_step_id: Option<String>,
    /// The step's name.
    pub step_name: Option<String>,
    /// Where the step stands: a number, or a list of numbers in a block.
    pub step_index: Option<Value>,
    /// How many runs are around a workflow's run; 0 of others.
    pub nested_depth: u32,
    /// Increases over the run and those under it; resume after it. Also in the frame's `id` line.
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
    /// At the end of a team's run: what its members did for it, their runs, in order.
    pub member_responses: Option<Vec<Value>>,
    /// A task of the team's list.
    pub task_id: Option<String>,
    /// Its title.
    pub title: Option<String>,
    /// What is to be done.
    pub description: Option<String>,
    /// The member who is to do it.
    pub assignee: Option<String>,
    /// How far it is: `pending`, `in_progress`, `completed`, `failed` or `skipped`; of a workflow, where it stands.
    pub status: Option<String>,
    /// The tasks that must be settled before.
    pub dependencies: Option<Vec<String>>,
    /// What came of it.
    pub result: Option<String>,
    /// How far the team's list is, for people.
    pub task_summary: Option<String>,
    /// Whether all of it is settled.
    pub goal_complete: Option<bool>,
    /// The list.
    pub tasks: Option<Vec<Value>>,
    /// What is said when all of it is settled.
    pub completion_summary: Option<String>,
    /// After a restart: which one it was.
    pub epoch: Option<u64>,
}
