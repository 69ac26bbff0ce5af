//! A workflow as its owner describes it, in the definitions or in code.

use std::collections::BTreeMap;
use std::convert::Infallible;

use daybook_domain::component::{ComponentKind, ComponentRef};
use daybook_domain::ids::ComponentId;
use daybook_domain::tool::Effect;
use daybook_domain::workflow::{
    ComponentStep, ConditionStep, Confirmation, Expression, FunctionStep, GroupStep, InputReview, LoopStep, OnError,
    OutputReview, ParallelStep, Policies, Retries, RouterStep, Selector, Step, StepKind, ToolStep, UserInput,
    WorkflowConfig,
};
use daybook_engine::{Listing, Registry};
use daybook_expressions::Uses;
use daybook_models::Models;
use daybook_tools::ToolSet;
use serde_json::{Map, Value};

use crate::agent::{AgentDefinition, check_id, check_line, check_output, check_text, check_values};
use crate::error::Error;
use crate::sources::Toolbox;

/// The most steps of one parallel block that run at the same time, unless said otherwise.
const MAX_PARALLEL: u32 = 16;

/// A workflow: steps that run one after the other, beside each other, again and again, or as a test or a person decides.
#[derive(Debug, Clone, PartialEq)]
pub struct WorkflowDefinition {
    pub(crate) id: String,
    pub(crate) name: Option<String>,
    pub(crate) description: Option<String>,
    pub(crate) steps: Vec<StepDefinition>,
    pub(crate) input_schema: Option<Value>,
    pub(crate) session_state: Map<String, Value>,
    pub(crate) history_runs: u32,
    pub(crate) max_parallel: u32,
    pub(crate) metadata: Map<String, Value>,
}

/// A step of a workflow.
#[derive(Debug, Clone, PartialEq)]
pub struct StepDefinition {
    pub(crate) name: String,
    pub(crate) description: Option<String>,
    pub(crate) runs: Runs,
    pub(crate) policies: Policies,
}

/// What a step runs.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Runs {
    /// A component of the server, by id.
    Component { kind: ComponentKind, id: String, input: Option<Expression> },
    /// An agent of this workflow alone.
    Own { agent: Box<AgentDefinition>, input: Option<Expression> },
    /// A tool, by the name that agents use.
    Tool { tool: String, arguments: BTreeMap<String, Expression> },
    /// A function of the program, by name.
    Function { function: String, effect: Effect },
    /// Steps that run when a test holds, and others that run when it does not.
    Condition { test: Expression, steps: Vec<StepDefinition>, otherwise: Vec<StepDefinition> },
    /// Steps that run beside each other.
    Parallel { steps: Vec<StepDefinition>, limit: Option<u32> },
    /// Steps that run again and again.
    Loop { steps: Vec<StepDefinition>, until: Option<Expression>, max_iterations: u32, forward: bool },
    /// Steps of which some are chosen.
    Router { selector: Selector, choices: Vec<StepDefinition>, many: bool },
    /// Steps one after the other, under one name.
    Group { steps: Vec<StepDefinition> },
}

