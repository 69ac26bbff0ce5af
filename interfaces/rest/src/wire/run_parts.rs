//! What runs of agents and of teams have in common, as they are read one by one.

use daybook_domain::component::ComponentConfig;
use daybook_domain::media::{Media, MediaKind};
use daybook_domain::message::Role;
use daybook_domain::output::OutputSchema;
use daybook_domain::run::{RunStage, RunState, RunStatus};
use daybook_engine::{RunDetail, RunMeta, output_schema};
use poem_openapi::Object;
use serde_json::{Map, Value};

use super::members::Members;
use super::tool::Told;
use super::{media, message, metrics, pause, tool};

/// A run, its answer and how it came about.
#[derive(Debug, Default, Object)]
#[oai(skip_serializing_if_is_none)]
pub(crate) struct RunParts {
    /// The run.
    pub run_id: String,
    /// The run that started it, where it is a member's or a step's.
    pub parent_run_id: Option<String>,
    /// The step of a workflow that it carries out.
    pub workflow_step_id: Option<String>,
    /// The conversation.
    pub session_id: String,
    /// Whom it was for.
    pub user_id: Option<String>,
    /// The answer; for a failed run what went wrong. An object where the answer must have a shape.
    pub content: Option<Value>,
    /// `str`, or what the answer's shape is called.
    pub content_type: String,
    /// What the model thought aloud.
    pub reasoning_content: Option<String>,
    /// What the provider told about the response.
    pub model_provider_data: Option<Value>,
    /// The model.
    pub model: String,
    /// Its provider.
    pub model_provider: String,
    /// The session's state when the run ended.
    pub session_state: Option<Value>,
    /// Unix seconds.
    pub created_at: i64,
    /// `PENDING`, `RUNNING`, `COMPLETED`, `PAUSED`, `CANCELLED`, `ERROR`, or `REGENERATED` when another took its place.
    pub status: String,
    /// How far a cancelled run was: `PENDING`, `EXECUTING` or `PAUSED`.
    pub cancellation_stage: Option<String>,
    /// Up to where an answer that was given anew took over the messages of the first.
    pub last_checkpoint_at_message_index: Option<u32>,
    /// The run it goes on from.
    pub forked_from_run_id: Option<String>,
    /// How many of that run's messages it took over.
    pub forked_from_message_index: Option<u32>,
    /// The session it is a copy from.
    pub forked_from_session_id: Option<String>,
    /// The run whose answer it gives anew.
    pub regenerated_from: Option<String>,
    /// Tokens and seconds.
    pub metrics: Value,
    /// What was streamed, without the pieces of text.
    pub events: Option<Vec<Value>>,
    /// The system message, what the model saw of earlier runs, and what was said in this one.
    pub messages: Option<Vec<Value>>,
    /// What the caller keeps with the run.
    pub metadata: Option<Value>,
    /// The tool calls.
    pub tools: Option<Vec<Value>>,
    /// Images that tools gave.
    pub images: Option<Vec<Value>>,
    /// Videos that tools gave.
    pub videos: Option<Vec<Value>>,
    /// Audio that tools gave.
    pub audio: Option<Vec<Value>>,
    /// Files that tools gave.
    pub files: Option<Vec<Value>>,
    /// What a paused run waits for.
    pub requirements: Option<Vec<Value>>,
    /// What was asked.
    pub input: Value,
}

impl RunParts {
    /// A run as it stands.
    pub fn of(detail: &RunDetail) -> Self {
        let RunDetail { state, config, history, .. } = detail;
        let Some(accepted) = &state.accepted else { return Self::default() };
        let (meta, forked) = (RunMeta::accepted(accepted, config), accepted.forked.as_ref());
        let step = accepted.parent.as_ref().and_then(|parent| parent.step.as_ref());
        let begun = Self {
            run_id: accepted.run_id.to_string(),
            parent_run_id: accepted.parent.as_ref().map(|parent| parent.run_id.to_string()),
            workflow_step_id: step.map(|step| step.step_id.clone()),
            session_id: accepted.session_id.to_string(),
            user_id: accepted.user_id.as_ref().map(ToString::to_string),
            content_type: "str".to_owned(),
            metrics: cost(state, &meta.model, &meta.provider),
            model: meta.model,
            model_provider: meta.provider,
            created_at: accepted.at_ms / 1000,
            status: state.status.as_str().to_owned(),
            metadata: accepted.metadata.get().cloned().flatten().or(step.map(|_| Map::new())).map(Value::Object),
            input: input(state),
            last_checkpoint_at_message_index: forked.filter(|from| from.regenerated).map(|from| from.message_index),
            forked_from_run_id: forked.map(|from| from.run_id.to_string()),
            forked_from_message_index: forked.map(|from| from.message_index),
            forked_from_session_id: accepted.copied_from.as_ref().map(ToString::to_string),
            regenerated_from: forked.filter(|from| from.regenerated).map(|from| from.run_id.to_string()),
            ..Self::default()
        };
        if is_going_on(state) {
            return begun;
        }
        let (content, content_type) = content(state, config);
        Self {
            content,
            content_type,
            reasoning_content: Some(state.reasoning()).filter(|text| !text.is_empty()),
            model_provider_data: state.provider_data.clone(),
            session_state: Some(Value::Object(state.session_state.clone().unwrap_or_default())),
            cancellation_stage: state.cancel_stage.map(|stage| stage_name(stage).to_owned()),
            messages: Some(message::of_run(state, config, history)),
            tools: Some(tool::executions(&state.tools, Told::InRun)).filter(|tools| !tools.is_empty()),
            requirements: Some(pause::in_run(detail)).filter(|needed| !needed.is_empty()),
            images: given(state, MediaKind::Image),
            videos: given(state, MediaKind::Video),
            audio: given(state, MediaKind::Audio),
            files: given(state, MediaKind::File),
            ..begun
        }
    }

