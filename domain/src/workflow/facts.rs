//! What a step knows when it is reached: what was said before it.

use std::sync::Arc;

use serde_json::Value;

use super::output::StepOutput;

/// What a step, an expression or a function sees of the steps before it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Facts {
    /// What the steps came to that ended before it, the oldest first: its siblings, and those before the blocks around it.
    pub outputs: Vec<Arc<StepOutput>>,
    /// What it goes on from: the last of them that said something, or what its loop went on from.
    pub previous: Option<Arc<StepOutput>>,
    /// The iteration of the innermost loop around it, from 1. To a loop's end condition, the one that just ended.
    pub iteration: Option<u32>,
}

impl Facts {
    /// What was said last.
    pub fn said(&self) -> Option<&Value> {
        self.previous.as_ref().map(|previous| previous.said())
    }

    /// What the step of this name came to: the nearest, if several have it; also one within a block.
    pub fn output(&self, name: &str) -> Option<Arc<StepOutput>> {
        let direct = self.outputs.iter().rev().find(|output| output.name == name).cloned();
        direct.or_else(|| self.outputs.iter().rev().find_map(|output| within(output, name)))
    }

    /// All steps that expressions know by name, the nearest first where several have one name.
    pub fn by_name(&self) -> Vec<Arc<StepOutput>> {
        let direct = self.outputs.iter().rev().cloned();
        let inner = self.outputs.iter().rev().flat_map(|output| output.all().into_iter().skip(1).rev());
        direct.chain(inner).collect()
    }
}

fn within(output: &StepOutput, name: &str) -> Option<Arc<StepOutput>> {
    let direct = output.steps.iter().rev().find(|step| step.name == name).cloned();
    direct.or_else(|| output.steps.iter().rev().find_map(|step| within(step, name)))
}
