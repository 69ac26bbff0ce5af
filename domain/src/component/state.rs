//! Components by name, and the fold of a configuration's stream.

use serde::{Deserialize, Serialize};

use super::command::{ComponentError, Configure};
use super::config::config_hash;
use super::event::{ComponentConfigured, ComponentEvent};
use crate::ids::ComponentId;

/// The kinds of components.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ComponentKind {
    /// One model with instructions and tools.
    Agent,
    /// A leader, which is an agent, and members it hands work to.
    Team,
    /// Steps that run in an order known beforehand.
    Workflow,
}

impl ComponentKind {
    /// The kind's name on the wire and in views.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Agent => "agent",
            Self::Team => "team",
            Self::Workflow => "workflow",
        }
    }

    /// The kind's name at the beginning of a sentence.
    pub fn title(self) -> &'static str {
        match self {
            Self::Agent => "Agent",
            Self::Team => "Team",
            Self::Workflow => "Workflow",
        }
    }
}

impl std::str::FromStr for ComponentKind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "agent" => Ok(Self::Agent),
            "team" => Ok(Self::Team),
            "workflow" => Ok(Self::Workflow),
            _ => Err("Input should be 'agent', 'team' or 'workflow'".to_owned()),
        }
    }
}

/// A component by kind and id.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ComponentRef {
    /// Its kind.
    pub kind: ComponentKind,
    /// Its id.
    pub id: ComponentId,
}

impl ComponentRef {
    /// The agent of this id.
    pub fn agent(id: ComponentId) -> Self {
        Self { kind: ComponentKind::Agent, id }
    }

    /// The team of this id.
    pub fn team(id: ComponentId) -> Self {
        Self { kind: ComponentKind::Team, id }
    }

    /// The workflow of this id.
    pub fn workflow(id: ComponentId) -> Self {
        Self { kind: ComponentKind::Workflow, id }
    }
}

impl std::fmt::Display for ComponentRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.kind.as_str(), self.id)
    }
}

/// The fold of a configuration's stream.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct ComponentState {
    /// The configuration, once recorded.
    pub configured: Option<ComponentConfigured>,
}

impl ComponentState {
    /// What happens on `command`.
    ///
    /// # Errors
    /// [`ComponentError::HashTaken`] when the stream holds another configuration.
    pub fn decide(&self, command: Configure) -> Result<Vec<ComponentEvent>, ComponentError> {
        let hash = config_hash(&command.config).unwrap_or_default();
        match &self.configured {
            None => Ok(vec![ComponentEvent::Configured(ComponentConfigured { hash, config: command.config })]),
            Some(known) if known.hash == hash => Ok(vec![]),
            Some(known) => Err(ComponentError::HashTaken(known.hash.clone())),
        }
    }

    /// Takes `event` into the state.
    pub fn evolve(&mut self, event: &ComponentEvent) {
        let ComponentEvent::Configured(configured) = event;
        self.configured = Some(configured.clone());
    }
}
