//! A workflow as its owner describes it, in the definitions or in code.

mod make;
mod step;

use std::convert::Infallible;

use daybook_domain::component::ComponentKind;
use daybook_domain::ids::ComponentId;
use daybook_domain::tool::Effect;
use daybook_domain::workflow::{FunctionStep, Step, StepKind, WorkflowConfig};
use daybook_engine::{Listing, Registry};
use daybook_models::Models;
use daybook_tools::ToolSet;
use serde_json::{Map, Value};

use self::make::{Leaf, Making, assemble, unseen_steps};
use crate::agent::{check_id, check_line, check_output, check_text, check_values};
use crate::error::Error;
use crate::sources::Toolbox;

pub(crate) use self::make::{steps_of, unseen};
pub use self::step::StepDefinition;
pub(crate) use self::step::{Runs, each};

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
        let steps = assemble(&self.steps, &mut |step, leaf| making.leaf(step, leaf))?;
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
        let any = |_: &str, _: Leaf<'_>| {
            Ok::<_, Infallible>(StepKind::Function(FunctionStep { function: "any".to_owned(), effect: Effect::Pure }))
        };
        let steps = match assemble(&self.steps, &mut { any }) {
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
