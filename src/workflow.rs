//! A workflow as its owner describes it in code.

use daybook_domain::component::{ComponentKind, ComponentRef};
use daybook_domain::ids::ComponentId;
use daybook_domain::tool::Effect;
use daybook_domain::workflow::{
    ComponentStep, ConditionStep, Expression, FunctionStep, GroupStep, LoopStep, ParallelStep, Policies, RouterStep,
    Selector, Step, StepKind, ToolStep, WorkflowConfig,
};
use daybook_engine::{Listing, Registry};
use daybook_models::Models;
use daybook_tools::ToolSet;
use serde_json::{Map, Value};

use crate::agent::AgentDefinition;
use crate::error::Error;
use crate::sources::Toolbox;

/// A workflow: steps in an order known beforehand.
#[derive(Debug, Clone, PartialEq)]
pub struct WorkflowDefinition {
    id: String,
    name: Option<String>,
    description: Option<String>,
    steps: Vec<StepDefinition>,
    session_state: Map<String, Value>,
    metadata: Map<String, Value>,
}

/// One step of a workflow.
#[derive(Debug, Clone, PartialEq)]
pub struct StepDefinition {
    name: String,
    runs: Runs,
    policies: Policies,
}

/// What a step runs.
#[derive(Debug, Clone, PartialEq)]
enum Runs {
    /// An agent, a team or a workflow of the server.
    Component(ComponentKind, String),
    /// An agent of this workflow alone.
    Own(Box<AgentDefinition>),
    Tool(String, Vec<(String, Expression)>),
    Function(String, Effect),
    Condition(Expression, Vec<StepDefinition>, Vec<StepDefinition>),
    Parallel(Vec<StepDefinition>),
    Loop(Option<Expression>, u32, Vec<StepDefinition>),
    Router(Selector, Vec<StepDefinition>),
    Group(Vec<StepDefinition>),
}

impl WorkflowDefinition {
    /// A workflow of this id, which is also its name, without steps yet.
    pub fn new(id: impl Into<String>) -> Self {
        let (session_state, metadata) = (Map::new(), Map::new());
        Self { id: id.into(), name: None, description: None, steps: Vec::new(), session_state, metadata }
    }

    /// Its name for people.
    #[must_use]
    pub fn name(self, name: impl Into<String>) -> Self {
        Self { name: Some(name.into()), ..self }
    }

    /// What it is, for people.
    #[must_use]
    pub fn description(self, description: impl Into<String>) -> Self {
        Self { description: Some(description.into()), ..self }
    }

    /// One more step.
    #[must_use]
    pub fn step(mut self, step: StepDefinition) -> Self {
        self.steps.push(step);
        self
    }

    /// The session state that a new session starts with.
    #[must_use]
    pub fn session_state(self, session_state: Map<String, Value>) -> Self {
        Self { session_state, ..self }
    }

    /// Shown with the workflow and kept with its runs.
    #[must_use]
    pub fn metadata(self, metadata: Map<String, Value>) -> Self {
        Self { metadata, ..self }
    }

    /// The workflows of the server that its steps run.
    fn workflows(&self) -> Vec<&str> {
        fn add<'a>(steps: &'a [StepDefinition], found: &mut Vec<&'a str>) {
            for step in steps {
                match &step.runs {
                    Runs::Component(ComponentKind::Workflow, id) => found.push(id),
                    Runs::Condition(_, steps, others) => [steps, others].iter().for_each(|steps| add(steps, found)),
                    Runs::Parallel(steps) | Runs::Loop(_, _, steps) | Runs::Router(_, steps) | Runs::Group(steps) => {
                        add(steps, found);
                    }
                    Runs::Component(..) | Runs::Own(_) | Runs::Tool(..) | Runs::Function(..) => {}
                }
            }
        }
        let mut found = Vec::new();
        add(&self.steps, &mut found);
        found
    }

    fn fault(&self, fault: String) -> Error {
        Error::Workflow { workflow: self.id.clone(), fault }
    }

    fn register(self, registry: &mut Registry, models: &Models, toolbox: &Toolbox) -> Result<(), Error> {
        let id = crate::agent::check_id(&self.id).map_err(|fault| self.fault(fault))?;
        let mut putting = Putting { workflow: &self, registry, models, toolbox, tools: ToolSet::default() };
        let steps = putting.steps(&self.steps)?;
        let tools = putting.tools;
        let config = serde_json::json!({"id": id, "name": self.name.as_deref().unwrap_or(&self.id), "steps": []});
        // What is not said here is as the domain has it.
        let config: WorkflowConfig = serde_json::from_value(config).map_err(|error| self.fault(error.to_string()))?;
        let (description, session_state, metadata) = (self.description, self.session_state, self.metadata);
        let config = WorkflowConfig { description, steps, session_state, metadata, ..config };
        registry.add_workflow(config, tools, Listing::Public)?;
        Ok(())
    }
}

