//! What a workflow run needs next, read from its configuration and its fold alone: the engine does it and records the
//! outcome.

use std::collections::HashSet;
use std::sync::Arc;

use super::ask::{Ask, Before, StepRequirement};
use super::config::{Expression, Selector, Step, StepKind, WorkflowConfig};
use super::event::{AfterError, BlockDecided, BlockEnded, Decision};
use super::facts::Facts;
use super::fold::step_failed;
use super::output::StepOutput;
use super::place::Place;
use super::policy::OnReject;
use super::state::{Block, FlowState, StepRecord};
use crate::run::ChildRef;
use crate::tool::Effect;

/// Something to be done for a workflow run.
#[derive(Debug, Clone, PartialEq)]
pub enum Move<'c> {
    /// Run this step.
    Start(Start<'c>),
    /// Go on with the child run that carries this step out: it was started before a crash or a pause.
    TakeUp(Start<'c>, ChildRef),
    /// Wait for this step, which runs.
    Await(Place),
    /// The child run that carries this step out waits for a person.
    Waits(Start<'c>, ChildRef),
    /// Run this step again, but not before then.
    Wait {
        /// Where the step is.
        place: Place,
        /// Unix milliseconds.
        until_ms: i64,
    },
    /// Ask this of an expression or a function, and record what it says.
    Decide(Question<'c>),
    /// Record that a block goes on.
    Enter(BlockDecided),
    /// Record that a block ended.
    Close(BlockEnded),
    /// Record that a step failed without running: a person rejected its output too often.
    GiveUp {
        /// Where the step is.
        place: Place,
        /// The step.
        step: &'c Step,
        /// Why.
        error: String,
    },
    /// Ask this of a person.
    Ask(StepRequirement),
}

/// A step to run.
#[derive(Debug, Clone, PartialEq)]
pub struct Start<'c> {
    /// Where it is.
    pub place: Place,
    /// The step.
    pub step: &'c Step,
    /// The attempt, from 1.
    pub attempt: u32,
    /// How many outcomes it has had that did not stay: attempts of one round have one idempotency key.
    pub round: u32,
    /// What it sees.
    pub facts: Facts,
}

/// Something to be decided by an expression or a function.
#[derive(Debug, Clone, PartialEq)]
pub struct Question<'c> {
    /// Where the block is.
    pub place: Place,
    /// The block.
    pub step: &'c Step,
    /// What says it.
    pub expression: &'c Expression,
    /// What is asked.
    pub about: About,
    /// What the expression sees.
    pub facts: Facts,
}

/// What a question is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum About {
    /// Whether a condition's test holds.
    Test,
    /// Which of a router's steps run.
    Routes,
    /// Whether a loop ends after this iteration.
    Until(u32),
}

/// How a workflow run is to end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FlowEnd {
    /// Well.
    Succeed,
    /// With this error.
    Fail(String),
    /// Stopped, because a person rejected a step that must not be.
    Cancel(String),
}

/// What comes next for a workflow run.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Frontier<'c> {
    /// What is to be done, in the order of the steps. Nothing else comes next while something of it is under way.
    pub moves: Vec<Move<'c>>,
    /// How the run ends, when nothing is to be done any more.
    pub end: Option<FlowEnd>,
    /// Why it is to be cancelled, where a person rejected a step that must not be.
    pub cancel: Option<String>,
}

/// What is known beside the configuration and the fold.
#[derive(Debug, Clone, Copy)]
pub struct Now<'a> {
    /// Unix milliseconds.
    pub ms: i64,
    /// The places of steps that run in this process.
    pub in_flight: &'a HashSet<String>,
    /// The places of steps whose child runs wait for a person.
    pub waiting: &'a HashSet<String>,
    /// Whether the run is being cancelled: what runs in child runs ends first.
    pub cancelling: bool,
}

/// What comes next for a run of `config` that stands at `flow`.
pub fn next<'c>(config: &'c WorkflowConfig, flow: &FlowState, now: Now<'_>) -> Frontier<'c> {
    let limit = config.max_parallel.max(1);
    let broken = now.cancelling.then(|| FlowEnd::Cancel(String::new()));
    let mut walk = Walk { flow, now, limit, facts: Facts::default(), moves: Vec::new(), broken };
    let stand = walk.in_order(&config.steps, Place::top);
    let Some(broken) = walk.broken else {
        let end = (stand != Stand::Open).then_some(FlowEnd::Succeed).filter(|_| walk.moves.is_empty());
        return Frontier { moves: walk.moves, end, cancel: None };
    };
    // What runs is awaited, so that everything has an end when the run has one; nothing else begins.
    let moves: Vec<Move<'c>> = walk.moves.into_iter().filter_map(Move::at_the_end).collect();
    let cancel = if let FlowEnd::Cancel(reason) = &broken { Some(reason.clone()) } else { None };
    Frontier { end: Some(broken).filter(|_| moves.is_empty()), moves, cancel: cancel.filter(|_| !now.cancelling) }
}