impl WorkflowDefinition {
    /// A workflow of this id, which is also its name, without steps yet.
    pub fn new(id: impl Into<String>) -> Self {
        Self {
            id: id.into(),
            name: None,
            description: None,
            steps: Vec::new(),
            input_schema: None,
            session_state: Map::new(),
            history_runs: 0,
            max_parallel: MAX_PARALLEL,
            metadata: Map::new(),
        }
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

    /// One more step, after those there are.
    #[must_use]
    pub fn step(mut self, step: StepDefinition) -> Self {
        self.steps.push(step);
        self
    }

    /// The shape its input must have: the JSON Schema of an object. Any text unless said.
    #[must_use]
    pub fn input_schema(self, schema: impl Into<Value>) -> Self {
        Self { input_schema: Some(schema.into()), ..self }
    }

    /// The session state that a new session starts with.
    #[must_use]
    pub fn session_state(self, session_state: Map<String, Value>) -> Self {
        Self { session_state, ..self }
    }

    /// How many earlier runs' input and output the agents of its steps see; none unless said.
    #[must_use]
    pub fn history_runs(self, history_runs: u32) -> Self {
        Self { history_runs, ..self }
    }

    /// The most steps of one parallel block that run at the same time, unless the block says otherwise; 16 unless said.
    #[must_use]
    pub fn max_parallel(self, max_parallel: u32) -> Self {
        Self { max_parallel, ..self }
    }

    /// Shown with the workflow and kept with its runs.
    #[must_use]
    pub fn metadata(self, metadata: Map<String, Value>) -> Self {
        Self { metadata, ..self }
    }

    /// The workflows that its steps run, by id.
    pub(crate) fn workflows(&self) -> Vec<&str> {
        let mut found = Vec::new();
        each(&self.steps, &mut |step| {
            if let Runs::Component { kind: ComponentKind::Workflow, id, .. } = &step.runs {
                found.push(id.as_str());
            }
        });
        found
    }

    fn fault(&self, fault: impl Into<String>) -> Error {
        Error::Workflow { workflow: self.id.clone(), fault: fault.into() }
    }

    fn register(self, registry: &mut Registry, models: &Models, toolbox: &Toolbox) -> Result<(), Error> {
        let id = check_id(&self.id).map_err(|fault| self.fault(fault))?;
        self.check_texts().map_err(|fault| self.fault(fault))?;
        let input_schema = self.input_schema.as_ref().map(check_output).transpose();
        let input_schema =
            input_schema.map_err(|fault| self.fault(fault.replacen("output_schema", "input_schema", 1)))?;
        let mut making = Making { workflow: &self, registry, models, toolbox, tools: ToolSet::new() };
        let steps = assemble(&self.steps, &mut |step| making.leaf(step))?;
        let tools = making.tools;
        let (name, max_parallel) = (self.name.clone().unwrap_or_else(|| id.to_string()), self.max_parallel);
        let config = WorkflowConfig { input_schema, ..config(id, name, steps, max_parallel) };
        let unseen = unseen_steps(&config);
        if !unseen.is_empty() {
            return Err(self.fault(unseen.join("; ")));
        }
        let config = WorkflowConfig {
            description: self.description,
            session_state: self.session_state,
            history_runs: self.history_runs,
            metadata: self.metadata,
            ..config
        };
        registry.add_workflow(config, tools, Listing::Public)?;
        Ok(())
    }

    /// It without what its steps run: enough to see what is wrong with how they stand together.
    pub(crate) fn outline(&self) -> Option<WorkflowConfig> {
        let leaf = |_: &StepDefinition| {
            Ok::<_, Infallible>(StepKind::Function(FunctionStep { function: "any".to_owned(), effect: Effect::Pure }))
        };
        let steps = match assemble(&self.steps, &mut { leaf }) {
            Ok(steps) => steps,
            Err(never) => match never {},
        };
        // The id has been looked at elsewhere.
        let id = ComponentId::parse(self.id.as_str()).or_else(|_| ComponentId::parse("any")).ok()?;
        Some(config(id, String::new(), steps, self.max_parallel))
    }

    fn check_texts(&self) -> Result<(), String> {
        self.name.as_deref().map_or(Ok(()), |name| check_line("name", name))?;
        self.description.as_deref().map_or(Ok(()), |text| check_text("description", text))?;
        check_values("session_state", &self.session_state)?;
        check_values("metadata", &self.metadata)?;
        let mut checked = Ok(());
        each(&self.steps, &mut |step| {
            let text = step.description.as_deref().map_or(Ok(()), |text| check_text("description", text));
            let texts = check_line("name", &step.name).and(text);
            checked = std::mem::replace(&mut checked, Ok(())).and(texts);
        });
        checked
    }
}

fn config(id: ComponentId, name: String, steps: Vec<Step>, max_parallel: u32) -> WorkflowConfig {
    WorkflowConfig {
        id,
        name,
        description: None,
        steps,
        input_schema: None,
        session_state: Map::new(),
        history_runs: 0,
        max_parallel,
        metadata: Map::new(),
    }
}

/// What its expressions look at that is no step.
fn unseen_steps(config: &WorkflowConfig) -> Vec<String> {
    let names: Vec<String> = config.walk().into_iter().map(|(_, step)| step.name.clone()).collect();
    let expressions = config.expressions().into_iter();
    let faults = expressions.filter_map(|(path, what, expression)| {
        // What cannot be read at all is told when the workflow is made known.
        let seen = steps_of(expression).unwrap_or_default();
        let fault = unseen(&seen, &names)?;
        Some(format!("{}: {what}: {fault}", path.join(" > ")))
    });
    faults.collect()
}

/// The names of the steps that an expression looks at.
///
/// # Errors
/// Why it cannot be evaluated, with its own line and column.
pub(crate) fn steps_of(expression: &Expression) -> Result<Vec<String>, String> {
    let Expression::Cel(text) = expression else { return Ok(Vec::new()) };
    let compiled = daybook_expressions::Expression::compile(text).map_err(|error| error.to_string())?;
    Ok(match compiled.outputs() {
        Uses::Names(names) => names.iter().cloned().collect(),
        Uses::Nothing | Uses::All => Vec::new(),
    })
}

/// The first of the steps that are looked at which is not among `names`, told to people.
pub(crate) fn unseen(looked_at: &[String], names: &[String]) -> Option<String> {
    let unknown = looked_at.iter().find(|name| !names.contains(name))?;
    Some(format!("there is no step {unknown:?} to look at; there are: {}", names.join(", ")))
}

/// Calls `look` for every step at any depth.
pub(crate) fn each<'a>(steps: &'a [StepDefinition], look: &mut impl FnMut(&'a StepDefinition)) {
    for step in steps {
        look(step);
        step.blocks().into_iter().for_each(|block| each(block, look));
    }
}

impl StepDefinition {
    fn new(name: impl Into<String>, runs: Runs) -> Self {
        Self { name: name.into(), description: None, runs, policies: Policies::default() }
    }

