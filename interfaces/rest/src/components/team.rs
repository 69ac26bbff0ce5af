//! A team as clients see it.

use daybook_domain::component::{AgentConfig, TeamConfig};
use daybook_engine::Registry;
use poem_openapi::{Object, Union};
use serde_json::{Value, json};

use super::agent::{AgentResponse, ModelResponse, sessions, system_message, tools};

/// A team.
#[derive(Debug, Default, Object)]
#[oai(skip_serializing_if_is_none)]
pub(crate) struct TeamResponse {
    /// Its id.
    pub id: Option<String>,
    /// Its name.
    pub name: Option<String>,
    /// Its database.
    pub db_id: Option<String>,
    /// What it is.
    pub description: Option<String>,
    /// What it does in another team.
    pub role: Option<String>,
    /// How its leader works with its members: `coordinate`, `route`, `broadcast` or `tasks`.
    pub mode: Option<String>,
    /// Its leader's model.
    pub model: Option<ModelResponse>,
    /// Its leader's tools.
    pub tools: Option<Value>,
    /// How it remembers conversations.
    pub sessions: Option<Value>,
    /// What it can look up.
    pub knowledge: Option<Value>,
    /// What it remembers of people.
    pub memory: Option<Value>,
    /// How its leader reasons.
    pub reasoning: Option<Value>,
    /// Tools it has without being given them.
    pub default_tools: Option<Value>,
    /// What its leader's model is told first.
    pub system_message: Option<Value>,
    /// How it answers.
    pub response_settings: Option<Value>,
    /// What it says first.
    pub introduction: Option<String>,
    /// How it streams.
    pub streaming: Option<Value>,
    /// Whom its leader hands work to.
    pub members: Option<Vec<MemberResponse>>,
    /// What is kept with it.
    pub metadata: Option<Value>,
    /// What it takes.
    pub input_schema: Option<Value>,
    /// Whether it is made anew for every run.
    pub is_factory: bool,
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

/// A member of a team.
#[derive(Debug, Union)]
pub(crate) enum MemberResponse {
    /// An agent.
    Agent(Box<AgentResponse>),
    /// A team of its own.
    Team(Box<TeamResponse>),
}

impl TeamResponse {
    /// A team whose sessions are in this database.
    pub fn of(config: &AgentConfig, team: &TeamConfig, registry: &Registry, db_id: &str) -> Self {
        Self {
            id: Some(config.id.to_string()),
            name: Some(config.name.clone()),
            db_id: Some(db_id.to_owned()),
            description: config.description.clone(),
            role: config.role.clone(),
            mode: Some(team.mode.on_wire().to_owned()),
            model: Some(ModelResponse::of(&config.model)),
            tools: tools(config.all_tools()),
            sessions: Some(sessions(config)),
            reasoning: Some(json!({"reasoning": false})),
            system_message: system_message(config),
            response_settings: config.output_schema.as_ref().map(|shape| json!({"output_schema_name": shape.name})),
            streaming: Some(json!({"stream_member_events": true})),
            members: Some(members(team, registry, db_id)),
            metadata: Some(Value::Object(config.metadata.clone())).filter(|_| !config.metadata.is_empty()),
            ..Self::default()
        }
    }
}

fn members(team: &TeamConfig, registry: &Registry, db_id: &str) -> Vec<MemberResponse> {
    let known = team.members.iter().filter_map(|member| registry.by_hash(&member.config_hash));
    known.filter_map(|known| member(known.config.agent()?, registry, db_id).into()).collect()
}

/// A member: an agent, or a team with its own members.
pub(super) fn member(config: &AgentConfig, registry: &Registry, db_id: &str) -> MemberResponse {
    match &config.team {
        None => MemberResponse::Agent(Box::new(AgentResponse::of(config, db_id))),
        Some(team) => MemberResponse::Team(Box::new(TeamResponse::of(config, team, registry, db_id))),
    }
}
