//! Sessions in lists and one by one.

use daybook_domain::component::ComponentKind;
use daybook_domain::message::Role;
use daybook_domain::run::{RunState, RunStatus};
use daybook_domain::session::SessionState;
use daybook_domain::workflow::{Step, WorkflowConfig};
use daybook_engine::Component;
use poem_openapi::{Object, Union};
use serde_json::{Value, json};

use super::time::iso_seconds;
use super::{message, metrics};

/// A session in a list.
#[derive(Debug, Object)]
#[oai(skip_serializing_if_is_none)]
pub(crate) struct SessionSchema {
    /// The session.
    pub session_id: String,
    /// Its name, or the first message.
    pub session_name: String,
    /// Its state.
    pub session_state: Option<Value>,
    /// ISO 8601.
    pub created_at: Option<String>,
    /// ISO 8601.
    pub updated_at: Option<String>,
    /// `agent`, `team` or `workflow`.
    pub session_type: Option<String>,
    /// Whom it belongs to.
    pub user_id: Option<String>,
    /// The agent it is with.
    pub agent_id: Option<String>,
    /// The team it is with.
    pub team_id: Option<String>,
    /// The workflow it is with.
    pub workflow_id: Option<String>,
    /// What it is about.
    pub session_summary: Option<Value>,
    /// What its runs cost.
    pub metrics: Option<Value>,
    /// Tokens of all runs.
    pub total_tokens: Option<u64>,
    /// What its creator keeps with it.
    pub metadata: Option<Value>,
}

/// Where a page is in its list.
#[derive(Debug, Object)]
pub(crate) struct PaginationInfo {
    /// From 1.
    pub page: u64,
    /// The most items of a page.
    pub limit: u64,
    /// How many pages there are.
    pub total_pages: u64,
    /// How many items there are.
    pub total_count: u64,
    /// Milliseconds the search took.
    pub search_time_ms: f64,
}

/// A page of sessions.
#[derive(Debug, Object)]
pub(crate) struct SessionPage {
    /// The sessions.
    pub data: Vec<SessionSchema>,
    /// Where they are in the list.
    pub meta: PaginationInfo,
}

/// A conversation with an agent.
#[derive(Debug, Object)]
#[oai(skip_serializing_if_is_none)]
pub(crate) struct AgentSessionDetailSchema {
    /// Whom it belongs to.
    pub user_id: Option<String>,
    /// The session.
    pub agent_session_id: String,
    /// The session.
    pub session_id: String,
    /// Its name, or the first message.
    pub session_name: String,
    /// What it is about.
    pub session_summary: Option<Value>,
    /// Its state.
    pub session_state: Option<Value>,
    /// The agent.
    pub agent_id: Option<String>,
    /// Tokens of all runs.
    pub total_tokens: Option<u64>,
    /// The agent's name and model.
    pub agent_data: Option<Value>,
    /// What its runs cost.
    pub metrics: Option<Value>,
    /// What its creator keeps with it.
    pub metadata: Option<Value>,
    /// What was said, without instructions and tools' outcomes.
    pub chat_history: Option<Vec<Value>>,
    /// ISO 8601.
    pub created_at: Option<String>,
    /// ISO 8601.
    pub updated_at: Option<String>,
}

/// A conversation with a team.
#[derive(Debug, Object)]
#[oai(skip_serializing_if_is_none)]
pub(crate) struct TeamSessionDetailSchema {
    /// The session.
    pub session_id: String,
    /// Its name, or the first message.
    pub session_name: String,
    /// Whom it belongs to.
    pub user_id: Option<String>,
    /// The team.
    pub team_id: Option<String>,
    /// What it is about.
    pub session_summary: Option<Value>,
    /// Its state.
    pub session_state: Option<Value>,
    /// What its runs cost.
    pub metrics: Option<Value>,
    /// The team's name and model.
    pub team_data: Option<Value>,
    /// What its creator keeps with it.
    pub metadata: Option<Value>,
    /// What was said.
    pub chat_history: Option<Vec<Value>>,
    /// ISO 8601.
    pub created_at: Option<String>,
    /// ISO 8601.
    pub updated_at: Option<String>,
    /// Tokens of all runs.
    pub total_tokens: Option<u64>,
}

