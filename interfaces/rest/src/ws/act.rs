//! Doing what a client asks for, by the same commands and queries as everybody.

use std::pin::Pin;
use std::sync::Arc;

use daybook_domain::command::{CancelRun, Command, Envelope};
use daybook_domain::component::{ComponentKind, ComponentRef};
use daybook_domain::ids::{ComponentId, RunId, SessionId};
use daybook_domain::run::RunMode;
use daybook_engine::{ExecuteError, Outcome, Watch, WatchItem};
use futures::{Stream, StreamExt};
use serde_json::{Map, Value};

use super::action::{Action, Asked, Reconnect};
use super::encoding::Encoding;
use super::words::{self, Again};
use crate::errors::ApiError;
use crate::forms::Fields;
use crate::guard::Caller;
use crate::runs::{RunRequest, continue_command};
use crate::state::{AppState, LOG};
use crate::wire::stream::{Counts, items};

/// Messages about one run, as they are sent.
pub(super) type Shown = Pin<Box<dyn Stream<Item = String> + Send>>;

/// What became of an action.
pub(super) enum Done {
    /// The client watches this run now.
    Watching(RunId, Shown),
    /// The client is told this.
    Told(Value),
}

/// What every action of a connection is done with. Cheap to clone.
#[derive(Clone)]
pub(super) struct Actor {
    /// Where it is done.
    pub state: AppState,
    /// Who asks.
    pub caller: Arc<Caller>,
    /// What the connection is for.
    pub kind: ComponentKind,
    /// The client's choice for all messages.
    pub encoding: Option<Encoding>,
}

/// Events of what was started, continued.
struct Going {
    run: RunId,
    session: SessionId,
    queued: bool,
    after: Option<u64>,
}

impl Actor {
    /// Does it.
    pub async fn act(self, asked: Asked) -> Done {
        let Asked { action, request_id, idempotency_key } = asked;
        let done = match action {
            Action::Authenticate => Ok(Done::Told(words::authenticated())),
            Action::Ping => Ok(Done::Told(words::pong())),
            Action::Start { id, fields } => self.start(&id, fields, idempotency_key).await,
            Action::Continue { id, run, fields } => self.go_on(&id, run, fields, idempotency_key).await,
            Action::Cancel { id, run, session, reason } => self.cancel(&id, run, session, reason).await,
            Action::Reconnect(which) => self.reconnect(which).await,
        };
        match done.unwrap_or_else(|why| Done::Told(words::error(&why))) {
            Done::Told(told) => Done::Told(words::answering(told, request_id.as_deref())),
            watching => watching,
        }
    }

    async fn start(&self, id: &str, mut fields: Map<String, Value>, key: Option<String>) -> Result<Done, String> {
        let message = match fields.remove("message") {
            Some(Value::String(text)) => text,
            // Clients of the recorded API may leave it out.
            _ => String::new(),
        };
        let component = self.component(id, false)?;
        let request = RunRequest::saying(message, Fields::of_members(fields)).map_err(words::of)?;
        if request.cancel_on_disconnect {
            let why = "a run that was started over a WebSocket goes on when the connection ends";
            return Err(format!("on_disconnect cannot be cancel: {why}. Cancel it with cancel-{}", self.kind.as_str()));
        }
        let mut command = request.into_command(component);
        command.mode = RunMode::BackgroundStreaming;
        let outcome = self.execute(command, key).await.map_err(|error| self.refused(id, error))?;
        self.watching(Going::of(outcome).ok_or("The run was cancelled before it was started")?).await
    }

    async fn go_on(
        &self,
        id: &str,
        run: RunId,
        mut fields: Map<String, Value>,
        key: Option<String>,
    ) -> Result<Done, String> {
        let component = self.component(id, true)?;
        let unknown = || format!("Run {run} not found");
        if fields.get("session_id").is_none_or(Value::is_null) {
            let state = self.state.engine.run(LOG, &run).await.map_err(failed)?;
            let session = state.as_ref().and_then(|state| state.session_id()).ok_or_else(unknown)?;
            fields.insert("session_id".to_owned(), session.as_str().into());
        }
        let fields = Fields::of_members(fields);
        let command = continue_command(&fields, component, run.clone()).map_err(words::of)?;
        let outcome = self.execute(command, key).await.map_err(|error| self.refused(id, error))?;
        self.watching(Going::of(outcome).ok_or_else(unknown)?).await
    }

    async fn cancel(
        &self,
        id: &str,
        run: RunId,
        session_id: Option<SessionId>,
        reason: Option<String>,
    ) -> Result<Done, String> {
        let component = Some(self.component(id, true)?);
        let command = CancelRun { component, run_id: run.clone(), session_id, reason };
        self.execute(command, None).await.map_err(|error| self.refused(id, error))?;
        Ok(Done::Told(words::cancel_requested(&run)))
    }

