//! The code of a workflow: functions that steps call, closures that decide, and expressions, each read once.

use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use async_trait::async_trait;
use daybook_domain::media::Media;
use daybook_domain::workflow::{Expression, Facts, Rejected, StepOutput, WorkflowConfig, as_text};
use daybook_expressions::Expression as Compiled;
use daybook_tools::ToolContext;
use serde_json::{Map, Value};

/// What goes wrong in a function or a closure; its words are recorded and shown.
pub type Fault = Box<dyn std::error::Error + Send + Sync>;

/// What a step's function is given.
#[derive(Debug, Clone)]
pub struct StepInput {
    /// What the workflow was told.
    pub input: String,
    /// What takes the place of what the step would go on from, where a person said so.
    pub edited: Option<Value>,
    /// What was said before the step.
    pub facts: Facts,
    /// What a person filled in for the step.
    pub values: Map<String, Value>,
    /// The output that a person rejected, where the step runs again for that.
    pub rejected: Option<Rejected>,
    /// Media of the workflow's input and of the steps before it.
    pub media: Vec<Media>,
    /// The attempt, from 1.
    pub attempt: u32,
    /// The run, the session's state, what the caller gave, the idempotency key, and where progress is told.
    pub context: ToolContext,
}

impl StepInput {
    /// What was said last; nothing for the first step.
    pub fn previous(&self) -> Option<&Value> {
        self.edited.as_ref().or_else(|| self.facts.said())
    }

    /// What the step goes on from, as a text: what was said last, or else what the workflow was told.
    pub fn text(&self) -> String {
        let previous = self.previous().map(as_text).filter(|text| !text.is_empty());
        previous.unwrap_or_else(|| self.input.clone())
    }

    /// What the step of this name came to, also one within a block.
    pub fn output(&self, step: &str) -> Option<Arc<StepOutput>> {
        self.facts.output(step)
    }
}

/// What a step's function says.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct StepSaid {
    /// A text, or any other JSON.
    pub content: Value,
    /// Media that come with it.
    pub media: Vec<Media>,
    /// Whether the workflow ends after the step.
    pub stop: bool,
}

impl StepSaid {
    /// The same, and the workflow ends after the step.
    #[must_use]
    pub fn and_stop(self) -> Self {
        Self { stop: true, ..self }
    }
}

impl From<Value> for StepSaid {
    fn from(content: Value) -> Self {
        Self { content, ..Self::default() }
    }
}

impl From<String> for StepSaid {
    fn from(text: String) -> Self {
        Value::String(text).into()
    }
}

impl From<&str> for StepSaid {
    fn from(text: &str) -> Self {
        text.to_owned().into()
    }
}

/// A function that a step calls. What calling it again does is said by the step.
#[async_trait]
pub trait StepFunction: Send + Sync + 'static {
    /// Carries the step out. Dropping the future stops it where it can be stopped.
    ///
    /// # Errors
    /// Whatever went wrong: the step has failed then.
    async fn call(&self, input: StepInput) -> Result<StepSaid, Fault>;
}

#[async_trait]
impl<F, Fut> StepFunction for F
where
    F: Fn(StepInput) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<StepSaid, Fault>> + Send,
{
    async fn call(&self, input: StepInput) -> Result<StepSaid, Fault> {
        self(input).await
    }
}

/// What a closure is asked about.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// What the workflow was told.
    pub input: &'a str,
    /// What was said before.
    pub facts: &'a Facts,
    /// The session's state.
    pub state: &'a Map<String, Value>,
}

