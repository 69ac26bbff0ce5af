//! Runs the steps of a workflow beside each other, and records what they came to.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use daybook_domain::media::Media;
use daybook_domain::output::OutputSchema;
use daybook_domain::run::{Parent, RunEvent, RunState, RunStatus, StepOf};
use daybook_domain::session::{SessionEvent, SessionStateChanged, StatePatch};
use daybook_domain::tool::Effect;
use daybook_domain::usage::Spent;
use daybook_domain::workflow::{Facts, StepEnded, StepKind, StepType, as_text, skipped};
use daybook_tools::{Tool, ToolContext};
use futures::FutureExt as _;
use serde_json::{Map, Value};

use super::code::{StepFunction, StepInput, StepSaid};
use super::frames::StepTag;
use super::plan::StepStart;
use crate::child::{ChildEnd, ChildStart, MAX_DEPTH, run_child};
use crate::detail::RunDetail;
use crate::drive::{Driver, Exit};
use crate::frame::FrameBody;
use crate::prompt::output_schema;
use crate::start::to_blobs;
use crate::tool_calls::{End, MOST_PROGRESS, Prepared, with_retries};

/// The most that a step may say, in bytes of its JSON.
const MOST_SAID: usize = 4 * 1024 * 1024;

/// The most that is kept of an error, in bytes.
const MOST_ERROR: usize = 16 * 1024;

/// What a step came to.
pub(crate) struct StepDone {
    start: StepStart,
    result: Result<StepSaid, String>,
    patch: StatePatch,
    /// The run that carried it out.
    detail: Option<RunDetail>,
    duration: f64,
}

/// What a step cost.
struct Cost {
    spent: Spent,
    time_to_first_token: Option<f64>,
    duration: f64,
}

/// The code that carries a step out.
enum Code {
    Function(Arc<dyn StepFunction>, Box<StepInput>),
    Tool(Box<Prepared>),
    Nothing(String),
}

impl Driver {
    /// Runs the steps whose beginnings were just committed, unless the run is being cancelled.
    pub async fn start_steps(&mut self, starts: Vec<StepStart>) {
        let state = {
            let known = self.engine.sessions.lock(self.live.log, &self.live.hub.meta.session_id).await;
            known.state.state.clone()
        };
        for start in starts {
            let id = start.place.to_string();
            self.in_flight.insert(id.clone());
            if start.child.is_some() {
                // The run looks itself whether it may begin.
                self.run_step(start);
            } else {
                let call = self.call_step(start, state.clone());
                self.spawn_code(id, call).await;
            }
        }
    }

    /// What a step is told that is not said by the steps before it.
    fn told(&self) -> String {
        let accepted = self.state.accepted.as_ref();
        accepted.and_then(|accepted| accepted.message.get().cloned()).unwrap_or_default()
    }

    fn media(&self, facts: &Facts) -> Vec<Media> {
        let accepted = self.state.accepted.as_ref();
        let own = accepted.and_then(|accepted| accepted.media.get().cloned()).unwrap_or_default();
        own.into_iter().chain(facts.outputs.iter().flat_map(|output| output.media.iter().cloned())).collect()
    }

    fn run_step(&mut self, start: StepStart) {
        let call_id = start.place.to_string();
        let depth = self.meta.parent.as_ref().map_or(0, |parent| parent.depth) + 1;
        let child = match self.child_of(&start, depth) {
            Some(child) if depth <= MAX_DEPTH => child,
            _ => {
                let fault = format!("it is not run: there are {MAX_DEPTH} runs above it already");
                self.tools.spawn(async move { done(start, Err(fault), StatePatch::default(), None, Instant::now()) });
                return;
            }
        };
        let (engine, live) = (self.engine.clone(), self.live.clone());
        let timeout = start.step.policies.timeout_seconds.map(Duration::from_secs);
        self.tools.spawn(async move {
            let (began, stop) = (Instant::now(), child.cancelled.clone());
            let mut running = run_child(engine, live, child);
            let mut late = false;
            let end = tokio::select! {
                end = &mut running => end,
                () = after(timeout) => {
                    late = true;
                    stop.cancel();
                    running.await
                }
            };
            match end {
                ChildEnd::Moved => End::Moved { call_id },
                ChildEnd::Paused(asks) => End::Waits { call_id, asks },
                ChildEnd::NotBegun => {
                    let fault = "it was stopped before it began".to_owned();
                    done(start, Err(fault), StatePatch::default(), None, began)
                }
                ChildEnd::Ended(detail) => {
                    let result = came_to(&detail);
                    let result = if late && result.is_err() { Err(too_long(timeout)) } else { result };
                    done(start, result, StatePatch::default(), Some(*detail), began)
                }
            }
        });
    }

