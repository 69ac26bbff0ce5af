//! The components of this server with their code: models and tools by name.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use daybook_domain::component::{AgentConfig, config_hash};
use daybook_domain::ids::ComponentId;
use daybook_models::ChatModel;
use daybook_tools::ToolSet;

/// An agent as this server can run it.
pub struct Agent {
    /// Its configuration, which runs pin.
    pub config: Arc<AgentConfig>,
    /// The configuration's hash.
    pub hash: String,
    /// The code of its tools.
    pub tools: ToolSet,
}

/// Why components cannot be registered.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// Two agents with one id.
    #[error("two agents have the id {0:?}: give each its own")]
    DuplicateAgent(String),
    /// An agent names a model that is not there.
    #[error("agent {agent:?} uses the model {model:?}, which is not defined; defined are: {known}")]
    UnknownModel {
        /// The agent.
        agent: String,
        /// The model it names.
        model: String,
        /// The models there are.
        known: String,
    },
    /// The configuration cannot be written as JSON.
    #[error("the configuration of agent {0:?} cannot be written: {1}")]
    Json(String, serde_json::Error),
}

/// What this server can run.
#[derive(Default)]
pub struct Registry {
    agents: Vec<Arc<Agent>>,
    by_id: HashMap<ComponentId, usize>,
    models: BTreeMap<String, Arc<dyn ChatModel>>,
}

impl Registry {
    /// Makes a model known under `key`.
    pub fn add_model(&mut self, key: impl Into<String>, model: Arc<dyn ChatModel>) {
        self.models.insert(key.into(), model);
    }

    /// Makes an agent known; its tools' schemas go into its configuration.
    ///
    /// # Errors
    /// [`RegistryError`] when the id is taken or the model is unknown.
    pub fn add_agent(&mut self, mut config: AgentConfig, tools: ToolSet) -> Result<(), RegistryError> {
        let id = config.id.clone();
        if self.by_id.contains_key(&id) {
            return Err(RegistryError::DuplicateAgent(id.to_string()));
        }
        if !self.models.contains_key(&config.model.key) {
            let known: Vec<&str> = self.models.keys().map(String::as_str).collect();
            return Err(RegistryError::UnknownModel {
                agent: id.to_string(),
                model: config.model.key,
                known: known.join(", "),
            });
        }
        // The order in which the agent names its tools is the order the model and clients see.
        let named: Vec<String> = config.tools.iter().map(|tool| tool.name.clone()).collect();
        let others = tools.values().filter(|tool| !named.contains(&tool.spec().name));
        let mut specs: Vec<_> =
            named.iter().filter_map(|name| tools.get(name)).map(|tool| tool.spec().clone()).collect();
        specs.extend(others.map(|tool| tool.spec().clone()));
        config.tools = specs;
        let hash = config_hash(&config).map_err(|error| RegistryError::Json(id.to_string(), error))?;
        self.by_id.insert(id, self.agents.len());
        self.agents.push(Arc::new(Agent { config: Arc::new(config), hash, tools }));
        Ok(())
    }

    /// All agents, in the order they were added.
    pub fn agents(&self) -> &[Arc<Agent>] {
        &self.agents
    }

    /// One agent.
    pub fn agent(&self, id: &ComponentId) -> Option<&Arc<Agent>> {
        self.by_id.get(id).and_then(|at| self.agents.get(*at))
    }

    /// A model.
    pub fn model(&self, key: &str) -> Option<&Arc<dyn ChatModel>> {
        self.models.get(key)
    }

    /// The names of all tools of all agents: a node claims only runs whose tools it has.
    pub fn tool_names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.agents.iter().flat_map(|agent| agent.tools.keys().cloned()).collect();
        names.sort();
        names.dedup();
        names
    }

    /// The components' names as leases carry them.
    pub fn component_names(&self) -> Vec<String> {
        self.agents.iter().map(|agent| format!("agent:{}", agent.config.id)).collect()
    }
}
