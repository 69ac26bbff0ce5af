//! The events of a workflow's run as far as its fold knows them.

use std::sync::Arc;

use daybook_domain::workflow::{ExecutorKind, StepOutput, StepType};
use daybook_engine::{FrameBody, RunDetail, StepTag};

/// What is told of a step that ended, in order: events of its own, and where the events of the run are that carried it out.
pub(super) enum Told<'a> {
    /// An event of the workflow's run.
    Own(Box<FrameBody>),
    /// All of a run under it.
    Below(&'a RunDetail),
}

/// What the steps of a run did that ended. Of the steps in blocks within blocks only the outcomes are known.
pub(super) fn steps(detail: &RunDetail) -> Vec<Told<'_>> {
    let mut told = Vec::new();
    for output in detail.state.flow.iter().flat_map(|flow| flow.results()) {
        add(detail, &output, &mut told);
    }
    told
}

fn add<'a>(detail: &'a RunDetail, output: &Arc<StepOutput>, told: &mut Vec<Told<'a>>) {
    let step = StepTag::of(&detail.state, &output.place, &output.name, output.kind);
    if output.kind == StepType::Step {
        return single(detail, output, step, told);
    }
    let record = detail.state.flow.as_ref().and_then(|flow| flow.step(&output.place));
    let block = record.and_then(|record| record.block.as_ref());
    let decision = block.map(|block| block.decision.clone());
    let begun = decision.clone().map(|decision| FrameBody::BlockStarted { step: step.clone(), decision });
    told.extend(begun.map(own));
    output.steps.iter().for_each(|inner| add(detail, inner, told));
    if let (Some(block), Some(decision)) = (block, decision) {
        let (iteration, iterations) = (block.iteration, block.iterations.iter().cloned().collect());
        let output = output.clone();
        told.push(own(FrameBody::BlockCompleted { step, decision, iteration, iterations, output }));
    }
}

fn single<'a>(detail: &'a RunDetail, output: &Arc<StepOutput>, step: StepTag, told: &mut Vec<Told<'a>>) {
    told.push(own(FrameBody::StepStarted { step: step.clone() }));
    let run = output.child.as_ref().map(|child| &child.run_id);
    let below = detail.children.iter().find(|child| run.is_some() && child.state.run_id() == run);
    told.extend(below.map(Told::Below));
    if !output.success {
        return;
    }
    let function = output.executor.as_ref().is_some_and(|by| by.kind == ExecutorKind::Function);
    if function && output.place.is_top() {
        told.push(own(FrameBody::StepOutput { step: step.clone(), output: output.clone() }));
    }
    told.push(own(FrameBody::StepCompleted { step, output: output.clone() }));
}

fn own<'a>(body: FrameBody) -> Told<'a> {
    Told::Own(Box::new(body))
}
