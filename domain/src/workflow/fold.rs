//! Takes events of a workflow run's steps into its fold, and says which fit.

use std::sync::Arc;

use serde_json::Value;

use super::ask::{Ask, StepGiven, StepRequirement};
use super::event::{AfterError, BlockDecided, BlockEnded, Decision, StepAnswered, StepEnded, StepStarted};
use super::output::{StepOutput, StepType, side_by_side};
use super::place::Place;
use super::state::{Block, Failure, FlowState, KEPT_ITERATIONS, Rejected, StepRecord, Work};
use crate::usage::Spent;

/// What is recorded of a step whose outcome a crash hid, when a person does not want it to run again.
const NOT_AGAIN: &str = "it is not known whether the step was carried out, and it is not to run again";

/// What is said of a step that ran when its run was cancelled. The words clients know.
const CUT_OFF: &str = "Cancelled during execution";

impl FlowState {
    /// Whether `e` can happen now.
    pub fn may_start(&self, e: &StepStarted) -> bool {
        let Some(record) = self.steps.get(&e.place) else { return e.attempt == 1 };
        let last = record.work.as_ref().map_or(0, |work| work.attempt);
        record.output.is_none() && record.block.is_none() && !record.is_open() && e.attempt == last + 1
    }

    /// Whether `e` can happen now: its attempt runs, or it is a block that could not be decided or was not to run.
    pub fn may_end(&self, e: &StepEnded) -> bool {
        let Some(record) = self.steps.get(&e.place) else { return e.attempt == 0 };
        match &record.work {
            Some(work) if e.attempt > 0 => work.running && work.attempt == e.attempt,
            _ => e.attempt == 0 && record.output.is_none() && record.running().is_none(),
        }
    }

    /// Whether `e` can happen now: blocks are entered once, and of a loop iterations end one after the other.
    pub fn may_decide(&self, e: &BlockDecided) -> bool {
        let record = self.steps.get(&e.place);
        if record.is_some_and(|record| record.output.is_some() || record.work.is_some() || record.is_open()) {
            return false;
        }
        match (&e.decision, record.and_then(|record| record.block.as_ref())) {
            (Decision::Iteration { number, .. }, Some(block)) => block.iteration == *number && !block.last,
            (Decision::Iteration { .. }, None) => false,
            (_, block) => block.is_none(),
        }
    }

    /// Whether `e` can happen now.
    pub fn may_end_block(&self, e: &BlockEnded) -> bool {
        self.steps.get(&e.place).is_some_and(|record| record.block.is_some() && record.output.is_none())
    }

    /// Whether a person was asked about the step, and has not answered.
    pub fn is_asked(&self, place: &Place) -> bool {
        self.steps.get(place).is_some_and(StepRecord::is_open)
    }

    fn reach(&mut self, place: &Place, name: &str, kind: StepType) -> &mut StepRecord {
        let next = &mut self.reached;
        self.steps.entry(place.clone()).or_insert_with(|| {
            *next += 1;
            StepRecord { name: name.to_owned(), kind, order: *next, ..StepRecord::default() }
        })
    }

    /// Takes in that a step began.
    pub fn started(&mut self, e: &StepStarted) {
        let record = self.reach(&e.place, &e.name, StepType::Step);
        record.failure = None;
        record.work = Some(Work {
            executor: e.executor.clone(),
            attempt: e.attempt,
            running: true,
            effect: e.effect,
            idempotency_key: e.idempotency_key.clone(),
            child: e.child.clone(),
            input: e.input.get().cloned().flatten(),
            again: false,
            started_ms: e.at_ms,
        });
    }

    /// Takes in how a step ended, or that a block could not be decided.
    pub fn ended(&mut self, e: &StepEnded) {
        let record = self.reach(&e.place, &e.name, e.kind);
        if let Some(work) = &mut record.work {
            work.running = false;
        }
        let work = record.work.as_ref();
        let mut output = StepOutput {
            place: e.place.clone(),
            name: e.name.clone(),
            kind: record.kind,
            executor: work.map(|work| work.executor.clone()),
            content: e.content.get().cloned().unwrap_or_default(),
            child: work.and_then(|work| work.child.clone()),
            media: e.media.get().cloned().flatten().unwrap_or_default(),
            error: None,
            success: true,
            stop: e.stop,
            spent: e.spent.clone(),
            time_to_first_token: e.time_to_first_token,
            duration: e.duration,
            steps: Vec::new(),
        };
        if let Some(then) = e.then {
            let error = e.error.get().cloned().flatten().unwrap_or_default();
            record.round += 1;
            record.failures += 1;
            record.failure = Some(Failure { error: error.clone(), then, at_ms: e.at_ms });
            (output.error, output.success) = (Some(error), false);
            if then == AfterError::Retry {
                return;
            }
            // Whoever waits for a person to decide has no outcome yet.
            if then == AfterError::Pause {
                record.asked = None;
                return;
            }
        }
        if e.then.is_none() {
            record.failures = 0;
        }
        record.output = Some(Arc::new(output));
        self.forget_within(&e.place);
    }

