//! A run of a team in a list: described already, answered once there are teams.

use poem_openapi::Object;
use serde_json::Value;

/// A run of a team.
#[derive(Debug, Object)]
pub(crate) struct TeamRunSchema {
    /// The run.
    pub run_id: String,
    /// The run it is part of.
    pub parent_run_id: Option<String>,
    /// The team.
    pub team_id: Option<String>,
    /// Whom it was for.
    pub user_id: Option<String>,
    /// Where it stands.
    pub status: Option<String>,
    /// How far a cancelled run was.
    pub cancellation_stage: Option<String>,
    /// The answer.
    pub content: Option<Value>,
    /// What the model thought aloud.
    pub reasoning_content: Option<String>,
    /// Steps of reasoning.
    pub reasoning_steps: Option<Vec<Value>>,
    /// What was asked.
    pub run_input: Option<String>,
    /// How the answer is written.
    pub run_response_format: Option<String>,
    /// Tokens and seconds.
    pub metrics: Option<Value>,
    /// The tool calls.
    pub tools: Option<Vec<Value>>,
    /// What was said in this run.
    pub messages: Option<Vec<Value>>,
    /// What was streamed, without the pieces of text.
    pub events: Option<Vec<Value>>,
    /// ISO 8601.
    pub created_at: Option<String>,
    /// Documents used.
    pub references: Option<Vec<Value>>,
    /// Sources named by the model.
    pub citations: Option<Value>,
    /// Messages of reasoning.
    pub reasoning_messages: Option<Vec<Value>>,
    /// The session's state when the run ended.
    pub session_state: Option<Value>,
    /// What came with the request.
    pub input_media: Option<Value>,
    /// Images made.
    pub images: Option<Vec<Value>>,
    /// Videos made.
    pub videos: Option<Vec<Value>>,
    /// Audio made.
    pub audio: Option<Vec<Value>>,
    /// Files made.
    pub files: Option<Vec<Value>>,
    /// The answer as sound.
    pub response_audio: Option<Value>,
    /// Questions that could follow.
    pub followups: Option<Vec<String>>,
    /// The run it was forked from.
    pub forked_from_run_id: Option<String>,
    /// After which message.
    pub forked_from_message_index: Option<i64>,
    /// The session it was forked from.
    pub forked_from_session_id: Option<String>,
    /// The run it was made again from.
    pub regenerated_from: Option<String>,
    /// The last message with a checkpoint.
    pub last_checkpoint_at_message_index: Option<i64>,
}