    fn component(kind: ComponentKind, name: impl Into<String>, id: impl Into<String>) -> Self {
        Self::new(name, Runs::Component { kind, id: id.into(), input: None })
    }

    /// Runs an agent of the server.
    pub fn agent(name: impl Into<String>, id: impl Into<String>) -> Self {
        Self::component(ComponentKind::Agent, name, id)
    }

    /// Runs a team of the server.
    pub fn team(name: impl Into<String>, id: impl Into<String>) -> Self {
        Self::component(ComponentKind::Team, name, id)
    }

    /// Runs another workflow of the server.
    pub fn workflow(name: impl Into<String>, id: impl Into<String>) -> Self {
        Self::component(ComponentKind::Workflow, name, id)
    }

    /// Runs an agent that is not the server's, but this workflow's alone.
    pub fn own_agent(name: impl Into<String>, agent: AgentDefinition) -> Self {
        Self::new(name, Runs::Own { agent: Box::new(agent), input: None })
    }

    /// Calls a tool, by the name that agents use, with these arguments.
    pub fn tool(
        name: impl Into<String>,
        tool: impl Into<String>,
        arguments: impl IntoIterator<Item = (String, Expression)>,
    ) -> Self {
        Self::new(name, Runs::Tool { tool: tool.into(), arguments: arguments.into_iter().collect() })
    }

    /// Calls a function that the server was given, by name. `effect` is what a second call does, which decides what
    /// happens when a crash hides the first one's outcome.
    pub fn function(name: impl Into<String>, function: impl Into<String>, effect: Effect) -> Self {
        Self::new(name, Runs::Function { function: function.into(), effect })
    }

    /// Runs `steps` when the test holds, and `otherwise` when it does not.
    pub fn condition(
        name: impl Into<String>,
        test: Expression,
        steps: impl IntoIterator<Item = Self>,
        otherwise: impl IntoIterator<Item = Self>,
    ) -> Self {
        let (steps, otherwise) = (steps.into_iter().collect(), otherwise.into_iter().collect());
        Self::new(name, Runs::Condition { test, steps, otherwise })
    }

    /// Runs steps beside each other. All get the same input, and all end before the block does.
    pub fn parallel(name: impl Into<String>, steps: impl IntoIterator<Item = Self>) -> Self {
        Self::new(name, Runs::Parallel { steps: steps.into_iter().collect(), limit: None })
    }

    /// Runs steps again and again: until `until` holds after an iteration, and `max_iterations` times at the most.
    pub fn repeat(
        name: impl Into<String>,
        until: Option<Expression>,
        max_iterations: u32,
        steps: impl IntoIterator<Item = Self>,
    ) -> Self {
        let steps = steps.into_iter().collect();
        Self::new(name, Runs::Loop { steps, until, max_iterations, forward: false })
    }

    /// Runs the one of `choices` whose name the selector gives.
    pub fn router(name: impl Into<String>, selector: Selector, choices: impl IntoIterator<Item = Self>) -> Self {
        Self::new(name, Runs::Router { selector, choices: choices.into_iter().collect(), many: false })
    }

    /// Runs steps one after the other, under one name.
    pub fn group(name: impl Into<String>, steps: impl IntoIterator<Item = Self>) -> Self {
        Self::new(name, Runs::Group { steps: steps.into_iter().collect() })
    }