    /// Takes in that a block was entered, or what it does next.
    pub fn decided(&mut self, e: &BlockDecided) {
        let Decision::Iteration { number, goes_on } = e.decision else {
            let iteration = u32::from(matches!(e.decision, Decision::Loop { .. }));
            let record = self.reach(&e.place, &e.name, e.decision.block());
            record.failure = None;
            record.block = Some(Block {
                decision: e.decision.clone(),
                iteration,
                last: false,
                ran: 0,
                failed: false,
                spent: Spent::default(),
                iterations: Default::default(),
            });
            return;
        };
        let place = e.place.iteration(number);
        let outputs = self.outputs_in(Some(&place), false);
        self.forget_within(&place);
        let Some(record) = self.steps.get_mut(&e.place) else { return };
        record.failure = None;
        let Some(block) = &mut record.block else { return };
        block.ran += outputs.len() as u64;
        outputs.iter().for_each(|output| block.spent.extend(&output.spent));
        block.failed |= outputs.iter().any(|output| !output.success);
        block.iterations.push_back(outputs);
        if block.iterations.len() > KEPT_ITERATIONS {
            block.iterations.pop_front();
        }
        if goes_on {
            block.iteration += 1;
        } else {
            block.last = true;
        }
    }

    /// Takes in that nothing more runs in a block.
    pub fn block_ended(&mut self, e: &BlockEnded) {
        let by_index = self.steps.get(&e.place).is_some_and(|record| record.kind == StepType::Parallel);
        let mut steps = self.outputs_in(Some(&e.place), by_index);
        self.forget_within(&e.place);
        let Some(record) = self.steps.get_mut(&e.place) else { return };
        let Some(block) = &record.block else { return };
        if record.kind == StepType::Loop {
            steps = block.iterations.iter().flatten().cloned().collect();
        }
        let mut spent = block.spent.clone();
        if record.kind != StepType::Loop {
            steps.iter().for_each(|step| spent.extend(&step.spent));
        }
        record.output = Some(Arc::new(StepOutput {
            place: e.place.clone(),
            name: e.name.clone(),
            kind: record.kind,
            executor: None,
            content: Value::String(summary(&e.name, block, &steps)),
            child: None,
            media: steps.iter().flat_map(|step| step.media.iter().cloned()).collect(),
            error: steps.iter().find_map(|step| step.error.clone()),
            success: !block.failed && steps.iter().all(|step| step.success),
            stop: steps.iter().any(|step| step.stop),
            spent,
            time_to_first_token: steps.iter().find_map(|step| step.time_to_first_token),
            duration: steps.iter().map(|step| step.duration).sum(),
            steps,
        }));
    }

    fn forget_within(&mut self, place: &Place) {
        let inner: Vec<Place> = self.steps.range(place.within()).map(|(inner, _)| inner.clone()).collect();
        inner.iter().for_each(|inner| drop(self.steps.remove(inner)));
    }

    /// Takes in what a person is asked.
    pub fn ask(&mut self, requirements: &[StepRequirement]) {
        self.paused = requirements.iter().map(|needed| needed.place.clone()).collect();
        for needed in requirements {
            if !matches!(needed.ask, Ask::Executor { .. }) {
                self.questions.insert(needed.place.static_path(), needed.number + 1);
            }
            let record = self.reach(&needed.place, &needed.name, needed.kind);
            (record.asked, record.given) = (Some(needed.clone()), None);
        }
    }

