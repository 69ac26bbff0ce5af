//! Compaction: what was said early in a session is summarised by its agent's model, for the prompts of later runs. The call
//! changes nothing in the world, so nothing is recorded before its outcome: after a crash it is made again, if it is still
//! wanted. The runs themselves stay as they are.

use std::sync::Arc;
use std::time::Duration;

use daybook_domain::command::{CompactSession, Envelope};
use daybook_domain::component::AgentConfig;
use daybook_domain::event::DomainEvent;
use daybook_domain::ids::{LogId, RunId, SessionId, StreamId};
use daybook_domain::message::{CallMetrics, Message};
use daybook_domain::session::{CompactError, SessionCompacted, SessionEvent, SessionState, oldest_within};
use daybook_models::{ChatEvent, ChatModel, ChatRequest, ChatResponse, ModelError};
use daybook_store::{Append, AppendError, CommandKey, Expected, LeaseOp, Meta, StreamWrite, Subject};
use futures::StreamExt;
use tokio::sync::{OwnedMutexGuard, oneshot};

use crate::engine::{Engine, Inner, Outcome};
use crate::error::ExecuteError;
use crate::history::{Summary, tokens, told};
use crate::prompt::json_hash;
use crate::registry::Component;
use crate::settle::{MAX_TRIES, meta_of, refused};
use crate::start::hash_of;
use crate::summarise::{kept, source_budget, summary_request};

/// The most bytes of an answer that are waited for: many times a summary's size.
const MAX_ANSWER_BYTES: usize = 1 << 20;

/// The longest a summary may take; the model's own timeouts come first as a rule.
const MAX_TIME: Duration = Duration::from_secs(600);

/// What a compaction came to.
#[derive(Debug, Clone, PartialEq)]
pub enum CompactionOutcome {
    /// It is recorded, now or earlier under the same key.
    Done(Box<SessionCompacted>),
    /// The agent is not configured to.
    NotEnabled,
    /// No run of the session has ended well.
    NoHistory,
    /// There are no more ended runs than so many, which stay word for word.
    NothingToFold(u32),
    /// A summary stands for all others already.
    AlreadyCompacted(u32),
    /// The model said nothing, or would not.
    NoSummary {
        /// Id and provider of the model.
        model: (String, String),
        /// What it told of its cost.
        metrics: Option<CallMetrics>,
    },
}

/// Who wants it.
struct Wish {
    log: LogId,
    session: SessionId,
    component: Arc<Component>,
    /// Its configuration.
    agent: AgentConfig,
    /// Whether nobody asked: then it is done only when the agent's configuration says that it is due.
    only_when_due: bool,
    meta: Meta,
    key: Option<CommandKey>,
}

impl Wish {
    /// Id and provider of the agent's model.
    fn model(&self) -> (String, String) {
        let model = &self.agent.model;
        (model.id.clone(), model.provider.clone())
    }
}

pub(crate) async fn compact_session(
    engine: &Engine,
    envelope: &Envelope,
    command: CompactSession,
) -> Result<Outcome, ExecuteError> {
    let inner = &engine.inner;
    let unknown = || ExecuteError::UnknownComponent(command.component.kind);
    let component = inner.registry().component(&command.component).ok_or_else(unknown)?.clone();
    let Some(agent) = component.config.agent().cloned() else {
        return Ok(Outcome::Compaction(CompactionOutcome::NotEnabled));
    };
    let (log, session) = (envelope.log_id, command.session_id.clone());
    let state = inner.session(log, &session).await?;
    let owned = state.user_id.is_none() || state.user_id == command.user_id;
    let known = state.component.as_ref().is_none_or(|component| *component == command.component);
    if !(state.exists() && owned && known) {
        return Err(ExecuteError::UnknownSession);
    }
    let key = match &envelope.idempotency_key {
        None => None,
        Some(key) => Some(CommandKey {
            principal: envelope.principal.name.clone(),
            route: format!("{}:compact", command.component),
            key: key.clone(),
            body_hash: hash_of(&command)?,
            // Where it will be, which is known when it is recorded.
            resource: String::new(),
        }),
    };
    let meta = meta_of(envelope, inner.now_ms());
    let wish = Wish { log, session, component, agent, only_when_due: false, meta, key };
    // A caller who goes away does not waste what the model was asked.
    let (tell, told) = oneshot::channel();
    let working = inner.clone();
    inner.spawn(async move {
        let alone = working.alone(wish.log, &wish.session).await.lock_owned().await;
        drop(tell.send(working.compact(wish, alone).await));
    });
    let broke_down = || match inner.stopping.is_cancelled() {
        true => ExecuteError::Stopping,
        false => unsummarised("it broke down (see the server's log)".to_owned(), false),
    };
    told.await.unwrap_or_else(|_| Err(broke_down())).map(Outcome::Compaction)
}