    /// What it does, for people.
    #[must_use]
    pub fn description(self, description: impl Into<String>) -> Self {
        Self { description: Some(description.into()), ..self }
    }

    /// What a component is told, instead of what was said last. Of other steps it changes nothing.
    #[must_use]
    pub fn input(mut self, expression: Expression) -> Self {
        if let Runs::Component { input, .. } | Runs::Own { input, .. } = &mut self.runs {
            *input = Some(expression);
        }
        self
    }

    /// The most steps of a parallel block that run at the same time. Of other steps it changes nothing.
    #[must_use]
    pub fn limit(mut self, steps: u32) -> Self {
        if let Runs::Parallel { limit, .. } = &mut self.runs {
            *limit = Some(steps);
        }
        self
    }

    /// Each iteration of a loop goes on from what the one before it said, and not from what the loop started from. Of
    /// other steps it changes nothing.
    #[must_use]
    pub fn forward(mut self) -> Self {
        if let Runs::Loop { forward, .. } = &mut self.runs {
            *forward = true;
        }
        self
    }

    /// Several choices of a router may be taken. Of other steps it changes nothing.
    #[must_use]
    pub fn many(mut self) -> Self {
        if let Runs::Router { many, .. } = &mut self.runs {
            *many = true;
        }
        self
    }

    /// What happens when it fails, takes long, or needs a person, all at once.
    #[must_use]
    pub fn policies(self, policies: Policies) -> Self {
        Self { policies, ..self }
    }

    /// How often it is tried again when it failed, and when.
    #[must_use]
    pub fn retries(mut self, retries: Retries) -> Self {
        self.policies.retries = retries;
        self
    }

    /// Seconds one attempt may take; without end unless said.
    #[must_use]
    pub fn timeout_seconds(mut self, seconds: u64) -> Self {
        self.policies.timeout_seconds = Some(seconds);
        self
    }

    /// What becomes of the workflow when it failed for good; it goes on unless said.
    #[must_use]
    pub fn on_error(mut self, then: OnError) -> Self {
        self.policies.on_error = then;
        self
    }

    /// A person says whether it may run.
    #[must_use]
    pub fn confirm(mut self, confirmation: Confirmation) -> Self {
        self.policies.review.confirmation = Some(confirmation);
        self
    }

    /// A person fills in values for it.
    #[must_use]
    pub fn user_input(mut self, input: UserInput) -> Self {
        self.policies.review.user_input = Some(input);
        self
    }

    /// A person sees its input first, and may change it.
    #[must_use]
    pub fn review_input(mut self, review: InputReview) -> Self {
        self.policies.review.input = Some(review);
        self
    }

    /// A person sees its output, and may change it.
    #[must_use]
    pub fn review_output(mut self, review: OutputReview) -> Self {
        self.policies.review.output = Some(review);
        self
    }

    /// The lists of steps in it.
    pub(crate) fn blocks(&self) -> Vec<&[Self]> {
        match &self.runs {
            Runs::Component { .. } | Runs::Own { .. } | Runs::Tool { .. } | Runs::Function { .. } => Vec::new(),
            Runs::Condition { steps, otherwise, .. } => vec![steps, otherwise],
            Runs::Parallel { steps, .. } | Runs::Loop { steps, .. } | Runs::Group { steps } => vec![steps],
            Runs::Router { choices, .. } => vec![choices],
        }
    }
}

/// The steps as a configuration has them; `leaf` says what those run that run no further steps.
fn assemble<E>(
    steps: &[StepDefinition],
    leaf: &mut impl FnMut(&StepDefinition) -> Result<StepKind, E>,
) -> Result<Vec<Step>, E> {
    let mut made = Vec::with_capacity(steps.len());
    for step in steps {
        let kind = match &step.runs {
            Runs::Condition { test, steps, otherwise } => StepKind::Condition(ConditionStep {
                test: test.clone(),
                steps: assemble(steps, leaf)?,
                else_steps: assemble(otherwise, leaf)?,
            }),
            Runs::Parallel { steps, limit } => {
                StepKind::Parallel(ParallelStep { steps: assemble(steps, leaf)?, limit: *limit })
            }
            Runs::Loop { steps, until, max_iterations, forward } => StepKind::Loop(LoopStep {
                steps: assemble(steps, leaf)?,
                until: until.clone(),
                max_iterations: *max_iterations,
                forward: *forward,
            }),
            Runs::Router { selector, choices, many } => StepKind::Router(RouterStep {
                selector: selector.clone(),
                choices: assemble(choices, leaf)?,
                many: *many,
            }),
            Runs::Group { steps } => StepKind::Group(GroupStep { steps: assemble(steps, leaf)? }),
            Runs::Component { .. } | Runs::Own { .. } | Runs::Tool { .. } | Runs::Function { .. } => leaf(step)?,
        };
        let (name, description) = (step.name.clone(), step.description.clone());
        made.push(Step { name, description, kind, policies: step.policies.clone() });
    }
    Ok(made)
}

/// What a workflow's steps are made with.
struct Making<'a> {
    workflow: &'a WorkflowDefinition,
    registry: &'a mut Registry,
    models: &'a Models,
    toolbox: &'a Toolbox,
    /// The code of the tools that its steps call.
    tools: ToolSet,
}

