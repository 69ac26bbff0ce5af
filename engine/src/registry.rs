//! The components of this server with their code: models and tools by name.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use daybook_domain::component::{AgentConfig, config_hash};
use daybook_domain::ids::ComponentId;
use daybook_models::ChatModel;
use daybook_store::Abilities;
use daybook_tools::{ArgumentCheck, Tool, ToolError, ToolSet};
use serde_json::{Map, Value};

/// An agent as this server can run it. A run keeps the one it began with.
pub struct Agent {
    /// Its configuration, which runs pin.
    pub config: Arc<AgentConfig>,
    /// The configuration's hash.
    pub hash: String,
    /// The code of its tools.
    pub tools: ToolSet,
    /// What its tools' arguments are held against before a call.
    pub checks: Checks,
    /// Its model; none when the configuration is another server's, and this one has no model of that name.
    pub model: Option<Arc<dyn ChatModel>>,
}

/// The checks of an agent's tools by name, each made once.
pub type Checks = BTreeMap<String, CallCheck>;

/// What the arguments of one tool's calls are held against.
pub struct CallCheck {
    schema: ArgumentCheck,
    tool: Option<Arc<dyn Tool>>,
}

impl CallCheck {
    /// Whether the arguments fit the tool's schema, and the tool itself takes them.
    ///
    /// # Errors
    /// [`ToolError`], whose message the model reads.
    pub fn check(&self, arguments: &Map<String, Value>) -> Result<(), ToolError> {
        self.schema.check(arguments)?;
        self.taken(arguments)
    }

    /// As [`CallCheck::check`], in words for somebody who is not the caller.
    ///
    /// # Errors
    /// What is wrong, without the values.
    pub fn fault(&self, arguments: &Map<String, Value>) -> Result<(), String> {
        self.schema.fault(arguments)?;
        self.taken(arguments).map_err(|error| error.to_string())
    }

    /// Whether those arguments fit that a person is not asked for; the tool itself says what it thinks of all of them.
    ///
    /// # Errors
    /// [`ToolError`], whose message the model reads.
    pub fn check_before_input(&self, arguments: &Map<String, Value>) -> Result<(), ToolError> {
        self.schema.check_before_input(arguments)
    }

    fn taken(&self, arguments: &Map<String, Value>) -> Result<(), ToolError> {
        let Some(tool) = &self.tool else { return Ok(()) };
        // A tool that panics has failed; it does not take the run with it.
        let checked = catch_unwind(AssertUnwindSafe(|| tool.check(arguments)));
        checked.unwrap_or_else(|_| Err(ToolError::failed("the tool broke down")))
    }
}

fn checks(config: &AgentConfig, tools: &ToolSet) -> Checks {
    let check = |spec| CallCheck { schema: ArgumentCheck::new(spec), tool: tools.get(&spec.name).cloned() };
    config.tools.iter().map(|spec| (spec.name.clone(), check(spec))).collect()
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
    /// The rule of a tool's approval cannot be followed.
    #[error("the approval of the tool {tool:?} of agent {agent:?}: {fault}")]
    Rule {
        /// The agent.
        agent: String,
        /// The tool.
        tool: String,
        /// What is wrong, and how to mend it.
        fault: &'static str,
    },
    /// The configuration cannot be written as JSON.
    #[error("the configuration of agent {0:?} cannot be written: {1}")]
    Json(String, serde_json::Error),
}

/// What this server can run. To change it, another one takes its place.
#[derive(Default)]
pub struct Registry {
    agents: Vec<Arc<Agent>>,
    by_id: HashMap<ComponentId, usize>,
    models: BTreeMap<String, Arc<dyn ChatModel>>,
    tools: ToolSet,
    retired: Retired,
}

/// What registries before this one had, for the runs that began with it. Kept while the process lives.
#[derive(Default, Clone)]
struct Retired {
    /// By their configurations' hashes.
    agents: HashMap<String, Arc<Agent>>,
    models: BTreeMap<String, Arc<dyn ChatModel>>,
}

impl Registry {
    /// Makes a model known under `key`.
    pub fn add_model(&mut self, key: impl Into<String>, model: Arc<dyn ChatModel>) {
        self.models.insert(key.into(), model);
    }

    /// Makes tools known that agents need not have now: an earlier run's agent may have had them.
    pub fn add_tools(&mut self, tools: &ToolSet) {
        self.tools.extend(tools.iter().map(|(name, tool)| (name.clone(), Arc::clone(tool))));
    }

