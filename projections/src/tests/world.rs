//! A database of its own for each test, and events to put into its log.

use std::future::Future;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use daybook_domain::component::ComponentRef;
use daybook_domain::personal::Personal;
use daybook_domain::run::{
    CancelRequested, ErrorKind, OnBusy, RunAccepted, RunEvent, RunFailed, RunMode, RunState, RunStatus, RunSucceeded,
};
use daybook_domain::session::{Admission, SessionCreated, SessionEvent, SessionRunAdmitted, SessionRunEnded};
use daybook_domain::usage::Usage;
use daybook_domain::{ComponentId, DomainEvent, LogId, RunId, SessionId, StreamId, UserId};
use daybook_store::embedded::{Embedded, EmbeddedOptions};
use daybook_store::{Append, Expected, LeaseOp, MasterKey, Meta, Store, StoreOptions, StreamWrite, Subject};
use serde_json::{Map, Value};

pub(super) const LOG: LogId = LogId::DEFAULT;
/// Unix seconds of the first event.
pub(super) const NOW: i64 = 1_700_000_000;

pub(super) struct World {
    dir: tempfile::TempDir,
    embedded: Embedded,
    pub(super) store: Store,
}

impl World {
    pub(super) async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        // The server's user must be able to enter.
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o711)).unwrap();
        let options = EmbeddedOptions { dir: dir.path().to_path_buf(), bin_dir: None };
        let embedded = Embedded::start(options).await.unwrap();
        let store = open(&dir, &embedded).await;
        Self { dir, embedded, store }
    }

    /// The store of another node.
    pub(super) async fn another(&self) -> Store {
        open(&self.dir, &self.embedded).await
    }

    pub(super) async fn append(&self, writes: Vec<StreamWrite>) -> u64 {
        append(&self.store, writes).await
    }

    pub(super) async fn end(self) {
        self.store.close().await;
        self.embedded.stop().await.unwrap();
    }
}

async fn open(dir: &tempfile::TempDir, embedded: &Embedded) -> Store {
    let key = MasterKey::load_or_create(&dir.path().join("master.key")).unwrap();
    Store::open(StoreOptions::new(embedded.url(), key)).await.unwrap()
}

/// Appends and gives the head.
pub(super) async fn append(store: &Store, writes: Vec<StreamWrite>) -> u64 {
    let meta = Meta {
        principal: "anonymous".to_owned(),
        interface: "test".to_owned(),
        correlation_id: None,
        causation_id: None,
        occurred_at_ms: NOW * 1000,
    };
    let request = Append { log_id: LOG, writes, command: None, lease: LeaseOp::None, meta };
    store.append(request).await.unwrap().last_position
}

/// Waits for a condition; how long it took decides nothing.
pub(super) async fn until<F: Future<Output = bool>>(mut holds: impl FnMut() -> F) {
    let wait = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(180), wait).await.unwrap();
}

pub(super) fn session(id: &str) -> SessionId {
    SessionId::parse(id).unwrap()
}

pub(super) fn run(id: &str) -> RunId {
    RunId::parse(id).unwrap()
}

pub(super) fn user(id: &str) -> UserId {
    UserId::parse(id).unwrap()
}

pub(super) fn agent(id: &str) -> ComponentRef {
    ComponentRef::agent(ComponentId::parse(id).unwrap())
}

pub(super) fn write(stream: StreamId, of: &str, events: Vec<DomainEvent>) -> StreamWrite {
    let subject = Some(Subject { session: session(of), user: None });
    StreamWrite { stream, expected: Expected::Any, subject, events }
}

pub(super) fn created(id: &str, owner: Option<&str>, component: &str, name: Option<&str>, at: i64) -> SessionEvent {
    let metadata = Map::from_iter([("no\0te".to_owned(), Value::from("x\0y"))]);
    SessionEvent::Created(SessionCreated {
        session_id: session(id),
        user_id: owner.map(user),
        component: Some(agent(component)),
        name: name.map(str::to_owned).into(),
        metadata: Some(metadata).into(),
        at,
    })
}

pub(super) fn admitted(id: &str, at: i64) -> SessionEvent {
    SessionEvent::RunAdmitted(SessionRunAdmitted { run_id: run(id), admission: Admission::Active, again: false, at })
}

pub(super) fn left(id: &str, at: i64) -> SessionEvent {
    let usage = Usage { input_tokens: 2, output_tokens: 3, total_tokens: 5, ..Usage::default() };
    let model = Some(("m".to_owned(), "p".to_owned()));
    SessionEvent::RunEnded(SessionRunEnded {
        run_id: run(id),
        status: RunStatus::Completed,
        usage,
        model,
        at,
        others: Default::default(),
    })
}

pub(super) fn accepted(id: &str, of: &str, owner: Option<&str>, component: &str, message: &str, at: i64) -> RunEvent {
    RunEvent::Accepted(Box::new(RunAccepted {
        run_id: run(id),
        session_id: session(of),
        user_id: owner.map(user),
        component: agent(component),
        config_hash: "hash".to_owned(),
        mode: RunMode::Plain,
        on_busy: OnBusy::Enqueue,
        admission: Admission::Active,
        cancel_on_disconnect: false,
        message: message.to_owned().into(),
        media: Personal::default(),
        dependencies: Personal::default(),
        metadata: Personal::default(),
        output_schema: Personal::default(),
        forked: None,
        base: None.into(),
        copied_from: None,
        at_ms: at * 1000,
        frame: 0,
        parent: None,
    }))
}

pub(super) fn succeeded(at: i64) -> RunEvent {
    let session_state = Map::from_iter([("count".to_owned(), Value::from(1))]).into();
    RunEvent::Succeeded(RunSucceeded { session_state, duration: 1.5, frame: 4, at_ms: at * 1000 })
}

pub(super) fn failed(message: &str, at: i64) -> RunEvent {
    RunEvent::Failed(RunFailed {
        error: ErrorKind::ModelTimeout,
        message: message.to_owned().into(),
        session_state: Personal::default(),
        duration: 2.0,
        frame: 4,
        at_ms: at * 1000,
    })
}

pub(super) fn cancelled(at: i64) -> RunEvent {
    RunEvent::CancelRequested(CancelRequested { by: "user".to_owned(), why: Personal::default(), at_ms: at * 1000 })
}

pub(super) fn run_write(id: &str, of: &str, events: &[RunEvent]) -> StreamWrite {
    write(StreamId::run(&run(id)), of, events.iter().cloned().map(DomainEvent::Run).collect())
}

pub(super) fn session_write(id: &str, events: Vec<SessionEvent>) -> StreamWrite {
    write(StreamId::session(&session(id)), id, events.into_iter().map(DomainEvent::Session).collect())
}

pub(super) fn fold(events: &[RunEvent]) -> RunState {
    let mut state = RunState::default();
    events.iter().for_each(|event| state.evolve(event));
    state
}