/// A closure that decides, or makes a value. It is quick, changes nothing, and does not wait.
pub type Rule = Arc<dyn Fn(Asked<'_>) -> Result<Value, Fault> + Send + Sync>;

/// Functions and closures by name, for workflows to call.
#[derive(Default, Clone)]
pub struct Functions {
    steps: BTreeMap<String, Arc<dyn StepFunction>>,
    rules: BTreeMap<String, Rule>,
}

impl Functions {
    /// The same, with a function that steps may call by this name.
    #[must_use]
    pub fn step(mut self, name: impl Into<String>, function: impl StepFunction) -> Self {
        self.steps.insert(name.into(), Arc::new(function));
        self
    }

    /// The same, with a closure that may decide by this name.
    #[must_use]
    pub fn rule(
        mut self,
        name: impl Into<String>,
        rule: impl Fn(Asked<'_>) -> Result<Value, Fault> + Send + Sync + 'static,
    ) -> Self {
        self.rules.insert(name.into(), Arc::new(rule));
        self
    }

    /// The names of the functions that steps may call.
    pub fn step_names(&self) -> impl Iterator<Item = &str> {
        self.steps.keys().map(String::as_str)
    }

    /// The names of the closures.
    pub fn rule_names(&self) -> impl Iterator<Item = &str> {
        self.rules.keys().map(String::as_str)
    }

    pub(crate) fn extend(&mut self, more: Self) {
        self.steps.extend(more.steps);
        self.rules.extend(more.rules);
    }

    /// Takes those of `earlier` that are not here.
    pub(crate) fn succeed(&mut self, earlier: &Self) {
        earlier.steps.iter().for_each(|(name, step)| {
            self.steps.entry(name.clone()).or_insert_with(|| step.clone());
        });
        earlier.rules.iter().for_each(|(name, rule)| {
            self.rules.entry(name.clone()).or_insert_with(|| rule.clone());
        });
    }

    /// What nodes tell each other that they have.
    pub(crate) fn abilities(&self) -> impl Iterator<Item = String> {
        self.step_names().chain(self.rule_names()).map(ability)
    }
}

/// A function's or a closure's name among the names of tools, by which nodes find out who can go on with a run.
fn ability(name: &str) -> String {
    format!("function:{name}")
}

/// The code of one workflow.
#[derive(Default, Clone)]
pub struct FlowCode {
    functions: Functions,
    expressions: HashMap<String, Arc<Compiled>>,
    /// What it needs: names of functions and closures.
    needs: Vec<String>,
}

impl FlowCode {
    /// The code of `config`, as far as it is among `functions`; what is wrong with its expressions or lacking is in the
    /// list, with the steps it is about.
    pub(crate) fn of(config: &WorkflowConfig, functions: &Functions) -> (Self, Vec<String>) {
        let (mut code, mut faults) = (Self { functions: functions.clone(), ..Self::default() }, Vec::new());
        for (path, what, expression) in config.expressions() {
            let fault = match expression {
                Expression::Constant(_) => None,
                Expression::Function(name) => {
                    code.needs.push(name.clone());
                    let known = functions.rules.contains_key(name);
                    (!known).then(|| unknown("closure", name, functions.rule_names()))
                }
                Expression::Cel(text) => match Compiled::compile(text) {
                    Ok(compiled) => {
                        code.expressions.insert(text.clone(), Arc::new(compiled));
                        None
                    }
                    Err(error) => Some(error.to_string()),
                },
            };
            faults.extend(fault.map(|fault| format!("{}: {what}: {fault}", path.join(" > "))));
        }
        for (path, name) in config.functions() {
            code.needs.push(name.to_owned());
            if !functions.steps.contains_key(name) {
                let fault = unknown("function", name, functions.step_names());
                faults.push(format!("{}: {fault}", path.join(" > ")));
            }
        }
        (code, faults)
    }

    /// The function of this name.
    pub(crate) fn function(&self, name: &str) -> Option<Arc<dyn StepFunction>> {
        self.functions.steps.get(name).cloned()
    }

    /// Whether all that it needs is there.
    pub(crate) fn is_whole(&self) -> bool {
        let there = |name| self.functions.steps.contains_key(name) || self.functions.rules.contains_key(name);
        self.needs.iter().all(there)
    }

    /// What it needs, as nodes tell each other.
    pub(crate) fn needs(&self) -> impl Iterator<Item = String> {
        self.needs.iter().map(|name| ability(name))
    }

    pub(crate) fn compiled(&self, text: &str) -> Result<Arc<Compiled>, String> {
        match self.expressions.get(text) {
            Some(compiled) => Ok(compiled.clone()),
            None => Compiled::compile(text).map(Arc::new).map_err(|error| error.to_string()),
        }
    }

    /// What the closure of this name says.
    pub(crate) fn ask(&self, name: &str, asked: Asked<'_>) -> Result<Value, String> {
        let Some(rule) = self.functions.rules.get(name) else {
            return Err(unknown("closure", name, self.functions.rule_names()));
        };
        // A closure that panics has said nothing; it does not take the run with it.
        let said = catch_unwind(AssertUnwindSafe(|| rule(asked)));
        let said = said.unwrap_or_else(|_| Err("it broke down".into()));
        said.map_err(|fault| format!("the closure {name:?}: {fault}"))
    }
}

fn unknown<'a>(what: &str, name: &str, known: impl Iterator<Item = &'a str>) -> String {
    let known: Vec<&str> = known.collect();
    let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
    format!("there is no {what} {name:?}; there are: {known}")
}
