//! How a workflow is configured: its steps, what they run, and the policies of each.
//!
//! Configurations are recorded as events and read for ever, so whatever came later has a default.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::output::StepType;
use super::place::Place;
use super::policy::Policies;
use crate::component::ComponentRef;
use crate::ids::ComponentId;
use crate::output::OutputSchema;
use crate::tool::{Effect, ToolSpec};

/// Everything about a workflow that shapes its runs. A run keeps the configuration it started with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WorkflowConfig {
    /// The workflow's id.
    pub id: ComponentId,
    /// Its name for people.
    pub name: String,
    /// What it is, for people.
    #[serde(default)]
    pub description: Option<String>,
    /// Its steps, one after the other.
    pub steps: Vec<Step>,
    /// The shape its input must have; any text when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input_schema: Option<OutputSchema>,
    /// The session state a new session starts with.
    #[serde(default)]
    pub session_state: Map<String, Value>,
    /// How many earlier runs' input and output the agents of its steps see; 0 is none.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub history_runs: u32,
    /// The most steps of one parallel block that run at the same time, unless the block says otherwise; at least 1.
    #[serde(default = "default_max_parallel")]
    pub max_parallel: u32,
    /// Shown with the workflow and kept with its runs.
    #[serde(default)]
    pub metadata: Map<String, Value>,
}

/// The most steps of one parallel block that run at the same time, unless configured.
fn default_max_parallel() -> u32 {
    16
}

/// One step of a workflow.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// Its name, unique among its siblings: expressions find its output by it.
    pub name: String,
    /// What it does, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// What it runs.
    #[serde(flatten)]
    pub kind: StepKind,
    /// What happens when it fails, takes long, or needs a person.
    #[serde(default, skip_serializing_if = "Policies::is_default")]
    pub policies: Policies,
}

/// What a step runs: one thing itself, or further steps.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum StepKind {
    /// An agent, a team or another workflow, as a child run.
    Component(ComponentStep),
    /// A tool.
    Tool(ToolStep),
    /// A function of the program that embeds the engine.
    Function(FunctionStep),
    /// Steps that run when a test holds, and others that run when it does not.
    Condition(ConditionStep),
    /// Steps that run beside each other.
    Parallel(ParallelStep),
    /// Steps that run again and again.
    Loop(LoopStep),
    /// Steps of which some are chosen.
    Router(RouterStep),
    /// Steps one after the other, under one name.
    Group(GroupStep),
}

/// Runs a component.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ComponentStep {
    /// What runs.
    pub component: ComponentRef,
    /// The hash of the configuration it runs with.
    pub config_hash: String,
    /// Its name for people.
    pub component_name: String,
    /// What it is told; what the step before it said, or else the workflow's input, when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input: Option<Expression>,
}

/// Calls a tool.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ToolStep {
    /// The tool.
    pub tool: ToolSpec,
    /// Its arguments by name.
    #[serde(default)]
    pub arguments: BTreeMap<String, Expression>,
}

/// Calls a function of the program that embeds the engine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FunctionStep {
    /// The name it was registered under.
    pub function: String,
    /// What calling it again does.
    #[serde(default)]
    pub effect: Effect,
}

/// Runs one of two lists of steps.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ConditionStep {
    /// What decides.
    pub test: Expression,
    /// The steps that run when it holds.
    pub steps: Vec<Step>,
    /// The steps that run when it does not; none when empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub else_steps: Vec<Step>,
}

/// Runs steps beside each other. All of them get the same input, and all of them end before the block does.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ParallelStep {
    /// The steps.
    pub steps: Vec<Step>,
    /// The most that run at the same time; the workflow's limit when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}

/// Runs steps again and again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LoopStep {
    /// The steps of one iteration.
    pub steps: Vec<Step>,
    /// Ends the loop when it holds after an iteration; without it the loop runs to its cap.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Expression>,
    /// The most iterations; at least 1.
    pub max_iterations: u32,
    /// Whether an iteration goes on from what the one before it said. Otherwise each starts from what the loop started
    /// from.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub forward: bool,
}

/// Runs those of its steps that were chosen, one after the other.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RouterStep {
    /// Who chooses.
    pub selector: Selector,
    /// The steps to choose among.
    pub choices: Vec<Step>,
    /// Whether several may be chosen.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub many: bool,
}

