//! The components of this server with their code: models and tools by name.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use daybook_domain::component::{AgentConfig, ComponentConfig, ComponentKind, ComponentRef, config_hash};
use daybook_domain::workflow::WorkflowConfig;
use daybook_models::ChatModel;
use daybook_store::Abilities;
use daybook_tools::{ArgumentCheck, Tool, ToolError, ToolSet};
use serde_json::{Map, Value};

use crate::child::MAX_DEPTH;
use crate::flow::{FlowCode, Functions};
use crate::registry_error::RegistryError;

/// A component as this server can run it. A run keeps the one it started with.
pub struct Component {
    /// Its configuration, which runs pin.
    pub config: Arc<ComponentConfig>,
    /// The configuration's hash.
    pub hash: String,
    /// The code of its tools.
    pub tools: ToolSet,
    /// What its tools' arguments are held against before a call.
    pub checks: Checks,
    /// The code of its steps, where it is a workflow.
    pub flow: Option<Arc<FlowCode>>,
    /// How many levels of runs its own runs have under them.
    pub(crate) depth: u32,
    /// Its model; none for a workflow, and when the configuration is another server's and this one has no model of that
    /// name.
    pub model: Option<Arc<dyn ChatModel>>,
}

impl Component {
    /// What its own runs need and this server lacks, those of its children apart.
    pub(crate) fn is_whole(&self) -> bool {
        let has_model = self.config.model().is_none() || self.model.is_some();
        let has_code = self.flow.as_ref().is_none_or(|code| code.is_whole());
        has_model && has_code && self.config.tools().iter().all(|tool| self.tools.contains_key(&tool.name))
    }
}

impl Component {
    /// What code its own runs need, by the names that nodes tell each other: tools, and functions of a workflow.
    pub(crate) fn needs(&self) -> impl Iterator<Item = String> {
        let tools = self.config.tools().into_iter().map(|tool| tool.name.clone());
        tools.chain(self.flow.iter().flat_map(|code| code.needs()))
    }
}

/// The checks of a component's tools by name, each made once.
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

fn checks(config: &ComponentConfig, tools: &ToolSet) -> Checks {
    let check = |spec| CallCheck { schema: ArgumentCheck::new(spec), tool: tools.get(&spec.name).cloned() };
    let handing = config.agent().and_then(|agent| agent.team.as_ref()).into_iter().flat_map(|team| &team.tools);
    config.tools().into_iter().chain(handing).map(|spec| (spec.name.clone(), check(spec))).collect()
}

/// Whether clients find a component.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listing {
    /// By its id.
    Public,
    /// Only as part of the components that run it.
    Inner,
}

/// What this server can run. To change it, another one takes its place.
#[derive(Default)]
pub struct Registry {
    listed: Vec<Arc<Component>>,
    by_ref: HashMap<ComponentRef, usize>,
    by_hash: HashMap<String, Arc<Component>>,
    models: BTreeMap<String, Arc<dyn ChatModel>>,
    tools: ToolSet,
    functions: Functions,
    retired: Retired,
}

/// What registries before this one had, for the runs that began with it. Kept while the process lives.
#[derive(Default, Clone)]
struct Retired {
    /// By their configurations' hashes.
    components: HashMap<String, Arc<Component>>,
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

    /// Makes an agent or a team known; its tools' schemas go into its configuration, whose hash this gives.
    ///
    /// # Errors
    /// [`RegistryError`] when the id is taken, the model or a member is unknown, or the rule of a tool's approval cannot
    /// be followed.
    pub fn add_agent(
        &mut self,
        mut config: AgentConfig,
        tools: ToolSet,
        listing: Listing,
    ) -> Result<String, RegistryError> {
        let id = config.id.clone();
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
        self.add(config.into(), tools, model, listing)
    }

    /// Makes functions and closures known that workflows added after them may use.
    pub fn add_functions(&mut self, functions: Functions) {
        self.functions.extend(functions);
    }

