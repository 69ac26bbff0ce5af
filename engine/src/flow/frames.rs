//! What watchers see of a workflow's steps.

use std::sync::Arc;

use daybook_domain::run::{RunEvent, RunState};
use daybook_domain::workflow::{
    AfterError, Ask, Block, BlockDecided, Decision, ExecutorKind, FlowState, Place, StepEnded, StepGiven, StepOutput,
    StepRecord, StepRequirement, StepType,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::frame::FrameBody;

/// Which step a frame is about.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StepTag {
    /// Where it is.
    pub place: Place,
    /// Its id: the same in every iteration.
    pub id: String,
    /// The id of the block around it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent_id: Option<String>,
    /// Its name.
    pub name: String,
    /// Where it stands: a number, or a list of numbers where it is in a block.
    pub index: Value,
    /// Its type.
    #[serde(default)]
    pub kind: StepType,
}

impl StepTag {
    /// Of the step at `place`.
    pub fn of(state: &RunState, place: &Place, name: &str, kind: StepType) -> Self {
        let run = state.run_id();
        let id = |place: &Place| run.map(|run| place.step_id(run)).unwrap_or_default();
        let parent = place.parent();
        let around = parent.as_ref().and_then(|parent| state.flow.as_ref()?.step(parent));
        let in_router = around.is_some_and(|around| around.kind == StepType::Router);
        Self {
            id: id(place),
            parent_id: parent.as_ref().map(id),
            name: name.to_owned(),
            index: place.step_index(in_router),
            kind,
            place: place.clone(),
        }
    }
}

/// What is asked about a step, with what it is about.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StepAsked {
    /// The step.
    pub step: StepTag,
    /// What is asked.
    pub requirement: StepRequirement,
    /// What it said, where a person looks at that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<Arc<StepOutput>>,
    /// What went wrong, where a person decides whether it runs again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The answer, once there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub given: Option<StepGiven>,
}

impl StepAsked {
    /// What `requirement` asks, where the run stands at `state`.
    pub fn of(state: &RunState, requirement: &StepRequirement) -> Self {
        let record = state.flow.as_ref().and_then(|flow| flow.step(&requirement.place));
        let output = record.and_then(|record| record.output.clone());
        Self {
            step: StepTag::of(state, &requirement.place, &requirement.name, requirement.kind),
            output: output.filter(|_| matches!(requirement.ask, Ask::Output { .. })),
            error: record.and_then(|record| record.failure.as_ref()).map(|failure| failure.error.clone()),
            given: record.and_then(|record| record.given.clone()),
            requirement: requirement.clone(),
        }
    }

    /// All that was asked about steps and still matters, with the answers there are, in the order the steps were reached.
    pub fn all(state: &RunState) -> Vec<Self> {
        let records = state.flow.iter().flat_map(|flow| flow.steps()).map(|(_, record)| record);
        // What a run asked that has ended is told with that run.
        let matters = |record: &&StepRecord| {
            let of_run = record.asked.as_ref().is_some_and(|asked| matches!(asked.ask, Ask::Executor { .. }));
            !(of_run && record.output.is_some())
        };
        let mut records: Vec<_> = records.filter(matters).collect();
        records.sort_by_key(|record| record.order);
        records.into_iter().filter_map(|record| Some(Self::of(state, record.asked.as_ref()?))).collect()
    }
}