    async fn reconnect(&self, which: Reconnect) -> Result<Done, String> {
        let Reconnect { run, after, id, session, resume } = which;
        let unknown = || format!("Run {run} not found in buffer or database");
        let open = async |after| {
            let watch = self.state.engine.watch(LOG, &run, after).await.map_err(failed)?;
            let fits = |watch: &Watch| {
                let meta = &watch.meta;
                meta.component.kind == self.kind
                    && id.as_deref().is_none_or(|id| meta.component.id.as_str() == id)
                    && session.as_ref().is_none_or(|session| meta.session_id == *session)
            };
            watch.filter(fits).ok_or_else(unknown)
        };
        let (mut watch, mut after) = (open(after).await?, after);
        if !watch.live && !resume && after.is_some() {
            // As recorded: a run that is over is told from its beginning.
            (watch, after) = (open(None).await?, None);
        }
        let (missed, total) = watch.counts().await.map_err(failed)?;
        let again = Again { run: &run, kind: self.kind, status: watch.status, counts: Counts { missed, total, after } };
        let encoding = self.encoding.unwrap_or(Encoding::Json);
        let head = if watch.live { again.catch_up() } else { Some(again.replay()) };
        let subscribed = encoding.control(&again.subscribed());
        let head = futures::stream::iter(head.map(|head| encoding.control(&head)));
        let events = shown(watch, encoding, Some(subscribed));
        Ok(Done::Watching(run, Box::pin(head.chain(events))))
    }

    /// The events of a run that was started or continued.
    async fn watching(&self, going: Going) -> Result<Done, String> {
        let Going { run, session, queued, after } = going;
        let watch = self.state.engine.watch(LOG, &run, after).await.map_err(failed)?;
        let watch = watch.ok_or_else(|| format!("Run {run} not found"))?;
        let control = self.encoding.unwrap_or(Encoding::Json);
        let head = futures::stream::iter(queued.then(|| control.control(&words::queued(&run, &session))));
        let events = shown(watch, self.encoding.unwrap_or(Encoding::Sse), None);
        Ok(Done::Watching(run, Box::pin(head.chain(events))))
    }

    async fn execute(&self, command: impl Into<Command>, key: Option<String>) -> Result<Outcome, ExecuteError> {
        let envelope = Envelope { idempotency_key: key, ..self.caller.envelope("websocket", command) };
        self.state.engine.execute(envelope).await
    }

    /// The component of this id; with `earlier` also one that can no longer be run.
    fn component(&self, id: &str, earlier: bool) -> Result<ComponentRef, String> {
        let component = ComponentId::parse(id).ok().map(|id| ComponentRef { kind: self.kind, id });
        component.filter(|component| self.state.has(component, earlier)).ok_or_else(|| self.no_component(id))
    }

    fn no_component(&self, id: &str) -> String {
        let id: String = id.chars().take(100).collect();
        format!("{} {id} not found", self.kind.title())
    }

    fn refused(&self, id: &str, error: ExecuteError) -> String {
        match error {
            ExecuteError::UnknownComponent(_) => self.no_component(id),
            ExecuteError::UnknownRun(run) => format!("Run {run} not found"),
            other => words::of(other.into()),
        }
    }
}

impl Going {
    fn of(outcome: Outcome) -> Option<Self> {
        match outcome {
            Outcome::Accepted { run_id, session_id, queued } => {
                Some(Self { run: run_id, session: session_id, queued, after: None })
            }
            Outcome::Continued { run_id, session_id, queued, after } => {
                Some(Self { run: run_id, session: session_id, queued, after })
            }
            Outcome::Approval(_)
            | Outcome::SessionCreated(_)
            | Outcome::Forked { .. }
            | Outcome::Compaction(_)
            | Outcome::Cancelled => None,
        }
    }
}

/// The events of a watch; `subscribed` once all that were there are told.
fn shown(watch: Watch, encoding: Encoding, mut subscribed: Option<String>) -> impl Stream<Item = String> + Send {
    let run = watch.meta.run_id.clone();
    items(watch, None).filter_map(move |item| {
        std::future::ready(match item {
            Ok(WatchItem::Frame(frame)) => Some(encoding.frame(&frame)),
            Ok(WatchItem::CaughtUp) => subscribed.take(),
            Err(error) => {
                tracing::error!(%error, "a watch over a WebSocket broke off");
                Some(encoding.control(&words::broken(&run)))
            }
        })
    })
}

fn failed(error: impl Into<ApiError>) -> String {
    words::of(error.into())
}