    fn child_of(&self, start: &StepStart, depth: u32) -> Option<ChildStart> {
        let (child, fresh) = start.child.clone()?;
        let StepKind::Component(run) = &start.step.kind else { return None };
        let accepted = self.state.accepted.as_ref()?;
        let tag = StepTag::of(&self.state, &start.place, &start.step.name, StepType::Step);
        Some(ChildStart {
            run_id: child.run_id,
            config_hash: run.config_hash.clone(),
            parent: Parent {
                run_id: self.meta.run_id.clone(),
                root: self.live.run_id.clone(),
                cause: start.place.to_string(),
                depth,
                epoch: self.epoch,
                step: Some(StepOf {
                    workflow_id: self.meta.component.id.clone(),
                    workflow_run_id: self.meta.run_id.clone(),
                    step_id: tag.id,
                    step_name: tag.name,
                    step_index: tag.index,
                }),
            },
            message: message(start, &self.told()),
            media: self.media(&start.facts),
            sees: self.component.config.workflow().map_or(0, |workflow| workflow.history_runs),
            fresh,
            places: self.places.clone(),
            cancelled: self.below.child_token(),
            dependencies: accepted.dependencies.get().cloned().flatten(),
            metadata: accepted.metadata.get().cloned().flatten(),
        })
    }

