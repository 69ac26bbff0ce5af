//! Accepting a run: admission to its session, its acceptance and its first model call are one append.

use std::sync::{Arc, PoisonError};

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use daybook_domain::command::{CancelRun, Envelope, StartRun};
use daybook_domain::event::DomainEvent;
use daybook_domain::ids::{LogId, RunId, SessionId, StreamId};
use daybook_domain::media::{Media, MediaContent};
use daybook_domain::personal::Personal;
use daybook_domain::run::{RunAccepted, RunEvent, RunReplaced, RunState};
use daybook_domain::session::{Admission, AdmitRun, SessionEvent, SessionRunReplaced};
use daybook_store::{Append, AppendError, CommandKey, Expected, LeaseOp, Store, StoreError, StreamWrite, Subject};
use serde_json::Map;

use crate::cancel::cancel_run;
use crate::drive::Driver;
use crate::engine::{Engine, Inner, Outcome};
use crate::error::ExecuteError;
use crate::flow::input_fault;
use crate::frame::{RunMeta, frames_of, set_frame};
use crate::history::History;
use crate::hub::Hub;
use crate::live::LiveRun;
use crate::plan::{Action, Partial, Plan, Planner};
use crate::registry::Component;
use crate::sessions::Known;
use crate::settle::{meta_of, refused, tools_of};

/// Media above this many bytes go to the blob store; events stay small.
const INLINE_BYTES: usize = 64 * 1024;

/// How often admission is tried again when other nodes write to the session at the same time.
const MAX_TRIES: u32 = 100;

pub(crate) async fn start_run(
    engine: &Engine,
    envelope: &Envelope,
    mut command: StartRun,
) -> Result<Outcome, ExecuteError> {
    let inner = &engine.inner;
    let unknown = || ExecuteError::UnknownComponent(command.component.kind);
    let agent = inner.registry().component(&command.component).ok_or_else(unknown)?.clone();
    if let Some(fault) = agent.config.workflow().and_then(|workflow| input_fault(workflow, &command.message)) {
        return Err(ExecuteError::Input(fault));
    }
    if inner.is_full() {
        return Err(ExecuteError::TooManyRuns(inner.options.max_runs));
    }
    let body_hash = body_hash(&command)?;
    let new_session = command.session_id.is_none();
    let run_id = command.run_id.take().unwrap_or_else(|| RunId::from((inner.ports.ids)()));
    let session_id = command.session_id.take().unwrap_or_else(|| SessionId::from((inner.ports.ids)()));
    redact(inner, &mut command);
    let subject = Subject { session: session_id.clone(), user: command.user_id.clone() };
    let key = envelope.idempotency_key.clone().map(|key| CommandKey {
        principal: envelope.principal.name.clone(),
        route: format!("{}:runs", command.component),
        key,
        body_hash,
        resource: run_id.to_string(),
    });
    let start = Start { inner, log: envelope.log_id, agent, envelope, command, run_id, session_id, subject, key };
    Box::pin(start.admit(engine, new_session)).await
}

/// Everything about one acceptance.
struct Start<'a> {
    inner: &'a Arc<Inner>,
    log: LogId,
    agent: Arc<Component>,
    envelope: &'a Envelope,
    command: StartRun,
    run_id: RunId,
    session_id: SessionId,
    subject: Subject,
    key: Option<CommandKey>,
}

/// What is to be appended, and what follows.
struct Accepted {
    state: RunState,
    run_events: Vec<RunEvent>,
    session_events: Vec<SessionEvent>,
    plan: Plan,
    admission: Admission,
    history: Option<History>,
    at_ms: i64,
}