/// The frames of an event of a step, given the state after it.
pub(crate) fn step_frames(event: &RunEvent, after: &RunState) -> (u64, Vec<FrameBody>) {
    let Some(flow) = after.flow.as_deref() else { return (0, Vec::new()) };
    match event {
        RunEvent::StepStarted(e) => {
            let step = StepTag::of(after, &e.place, &e.name, StepType::Step);
            (e.frame, vec![FrameBody::StepStarted { step }])
        }
        RunEvent::StepEnded(e) => (e.frame, end_frames(flow, after, e)),
        RunEvent::BlockDecided(e) => (e.frame, decision_frames(flow, after, e)),
        RunEvent::BlockEnded(e) => {
            let record = flow.step(&e.place);
            let parts = record.and_then(|record| Some((record.kind, record.block.clone()?, record.output.clone()?)));
            let Some((kind, block, output)) = parts else { return (e.frame, Vec::new()) };
            let step = StepTag::of(after, &e.place, &e.name, kind);
            let Block { decision, iteration, iterations, .. } = block;
            let iterations = iterations.into_iter().collect();
            (e.frame, vec![FrameBody::BlockCompleted { step, decision, iteration, iterations, output }])
        }
        _ => (0, Vec::new()),
    }
}

fn end_frames(flow: &FlowState, after: &RunState, e: &StepEnded) -> Vec<FrameBody> {
    let step = StepTag::of(after, &e.place, &e.name, e.kind);
    match e.then {
        Some(AfterError::Retry | AfterError::Skip) => Vec::new(),
        Some(AfterError::Fail | AfterError::Pause) => {
            let error = e.error.get().cloned().flatten().unwrap_or_default();
            vec![FrameBody::StepError { step, error }]
        }
        None => {
            let Some(output) = flow.step(&e.place).and_then(|record| record.output.clone()) else { return Vec::new() };
            let function = output.executor.as_ref().is_some_and(|by| by.kind == ExecutorKind::Function);
            let alone = (e.place.is_top() && function)
                .then(|| FrameBody::StepOutput { step: step.clone(), output: output.clone() });
            alone.into_iter().chain([FrameBody::StepCompleted { step, output }]).collect()
        }
    }
}

fn decision_frames(flow: &FlowState, after: &RunState, e: &BlockDecided) -> Vec<FrameBody> {
    let step = StepTag::of(after, &e.place, &e.name, e.decision.block());
    let block = flow.step(&e.place).and_then(|record| record.block.as_ref());
    let most = match block.map(|block| &block.decision) {
        Some(Decision::Loop { max_iterations }) => *max_iterations,
        _ => 0,
    };
    let begins = |number| FrameBody::IterationStarted { step: step.clone(), number, max_iterations: most };
    match e.decision {
        Decision::Loop { .. } => {
            let decision = e.decision.clone();
            vec![FrameBody::BlockStarted { step: step.clone(), decision }, begins(1)]
        }
        Decision::Iteration { number, goes_on } => {
            let outputs = block.and_then(|block| block.iterations.back()).cloned().unwrap_or_default();
            let step = step.clone();
            let ended = FrameBody::IterationCompleted { step, number, max_iterations: most, goes_on, outputs };
            std::iter::once(ended).chain(goes_on.then(|| begins(number + 1))).collect()
        }
        _ => vec![FrameBody::BlockStarted { step, decision: e.decision.clone() }],
    }
}

/// The frames of a pause of a workflow's run: what is asked about each step, and then all of it.
pub(crate) fn pause_frames(steps: &[StepRequirement], after: &RunState, all: FrameBody) -> Vec<FrameBody> {
    // That a step failed was shown when it did.
    let shown = steps.iter().filter(|asked| !matches!(asked.ask, Ask::Failure));
    let asked = shown.map(|asked| FrameBody::StepPaused(Box::new(StepAsked::of(after, asked))));
    asked.chain([all]).collect()
}

/// The frames of a workflow's run that goes on: each step that it waited for.
pub(crate) fn go_on_frames(steps: &[Place], after: &RunState) -> Vec<FrameBody> {
    let asked = |place: &Place| after.flow.as_ref()?.step(place)?.asked.clone();
    let tag = |place: &Place| {
        let requirement = asked(place);
        let (name, kind) = requirement.as_ref().map(|it| (it.name.clone(), it.kind)).unwrap_or_default();
        FrameBody::StepContinued {
            step: StepTag::of(after, place, &name, kind),
            requirement: requirement.map(Box::new),
        }
    };
    steps.iter().map(tag).collect()
}