fn unsummarised(fault: String, may_pass: bool) -> ExecuteError {
    ExecuteError::NoSummary { fault, may_pass }
}

impl Inner {
    /// Looks, beside everything else, whether a session in which a run has just ended should be compacted. When it fails,
    /// the session's next run leads to the next look.
    pub fn compact_when_due(self: &Arc<Self>, log: LogId, session: &SessionId, component: &Arc<Component>) {
        let Some(agent) = component.config.agent() else { return };
        if agent.compaction.and_then(|compaction| compaction.after_tokens).is_none() {
            return;
        }
        let (inner, session) = (self.clone(), session.clone());
        let (component, agent) = (component.clone(), agent.clone());
        self.spawn(async move {
            let alone = inner.alone(log, &session).await.lock_owned().await;
            let (meta, key) = (inner.meta(), None);
            let wish = Wish { log, session: session.clone(), component, agent, only_when_due: true, meta, key };
            match inner.compact(wish, alone).await {
                Ok(came) => tracing::debug!(%session, came = ?came.name(), "looked whether to compact a session"),
                Err(ExecuteError::Stopping) => {}
                Err(error) => {
                    tracing::warn!(%session, %error, "a session was not compacted; its next run tries again");
                }
            }
        });
    }

    /// One task of this node works on a session's summary at a time: two would ask for the same one.
    async fn alone(&self, log: LogId, session: &SessionId) -> Arc<tokio::sync::Mutex<()>> {
        self.compacting.get_with((log, session.clone()), async { Arc::default() }).await
    }

    /// The session as the log has it.
    async fn session(&self, log: LogId, session: &SessionId) -> Result<SessionState, ExecuteError> {
        let mut known = self.sessions.lock(log, session).await;
        self.sessions.refresh(log, session, &mut known).await?;
        Ok(known.state.clone())
    }

    /// What the same command came to when it was executed before, if it was.
    async fn compacted_before(&self, wish: &Wish) -> Result<Option<CompactionOutcome>, ExecuteError> {
        let Some(key) = &wish.key else { return Ok(None) };
        let version = match self.store.executed(wish.log, key).await? {
            None => return Ok(None),
            Some((false, _)) => return Err(ExecuteError::KeyReused),
            Some((true, version)) => version.parse().unwrap_or_default(),
        };
        let recorded = self.store.read_event(wish.log, &StreamId::session(&wish.session), version).await?;
        Ok(recorded.and_then(|recorded| match recorded.event {
            DomainEvent::Session(SessionEvent::Compacted(done)) => Some(CompactionOutcome::Done(Box::new(done))),
            _ => None,
        }))
    }

    async fn compact(&self, wish: Wish, _alone: OwnedMutexGuard<()>) -> Result<CompactionOutcome, ExecuteError> {
        if let Some(done) = self.compacted_before(&wish).await? {
            return Ok(done);
        }
        let state = self.session(wish.log, &wish.session).await?;
        let source = match self.source(&wish, &state).await? {
            Ok(source) => source,
            Err(nothing) => return Ok(nothing),
        };
        let Some(model) = &wish.component.model else {
            let key = &wish.agent.model.key;
            return Err(unsummarised(format!("this server has no model {key:?}"), false));
        };
        let source_hash = json_hash(&source.request)?;
        let answer = match self.ask(&**model, source.request.clone()).await? {
            Err(ModelError::Refused(_)) => return Ok(nothing_said(&wish, None)),
            Err(error) => {
                return Err(unsummarised(self.redactor.text(&error.to_string()), error.is_retryable()));
            }
            Ok(answer) => answer,
        };
        let text = kept(&self.redactor.text(&answer.text));
        if text.is_empty() {
            return Ok(nothing_said(&wish, Some(answer.metrics)));
        }
        self.record(&wish, &state, source.compacted(&wish, text, answer.metrics, source_hash)).await
    }

