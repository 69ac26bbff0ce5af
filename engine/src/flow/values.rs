//! Values that are known when a step is reached: what expressions and closures say.

use std::collections::BTreeMap;

use daybook_domain::output::OutputSchema;
use daybook_domain::workflow::{About, Expression, Facts, Question, StepKind, WorkflowConfig, chosen_badly, routes};
use daybook_expressions::Variables;
use daybook_tools::SchemaCheck;
use serde_json::{Map, Value};

use super::code::{Asked, FlowCode};

/// What values are made of, the steps' own words apart.
#[derive(Clone, Copy)]
pub(crate) struct Values<'a> {
    pub config: &'a WorkflowConfig,
    pub code: &'a FlowCode,
    pub input: &'a str,
    pub state: &'a Map<String, Value>,
}

/// What a question came to.
pub(crate) enum Said {
    Holds(bool),
    Routes(Vec<String>),
}

impl Values<'_> {
    /// What `expression` says to who knows `facts`.
    ///
    /// # Errors
    /// A sentence that says why it says nothing.
    pub fn value(&self, expression: &Expression, facts: &Facts) -> Result<Value, String> {
        match expression {
            Expression::Constant(value) => Ok(value.clone()),
            Expression::Function(name) => self.code.ask(name, Asked { input: self.input, facts, state: self.state }),
            Expression::Cel(text) => {
                let compiled = self.code.compiled(text)?;
                let mut outputs = BTreeMap::new();
                // The nearest step of a name is the one that is meant.
                for output in facts.by_name().iter().filter(|output| compiled.outputs().has(&output.name)) {
                    outputs.entry(output.name.clone()).or_insert_with(|| output.said().clone());
                }
                let variables = Variables {
                    input: self.input_value(),
                    previous: facts.said().cloned().unwrap_or_default(),
                    outputs,
                    state: Some(self.state),
                    iteration: facts.iteration.unwrap_or(0),
                };
                compiled.value(&variables).map_err(|error| error.to_string())
            }
        }
    }

    /// An object where the workflow says what its input looks like, and a text otherwise.
    fn input_value(&self) -> Value {
        let object = || serde_json::from_str(self.input).ok();
        let read = self.config.input_schema.as_ref().and_then(|_| object());
        read.unwrap_or_else(|| Value::String(self.input.to_owned()))
    }

    /// What a question comes to.
    ///
    /// # Errors
    /// A sentence that says why it cannot be answered.
    pub fn answer(&self, question: &Question<'_>) -> Result<Said, String> {
        let said = self.value(question.expression, &question.facts)?;
        if let About::Test | About::Until(_) = question.about {
            return said
                .as_bool()
                .map(Said::Holds)
                .ok_or_else(|| format!("it must say true or false, and says {}", short(&said)));
        }
        let StepKind::Router(router) = &question.step.kind else { return Ok(Said::Routes(Vec::new())) };
        let chosen = routes(&said)
            .ok_or_else(|| format!("it must say the name of a choice or a list of names, and says {}", short(&said)))?;
        let names: Vec<String> = router.choices.iter().map(|choice| choice.name.clone()).collect();
        match chosen_badly(&names, router.many, &chosen) {
            Some(fault) => Err(format!("the router {fault}")),
            None => Ok(Said::Routes(chosen)),
        }
    }
}

/// What is wrong with what a workflow is told, where it says what that looks like.
pub(crate) fn input_fault(config: &WorkflowConfig, message: &str) -> Option<String> {
    let shape = config.input_schema.as_ref()?;
    match OutputSchema::parse(message) {
        Ok(object) => SchemaCheck::new(&Value::Object(shape.schema.clone())).check(&object).err(),
        Err(fault) => Some(fault),
    }
}

fn short(value: &Value) -> String {
    let mut text = value.to_string();
    if text.len() > 100 {
        text.truncate(text.floor_char_boundary(100));
        text.push('…');
    }
    text
}
