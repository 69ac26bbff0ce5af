//! Making the configuration of a workflow from what its owner describes.

use std::collections::BTreeMap;

use daybook_domain::component::{ComponentKind, ComponentRef};
use daybook_domain::ids::ComponentId;
use daybook_domain::tool::ToolSpec;
use daybook_domain::workflow::{
    ComponentStep, ConditionStep, Expression, FunctionStep, GroupStep, LoopStep, ParallelStep, RouterStep, Step,
    StepKind, ToolStep, WorkflowConfig,
};
use daybook_engine::{Listing, Registry};
use daybook_expressions::Uses;
use daybook_models::Models;
use daybook_tools::ToolSet;

use super::WorkflowDefinition;
use super::step::{Runs, StepDefinition};
use crate::agent::AgentDefinition;
use crate::error::Error;
use crate::sources::Toolbox;

/// What a step runs that has to be found first.
pub(super) enum Leaf<'a> {
    /// A component of the server, by kind and id.
    Component(ComponentKind, &'a str, Option<&'a Expression>),
    /// An agent of the workflow alone.
    Own(&'a AgentDefinition, Option<&'a Expression>),
    /// A tool.
    Tool(&'a str, &'a BTreeMap<String, Expression>),
}

/// The steps as a configuration has them; `leaf` finds what the step of a name runs.
pub(super) fn assemble<E>(
    steps: &[StepDefinition],
    leaf: &mut impl FnMut(&str, Leaf<'_>) -> Result<StepKind, E>,
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
            Runs::Function { function, effect } => {
                StepKind::Function(FunctionStep { function: function.clone(), effect: *effect })
            }
            Runs::Component { kind, id, input } => leaf(&step.name, Leaf::Component(*kind, id, input.as_ref()))?,
            Runs::Own { agent, input } => leaf(&step.name, Leaf::Own(agent, input.as_ref()))?,
            Runs::Tool { tool, arguments } => leaf(&step.name, Leaf::Tool(tool, arguments))?,
        };
        let (name, description) = (step.name.clone(), step.description.clone());
        made.push(Step { name, description, kind, policies: step.policies.clone() });
    }
    Ok(made)
}

/// What a workflow's steps are made with.
pub(super) struct Making<'a> {
    pub workflow: &'a WorkflowDefinition,
    pub registry: &'a mut Registry,
    pub models: &'a Models,
    pub toolbox: &'a Toolbox,
    /// The code of the tools that its steps call.
    pub tools: ToolSet,
}

impl Making<'_> {
    /// Finds what the step of this name runs.
    pub fn leaf(&mut self, step: &str, leaf: Leaf<'_>) -> Result<StepKind, Error> {
        Ok(match leaf {
            Leaf::Component(kind, id, input) => {
                let component = self.known(step, kind, id)?;
                StepKind::Component(ComponentStep { input: input.cloned(), ..component })
            }
            Leaf::Own(agent, input) => {
                let (config, tools) = agent.clone().resolve(self.models, self.toolbox)?;
                let (component, name) = (ComponentRef::agent(config.id.clone()), config.name.clone());
                let config_hash = self.registry.add_agent(config, tools, Listing::Inner)?;
                let input = input.cloned();
                StepKind::Component(ComponentStep { component, config_hash, component_name: name, input })
            }
            Leaf::Tool(tool, arguments) => {
                StepKind::Tool(ToolStep { tool: self.tool(step, tool)?, arguments: arguments.clone() })
            }
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

    fn tool(&mut self, step: &str, name: &str) -> Result<ToolSpec, Error> {
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

/// What its expressions look at that is no step.
pub(super) fn unseen_steps(config: &WorkflowConfig) -> Vec<String> {
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
