//! Tool calls of a run, beside each other: each outcome is committed as it comes.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use backon::Retryable;
use daybook_domain::ids::RunId;
use daybook_domain::long_result::WholeResult;
use daybook_domain::run::{RunEvent, ToolCallCompleted, ToolCallFailed, ToolOutcomeUnknown};
use daybook_domain::session::{SessionEvent, SessionStateChanged, StatePatch};
use daybook_domain::tool::Effect;
use daybook_tools::{Tool, ToolContext, ToolError, ToolOutput};
use futures::FutureExt;
use futures::future::BoxFuture;
use serde_json::{Map, Value};

use crate::child::Asks;
use crate::drive::{Driver, Exit};
use crate::flow::StepDone;
use crate::frame::FrameBody;
use crate::hand_out::Handed;
use crate::plan::{Action, ToolStart};
use crate::secrets::{LOST_SECRET, lost_a_secret};
use crate::start::to_blobs;

/// How long outcomes of tools beside each other are gathered for one commit.
const GATHER: Duration = Duration::from_millis(2);

/// How long before a failed call is tried again, the first time.
const RETRY_AFTER: Duration = Duration::from_millis(200);

/// The most characters of one word about how far a tool is.
pub(crate) const MOST_PROGRESS: usize = 4096;

/// What came of a call that was started.
pub(crate) enum End {
    /// It has an outcome.
    Call(Box<ToolEnd>),
    /// The step of a workflow has one.
    Step(Box<StepDone>),
    /// A run that carries it out waits for a person.
    Waits { call_id: String, asks: Asks },
    /// A run that carries it out goes on elsewhere.
    Moved { call_id: String },
}

/// How a tool call ended.
pub(crate) struct ToolEnd {
    pub call_id: String,
    pub result: Result<ToolOutput, String>,
    /// Where all of it is, when it was too long.
    pub whole: Option<WholeResult>,
    pub patch: StatePatch,
    pub duration: f64,
    pub handed: Handed,
}

impl Driver {
    /// Starts the calls whose requests were just committed, unless the run is being cancelled.
    pub async fn start_tools(&mut self, starts: Vec<ToolStart>) {
        let state = {
            let known = self.engine.sessions.lock(self.live.log, &self.live.hub.meta.session_id).await;
            known.state.state.clone()
        };
        for start in starts {
            self.start_tool(start, state.clone()).await;
        }
    }

    async fn start_tool(&mut self, start: ToolStart, state: Map<String, Value>) {
        self.in_flight.insert(start.call_id.clone());
        if let Some(order) = &start.order {
            // The runs that carry it out look themselves whether they may begin.
            let handed = self.hand_out(&start, order.clone());
            self.tools.spawn(handed);
            return;
        }
        let call = run_tool(start.call_id.clone(), self.context(&start, state), self.prepare(&start));
        self.spawn_code(start.call_id, Box::pin(call)).await;
    }

    /// Starts a call that is code, unless the run is being cancelled.
    pub(crate) async fn spawn_code(&mut self, id: String, call: BoxFuture<'static, End>) {
        let mut call = Some(call);
        let live = self.live.clone();
        let stopping = self.engine.stopping.clone();
        // A call that was not started has no outcome; the cancel that prevented it records that.
        loop {
            match live.start_unless_closing(|| call.take().map(|call| self.tools.spawn(call))) {
                Some(stop) => {
                    self.stops.extend(stop.map(|stop| (id, stop)));
                    return;
                }
                None => tokio::select! {
                    () = live.may_start() => {}
                    () = self.cancelled.cancelled() => {
                        tracing::debug!(run = %self.meta.run_id, "a tool was not started: the run is being cancelled");
                        return;
                    }
                    () = stopping.cancelled() => return,
                },
            }
        }
    }

