//! One PostgreSQL for the whole test binary, a database for each test.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::LazyLock;

use daybook_store::MasterKey;
use daybook_store::embedded::{Embedded, EmbeddedOptions};
use secrecy::ExposeSecret;
use sqlx::postgres::PgPoolOptions;
use sqlx::{AssertSqlSafe, Connection, PgConnection, PgPool};

use super::eventually;

static SHARED: LazyLock<String> = LazyLock::new(start);

/// Starts it on a thread that lives as long as the binary; gives its address.
fn start() -> String {
    let (ready, url) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        runtime.block_on(async move {
            let dir = super::server::open_dir().keep();
            let embedded = roomy(EmbeddedOptions { dir: dir.clone(), bin_dir: None }).await;
            stop_with_us(embedded.data_dir(), &dir);
            ready.send(embedded.url().expose_secret().to_owned()).unwrap();
            std::future::pending::<()>().await;
        });
    });
    url.recv().expect("PostgreSQL starts")
}

/// A PostgreSQL for as many tests at a time as there may be, each with the connections of several servers.
async fn roomy(options: EmbeddedOptions) -> Embedded {
    let narrow = Embedded::start(options.clone()).await.unwrap();
    let mut sql = PgConnection::connect(narrow.url().expose_secret()).await.unwrap();
    sqlx::query("ALTER SYSTEM SET max_connections = 1000").execute(&mut sql).await.unwrap();
    sql.close().await.unwrap();
    narrow.stop().await.unwrap();
    Embedded::start(options).await.unwrap()
}

/// Nothing of this binary runs at its end, so another process waits for that: its input closes then, however we end.
fn stop_with_us(data: &Path, dir: &Path) {
    const WAIT: &str = r#"cat
        pid=$(head -n 1 "$0/postmaster.pid") && kill -INT "$pid" && while kill -0 "$pid"; do sleep 0.1; done
        rm -rf "$0" "$1""#;
    let mut waiting = Command::new("sh");
    waiting.args(["-c", WAIT]).arg(data).arg(dir);
    let child = waiting.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    // Its input stays open.
    std::mem::forget(child);
}

/// An empty database with a master key of its own.
pub struct Database {
    /// Where it is.
    pub url: String,
    /// Its master key.
    pub key: String,
    /// For looks that no interface offers.
    pub sql: PgPool,
}

impl Database {
    /// A new one.
    pub async fn create() -> Self {
        let shared = tokio::task::spawn_blocking(|| SHARED.as_str()).await.unwrap();
        let name = format!("t{}", uuid::Uuid::now_v7().simple());
        let admin = Self::admin().await;
        sqlx::query(AssertSqlSafe(format!("CREATE DATABASE {name}"))).execute(&admin).await.unwrap();
        admin.close().await;
        let url = shared.replace("localhost/daybook?", &format!("localhost/{name}?"));
        Self::at(url, MasterKey::generate().unwrap().to_base64().expose_secret().to_owned())
    }

    /// A database that is there already.
    pub fn at(url: String, key: String) -> Self {
        let sql = PgPoolOptions::new().max_connections(2).connect_lazy(&url).unwrap();
        Self { url, key, sql }
    }

    /// Ends every connection and lets no new one in, as if PostgreSQL were gone.
    pub async fn go_away(&self) {
        self.admit("false").await;
        let admin = Self::admin().await;
        // One that was let in a moment ago shows up a moment later.
        eventually("nobody is connected", async || {
            let end = "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE datname = $1";
            let ended: Vec<bool> = sqlx::query_scalar(end).bind(self.name()).fetch_all(&admin).await.unwrap();
            ended.is_empty().then_some(())
        })
        .await;
        admin.close().await;
    }

    /// After [`Database::go_away`].
    pub async fn come_back(&self) {
        self.admit("true").await;
    }

    async fn admit(&self, whom: &str) {
        let admin = Self::admin().await;
        let statement = format!("ALTER DATABASE {} ALLOW_CONNECTIONS {whom}", self.name());
        sqlx::query(AssertSqlSafe(statement)).execute(&admin).await.unwrap();
        admin.close().await;
    }

    async fn admin() -> PgPool {
        let shared = tokio::task::spawn_blocking(|| SHARED.as_str()).await.unwrap();
        PgPool::connect(shared).await.unwrap()
    }

    fn name(&self) -> &str {
        let (_, after) = self.url.split_once("localhost/").unwrap();
        after.split('?').next().unwrap()
    }

    /// The types of a run's events, in order.
    pub async fn events_of(&self, run: &str) -> Vec<String> {
        sqlx::query_scalar("SELECT type FROM events WHERE stream_id = 'run:' || $1 ORDER BY version")
            .bind(run)
            .fetch_all(&self.sql)
            .await
            .unwrap()
    }

    /// The runs that were accepted under this one, in the order of the log.
    pub async fn children_of(&self, run: &str) -> Vec<String> {
        sqlx::query_scalar(
            "SELECT substr(stream_id, 5) FROM events WHERE type = 'RunAccepted' \
                 AND payload -> 'parent' ->> 'run_id' = $1 ORDER BY position",
        )
        .bind(run)
        .fetch_all(&self.sql)
        .await
        .unwrap()
    }

    /// How many rows there are for which `what` holds, a constant text with `$1`.
    pub async fn count(&self, what: &'static str, with: &str) -> i64 {
        sqlx::query_scalar(what).bind(with).fetch_one(&self.sql).await.unwrap()
    }

    /// Asserts that the run ended exactly once, and that nothing came after.
    pub async fn assert_ended_once(&self, run: &str) -> Vec<String> {
        let events = self.events_of(run).await;
        let ends = |event: &&String| ["RunSucceeded", "RunFailed", "RunCancelled"].contains(&event.as_str());
        assert_eq!(events.iter().filter(ends).count(), 1, "{run}: {events:?}");
        assert!(events.last().as_ref().is_some_and(ends), "{run}: {events:?}");
        events
    }
}