    fn call_step(&self, start: StepStart, state: Map<String, Value>) -> futures::future::BoxFuture<'static, End> {
        let context = self.step_context(&start, state);
        let code = self.code_of(&start, context.clone());
        let timeout = start.step.policies.timeout_seconds.map(Duration::from_secs);
        Box::pin(async move {
            let began = Instant::now();
            let result = tokio::select! {
                result = carry_out(code, &context) => result,
                () = after(timeout) => Err(too_long(timeout)),
            };
            let patch = if result.is_ok() { context.patch() } else { StatePatch::default() };
            done(start, result, patch, None, began)
        })
    }

    fn code_of(&self, start: &StepStart, context: ToolContext) -> Code {
        match &start.step.kind {
            StepKind::Function(call) => {
                let function = self.component.flow.as_ref().and_then(|code| code.function(&call.function));
                let Some(function) = function else {
                    return Code::Nothing(format!("there is no function {:?} on this server", call.function));
                };
                let before = start.before.clone().unwrap_or_default();
                let input = StepInput {
                    input: self.told(),
                    edited: before.input,
                    facts: start.facts.clone(),
                    values: before.values.unwrap_or_default(),
                    rejected: start.rejected.clone(),
                    media: self.media(&start.facts),
                    attempt: start.attempt,
                    context,
                };
                Code::Function(function, Box::new(input))
            }
            StepKind::Tool(call) => {
                let Some(tool) = self.component.tools.get(&call.tool.name).cloned() else {
                    return Code::Nothing(format!("there is no tool {:?} on this server", call.tool.name));
                };
                let arguments = start.input.as_ref().and_then(Value::as_object).cloned().unwrap_or_default();
                Code::Tool(Box::new(prepared(tool, call, arguments)))
            }
            _ => Code::Nothing("it has nothing to run".to_owned()),
        }
    }

    fn step_context(&self, start: &StepStart, state: Map<String, Value>) -> ToolContext {
        let meta = &self.meta;
        let (id, key) = (start.place.to_string(), start.idempotency_key.clone());
        let (run, session, user) = (meta.run_id.clone(), meta.session_id.clone(), meta.user_id.clone());
        let mut context = ToolContext::new(run, session, user, id, key, state);
        context.cancelled = self.cancelled.clone();
        let dependencies = self.state.accepted.as_ref().and_then(|accepted| accepted.dependencies.get().cloned());
        context.dependencies = Arc::new(dependencies.flatten().unwrap_or_default());
        let (show, engine) = (self.progress.0.clone(), self.engine.clone());
        let (step, attempt) = (StepTag::of(&self.state, &start.place, &start.step.name, StepType::Step), start.attempt);
        context.with_progress(move |text| {
            let text = engine.redactor.text(&text.chars().take(MOST_PROGRESS).collect::<String>());
            // Nobody is hurt by words that are lost because there were too many.
            let _ = show.try_send(FrameBody::StepProgress { step: step.clone(), attempt, text });
        })
    }

    /// The events of steps that ended, in the order they did.
    pub async fn step_outcomes(
        &mut self,
        facts: &mut Vec<RunEvent>,
        session: &mut Vec<SessionEvent>,
    ) -> Result<(), Exit> {
        for done in std::mem::take(&mut self.steps_done) {
            let StepDone { start, result, patch, detail, duration } = done;
            let cost = Cost {
                spent: detail.as_ref().map(RunDetail::spent).unwrap_or_default(),
                time_to_first_token: detail.as_ref().and_then(|detail| detail.state.time_to_first_token),
                duration,
            };
            if let Some(detail) = detail
                && let Some(id) = detail.state.run_id().cloned()
            {
                self.ended.insert(id, detail);
            }
            let result = self.fit(result).await;
            if result.is_ok() && !patch.is_empty() {
                let (run_id, at) = (Some(self.meta.run_id.clone()), self.engine.now_ms() / 1000);
                let patch = self.clean(patch).into();
                session.push(SessionEvent::StateChanged(SessionStateChanged { run_id, patch, at }));
            }
            facts.push(self.step_ended(&start, result, cost));
        }
        self.forget_children();
        Ok(())
    }

    fn step_ended(&self, start: &StepStart, result: Result<StepSaid, String>, cost: Cost) -> RunEvent {
        let policies = &start.step.policies;
        let then = || {
            let flow = self.state.flow.as_deref();
            flow.map_or_else(|| policies.on_error.into(), |flow| flow.after_error(&start.place, policies))
        };
        let then = result.is_err().then(then);
        let error = result.as_ref().err().cloned();
        let said = result.unwrap_or_else(|error| skipped(&error).into());
        RunEvent::StepEnded(StepEnded {
            place: start.place.clone(),
            name: start.step.name.clone(),
            kind: StepType::Step,
            attempt: start.attempt,
            content: said.content.into(),
            media: Some(said.media).filter(|media| !media.is_empty()).into(),
            error: error.into(),
            then,
            stop: said.stop,
            spent: cost.spent,
            time_to_first_token: cost.time_to_first_token,
            duration: cost.duration,
            frame: 0,
            at_ms: self.engine.now_ms(),
        })
    }

    /// Makes an outcome fit to be recorded: without secrets, not too long, and with large media in the blob store.
    async fn fit(&self, result: Result<StepSaid, String>) -> Result<StepSaid, String> {
        let redactor = &self.engine.redactor;
        let said = result.and_then(|mut said| {
            redact(redactor, &mut said.content);
            let bytes = serde_json::to_string(&said.content).map_or(0, |text| text.len());
            let fault = || format!("it said {bytes} bytes; {MOST_SAID} are the most a step may say");
            if bytes > MOST_SAID { Err(fault()) } else { Ok(said) }
        });
        let mut said = said.map_err(|error| {
            let mut error = redactor.text(&error);
            error.truncate(error.floor_char_boundary(MOST_ERROR));
            error
        })?;
        let stored = to_blobs(&self.engine.store, self.live.log, &self.live.subject(), &mut said.media).await;
        if let Err(error) = stored {
            // Nothing is lost by it: the event is larger.
            tracing::warn!(run = %self.meta.run_id, %error, "the media of a step stay in its event");
        }
        Ok(said)
    }

    /// Only the runs are kept that the run tells of in the end: however long a loop goes on.
    fn forget_children(&mut self) {
        if self.state.is_flow() && self.ended.len() > 64 {
            let kept: std::collections::HashSet<_> = self.state.children().map(|child| child.run_id).collect();
            self.ended.retain(|id, _| kept.contains(id));
        }
    }
}

fn redact(redactor: &daybook_domain::redact::Redactor, value: &mut Value) {
    match value {
        Value::String(text) => *text = redactor.text(text),
        Value::Object(map) => redactor.object(map),
        Value::Array(items) => items.iter_mut().for_each(|item| redact(redactor, item)),
        _ => {}
    }
}

