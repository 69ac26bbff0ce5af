//! An agent as clients see it.

use daybook_domain::component::{AgentConfig, ModelRef};
use daybook_domain::tool::{ApprovalKind, Gate, ToolSpec};
use poem_openapi::Object;
use serde_json::{Value, json};

use crate::wire::{Members, SESSION_TABLE};

/// An agent.
#[derive(Debug, Default, Object)]
#[oai(skip_serializing_if_is_none)]
pub(crate) struct AgentResponse {
    /// Its id.
    pub id: Option<String>,
    /// Its name.
    pub name: Option<String>,
    /// Its database.
    pub db_id: Option<String>,
    /// Whether it has files of its own.
    pub filesystem: bool,
    /// What it is.
    pub description: Option<String>,
    /// What it does in a team.
    pub role: Option<String>,
    /// Whether it is made anew for every run.
    pub is_factory: bool,
    /// Its model.
    pub model: Option<ModelResponse>,
    /// Its tools.
    pub tools: Option<Value>,
    /// How it remembers conversations.
    pub sessions: Option<Value>,
    /// What it can look up.
    pub knowledge: Option<Value>,
    /// What it remembers of people.
    pub memory: Option<Value>,
    /// How it reasons.
    pub reasoning: Option<Value>,
    /// Tools it has without being given them.
    pub default_tools: Option<Value>,
    /// What its model is told first.
    pub system_message: Option<Value>,
    /// What its model is told besides.
    pub extra_messages: Option<Value>,
    /// How it answers.
    pub response_settings: Option<Value>,
    /// What it says first.
    pub introduction: Option<String>,
    /// How it streams.
    pub streaming: Option<Value>,
    /// What is kept with it.
    pub metadata: Option<Value>,
    /// What it takes.
    pub input_schema: Option<Value>,
    /// What its factory takes.
    pub factory_input_schema: Option<Value>,
    /// Whether it was made over the API.
    pub is_component: bool,
    /// Its version.
    pub current_version: Option<i64>,
    /// Whether that is published.
    pub stage: Option<String>,
    /// Whether it runs in a sandbox.
    pub sandboxed: bool,
}

/// A model.
#[derive(Debug, Object)]
#[oai(skip_serializing_if_is_none)]
pub(crate) struct ModelResponse {
    /// The kind of model.
    pub name: Option<String>,
    /// The provider's id of it.
    pub model: Option<String>,
    /// The provider.
    pub provider: Option<String>,
}

impl AgentResponse {
    /// An agent whose sessions are in this database.
    pub fn of(config: &AgentConfig, db_id: &str) -> Self {
        Self {
            id: Some(config.id.to_string()),
            name: Some(config.name.clone()),
            db_id: Some(db_id.to_owned()),
            description: config.description.clone(),
            role: config.role.clone(),
            model: Some(ModelResponse::of(&config.model)),
            tools: tools(config.tools.iter()),
            sessions: Some(sessions(config)),
            reasoning: Some(json!({"reasoning": false})),
            system_message: system_message(config),
            response_settings: config.output_schema.as_ref().map(|shape| json!({"output_schema_name": shape.name})),
            metadata: Some(Value::Object(config.metadata.clone())).filter(|_| !config.metadata.is_empty()),
            ..Self::default()
        }
    }
}

impl ModelResponse {
    /// A model.
    pub fn of(model: &ModelRef) -> Self {
        Self { name: Some(model.class.clone()), model: Some(model.id.clone()), provider: Some(model.provider.clone()) }
    }
}

/// Tools as clients see them; `None` for none.
pub(super) fn tools<'a>(specs: impl Iterator<Item = &'a ToolSpec>) -> Option<Value> {
    let tools: Vec<Value> = specs.map(tool).collect();
    (!tools.is_empty()).then(|| json!({ "tools": tools }))
}

fn tool(tool: &ToolSpec) -> Value {
    let gate = match tool.gate {
        Gate::Confirmation => Some("requires_confirmation"),
        Gate::UserInput { .. } => Some("requires_user_input"),
        Gate::Feedback => Some("requires_user_feedback"),
        Gate::External { .. } => Some("external_execution"),
        Gate::None => tool.approval.as_ref().map(|_| "requires_confirmation"),
    };
    let approval = tool.approval.as_ref().map(|rule| match rule.kind {
        ApprovalKind::Required => "required",
        ApprovalKind::Audit => "audit",
    });
    let shown = Members::default()
        .with("name", tool.name.as_str())
        .with("description", tool.description.as_str())
        .with("parameters", tool.parameters.clone())
        .maybe("approval_type", approval);
    match gate {
        Some(gate) => shown.with(gate, true).done(),
        None => shown.done(),
    }
}

/// How it remembers conversations.
pub(super) fn sessions(config: &AgentConfig) -> Value {
    match config.history_runs {
        0 => json!({"session_table": SESSION_TABLE}),
        n => json!({"session_table": SESSION_TABLE, "add_history_to_context": true, "num_history_runs": n}),
    }
}

/// What its model is told first.
pub(super) fn system_message(config: &AgentConfig) -> Option<Value> {
    let mut message = serde_json::Map::new();
    if let Some(description) = &config.description {
        message.insert("description".to_owned(), description.as_str().into());
    }
    match config.instructions.as_slice() {
        [] => {}
        [one] => drop(message.insert("instructions".to_owned(), one.as_str().into())),
        many => drop(message.insert("instructions".to_owned(), many.into())),
    }
    (!message.is_empty()).then(|| Value::Object(message))
}

#[cfg(test)]
mod tests {
    use daybook_domain::ids::ComponentId;
    use poem_openapi::types::ToJSON;

    use super::*;

    #[test]
    fn an_agent_is_shown_as_recorded() {
        let config = AgentConfig {
            id: ComponentId::parse("my-agent").unwrap(),
            name: "My Agent".to_owned(),
            description: Some("Plain agent".to_owned()),
            role: None,
            instructions: vec!["Be brief.".to_owned()],
            model: ModelRef {
                key: "m".to_owned(),
                id: "fake-gpt".to_owned(),
                provider: "OpenAI".to_owned(),
                class: "OpenAIChat".to_owned(),
            },
            temperature: None,
            max_tokens: None,
            output_schema: None,
            output_repairs: 0,
            tools: Vec::new(),
            history_runs: 0,
            compaction: None,
            session_state: serde_json::Map::new(),
            max_iterations: 25,
            metadata: serde_json::Map::new(),
            team: None,
        };
        let expected = json!({
            "id": "my-agent", "name": "My Agent", "db_id": "main-db", "filesystem": false,
            "description": "Plain agent", "is_factory": false,
            "model": {"name": "OpenAIChat", "model": "fake-gpt", "provider": "OpenAI"},
            "sessions": {"session_table": SESSION_TABLE}, "reasoning": {"reasoning": false},
            "system_message": {"description": "Plain agent", "instructions": "Be brief."},
            "is_component": false, "sandboxed": false,
        });
        assert_eq!(AgentResponse::of(&config, "main-db").to_json().unwrap(), expected);
    }
}
