//! `daybook doctor` on healthy and on broken setups.

use std::path::Path;
use std::process::Output;

use nix::errno::Errno;
use nix::sys::signal::kill;
use nix::unistd::Pid;
use serde_json::Value;
use sqlx::AssertSqlSafe;
use tokio::net::TcpListener;
use tokio::process::Command;
use tokio::time::timeout;

use crate::support::{Database, PATIENCE, World, clean, daybook, open_dir, text};

/// What it found, and its exit code.
struct Found {
    code: Option<i32>,
    findings: Vec<Value>,
    all: String,
}

impl Found {
    /// What is said of the check; exactly one finding in this state says these words.
    fn said(&self, check: &str, state: &str, words: &str) {
        let fits = |finding: &&Value| {
            finding["check"] == check && finding["state"] == state && text(&finding["says"]).contains(words)
        };
        let count = self.findings.iter().filter(fits).count();
        assert_eq!(count, 1, "{check} is {state} and says {words:?}, once:\n{}", self.all);
    }

    /// The checks that found a problem.
    fn problems(&self) -> Vec<&str> {
        let bad = self.findings.iter().filter(|finding| finding["state"] == "problem");
        bad.map(|finding| text(&finding["check"])).collect()
    }
}

async fn look(mut command: Command) -> Found {
    command.args(["doctor", "--json"]);
    finish(command).await
}

async fn finish(mut command: Command) -> Found {
    let Output { status, stdout, stderr } = timeout(PATIENCE, command.output()).await.unwrap().unwrap();
    let (out, err) = (String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap());
    let all = format!("{out}{err}");
    assert!(!all.contains("hush"), "a secret is shown:\n{all}");
    let report: Value = serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {all}"));
    let findings = report["findings"].as_array().unwrap().clone();
    let found = Found { code: status.code(), findings, all };
    let problems = found.problems().len();
    assert_eq!(report["problems"], problems, "{}", found.all);
    assert_eq!(found.code, Some(i32::from(problems > 0)), "{}", found.all);
    found
}

fn at(dir: &Path) -> Command {
    let mut command = daybook();
    command.current_dir(dir).env("DAYBOOK_PORT", "0");
    command
}

fn on(database: &Database, dir: &Path) -> Command {
    let mut command = at(dir);
    command.env("DATABASE_URL", &database.url).env("DAYBOOK_MASTER_KEY", &database.key);
    command
}

#[tokio::test]
async fn before_the_first_start_all_is_well_and_stays_untouched() {
    let dir = open_dir();
    let mut init = at(dir.path());
    assert!(init.arg("init").status().await.unwrap().success());
    let found = look(at(dir.path())).await;
    found.said("definitions", "ok", "my-agent");
    found.said("database", "ok", "will be made");
    found.said("master key", "ok", "will be made");
    found.said("postgresql", "ok", "version ");
    found.said("model", "ok", "demo model");
    assert_eq!(found.problems(), [""; 0]);
    assert!(!dir.path().join(".daybook").exists(), "it creates nothing");

    let mut shown = at(dir.path());
    let shown = String::from_utf8(shown.arg("doctor").output().await.unwrap().stdout).unwrap();
    assert!(shown.contains("ok       definitions ") && shown.contains("problems: 0"), "{shown}");
}

#[tokio::test]
async fn sources_of_tools_are_asked_and_their_programs_ended() {
    let dir = open_dir();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tools/tests/mcp_scripted.py");
    let program = |name: &str, how: &str, more: &str| {
        let (script, pids) = (script.display(), dir.path().join("pids"));
        let command = format!("[python3, {script}, {how}, {}]", pids.display());
        format!("  {name}:\n    mcp: {{command: {command}, env: {{KEY: hush-hush}}}}\n{more}")
    };
    let sources = [
        "tools:\n  docs:\n    files: {root: .}\n    allow: [read_file]\n".to_owned(),
        program("good", "plain", "    prefix: g_\n"),
        program("bad", "crash", ""),
        program("maybe", "crash", "    optional: true\n"),
    ];
    std::fs::write(dir.path().join("daybook.yaml"), sources.concat() + "agents:\n  - id: a\n").unwrap();
    let found = look(at(dir.path())).await;
    found.said("tools", "ok", "docs (files): read_file");
    found.said("tools", "ok", "good (mcp): g_call");
    found.said("tools", "problem", "the tools of bad: ");
    found.said("tools", "warning", "the tools of maybe: ");
    assert_eq!(found.problems(), ["tools"]);
    let pids = std::fs::read_to_string(dir.path().join("pids")).unwrap();
    for pid in pids.lines() {
        let ended = kill(Pid::from_raw(pid.parse().unwrap()), None);
        assert_eq!(ended, Err(Errno::ESRCH), "{pid} is still there");
    }
}

#[tokio::test]
async fn beside_a_running_server_it_sees_the_server() {
    let world = World::new().await;
    let path = world.dir.path().join("daybook.yaml");
    let model = format!("models:\n  a:\n    provider: openai\n    id: x\n    base_url: {}\n", world.model.url);
    std::fs::write(&path, format!("{model}agents:\n  - id: a\n")).unwrap();
    let server = world.serve(&path).await;
    server.api.run("a", &[("message", "Hello"), ("session_id", "s")]).await;

    let mut command = on(world.database(), world.dir.path());
    let port = server.api.base.rsplit(':').next().unwrap().to_owned();
    command.env("DAYBOOK_PORT", port);
    let found = look(command).await;
    found.said("address", "ok", "a Daybook serves");
    found.said("nodes", "ok", "running: ");
    found.said("migrations", "ok", "at this program's version");
    found.said("master key", "ok", "it is the one");
    found.said("view", "ok", "runs: ");
    found.said("view", "ok", "sessions: ");
    found.said("clock", "ok", " ms ");
    found.said("model", "ok", "answers");
    assert_eq!(found.problems(), [""; 0]);
    assert!(server.terminate().await.success());
}

