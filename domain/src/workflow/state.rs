//! The fold of a workflow run's steps.
//!
//! It keeps what can still matter: the outputs of steps that ended, and where those stand that have not. What ran in a
//! block is kept by the block's output once it ended, and of a loop only the last iterations: however long a loop goes on,
//! its fold stays as small.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::ask::{Ask, StepGiven, StepRequirement};
use super::event::{AfterError, Decision, StepEnded};
use super::output::{Executor, ExecutorKind, StepOutput, StepType};
use super::place::Place;
use super::policy::Policies;
use crate::ids::RunId;
use crate::run::ChildRef;
use crate::tool::Effect;
use crate::usage::Spent;

/// How many of a loop's last iterations are kept in the fold. The log keeps all.
pub const KEPT_ITERATIONS: usize = 16;

/// Where the steps of a run stand.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct FlowState {
    /// What was reached, by place; not what is in blocks that ended.
    pub(super) steps: BTreeMap<Place, StepRecord>,
    /// How many steps were reached so far: the order in which they were.
    pub(super) reached: u64,
    /// The steps that it paused for last.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub paused: Vec<Place>,
    /// How often each step was asked about, by its path without iterations.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) questions: BTreeMap<String, u32>,
}

/// A step that was reached.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct StepRecord {
    /// Its name.
    pub name: String,
    /// Its type.
    pub kind: StepType,
    /// When it was reached, among the others.
    pub order: u64,
    /// What runs it, where it runs one thing and was started.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub work: Option<Work>,
    /// What was decided, where it is a block that was entered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub block: Option<Block>,
    /// Why it failed last, until it runs again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
    /// How often it failed since it last went well, or a person let it run again.
    pub failures: u32,
    /// How many outcomes it has had that did not stay: failures, and outputs that a person rejected.
    pub round: u32,
    /// What it came to, once it did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output: Option<Arc<StepOutput>>,
    /// What a person was asked about it last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub asked: Option<StepRequirement>,
    /// The answer to that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub given: Option<StepGiven>,
    /// The answer to what was asked before it ran.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<StepGiven>,
    /// Whether a person took its output.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub reviewed: bool,
    /// How often a person rejected its output.
    pub rejections: u32,
    /// The output that a person rejected last, and what the person said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rejected: Option<Rejected>,
}

/// How a step that runs one thing is run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Work {
    /// What carries it out.
    pub executor: Executor,
    /// The last attempt.
    pub attempt: u32,
    /// Whether that attempt has no outcome yet.
    pub running: bool,
    /// What running it again does.
    pub effect: Effect,
    /// The key of this attempt.
    pub idempotency_key: String,
    /// The run that carries it out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub child: Option<ChildRef>,
    /// What was recorded of its input.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input: Option<Value>,
    /// Whether a person wants it to run again, though nobody knows what it did.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub again: bool,
    /// Unix milliseconds of the attempt's beginning.
    pub started_ms: i64,
}

/// A step that failed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Failure {
    /// What went wrong.
    pub error: String,
    /// What becomes of it.
    pub then: AfterError,
    /// Unix milliseconds.
    pub at_ms: i64,
}

/// An output that a person rejected.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Rejected {
    /// What the step had said.
    pub content: Value,
    /// What to do better.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub feedback: Option<String>,
}

/// Where a block stands that was entered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Block {
    /// What was decided when it was entered.
    pub decision: Decision,
    /// Of a loop, the iteration that runs or ran last, from 1.
    #[serde(default)]
    pub iteration: u32,
    /// Of a loop, whether no further iteration runs.
    #[serde(default)]
    pub last: bool,
    /// Of a loop, how many steps ran in the iterations that ended.
    #[serde(default)]
    pub ran: u64,
    /// Of a loop, whether something failed in the iterations that ended.
    #[serde(default)]
    pub failed: bool,
    /// Of a loop, what the iterations that ended cost.
    #[serde(default, skip_serializing_if = "Spent::is_empty")]
    pub spent: Spent,
    /// Of a loop, what its last iterations came to, the oldest first.
    #[serde(default, skip_serializing_if = "VecDeque::is_empty")]
    pub iterations: VecDeque<Vec<Arc<StepOutput>>>,
}

impl FlowState {
    /// The step at `place`, where it was reached and is not in a block that ended.
    pub fn step(&self, place: &Place) -> Option<&StepRecord> {
        self.steps.get(place)
    }

    /// All steps that were reached and are not in blocks that ended.
    pub fn steps(&self) -> impl Iterator<Item = (&Place, &StepRecord)> {
        self.steps.iter()
    }

    /// The steps whose last attempt has no outcome yet.
    pub fn running(&self) -> impl Iterator<Item = (&Place, &StepRecord, &Work)> {
        let running = |(place, record)| Some((place, record, StepRecord::running(record)?));
        self.steps.iter().filter_map(running)
    }