    fn context(&self, start: &ToolStart, state: Map<String, Value>) -> ToolContext {
        let meta = &self.meta;
        let mut context = ToolContext::new(
            meta.run_id.clone(),
            meta.session_id.clone(),
            meta.user_id.clone(),
            start.call_id.clone(),
            start.idempotency_key.clone(),
            state,
        );
        context.cancelled = self.cancelled.clone();
        let dependencies = self.state.accepted.as_ref().and_then(|accepted| accepted.dependencies.get().cloned());
        context.dependencies = Arc::new(dependencies.flatten().unwrap_or_default());
        let (show, engine) = (self.progress.0.clone(), self.engine.clone());
        let (call_id, tool) = (start.call_id.clone(), start.tool.clone());
        context.with_results(self.long_results()).with_progress(move |text| {
            let text = engine.redactor.text(&text.chars().take(MOST_PROGRESS).collect::<String>());
            // Nobody is hurt by words that are lost because there were too many.
            let _ = show.try_send(FrameBody::ToolProgress { call_id: call_id.clone(), tool: tool.clone(), text });
        })
    }

    /// The tool's code and its arguments, or what the model is told instead.
    fn prepare(&self, start: &ToolStart) -> Result<Prepared, String> {
        if let Some(refusal) = &start.refusal {
            return Err(refusal.clone());
        }
        let Some(tool) = self.component.tools.get(&start.tool).cloned() else {
            let names: Vec<&str> = self.component.config.tools().iter().map(|tool| tool.name.as_str()).collect();
            return Err(format!("there is no tool {:?}; there are: {}", start.tool, names.join(", ")));
        };
        let written = self.arguments.get(&start.call_id).unwrap_or(&start.call.call.arguments);
        if lost_a_secret(written) {
            return Err(LOST_SECRET.to_owned());
        }
        let call = daybook_domain::message::ToolCall {
            id: start.call_id.clone(),
            name: start.tool.clone(),
            arguments: written.clone(),
        };
        let arguments = start.call.with_input(call.exactly()?);
        if let Some(check) = self.component.checks.get(&start.tool) {
            check.check(&arguments).map_err(|error| error.to_string())?;
        }
        // What the run was accepted with holds, whatever the tool says of itself by now.
        let spec = self.component.config.tool(&start.tool).unwrap_or_else(|| tool.spec());
        let timeout = Duration::from_secs(spec.timeout_seconds.max(1));
        let retries = if spec.effect == Effect::Unsafe { 0 } else { spec.retries };
        Ok(Prepared { tool, arguments, timeout, retries })
    }

    /// Waits for one tool call to end, or for the run to be cancelled or handed over; gives what comes next.
    pub async fn await_tool(&mut self) -> Result<Action, Exit> {
        let grace = self.engine.options.grace;
        let stopping = self.engine.stopping.clone();
        let out_of_time = async {
            stopping.cancelled().await;
            tokio::time::sleep(grace).await;
        };
        tokio::pin!(out_of_time);
        let due = self.due;
        let engine = self.engine.clone();
        let is_due = engine.until(due);
        tokio::pin!(is_due);
        loop {
            let ended = tokio::select! {
                biased;
                () = self.cancelled.cancelled() => return self.drop_tools().await,
                // Before the ends: what a tool told is shown before it has ended.
                Some(progress) = self.progress.1.recv() => {
                    self.show_piece(progress);
                    continue;
                }
                ended = self.tools.join_next() => match ended {
                    Some(Ok(end)) => end,
                    // Only an aborted task fails, and only a cancel aborts; nothing started means that a cancel closed
                    // the gate, whose token comes, or that the node is stopping.
                    Some(Err(_)) | None => tokio::select! {
                        () = &mut is_due => return self.advance(Vec::new(), Vec::new()).await,
                        () = self.cancelled.cancelled() => return self.drop_tools().await,
                        () = &mut out_of_time => return Err(Exit::Moved),
                    },
                },
                () = &mut is_due => return self.advance(Vec::new(), Vec::new()).await,
                () = &mut out_of_time => return Err(Exit::Moved),
            };
            let ends = self.gather(ended).await;
            if !ends.is_empty() || !self.steps_done.is_empty() {
                return self.tools_ended(ends).await;
            }
            if self.in_flight.is_empty() {
                return self.advance(Vec::new(), Vec::new()).await;
            }
        }
    }

    /// The outcomes that have come. When other calls still run, it waits a moment for those that are about to end: they
    /// share the commit.
    async fn gather(&mut self, first: End) -> Vec<ToolEnd> {
        let mut ends = Vec::new();
        self.take_end(first, &mut ends);
        if (!ends.is_empty() || !self.steps_done.is_empty()) && !self.in_flight.is_empty() {
            tokio::time::sleep(GATHER).await;
        }
        while let Some(Ok(end)) = self.tools.try_join_next() {
            self.take_end(end, &mut ends);
        }
        ends
    }