impl Start<'_> {
    async fn admit(mut self, engine: &Engine, new_session: bool) -> Result<Outcome, ExecuteError> {
        let mut known = self.inner.sessions.lock(self.log, &self.session_id).await;
        if known.version == 0 && !new_session {
            self.inner.sessions.refresh(self.log, &self.session_id, &mut known).await?;
        }
        for _ in 0..MAX_TRIES {
            let accepted = match self.decide(&known).await {
                // Another node may have let the session go; refuse only on what the log says.
                Err(ExecuteError::Session(_)) => {
                    self.inner.sessions.refresh(self.log, &self.session_id, &mut known).await?;
                    match self.decide(&known).await {
                        // It may be this very command's run that the session is busy with.
                        Err(ExecuteError::Session(why)) => {
                            return Box::pin(self.executed()).await?.ok_or(ExecuteError::Session(why));
                        }
                        decided => decided?,
                    }
                }
                decided => decided?,
            };
            match self.inner.store.append(self.request(&accepted, known.version)).await {
                Ok(appended) => {
                    let version = appended.versions.first().copied().unwrap_or_default();
                    known.appended(accepted.session_events.iter(), version);
                    let interrupted =
                        known.state.active.clone().filter(|_| accepted.admission == Admission::Interrupting);
                    let outcome = self.go(accepted, appended.versions.get(1).copied().unwrap_or_default());
                    drop(known);
                    self.interrupt(engine, interrupted).await;
                    return Ok(outcome);
                }
                Err(AppendError::Conflict { stream, .. }) if stream.as_run().is_some() => {
                    return Err(ExecuteError::RunExists(self.run_id.to_string()));
                }
                Err(AppendError::Conflict { .. }) => {
                    self.inner.sessions.refresh(self.log, &self.session_id, &mut known).await?;
                }
                Err(AppendError::Duplicate { same_body: false, .. }) => return Err(ExecuteError::KeyReused),
                Err(AppendError::Duplicate { resource, .. }) => return Box::pin(self.earlier(&resource)).await,
                Err(AppendError::LostLease { .. }) => {
                    return Err(ExecuteError::RunExists(self.run_id.to_string()));
                }
                Err(AppendError::Store(error)) => return Err(error.into()),
            }
        }
        Err(ExecuteError::TooManyRuns(self.inner.options.max_runs))
    }

    async fn decide(&mut self, known: &Known) -> Result<Accepted, ExecuteError> {
        let now_ms = self.inner.now_ms();
        let config = self.agent.config.clone();
        let (admission, mut session_events) = known.state.admit(AdmitRun {
            session_id: self.session_id.clone(),
            run_id: self.run_id.clone(),
            user_id: self.command.user_id.clone(),
            component: self.command.component.clone(),
            on_busy: self.command.on_busy,
            name: None,
            default_state: config.session_state().clone(),
            state: self.command.session_state.clone(),
            at: now_ms / 1000,
        })?;
        if let Some(forked) = self.command.forked.as_ref().filter(|_| self.command.replaces) {
            let (run_id, by, at) = (forked.run_id.clone(), self.run_id.clone(), now_ms / 1000);
            session_events.push(SessionEvent::RunReplaced(SessionRunReplaced { run_id, by, at }));
        }
        // Only a run that is let in leaves bytes behind.
        self.store_media().await?;
        let mut state = RunState::default();
        let mut run_events = vec![RunEvent::Accepted(Box::new(self.accepted(admission, now_ms)))];
        run_events.iter().for_each(|event| state.evolve(event));
        let goes_now = matches!(admission, Admission::Active | Admission::Parallel);
        let history = if goes_now { Some(self.history(known).await?) } else { None };
        let planner = Planner {
            config: &config,
            now_ms,
            fresh_id: &*self.inner.ports.ids,
            history: history.as_ref().map(History::as_seen).unwrap_or_default(),
            granted: goes_now,
            in_flight: &Default::default(),
            waiting: &Default::default(),
            code: None,
            checks: &Default::default(),
            partial: Partial::default(),
            session_state: Map::new(),
        };
        let mut plan = match config.workflow() {
            // The first steps are found when the run is in the log: the session's state is known then.
            Some(_) if goes_now => Plan::only(Action::LookOn),
            _ => planner.plan(&state)?,
        };
        plan.events.iter_mut().for_each(|event| set_frame(event, 1));
        run_events.append(&mut plan.events);
        Ok(Accepted { state: RunState::default(), run_events, session_events, plan, admission, history, at_ms: now_ms })
    }

    async fn history(&self, known: &Known) -> Result<History, ExecuteError> {
        // What was said in a run that this one goes on from is the beginning of this one.
        let not = self.command.forked.as_ref().map(|forked| &forked.run_id);
        self.inner.history_now(self.log, &known.state, &self.agent.config, not).await.map_err(refused)
    }

    fn accepted(&self, admission: Admission, at_ms: i64) -> RunAccepted {
        RunAccepted {
            run_id: self.run_id.clone(),
            session_id: self.session_id.clone(),
            user_id: self.command.user_id.clone(),
            component: self.command.component.clone(),
            config_hash: self.agent.hash.clone(),
            mode: self.command.mode,
            on_busy: self.command.on_busy,
            admission,
            cancel_on_disconnect: self.command.cancel_on_disconnect,
            message: Personal::Known(self.command.message.clone()),
            media: Personal::Known(self.command.media.clone()),
            dependencies: Personal::Known(self.command.dependencies.clone()),
            metadata: Personal::Known(self.command.metadata.clone()),
            output_schema: Personal::Known(self.command.output_schema.clone()),
            forked: self.command.forked.clone(),
            base: Personal::Known(self.command.base.clone()),
            copied_from: None,
            at_ms,
            frame: 0,
            parent: None,
        }
    }

    fn request(&self, accepted: &Accepted, session_version: u64) -> Append {
        let session = StreamWrite {
            stream: StreamId::session(&self.session_id),
            expected: Expected::Version(session_version),
            subject: Some(self.subject.clone()),
            events: accepted.session_events.iter().cloned().map(DomainEvent::from).collect(),
        };
        let run = StreamWrite {
            stream: StreamId::run(&self.run_id),
            expected: Expected::Version(0),
            subject: Some(self.subject.clone()),
            events: accepted.run_events.iter().cloned().map(DomainEvent::from).collect(),
        };
        let mut writes = vec![session, run];
        writes.extend(self.replaced(accepted));
        Append {
            log_id: self.log,
            writes,
            command: self.key.clone(),
            lease: LeaseOp::Take {
                tree: self.run_id.clone(),
                node: self.inner.node_id.clone(),
                epoch: 1,
                component: self.command.component.to_string(),
                tools: tools_of(&self.inner.registry().tree(&self.agent)),
            },
            meta: meta_of(self.envelope, self.inner.now_ms()),
        }
    }

    /// What happens to the run whose place this one takes.
    fn replaced(&self, accepted: &Accepted) -> Option<StreamWrite> {
        let forked = self.command.forked.as_ref().filter(|_| self.command.replaces)?;
        let replaced = RunReplaced { by: self.run_id.clone(), at_ms: accepted.at_ms };
        Some(StreamWrite {
            stream: StreamId::run(&forked.run_id),
            expected: Expected::Any,
            subject: Some(self.subject.clone()),
            events: vec![RunEvent::Replaced(replaced).into()],
        })
    }

    /// The run is in the log: from here on it goes by itself.
    fn go(&self, accepted: Accepted, version: u64) -> Outcome {
        let mut state = accepted.state;
        accepted.run_events.iter().for_each(|event| state.evolve(event));
        let queued = matches!(accepted.admission, Admission::Queued | Admission::Interrupting);
        if let Some(meta) = RunMeta::of(&state, &self.agent.config) {
            let hub = Hub::new(Arc::new(meta), 0, self.command.mode.keeps_frames());
            let mut shown = RunState::default();
            for event in &accepted.run_events {
                shown.evolve(event);
                hub.push(shown.updated_ms / 1000, &hub.meta, frames_of(event, &shown).1);
            }
            let live = LiveRun::new(self.log, 1, hub);
            let key = (self.log, self.run_id.clone());
            self.inner.runs.lock().unwrap_or_else(PoisonError::into_inner).insert(key, live.clone());
            let mut driver = Driver::new(self.inner.clone(), live, self.agent.clone(), state, version, 1);
            driver.history = accepted.history;
            self.inner.spawn(driver.drive(accepted.plan.action));
        }
        Outcome::Accepted { run_id: self.run_id.clone(), session_id: self.session_id.clone(), queued }
    }

    async fn interrupt(&self, engine: &Engine, active: Option<RunId>) {
        let Some(run_id) = active else { return };
        let command = CancelRun {
            component: None,
            run_id,
            session_id: Some(self.session_id.clone()),
            reason: Some(format!("Interrupted by run {}", self.run_id)),
        };
        if let Err(error) = Box::pin(cancel_run(engine, self.envelope, command)).await {
            tracing::warn!(run = %self.run_id, %error, "the run that holds the session was not interrupted; this one waits");
        }
    }

    /// What the same command came to when it was executed before, if it was.
    async fn executed(&self) -> Result<Option<Outcome>, ExecuteError> {
        let Some(key) = &self.key else { return Ok(None) };
        match self.inner.store.executed(self.log, key).await? {
            None => Ok(None),
            Some((false, _)) => Err(ExecuteError::KeyReused),
            Some((true, run)) => self.earlier(&run).await.map(Some),
        }
    }

    /// The same command was executed before: its run is the answer.
    async fn earlier(&self, resource: &str) -> Result<Outcome, ExecuteError> {
        let run_id = RunId::parse(resource).map_err(|_| ExecuteError::KeyReused)?;
        let (state, _) =
            crate::engine::fold_run(&self.inner.store, self.log, &run_id).await.map_err(|error| match error {
                crate::error::QueryError::Store(error) => ExecuteError::Store(error),
                crate::error::QueryError::MissingConfig(_) => ExecuteError::KeyReused,
            })?;
        let session_id = state.session_id().cloned().ok_or(ExecuteError::KeyReused)?;
        Ok(Outcome::Accepted { run_id, session_id, queued: false })
    }

    async fn store_media(&mut self) -> Result<(), ExecuteError> {
        Ok(to_blobs(&self.inner.store, self.log, &self.subject, &mut self.command.media).await?)
    }
}

