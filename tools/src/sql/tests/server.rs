//! One PostgreSQL for the tests of this crate, a database for each test.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::LazyLock;

use daybook_store::embedded::{Embedded, EmbeddedOptions};
use secrecy::{ExposeSecret as _, SecretString};
use sqlx::{AssertSqlSafe, PgPool};

static SHARED: LazyLock<String> = LazyLock::new(start);

/// The roles that tests log in as, beside the superuser `daybook`.
const LOGINS: [&str; 5] = ["reader", "writer", "powerful", "sneaky", "other"];

/// Starts it on a thread that lives as long as the test binary; gives its address.
fn start() -> String {
    let (ready, url) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        runtime.block_on(async move {
            let dir = tempfile::Builder::new().permissions(Permissions::from_mode(0o755)).tempdir().unwrap().keep();
            let embedded = Embedded::start(EmbeddedOptions { dir: dir.clone(), bin_dir: None }).await.unwrap();
            stop_with_us(embedded.data_dir(), &dir);
            let url = embedded.url().expose_secret().to_owned();
            let admin = PgPool::connect(&url).await.unwrap();
            admit(embedded.data_dir());
            for login in LOGINS {
                run(&admin, &format!("CREATE ROLE {login} LOGIN NOINHERIT")).await;
            }
            run(&admin, "GRANT pg_read_server_files TO powerful; GRANT daybook TO sneaky; GRANT other TO reader").await;
            run(&admin, "SELECT pg_reload_conf()").await;
            ready.send(url).unwrap();
            std::future::pending::<()>().await;
        });
    });
    url.recv().expect("PostgreSQL starts")
}

/// Lets the user of the tests log in as each of the roles.
fn admit(data: &Path) {
    let path = data.with_file_name("postgres.ident");
    let own = fs::read_to_string(&path).unwrap();
    let line = own.lines().next().unwrap().strip_suffix("daybook").unwrap().to_owned();
    let more: String = LOGINS.iter().map(|login| format!("{line}{login}\n")).collect();
    fs::write(&path, own + &more).unwrap();
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

pub(super) async fn run(pool: &PgPool, statements: &str) {
    sqlx::raw_sql(AssertSqlSafe(statements.to_owned())).execute(pool).await.unwrap();
}

/// A database of one test.
pub(super) struct Base {
    name: String,
    /// As a superuser.
    pub(super) admin: PgPool,
}

impl Base {
    pub(super) async fn create() -> Self {
        let shared = tokio::task::spawn_blocking(|| SHARED.as_str()).await.unwrap();
        let name = format!("t{}", uuid::Uuid::now_v7().simple());
        let first = PgPool::connect(shared).await.unwrap();
        run(&first, &format!("CREATE DATABASE {name}")).await;
        first.close().await;
        let admin = PgPool::connect(&Self::at(&name, "daybook")).await.unwrap();
        Self { name, admin }
    }

    fn at(name: &str, login: &str) -> String {
        SHARED.replace("daybook@localhost/daybook?", &format!("{login}@localhost/{name}?"))
    }

    /// Its address for a login.
    pub(super) fn url(&self, login: &str) -> SecretString {
        Self::at(&self.name, login).into()
    }
}