impl Making<'_> {
    /// What a step runs that runs no further steps.
    fn leaf(&mut self, step: &StepDefinition) -> Result<StepKind, Error> {
        Ok(match &step.runs {
            Runs::Component { kind, id, input } => {
                let component = self.known(&step.name, *kind, id)?;
                StepKind::Component(ComponentStep { input: input.clone(), ..component })
            }
            Runs::Own { agent, input } => {
                let (config, tools) = AgentDefinition::clone(agent).resolve(self.models, self.toolbox)?;
                let (component, name) = (ComponentRef::agent(config.id.clone()), config.name.clone());
                let config_hash = self.registry.add_agent(config, tools, Listing::Inner)?;
                let input = input.clone();
                StepKind::Component(ComponentStep { component, config_hash, component_name: name, input })
            }
            Runs::Tool { tool, arguments } => {
                let arguments = arguments.clone();
                StepKind::Tool(ToolStep { tool: self.tool(&step.name, tool)?, arguments })
            }
            Runs::Function { function, effect } => {
                StepKind::Function(FunctionStep { function: function.clone(), effect: *effect })
            }
            Runs::Condition { .. }
            | Runs::Parallel { .. }
            | Runs::Loop { .. }
            | Runs::Router { .. }
            | Runs::Group { .. } => return Err(self.fault(&step.name, "it runs further steps")),
        })
    }

    fn fault(&self, step: &str, fault: &str) -> Error {
        self.workflow.fault(format!("step {step:?}: {fault}"))
    }

    /// A component, which must be registered already.
    fn known(&self, step: &str, kind: ComponentKind, id: &str) -> Result<ComponentStep, Error> {
        let component = ComponentId::parse(id).ok().map(|id| ComponentRef { kind, id });
        let known = component.as_ref().and_then(|component| self.registry.component(component));
        let known = known.ok_or_else(|| self.fault(step, &format!("there is no {} {id:?}", kind.as_str())))?;
        Ok(ComponentStep {
            component: known.config.component(),
            config_hash: known.hash.clone(),
            component_name: known.config.name().to_owned(),
            input: None,
        })
    }

    fn tool(&mut self, step: &str, name: &str) -> Result<daybook_domain::tool::ToolSpec, Error> {
        let named = self.toolbox.named(name).map_err(|fault| self.fault(step, &fault))?;
        let [tool] = named.as_slice() else {
            let fault = format!("{name:?} has {} tools, and a step calls one: name it as `{name}.TOOL`", named.len());
            return Err(self.fault(step, &fault));
        };
        let spec = tool.spec().clone();
        self.tools.insert(spec.name.clone(), tool.clone());
        Ok(spec)
    }
}

/// Makes the workflows known, each after those that its steps run.
pub(crate) fn register(
    mut workflows: Vec<WorkflowDefinition>,
    registry: &mut Registry,
    models: &Models,
    toolbox: &Toolbox,
) -> Result<(), Error> {
    while !workflows.is_empty() {
        let waits = |workflow: &WorkflowDefinition| {
            workflow.workflows().into_iter().any(|id| workflows.iter().any(|other| other.id == id))
        };
        let Some(ready) = workflows.iter().position(|workflow| !waits(workflow)) else {
            let circle: Vec<&str> = workflows.iter().map(|workflow| workflow.id.as_str()).collect();
            return Err(workflows[0].fault(format!("it would run itself, by way of {}", circle.join(", "))));
        };
        workflows.remove(ready).register(registry, models, toolbox)?;
    }
    Ok(())
}