/// Puts what is large among `media` into the blob store.
pub(crate) async fn to_blobs(
    store: &Store,
    log: LogId,
    subject: &Subject,
    media: &mut [Media],
) -> Result<(), StoreError> {
    for item in media {
        let (bytes, text) = match &item.content {
            MediaContent::Text(words) if words.len() > INLINE_BYTES => (words.clone().into_bytes(), true),
            MediaContent::Base64(code) if code.len() > INLINE_BYTES => {
                let Ok(bytes) = STANDARD.decode(code) else { continue };
                (bytes, false)
            }
            _ => continue,
        };
        let hash = store.put_blob(log, subject, &bytes).await?;
        item.content = MediaContent::Blob { hash, len: bytes.len() as u64, text };
    }
    Ok(())
}

/// SHA-256 over what the caller asked for; ids that were made for it do not count.
fn body_hash(command: &StartRun) -> Result<[u8; 32], ExecuteError> {
    let media = command.media.iter().map(|item| Media { id: String::new(), ..item.clone() }).collect();
    Ok(hash_of(&StartRun { media, ..command.clone() })?)
}

/// SHA-256 over a value's JSON, keys sorted.
pub(crate) fn hash_of(command: &impl serde::Serialize) -> serde_json::Result<[u8; 32]> {
    let mut value = serde_json::to_value(command)?;
    value.sort_all_objects();
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, value.to_string().as_bytes()).as_ref());
    Ok(hash)
}

fn redact(inner: &Inner, command: &mut StartRun) {
    let redactor = &inner.redactor;
    command.message = redactor.text(&command.message);
    for map in [&mut command.session_state, &mut command.dependencies, &mut command.metadata].into_iter().flatten() {
        redactor.object(map);
    }
    if let Some(output) = &mut command.output_schema {
        redactor.object(&mut output.schema);
    }
    for item in &mut command.media {
        if let MediaContent::Text(words) = &mut item.content {
            *words = redactor.text(words);
        }
    }
}
