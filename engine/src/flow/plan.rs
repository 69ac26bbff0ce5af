//! From where a workflow's steps stand to the events and the work that come next.

use std::collections::HashSet;

use daybook_domain::run::{CancelRequested, ChildRef, Ending, ErrorKind, RunEvent, RunPaused, RunState, RunStatus};
use daybook_domain::tool::Effect;
use daybook_domain::workflow::{About, Rejected};
use daybook_domain::workflow::{
    AfterError, Ask, BlockDecided, Decision, Executor, ExecutorKind, Facts, FlowEnd, FlowState, Frontier, Move, Now,
    Place, Question, Start, Step, StepEnded, StepGiven, StepKind, StepRequirement, StepStarted, WorkflowConfig, next,
    skipped,
};
use serde_json::{Map, Value};

use super::code::FlowCode;
use super::values::{Said, Values, input_fault};
use crate::plan::{Action, Plan, Planner};

/// The most events that are planned at once; what comes next after them is planned when they are in the log.
const MOST_EVENTS: usize = 200;

/// A step to run.
#[derive(Debug)]
pub(crate) struct StepStart {
    pub place: Place,
    pub step: Step,
    pub attempt: u32,
    pub idempotency_key: String,
    /// The run that carries it out, and whether it cannot have begun before.
    pub child: Option<(ChildRef, bool)>,
    pub facts: Facts,
    /// What was recorded of its input.
    pub input: Option<Value>,
    /// What a person answered before it ran.
    pub before: Option<StepGiven>,
    /// Its output that a person rejected.
    pub rejected: Option<Rejected>,
}

