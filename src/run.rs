//! Running agents from the program itself: the same commands, log and rules as over the network.

use std::future::IntoFuture;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use daybook_domain::LogId;
use daybook_domain::command::{CancelRun, Envelope, Principal, StartRun};
use daybook_domain::component::ComponentRef;
use daybook_domain::ids::{ComponentId, IdError, RunId, SessionId, UserId};
use daybook_domain::media::Media;
use daybook_domain::output::OutputSchema;
use daybook_domain::run::{ErrorKind, OnBusy, Requirement, RunMode, RunState, RunStatus};
use daybook_domain::usage::Usage;
use daybook_engine::{Engine, ExecuteError, Frame, Outcome, QueryError, WatchItem};
use daybook_rest::Caller;
use futures::future::BoxFuture;
use futures::stream::{BoxStream, Stream, StreamExt as _, unfold};
use poem::http::StatusCode;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::attachment::Attachment;
use crate::handle::Handle;

/// Until tenants exist there is one log.
const LOG: LogId = LogId::DEFAULT;

/// One agent of a server. Got from [`Handle::agent`], [`Daybook::agent`](crate::Daybook::agent) or
/// [`Running::agent`](crate::Running::agent).
#[derive(Debug, Clone)]
pub struct AgentHandle {
    handle: Handle,
    id: String,
}

/// Why a run was not accepted, or has no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// There is no server behind the handle.
    #[error("the server is not built yet, or has stopped")]
    NotServing,
    /// An id that can be none.
    #[error("{what} {value:?}: {source}")]
    Id {
        /// Which id.
        what: &'static str,
        /// What was given.
        value: String,
        /// What is wrong with it.
        source: IdError,
    },
    /// The command was refused; nothing was recorded.
    #[error(transparent)]
    Refused(#[from] ExecuteError),
    /// The log did not answer. The run goes on.
    #[error(transparent)]
    Unanswered(#[from] QueryError),
    /// There is no such run of this agent.
    #[error("there is no run {0} of this agent")]
    Unknown(RunId),
    /// The run ended with an error.
    #[error("the run {run_id} failed: {message}")]
    Failed {
        /// The run.
        run_id: RunId,
        /// What kind of thing went wrong.
        kind: ErrorKind,
        /// What happened.
        message: String,
    },
    /// The run was cancelled.
    #[error("the run {run_id} was cancelled: {reason}")]
    Cancelled {
        /// The run.
        run_id: RunId,
        /// Why.
        reason: String,
        /// What had been said.
        content: String,
    },
    /// This server stops; the run goes on on another, or at the next start.
    #[error("the run {0} goes on elsewhere: this server is stopping")]
    Elsewhere(RunId),
}

/// What a route's caller is told, in the shape of all errors.
impl From<RunError> for poem::Error {
    fn from(error: RunError) -> Self {
        let status = match error {
            RunError::Refused(error) => return daybook_rest::refused(error),
            RunError::Unanswered(error) => return daybook_rest::unanswered(error),
            RunError::Unknown(_) => StatusCode::NOT_FOUND,
            RunError::Id { .. } => StatusCode::UNPROCESSABLE_ENTITY,
            RunError::Failed { .. } | RunError::Cancelled { .. } => StatusCode::BAD_GATEWAY,
            RunError::NotServing | RunError::Elsewhere(_) => StatusCode::SERVICE_UNAVAILABLE,
        };
        Self::from_response(daybook_rest::problem(status, &error.to_string()))
    }
}

/// A run that was accepted: it is in the log and goes on by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepted {
    /// The run.
    pub run_id: RunId,
    /// Its session.
    pub session_id: SessionId,
    /// Whether it waits for its session.
    pub queued: bool,
}

/// What a run came to.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// The run.
    pub run_id: RunId,
    /// Its session.
    pub session_id: SessionId,
    /// [`RunStatus::Completed`], or [`RunStatus::Paused`] when a person is asked.
    pub status: RunStatus,
    /// Everything the agent said.
    pub content: String,
    /// What it thought aloud.
    pub reasoning: Option<String>,
    /// What a paused run waits for.
    pub requirements: Vec<Requirement>,
    /// The session's state at the end.
    pub session_state: Map<String, Value>,
    /// Tokens of all its model calls.
    pub usage: Usage,
    /// Seconds from acceptance to the end.
    pub duration: f64,
}

impl Answer {
    /// The answer as a `T`, for runs with an output schema; `None` when the model did not keep to it.
    pub fn read<T: DeserializeOwned>(&self) -> Option<T> {
        serde_json::from_value(OutputSchema::read(&self.content)?).ok()
    }
}

/// As a [`Call`]: the caller waits for the whole answer.
#[derive(Debug)]
pub struct Whole;

/// As a [`Call`]: the caller watches the run.
#[derive(Debug)]
pub struct Pieces;

impl AgentHandle {
    pub(crate) fn new(handle: Handle, id: String) -> Self {
        Self { handle, id }
    }

