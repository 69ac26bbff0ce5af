//! A run as its caller gets it, and as it is read one by one.

use daybook_domain::component::ComponentKind;
use daybook_domain::run::RunStatus;
use daybook_engine::RunDetail;
use poem_openapi::Object;
use poem_openapi::types::{ToJSON, Type};
use serde_json::Value;

use super::history::events_from_fold;
use super::pause;
use super::run_parts::RunParts;
use super::workflow_output::WorkflowRunOutput;

/// The shape of the runs of one kind of component.
pub(crate) trait RunShape: Type + ToJSON + Sized + Send + Sync + 'static {
    /// A run as it stands.
    fn of(detail: &RunDetail) -> Self;

    /// A run as the answer to the request that started it.
    fn answering(detail: &RunDetail) -> Self;

    /// With what was streamed of it.
    fn with_events(self, events: Vec<Value>) -> Self;

    /// With what was decided about one of its calls.
    fn with_approval(self, approval: Value) -> Self;
}

/// A run of an agent, its answer and how it came about.
#[derive(Debug, Default, Object)]
pub(crate) struct RunOutput {
    /// The agent.
    pub agent_id: String,
    /// Its name for people.
    pub agent_name: String,
    /// What runs of all kinds have.
    #[oai(flatten)]
    pub parts: RunParts,
}

/// A run of a team, its answer and how it came about.
#[derive(Debug, Default, Object)]
#[oai(skip_serializing_if_is_none)]
pub(crate) struct TeamRunOutput {
    /// The team.
    pub team_id: String,
    /// Its name for people.
    pub team_name: String,
    /// What its members did for it: their runs, in order.
    pub member_responses: Option<Vec<Value>>,
    /// What runs of all kinds have.
    #[oai(flatten)]
    pub parts: RunParts,
}

impl RunOutput {
    fn new(detail: &RunDetail, parts: RunParts) -> Self {
        Self { agent_id: detail.config.id().to_string(), agent_name: detail.config.name().to_owned(), parts }
    }
}

impl RunShape for RunOutput {
    fn of(detail: &RunDetail) -> Self {
        Self::new(detail, RunParts::of(detail))
    }

    fn answering(detail: &RunDetail) -> Self {
        Self::new(detail, RunParts::answering(detail))
    }

    fn with_events(mut self, events: Vec<Value>) -> Self {
        self.parts.events = Some(events);
        self
    }

    fn with_approval(self, approval: Value) -> Self {
        Self { parts: self.parts.with_approval(approval), ..self }
    }
}

impl TeamRunOutput {
    fn new(detail: &RunDetail, mut parts: RunParts) -> Self {
        if detail.state.status == RunStatus::Paused && detail.state.content().is_empty() {
            parts.content = Some(pause::words_of_team(detail).into());
        }
        Self {
            team_id: detail.config.id().to_string(),
            team_name: detail.config.name().to_owned(),
            member_responses: Some(detail.children.iter().map(run_shown).collect()),
            parts,
        }
    }
}

impl RunShape for TeamRunOutput {
    fn of(detail: &RunDetail) -> Self {
        Self::new(detail, RunParts::of(detail))
    }

    fn answering(detail: &RunDetail) -> Self {
        Self::new(detail, RunParts::answering(detail))
    }

    fn with_events(mut self, events: Vec<Value>) -> Self {
        self.parts.events = Some(events);
        self
    }

    fn with_approval(self, approval: Value) -> Self {
        Self { parts: self.parts.with_approval(approval), ..self }
    }
}

/// A run of any kind, as part of the run it is under, whose stream has its events.
pub(crate) fn run_shown(detail: &RunDetail) -> Value {
    run_with_events(detail, Vec::new())
}

/// A run that carried a step out, as part of the workflow's run; with its events where that was streamed.
pub(crate) fn step_run_shown(detail: &RunDetail, streamed: bool) -> Value {
    run_with_events(detail, if streamed { events_from_fold(detail) } else { Vec::new() })
}

fn run_with_events(detail: &RunDetail, events: Vec<Value>) -> Value {
    fn shown<T: RunShape>(detail: &RunDetail, events: Vec<Value>) -> Option<Value> {
        T::answering(detail).with_events(events).to_json()
    }
    let shown = match detail.config.component().kind {
        ComponentKind::Agent => shown::<RunOutput>(detail, events),
        ComponentKind::Team => shown::<TeamRunOutput>(detail, events),
        ComponentKind::Workflow => shown::<WorkflowRunOutput>(detail, events),
    };
    shown.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use daybook_domain::component::ComponentConfig;
    use daybook_domain::run::{RunEvent, RunState};
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
