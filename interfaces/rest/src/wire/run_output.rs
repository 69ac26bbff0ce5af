//! A run as its caller gets it, and as it is read one by one.

use daybook_domain::component::ComponentConfig;
use daybook_domain::media::{Media, MediaKind};
use daybook_domain::message::Role;
use daybook_domain::output::OutputSchema;
use daybook_domain::run::{RunStage, RunState, RunStatus};
use daybook_engine::{RunDetail, RunMeta, output_schema};
use poem_openapi::Object;
use serde_json::Value;

use super::members::Members;
use super::tool::Told;
use super::{media, message, metrics, tool};

/// A run, its answer and how it came about.
#[derive(Debug, Default, Object)]
#[oai(skip_serializing_if_is_none)]
pub(crate) struct RunOutput {
    /// The run.
    pub run_id: String,
    /// The agent.
    pub agent_id: String,
    /// Its name for people.
    pub agent_name: String,
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
    /// The approval that one of its calls was decided by.
    #[oai(skip)]
    pub approval: Option<String>,
}

impl RunOutput {
    /// A run as it stands.
    pub fn of(detail: &RunDetail) -> Self {
        let RunDetail { state, config, history, .. } = detail;
        let Some(accepted) = &state.accepted else { return Self::default() };
        let (meta, forked) = (RunMeta::accepted(accepted, config), accepted.forked.as_ref());
        let begun = Self {
            run_id: accepted.run_id.to_string(),
            agent_id: meta.component.id.to_string(),
            agent_name: meta.name.clone(),
            session_id: accepted.session_id.to_string(),
            user_id: accepted.user_id.as_ref().map(ToString::to_string),
            content_type: "str".to_owned(),
            model: meta.model.clone(),
            model_provider: meta.provider.clone(),
            created_at: accepted.at_ms / 1000,
            status: state.status.as_str().to_owned(),
            metrics: cost(state, &meta.model, &meta.provider),
            metadata: accepted.metadata.get().cloned().flatten().map(Value::Object),
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
            requirements: Some(tool::requirements(&accepted.run_id, &state.requirements, &state.tools, Told::InRun))
                .filter(|needed| !needed.is_empty()),
            approval: state.tools.iter().rev().find_map(|tool| tool.approval.as_ref()).map(ToString::to_string),
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use daybook_domain::run::RunEvent;
    use poem_openapi::types::ToJSON;
    use serde_json::json;

    use super::*;

    /// A run of these events after its acceptance, from the payloads that the log would hold.
    fn run(events: &[Value]) -> RunDetail {
        let accepted = json!({"Accepted": {"run_id": "r", "session_id": "s", "user_id": "alice",
            "component": {"kind": "agent", "id": "my-agent"}, "config_hash": "h", "mode": "plain",
            "admission": "active", "message": ["Hello"], "at_ms": 1_795_442_140_123_i64}});
        let mut state = RunState::default();
        for event in std::iter::once(&accepted).chain(events) {
            state.evolve(&serde_json::from_value::<RunEvent>(event.clone()).unwrap());
        }
        let model = json!({"key": "m", "id": "fake-gpt", "provider": "OpenAI", "class": "OpenAIChat"});
        let config = json!({"id": "my-agent", "name": "My Agent", "description": "Plain agent", "model": model});
        let config: ComponentConfig = serde_json::from_value(config).unwrap();
        RunDetail { state, config: Arc::new(config), history: Vec::new(), children: Vec::new() }
    }

    fn asked() -> Value {
        json!({"ModelCallRequested": {"call_id": "c", "iteration": 1, "attempt": 1, "own_messages": 1,
            "prompt_hash": "p", "tools_hash": "t", "frame": 1, "at_ms": 1_795_442_140_124_i64}})
    }

    fn answered() -> Value {
        json!({"ModelCallCompleted": {"call_id": "c", "text": ["Hi Alice!"], "finish_reason": "stop",
            "provider_data": {"id": "x"}, "frame": 3, "at_ms": 1_795_442_140_200_i64, "metrics": {"duration": 0.1,
            "usage": {"input_tokens": 6, "output_tokens": 2, "total_tokens": 8}}}})
    }

    #[test]
    fn a_run_that_goes_on_shows_as_recorded() {
        let expected = json!({"run_id": "r", "agent_id": "my-agent", "agent_name": "My Agent", "session_id": "s",
            "user_id": "alice", "content_type": "str", "model": "fake-gpt", "model_provider": "OpenAI",
            "created_at": 1_795_442_140, "status": "RUNNING", "metrics": {}, "input": {"input_content": "Hello"}});
        assert_eq!(RunOutput::of(&run(&[asked()])).to_json().unwrap(), expected);
    }

    #[test]
    fn a_run_that_ended_well_shows_as_recorded() {
        let end = json!({"Succeeded": {"session_state": [{"a": 1}], "duration": 0.25, "frame": 4,
            "at_ms": 1_795_442_140_300_i64}});
        let shown = RunOutput::answering(&run(&[asked(), answered(), end])).to_json().unwrap();
        let tokens = json!({"input_tokens": 6, "output_tokens": 2, "total_tokens": 8,
            "id": "fake-gpt", "provider": "OpenAI Chat"});
        assert_eq!(shown["content"], "Hi Alice!");
        assert_eq!(shown["model_provider_data"], json!({"id": "x"}));
        assert_eq!(shown["session_state"], json!({"a": 1}));
        assert_eq!(shown["tools"], json!([]));
        assert_eq!(
            shown["metrics"],
            json!({"input_tokens": 6, "output_tokens": 2, "total_tokens": 8,
            "duration": 0.25, "details": {"model": [tokens]}})
        );
        let said: Vec<_> = shown["messages"].as_array().unwrap().iter().map(|m| (&m["role"], &m["content"])).collect();
        let expected = [("system", "Plain agent"), ("user", "Hello"), ("assistant", "Hi Alice!")];
        assert!(said.iter().zip(expected).all(|((role, content), (r, c))| **role == r && **content == c), "{said:?}");
    }

    #[test]
    fn a_failed_run_says_what_went_wrong() {
        let failed = json!({"ModelCallFailed": {"call_id": "c", "error": "model_provider_error",
            "message": ["scripted failure"], "at_ms": 1_795_442_140_200_i64}});
        let end = json!({"Failed": {"error": "model_provider_error", "message": ["scripted failure"],
            "duration": 0.02, "frame": 2, "at_ms": 1_795_442_140_300_i64}});
        let shown = RunOutput::answering(&run(&[asked(), failed, end])).to_json().unwrap();
        assert_eq!((&shown["status"], &shown["content"]), (&json!("ERROR"), &json!("scripted failure")));
        assert_eq!(shown["metrics"], json!({"duration": 0.02}));
        assert!(shown.get("tools").is_none() && shown.get("model_provider_data").is_none());
    }
}