    /// Runs the agent. Awaiting it gives the [`Answer`]; a run whose caller stops waiting goes on.
    pub fn run(&self, message: impl Into<String>) -> Call<Whole> {
        Call::new(self, message.into())
    }

    /// Runs the agent. Awaiting it gives its [`Events`] as they come.
    pub fn stream(&self, message: impl Into<String>) -> Call<Pieces> {
        Call::new(self, message.into())
    }

    /// Waits for a run of this agent that was started before.
    ///
    /// # Errors
    /// [`RunError`] when there is none, or it did not end well.
    pub async fn wait(&self, run_id: &RunId) -> Result<Answer, RunError> {
        let engine = self.handle.engine()?;
        let known = engine.run(LOG, run_id).await?;
        let of_us = known.as_ref().and_then(RunState::component).is_some_and(|of| of.id.as_str() == self.id);
        if of_us { answer(&engine, run_id).await } else { Err(RunError::Unknown(run_id.clone())) }
    }

    /// Cancels a run of this agent; nothing happens when there is none, or it has ended.
    ///
    /// # Errors
    /// [`RunError::Refused`] when the log does not answer.
    pub async fn cancel(&self, run_id: &RunId, reason: impl Into<String>) -> Result<(), RunError> {
        let component = Some(ComponentRef::agent(id("agent", &self.id, ComponentId::parse)?));
        let cancel = CancelRun { component, run_id: run_id.clone(), session_id: None, reason: Some(reason.into()) };
        self.handle.engine()?.execute(Envelope::new(Principal::system(), "embedded", cancel)).await?;
        Ok(())
    }
}

/// A run to be started, by awaiting it or by [`Call::start`].
#[must_use = "nothing happens until it is awaited or started"]
pub struct Call<As> {
    agent: AgentHandle,
    message: String,
    session: Option<String>,
    user: Option<String>,
    run: Option<String>,
    media: Vec<Media>,
    on_busy: OnBusy,
    session_state: Option<Map<String, Value>>,
    dependencies: Option<Map<String, Value>>,
    metadata: Option<Map<String, Value>>,
    output_schema: Option<OutputSchema>,
    idempotency_key: Option<String>,
    caller: Option<Caller>,
    kind: PhantomData<fn() -> As>,
}

impl<As> Call<As> {
    fn new(agent: &AgentHandle, message: String) -> Self {
        Self {
            agent: agent.clone(),
            message,
            session: None,
            user: None,
            run: None,
            media: Vec::new(),
            on_busy: OnBusy::default(),
            session_state: None,
            dependencies: None,
            metadata: None,
            output_schema: None,
            idempotency_key: None,
            caller: None,
            kind: PhantomData,
        }
    }

    /// The conversation it belongs to; a new one unless said.
    pub fn session(mut self, id: impl Into<String>) -> Self {
        self.session = Some(id.into());
        self
    }

    /// Whom the conversation belongs to; the caller's user unless said, or nobody. Somebody's takes only runs for them.
    pub fn user(mut self, id: impl Into<String>) -> Self {
        self.user = Some(id.into());
        self
    }

    /// The run's id; a new one unless said.
    pub fn run_id(mut self, id: impl Into<String>) -> Self {
        self.run = Some(id.into());
        self
    }

    /// One more file that goes with the message.
    pub fn file(mut self, file: Attachment) -> Self {
        self.media.push(file.into());
        self
    }

    /// What happens when the conversation has a run already; it waits its turn unless said.
    pub fn on_busy(mut self, on_busy: OnBusy) -> Self {
        self.on_busy = on_busy;
        self
    }

    /// Merged into the session's state before the run.
    pub fn session_state(mut self, state: Map<String, Value>) -> Self {
        self.session_state = Some(state);
        self
    }

    /// For the tools of this run; see [`ToolContext::dependencies`](crate::ToolContext::dependencies).
    pub fn dependencies(mut self, dependencies: Map<String, Value>) -> Self {
        self.dependencies = Some(dependencies);
        self
    }

    /// Kept with the run.
    pub fn metadata(mut self, metadata: Map<String, Value>) -> Self {
        self.metadata = Some(metadata);
        self
    }

    /// The shape the answer shall have; the agent's unless said. [`Answer::read`] reads it.
    pub fn output_schema(mut self, schema: OutputSchema) -> Self {
        self.output_schema = Some(schema);
        self
    }

    /// Makes it once: the same key with the same call gives the run that the first one started, with another call
    /// [`ExecuteError::KeyReused`]. A key counts for its agent and caller.
    pub fn idempotency_key(mut self, key: impl Into<String>) -> Self {
        self.idempotency_key = Some(key.into());
        self
    }

    /// On behalf of the caller of a route: recorded with the run, and its user unless another is named.
    pub fn on_behalf_of(mut self, caller: &Caller) -> Self {
        self.caller = Some(caller.clone());
        self
    }

    /// Starts it and does not wait: it goes on also when this server stops.
    ///
    /// # Errors
    /// [`RunError`] says why it was not accepted.
    pub async fn start(self) -> Result<Accepted, RunError> {
        let engine = self.agent.handle.engine()?;
        self.accept(&engine, RunMode::Background).await
    }

