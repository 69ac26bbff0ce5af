//! A run in a list.

use daybook_domain::media::MediaKind;
use daybook_domain::run::RunState;
use daybook_engine::{RunDetail, RunMeta};
use poem_openapi::Object;
use serde_json::{Value, json};

use super::history::{events_from_fold, shows_events};
use super::run_parts::{content, cost, input_media, is_going_on, stage_name};
use super::time::iso_seconds;
use super::tool::Told;
use super::{media, message, tool};

/// What runs of agents and of teams have in common.
#[derive(Debug, Default, Object)]
pub(crate) struct RunSchemaParts {
    /// The run.
    pub run_id: String,
    /// The run it is part of, or an empty text.
    pub parent_run_id: Option<String>,
    /// Whom it was for, or an empty text.
    pub user_id: Option<String>,
    /// `PENDING`, `RUNNING`, `COMPLETED`, `PAUSED`, `CANCELLED` or `ERROR`.
    pub status: Option<String>,
    /// How far a cancelled run was.
    pub cancellation_stage: Option<String>,
    /// What was asked.
    pub run_input: Option<String>,
    /// The answer.
    pub content: Option<Value>,
    /// How the answer is written.
    pub run_response_format: Option<String>,
    /// What the model thought aloud.
    pub reasoning_content: Option<String>,
    /// Steps of reasoning.
    pub reasoning_steps: Option<Vec<Value>>,
    /// Tokens and seconds.
    pub metrics: Option<Value>,
    /// What was said in this run.
    pub messages: Option<Vec<Value>>,
    /// The tool calls.
    pub tools: Option<Vec<Value>>,
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
    /// What came with the request; bytes of large media are only with the single run.
    pub input_media: Option<Value>,
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

/// An agent's run.
#[derive(Debug, Default, Object)]
pub(crate) struct RunSchema {
    /// The agent.
    pub agent_id: Option<String>,
    /// What the caller keeps with the run.
    pub metadata: Option<Value>,
    /// What runs of all kinds have.
    #[oai(flatten)]
    pub parts: RunSchemaParts,
}

/// A team's run.
#[derive(Debug, Default, Object)]
pub(crate) struct TeamRunSchema {
    /// The team.
    pub team_id: Option<String>,
    /// What the caller keeps with the run.
    pub metadata: Option<Value>,
    /// What runs of all kinds have.
    #[oai(flatten)]
    pub parts: RunSchemaParts,
}

impl RunSchemaParts {
    /// A run; `None` for one that was never accepted.
    fn of(detail: &RunDetail) -> Option<Self> {
        let (state, config) = (&detail.state, &detail.config);
        let (accepted, meta) = (state.accepted.as_ref()?, RunMeta::of(state, config)?);
        let forked = accepted.forked.as_ref();
        let again = forked.filter(|from| from.regenerated);
        let going_on = is_going_on(state);
        let (content, kind) = content(state, config);
        let ended = |value: Value| Some(value).filter(|_| !going_on);
        let some = |items: Vec<Value>| Some(items).filter(|items| !items.is_empty() && !going_on);
        Some(Self {
            run_id: accepted.run_id.to_string(),
            parent_run_id: Some(accepted.parent.as_ref().map(|parent| parent.run_id.to_string()).unwrap_or_default()),
            user_id: Some(accepted.user_id.as_ref().map(ToString::to_string).unwrap_or_default()),
            status: Some(state.status.as_str().to_owned()),
            cancellation_stage: state.cancel_stage.map(|stage| stage_name(stage).to_owned()),
            run_input: state.messages.first().and_then(|first| first.content.clone()),
            content: Some(content.unwrap_or_else(|| Value::from(""))),
            run_response_format: Some(if kind == "str" { "text" } else { "json" }.to_owned()),
            reasoning_content: Some(if going_on { String::new() } else { state.reasoning() }),
            reasoning_steps: Some(Vec::new()),
            metrics: Some(cost(state, &meta.model, &meta.provider)),
            messages: some(message::of_run(state, config, &[])),
            tools: some(tool::executions(&state.tools, Told::InRun)),
            events: shows_events(state).then(|| events_from_fold(detail)),
            created_at: Some(iso_seconds(accepted.at_ms / 1000)),
            references: Some(Vec::new()),
            reasoning_messages: Some(Vec::new()),
            session_state: ended(Value::Object(state.session_state.clone().unwrap_or_default())),
            images: Some(Vec::new()),
            videos: Some(Vec::new()),
            audio: Some(Vec::new()),
            files: Some(Vec::new()),
            input_media: Some(given(state)),
            forked_from_run_id: forked.map(|from| from.run_id.to_string()),
            forked_from_message_index: forked.map(|from| from.message_index.into()),
            forked_from_session_id: accepted.copied_from.as_ref().map(ToString::to_string),
            regenerated_from: again.map(|from| from.run_id.to_string()),
            last_checkpoint_at_message_index: again.map(|from| from.message_index.into()),
            ..Self::default()
        })
    }
}

/// What the caller keeps with the run.
fn metadata(state: &RunState) -> Option<Value> {
    state.accepted.as_ref().and_then(|accepted| accepted.metadata.get().cloned().flatten()).map(Value::Object)
}

impl RunSchema {
    /// A run; `None` for one that was never accepted.
    pub fn of(detail: &RunDetail) -> Option<Self> {
        let parts = RunSchemaParts::of(detail)?;
        Some(Self { agent_id: Some(detail.config.id().to_string()), metadata: metadata(&detail.state), parts })
    }
}

impl TeamRunSchema {
    /// A run; `None` for one that was never accepted.
    pub fn of(detail: &RunDetail) -> Option<Self> {
        let parts = RunSchemaParts::of(detail)?;
        Some(Self { team_id: Some(detail.config.id().to_string()), metadata: metadata(&detail.state), parts })
    }
}

fn given(state: &RunState) -> Value {
    let of = |kind| media::of_kind(input_media(state), kind);
    json!({
        "images": of(MediaKind::Image),
        "videos": of(MediaKind::Video),
        "audios": of(MediaKind::Audio),
        "files": of(MediaKind::File),
    })
}