impl Move<'_> {
    /// What of it is to be done when the run ends: child runs end before it does.
    fn at_the_end(self) -> Option<Self> {
        match self {
            Self::Await(_) | Self::TakeUp(..) => Some(self),
            Self::Waits(start, child) => Some(Self::TakeUp(start, child)),
            _ => None,
        }
    }
}

/// How far a step or a list of steps is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stand {
    /// It is over.
    Done,
    /// It is over, and nothing may follow it.
    Stopped,
    /// It is not over.
    Open,
}

struct Walk<'c, 'f> {
    flow: &'f FlowState,
    now: Now<'f>,
    limit: u32,
    facts: Facts,
    moves: Vec<Move<'c>>,
    /// How the run ends once nothing runs any more: a step failed that must not, or a person cancelled it.
    broken: Option<FlowEnd>,
}

impl<'c> Walk<'c, '_> {
    fn in_order(&mut self, steps: &'c [Step], place: impl Fn(usize) -> Place) -> Stand {
        for (index, step) in steps.iter().enumerate() {
            match self.step(step, place(index)) {
                Stand::Done => {}
                other => return other,
            }
        }
        Stand::Done
    }

    fn step(&mut self, step: &'c Step, place: Place) -> Stand {
        let record = self.flow.step(&place);
        if let Some(stand) = record.and_then(|record| self.settled(step, &place, record)) {
            return stand;
        }
        if record.is_none_or(|record| record.work.is_none() && record.block.is_none()) {
            match self.before(step, &place, record) {
                Ok(()) => {}
                Err(stand) => return stand,
            }
        }
        if step.kind.is_block() { self.block(step, place, record) } else { self.leaf(step, place, record) }
    }

    /// Where a step stands that has an outcome, or failed, or waits for a person; `None` when it is to go on.
    fn settled(&mut self, step: &'c Step, place: &Place, record: &StepRecord) -> Option<Stand> {
        if let Some(output) = &record.output {
            return Some(self.with_output(step, place, record, output));
        }
        if let Some(failure) = &record.failure {
            match failure.then {
                AfterError::Fail => {
                    self.fail(step_failed(&step.name, &failure.error));
                    return Some(Stand::Open);
                }
                AfterError::Pause => return Some(self.ask(step, place, Ask::Failure)),
                AfterError::Retry => {
                    let wait = step.policies.retries.wait_ms(record.failures).unwrap_or(0);
                    let until_ms = failure.at_ms.saturating_add(i64::try_from(wait).unwrap_or(i64::MAX));
                    if until_ms > self.now.ms {
                        self.moves.push(Move::Wait { place: place.clone(), until_ms });
                        return Some(Stand::Open);
                    }
                }
                AfterError::Skip => return Some(Stand::Done),
            }
        }
        None
    }

    /// A step that said something: it may have to be seen by a person, and by what follows.
    fn with_output(&mut self, step: &'c Step, place: &Place, record: &StepRecord, output: &Arc<StepOutput>) -> Stand {
        if let Some(failure) = record.failure.as_ref().filter(|failure| failure.then == AfterError::Fail) {
            self.fail(step_failed(&step.name, &failure.error));
            return Stand::Open;
        }
        if let Some(review) = step.policies.review.output.as_ref().filter(|_| output.success && !record.reviewed) {
            let (rejections, max_rejections) = (record.rejections, review.max_rejections);
            let message = review.message.clone();
            return self.ask(step, place, Ask::Output { message, rejections, max_rejections });
        }
        self.facts.outputs.push(output.clone());
        if output.speaks() {
            self.facts.previous = Some(output.clone());
        }
        if output.stop { Stand::Stopped } else { Stand::Done }
    }

    /// What is asked before a step runs.
    fn before(&mut self, step: &'c Step, place: &Place, record: Option<&StepRecord>) -> Result<(), Stand> {
        let given = record.and_then(|record| record.before.as_ref());
        let Some(before) = Before::of(&step.policies.review) else { return Ok(()) };
        let Some(given) = given else { return Err(self.ask(step, place, Ask::Before(before))) };
        let goes_elsewhere = before.on_reject == OnReject::Else && matches!(step.kind, StepKind::Condition(_));
        match (given.confirmed, before.on_reject) {
            (true, _) => Ok(()),
            (false, _) if goes_elsewhere => Ok(()),
            (false, OnReject::Cancel) => {
                let why = given.feedback.clone().map(|why| format!(": {why}")).unwrap_or_default();
                let reason = format!("Step {:?} was rejected{why}", step.name);
                self.broken.get_or_insert(FlowEnd::Cancel(reason));
                Err(Stand::Open)
            }
            (false, OnReject::Skip | OnReject::Else) => Err(Stand::Done),
        }
    }

    fn fail(&mut self, message: String) {
        self.broken.get_or_insert(FlowEnd::Fail(message));
    }

    fn ask(&mut self, step: &'c Step, place: &Place, ask: Ask) -> Stand {
        let (place, name) = (place.clone(), step.name.clone());
        self.moves.push(Move::Ask(StepRequirement { place, name, kind: step.kind.step_type(), ask, number: 0 }));
        Stand::Open
    }

    fn leaf(&mut self, step: &'c Step, place: Place, record: Option<&StepRecord>) -> Stand {
        let work = record.and_then(|record| record.work.as_ref());
        if let Some(work) = work.filter(|work| work.running) {
            if self.now.in_flight.contains(place.as_str()) {
                self.moves.push(Move::Await(place));
                return Stand::Open;
            }
            if let Some(child) = &work.child {
                let (child, attempt, round) = (child.clone(), work.attempt, record.map_or(0, |record| record.round));
                let waits = self.now.waiting.contains(place.as_str());
                let start = Start { facts: self.seen(&place), place, step, attempt, round };
                self.moves.push(if waits { Move::Waits(start, child) } else { Move::TakeUp(start, child) });
                return Stand::Open;
            }
            if work.effect == Effect::Unsafe && !work.again {
                return self.ask(step, &place, Ask::UnknownOutcome);
            }
        }
        let allowed = step.policies.review.output.as_ref().map_or(u32::MAX, |review| review.max_rejections);
        if let Some(record) = record.filter(|record| record.rejections > allowed) {
            let error = format!("its output was rejected {} times", record.rejections);
            self.moves.push(Move::GiveUp { place, step, error });
            return Stand::Open;
        }
        let (attempt, round) = (work.map_or(0, |work| work.attempt) + 1, record.map_or(0, |record| record.round));
        self.moves.push(Move::Start(Start { facts: self.seen(&place), place, step, attempt, round }));
        Stand::Open
    }

    fn mark(&self) -> (usize, Option<Arc<StepOutput>>) {
        (self.facts.outputs.len(), self.facts.previous.clone())
    }

    /// What ran in a block is not seen outside it by itself: the block's output stands for it.
    fn back_to(&mut self, (outputs, previous): &(usize, Option<Arc<StepOutput>>)) {
        self.facts.outputs.truncate(*outputs);
        self.facts.previous.clone_from(previous);
    }

    fn seen(&self, place: &Place) -> Facts {
        Facts { iteration: place.iteration_number(), ..self.facts.clone() }
    }

    fn block(&mut self, step: &'c Step, place: Place, record: Option<&StepRecord>) -> Stand {
        let Some(block) = record.and_then(|record| record.block.as_ref()) else {
            let entered = self.entrance(step, &place, record);
            self.moves.extend(entered);
            return Stand::Open;
        };
        let outer = self.mark();
        let stand = match &step.kind {
            StepKind::Loop(_) => self.iteration(step, &place, block),
            StepKind::Parallel(inner) => self.beside(&inner.steps, &place, inner.limit.unwrap_or(self.limit).max(1)),
            StepKind::Router(inner) => self.chosen(&inner.choices, &place, block),
            StepKind::Condition(inner) if block.decision == (Decision::Condition { holds: false }) => {
                self.in_order(&inner.else_steps, |index| place.else_step(index))
            }
            kind => self.in_order(kind.steps(), |index| place.step(index)),
        };
        self.back_to(&outer);
        if stand != Stand::Open {
            let (name, at_ms) = (step.name.clone(), self.now.ms);
            self.moves.push(Move::Close(BlockEnded { place, name, frame: 0, at_ms }));
        }
        Stand::Open
    }

    /// How a block is entered: at once, or when something was decided.
    fn entrance(&self, step: &'c Step, place: &Place, record: Option<&StepRecord>) -> Option<Move<'c>> {
        let given = record.and_then(|record| record.before.as_ref());
        let count = |steps: &[Step]| u32::try_from(steps.len()).unwrap_or(u32::MAX);
        let question = |about, expression| {
            let facts = self.seen(place);
            Move::Decide(Question { place: place.clone(), step, expression, about, facts })
        };
        let decision = match &step.kind {
            StepKind::Component(_) | StepKind::Tool(_) | StepKind::Function(_) => return None,
            // Who is asked whether it holds need not be asked by an expression too.
            StepKind::Condition(block) => match given {
                Some(given) => Decision::Condition { holds: given.confirmed },
                None => return Some(question(About::Test, &block.test)),
            },
            StepKind::Parallel(block) => Decision::Parallel { steps: count(&block.steps) },
            StepKind::Group(block) => Decision::Group { steps: count(&block.steps) },
            StepKind::Loop(block) => Decision::Loop { max_iterations: block.max_iterations },
            StepKind::Router(block) => match (&block.selector, given) {
                (Selector::Value(expression), _) => return Some(question(About::Routes, expression)),
                (Selector::Person { .. }, Some(given)) if !given.choices.is_empty() => {
                    Decision::Router { chosen: given.choices.clone() }
                }
                (Selector::Person { message }, _) => {
                    let choices = block.choices.iter().map(|choice| choice.name.clone()).collect();
                    let ask = Ask::Routes { message: message.clone(), choices, many: block.many };
                    let (place, name) = (place.clone(), step.name.clone());
                    return Some(Move::Ask(StepRequirement {
                        place,
                        name,
                        kind: step.kind.step_type(),
                        ask,
                        number: 0,
                    }));
                }
            },
        };
        Some(self.enter(step, place, decision))
    }

    fn enter(&self, step: &Step, place: &Place, decision: Decision) -> Move<'c> {
        let (place, name) = (place.clone(), step.name.clone());
        Move::Enter(BlockDecided { place, name, decision, frame: 0, at_ms: self.now.ms })
    }

    /// The steps of a router that run, in the order they were chosen in.
    fn chosen(&mut self, choices: &'c [Step], place: &Place, block: &Block) -> Stand {
        let Decision::Router { chosen } = &block.decision else { return Stand::Done };
        for name in chosen {
            let Some(index) = choices.iter().position(|choice| choice.name == *name) else { continue };
            match self.step(&choices[index], place.step(index)) {
                Stand::Done => {}
                other => return other,
            }
        }
        Stand::Done
    }

    /// Steps beside each other: all of them see the same, and all of them end before the block does.
    fn beside(&mut self, steps: &'c [Step], place: &Place, limit: u32) -> Stand {
        let outer = self.mark();
        let (mut stand, mut open) = (Stand::Done, 0);
        for (index, step) in steps.iter().enumerate() {
            let inner = place.step(index);
            if open >= limit && self.flow.step(&inner).is_none() {
                stand = Stand::Open;
                continue;
            }
            let before = self.moves.len();
            match self.step(step, inner) {
                // Who stops the workflow stops it after the block, whose output says so.
                Stand::Done | Stand::Stopped => {}
                // What waits for a person takes no room.
                Stand::Open => {
                    let waits = |it: &Move<'_>| matches!(it, Move::Ask(_) | Move::Waits(..));
                    open += u32::from(!self.moves[before..].iter().all(waits));
                    stand = Stand::Open;
                }
            }
            self.back_to(&outer);
        }
        stand
    }

    /// The iteration of a loop that runs.
    fn iteration(&mut self, step: &'c Step, place: &Place, block: &Block) -> Stand {
        let StepKind::Loop(config) = &step.kind else { return Stand::Done };
        let ended = block.iterations.back().and_then(|outputs| outputs.last());
        if block.last {
            return if ended.is_some_and(|output| output.stop) { Stand::Stopped } else { Stand::Done };
        }
        if config.forward
            && let Some(last) = block.iterations.iter().flatten().rev().find(|output| output.speaks())
        {
            self.facts.previous = Some(last.clone());
        }
        let number = block.iteration;
        let inner = place.iteration(number);
        let stand = self.in_order(&config.steps, |index| inner.step(index));
        if stand == Stand::Open {
            return Stand::Open;
        }
        let ends = stand == Stand::Stopped || number >= config.max_iterations;
        let decided = |goes_on| Decision::Iteration { number, goes_on };
        let next = match &config.until {
            _ if ends => self.enter(step, place, decided(false)),
            None => self.enter(step, place, decided(true)),
            Some(expression) => {
                let (place, about) = (place.clone(), About::Until(number));
                let facts = Facts { iteration: Some(number), ..self.facts.clone() };
                Move::Decide(Question { place, step, expression, about, facts })
            }
        };
        self.moves.push(next);
        Stand::Open
    }
}

/// The names that a router's selector gave: one, or a list; `None` when it gave something else.
pub fn routes(value: &serde_json::Value) -> Option<Vec<String>> {
    match value {
        serde_json::Value::String(name) => Some(vec![name.clone()]),
        serde_json::Value::Array(names) => names.iter().map(|name| name.as_str().map(str::to_owned)).collect(),
        _ => None,
    }
}