    fn take_end(&mut self, end: End, ends: &mut Vec<ToolEnd>) {
        let call_id = match end {
            End::Call(mut end) => {
                let children = std::mem::take(&mut end.handed.children);
                let known = children.into_iter().filter_map(|child| Some((child.state.run_id()?.clone(), child)));
                self.ended.extend(known);
                let call_id = end.call_id.clone();
                ends.push(*end);
                call_id
            }
            End::Step(done) => {
                let id = done.id();
                self.steps_done.push(*done);
                id
            }
            End::Waits { call_id, asks } => {
                self.waiting.insert(call_id.clone(), asks);
                call_id
            }
            End::Moved { call_id } => {
                self.moved = true;
                call_id
            }
        };
        self.in_flight.remove(&call_id);
        self.stops.remove(&call_id);
    }

    /// Goes on with calls whose runs were answered since they paused.
    pub async fn look_at_waiting(&mut self) -> Result<(), Exit> {
        for call_id in self.waiting.keys().cloned().collect::<Vec<_>>() {
            let runs = self.children_for(&call_id);
            if !self.engine.is_asked_in(self.live.log, &runs).await? {
                self.waiting.remove(&call_id);
            }
        }
        Ok(())
    }

    /// The runs that carry out a call or a step.
    fn children_for(&self, id: &str) -> Vec<RunId> {
        let of_call = self.state.tool(id).into_iter().flat_map(|tool| tool.children.iter());
        let running = self.state.flow.iter().flat_map(|flow| flow.running());
        let of_step = running.filter(|(place, ..)| place.as_str() == id).filter_map(|(_, _, work)| work.child.as_ref());
        of_call.chain(of_step).map(|child| child.run_id.clone()).collect()
    }

    /// Commits what ended, in the order of the calls.
    async fn tools_ended(&mut self, ends: Vec<ToolEnd>) -> Result<Action, Exit> {
        while let Ok(progress) = self.progress.1.try_recv() {
            self.show_piece(progress);
        }
        let (facts, session) = self.outcomes(ends).await?;
        self.advance(facts, session).await
    }

    async fn outcomes(&mut self, mut ends: Vec<ToolEnd>) -> Result<(Vec<RunEvent>, Vec<SessionEvent>), Exit> {
        ends.sort_by_key(|end| self.state.tools.iter().position(|tool| tool.call.id == end.call_id));
        let (mut facts, mut session, mut tasks) = (Vec::new(), Vec::new(), self.state.tasks.clone());
        for mut end in ends {
            self.change_tasks(&mut end, &mut tasks, &mut facts);
            self.keep(&mut end).await?;
            self.outcome(end, &mut facts, &mut session);
        }
        self.step_outcomes(&mut facts, &mut session).await?;
        Ok((facts, session))
    }

    /// Makes an outcome fit to be recorded: without secrets, and with what is large in the blob store.
    async fn keep(&self, end: &mut ToolEnd) -> Result<(), Exit> {
        let said = end.result.as_mut().map_or_else(|error| error, |output| &mut output.text);
        (*said, end.whole) = self.recorded(said).await?;
        let Ok(output) = &mut end.result else { return Ok(()) };
        let stored = to_blobs(&self.engine.store, self.live.log, &self.live.subject(), &mut output.media).await;
        if let Err(error) = stored {
            // Nothing is lost by it: the event is larger.
            tracing::warn!(run = %self.meta.run_id, %error, "the media of a tool stay in its event");
        }
        Ok(())
    }

    fn outcome(&self, end: ToolEnd, facts: &mut Vec<RunEvent>, session: &mut Vec<SessionEvent>) {
        let (call_id, duration, at_ms) = (end.call_id, end.duration, self.engine.now_ms());
        let (whole, handed) = (end.whole.into(), end.handed);
        let (answers, fatal, spent) = (handed.answers, handed.fatal, handed.spent);
        facts.push(match end.result {
            Ok(result) => {
                if !end.patch.is_empty() {
                    session.push(SessionEvent::StateChanged(SessionStateChanged {
                        run_id: Some(self.meta.run_id.clone()),
                        patch: self.clean(end.patch).into(),
                        at: at_ms / 1000,
                    }));
                }
                let media = Some(result.media).filter(|media| !media.is_empty()).into();
                let result = result.text.into();
                RunEvent::ToolCallCompleted(ToolCallCompleted {
                    call_id,
                    result,
                    whole,
                    media,
                    duration,
                    frame: 0,
                    at_ms,
                    answers,
                    spent,
                })
            }
            Err(error) => {
                let error = error.into();
                RunEvent::ToolCallFailed(ToolCallFailed {
                    call_id,
                    error,
                    whole,
                    duration,
                    frame: 0,
                    at_ms,
                    fatal,
                    spent,
                })
            }
        });
    }