impl Planner<'_> {
    /// What comes next for a workflow's run.
    pub(crate) fn flow(&self, config: &WorkflowConfig, state: &RunState) -> Plan {
        if state.accepted.is_none() || state.status.is_end() {
            return Plan::only(Action::Stop);
        }
        match state.status {
            _ if state.cancel.is_some() => {}
            RunStatus::Pending if !self.granted => return Plan::only(Action::AwaitTurn),
            RunStatus::Paused => return Plan::only(Action::Stop),
            _ => {}
        }
        // What a caller says was looked at when the run was accepted; what a run above says is looked at here.
        if state.flow.is_none() && state.parent().is_some() && state.cancel.is_none() {
            let told = state.accepted.as_ref().and_then(|accepted| accepted.message.get());
            if let Some(fault) = told.and_then(|told| input_fault(config, told)) {
                let message = format!("the input of the workflow does not have the shape it must have: {fault}");
                return self.finish(state, Ending::Fail(ErrorKind::StepError, message));
            }
        }
        let waiting: HashSet<String> = self.waiting.keys().cloned().collect();
        let (mut after, mut events) = (state.clone(), Vec::new());
        loop {
            let now = Now {
                ms: self.now_ms,
                in_flight: self.in_flight,
                waiting: &waiting,
                cancelling: after.cancel.is_some(),
            };
            let frontier = next(config, after.flow.as_deref().unwrap_or(&FlowState::default()), now);
            let news = self.news(config, &after, &frontier);
            if news.is_empty() {
                return self.work(config, &after, events, frontier);
            }
            news.iter().for_each(|event| after.evolve(event));
            events.extend(news);
            if events.len() >= MOST_EVENTS {
                return Plan { events, ..Plan::only(Action::LookOn) };
            }
        }
    }

    /// What follows without any work: blocks that go on, decisions, and steps that cannot run.
    fn news(&self, config: &WorkflowConfig, state: &RunState, frontier: &Frontier<'_>) -> Vec<RunEvent> {
        if let Some(why) = &frontier.cancel {
            let (by, at_ms) = ("system".to_owned(), self.now_ms);
            return vec![RunEvent::CancelRequested(CancelRequested { by, why: Some(why.clone()).into(), at_ms })];
        }
        let event = |it: &Move<'_>| match it {
            Move::Enter(decided) => Some(RunEvent::BlockDecided(decided.clone())),
            Move::Close(ended) => Some(RunEvent::BlockEnded(ended.clone())),
            Move::Decide(question) => Some(self.decided(config, state, question)),
            Move::GiveUp { place, step, error } => Some(self.given_up(place, step, error.clone())),
            Move::Start(start) => {
                let fault = self.input(config, state, start).err()?;
                Some(self.given_up(&start.place, start.step, fault))
            }
            _ => None,
        };
        frontier.moves.iter().filter_map(event).collect()
    }

    fn decided(&self, config: &WorkflowConfig, state: &RunState, question: &Question<'_>) -> RunEvent {
        let said = self.values(config, state, |values| values.answer(question));
        let decision = match (said, question.about) {
            (Err(fault), _) => return self.given_up(&question.place, question.step, fault),
            (Ok(Said::Routes(chosen)), _) => Decision::Router { chosen },
            (Ok(Said::Holds(ends)), About::Until(number)) => Decision::Iteration { number, goes_on: !ends },
            (Ok(Said::Holds(holds)), _) => Decision::Condition { holds },
        };
        let (place, name) = (question.place.clone(), question.step.name.clone());
        RunEvent::BlockDecided(BlockDecided { place, name, decision, frame: 0, at_ms: self.now_ms })
    }

    /// The end of a step that does not run, or of a block that cannot be decided.
    fn given_up(&self, place: &Place, step: &Step, fault: String) -> RunEvent {
        RunEvent::StepEnded(StepEnded {
            place: place.clone(),
            name: step.name.clone(),
            kind: step.kind.step_type(),
            attempt: 0,
            content: Value::String(skipped(&fault)).into(),
            media: None.into(),
            error: Some(fault).into(),
            then: Some(AfterError::from(step.policies.on_error)),
            stop: false,
            spent: Default::default(),
            time_to_first_token: None,
            duration: 0.0,
            frame: 0,
            at_ms: self.now_ms,
        })
    }

    fn values<T>(&self, config: &WorkflowConfig, state: &RunState, of: impl FnOnce(Values<'_>) -> T) -> T {
        let nothing = FlowCode::default();
        let input = state.accepted.as_ref().and_then(|accepted| accepted.message.get().cloned()).unwrap_or_default();
        let code = self.code.unwrap_or(&nothing);
        of(Values { config, code, input: &input, state: &self.session_state })
    }

    /// What is recorded of a step's input: a tool's arguments, or what an expression makes of what was said.
    fn input(&self, config: &WorkflowConfig, state: &RunState, start: &Start<'_>) -> Result<Option<Value>, String> {
        match &start.step.kind {
            StepKind::Component(run) => {
                let made =
                    run.input.as_ref().map(|input| self.values(config, state, |it| it.value(input, &start.facts)));
                made.transpose().map_err(|fault| format!("its `input`: {fault}"))
            }
            StepKind::Tool(call) => {
                let mut arguments = Map::new();
                for (name, expression) in &call.arguments {
                    let value = self.values(config, state, |it| it.value(expression, &start.facts));
                    let value = value.map_err(|fault| format!("its argument {name:?}: {fault}"))?;
                    arguments.insert(name.clone(), value);
                }
                // What a person filled in for the step is for its tool.
                let record = state.flow.as_ref().and_then(|flow| flow.step(&start.place));
                let filled = record.and_then(|record| record.before.as_ref()).and_then(|before| before.values.clone());
                arguments.extend(filled.into_iter().flatten());
                if let Some(check) = self.checks.get(&call.tool.name) {
                    check.check(&arguments).map_err(|error| error.to_string())?;
                }
                Ok(Some(Value::Object(arguments)))
            }
            _ => Ok(None),
        }
    }

    /// The work that comes next, or the end.
    fn work(
        &self,
        config: &WorkflowConfig,
        state: &RunState,
        mut events: Vec<RunEvent>,
        frontier: Frontier<'_>,
    ) -> Plan {
        if let Some(end) = frontier.end {
            let ending = match end {
                FlowEnd::Succeed => Ending::Succeed,
                FlowEnd::Fail(message) => Ending::Fail(ErrorKind::StepError, message),
                FlowEnd::Cancel(_) => Ending::Cancel,
            };
            let plan = self.finish(state, ending);
            events.extend(plan.events);
            return Plan { events, ..plan };
        }
        let (mut starts, mut asks, mut due) = (Vec::new(), Vec::new(), None::<i64>);
        for it in frontier.moves {
            match it {
                Move::Start(start) => {
                    let input = self.input(config, state, &start).ok().flatten();
                    let (begun, start) = self.start_step(state, start, None, input);
                    events.push(RunEvent::StepStarted(begun));
                    starts.push(start);
                }
                Move::TakeUp(start, child) => starts.push(self.start_step(state, start, Some(child), None).1),
                Move::Waits(start, child) => asks.push(self.waits(&start, child)),
                Move::Ask(asked) => {
                    let number = state.flow.as_ref().map_or(0, |flow| flow.times_asked(&asked.place));
                    asks.push(StepRequirement { number, ..asked });
                }
                Move::Wait { until_ms, .. } => due = Some(due.map_or(until_ms, |due| due.min(until_ms))),
                Move::Await(_) | Move::Decide(_) | Move::Enter(_) | Move::Close(_) | Move::GiveUp { .. } => {}
            }
        }
        if starts.is_empty() && due.is_none() && self.in_flight.is_empty() {
            let plan = self.pause_steps(state, asks);
            events.extend(plan.events);
            return Plan { events, ..plan };
        }
        let action = if starts.is_empty() { Action::AwaitTools } else { Action::Steps(starts) };
        Plan { events, due, ..Plan::only(action) }
    }

    fn start_step(
        &self,
        state: &RunState,
        start: Start<'_>,
        child: Option<ChildRef>,
        input: Option<Value>,
    ) -> (StepStarted, StepStart) {
        let Start { place, step, attempt, round, facts } = start;
        let run = state.run_id();
        let record = state.flow.as_ref().and_then(|flow| flow.step(&place));
        let fresh = child.is_none();
        let id = || Some(ChildRef { run_id: place.child_run(run?, round), component: component(step)? });
        let child = child.or_else(id);
        let recorded = record.and_then(|record| record.work.as_ref()).and_then(|work| work.input.clone());
        let input = if fresh { input } else { recorded };
        let idempotency_key = run.map(|run| place.idempotency_key(run, round)).unwrap_or_default();
        let begun = StepStarted {
            place: place.clone(),
            name: step.name.clone(),
            executor: executor(step),
            attempt,
            effect: effect(step),
            idempotency_key: idempotency_key.clone(),
            child: child.clone(),
            input: input.clone().into(),
            frame: 0,
            at_ms: self.now_ms,
        };
        let start = StepStart {
            step: step.clone(),
            attempt,
            idempotency_key,
            // Each round has a run of its own, which cannot have begun before.
            child: child.map(|child| (child, fresh)),
            facts,
            input,
            before: record.and_then(|record| record.before.clone()),
            rejected: record.and_then(|record| record.rejected.clone()),
            place,
        };
        (begun, start)
    }

    /// What the child run that carries a step out asks.
    fn waits(&self, start: &Start<'_>, child: ChildRef) -> StepRequirement {
        let (place, name, kind) = (start.place.clone(), start.step.name.clone(), start.step.kind.step_type());
        let steps = self.waiting.get(place.as_str()).map(|asks| asks.steps.clone()).unwrap_or_default();
        StepRequirement {
            place,
            name,
            kind,
            ask: Ask::Executor { child, name: executor(start.step).name, steps },
            number: 0,
        }
    }

    fn pause_steps(&self, state: &RunState, steps: Vec<StepRequirement>) -> Plan {
        let asked = steps.iter().filter_map(|asked| self.waiting.get(asked.place.as_str()));
        let members: Vec<_> = asked.flat_map(|asks| asks.members.clone()).collect();
        let members = Some(members).filter(|members| !members.is_empty()).into();
        let (requirements, frame, at_ms) = (Vec::new(), 0, self.now_ms);
        let paused = RunEvent::Paused(RunPaused { requirements, members, steps, frame, at_ms });
        self.leave(state, paused, RunStatus::Paused)
    }
}