    /// Makes a workflow known; the schemas of the tools its steps call, as far as they are among `tools`, go into its
    /// configuration, whose hash this gives.
    ///
    /// # Errors
    /// [`RegistryError`] when the id is taken, something it runs is unknown, or it cannot be run: then with all that is
    /// wrong.
    pub fn add_workflow(
        &mut self,
        mut config: WorkflowConfig,
        tools: ToolSet,
        listing: Listing,
    ) -> Result<String, RegistryError> {
        config.set_tools(&|name| tools.get(name).map(|tool| tool.spec().clone()));
        let mut faults: Vec<String> = config.mistakes().iter().map(ToString::to_string).collect();
        faults.extend(FlowCode::of(&config, &self.functions).1);
        for spec in config.tools() {
            if !tools.contains_key(&spec.name) {
                faults.push(format!("there is no tool {:?}", spec.name));
            }
        }
        if !faults.is_empty() {
            return Err(RegistryError::Workflow { id: config.id.to_string(), faults });
        }
        self.add(config.into(), tools, None, listing)
    }

    fn add(
        &mut self,
        config: ComponentConfig,
        tools: ToolSet,
        model: Option<Arc<dyn ChatModel>>,
        listing: Listing,
    ) -> Result<String, RegistryError> {
        let component = config.component();
        let (kind, id) = (component.kind.as_str(), component.id.to_string());
        if listing == Listing::Public && self.by_ref.contains_key(&component) {
            return Err(RegistryError::Duplicate { kind, id });
        }
        let unknown = config.children().into_iter().find(|(_, hash)| self.by_hash(hash).is_none());
        if let Some((child, _)) = unknown {
            return Err(RegistryError::UnknownChild { kind, id, child: child.clone() });
        }
        let below = config.children().into_iter().filter_map(|(_, hash)| self.by_hash(hash));
        let depth = below.map(|child| child.depth + 1).max().unwrap_or_default();
        if depth > MAX_DEPTH {
            return Err(RegistryError::TooDeep { kind, id, most: MAX_DEPTH });
        }
        let hash = config_hash(&config).map_err(|error| RegistryError::Json(id, error))?;
        self.add_tools(&tools);
        let checks = checks(&config, &tools);
        let flow = self.flow_code(&config);
        let (config, hash) = (Arc::new(config), hash);
        let added = Arc::new(Component { config, hash: hash.clone(), tools, checks, flow, depth, model });
        if listing == Listing::Public {
            self.by_ref.insert(component, self.listed.len());
            self.listed.push(added.clone());
        }
        self.by_hash.entry(hash.clone()).or_insert(added);
        Ok(hash)
    }

    /// The components that clients find, in the order they were added.
    pub fn listed(&self, kind: ComponentKind) -> impl Iterator<Item = &Arc<Component>> {
        self.listed.iter().filter(move |component| component.config.component().kind == kind)
    }

    /// All components, also those that only others run.
    pub fn all(&self) -> impl Iterator<Item = &Arc<Component>> {
        self.by_hash.values()
    }

    /// One component.
    pub fn component(&self, component: &ComponentRef) -> Option<&Arc<Component>> {
        self.by_ref.get(component).and_then(|at| self.listed.get(*at))
    }

    /// One component, or one that there was earlier, or that only others run: its runs can still be asked for.
    pub fn known(&self, component: &ComponentRef) -> Option<&Arc<Component>> {
        let others = || self.by_hash.values().chain(self.retired.components.values());
        self.component(component).or_else(|| others().find(|known| known.config.component() == *component))
    }

    /// Keeps what `earlier` had and this one lacks, so that the runs that began with it can end here.
    pub(crate) fn succeed(&mut self, earlier: &Self) {
        let Retired { components, models } = earlier.retired.clone();
        self.retired.components.extend(components);
        self.retired.models.extend(models);
        self.retired.components.extend(earlier.by_hash.clone());
        self.retired.models.extend(earlier.models.clone());
        self.functions.succeed(&earlier.functions);
        for (name, tool) in &earlier.tools {
            self.tools.entry(name.clone()).or_insert_with(|| tool.clone());
        }
    }

    /// The component whose configuration has this hash, now or earlier.
    pub fn by_hash(&self, hash: &str) -> Option<&Arc<Component>> {
        self.by_hash.get(hash).or_else(|| self.retired.components.get(hash))
    }