/// A conversation with a workflow.
#[derive(Debug, Object)]
#[oai(skip_serializing_if_is_none)]
pub(crate) struct WorkflowSessionDetailSchema {
    /// Whom it belongs to.
    pub user_id: Option<String>,
    /// The workflow.
    pub workflow_id: Option<String>,
    /// Its name.
    pub workflow_name: Option<String>,
    /// The session.
    pub session_id: String,
    /// Its name, or the first message.
    pub session_name: String,
    /// What is kept with it.
    pub session_data: Option<Value>,
    /// Its state.
    pub session_state: Option<Value>,
    /// The workflow's name.
    pub workflow_data: Option<Value>,
    /// What its creator keeps with it.
    pub metadata: Option<Value>,
    /// ISO 8601.
    pub created_at: Option<String>,
    /// ISO 8601.
    pub updated_at: Option<String>,
}

/// A conversation with any component.
#[derive(Debug, Union)]
pub(crate) enum SessionDetail {
    /// With an agent.
    Agent(Box<AgentSessionDetailSchema>),
    /// With a team.
    Team(Box<TeamSessionDetailSchema>),
    /// With a workflow.
    Workflow(Box<WorkflowSessionDetailSchema>),
}

fn some_tokens(session: &SessionState) -> Option<u64> {
    Some(session.totals.usage.total_tokens).filter(|n| *n > 0)
}

impl SessionSchema {
    /// A session under this name.
    pub fn of(session: &SessionState, name: &str) -> Self {
        let component = session.component.as_ref();
        let with =
            |kind| component.filter(|component| component.kind == kind).map(|component| component.id.to_string());
        Self {
            session_id: session.session_id.as_ref().map(ToString::to_string).unwrap_or_default(),
            session_name: name.to_owned(),
            session_state: Some(Value::Object(session.state.clone())),
            created_at: Some(iso_seconds(session.created_at)),
            updated_at: Some(iso_seconds(session.updated_at)),
            session_type: session.component.as_ref().map(|component| component.kind.as_str().to_owned()),
            user_id: session.user_id.as_ref().map(ToString::to_string),
            agent_id: with(ComponentKind::Agent),
            team_id: with(ComponentKind::Team),
            workflow_id: with(ComponentKind::Workflow),
            session_summary: None,
            metrics: Some(metrics::of_session(&session.totals)),
            total_tokens: some_tokens(session),
            metadata: session.metadata.clone().map(Value::Object),
        }
    }
}

impl SessionDetail {
    /// A session with its runs, oldest first, and its component, if this server has it.
    pub fn of<'a>(
        session: &SessionState,
        name: &str,
        runs: impl Iterator<Item = &'a RunState>,
        component: Option<&Component>,
    ) -> Self {
        match session.component.as_ref().map_or(ComponentKind::Agent, |component| component.kind) {
            ComponentKind::Agent => Self::Agent(Box::new(with_agent(session, name, runs, component))),
            ComponentKind::Team => Self::Team(Box::new(with_team(session, name, runs, component))),
            ComponentKind::Workflow => Self::Workflow(Box::new(with_workflow(session, name, component))),
        }
    }
}

fn with_agent<'a>(
    session: &SessionState,
    name: &str,
    runs: impl Iterator<Item = &'a RunState>,
    agent: Option<&Component>,
) -> AgentSessionDetailSchema {
    let id = session.session_id.as_ref().map(ToString::to_string).unwrap_or_default();
    AgentSessionDetailSchema {
        user_id: session.user_id.as_ref().map(ToString::to_string),
        agent_session_id: id.clone(),
        session_id: id,
        session_name: name.to_owned(),
        session_summary: None,
        session_state: Some(Value::Object(session.state.clone())),
        agent_id: session.component.as_ref().map(|component| component.id.to_string()),
        total_tokens: some_tokens(session),
        agent_data: agent.filter(|_| session.run_count > 0).and_then(|agent| data("agent_id", agent)),
        metrics: Some(metrics::of_session(&session.totals)),
        metadata: session.metadata.clone().map(Value::Object),
        chat_history: Some(runs.filter(|run| tells(run)).flat_map(said).collect()),
        created_at: Some(iso_seconds(session.created_at)),
        updated_at: Some(iso_seconds(session.updated_at)),
    }
}