    /// What is to be summarised; or why nothing is.
    async fn source(
        &self,
        wish: &Wish,
        state: &SessionState,
    ) -> Result<Result<Source, CompactionOutcome>, ExecuteError> {
        let config = &wish.agent;
        let Some(compaction) = config.compaction else { return Ok(Err(CompactionOutcome::NotEnabled)) };
        let runs: Vec<RunId> = state.unsummarised().cloned().collect();
        if runs.is_empty() && state.summarised.is_none() {
            return Ok(Err(CompactionOutcome::NoHistory));
        }
        let sizes = self.sizes(wish.log, &runs).await.map_err(refused)?;
        let keep = usize::try_from(config.history_runs).unwrap_or(usize::MAX);
        let due = compaction.after_tokens.is_some_and(|after| state.is_compaction_due(&sizes, keep, after));
        let count = if wish.only_when_due && !due { 0 } else { oldest_within(&sizes, keep, source_budget(config)) };
        if count == 0 {
            return Ok(Err(match state.summarised {
                None => CompactionOutcome::NothingToFold(config.history_runs),
                Some(_) => CompactionOutcome::AlreadyCompacted(config.history_runs),
            }));
        }
        let previous = state.summarised.map(|summarised| summarised.version);
        let before = match previous {
            Some(version) => self.summary(wish.log, &wish.session, version).await.map_err(refused)?,
            None => None,
        };
        let mut messages = Vec::new();
        for run in &runs[..count] {
            messages.extend(self.messages_of(wish.log, run).await.map_err(refused)?.iter().cloned());
        }
        let first_kept = match runs.get(count) {
            Some(run) => self.messages_of(wish.log, run).await.map_err(refused)?.first().map(|first| first.id.clone()),
            None => None,
        };
        let request = summary_request(config, before.as_ref().map(|before| before.text.as_str()), &messages);
        let told = |summary: &Summary| told(&wish.session, 0, summary).estimated_tokens();
        Ok(Ok(Source {
            previous,
            runs: runs[..count].to_vec(),
            first_kept,
            before: before.as_deref().map_or(0, told) + tokens(&messages),
            after: sizes[count..].iter().sum(),
            messages,
            request,
            at: self.now_ms() / 1000,
        }))
    }

    /// Calls the model.
    async fn ask(
        &self,
        model: &dyn ChatModel,
        request: ChatRequest,
    ) -> Result<Result<ChatResponse, ModelError>, ExecuteError> {
        let answer = tokio::time::timeout(MAX_TIME, whole_answer(model, request));
        tokio::select! {
            biased;
            () = self.stopping.cancelled() => Err(ExecuteError::Stopping),
            answer = answer => Ok(answer.unwrap_or_else(|_| {
                Err(ModelError::Timeout(format!("a summary may take {} s", MAX_TIME.as_secs())))
            })),
        }
    }

