//! The configuration of any component, and its hash, by which runs pin it.

use aws_lc_rs::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::agent::{AgentConfig, ModelRef};
use super::state::ComponentRef;
use crate::ids::ComponentId;
use crate::tool::ToolSpec;
use crate::workflow::{Step, StepKind, WorkflowConfig};

/// The configuration of a component. A run keeps the one it started with. Stored without a tag: an agent has a model, a
/// workflow has steps.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum ComponentConfig {
    /// An agent's, or a team's.
    Agent(Box<AgentConfig>),
    /// A workflow's.
    Workflow(Box<WorkflowConfig>),
}

impl From<AgentConfig> for ComponentConfig {
    fn from(config: AgentConfig) -> Self {
        Self::Agent(Box::new(config))
    }
}

impl From<WorkflowConfig> for ComponentConfig {
    fn from(config: WorkflowConfig) -> Self {
        Self::Workflow(Box::new(config))
    }
}

impl ComponentConfig {
    /// What it is the configuration of.
    pub fn component(&self) -> ComponentRef {
        match self {
            Self::Agent(config) => config.component(),
            Self::Workflow(config) => ComponentRef::workflow(config.id.clone()),
        }
    }

    /// The component's id.
    pub fn id(&self) -> &ComponentId {
        match self {
            Self::Agent(config) => &config.id,
            Self::Workflow(config) => &config.id,
        }
    }

    /// Its name for people.
    pub fn name(&self) -> &str {
        match self {
            Self::Agent(config) => &config.name,
            Self::Workflow(config) => &config.name,
        }
    }

    /// The agent or leader, where it is one.
    pub fn agent(&self) -> Option<&AgentConfig> {
        match self {
            Self::Agent(config) => Some(config),
            Self::Workflow(_) => None,
        }
    }

    /// The workflow, where it is one.
    pub fn workflow(&self) -> Option<&WorkflowConfig> {
        match self {
            Self::Workflow(config) => Some(config),
            Self::Agent(_) => None,
        }
    }

    /// The model it speaks with, where it has one of its own.
    pub fn model(&self) -> Option<&ModelRef> {
        self.agent().map(|agent| &agent.model)
    }

    /// The tools its own runs call that are code: not those of its members or of what its steps run, and not those that
    /// the engine itself carries out.
    pub fn tools(&self) -> Vec<&ToolSpec> {
        match self {
            Self::Agent(config) => config.tools.iter().collect(),
            Self::Workflow(config) => tools_of(&config.steps),
        }
    }

    /// The tool of this name, also one that the engine carries out.
    pub fn tool(&self, name: &str) -> Option<&ToolSpec> {
        match self {
            Self::Agent(config) => config.all_tools().find(|tool| tool.name == name),
            Self::Workflow(config) => tools_of(&config.steps).into_iter().find(|tool| tool.name == name),
        }
    }

    /// The components its runs run, by reference and hash.
    pub fn children(&self) -> Vec<(&ComponentRef, &str)> {
        match self {
            Self::Agent(config) => {
                let members = config.team.iter().flat_map(|team| &team.members);
                members.map(|member| (&member.component, member.config_hash.as_str())).collect()
            }
            Self::Workflow(config) => components_of(&config.steps),
        }
    }

    /// The session state a new session starts with.
    pub fn session_state(&self) -> &Map<String, Value> {
        match self {
            Self::Agent(config) => &config.session_state,
            Self::Workflow(config) => &config.session_state,
        }
    }
}

fn tools_of(steps: &[Step]) -> Vec<&ToolSpec> {
    let mut tools = Vec::new();
    for step in steps {
        match &step.kind {
            StepKind::Tool(call) => tools.push(&call.tool),
            kind => tools.extend(tools_of(kind.steps()).into_iter().chain(tools_of(kind.else_steps()))),
        }
    }
    tools
}

fn components_of(steps: &[Step]) -> Vec<(&ComponentRef, &str)> {
    let mut components = Vec::new();
    for step in steps {
        match &step.kind {
            StepKind::Component(runs) => components.push((&runs.component, runs.config_hash.as_str())),
            kind => components.extend(components_of(kind.steps()).into_iter().chain(components_of(kind.else_steps()))),
        }
    }
    components
}

/// SHA-256 of the canonical JSON (keys sorted, no spaces), hex.
///
/// # Errors
/// When serde_json cannot write the configuration.
pub fn config_hash(config: &ComponentConfig) -> serde_json::Result<String> {
    let mut value = serde_json::to_value(config)?;
    // Some dependency turns on serde_json's preserve_order for the whole build, so sorting is ours to do.
    value.sort_all_objects();
    Ok(hex::encode(digest(&SHA256, serde_json::to_string(&value)?.as_bytes())))
}
