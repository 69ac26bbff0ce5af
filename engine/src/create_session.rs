//! Creating a session before anything runs in it: its creation and what its state begins with are one append.

use daybook_domain::command::{CreateSession, Envelope};
use daybook_domain::event::DomainEvent;
use daybook_domain::ids::{LogId, SessionId, StreamId};
use daybook_domain::session::{BeginSession, SessionEvent, SessionState};
use daybook_store::{Append, AppendError, CommandKey, Expected, LeaseOp, StreamWrite, Subject};

use crate::engine::{Engine, Inner, Outcome};
use crate::error::ExecuteError;
use crate::sessions::Known;
use crate::settle::{MAX_TRIES, meta_of};
use crate::start::hash_of;

pub(crate) async fn create_session(
    engine: &Engine,
    envelope: &Envelope,
    mut command: CreateSession,
) -> Result<Outcome, ExecuteError> {
    let inner = &engine.inner;
    if let Some(component) = &command.component
        && inner.registry().component(component).is_none()
    {
        return Err(ExecuteError::UnknownComponent(component.kind));
    }
    // Before an id is made for it.
    let body_hash = hash_of(&command)?;
    let session_id = command.session_id.take().unwrap_or_else(|| SessionId::from((inner.ports.ids)()));
    let key = envelope.idempotency_key.clone().map(|key| CommandKey {
        principal: envelope.principal.name.clone(),
        route: "sessions:create".to_owned(),
        key,
        body_hash,
        resource: session_id.to_string(),
    });
    redact(inner, &mut command);
    Create { inner, log: envelope.log_id, envelope, command, session_id, key }.create().await
}

/// Everything about one creation.
struct Create<'a> {
    inner: &'a Inner,
    log: LogId,
    envelope: &'a Envelope,
    command: CreateSession,
    session_id: SessionId,
    key: Option<CommandKey>,
}

impl Create<'_> {
    async fn create(self) -> Result<Outcome, ExecuteError> {
        let mut known = self.inner.sessions.lock(self.log, &self.session_id).await;
        for _ in 0..MAX_TRIES {
            // Only what the log says counts: another node may have created it.
            self.inner.sessions.refresh(self.log, &self.session_id, &mut known).await?;
            let events = match known.state.begin(self.begin()) {
                // It may be this very command that created it.
                Err(why) => return self.executed().await?.ok_or(ExecuteError::Session(why)),
                Ok(events) => events,
            };
            match self.inner.store.append(self.request(&events, &known)).await {
                Ok(appended) => {
                    known.appended(events.iter(), appended.versions.first().copied().unwrap_or_default());
                    return Ok(created(&events));
                }
                Err(AppendError::Conflict { .. }) => {}
                Err(AppendError::Duplicate { same_body: false, .. }) => return Err(ExecuteError::KeyReused),
                Err(AppendError::Duplicate { resource, .. }) => return self.earlier(&resource).await,
                Err(AppendError::LostLease { .. }) => return Err(ExecuteError::Contended),
                Err(AppendError::Store(error)) => return Err(error.into()),
            }
        }
        Err(ExecuteError::Contended)
    }

    fn begin(&self) -> BeginSession {
        let command = self.command.clone();
        BeginSession {
            session_id: self.session_id.clone(),
            user_id: command.user_id,
            component: command.component,
            name: command.name,
            metadata: command.metadata,
            state: command.state,
            at: self.inner.now_ms() / 1000,
        }
    }

    fn request(&self, events: &[SessionEvent], known: &Known) -> Append {
        let write = StreamWrite {
            stream: StreamId::session(&self.session_id),
            expected: Expected::Version(known.version),
            subject: Some(Subject { session: self.session_id.clone(), user: self.command.user_id.clone() }),
            events: events.iter().cloned().map(DomainEvent::from).collect(),
        };
        Append {
            log_id: self.log,
            writes: vec![write],
            command: self.key.clone(),
            lease: LeaseOp::None,
            meta: meta_of(self.envelope, self.inner.now_ms()),
        }
    }

    /// What the same command came to when it was executed before, if it was.
    async fn executed(&self) -> Result<Option<Outcome>, ExecuteError> {
        let Some(key) = &self.key else { return Ok(None) };
        match self.inner.store.executed(self.log, key).await? {
            None => Ok(None),
            Some((false, _)) => Err(ExecuteError::KeyReused),
            Some((true, session)) => self.earlier(&session).await.map(Some),
        }
    }

    /// The same command was executed before: the session as it was created is the answer, whatever became of it.
    async fn earlier(&self, resource: &str) -> Result<Outcome, ExecuteError> {
        let session = SessionId::parse(resource).map_err(|_| ExecuteError::KeyReused)?;
        let mut events = Vec::new();
        // The creation, and what the state began with.
        for version in 1..=1 + u64::from(!self.command.state.is_empty()) {
            let recorded = self.inner.store.read_event(self.log, &StreamId::session(&session), version).await?;
            let Some(DomainEvent::Session(event)) = recorded.map(|recorded| recorded.event) else {
                return Err(ExecuteError::UnknownSession);
            };
            events.push(event);
        }
        Ok(created(&events))
    }
}

/// The session as these events leave it.
fn created(events: &[SessionEvent]) -> Outcome {
    let mut state = SessionState::default();
    events.iter().for_each(|event| state.evolve(event));
    Outcome::SessionCreated(Box::new(state))
}

fn redact(inner: &Inner, command: &mut CreateSession) {
    let redactor = &inner.redactor;
    command.name = command.name.take().map(|name| redactor.text(&name));
    redactor.object(&mut command.state);
    if let Some(metadata) = &mut command.metadata {
        redactor.object(metadata);
    }
}