    /// The component of a run that began with `config`: the one this process has or had, or else one put together from
    /// the models and tools of the same names.
    pub(crate) fn pinned(&self, config: Arc<ComponentConfig>, hash: &str) -> Arc<Component> {
        if let Some(component) = self.by_hash(hash) {
            return component.clone();
        }
        let tool = |name: &String| Some((name.clone(), self.tools.get(name)?.clone()));
        let tools: ToolSet = config.tools().iter().filter_map(|spec| tool(&spec.name)).collect();
        let checks = checks(&config, &tools);
        let model = config.model().and_then(|model| {
            let key = &model.key;
            self.models.get(key).or_else(|| self.retired.models.get(key)).cloned()
        });
        let flow = self.flow_code(&config);
        Arc::new(Component { hash: hash.to_owned(), tools, checks, flow, depth: 0, model, config })
    }

    fn flow_code(&self, config: &ComponentConfig) -> Option<Arc<FlowCode>> {
        config.workflow().map(|workflow| Arc::new(FlowCode::of(workflow, &self.functions).0))
    }

    /// The component and all that its runs run, at any depth, as far as they are known here.
    pub(crate) fn tree(&self, component: &Arc<Component>) -> Vec<Arc<Component>> {
        let (mut open, mut tree) = (vec![component.clone()], Vec::<Arc<Component>>::new());
        while let Some(next) = open.pop() {
            if tree.iter().all(|known| known.hash != next.hash) {
                open.extend(next.config.children().into_iter().filter_map(|(_, hash)| self.by_hash(hash).cloned()));
                tree.push(next);
            }
        }
        tree
    }

    /// What this server can run, also of what only earlier runs need: it claims no other runs.
    pub fn abilities(&self) -> Abilities {
        let all = self.by_hash.values().chain(self.retired.components.values());
        let components: BTreeSet<String> = all.map(|known| known.config.component().to_string()).collect();
        let models: BTreeSet<&String> = self.models.keys().chain(self.retired.models.keys()).collect();
        Abilities {
            components: components.into_iter().collect(),
            models: models.into_iter().cloned().collect(),
            tools: self.tools.keys().cloned().chain(self.functions.abilities()).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use daybook_domain::component::ModelRef;
    use daybook_domain::ids::ComponentId;
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
            team: None,
        }
    }

    fn registry(models: &[&str], agents: &[(&str, &str, &[&str])]) -> Registry {
        let mut registry = Registry::default();
        models.iter().for_each(|name| registry.add_model(*name, Arc::new(DemoModel::default())));
        for (id, instruction, names) in agents {
            registry.add_agent(config(id, models[0], instruction), tools(names), Listing::Public).unwrap();
        }
        registry
    }

    #[test]
    fn what_is_replaced_stays_for_the_runs_that_began_with_it() {
        let first = registry(&["a"], &[("one", "first", &["x"]), ("gone", "first", &["y"])]);
        let first_of = |at| first.listed(ComponentKind::Agent).nth(at).unwrap().clone();
        let (one, gone) = (first_of(0), first_of(1));
        let mut second = registry(&["b"], &[("one", "second", &["z"])]);
        second.succeed(&first);
        let mut third = registry(&["c"], &[("one", "third", &[])]);
        third.succeed(&second);

        assert_eq!(third.listed(ComponentKind::Agent).count(), 1);
        assert!(third.component(&gone.config.component()).is_none());
        assert!(Arc::ptr_eq(third.known(&gone.config.component()).unwrap(), &gone));
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
            registry.add_agent(config("one", "a", ""), tools, Listing::Public).err().map(|error| error.to_string())
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
        let agent = here.pinned(Arc::new(other.clone().into()), "its hash");
        assert_eq!(agent.config.agent().unwrap().instructions, ["other"]);
        assert!(agent.model.is_some());
        assert_eq!(agent.tools.keys().collect::<Vec<_>>(), ["x"]);
        other.model.key = "b".to_owned();
        assert!(here.pinned(Arc::new(other.into()), "its hash").model.is_none());
    }
}
