//! What a step came to.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::place::Place;
use crate::media::Media;
use crate::run::ChildRef;
use crate::usage::Spent;

/// The kinds of steps as clients know them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StepType {
    /// It runs one thing: a component, a tool or a function.
    #[default]
    Step,
    /// Steps that run when a test holds.
    Condition,
    /// Steps beside each other.
    Parallel,
    /// Steps again and again.
    Loop,
    /// Chosen steps.
    Router,
    /// Steps one after the other.
    Steps,
}

impl StepType {
    /// The type's name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Step => "Step",
            Self::Condition => "Condition",
            Self::Parallel => "Parallel",
            Self::Loop => "Loop",
            Self::Router => "Router",
            Self::Steps => "Steps",
        }
    }
}

/// What carries a step out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Executor {
    /// Its kind.
    pub kind: ExecutorKind,
    /// Its name for people.
    pub name: String,
    /// Its id, where it is a component.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
}

/// The kinds of what carries steps out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExecutorKind {
    /// A function of the program that embeds the engine.
    Function,
    /// A tool.
    Tool,
    /// An agent, in a child run.
    Agent,
    /// A team, in a child run.
    Team,
    /// Another workflow, in a child run.
    Workflow,
}

impl ExecutorKind {
    /// The kind's name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Function => "function",
            Self::Tool => "tool",
            Self::Agent => "agent",
            Self::Team => "team",
            Self::Workflow => "workflow",
        }
    }
}

/// What a step came to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StepOutput {
    /// Where the step is.
    pub place: Place,
    /// Its name.
    pub name: String,
    /// Its type.
    #[serde(default)]
    pub kind: StepType,
    /// What carried it out, where it runs one thing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub executor: Option<Executor>,
    /// What it says: a text, or any other JSON.
    #[serde(default)]
    pub content: Value,
    /// The child run that said it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub child: Option<ChildRef>,
    /// Media that came with it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub media: Vec<Media>,
    /// What went wrong, where something did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Whether it, and everything in it, went well.
    pub success: bool,
    /// Whether it wants the workflow to end after it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub stop: bool,
    /// What child runs cost.
    #[serde(default, skip_serializing_if = "Spent::is_empty")]
    pub spent: Spent,
    /// Seconds to the first token of its child run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_to_first_token: Option<f64>,
    /// Seconds it took.
    #[serde(default)]
    pub duration: f64,
    /// What the steps in it came to, in order. Of a loop those of its last iterations.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<Arc<StepOutput>>,
}

impl StepOutput {
    /// What the step said, or of a block the last of its steps that said something.
    pub fn said(&self) -> &Value {
        self.steps.iter().rev().find(|step| step.speaks()).map_or(&self.content, |step| step.said())
    }

    /// Whether there is anything to go on from: a block in which nothing ran says nothing.
    pub fn speaks(&self) -> bool {
        self.kind == StepType::Step || self.steps.iter().any(|step| step.speaks())
    }

    /// What the step said, as a text for who goes on from it. Of a parallel block it is what each of its steps said.
    pub fn told(&self) -> String {
        if self.kind == StepType::Parallel {
            let parts = self.steps.iter().filter(|step| step.speaks()).map(|step| (&step.name, step.told()));
            let parts = parts.filter(|(_, said)| !said.trim().is_empty());
            let parts: Vec<String> = parts.map(|(name, said)| format!("=== {name} ===\n{said}")).collect();
            return parts.join("\n\n");
        }
        let last = self.steps.iter().rev().find(|step| step.speaks());
        last.map_or_else(|| as_text(&self.content), |step| step.told())
    }

    /// All steps in it, at any depth, and itself.
    pub fn all(self: &Arc<Self>) -> Vec<Arc<Self>> {
        let mut all = vec![self.clone()];
        let mut at = 0;
        while let Some(next) = all.get(at).cloned() {
            all.extend(next.steps.iter().cloned());
            at += 1;
        }
        all
    }
}

/// A value as a text: a text as it is, nothing as nothing, everything else as JSON.
pub fn as_text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// What a parallel block says of its steps.
pub(super) fn side_by_side(steps: &[Arc<StepOutput>]) -> String {
    let part = |step: &Arc<StepOutput>| {
        let (mark, content) = (if step.success { "✅ SUCCESS:" } else { "❌ FAILURE:" }, as_text(&step.content));
        let content = if content.trim().is_empty() { "*(No content)*" } else { &content };
        format!("### {mark} {}\n{content}", step.name)
    };
    let parts: Vec<String> = steps.iter().map(part).collect();
    format!("## Parallel Execution Results\n\n{}", parts.join("\n\n"))
}