#[tokio::test]
async fn a_private_database_is_looked_at_while_it_runs() {
    let world = World::with_private_database().await;
    let path = world.dir.path().join("daybook.yaml");
    std::fs::write(&path, "agents:\n  - id: a\n").unwrap();
    let server = world.serve(&path).await;
    let command = || {
        let mut command = at(world.dir.path());
        command.env("DAYBOOK_DATA_DIR", world.data_dir());
        command
    };
    let found = look(command()).await;
    found.said("database", "ok", "PostgreSQL ");
    found.said("master key", "ok", "it is the one");
    assert_eq!(found.problems(), [""; 0]);
    assert!(server.terminate().await.success());
    let found = look(command()).await;
    found.said("database", "ok", "does not run");
    assert!(world.postgres().is_none(), "it was not started");
}

#[tokio::test]
async fn what_is_given_wrong_is_told_at_once() {
    let dir = open_dir();
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    std::fs::write(dir.path().join("daybook.yaml"), "agents:\n  - id: a\n    modle: x\n").unwrap();
    let mut command = at(dir.path());
    command
        .env("DAYBOOK_PORT", taken.local_addr().unwrap().port().to_string())
        .env("DATABASE_URL", "postgres://u:hush@127.0.0.1:1/d")
        .env("DAYBOOK_PROT", "1")
        .env("OPENAI_API_KEY", "sk-hush")
        .env("OPENAI_BASE_URL", "http://127.0.0.1:1/v1");
    // Whoever holds the port says nothing.
    let found = look(command).await;
    found.said("definitions", "problem", "daybook.yaml:3:5: unknown field `modle`");
    found.said("environment", "warning", "DAYBOOK_PROT");
    found.said("address", "problem", "another program uses");
    found.said("master key", "problem", "openssl rand");
    found.said("database", "problem", "refused");
    found.said("model", "problem", "127.0.0.1 does not answer");
    assert_eq!(found.problems(), ["definitions", "address", "master key", "database", "model"]);
    drop(taken);

    let mut poor = Command::new("sh");
    clean(&mut poor);
    let run = format!("ulimit -n 200; exec {} doctor --json", env!("CARGO_BIN_EXE_daybook"));
    poor.current_dir(dir.path()).args(["-c", &run]).env("DAYBOOK_PORT", "0").env("DAYBOOK_POSTGRES_BIN_DIR", "/tmp");
    let found = finish(poor).await;
    found.said("files", "problem", "200 files");
    found.said("postgresql", "problem", "/tmp");
}

#[tokio::test]
async fn a_database_that_does_not_fit_is_told() {
    let world = World::new().await;
    let (database, dir) = (world.database(), world.dir.path());
    let path = dir.join("daybook.yaml");
    std::fs::write(&path, "agents:\n  - id: a\n").unwrap();
    let found = look(on(database, dir)).await;
    found.said("migrations", "ok", "empty");
    assert!(world.serve(&path).await.terminate().await.success());

    let other = Database::at(
        database.url.clone(),
        daybook::MasterKey::generate()
            .map(|key| secrecy::ExposeSecret::expose_secret(&key.to_base64()).to_owned())
            .unwrap(),
    );
    let found = look(on(&other, dir)).await;
    found.said("master key", "problem", "not the one");

    let absent = Database::at(database.url.replace("localhost/", "localhost/absent_"), database.key.clone());
    let found = look(on(&absent, dir)).await;
    found.said("database", "problem", "does not exist");

    let change = async |sql: &str| {
        sqlx::query(AssertSqlSafe(sql)).execute(&database.sql).await.unwrap();
    };
    let role = format!("poor_{}", uuid::Uuid::now_v7().simple());
    change(&format!("CREATE ROLE {role}")).await;
    change("REVOKE CREATE ON SCHEMA public FROM PUBLIC").await;
    change(&format!("GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}")).await;
    let poor = Database::at(format!("{}&options=-c%20role%3D{role}", database.url), database.key.clone());
    let found = look(on(&poor, dir)).await;
    found.said("database", "problem", "lacks the right to create tables");

    change(
        "INSERT INTO projection_parked (log_id, projection, version, stream_id, stream_version, position, error) \
         VALUES (1, 'runs', 1, 'run:r', 1, 1, 'cannot be read')",
    )
    .await;
    change("INSERT INTO nodes VALUES ('gone', 'far/1/2', 77, now(), now() - interval '1 hour')").await;
    let found = look(on(database, dir)).await;
    found.said("view", "problem", "run:r: cannot be read");
    found.said("nodes", "warning", "far (pid 77) has been silent for 36");
    assert_eq!(found.problems(), ["view"]);

    change("UPDATE _sqlx_migrations SET version = 99999 WHERE version = (SELECT max(version) FROM _sqlx_migrations)")
        .await;
    let found = look(on(database, dir)).await;
    found.said("migrations", "problem", "newer Daybook");
}
