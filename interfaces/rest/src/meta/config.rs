//! `GET /config`: what the server has, for clients that show it.

use daybook_domain::component::{AgentConfig, ComponentKind, ModelRef};
use poem_openapi::payload::Json;
use poem_openapi::{Object, OpenApi};
use serde_json::Value;

use crate::components::WorkflowSummaryResponse;
use crate::docs::Tag;
use crate::errors::ApiError;
use crate::guard::{ConfigRead, Guard};
use crate::state::AppState;
use crate::wire::SESSION_TABLE;

pub(super) struct Config(pub AppState);

/// What the server has.
#[derive(Debug, Object)]
#[oai(skip_serializing_if_is_none)]
struct ConfigResponse {
    /// The server's id.
    os_id: String,
    /// Its name.
    name: Option<String>,
    /// What it is for.
    description: Option<String>,
    /// The models its components use.
    available_models: Vec<Model>,
    /// Its database.
    os_database: Option<String>,
    /// All databases.
    databases: Vec<String>,
    /// Where sessions are.
    session: Domain,
    /// What the queue of background runs can do.
    queue: Queue,
    /// Agents in short.
    agents: Vec<AgentSummary>,
    /// Teams in short.
    teams: Vec<TeamSummary>,
    /// Workflows in short.
    workflows: Vec<WorkflowSummaryResponse>,
    /// Other protocols spoken.
    interfaces: Vec<Value>,
    /// Always null: clients hide what it would configure.
    #[oai(skip_serializing_if = "never")]
    company: Option<Value>,
}

/// A model.
#[derive(Debug, PartialEq, Object)]
struct Model {
    /// The provider's id of it.
    id: String,
    /// The provider.
    provider: String,
}

/// Where things of a kind are.
#[derive(Debug, Object)]
struct Domain {
    /// The databases that have some.
    dbs: Vec<DomainDatabase>,
}

/// A database with things of a kind.
#[derive(Debug, Object)]
struct DomainDatabase {
    /// The database.
    db_id: String,
    /// How to show it.
    domain_config: DomainConfig,
    /// The tables.
    tables: Vec<String>,
}

/// How to show a database.
#[derive(Debug, Object)]
struct DomainConfig {
    /// Its name for people.
    display_name: String,
}

/// What the queue of background runs can do. Its own routes are not served: runs queue by session.
#[derive(Debug, Object)]
struct Queue {
    /// Whether jobs can be managed by `/queue`.
    durable: bool,
    /// Whether there is one such queue for each session.
    queue_per_session: bool,
}

/// An agent in short.
#[derive(Debug, Object)]
#[oai(skip_serializing_if_is_none)]
struct AgentSummary {
    /// Its id.
    id: String,
    /// Its name.
    name: String,
    /// What it is.
    description: Option<String>,
    /// Its database.
    db_id: String,
    /// Its model.
    model: Model,
    /// Whether it runs in a sandbox.
    sandboxed: bool,
}

/// A team in short.
#[derive(Debug, Object)]
#[oai(skip_serializing_if_is_none)]
struct TeamSummary {
    /// Its id.
    id: String,
    /// Its name.
    name: String,
    /// What it is.
    description: Option<String>,
    /// Its database.
    db_id: String,
    /// How its leader works with its members.
    mode: String,
    /// Its leader's model.
    model: Model,
    /// Whether it runs in a sandbox.
    sandboxed: bool,
}

/// Keeps a member that is null.
fn never<T>(_: &T) -> bool {
    false
}

#[OpenApi]
impl Config {
    /// What the server has
    #[oai(path = "/config", method = "get", tag = "Tag::Core", operation_id = "get_config")]
    #[expect(clippy::unused_async, reason = "handlers are async")]
    async fn config(&self, _guard: Guard<ConfigRead>) -> Result<Json<ConfigResponse>, ApiError> {
        let (settings, registry) = (&self.0.settings, self.0.engine.registry());
        let agents = |kind| registry.listed(kind).filter_map(|known| known.config.agent());
        let workflows = registry.listed(ComponentKind::Workflow).filter_map(|known| known.config.workflow());
        let db_id = settings.db_id.clone();
        Ok(Json(ConfigResponse {
            os_id: settings.os_id.clone(),
            name: Some(settings.name.clone()),
            description: settings.description.clone(),
            available_models: models(registry.all().filter_map(|known| known.config.model())),
            os_database: Some(db_id.clone()),
            databases: vec![db_id.clone()],
            session: domain(&db_id, SESSION_TABLE),
            queue: Queue { durable: false, queue_per_session: false },
            agents: agents(ComponentKind::Agent).map(|agent| summary(agent, &db_id)).collect(),
            teams: agents(ComponentKind::Team).filter_map(|team| team_summary(team, &db_id)).collect(),
            workflows: workflows.map(|workflow| WorkflowSummaryResponse::of(workflow, &db_id)).collect(),
            interfaces: Vec::new(),
            company: None,
        }))
    }
}

fn model(model: &ModelRef) -> Model {
    Model { id: model.id.clone(), provider: model.provider.clone() }
}

/// Each model once, by provider and id.
fn models<'a>(used: impl Iterator<Item = &'a ModelRef>) -> Vec<Model> {
    let mut known = Vec::new();
    for model in used.map(model) {
        if !known.contains(&model) {
            known.push(model);
        }
    }
    known.sort_by(|one, other| (&one.provider, &one.id).cmp(&(&other.provider, &other.id)));
    known
}

fn domain(db_id: &str, table: &str) -> Domain {
    let domain_config = DomainConfig { display_name: db_id.to_owned() };
    Domain { dbs: vec![DomainDatabase { db_id: db_id.to_owned(), domain_config, tables: vec![table.to_owned()] }] }
}

fn summary(config: &AgentConfig, db_id: &str) -> AgentSummary {
    AgentSummary {
        id: config.id.to_string(),
        name: config.name.clone(),
        description: config.description.clone(),
        db_id: db_id.to_owned(),
        model: model(&config.model),
        sandboxed: false,
    }
}

fn team_summary(config: &AgentConfig, db_id: &str) -> Option<TeamSummary> {
    Some(TeamSummary {
        id: config.id.to_string(),
        name: config.name.clone(),
        description: config.description.clone(),
        db_id: db_id.to_owned(),
        mode: config.team.as_ref()?.mode.on_wire().to_owned(),
        model: model(&config.model),
        sandboxed: false,
    })
}