fn component(step: &Step) -> Option<daybook_domain::component::ComponentRef> {
    match &step.kind {
        StepKind::Component(run) => Some(run.component.clone()),
        _ => None,
    }
}

fn executor(step: &Step) -> Executor {
    use daybook_domain::component::ComponentKind;
    let (kind, name, id) = match &step.kind {
        StepKind::Component(run) => {
            let kind = match run.component.kind {
                ComponentKind::Agent => ExecutorKind::Agent,
                ComponentKind::Team => ExecutorKind::Team,
                ComponentKind::Workflow => ExecutorKind::Workflow,
            };
            (kind, run.component_name.clone(), Some(run.component.id.to_string()))
        }
        StepKind::Tool(call) => (ExecutorKind::Tool, call.tool.name.clone(), None),
        StepKind::Function(call) => (ExecutorKind::Function, call.function.clone(), None),
        _ => (ExecutorKind::Function, step.name.clone(), None),
    };
    Executor { kind, name, id }
}

/// What running a step again does. A child run is taken up where it stands: nothing in it runs twice for that.
fn effect(step: &Step) -> Effect {
    match &step.kind {
        StepKind::Tool(call) => call.tool.effect,
        StepKind::Function(call) => call.effect,
        _ => Effect::Idempotent,
    }
}
