//! A step of a workflow, as its owner describes it.

use std::collections::BTreeMap;

use daybook_domain::component::ComponentKind;
use daybook_domain::tool::Effect;
use daybook_domain::workflow::{
    Confirmation, Expression, InputReview, OnError, OutputReview, Policies, Retries, Selector, UserInput,
};

use crate::agent::AgentDefinition;

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

/// Calls `look` for every step at any depth.
pub(crate) fn each<'a>(steps: &'a [StepDefinition], look: &mut impl FnMut(&'a StepDefinition)) {
    for step in steps {
        look(step);
        step.blocks().into_iter().for_each(|block| each(block, look));
    }
}