    /// As the answer to the request that started the run: a run that ended well says that it called no tools.
    pub fn answering(detail: &RunDetail) -> Self {
        let output = Self::of(detail);
        let empty = (detail.state.status == RunStatus::Completed).then(Vec::new);
        Self { tools: output.tools.or(empty), ..output }
    }

    /// With what was decided about one of its calls.
    pub fn with_approval(mut self, approval: Value) -> Self {
        let mut metadata = self.metadata.take().unwrap_or_else(|| Value::Object(Default::default()));
        metadata["approval"] = approval;
        Self { metadata: Some(metadata), ..self }
    }
}

/// Whether the run has neither ended nor paused.
pub(crate) fn is_going_on(state: &RunState) -> bool {
    !state.status.is_end() && state.status != RunStatus::Paused
}

/// The answer, or what is said instead of one, and its type.
pub(crate) fn content(state: &RunState, config: &ComponentConfig) -> (Option<Value>, String) {
    let shape = state.accepted.as_ref().and_then(|accepted| output_schema(config, accepted));
    if let (RunStatus::Completed, Some(shape), Some(answer)) = (state.status, shape, state.answer())
        && let Some(object) = OutputSchema::read(answer)
    {
        return (Some(object), shape.name.clone());
    }
    (words(state).map(Value::from), "str".to_owned())
}

fn words(state: &RunState) -> Option<String> {
    let said = state.content();
    match state.status {
        RunStatus::Pending | RunStatus::Running => None,
        RunStatus::Completed | RunStatus::Regenerated => Some(said),
        RunStatus::Error => state.error.as_ref().map(|(_, message)| message.clone()),
        RunStatus::Cancelled if said.is_empty() => state.cancel_reason.clone(),
        RunStatus::Paused if said.is_empty() => {
            let open = state.open_requirements().map(|(needed, _)| needed);
            Some(tool::paused_words(&state.requirements, open).to_owned())
        }
        RunStatus::Cancelled | RunStatus::Paused => Some(said),
    }
}

/// What the run cost; nothing while it goes on.
pub(crate) fn cost(state: &RunState, model: &str, provider: &str) -> Value {
    if is_going_on(state) {
        return Members::default().done();
    }
    metrics::of_run(&state.usage, state.time_to_first_token, state.duration, model, provider)
}

/// How far a run was when it was cancelled.
pub(crate) fn stage_name(stage: RunStage) -> &'static str {
    match stage {
        RunStage::Pending => "PENDING",
        RunStage::Executing => "EXECUTING",
        RunStage::Paused => "PAUSED",
    }
}

/// What came with the request.
pub(crate) fn input_media(state: &RunState) -> &[Media] {
    state.messages.first().map_or(&[], |first| &first.media)
}

/// What the run's tools gave of this kind.
fn given(state: &RunState, kind: MediaKind) -> Option<Vec<Value>> {
    let tools = state.own_messages().iter().filter(|message| message.role == Role::Tool);
    let all: Vec<Value> = tools.flat_map(|message| media::of_kind(&message.media, kind)).collect();
    (!all.is_empty()).then_some(all)
}

fn input(state: &RunState) -> Value {
    let media = input_media(state);
    Members::default()
        .with("input_content", state.messages.first().and_then(|first| first.content.as_deref()).unwrap_or_default())
        .list("images", media::of_kind(media, MediaKind::Image))
        .list("videos", media::of_kind(media, MediaKind::Video))
        .list("audios", media::of_kind(media, MediaKind::Audio))
        .list("files", media::of_kind(media, MediaKind::File))
        .done()
}