    /// How many frames the end of a step is shown as, after it.
    pub fn frames_of_end(&self, e: &StepEnded) -> u64 {
        let executor = self.steps.get(&e.place).and_then(|record| record.work.as_ref()).map(|work| work.executor.kind);
        match e.then {
            Some(AfterError::Retry | AfterError::Skip) => 0,
            Some(AfterError::Fail | AfterError::Pause) => 1,
            // What a function said is shown by itself where it stands alone: nobody has seen it before.
            None if e.place.is_top() && executor == Some(ExecutorKind::Function) => 2,
            None => 1,
        }
    }

    /// What a person was asked and has not answered, in the order of the steps.
    pub fn open(&self) -> impl Iterator<Item = (&StepRequirement, &StepRecord)> {
        let open = self.steps.values().filter(|record| record.is_open());
        open.filter_map(|record| Some((record.asked.as_ref()?, record)))
    }

    /// How often a step was asked about so far, in whatever iteration.
    pub fn times_asked(&self, place: &Place) -> u32 {
        self.questions.get(&place.static_path()).copied().unwrap_or_default()
    }

    /// What it paused for last and still waits for: what nobody has answered, and what its child runs ask.
    pub fn asks(&self) -> Vec<StepRequirement> {
        let paused = self.paused.iter().filter_map(|place| self.steps.get(place));
        let asks = paused.filter_map(|record| Some((record, record.asked.as_ref()?)));
        let waits = asks.filter(|(record, asked)| record.is_open() || matches!(asked.ask, Ask::Executor { .. }));
        waits.map(|(_, asked)| asked.clone()).collect()
    }

    /// The step of this id that a person was asked about last.
    pub fn asked(&self, run: &RunId, step_id: &str) -> Option<(&StepRequirement, &StepRecord)> {
        let asked = self.steps.values().filter_map(|record| Some((record.asked.as_ref()?, record)));
        asked.filter(|(asked, _)| asked.place.step_id(run) == step_id).max_by_key(|(_, record)| record.order)
    }

    /// What becomes of a step with these policies that fails now.
    pub fn after_error(&self, place: &Place, policies: &Policies) -> AfterError {
        let failures = self.steps.get(place).map_or(0, |record| record.failures);
        let again = policies.retries.wait_ms(failures + 1).is_some();
        if again { AfterError::Retry } else { policies.on_error.into() }
    }

    /// The runs that carry out its steps: those that run now, and those whose outputs are kept, in order.
    pub fn children(&self) -> Vec<ChildRef> {
        let mut reached: Vec<&StepRecord> = self.steps.values().collect();
        reached.sort_by_key(|record| record.order);
        let mut children: Vec<ChildRef> = Vec::new();
        for record in reached {
            let ended = record.output.iter().flat_map(StepOutput::all);
            let kept = record.block.iter().filter(|_| record.output.is_none());
            let kept = kept.flat_map(|block| block.iterations.iter().flatten()).flat_map(StepOutput::all);
            let now = record.work.iter().filter_map(|work| work.child.clone());
            for child in kept.chain(ended).filter_map(|output| output.child.clone()).chain(now) {
                if !children.contains(&child) {
                    children.push(child);
                }
            }
        }
        children
    }

    /// What the workflow's own steps came to, in order.
    pub fn results(&self) -> Vec<Arc<StepOutput>> {
        self.outputs_in(None, false)
    }

    /// What the workflow said: the last that any of its steps said.
    pub fn content(&self) -> Option<Value> {
        self.results().iter().rev().find(|step| step.speaks()).map(|step| step.said().clone())
    }

    /// What the steps directly in `block` came to, in the order they were reached, or of their indexes.
    pub(super) fn outputs_in(&self, block: Option<&Place>, by_index: bool) -> Vec<Arc<StepOutput>> {
        let mut found: Vec<(&Place, &StepRecord)> = match block {
            Some(block) => self.steps.range(block.within()).filter(|(place, _)| place.is_directly_in(block)).collect(),
            None => self.steps.iter().filter(|(place, _)| place.is_top()).collect(),
        };
        found.sort_by_key(|(place, record)| if by_index { place.own_index() as u64 } else { record.order });
        found.into_iter().filter_map(|(_, record)| record.output.clone()).collect()
    }
}

impl StepRecord {
    /// Whether a person is asked about it and has not answered. What its child run asks is answered there.
    pub fn is_open(&self) -> bool {
        let asked = self.asked.as_ref().is_some_and(|asked| !matches!(asked.ask, Ask::Executor { .. }));
        asked && self.given.is_none()
    }

    /// How it is run, while that has no outcome.
    pub fn running(&self) -> Option<&Work> {
        self.work.as_ref().filter(|work| work.running)
    }
}
