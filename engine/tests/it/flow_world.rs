//! Workflows of counted functions.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use daybook_domain::command::{CancelRun, ContinueRun, StartRun};
use daybook_domain::component::{AgentConfig, ComponentKind, ComponentRef};
use daybook_domain::ids::{ComponentId, RunId};
use daybook_domain::run::{RunMode, RunState, RunStatus};
use daybook_domain::tool::{Effect, ToolSpec};
use daybook_domain::workflow::{
    ComponentStep, ConditionStep, Expression, FunctionStep, GroupStep, LoopStep, ParallelStep, Policies, RouterStep,
    Selector, Step, StepAnswer, StepKind, StepOutput, ToolStep, WorkflowConfig,
};
use daybook_engine::{Engine, Fault, Functions, Listing, Outcome, Registry, StepInput, StepSaid};
use serde_json::{Map, Value, json};
use tokio::sync::Semaphore;

use crate::pauses::continuing;
use crate::world::*;

/// What was done outside: the places of the steps whose functions were called, and the keys they were given.
#[derive(Clone, Default)]
pub struct Done(pub Arc<Mutex<Vec<(String, String)>>>);

impl Done {
    /// The places, in the order in which their functions were called.
    pub fn places(&self) -> Vec<String> {
        self.0.lock().unwrap().iter().map(|(place, _)| place.clone()).collect()
    }

    pub fn times(&self, place: &str) -> usize {
        self.0.lock().unwrap().iter().filter(|(known, _)| known == place).count()
    }

    pub fn keys(&self, place: &str) -> Vec<String> {
        self.0.lock().unwrap().iter().filter(|(known, _)| known == place).map(|(_, key)| key.clone()).collect()
    }
}

pub struct Flows {
    pub world: World,
    pub done: Done,
    /// Lets functions go on that wait.
    pub go_on: Arc<Semaphore>,
    /// How often `flaky` fails at a place before it goes well.
    pub failures: Arc<Mutex<HashMap<String, usize>>>,
    /// What steps were given beside what they go on from.
    pub seen: Arc<Mutex<Vec<Value>>>,
}

impl Flows {
    pub async fn new() -> Self {
        Self {
            world: World::new().await,
            done: Done::default(),
            go_on: Arc::new(Semaphore::new(0)),
            failures: Arc::default(),
            seen: Arc::default(),
        }
    }

    /// Functions that note that they were called, and closures.
    pub fn functions(&self) -> Functions {
        let noted = |act: fn(StepInput) -> Result<StepSaid, Fault>| {
            let (done, seen) = (self.done.clone(), self.seen.clone());
            move |input: StepInput| {
                note(&done, &seen, &input);
                std::future::ready(act(input))
            }
        };
        let (done, seen, go_on) = (self.done.clone(), self.seen.clone(), self.go_on.clone());
        let hold = move |input: StepInput| {
            note(&done, &seen, &input);
            let go_on = go_on.clone();
            async move {
                go_on.acquire().await.unwrap().forget();
                Ok(format!("held {}", input.text()).into())
            }
        };
        let (done, seen, failures) = (self.done.clone(), self.seen.clone(), self.failures.clone());
        let flaky = move |input: StepInput| {
            note(&done, &seen, &input);
            let mut failures = failures.lock().unwrap();
            let left = failures.get_mut(&input.context.call_id);
            std::future::ready(match left {
                Some(left) if *left > 0 => {
                    *left -= 1;
                    Err("flaky".into())
                }
                _ => Ok("fine".into()),
            })
        };
        Functions::default()
            .step("upper", noted(|input| Ok(input.text().to_uppercase().into())))
            .step("join", noted(|input| Ok(format!("joined: {}", input.text()).into())))
            .step(
                "count",
                noted(|input| {
                    let next = input.context.state("count").and_then(|count| count.as_u64()).unwrap_or(0) + 1;
                    input.context.set_state("count", json!(next));
                    input.context.progress("counting");
                    Ok(json!({"count": next}).into())
                }),
            )
            .step("stop", noted(|_| Ok(StepSaid::from("enough").and_stop())))
            .step("fail", noted(|_| Err("on purpose".into())))
            .step("secret", noted(|_| Ok(json!({"token": TOKEN, "password": "hunter2"}).into())))
            .step("panic", noted(|_| panic!("a defect, on purpose")))
            .step("hold", hold)
            .step("flaky", flaky)
            .rule("is_long", |asked| Ok(json!(asked.input.len() > 10)))
            .rule("first_two", |_| Ok(json!(["x", "y"])))
            .rule("broken", |_| Err("no idea".into()))
    }