    async fn accept(self, engine: &Engine, mode: RunMode) -> Result<Accepted, RunError> {
        let user_id = match &self.user {
            Some(user) => Some(id("user", user, UserId::parse)?),
            None => self.caller.as_ref().and_then(|caller| caller.principal().user.clone()),
        };
        let command = StartRun {
            component: ComponentRef::agent(id("agent", &self.agent.id, ComponentId::parse)?),
            run_id: self.run.as_deref().map(|run| id("run", run, RunId::parse)).transpose()?,
            session_id: self.session.as_deref().map(|given| id("session", given, SessionId::parse)).transpose()?,
            user_id,
            message: self.message,
            media: self.media,
            mode,
            on_busy: self.on_busy,
            cancel_on_disconnect: false,
            session_state: self.session_state,
            dependencies: self.dependencies,
            metadata: self.metadata,
            output_schema: self.output_schema,
            forked: None,
            base: None,
            replaces: false,
        };
        let envelope = match &self.caller {
            Some(caller) => caller.envelope("embedded", command),
            None => Envelope::new(Principal::system(), "embedded", command),
        };
        match engine.execute(Envelope { idempotency_key: self.idempotency_key, ..envelope }).await? {
            Outcome::Accepted { run_id, session_id, queued } => Ok(Accepted { run_id, session_id, queued }),
            _ => Err(RunError::NotServing),
        }
    }
}

impl IntoFuture for Call<Whole> {
    type Output = Result<Answer, RunError>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let engine = self.agent.handle.engine()?;
            let accepted = self.accept(&engine, RunMode::Plain).await?;
            answer(&engine, &accepted.run_id).await
        })
    }
}

impl IntoFuture for Call<Pieces> {
    type Output = Result<Events, RunError>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let engine = self.agent.handle.engine()?;
            let accepted = self.accept(&engine, RunMode::Streaming).await?;
            Events::of(&engine, accepted).await
        })
    }
}

fn id<T>(what: &'static str, value: &str, parse: impl Fn(String) -> Result<T, IdError>) -> Result<T, RunError> {
    parse(value.to_owned()).map_err(|source| RunError::Id { what, value: value.to_owned(), source })
}

async fn answer(engine: &Engine, run_id: &RunId) -> Result<Answer, RunError> {
    let unknown = || RunError::Unknown(run_id.clone());
    let state = engine.wait(LOG, run_id).await?.ok_or_else(unknown)?;
    let run_id = run_id.clone();
    match state.status {
        RunStatus::Completed | RunStatus::Regenerated | RunStatus::Paused => Ok(Answer {
            session_id: state.session_id().cloned().ok_or_else(unknown)?,
            run_id,
            status: state.status,
            content: state.content(),
            reasoning: Some(state.reasoning()).filter(|text| !text.is_empty()),
            requirements: state.open_requirements().map(|(asked, _)| asked.clone()).collect(),
            session_state: state.session_state.unwrap_or_default(),
            usage: state.usage,
            duration: state.duration.unwrap_or_default(),
        }),
        RunStatus::Error => {
            let (kind, message) = state.error.unwrap_or((ErrorKind::InternalError, String::new()));
            Err(RunError::Failed { run_id, kind, message })
        }
        RunStatus::Cancelled => {
            let content = state.content();
            Err(RunError::Cancelled { run_id, reason: state.cancel_reason.unwrap_or_default(), content })
        }
        RunStatus::Pending | RunStatus::Running => Err(RunError::Elsewhere(run_id)),
    }
}

/// A run's frames as they come, in order and each once, until its end or until this server stops. Dropping it cancels
/// nothing.
pub struct Events {
    /// The run.
    pub run_id: RunId,
    /// Its session.
    pub session_id: SessionId,
    frames: BoxStream<'static, Result<Arc<Frame>, RunError>>,
}

impl Events {
    async fn of(engine: &Engine, accepted: Accepted) -> Result<Self, RunError> {
        let Accepted { run_id, session_id, .. } = accepted;
        let watch = engine.watch(LOG, &run_id, None).await?.ok_or_else(|| RunError::Unknown(run_id.clone()))?;
        let frames = unfold(Some(watch), |watch| async move {
            let mut watch = watch?;
            loop {
                match watch.next().await {
                    Ok(Some(WatchItem::Frame(frame))) => return Some((Ok(frame), Some(watch))),
                    Ok(Some(WatchItem::CaughtUp)) => {}
                    Ok(None) => return None,
                    Err(error) => return Some((Err(error.into()), None)),
                }
            }
        });
        Ok(Self { run_id, session_id, frames: frames.boxed() })
    }

    /// The next frame; `None` after the last.
    ///
    /// # Errors
    /// [`RunError::Unanswered`] when the log does not answer; the run goes on, and nothing more comes here.
    pub async fn next(&mut self) -> Option<Result<Arc<Frame>, RunError>> {
        self.frames.next().await
    }
}

impl Stream for Events {
    type Item = Result<Arc<Frame>, RunError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.frames.poll_next_unpin(cx)
    }
}
