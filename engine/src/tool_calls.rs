//! Tool calls of a run, beside each other: each outcome is committed as it comes.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use backon::Retryable;
use daybook_domain::long_result::WholeResult;
use daybook_domain::run::{RunEvent, ToolCallCompleted, ToolCallFailed, ToolOutcomeUnknown};
use daybook_domain::session::{SessionEvent, SessionStateChanged, StatePatch};
use daybook_domain::tool::Effect;
use daybook_tools::{Tool, ToolContext, ToolError, ToolOutput};
use futures::FutureExt;
use serde_json::{Map, Value};

use crate::drive::{Driver, Exit};
use crate::frame::FrameBody;
use crate::plan::{Action, ToolStart};
use crate::secrets::{LOST_SECRET, lost_a_secret};
use crate::start::to_blobs;

/// How long outcomes of tools beside each other are gathered for one commit.
const GATHER: Duration = Duration::from_millis(2);

/// How long before a failed call is tried again, the first time.
const RETRY_AFTER: Duration = Duration::from_millis(200);

/// The most characters of one word about how far a tool is.
const MOST_PROGRESS: usize = 4096;

/// How a tool call ended.
pub(crate) struct ToolEnd {
    call_id: String,
    result: Result<ToolOutput, String>,
    /// Where all of it is, when it was too long.
    whole: Option<WholeResult>,
    patch: StatePatch,
    duration: f64,
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
        let mut call = Some(run_tool(start.call_id.clone(), self.context(&start, state), self.prepare(&start)));
        // A call that was not started has no outcome; the cancel that prevented it records that.
        self.in_flight.insert(start.call_id);
        let live = self.live.clone();
        let stopping = self.engine.stopping.clone();
        while live.start_unless_closing(|| call.take().map(|call| self.tools.spawn(call))).is_none() {
            tokio::select! {
                () = live.may_start() => {}
                () = live.cancelled.cancelled() => {
                    tracing::debug!(run = %live.run_id, "a tool was not started: the run is being cancelled");
                    return;
                }
                () = stopping.cancelled() => return,
            }
        }
    }

    fn context(&self, start: &ToolStart, state: Map<String, Value>) -> ToolContext {
        let meta = &self.live.hub.meta;
        let mut context = ToolContext::new(
            meta.run_id.clone(),
            meta.session_id.clone(),
            meta.user_id.clone(),
            start.call_id.clone(),
            start.idempotency_key.clone(),
            state,
        );
        context.cancelled = self.live.cancelled.clone();
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
        loop {
            tokio::select! {
                biased;
                () = self.live.cancelled.cancelled() => return self.drop_tools().await,
                // Before the ends: what a tool told is shown before it has ended.
                Some(progress) = self.progress.1.recv() => self.show_piece(progress),
                ended = self.tools.join_next() => return match ended {
                    Some(Ok(end)) => self.tools_ended(end).await,
                    // Only an aborted task fails, and only a cancel aborts; nothing started means that a cancel closed
                    // the gate, whose token comes, or that the node is stopping.
                    Some(Err(_)) | None => tokio::select! {
                        () = self.live.cancelled.cancelled() => self.drop_tools().await,
                        () = &mut out_of_time => Err(Exit::Moved),
                    },
                },
                () = &mut out_of_time => return Err(Exit::Moved),
            }
        }
    }

    /// Commits what ended, in the order of the calls. When others still run, it waits a moment for those that are about
    /// to end: they share the commit.
    async fn tools_ended(&mut self, first: ToolEnd) -> Result<Action, Exit> {
        let mut ends = vec![first];
        if self.in_flight.len() > 1 {
            tokio::time::sleep(GATHER).await;
            while let Some(Ok(end)) = self.tools.try_join_next() {
                ends.push(end);
            }
        }
        while let Ok(progress) = self.progress.1.try_recv() {
            self.show_piece(progress);
        }
        ends.sort_by_key(|end| self.state.tools.iter().position(|tool| tool.call.id == end.call_id));
        let (mut facts, mut session) = (Vec::new(), Vec::new());
        for mut end in ends {
            self.in_flight.remove(&end.call_id);
            self.keep(&mut end).await?;
            self.outcome(end, &mut facts, &mut session);
        }
        self.advance(facts, session).await
    }

    /// Makes an outcome fit to be recorded: without secrets, and with what is large in the blob store.
    async fn keep(&self, end: &mut ToolEnd) -> Result<(), Exit> {
        let said = end.result.as_mut().map_or_else(|error| error, |output| &mut output.text);
        (*said, end.whole) = self.recorded(said).await?;
        let Ok(output) = &mut end.result else { return Ok(()) };
        let stored = to_blobs(&self.engine.store, self.live.log, &self.live.subject(), &mut output.media).await;
        if let Err(error) = stored {
            // Nothing is lost by it: the event is larger.
            tracing::warn!(run = %self.live.run_id, %error, "the media of a tool stay in its event");
        }
        Ok(())
    }

    fn outcome(&self, end: ToolEnd, facts: &mut Vec<RunEvent>, session: &mut Vec<SessionEvent>) {
        let (call_id, duration, at_ms) = (end.call_id, end.duration, self.engine.now_ms());
        let whole = end.whole.into();
        facts.push(match end.result {
            Ok(result) => {
                if !end.patch.is_empty() {
                    session.push(SessionEvent::StateChanged(SessionStateChanged {
                        run_id: Some(self.live.run_id.clone()),
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
                    answers: false,
                    spent: Default::default(),
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
                    fatal: false,
                    spent: Default::default(),
                })
            }
        });
    }

    fn clean(&self, mut patch: StatePatch) -> StatePatch {
        self.engine.redactor.object(&mut patch.set);
        patch
    }

    /// The run was cancelled: what runs is stopped, and nobody knows how far it came.
    async fn drop_tools(&mut self) -> Result<Action, Exit> {
        self.tools.shutdown().await;
        let unknown = self.unknown();
        self.catch_up().await?;
        self.advance(unknown, Vec::new()).await
    }

    fn unknown(&mut self) -> Vec<RunEvent> {
        let at_ms = self.engine.now_ms();
        let event = |call_id| RunEvent::ToolOutcomeUnknown(ToolOutcomeUnknown { call_id, at_ms });
        self.in_flight.drain().map(event).collect()
    }
}

struct Prepared {
    tool: Arc<dyn Tool>,
    arguments: Map<String, Value>,
    timeout: Duration,
    /// How often a failed call is tried again; never where that may do harm.
    retries: u32,
}

async fn run_tool(call_id: String, context: ToolContext, call: Result<Prepared, String>) -> ToolEnd {
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
    ToolEnd { call_id, result, whole: None, patch, duration: started.elapsed().as_secs_f64() }
}

/// All attempts together have the time of one call.
async fn with_retries(call: &Prepared, context: &ToolContext) -> Result<ToolOutput, String> {
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