    /// An agent, and this workflow.
    pub async fn engine(&self, config: WorkflowConfig) -> Engine {
        self.world.engine_from(self.registry(vec![config])).await
    }

    /// An agent, and these workflows; all tools of the world may be called.
    pub fn registry(&self, configs: Vec<WorkflowConfig>) -> Registry {
        let mut registry = self.world.registry(agent(), Default::default());
        registry.add_functions(self.functions());
        for config in configs {
            registry.add_workflow(config, self.world.tools(Default::default()), Listing::Public).unwrap();
        }
        registry
    }

    /// A step that runs the agent.
    pub fn agent_step(&self, name: &str) -> Step {
        let registry = self.world.registry(agent(), Default::default());
        let component = ComponentRef::agent(ComponentId::parse("my-agent").unwrap());
        let config_hash = registry.component(&component).unwrap().hash.clone();
        let run = ComponentStep { component, config_hash, component_name: "My Agent".into(), input: None };
        step(name, StepKind::Component(run))
    }

    /// A step that runs that workflow.
    pub fn nested(&self, name: &str, config: &WorkflowConfig) -> Step {
        let registry = self.registry(vec![config.clone()]);
        let component = ComponentRef::workflow(config.id.clone());
        let config_hash = registry.component(&component).unwrap().hash.clone();
        let run = ComponentStep { component, config_hash, component_name: config.name.clone(), input: None };
        step(name, StepKind::Component(run))
    }

    /// Every run of the tree has ended exactly once.
    pub async fn each_ended_once(&self, engine: &Engine, run: &RunId) {
        let mut open = vec![run.clone()];
        while let Some(id) = open.pop() {
            let Some(state) = engine.run(LOG, &id).await.unwrap() else { continue };
            open.extend(state.children().map(|child| child.run_id.clone()));
            let kinds = self.world.kinds(&id).await;
            let end = |kind: &&String| ["RunSucceeded", "RunFailed", "RunCancelled"].contains(&kind.as_str());
            assert_eq!(kinds.iter().filter(end).count(), 1, "{kinds:?}");
        }
    }
}

fn note(done: &Done, seen: &Mutex<Vec<Value>>, input: &StepInput) {
    let (place, key) = (input.context.call_id.clone(), input.context.idempotency_key.clone());
    done.0.lock().unwrap().push((place, key));
    let feedback = input.rejected.as_ref().and_then(|rejected| rejected.feedback.clone());
    seen.lock().unwrap().push(json!({"text": input.text(), "values": input.values, "feedback": feedback}));
}

fn agent() -> AgentConfig {
    config()
}

pub fn step(name: &str, kind: StepKind) -> Step {
    Step { name: name.into(), description: None, kind, policies: Policies::default() }
}

pub fn with(step: Step, policies: Policies) -> Step {
    Step { policies, ..step }
}

/// A step that calls the function of this name, which is pure.
pub fn function(name: &str, function: &str) -> Step {
    effect(name, function, Effect::Pure)
}

pub fn effect(name: &str, function: &str, effect: Effect) -> Step {
    step(name, StepKind::Function(FunctionStep { function: function.into(), effect }))
}

pub fn tool(name: &str, tool: &str, arguments: &[(&str, Expression)]) -> Step {
    let tool = ToolSpec::new(tool, "", json!({}));
    let arguments = arguments.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
    step(name, StepKind::Tool(ToolStep { tool, arguments }))
}