    /// Makes an agent known; its tools' schemas go into its configuration.
    ///
    /// # Errors
    /// [`RegistryError`] when the id is taken, the model is unknown, or the rule of a tool's approval cannot be followed.
    pub fn add_agent(&mut self, mut config: AgentConfig, tools: ToolSet) -> Result<(), RegistryError> {
        let id = config.id.clone();
        if self.by_id.contains_key(&id) {
            return Err(RegistryError::DuplicateAgent(id.to_string()));
        }
        let model = self.models.get(&config.model.key).cloned();
        if model.is_none() {
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
        let rules = specs.iter().filter_map(|spec| Some((&spec.name, spec.approval.as_ref()?)));
        if let Some((tool, fault)) = rules.into_iter().find_map(|(tool, rule)| Some((tool, rule.fault()?))) {
            return Err(RegistryError::Rule { agent: id.to_string(), tool: tool.clone(), fault });
        }
        config.tools = specs;
        let hash = config_hash(&config).map_err(|error| RegistryError::Json(id.to_string(), error))?;
        self.by_id.insert(id, self.agents.len());
        self.add_tools(&tools);
        let checks = checks(&config, &tools);
        self.agents.push(Arc::new(Agent { config: Arc::new(config), hash, tools, checks, model }));
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

    /// One agent, or one that there was earlier: its runs can still be asked for.
    pub fn known(&self, id: &ComponentId) -> Option<&Arc<Agent>> {
        self.agent(id).or_else(|| self.retired.agents.values().find(|agent| agent.config.id == *id))
    }

    /// Keeps what `earlier` had and this one lacks, so that the runs that began with it can end here.
    pub(crate) fn succeed(&mut self, earlier: &Self) {
        let Retired { agents, models } = earlier.retired.clone();
        self.retired.agents.extend(agents);
        self.retired.models.extend(models);
        self.retired.agents.extend(earlier.agents.iter().map(|agent| (agent.hash.clone(), agent.clone())));
        self.retired.models.extend(earlier.models.clone());
        for (name, tool) in &earlier.tools {
            self.tools.entry(name.clone()).or_insert_with(|| tool.clone());
        }
    }

    /// The agent whose configuration has this hash, now or earlier.
    pub(crate) fn by_hash(&self, hash: &str) -> Option<&Arc<Agent>> {
        self.agents.iter().find(|agent| agent.hash == hash).or_else(|| self.retired.agents.get(hash))
    }

    /// The agent of a run that began with `config`: the one this process has or had, or else one put together from
    /// the models and tools of the same names.
    pub(crate) fn pinned(&self, config: Arc<AgentConfig>, hash: &str) -> Arc<Agent> {
        if let Some(agent) = self.by_hash(hash) {
            return agent.clone();
        }
        let tool = |name: &String| Some((name.clone(), self.tools.get(name)?.clone()));
        let tools: ToolSet = config.tools.iter().filter_map(|spec| tool(&spec.name)).collect();
        let checks = checks(&config, &tools);
        let key = &config.model.key;
        let model = self.models.get(key).or_else(|| self.retired.models.get(key)).cloned();
        Arc::new(Agent { hash: hash.to_owned(), tools, checks, model, config })
    }

    /// What this server can run, also of what only earlier runs need: it claims no other runs.
    pub fn abilities(&self) -> Abilities {
        let agents = self.agents.iter().chain(self.retired.agents.values());
        let components: BTreeSet<String> = agents.map(|agent| format!("agent:{}", agent.config.id)).collect();
        let models: BTreeSet<&String> = self.models.keys().chain(self.retired.models.keys()).collect();
        Abilities {
            components: components.into_iter().collect(),
            models: models.into_iter().cloned().collect(),
            tools: self.tools.keys().cloned().collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use daybook_domain::component::ModelRef;
    use daybook_domain::tool::Effect;
    use daybook_models::DemoModel;
    use daybook_tools::{FunctionTool, ToolContext};
    use serde_json::Map;

    use super::*;

    #[derive(serde::Deserialize, schemars::JsonSchema)]
    struct Nothing {}

    fn tools(names: &[&str]) -> ToolSet {
        let tool = |name: &&str| {
            let call = |_: ToolContext, _: Nothing| async { Ok(String::new()) };
            let tool = FunctionTool::new(*name, "Does nothing.", Effect::Pure, call);
            ((*name).to_owned(), Arc::new(tool) as Arc<dyn daybook_tools::Tool>)
        };
        names.iter().map(tool).collect()
    }

    fn config(id: &str, model: &str, instruction: &str) -> AgentConfig {
        AgentConfig {
            id: ComponentId::parse(id).unwrap(),
            name: id.to_owned(),
            description: None,
            role: None,
            instructions: vec![instruction.to_owned()],
            model: ModelRef {
                key: model.to_owned(),
                id: "demo".to_owned(),
                provider: "Daybook".to_owned(),
                class: "Demo".to_owned(),
            },
            temperature: None,
            max_tokens: None,
            output_schema: None,
            output_repairs: 0,
            tools: Vec::new(),
            history_runs: 0,
            compaction: None,
            session_state: Map::new(),
            max_iterations: 1,
            metadata: Map::new(),
        }
    }

    fn registry(models: &[&str], agents: &[(&str, &str, &[&str])]) -> Registry {
        let mut registry = Registry::default();
        models.iter().for_each(|name| registry.add_model(*name, Arc::new(DemoModel::default())));
        for (id, instruction, names) in agents {
            registry.add_agent(config(id, models[0], instruction), tools(names)).unwrap();
        }
        registry
    }

    #[test]
    fn what_is_replaced_stays_for_the_runs_that_began_with_it() {
        let first = registry(&["a"], &[("one", "first", &["x"]), ("gone", "first", &["y"])]);
        let (one, gone) = (first.agents()[0].clone(), first.agents()[1].clone());
        let mut second = registry(&["b"], &[("one", "second", &["z"])]);
        second.succeed(&first);
        let mut third = registry(&["c"], &[("one", "third", &[])]);
        third.succeed(&second);

        assert_eq!(third.agents().len(), 1);
        assert!(third.agent(&gone.config.id).is_none());
        assert!(Arc::ptr_eq(third.known(&gone.config.id).unwrap(), &gone));
        for earlier in [&one, &gone] {
            assert!(Arc::ptr_eq(&third.pinned(earlier.config.clone(), &earlier.hash), earlier));
        }
        // A node claims what it can run to its end.
        let abilities = third.abilities();
        assert_eq!(abilities.components, ["agent:gone", "agent:one"]);
        assert_eq!(abilities.models, ["a", "b", "c"]);
        assert_eq!(abilities.tools, ["x", "y", "z"]);
    }

    #[test]
    fn a_rule_that_would_be_ignored_is_refused() {
        use daybook_domain::tool::{ApprovalKind, ApprovalRule, OnExpiry};
        let refused = |rule: ApprovalRule| {
            let call = |_: ToolContext, _: Nothing| async { Ok(String::new()) };
            let tool = FunctionTool::new("x", "Does nothing.", Effect::Pure, call).approval(rule);
            let mut registry = registry(&["a"], &[]);
            let tools = ToolSet::from_iter([("x".to_owned(), Arc::new(tool) as Arc<dyn daybook_tools::Tool>)]);
            registry.add_agent(config("one", "a", ""), tools).err().map(|error| error.to_string())
        };
        let audit = || ApprovalRule::new(ApprovalKind::Audit);
        let required = || ApprovalRule::new(ApprovalKind::Required);
        assert_eq!((refused(audit()), refused(required())), (None, None));
        for rule in [
            ApprovalRule { expires_after_seconds: Some(9), ..audit() },
            ApprovalRule { on_expiry: OnExpiry::Fail, ..audit() },
            ApprovalRule { remind_every_seconds: Some(9), ..audit() },
            ApprovalRule { not_by_requester: true, ..audit() },
        ] {
            let fault = refused(rule).unwrap();
            assert!(fault.contains("tool \"x\" of agent \"one\"") && fault.contains("kind: required"), "{fault}");
        }
        let fault = refused(ApprovalRule { on_expiry: OnExpiry::Wait, ..required() }).unwrap();
        assert!(fault.contains("never expires"), "{fault}");
        assert!(refused(ApprovalRule { remind_every_seconds: Some(0), ..required() }).is_some());
    }

    #[test]
    fn a_configuration_of_another_server_gets_what_has_the_same_names() {
        let mut other = config("one", "a", "other");
        other.tools = tools(&["x", "w"]).values().map(|tool| tool.spec().clone()).collect();
        let here = registry(&["a"], &[("one", "here", &[]), ("two", "here", &["x"])]);
        let agent = here.pinned(Arc::new(other.clone()), "its hash");
        assert_eq!(agent.config.instructions, ["other"]);
        assert!(agent.model.is_some());
        assert_eq!(agent.tools.keys().collect::<Vec<_>>(), ["x"]);
        other.model.key = "b".to_owned();
        assert!(here.pinned(Arc::new(other), "its hash").model.is_none());
    }
}
