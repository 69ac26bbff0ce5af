//! What is wrong with a workflow's configuration: all of it at once, each with its place and how to mend it.

use std::collections::HashSet;
use std::fmt;

use super::config::{Expression, Selector, Step, StepKind, WorkflowConfig};
use super::place::Place;
use super::policy::{HumanReview, OnReject};

/// How deep blocks may be within each other.
pub const MAX_DEPTH: usize = 16;

/// The most steps one workflow may have, those in blocks included.
const MAX_STEPS: usize = 10_000;

/// The most iterations of a loop.
const MAX_ITERATIONS: u32 = 1_000_000;

/// Something wrong with a workflow's configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// The names of the steps from outside in, or nothing for the workflow itself.
    pub path: Vec<String>,
    /// What is wrong, and how to mend it.
    pub fault: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.path.is_empty() {
            f.write_str(&self.fault)
        } else {
            write!(f, "{}: {}", self.path.join(" > "), self.fault)
        }
    }
}

impl WorkflowConfig {
    /// Everything that is wrong with it; nothing when it can run.
    pub fn mistakes(&self) -> Vec<Mistake> {
        let mut check = Check::default();
        if self.steps.is_empty() {
            check.note("the workflow has no steps: give it at least one");
        }
        if self.max_parallel == 0 {
            check.note("`max_parallel` must be at least 1: with 0 no step of a parallel block could run");
        }
        check.siblings("`steps`", &self.steps);
        if check.count > MAX_STEPS {
            check.note(&format!("the workflow has {} steps; {MAX_STEPS} are the most", check.count));
        }
        check.mistakes
    }

    /// The expressions and closures it uses, with the steps that use them and what for.
    pub fn expressions(&self) -> Vec<(Vec<String>, &'static str, &Expression)> {
        let mut all = Vec::new();
        for (place, step) in self.walk() {
            let path = self.path(&place);
            let mut add = |what, expression| all.push((path.clone(), what, expression));
            match &step.kind {
                StepKind::Component(run) => run.input.iter().for_each(|input| add("`input`", input)),
                StepKind::Tool(call) => call.arguments.values().for_each(|value| add("`arguments`", value)),
                StepKind::Condition(block) => add("`test`", &block.test),
                StepKind::Loop(block) => block.until.iter().for_each(|until| add("`until`", until)),
                StepKind::Router(block) => {
                    if let Selector::Value(expression) = &block.selector {
                        add("`selector`", expression);
                    }
                }
                StepKind::Function(_) | StepKind::Parallel(_) | StepKind::Group(_) => {}
            }
        }
        all
    }

    /// The functions its steps call, with the steps that call them.
    pub fn functions(&self) -> Vec<(Vec<String>, &str)> {
        let mut all = Vec::new();
        for (place, step) in self.walk() {
            if let StepKind::Function(call) = &step.kind {
                all.push((self.path(&place), call.function.as_str()));
            }
        }
        all
    }

    /// The names of the steps from outside in to this place.
    pub fn path(&self, place: &Place) -> Vec<String> {
        let (mut steps, mut others, mut path) = (self.steps.as_slice(), [].as_slice(), Vec::new());
        for part in place.as_str().split('.').filter(|part| !part.starts_with('i')) {
            let (list, index) = part.strip_prefix('e').map_or((steps, part), |index| (others, index));
            let Some(step) = index.parse().ok().and_then(|index: usize| list.get(index)) else { break };
            path.push(step.name.clone());
            (steps, others) = (step.kind.steps(), step.kind.else_steps());
        }
        path
    }
}

#[derive(Default)]
struct Check {
    mistakes: Vec<Mistake>,
    path: Vec<String>,
    count: usize,
}

impl Check {
    fn note(&mut self, fault: &str) {
        self.mistakes.push(Mistake { path: self.path.clone(), fault: fault.to_owned() });
    }

    fn siblings(&mut self, what: &str, steps: &[Step]) {
        let (mut known, mut told) = (HashSet::new(), HashSet::new());
        for step in steps {
            if !known.insert(&step.name) && told.insert(&step.name) {
                self.note(&format!("two of its {what} are called {:?}: give each its own name", step.name));
            }
        }
        for step in steps {
            self.path.push(step.name.clone());
            self.step(step);
            self.path.pop();
        }
    }

    fn step(&mut self, step: &Step) {
        self.count += 1;
        if step.name.trim().is_empty() {
            self.note("a step has no name: name it");
        }
        if self.path.len() > MAX_DEPTH {
            self.note(&format!("steps may be at most {MAX_DEPTH} blocks deep: make a workflow of the inner ones"));
            return;
        }
        self.policies(step);
        self.kind(step);
    }