impl StepDefinition {
    fn new(name: impl Into<String>, runs: Runs) -> Self {
        Self { name: name.into(), runs, policies: Policies::default() }
    }

    /// Runs an agent of the server, by id.
    pub fn agent(name: impl Into<String>, id: impl Into<String>) -> Self {
        Self::new(name, Runs::Component(ComponentKind::Agent, id.into()))
    }

    /// Runs an agent that is not the server's, but this workflow's alone.
    pub fn own_agent(name: impl Into<String>, agent: AgentDefinition) -> Self {
        Self::new(name, Runs::Own(Box::new(agent)))
    }

    /// Runs a team of the server, by id.
    pub fn team(name: impl Into<String>, id: impl Into<String>) -> Self {
        Self::new(name, Runs::Component(ComponentKind::Team, id.into()))
    }

    /// Runs another workflow of the server, by id.
    pub fn workflow(name: impl Into<String>, id: impl Into<String>) -> Self {
        Self::new(name, Runs::Component(ComponentKind::Workflow, id.into()))
    }

    /// Calls a tool with these arguments.
    pub fn tool(
        name: impl Into<String>,
        tool: impl Into<String>,
        arguments: impl IntoIterator<Item = (String, Expression)>,
    ) -> Self {
        Self::new(name, Runs::Tool(tool.into(), arguments.into_iter().collect()))
    }

    /// Calls a function of this program, by the name it was given to the builder under. `effect` says what a second call
    /// does.
    pub fn function(name: impl Into<String>, function: impl Into<String>, effect: Effect) -> Self {
        Self::new(name, Runs::Function(function.into(), effect))
    }

    /// Runs `steps` when the test holds, and `else_steps` when it does not.
    pub fn condition(
        name: impl Into<String>,
        test: Expression,
        steps: impl IntoIterator<Item = Self>,
        else_steps: impl IntoIterator<Item = Self>,
    ) -> Self {
        Self::new(name, Runs::Condition(test, steps.into_iter().collect(), else_steps.into_iter().collect()))
    }

    /// Runs the steps beside each other.
    pub fn parallel(name: impl Into<String>, steps: impl IntoIterator<Item = Self>) -> Self {
        Self::new(name, Runs::Parallel(steps.into_iter().collect()))
    }

    /// Runs the steps again and again, until that holds, and so often at most.
    pub fn repeat(
        name: impl Into<String>,
        until: Option<Expression>,
        max_iterations: u32,
        steps: impl IntoIterator<Item = Self>,
    ) -> Self {
        Self::new(name, Runs::Loop(until, max_iterations, steps.into_iter().collect()))
    }

    /// Runs those of the steps that are chosen.
    pub fn router(name: impl Into<String>, selector: Selector, choices: impl IntoIterator<Item = Self>) -> Self {
        Self::new(name, Runs::Router(selector, choices.into_iter().collect()))
    }

    /// Runs the steps one after the other, under one name.
    pub fn group(name: impl Into<String>, steps: impl IntoIterator<Item = Self>) -> Self {
        Self::new(name, Runs::Group(steps.into_iter().collect()))
    }

    /// What happens when it fails, takes long, or needs a person.
    #[must_use]
    pub fn policies(self, policies: Policies) -> Self {
        Self { policies, ..self }
    }
}