pub fn cel(text: &str) -> Expression {
    Expression::Cel(text.into())
}

pub fn condition(name: &str, test: Expression, steps: Vec<Step>, else_steps: Vec<Step>) -> Step {
    step(name, StepKind::Condition(ConditionStep { test, steps, else_steps }))
}

pub fn parallel(name: &str, steps: Vec<Step>) -> Step {
    step(name, StepKind::Parallel(ParallelStep { steps, limit: None }))
}

pub fn repeat(name: &str, steps: Vec<Step>, until: Option<Expression>, max_iterations: u32) -> Step {
    step(name, StepKind::Loop(LoopStep { steps, until, max_iterations, forward: false }))
}

pub fn router(name: &str, selector: Expression, choices: Vec<Step>) -> Step {
    let selector = Selector::Value(selector);
    step(name, StepKind::Router(RouterStep { selector, choices, many: true }))
}

pub fn group(name: &str, steps: Vec<Step>) -> Step {
    step(name, StepKind::Group(GroupStep { steps }))
}

pub fn workflow(steps: Vec<Step>) -> WorkflowConfig {
    called("flow", steps)
}

pub fn called(id: &str, steps: Vec<Step>) -> WorkflowConfig {
    WorkflowConfig {
        id: ComponentId::parse(id).unwrap(),
        name: id.to_uppercase(),
        description: None,
        steps,
        input_schema: None,
        session_state: Map::new(),
        history_runs: 0,
        max_parallel: 16,
        metadata: Map::new(),
    }
}

pub fn telling(message: &str, session: &str) -> StartRun {
    StartRun { component: ComponentRef::workflow(ComponentId::parse("flow").unwrap()), ..start(message, session) }
}

/// Runs the workflow to its end or its pause.
pub async fn told(engine: &Engine, message: &str) -> RunState {
    let run = run(engine, telling(message, "s")).await;
    ended(engine, &run).await
}

/// The same, watched: its frames are kept.
pub async fn watched(engine: &Engine, message: &str) -> RunState {
    let run = run(engine, StartRun { mode: RunMode::BackgroundStreaming, ..telling(message, "s") }).await;
    ended(engine, &run).await
}

pub fn results(state: &RunState) -> Vec<Arc<StepOutput>> {
    state.flow.as_ref().map(|flow| flow.results()).unwrap_or_default()
}

/// An answer about what a run asks about its first open step.
pub fn answer(state: &RunState) -> StepAnswer {
    let (asked, _) = state.open_steps().next().unwrap();
    StepAnswer { step_id: asked.place.step_id(state.run_id().unwrap()), ..StepAnswer::default() }
}

pub fn yes(state: &RunState) -> StepAnswer {
    StepAnswer { confirmed: Some(true), ..answer(state) }
}

pub fn no(state: &RunState) -> StepAnswer {
    StepAnswer { confirmed: Some(false), ..answer(state) }
}

pub fn answering(state: &RunState, step_answers: Vec<StepAnswer>) -> ContinueRun {
    let (run, session) = (state.run_id().unwrap(), state.session_id().unwrap().to_string());
    let component = state.component().unwrap().clone();
    ContinueRun { component, step_answers, ..continuing(run, &session, vec![]) }
}

/// Answers, and waits for the end or the next pause.
pub async fn answered(engine: &Engine, state: &RunState, step_answers: Vec<StepAnswer>) -> RunState {
    let run = state.run_id().unwrap();
    let outcome = engine.execute(envelope(answering(state, step_answers))).await.unwrap();
    assert!(matches!(outcome, Outcome::Continued { .. }), "{outcome:?}");
    ended(engine, run).await
}

pub fn cancelling(run: &RunId) -> CancelRun {
    CancelRun { component: None, run_id: run.clone(), session_id: None, reason: None }
}

pub fn assert_paused(state: &RunState) {
    assert_eq!(state.status, RunStatus::Paused, "{:?}", state.error);
}

pub fn is_flow(component: &ComponentRef) -> bool {
    component.kind == ComponentKind::Workflow
}