fn with_team<'a>(
    session: &SessionState,
    name: &str,
    runs: impl Iterator<Item = &'a RunState>,
    team: Option<&Component>,
) -> TeamSessionDetailSchema {
    // What members were told and said is the leader's business.
    let runs = runs.filter(|run| run.parent().is_none());
    TeamSessionDetailSchema {
        session_id: session.session_id.as_ref().map(ToString::to_string).unwrap_or_default(),
        session_name: name.to_owned(),
        user_id: session.user_id.as_ref().map(ToString::to_string),
        team_id: session.component.as_ref().map(|component| component.id.to_string()),
        session_summary: None,
        session_state: Some(Value::Object(session.state.clone())),
        metrics: Some(metrics::of_session(&session.totals)),
        team_data: team.filter(|_| session.run_count > 0).and_then(|team| data("team_id", team)),
        metadata: session.metadata.clone().map(Value::Object),
        chat_history: Some(runs.filter(|run| tells(run)).flat_map(said).collect()),
        created_at: Some(iso_seconds(session.created_at)),
        updated_at: Some(iso_seconds(session.updated_at)),
        total_tokens: some_tokens(session),
    }
}

fn with_workflow(session: &SessionState, name: &str, workflow: Option<&Component>) -> WorkflowSessionDetailSchema {
    let state = Value::Object(session.state.clone());
    let config = workflow.and_then(|workflow| workflow.config.workflow());
    let steps = |config: &WorkflowConfig| -> Vec<Value> {
        let step =
            |step: &Step| json!({"name": step.name, "description": step.description, "type": step.kind.as_str()});
        config.steps.iter().map(step).collect()
    };
    let data = |config: &WorkflowConfig| json!({"workflow_id": config.id, "name": config.name, "steps": steps(config)});
    WorkflowSessionDetailSchema {
        user_id: session.user_id.as_ref().map(ToString::to_string),
        workflow_id: session.component.as_ref().map(|component| component.id.to_string()),
        workflow_name: config.map(|config| config.name.clone()),
        session_id: session.session_id.as_ref().map(ToString::to_string).unwrap_or_default(),
        session_name: name.to_owned(),
        session_data: Some(json!({"session_state": state, "session_metrics": metrics::of_session(&session.totals)})),
        session_state: Some(state),
        // Clients know both as objects, also where there is nothing to tell.
        workflow_data: Some(config.filter(|_| session.run_count > 0).map_or_else(|| json!({}), data)),
        metadata: Some(Value::Object(session.metadata.clone().unwrap_or_default())),
        created_at: Some(iso_seconds(session.created_at)),
        updated_at: Some(iso_seconds(session.updated_at)),
    }
}

/// The name and the model of an agent or a team, whose id stands under `id`.
fn data(id: &str, component: &Component) -> Option<Value> {
    let config = component.config.agent()?;
    let model = json!({"name": config.model.class, "provider": config.model.provider, "id": config.model.id});
    Some(json!({"name": config.name, id: config.id, "model": model}))
}

/// Whether a run's words belong to the conversation: what failed, was cancelled or waits does not.
fn tells(run: &RunState) -> bool {
    !matches!(run.status, RunStatus::Error | RunStatus::Cancelled | RunStatus::Paused)
}

fn said(run: &RunState) -> Vec<Value> {
    let spoken = run.messages.iter().filter(|message| matches!(message.role, Role::User | Role::Assistant));
    spoken.map(|spoken| message::message(spoken, false)).collect()
}