fn done(
    start: StepStart,
    result: Result<StepSaid, String>,
    patch: StatePatch,
    detail: Option<RunDetail>,
    began: Instant,
) -> End {
    End::Step(Box::new(StepDone { start, result, patch, detail, duration: began.elapsed().as_secs_f64() }))
}

impl StepDone {
    /// The step's place, by which it is known among what is in flight.
    pub fn id(&self) -> String {
        self.start.place.to_string()
    }
}

/// Waits so long; for ever without a time.
async fn after(timeout: Option<Duration>) {
    match timeout {
        Some(time) => tokio::time::sleep(time).await,
        None => std::future::pending().await,
    }
}

fn too_long(timeout: Option<Duration>) -> String {
    format!("the step took longer than {} s and was stopped", timeout.unwrap_or_default().as_secs())
}

/// A function or a tool that panics has failed; it does not take the run with it.
async fn carry_out(code: Code, context: &ToolContext) -> Result<StepSaid, String> {
    match code {
        Code::Nothing(fault) => Err(fault),
        Code::Function(function, input) => {
            let called = AssertUnwindSafe(async { function.call(*input).await }).catch_unwind().await;
            called.unwrap_or_else(|_| Err("the function broke down".into())).map_err(|fault| fault.to_string())
        }
        Code::Tool(call) => {
            let timeout = call.timeout;
            let answer = tokio::time::timeout(timeout, with_retries(&call, context)).await;
            let late = || Err(format!("the tool took longer than {} s and was stopped", timeout.as_secs()));
            let output = answer.unwrap_or_else(|_| late())?;
            Ok(StepSaid { content: Value::String(output.text), media: output.media, stop: false })
        }
    }
}

fn prepared(tool: Arc<dyn Tool>, call: &daybook_domain::workflow::ToolStep, arguments: Map<String, Value>) -> Prepared {
    let spec = &call.tool;
    let retries = if spec.effect == Effect::Unsafe { 0 } else { spec.retries };
    Prepared { tool, arguments, timeout: Duration::from_secs(spec.timeout_seconds.max(1)), retries }
}

/// What the child run came to.
fn came_to(detail: &RunDetail) -> Result<StepSaid, String> {
    let state: &RunState = &detail.state;
    match state.status {
        RunStatus::Completed | RunStatus::Regenerated => {
            let text = state.answer().map_or_else(|| state.content(), str::to_owned);
            let shaped = state.accepted.as_ref().and_then(|accepted| output_schema(&detail.config, accepted));
            let object = shaped.and_then(|_| OutputSchema::read(&text));
            let flow = state.flow.as_ref().and_then(|flow| flow.content());
            Ok(flow.or(object).unwrap_or(Value::String(text)).into())
        }
        RunStatus::Error => Err(state.error.as_ref().map(|(_, why)| why.clone()).unwrap_or_default()),
        _ => Err(state.cancel_reason.clone().unwrap_or_else(|| "it was cancelled".to_owned())),
    }
}

/// What a component is told that carries a step out.
fn message(start: &StepStart, told: &str) -> String {
    let before = start.before.as_ref();
    let edited = before.and_then(|before| before.input.as_ref()).or(start.input.as_ref()).map(as_text);
    let previous =
        || start.facts.previous.as_ref().map(|previous| previous.told()).filter(|told| !told.trim().is_empty());
    let base = edited.or_else(previous).unwrap_or_else(|| told.to_owned());
    let mut parts = vec![base];
    if let Some(values) = before.and_then(|before| before.values.as_ref()).filter(|values| !values.is_empty()) {
        let lines: Vec<String> = values.iter().map(|(name, value)| format!("- {name}: {}", as_text(value))).collect();
        parts.push(format!("User preferences:\n{}", lines.join("\n")));
    }
    if let Some(rejected) = &start.rejected {
        parts.push(format!("Your previous output:\n{}", as_text(&rejected.content)));
        parts.extend(rejected.feedback.iter().map(|feedback| format!("Feedback from reviewer:\n{feedback}")));
    }
    parts.retain(|part| !part.trim().is_empty());
    parts.join("\n\n")
}