    fn kind(&mut self, step: &Step) {
        match &step.kind {
            StepKind::Component(run) => self.some("`input`", run.input.iter()),
            StepKind::Tool(call) => {
                self.some("`arguments`", call.arguments.values());
                if step.policies.review.input.is_some() {
                    self.note(
                        "an input review is for steps that go on from what was said: a tool gets its `arguments`",
                    );
                }
                if !call.tool.gate.is_none() || call.tool.approval.is_some() {
                    let fault = format!(
                        "the tool {:?} asks a person before it runs, which a step does not do for it: let an agent call it, \
                         or give the step a tool that asks nobody, and a confirmation",
                        call.tool.name
                    );
                    self.note(&fault);
                }
            }
            StepKind::Function(call) => {
                if call.function.trim().is_empty() {
                    self.note("`function` is empty: name the function");
                }
            }
            StepKind::Condition(block) => {
                self.some("`test`", std::iter::once(&block.test));
                if block.steps.is_empty() && block.else_steps.is_empty() {
                    self.note("the condition has neither `steps` nor `else_steps`: give it some");
                }
                self.constant("`test`", &block.test, "true or false", serde_json::Value::is_boolean);
                self.siblings("`steps`", &block.steps);
                self.siblings("`else_steps`", &block.else_steps);
            }
            StepKind::Parallel(block) => {
                if block.limit == Some(0) {
                    self.note("`limit` must be at least 1: with 0 nothing could run");
                }
                self.block("parallel block", &block.steps);
            }
            StepKind::Loop(block) => {
                if block.max_iterations == 0 || block.max_iterations > MAX_ITERATIONS {
                    self.note(&format!("`max_iterations` must be from 1 to {MAX_ITERATIONS}"));
                }
                self.some("`until`", block.until.iter());
                block.until.iter().for_each(|until| {
                    self.constant("`until`", until, "true or false", serde_json::Value::is_boolean);
                });
                self.block("loop", &block.steps);
            }
            StepKind::Router(block) => {
                if let Selector::Value(expression) = &block.selector {
                    self.some("`selector`", std::iter::once(expression));
                    self.chosen(expression, &block.choices, block.many);
                }
                if block.choices.is_empty() {
                    self.note("the router has no `choices`: give it at least one");
                }
                self.siblings("`choices`", &block.choices);
            }
            StepKind::Group(block) => self.block("group", &block.steps),
        }
    }

    fn block(&mut self, what: &str, steps: &[Step]) {
        if steps.is_empty() {
            self.note(&format!("the {what} has no `steps`: give it at least one"));
        }
        self.siblings("`steps`", steps);
    }

    fn some<'a>(&mut self, what: &str, expressions: impl Iterator<Item = &'a Expression>) {
        for expression in expressions {
            let (Expression::Cel(text) | Expression::Function(text)) = expression else { continue };
            if text.trim().is_empty() {
                self.note(&format!("{what} is empty: write an expression, or name a function"));
            }
        }
    }

    fn constant(
        &mut self,
        what: &str,
        expression: &Expression,
        wanted: &str,
        fits: impl Fn(&serde_json::Value) -> bool,
    ) {
        if let Expression::Constant(value) = expression
            && !fits(value)
        {
            self.note(&format!("{what} must be {wanted}, and is {value}"));
        }
    }

    /// What is written down of a router's choice must be there.
    fn chosen(&mut self, selector: &Expression, choices: &[Step], many: bool) {
        let Expression::Constant(value) = selector else { return };
        let names: Vec<String> = choices.iter().map(|choice| choice.name.clone()).collect();
        match super::next::routes(value) {
            Some(chosen) => {
                if let Some(fault) = super::ask::chosen_badly(&names, many, &chosen) {
                    self.note(&format!("the router {fault}"));
                }
            }
            None => self.note(&format!("`selector` must be the name of a choice or a list of names, and is {value}")),
        }
    }

    fn policies(&mut self, step: &Step) {
        let policies = &step.policies;
        if policies.timeout_seconds == Some(0) {
            self.note("`timeout_seconds` is in seconds, and at least 1");
        }
        if policies.retries.count > 0
            && policies.retries.cap_ms < policies.retries.delay_ms
            && policies.retries.exponential
        {
            self.note("the longest wait between retries (`cap_ms`) is shorter than the first (`delay_ms`)");
        }
        self.review(step, &policies.review);
        if !step.kind.is_block() {
            return;
        }
        let HumanReview { user_input, input, output, .. } = &policies.review;
        let wrong = [
            (!policies.retries.is_none(), "retries"),
            (policies.timeout_seconds.is_some(), "a timeout"),
            (user_input.is_some(), "user input"),
            (input.is_some(), "an input review"),
            (output.is_some(), "an output review"),
        ];
        for (_, what) in wrong.iter().filter(|(is, _)| *is) {
            self.note(&format!("a block cannot have {what}: give it to the steps in it"));
        }
    }

    fn review(&mut self, step: &Step, review: &HumanReview) {
        let rejects = review.confirmation.iter().map(|asked| asked.on_reject);
        let rejects = rejects.chain(review.input.iter().map(|asked| asked.on_reject));
        for on_reject in rejects {
            if on_reject == OnReject::Else && !matches!(step.kind, StepKind::Condition(_)) {
                self.note("`on_reject: else` is for conditions: other steps have nothing else to run");
            }
        }
        let mut names = HashSet::new();
        for field in review.user_input.iter().flat_map(|asked| &asked.fields) {
            if !names.insert(&field.name) {
                self.note(&format!("two fields of its user input are called {:?}: give each its own name", field.name));
            }
        }
    }
}
