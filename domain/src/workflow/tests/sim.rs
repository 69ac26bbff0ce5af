//! Carries a workflow out in the smallest way there is: every step ends at once, with what the test says.

use std::collections::HashSet;

use serde_json::{Map, Value, json};

use super::super::*;
use crate::component::ComponentRef;
use crate::ids::{ComponentId, RunId, SessionId};
use crate::personal::Personal;
use crate::run::{
    OnBusy, RunAccepted, RunCommand, RunContinued, RunEvent, RunMode, RunPaused, RunState, RunStatus, RunSucceeded,
};
use crate::session::Admission;
use crate::tool::Effect;

/// How a step ends in a test.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    Says(Value),
    Stops(Value),
    Fails(&'static str),
    /// It does not end: the process dies.
    Lost,
}

pub type Act = dyn Fn(&Start<'_>) -> Outcome;
pub type Rule = dyn Fn(&Question<'_>) -> Value;
pub type Person = dyn Fn(&StepRequirement) -> StepAnswer;

/// A run, everything that happened to it, and everything that was done for it.
pub struct Sim {
    pub config: WorkflowConfig,
    pub state: RunState,
    pub events: Vec<RunEvent>,
    pub now_ms: i64,
    /// What was run, in order: its name and what it went on from.
    pub ran: Vec<(String, String)>,
    pub act: Box<Act>,
    pub rule: Box<Rule>,
    pub person: Box<Person>,
}

pub fn config(steps: Vec<Step>) -> WorkflowConfig {
    WorkflowConfig {
        id: ComponentId::parse("wf").unwrap(),
        name: "Wf".into(),
        description: None,
        steps,
        input_schema: None,
        session_state: Map::new(),
        history_runs: 0,
        max_parallel: 16,
        metadata: Map::new(),
    }
}

pub fn step(name: &str, kind: StepKind) -> Step {
    Step { name: name.into(), description: None, kind, policies: Policies::default() }
}

pub fn function(name: &str) -> Step {
    with_effect(name, Effect::Pure)
}

pub fn with_effect(name: &str, effect: Effect) -> Step {
    step(name, StepKind::Function(FunctionStep { function: name.into(), effect }))
}

pub fn group(name: &str, steps: Vec<Step>) -> Step {
    step(name, StepKind::Group(GroupStep { steps }))
}

pub fn parallel(name: &str, steps: Vec<Step>, limit: Option<u32>) -> Step {
    step(name, StepKind::Parallel(ParallelStep { steps, limit }))
}

pub fn repeat(name: &str, steps: Vec<Step>, max_iterations: u32) -> Step {
    step(name, StepKind::Loop(LoopStep { steps, until: None, max_iterations, forward: false }))
}

pub fn condition(name: &str, steps: Vec<Step>, else_steps: Vec<Step>) -> Step {
    step(name, StepKind::Condition(ConditionStep { test: Expression::Cel("test".into()), steps, else_steps }))
}

pub fn router(name: &str, choices: Vec<Step>, many: bool) -> Step {
    let selector = Selector::Value(Expression::Cel("selector".into()));
    step(name, StepKind::Router(RouterStep { selector, choices, many }))
}

/// The acceptance of a workflow's run.
pub fn accepted() -> RunEvent {
    RunEvent::Accepted(Box::new(RunAccepted {
        run_id: RunId::parse("r").unwrap(),
        session_id: SessionId::parse("s").unwrap(),
        user_id: None,
        component: ComponentRef::workflow(ComponentId::parse("wf").unwrap()),
        config_hash: "00".into(),
        mode: RunMode::Plain,
        on_busy: OnBusy::Enqueue,
        admission: Admission::Active,
        cancel_on_disconnect: false,
        message: "Hello".to_owned().into(),
        media: Vec::new().into(),
        dependencies: None.into(),
        metadata: None.into(),
        output_schema: None.into(),
        forked: None,
        base: None.into(),
        copied_from: None,
        parent: None,
        frame: 0,
        at_ms: 1,
    }))
}

impl Sim {
    pub fn new(config: WorkflowConfig) -> Self {
        Self::at(config, vec![accepted()])
    }

    /// A run that stands where these events left it; nothing runs any more.
    pub fn at(config: WorkflowConfig, events: Vec<RunEvent>) -> Self {
        let mut state = RunState::default();
        events.iter().for_each(|event| state.evolve(event));
        let now_ms = state.updated_ms;
        Self {
            config,
            state,
            events,
            now_ms,
            ran: Vec::new(),
            act: Box::new(|start| Outcome::Says(json!(format!("{} said", start.step.name)))),
            rule: Box::new(|_| json!(true)),
            person: Box::new(|_| StepAnswer { confirmed: Some(true), ..StepAnswer::default() }),
        }
    }

    pub fn flow(&self) -> FlowState {
        self.state.flow.as_deref().cloned().unwrap_or_default()
    }

    pub fn names(&self) -> Vec<&str> {
        self.ran.iter().map(|(name, _)| name.as_str()).collect()
    }

    pub fn happen(&mut self, event: RunEvent) {
        let decided = self.state.decide(RunCommand(event.clone())).unwrap_or_else(|why| panic!("{event:?}: {why}"));
        assert_eq!(decided.len(), 1, "{event:?}");
        self.state.evolve(&event);
        self.events.push(event);
    }

    /// Goes on until the run ends, the process dies, or a person is asked and `answers` is used up.
    pub fn run(&mut self, mut answers: usize) -> Option<FlowEnd> {
        for _ in 0..100_000 {
            let (config, flow) = (self.config.clone(), self.flow());
            let nothing = HashSet::new();
            let now = Now { ms: self.now_ms, in_flight: &nothing, waiting: &nothing, cancelling: false };
            let Frontier { moves, end, .. } = next(&config, &flow, now);
            if let Some(end) = end {
                assert_eq!(moves, []);
                if end == FlowEnd::Succeed {
                    self.succeed();
                }
                return Some(end);
            }
            assert!(!moves.is_empty(), "nothing comes next, and it has not ended");
            if moves.iter().all(|it| matches!(it, Move::Ask(_))) {
                if answers == 0 {
                    return None;
                }
                answers -= 1;
                self.ask(&moves);
                continue;
            }
            for it in moves.into_iter().filter(|it| !matches!(it, Move::Ask(_))) {
                if !self.make(it) {
                    return None;
                }
            }
        }
        panic!("it does not end");
    }

    fn succeed(&mut self) {
        let (session_state, at_ms) = (Personal::default(), self.now_ms);
        self.happen(RunEvent::Succeeded(RunSucceeded { session_state, duration: 0.0, frame: 0, at_ms }));
        assert_eq!(self.state.status, RunStatus::Completed);
    }

    fn make(&mut self, it: Move<'_>) -> bool {
        match it {
            Move::Enter(event) => self.happen(RunEvent::BlockDecided(event)),
            Move::Close(event) => self.happen(RunEvent::BlockEnded(event)),
            Move::Decide(question) => self.decide(&question),
            Move::Start(start) => return self.start(&start),
            Move::Wait { until_ms, .. } => self.now_ms = self.now_ms.max(until_ms),
            Move::GiveUp { place, step, error } => {
                let then = Some(step.policies.on_error.into());
                self.end(&place, step, 0, Err(error), false, then);
            }
            Move::Ask(_) | Move::Await(_) | Move::TakeUp(..) | Move::Waits(..) => {}
        }
        true
    }

    fn decide(&mut self, question: &Question<'_>) {
        let said = (self.rule)(question);
        let decision = match question.about {
            About::Test => Decision::Condition { holds: said == json!(true) },
            About::Routes => Decision::Router { chosen: routes(&said).unwrap() },
            About::Until(number) => Decision::Iteration { number, goes_on: said != json!(true) },
        };
        let (place, name) = (question.place.clone(), question.step.name.clone());
        self.happen(RunEvent::BlockDecided(BlockDecided { place, name, decision, frame: 0, at_ms: self.now_ms }));
    }

    fn start(&mut self, start: &Start<'_>) -> bool {
        let run = self.state.run_id().cloned().unwrap();
        let StepKind::Function(call) = &start.step.kind else { panic!("only functions run here") };
        self.now_ms += 1;
        self.happen(RunEvent::StepStarted(StepStarted {
            place: start.place.clone(),
            name: start.step.name.clone(),
            executor: Executor { kind: ExecutorKind::Function, name: call.function.clone(), id: None },
            attempt: start.attempt,
            effect: call.effect,
            idempotency_key: start.place.idempotency_key(&run, start.round),
            child: None,
            input: None.into(),
            frame: 0,
            at_ms: self.now_ms,
        }));
        let went_on_from = start.facts.said().map(as_text).unwrap_or_default();
        self.ran.push((start.step.name.clone(), went_on_from));
        let (said, stop) = match (self.act)(start) {
            Outcome::Lost => return false,
            Outcome::Says(content) => (Ok(content), false),
            Outcome::Stops(content) => (Ok(content), true),
            Outcome::Fails(error) => (Err(error.to_owned()), false),
        };
        let then = said.is_err().then(|| self.flow().after_error(&start.place, &start.step.policies));
        self.end(&start.place, start.step, start.attempt, said, stop, then);
        true
    }

    fn end(
        &mut self,
        place: &Place,
        step: &Step,
        attempt: u32,
        said: Result<Value, String>,
        stop: bool,
        then: Option<AfterError>,
    ) {
        let error = said.clone().err();
        let content = said.unwrap_or_else(|error| Value::String(skipped(&error)));
        self.happen(RunEvent::StepEnded(StepEnded {
            place: place.clone(),
            name: step.name.clone(),
            kind: step.kind.step_type(),
            attempt,
            content: content.into(),
            media: None.into(),
            error: error.into(),
            then,
            stop,
            spent: Default::default(),
            time_to_first_token: None,
            duration: 0.0,
            frame: 0,
            at_ms: self.now_ms,
        }));
    }

    fn ask(&mut self, moves: &[Move<'_>]) {
        let asked = |it: &Move<'_>| if let Move::Ask(asked) = it { Some(asked.clone()) } else { None };
        let steps: Vec<StepRequirement> = moves.iter().filter_map(asked).collect();
        let at_ms = self.now_ms;
        let (requirements, members) = (Vec::new(), None.into());
        self.happen(RunEvent::Paused(RunPaused { requirements, members, steps: steps.clone(), frame: 0, at_ms }));
        assert_eq!(self.state.open_steps().count(), steps.len());
        for asked in &steps {
            let given = asked.read(&(self.person)(asked)).unwrap().expect("an answer");
            self.happen(RunEvent::StepAnswered(StepAnswered {
                place: asked.place.clone(),
                confirmed: given.confirmed,
                feedback: given.feedback.into(),
                values: given.values.into(),
                choices: given.choices,
                input: given.input.into(),
                output: given.output.into(),
                by: "somebody".into(),
                at_ms,
            }));
        }
        let steps = steps.into_iter().map(|asked| asked.place).collect();
        let (mode, admission) = (RunMode::Plain, Admission::Active);
        self.happen(RunEvent::Continued(RunContinued { mode, admission, steps, frame: 0, at_ms }));
    }
}