/// A workflow whose steps are being put together.
struct Putting<'a> {
    workflow: &'a WorkflowDefinition,
    registry: &'a mut Registry,
    models: &'a Models,
    toolbox: &'a Toolbox,
    tools: ToolSet,
}

impl Putting<'_> {
    fn steps(&mut self, steps: &[StepDefinition]) -> Result<Vec<Step>, Error> {
        steps.iter().map(|step| self.step(step)).collect()
    }

    fn step(&mut self, step: &StepDefinition) -> Result<Step, Error> {
        let kind = match &step.runs {
            Runs::Component(kind, id) => self.component(*kind, id)?,
            Runs::Own(agent) => {
                let (config, tools) = AgentDefinition::clone(agent).resolve(self.models, self.toolbox)?;
                let (component, name) = (ComponentRef::agent(config.id.clone()), config.name.clone());
                let config_hash = self.registry.add_agent(config, tools, Listing::Inner)?;
                StepKind::Component(ComponentStep { component, config_hash, component_name: name, input: None })
            }
            Runs::Tool(name, arguments) => self.tool(name, arguments)?,
            Runs::Function(function, effect) => {
                StepKind::Function(FunctionStep { function: function.clone(), effect: *effect })
            }
            Runs::Condition(test, steps, others) => {
                let (steps, else_steps) = (self.steps(steps)?, self.steps(others)?);
                StepKind::Condition(ConditionStep { test: test.clone(), steps, else_steps })
            }
            Runs::Parallel(steps) => StepKind::Parallel(ParallelStep { steps: self.steps(steps)?, limit: None }),
            Runs::Loop(until, max_iterations, steps) => StepKind::Loop(LoopStep {
                steps: self.steps(steps)?,
                until: until.clone(),
                max_iterations: *max_iterations,
                forward: false,
            }),
            Runs::Router(selector, choices) => {
                let choices = self.steps(choices)?;
                StepKind::Router(RouterStep { selector: selector.clone(), choices, many: false })
            }
            Runs::Group(steps) => StepKind::Group(GroupStep { steps: self.steps(steps)? }),
        };
        let (name, policies) = (step.name.clone(), step.policies.clone());
        Ok(Step { name, description: None, kind, policies })
    }

    fn component(&self, kind: ComponentKind, id: &str) -> Result<StepKind, Error> {
        let found = ComponentId::parse(id).ok().map(|id| ComponentRef { kind, id });
        let found = found.and_then(|component| self.registry.component(&component));
        let unknown = || self.workflow.fault(format!("there is no {} {id:?} for a step to run", kind.as_str()));
        let known = found.ok_or_else(unknown)?;
        Ok(StepKind::Component(ComponentStep {
            component: known.config.component(),
            config_hash: known.hash.clone(),
            component_name: known.config.name().to_owned(),
            input: None,
        }))
    }

    fn tool(&mut self, name: &str, arguments: &[(String, Expression)]) -> Result<StepKind, Error> {
        let found = self.toolbox.named(name).map_err(|fault| self.workflow.fault(fault))?;
        let [tool] = found.as_slice() else {
            return Err(self.workflow.fault(format!("{name:?} stands for several tools: name one of them")));
        };
        let spec = tool.spec().clone();
        self.tools.insert(spec.name.clone(), tool.clone());
        Ok(StepKind::Tool(ToolStep { tool: spec, arguments: arguments.iter().cloned().collect() }))
    }
}

/// Makes the workflows known, each after those that its steps run.
pub(crate) fn register(
    mut workflows: Vec<WorkflowDefinition>,
    registry: &mut Registry,
    models: &Models,
    toolbox: &Toolbox,
) -> Result<(), Error> {
    while let Some(first) = workflows.first() {
        let waits = |workflow: &WorkflowDefinition| {
            workflow.workflows().iter().any(|id| workflows.iter().any(|other| other.id == *id))
        };
        let Some(ready) = workflows.iter().position(|workflow| !waits(workflow)) else {
            let circle: Vec<&str> = workflows.iter().map(|workflow| workflow.id.as_str()).collect();
            return Err(first.fault(format!("it would run itself, by way of {}", circle.join(", "))));
        };
        workflows.remove(ready).register(registry, models, toolbox)?;
    }
    Ok(())
}
