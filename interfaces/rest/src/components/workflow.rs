//! A workflow as clients see it, whole and in short.

use daybook_domain::workflow::{Step, StepKind, WorkflowConfig};
use daybook_engine::Registry;
use poem_openapi::Object;
use poem_openapi::types::ToJSON;
use serde_json::Value;

use super::agent::AgentResponse;
use super::team::{MemberResponse, TeamResponse, member};
use crate::wire::Members;

/// A workflow.
#[derive(Debug, Default, Object)]
#[oai(skip_serializing_if_is_none)]
pub(crate) struct WorkflowResponse {
    /// Its id.
    pub id: Option<String>,
    /// Its name.
    pub name: Option<String>,
    /// Its database.
    pub db_id: Option<String>,
    /// What it is.
    pub description: Option<String>,
    /// The shape its input must have.
    pub input_schema: Option<Value>,
    /// Its steps: `name`, `type` (`Step`, `Condition`, `Parallel`, `Loop`, `Router` or `Steps`), and what they run: the
    /// `agent`, `team`, `workflow`, `tool` or `function`, or further `steps`.
    pub steps: Option<Vec<Value>>,
    /// The agent that runs it; workflows of this server run by themselves.
    pub agent: Option<AgentResponse>,
    /// The team that runs it, likewise.
    pub team: Option<TeamResponse>,
    /// What is kept with it.
    pub metadata: Option<Value>,
    /// Whether an agent runs it.
    pub workflow_agent: bool,
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

/// A workflow in short.
#[derive(Debug, Default, Object)]
#[oai(skip_serializing_if_is_none)]
pub(crate) struct WorkflowSummaryResponse {
    /// Its id.
    pub id: Option<String>,
    /// Its name.
    pub name: Option<String>,
    /// What it is.
    pub description: Option<String>,
    /// Its database.
    pub db_id: Option<String>,
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

impl WorkflowSummaryResponse {
    /// A workflow whose sessions are in this database.
    pub fn of(config: &WorkflowConfig, db_id: &str) -> Self {
        Self {
            id: Some(config.id.to_string()),
            name: Some(config.name.clone()),
            description: config.description.clone(),
            db_id: Some(db_id.to_owned()),
            ..Self::default()
        }
    }
}

impl WorkflowResponse {
    /// A workflow whose sessions are in this database.
    pub fn of(config: &WorkflowConfig, registry: &Registry, db_id: &str) -> Self {
        Self {
            id: Some(config.id.to_string()),
            name: Some(config.name.clone()),
            db_id: Some(db_id.to_owned()),
            description: config.description.clone(),
            input_schema: config.input_schema.as_ref().map(|shape| Value::Object(shape.schema.clone())),
            steps: Some(steps(&config.steps, registry, db_id)),
            metadata: Some(Value::Object(config.metadata.clone())).filter(|_| !config.metadata.is_empty()),
            ..Self::default()
        }
    }
}

fn steps(steps: &[Step], registry: &Registry, db_id: &str) -> Vec<Value> {
    steps.iter().map(|step| shown(step, registry, db_id)).collect()
}

fn shown(step: &Step, registry: &Registry, db_id: &str) -> Value {
    let members = Members::default()
        .with("name", step.name.as_str())
        .maybe("description", step.description.as_deref())
        .with("type", step.kind.as_str());
    match &step.kind {
        StepKind::Component(of) => run(members, &of.config_hash, registry, db_id).done(),
        StepKind::Tool(of) => members.with("tool", of.tool.name.as_str()).done(),
        StepKind::Function(of) => members.with("function", of.function.as_str()).done(),
        block => members
            .with("steps", steps(block.steps(), registry, db_id))
            .list("else_steps", steps(block.else_steps(), registry, db_id))
            .done(),
    }
}

/// With the component of this configuration.
fn run(step: Members, hash: &str, registry: &Registry, db_id: &str) -> Members {
    let Some(known) = registry.by_hash(hash) else { return step };
    if let Some(config) = known.config.workflow() {
        return step.maybe("workflow", WorkflowResponse::of(config, registry, db_id).to_json());
    }
    match known.config.agent().map(|config| member(config, registry, db_id)) {
        Some(MemberResponse::Agent(agent)) => step.maybe("agent", agent.to_json()),
        Some(MemberResponse::Team(team)) => step.maybe("team", team.to_json()),
        None => step,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use daybook_domain::component::{AgentConfig, ComponentRef, Member, TeamConfig, TeamMode};
    use daybook_domain::ids::ComponentId;
    use daybook_engine::Listing;
    use daybook_models::DemoModel;
    use daybook_tools::ToolSet;
    use serde_json::json;

    use super::super::{Shows, Teams};
    use super::*;

    fn agent(id: &str) -> AgentConfig {
        let model = json!({"key": "m", "id": "demo", "provider": "Daybook", "class": "Demo"});
        serde_json::from_value(json!({"id": id, "name": id.to_uppercase(), "role": "Writes", "model": model})).unwrap()
    }

    fn member(id: &str, hash: &str) -> Member {
        let component = ComponentRef::agent(ComponentId::parse(id).unwrap());
        Member { component, config_hash: hash.to_owned(), name: id.to_uppercase(), role: None, description: None }
    }

    /// A registry with the agent `writer` and the team `desk` it is in; with their configurations' hashes.
    fn registry() -> (Registry, String, String) {
        let mut registry = Registry::default();
        registry.add_model("m", Arc::new(DemoModel::default()));
        let writer = registry.add_agent(agent("writer"), ToolSet::default(), Listing::Inner).unwrap();
        let team = TeamConfig::new(TeamMode::Collaborate, vec![member("writer", &writer)]);
        let desk = AgentConfig { team: Some(team), ..agent("desk") };
        let desk = registry.add_agent(desk, ToolSet::default(), Listing::Public).unwrap();
        (registry, writer, desk)
    }

    #[test]
    fn a_team_is_shown_with_its_members() {
        let (registry, _, desk) = registry();
        let shown = Teams::one(registry.by_hash(&desk).unwrap(), &registry, "db").unwrap().to_json().unwrap();
        assert_eq!((&shown["id"], &shown["mode"]), (&json!("desk"), &json!("broadcast")));
        assert_eq!((&shown["members"][0]["id"], &shown["members"][0]["role"]), (&json!("writer"), &json!("Writes")));
        assert_eq!(shown["members"][0].get("members"), None);
        assert_eq!(shown["tools"]["tools"][0]["name"], "delegate_task_to_members");
        assert_eq!(shown["streaming"], json!({"stream_member_events": true}));
    }

    #[test]
    fn a_workflow_is_shown_with_its_steps_and_what_they_run() {
        let (registry, writer, desk) = registry();
        let run = |name: &str, component: Value, hash: &str| {
            json!({"name": name, "kind": "component", "component": component, "config_hash": hash,
                "component_name": "X"})
        };
        let function = |name: &str| json!({"name": name, "kind": "function", "function": "upper"});
        let config = json!({"id": "w", "name": "W", "description": "Steps", "steps": [
            function("start"),
            {"name": "maybe", "kind": "condition", "test": {"cel": "true"}, "steps": [function("yes")],
                "else_steps": [function("no")]},
            {"name": "both", "kind": "parallel", "steps": [
                run("one", json!({"kind": "agent", "id": "writer"}), &writer),
                run("many", json!({"kind": "team", "id": "desk"}), &desk),
            ]},
        ]});
        let config: WorkflowConfig = serde_json::from_value(config).unwrap();
        let shown = WorkflowResponse::of(&config, &registry, "db").to_json().unwrap();
        let steps = &shown["steps"];
        assert_eq!(steps[0], json!({"name": "start", "type": "Step", "function": "upper"}));
        let yes = json!([{"name": "yes", "type": "Step", "function": "upper"}]);
        assert_eq!((&steps[1]["type"], &steps[1]["steps"]), (&json!("Condition"), &yes));
        assert_eq!(steps[1]["else_steps"][0]["name"], "no");
        assert_eq!((&steps[2]["type"], &steps[2]["steps"][0]["agent"]["id"]), (&json!("Parallel"), &json!("writer")));
        assert_eq!(steps[2]["steps"][1]["team"]["members"][0]["id"], "writer");
        assert_eq!((&shown["workflow_agent"], &shown["db_id"]), (&json!(false), &json!("db")));
        let short = WorkflowSummaryResponse::of(&config, "db").to_json().unwrap();
        let expected = json!({"id": "w", "name": "W", "description": "Steps", "db_id": "db", "is_factory": false,
            "is_component": false, "sandboxed": false});
        assert_eq!(short, expected);
    }
}
