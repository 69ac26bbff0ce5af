//! One PostgreSQL for all tests that run at a time, a database for each, and words for requests.

use std::sync::{Arc, Mutex, Weak};

use daybook_domain::personal::Personal;
use daybook_domain::session::{SessionEvent, SessionStateChanged, StatePatch};
use daybook_domain::{DomainEvent, LogId, RunId, SessionId, StreamId, UserId};
use daybook_store::embedded::{Embedded, EmbeddedOptions};
use daybook_store::{Append, Expected, LeaseOp, MasterKey, Meta, Store, StoreOptions, StreamWrite, Subject};
use secrecy::{ExposeSecret, SecretString};
use serde_json::json;
use sqlx::{AssertSqlSafe, Connection, PgConnection, PgPool};

pub const LOG: LogId = LogId::DEFAULT;

static SHARED: Mutex<Weak<Server>> = Mutex::new(Weak::new());

/// A running PostgreSQL; stopped and removed with its last user.
struct Server {
    url: SecretString,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Server {
    fn shared() -> Arc<Self> {
        let mut shared = SHARED.lock().unwrap();
        if let Some(server) = shared.upgrade() {
            return server;
        }
        let server = Arc::new(Self::start());
        *shared = Arc::downgrade(&server);
        server
    }

    // On a runtime of its own: each test's ends with the test.
    fn start() -> Self {
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let (ready, url) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
            runtime.block_on(async move {
                let dir = tempfile::tempdir().unwrap();
                let options = EmbeddedOptions { dir: dir.path().join("daybook"), bin_dir: None };
                let embedded = roomy(options).await;
                ready.send(embedded.url()).unwrap();
                stopped.await.ok();
                let data = embedded.data_dir().to_owned();
                embedded.stop().await.unwrap();
                std::fs::remove_dir_all(data).ok();
            });
        });
        Self { url: url.recv().expect("PostgreSQL starts"), stop: Some(stop), thread: Some(thread) }
    }
}

/// A PostgreSQL for as many tests at a time as there may be, each with the connections of several nodes.
async fn roomy(options: EmbeddedOptions) -> Embedded {
    let narrow = Embedded::start(options.clone()).await.unwrap();
    let mut sql = PgConnection::connect(narrow.url().expose_secret()).await.unwrap();
    sqlx::query("ALTER SYSTEM SET max_connections = 1000").execute(&mut sql).await.unwrap();
    sql.close().await.unwrap();
    narrow.stop().await.unwrap();
    Embedded::start(options).await.unwrap()
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

/// An empty database.
pub struct Database {
    server: Arc<Server>,
    name: String,
    pub key: SecretString,
}

impl Database {
    pub async fn create() -> Self {
        let server = tokio::task::spawn_blocking(Server::shared).await.unwrap();
        let name = format!("t{}", uuid::Uuid::now_v7().simple());
        let admin = PgPool::connect(server.url.expose_secret()).await.unwrap();
        sqlx::query(AssertSqlSafe(format!("CREATE DATABASE {name}"))).execute(&admin).await.unwrap();
        admin.close().await;
        Self { server, name, key: MasterKey::generate().unwrap().to_base64() }
    }

    pub fn url(&self) -> SecretString {
        self.server.url.expose_secret().replace("localhost/daybook?", &format!("localhost/{}?", self.name)).into()
    }

    pub fn options(&self) -> StoreOptions {
        StoreOptions::new(self.url(), MasterKey::from_base64(self.key.expose_secret()).unwrap())
    }

    /// How many rows of a table were ever read, from it or by way of an index. All stores must be closed: what a
    /// connection read is told when it ends.
    pub async fn touched(&self, table: &str) -> i64 {
        let mut sql = PgConnection::connect(self.url().expose_secret()).await.unwrap();
        let others = "SELECT count(*) FROM pg_stat_activity \
                      WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'";
        while sqlx::query_scalar::<_, i64>(others).fetch_one(&mut sql).await.unwrap() > 0 {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        let read = "SELECT coalesce(sum(seq_tup_read + coalesce(idx_tup_fetch, 0)), 0)::bigint \
                    FROM pg_stat_user_tables WHERE relname = $1";
        let touched = sqlx::query_scalar(read).bind(table).fetch_one(&mut sql).await.unwrap();
        sql.close().await.unwrap();
        touched
    }

    pub async fn store(&self) -> Store {
        Store::open(self.options()).await.unwrap()
    }
}

pub async fn fresh() -> (Database, Store) {
    let database = Database::create().await;
    let store = database.store().await;
    (database, store)
}

pub fn session(name: &str) -> SessionId {
    SessionId::parse(name).unwrap()
}

pub fn run(name: &str) -> RunId {
    RunId::parse(name).unwrap()
}

pub fn subject(name: &str) -> Subject {
    Subject { session: session(name), user: Some(UserId::parse("alice").unwrap()) }
}

pub fn stream(name: &str) -> StreamId {
    StreamId::session(&session(name))
}

/// An event with something personal in it.
pub fn said(text: &str) -> DomainEvent {
    let set = json!({ "said": text }).as_object().unwrap().clone();
    let patch = StatePatch { set, unset: vec![] };
    SessionEvent::StateChanged(SessionStateChanged { run_id: None, patch: patch.into(), at: 1 }).into()
}

pub fn erased() -> DomainEvent {
    SessionEvent::StateChanged(SessionStateChanged { run_id: None, patch: Personal::Erased, at: 1 }).into()
}

pub fn meta() -> Meta {
    Meta {
        principal: "user:alice".to_owned(),
        interface: "test".to_owned(),
        correlation_id: Some("c-1".to_owned()),
        causation_id: None,
        occurred_at_ms: 1_700_000_000_123,
    }
}

pub fn write(name: &str, expected: Expected, texts: &[&str]) -> StreamWrite {
    let events = texts.iter().map(|text| said(text)).collect();
    StreamWrite { stream: stream(name), expected, subject: Some(subject(name)), events }
}

pub fn request(writes: Vec<StreamWrite>) -> Append {
    Append { log_id: LOG, writes, command: None, lease: LeaseOp::None, meta: meta() }
}

/// A request that adds `texts` to one session's stream.
pub fn add(name: &str, expected: Expected, texts: &[&str]) -> Append {
    request(vec![write(name, expected, texts)])
}