/// Runs steps one after the other.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GroupStep {
    /// The steps.
    pub steps: Vec<Step>,
}

/// A value that is known when a step is reached.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Expression {
    /// The text of an expression in CEL.
    Cel(String),
    /// The name of a closure of the program that embeds the engine.
    Function(String),
    /// The value itself.
    Constant(Value),
}

/// Who chooses the steps of a router.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Selector {
    /// A value: the name of one of its steps, or a list of names.
    Value(Expression),
    /// A person.
    Person {
        /// What the person is asked.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        message: Option<String>,
    },
}

impl StepKind {
    /// The kind's name on the wire.
    pub fn as_str(&self) -> &'static str {
        self.step_type().as_str()
    }

    /// The kind as clients know it.
    pub fn step_type(&self) -> StepType {
        match self {
            Self::Component(_) | Self::Tool(_) | Self::Function(_) => StepType::Step,
            Self::Condition(_) => StepType::Condition,
            Self::Parallel(_) => StepType::Parallel,
            Self::Loop(_) => StepType::Loop,
            Self::Router(_) => StepType::Router,
            Self::Group(_) => StepType::Steps,
        }
    }

    /// Whether it runs further steps.
    pub fn is_block(&self) -> bool {
        !matches!(self, Self::Component(_) | Self::Tool(_) | Self::Function(_))
    }

    /// The steps it runs or may run, a condition's other steps apart.
    pub fn steps(&self) -> &[Step] {
        match self {
            Self::Component(_) | Self::Tool(_) | Self::Function(_) => &[],
            Self::Condition(block) => &block.steps,
            Self::Parallel(block) => &block.steps,
            Self::Loop(block) => &block.steps,
            Self::Router(block) => &block.choices,
            Self::Group(block) => &block.steps,
        }
    }

    /// The steps a condition runs when its test does not hold.
    pub fn else_steps(&self) -> &[Step] {
        match self {
            Self::Condition(block) => &block.else_steps,
            _ => &[],
        }
    }
}

impl WorkflowConfig {
    /// All steps with their places, as they are written: a block before what is in it.
    pub fn walk(&self) -> Vec<(Place, &Step)> {
        let mut all = Vec::new();
        let mut open: Vec<(Place, &Step)> =
            self.steps.iter().enumerate().map(|(index, step)| (Place::top(index), step)).rev().collect();
        while let Some((place, step)) = open.pop() {
            let other = step.kind.else_steps().iter().enumerate().map(|(index, step)| (place.else_step(index), step));
            let own = step.kind.steps().iter().enumerate().map(|(index, step)| (place.step(index), step));
            let inner: Vec<_> = own.chain(other).collect();
            open.extend(inner.into_iter().rev());
            all.push((place, step));
        }
        all
    }

    /// The tools that its steps call, each once.
    pub fn tools(&self) -> Vec<&ToolSpec> {
        let mut tools: Vec<&ToolSpec> = Vec::new();
        for (_, step) in self.walk() {
            if let StepKind::Tool(call) = &step.kind
                && !tools.iter().any(|known| known.name == call.tool.name)
            {
                tools.push(&call.tool);
            }
        }
        tools
    }

    /// Sets what is known of the tools that its steps call, by their names.
    pub fn set_tools(&mut self, spec: &dyn Fn(&str) -> Option<ToolSpec>) {
        let mut open: Vec<&mut Step> = self.steps.iter_mut().collect();
        while let Some(step) = open.pop() {
            match &mut step.kind {
                StepKind::Tool(call) => {
                    if let Some(spec) = spec(&call.tool.name) {
                        call.tool = spec;
                    }
                }
                StepKind::Condition(block) => open.extend(block.steps.iter_mut().chain(&mut block.else_steps)),
                StepKind::Parallel(block) => open.extend(&mut block.steps),
                StepKind::Loop(block) => open.extend(&mut block.steps),
                StepKind::Router(block) => open.extend(&mut block.choices),
                StepKind::Group(block) => open.extend(&mut block.steps),
                StepKind::Component(_) | StepKind::Function(_) => {}
            }
        }
    }

    /// The components that its steps run.
    pub fn components(&self) -> Vec<&ComponentStep> {
        let mut all = Vec::new();
        for (_, step) in self.walk() {
            if let StepKind::Component(run) = &step.kind {
                all.push(run);
            }
        }
        all
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands references")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}