    /// Records a summary, unless something else was recorded that it does not fit. Runs that begin or end meanwhile do not
    /// matter to it.
    async fn record(
        &self,
        wish: &Wish,
        state: &SessionState,
        mut done: SessionCompacted,
    ) -> Result<CompactionOutcome, ExecuteError> {
        let subject = Subject { session: wish.session.clone(), user: state.user_id.clone() };
        let mut known = self.sessions.lock(wish.log, &wish.session).await;
        for _ in 0..MAX_TRIES {
            self.sessions.refresh(wish.log, &wish.session, &mut known).await?;
            match known.state.check_summary(&done) {
                Ok(()) => {}
                Err(CompactError::Compacted) => {
                    let kept = CompactionOutcome::AlreadyCompacted(wish.agent.history_runs);
                    return Ok(self.compacted_before(wish).await?.unwrap_or(kept));
                }
                Err(CompactError::Replaced) => return Err(ExecuteError::Contended),
            }
            done.version = known.version + 1;
            let event = SessionEvent::Compacted(done.clone());
            match self.store.append(append(wish, &subject, &event, done.version)).await {
                Ok(_) => {
                    known.appended([&event].into_iter(), done.version);
                    return Ok(CompactionOutcome::Done(Box::new(done)));
                }
                Err(AppendError::Duplicate { same_body: false, .. }) => return Err(ExecuteError::KeyReused),
                Err(AppendError::Store(error)) => return Err(error.into()),
                // The next look tells what came between.
                Err(AppendError::Conflict { .. } | AppendError::Duplicate { .. } | AppendError::LostLease { .. }) => {}
            }
        }
        Err(ExecuteError::Contended)
    }
}

fn nothing_said(wish: &Wish, metrics: Option<CallMetrics>) -> CompactionOutcome {
    CompactionOutcome::NoSummary { model: wish.model(), metrics }
}

fn append(wish: &Wish, subject: &Subject, event: &SessionEvent, version: u64) -> Append {
    let write = StreamWrite {
        stream: StreamId::session(&wish.session),
        expected: Expected::Version(version - 1),
        subject: Some(subject.clone()),
        events: vec![event.clone().into()],
    };
    let command = wish.key.clone().map(|key| CommandKey { resource: version.to_string(), ..key });
    Append { log_id: wish.log, writes: vec![write], command, lease: LeaseOp::None, meta: wish.meta.clone() }
}

/// What is to be summarised, and what for.
struct Source {
    previous: Option<u64>,
    runs: Vec<RunId>,
    messages: Vec<Message>,
    first_kept: Option<String>,
    /// Estimated tokens of what the summary stands for.
    before: u64,
    /// Those of the runs that stay word for word.
    after: u64,
    request: ChatRequest,
    /// Unix seconds.
    at: i64,
}

impl Source {
    fn compacted(self, wish: &Wish, text: String, metrics: CallMetrics, source_hash: String) -> SessionCompacted {
        let (config, at) = (&wish.agent, self.at);
        let summary = Summary { text, at };
        SessionCompacted {
            // Set when it is recorded.
            version: 0,
            component: config.component(),
            config_hash: wish.component.hash.clone(),
            previous: self.previous,
            runs: self.runs,
            messages: self.messages.len() as u64,
            source_hash,
            first_kept: self.first_kept,
            model: wish.model(),
            usage: metrics.usage,
            duration: metrics.duration,
            tokens_before: self.before + self.after,
            tokens_after: told(&wish.session, 0, &summary).estimated_tokens() + self.after,
            summary: summary.text.into(),
            at,
        }
    }
}

impl CompactionOutcome {
    /// What it is called on the wire and in logs.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Done(_) => "compacted",
            Self::NotEnabled => "not_enabled",
            Self::NoHistory => "no_history",
            Self::NothingToFold(_) => "nothing_to_fold",
            Self::AlreadyCompacted(_) => "already_compacted",
            Self::NoSummary { .. } => "summary_failed",
        }
    }
}

/// The model's answer to its end, as long as it is no longer than any summary.
async fn whole_answer(model: &dyn ChatModel, request: ChatRequest) -> Result<ChatResponse, ModelError> {
    let mut pieces = model.stream(request).await?;
    let mut bytes = 0;
    while let Some(piece) = pieces.next().await {
        match piece? {
            ChatEvent::Done(response) => return Ok(*response),
            ChatEvent::Text(text) | ChatEvent::Reasoning(text) => bytes += text.len(),
            ChatEvent::ToolArguments { delta, .. } => bytes += delta.len(),
            ChatEvent::ProviderData(_) => {}
        }
        if bytes > MAX_ANSWER_BYTES {
            return Err(ModelError::Malformed(format!("a summary of more than {MAX_ANSWER_BYTES} bytes")));
        }
    }
    Err(ModelError::Truncated("it ended without an end".to_owned()))
}