    pub(crate) fn clean(&self, mut patch: StatePatch) -> StatePatch {
        self.engine.redactor.object(&mut patch.set);
        patch
    }

    /// The run was cancelled: code is stopped, and nobody knows how far it came; runs under this one end by themselves.
    async fn drop_tools(&mut self) -> Result<Action, Exit> {
        let code: Vec<String> = self.code_in_flight();
        self.stops.drain().for_each(|(_, stop)| stop.abort());
        let mut ends = Vec::new();
        while let Some(ended) = self.tools.join_next().await {
            if let Ok(end) = ended {
                self.take_end(end, &mut ends);
            }
        }
        self.waiting.clear();
        let (mut facts, session) = self.outcomes(ends).await?;
        let at_ms = self.engine.now_ms();
        let lost = code.into_iter().filter(|call_id| self.in_flight.remove(call_id));
        let unknown: Vec<String> = lost.collect();
        facts.extend(
            // Of a step the fold knows that it was started and has no outcome.
            unknown
                .into_iter()
                .filter(|id| self.state.tool(id).is_some())
                .map(|call_id| RunEvent::ToolOutcomeUnknown(ToolOutcomeUnknown { call_id, at_ms })),
        );
        self.catch_up().await?;
        self.advance(facts, session).await
    }

    /// The calls under way that no run carries out, also those that a cancel kept from being started.
    fn code_in_flight(&self) -> Vec<String> {
        let handed = |id: &str| {
            self.state.tool(id).is_some_and(|tool| self.handing(&tool.call.name)) || !self.children_for(id).is_empty()
        };
        self.in_flight.iter().filter(|id| !handed(id)).cloned().collect()
    }
}

/// A call of a tool's code.
pub(crate) struct Prepared {
    pub tool: Arc<dyn Tool>,
    pub arguments: Map<String, Value>,
    pub timeout: Duration,
    /// How often a failed call is tried again; never where that may do harm.
    pub retries: u32,
}

async fn run_tool(call_id: String, context: ToolContext, call: Result<Prepared, String>) -> End {
    let started = Instant::now();
    let result = match call {
        Err(error) => Err(error),
        Ok(call) => {
            let whole = tokio::time::timeout(call.timeout, with_retries(&call, &context)).await;
            whole.unwrap_or_else(|_| {
                Err(format!("the tool took longer than {} s and was stopped", call.timeout.as_secs()))
            })
        }
    };
    let patch = if result.is_ok() { context.patch() } else { StatePatch::default() };
    let duration = started.elapsed().as_secs_f64();
    End::Call(Box::new(ToolEnd { call_id, result, whole: None, patch, duration, handed: Handed::default() }))
}

/// All attempts together have the time of one call.
pub(crate) async fn with_retries(call: &Prepared, context: &ToolContext) -> Result<ToolOutput, String> {
    let backoff = backon::ExponentialBuilder::default()
        .with_min_delay(RETRY_AFTER)
        .with_jitter()
        .with_max_times(usize::try_from(call.retries).unwrap_or(0));
    let attempt = || guarded(&call.tool, context.clone(), call.arguments.clone());
    let answer = attempt.retry(backoff).when(|error| matches!(error, ToolError::Failed(_))).await;
    answer.map_err(|error| error.to_string())
}

/// A tool that panics has failed; it does not take the run with it.
async fn guarded(
    tool: &Arc<dyn Tool>,
    context: ToolContext,
    arguments: Map<String, Value>,
) -> Result<ToolOutput, ToolError> {
    let called = AssertUnwindSafe(tool.call(context, arguments)).catch_unwind().await;
    called.unwrap_or_else(|_| Err(ToolError::Failed("the tool broke down".to_owned())))
}