    /// Takes in what a person answered.
    pub fn answered(&mut self, e: &StepAnswered) {
        let Some(record) = self.steps.get_mut(&e.place) else { return };
        let given = StepGiven {
            confirmed: e.confirmed,
            feedback: e.feedback.get().cloned().flatten(),
            values: e.values.get().cloned().flatten(),
            choices: e.choices.clone(),
            input: e.input.get().cloned().flatten(),
            output: e.output.get().cloned().flatten(),
        };
        record.given = Some(given.clone());
        match record.asked.as_ref().map(|asked| &asked.ask) {
            Some(Ask::Before(_) | Ask::Routes { .. }) => record.before = Some(given),
            Some(Ask::Output { .. }) => record.judge(given),
            Some(Ask::Failure) if e.confirmed => {
                record.failure = None;
                (record.failures, record.rejections) = (0, 0);
            }
            Some(Ask::Failure) => record.fail(&e.place),
            Some(Ask::UnknownOutcome) => record.learn(&e.place, given, e.at_ms),
            Some(Ask::Executor { .. }) | None => {}
        }
    }
}

impl FlowState {
    /// Takes in that the run was cancelled: what was running came to nothing.
    pub fn cut_off(&mut self) {
        for (place, record) in &mut self.steps {
            let Some(work) = record.work.as_mut().filter(|work| work.running) else { continue };
            work.running = false;
            let error = Some(CUT_OFF.to_owned());
            let output = StepOutput { error, success: false, ..record.output_of(place, Value::from("")) };
            record.output = Some(Arc::new(output));
        }
    }
}

impl StepRecord {
    /// A person saw the output.
    fn judge(&mut self, given: StepGiven) {
        let Some(output) = &mut self.output else { return };
        if given.confirmed {
            self.reviewed = true;
            if let Some(edited) = given.output {
                Arc::make_mut(output).content = edited;
            }
            return;
        }
        self.rejections += 1;
        self.round += 1;
        self.rejected = Some(Rejected { content: output.content.clone(), feedback: given.feedback });
        self.output = None;
    }

    /// The step stays failed, and the workflow goes on.
    fn fail(&mut self, place: &Place) {
        let error = self.failure.as_ref().map(|failure| failure.error.clone()).unwrap_or_default();
        let content = Value::String(skipped(&error));
        self.output =
            Some(Arc::new(StepOutput { error: Some(error), success: false, ..self.output_of(place, content) }));
    }

    /// A person says what became of an attempt that a crash hid.
    fn learn(&mut self, place: &Place, given: StepGiven, at_ms: i64) {
        let Some(work) = &mut self.work else { return };
        match (given.confirmed, given.output) {
            (true, Some(output)) => {
                work.running = false;
                self.output = Some(Arc::new(self.output_of(place, output)));
            }
            (true, None) => work.again = true,
            (false, _) => {
                work.running = false;
                let error = given.feedback.unwrap_or_else(|| NOT_AGAIN.to_owned());
                self.failure = Some(Failure { error, then: AfterError::Skip, at_ms });
                self.fail(place);
            }
        }
    }

    fn output_of(&self, place: &Place, content: Value) -> StepOutput {
        StepOutput {
            place: place.clone(),
            name: self.name.clone(),
            kind: self.kind,
            executor: self.work.as_ref().map(|work| work.executor.clone()),
            content,
            child: self.work.as_ref().and_then(|work| work.child.clone()),
            media: Vec::new(),
            error: None,
            success: true,
            stop: false,
            spent: Spent::default(),
            time_to_first_token: None,
            duration: 0.0,
            steps: Vec::new(),
        }
    }
}

/// What a step says that failed and was left behind.
pub fn skipped(error: &str) -> String {
    format!("Step skipped due to error: {error}")
}

/// What a run says that fails with a step.
pub fn step_failed(name: &str, error: &str) -> String {
    format!("Step {name:?} failed: {error}")
}

/// What a block says of itself.
fn summary(name: &str, block: &Block, steps: &[Arc<StepOutput>]) -> String {
    match &block.decision {
        Decision::Condition { holds } if steps.is_empty() => {
            let met = if *holds { "met" } else { "not met" };
            format!("Condition {name} {met} - nothing ran")
        }
        Decision::Condition { holds } => {
            let branch = if *holds { "if" } else { "else" };
            format!("Condition {name} completed with {} results ({branch} branch)", steps.len())
        }
        Decision::Parallel { .. } => side_by_side(steps),
        Decision::Loop { .. } | Decision::Iteration { .. } => {
            let ended = if block.last { block.iteration } else { block.iteration.saturating_sub(1) };
            format!("Loop {name} completed {ended} iterations with {} total steps", block.ran)
        }
        Decision::Router { .. } => format!("Router {name} completed with {} results", steps.len()),
        Decision::Group { .. } => format!("Steps {name} completed with {} results", steps.len()),
    }
}
