//! What the rows share: the private PostgreSQL with a database for each row, and the servers as child processes.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use daybook_store::MasterKey;
use daybook_store::embedded::Embedded;
use indicatif::ProgressBar;
use secrecy::{ExposeSecret as _, SecretString};
use serde::de::DeserializeOwned;
use tokio::process::Command;

use crate::child::{self, Child};
use crate::error::Error;
use crate::load::Outcome;
use crate::pace::Pace;
use crate::process;
use crate::seen::Kind;
use crate::serving::LISTENS;

/// A server starts, or a tool answers, within this.
pub const WITHIN: Duration = Duration::from_secs(90);

/// The agent of every server.
pub const AGENT: &str = "my-agent";

/// The agent whose one tool waits for a person.
pub const WAITING_AGENT: &str = "waiting-agent";

/// What the rows share.
pub struct World<'a> {
    /// For logs and definitions; removed at the end.
    pub dir: &'a Path,
    /// The private PostgreSQL.
    pub postgres: &'a Embedded,
    /// Where its programs are.
    pub postgres_bin: PathBuf,
    /// The program `daybook`.
    pub daybook: PathBuf,
    /// The repository, for the scripts and agno's server.
    pub root: PathBuf,
    /// How long and how often.
    pub pace: Pace,
    /// Files a process may open.
    pub files: u64,
    /// What is going on.
    pub bar: ProgressBar,
    /// Of every database.
    pub key: MasterKey,
}

/// A database of its own.
pub struct Database {
    /// Where it is.
    pub url: SecretString,
}

/// A server that answers.
pub struct Server {
    /// Its process.
    pub child: Child,
    /// Where it listens.
    pub address: SocketAddr,
}

/// What is asked of servers.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// What is asked for.
    pub kind: Kind,
    /// The agent, team or workflow that runs.
    pub id: &'static str,
    /// Connections.
    pub clients: u32,
    /// Whether answers are streamed.
    pub stream: bool,
    /// Requests a second over all; 0 is as many as there are answers.
    pub rate: u32,
}

impl Plan {
    /// Plain runs of an agent.
    pub fn runs(clients: u32) -> Self {
        Self { kind: Kind::Run, id: AGENT, clients, stream: false, rate: 0 }
    }

    /// Streamed answers.
    pub fn streamed(self) -> Self {
        Self { stream: true, ..self }
    }

    /// Of the model itself.
    pub fn of_model(self) -> Self {
        Self { kind: Kind::Model, ..self }
    }
}

/// What a load measured, and what it took from each process.
pub struct Measured {
    /// The load's own figures.
    pub outcome: Outcome,
    /// CPU milliseconds for each answer, by process.
    pub cpu: Vec<(String, f64)>,
}

impl Measured {
    /// Percentiles, errors and CPU, for a row's notes.
    pub fn note(&self) -> String {
        let latency = self.outcome.latency;
        let cpu: Vec<String> = self.cpu.iter().map(|(name, ms)| format!("{name} {ms:.2}")).collect();
        let errors = match self.outcome.errors.iter().next() {
            None => "no errors".to_owned(),
            Some((what, _)) => format!("{} ERRORS ({what})", self.outcome.failed()),
        };
        let (p50, p95, p99) = (latency.p50, latency.p95, latency.p99);
        format!("p50 {p50:.2} ms, p95 {p95:.2}, p99 {p99:.2}; {errors}; CPU ms for each: {}", cpu.join(", "))
    }
}

impl World<'_> {
    /// Tells what is going on.
    pub fn say(&self, what: impl Into<String>) {
        let what = what.into();
        if self.bar.is_hidden() {
            use std::io::Write as _;
            // Nobody is lost who does not see this.
            writeln!(std::io::stderr(), "{what}").ok();
        }
        self.bar.set_message(what);
    }

    fn bench(&self, verb: &str) -> Result<Command, Error> {
        let mut command = Command::new(std::env::current_exe().map_err(Error::io("find this program"))?);
        command.arg(verb);
        Ok(command)
    }

    /// A program of PostgreSQL's.
    pub fn postgres_program(&self, name: &str) -> Command {
        Command::new(self.postgres_bin.join(name))
    }

    /// A new, empty database.
    pub async fn database(&self, name: &str) -> Result<Database, Error> {
        let url = self.postgres.url();
        let mut create = self.postgres_program("createdb");
        create.arg(format!("--maintenance-db={}", url.expose_secret())).arg(name);
        child::output("createdb", create, WITHIN).await?;
        let url = url.expose_secret().replacen("localhost/daybook?", &format!("localhost/{name}?"), 1);
        Ok(Database { url: SecretString::from(url) })
    }

    /// Does what `sql` says.
    pub async fn sql(&self, database: &Database, sql: &str) -> Result<(), Error> {
        let mut psql = self.postgres_program("psql");
        psql.args(["--no-psqlrc", "--quiet", "--set", "ON_ERROR_STOP=1", "--command", sql]);
        psql.arg(database.url.expose_secret());
        child::output("psql", psql, WITHIN).await.map(drop)
    }

    /// What one query says, without headings.
    pub async fn ask(&self, database: &Database, query: &str) -> Result<String, Error> {
        let mut psql = self.postgres_program("psql");
        psql.args(["--no-psqlrc", "--quiet", "--tuples-only", "--no-align", "--command", query]);
        psql.arg(database.url.expose_secret());
        child::output("psql", psql, WITHIN).await
    }

    /// The mock model.
    pub async fn mock(&self, arguments: &[&str]) -> Result<Server, Error> {
        let mut command = self.bench("mock-model")?;
        command.args(arguments);
        self.listening("mock-model", command, LISTENS).await
    }

    /// The raw poem server whose answers have so many bytes.
    pub async fn echo(&self, bytes: usize) -> Result<Server, Error> {
        let mut command = self.bench("echo")?;
        command.args(["--bytes", &bytes.to_string()]);
        self.listening("echo", command, LISTENS).await
    }

    /// A Daybook with one agent whose model is `model`.
    pub async fn daybook(&self, name: &str, database: &Database, model: &Server) -> Result<Server, Error> {
        let file = self.dir.join(format!("{name}.yaml"));
        std::fs::write(&file, definitions(model.address)).map_err(Error::io("write the definitions"))?;
        let mut command = Command::new(&self.daybook);
        command.args(["serve", "--port", "0", "--log-level", "warn"]).arg("--config").arg(file);
        command.arg("--data-dir").arg(self.dir.join(name));
        self.give(&mut command, database);
        self.listening(name, command, "http://").await
    }

    /// A Daybook with teams and workflows too, whose model is `model`: see [`crate::serve`].
    pub async fn embedded(&self, name: &str, database: &Database, model: &Server) -> Result<Server, Error> {
        let mut command = self.bench("serve")?;
        command.args(["--model", &model.address.to_string()]).arg("--data-dir").arg(self.dir.join(name));
        self.give(&mut command, database);
        self.listening(name, command, LISTENS).await
    }

    fn give(&self, command: &mut Command, database: &Database) {
        command.env("DATABASE_URL", database.url.expose_secret());
        command.env("DAYBOOK_MASTER_KEY", self.key.to_base64().expose_secret());
    }

    /// Starts a server that says where it listens, behind `before`.
    async fn listening(&self, name: &str, command: Command, before: &str) -> Result<Server, Error> {
        let mut child = Child::start(name, command, self.dir)?;
        let line = child.line(WITHIN).await?;
        match address_in(&line, before) {
            Some(address) => Ok(Server { child, address }),
            None => Err(child.failed(format!("said {line:?}, which tells no address"))),
        }
    }

    /// Loads servers; `watched` are the processes whose CPU time is told.
    pub async fn load(&self, targets: &[SocketAddr], plan: Plan, watched: &[(&str, u32)]) -> Result<Measured, Error> {
        self.load_at(self.pace, targets, plan, watched).await
    }

    /// The same at another pace.
    pub async fn load_at(
        &self,
        pace: Pace,
        targets: &[SocketAddr],
        plan: Plan,
        watched: &[(&str, u32)],
    ) -> Result<Measured, Error> {
        let mut command = self.bench("load")?;
        let targets: Vec<String> = targets.iter().map(ToString::to_string).collect();
        command.args(["--json", "--id", plan.id, "--target", &targets.join(",")]);
        command.args(["--clients", &plan.clients.to_string(), "--rate", &plan.rate.to_string()]);
        command.args(["--warm-up", &pace.warm_up.to_string(), "--seconds", &pace.seconds.to_string()]);
        command.args(["--kind", &plan.kind.name()]);
        if plan.stream {
            command.arg("--stream");
        }
        let (outcome, cpu): (Outcome, _) = self.watch(command, watched).await?;
        let each = |seconds: f64| seconds * 1000.0 / (outcome.all.max(1) as f64);
        let mut cpu: Vec<(String, f64)> = cpu.into_iter().map(|(name, seconds)| (name, each(seconds))).collect();
        cpu.push(("load".to_owned(), each(outcome.cpu_seconds)));
        Ok(Measured { outcome, cpu })
    }

    /// Runs a verb of this program on a database's log; gives what it printed and the CPU seconds of PostgreSQL.
    pub async fn on_log<T: DeserializeOwned>(
        &self,
        verb: &str,
        arguments: &[&str],
        database: &Database,
    ) -> Result<(T, f64), Error> {
        let mut command = self.bench(verb)?;
        command.args(arguments);
        self.give(&mut command, database);
        let (printed, cpu) = self.watch(command, &[self.watch_postgres()]).await?;
        Ok((printed, cpu.first().map_or(0.0, |(_, seconds)| *seconds)))
    }

    /// PostgreSQL's process, to be watched.
    pub fn watch_postgres(&self) -> (&'static str, u32) {
        ("postgres", self.postgres.postmaster_pid())
    }

    async fn watch<T: DeserializeOwned>(
        &self,
        command: Command,
        watched: &[(&str, u32)],
    ) -> Result<(T, Vec<(String, f64)>), Error> {
        let before: Vec<f64> = watched.iter().map(|(_, pid)| process::tree_cpu_seconds(*pid)).collect();
        let printed = child::output("daybook-bench", command, WITHIN + WITHIN).await?;
        let took = watched
            .iter()
            .zip(before)
            .map(|((name, pid), before)| ((*name).to_owned(), process::tree_cpu_seconds(*pid) - before));
        Ok((serde_json::from_str(&printed)?, took.collect()))
    }

    /// Another verb of this program, for rows that need its process.
    pub fn start(&self, verb: &str, arguments: &[&str]) -> Result<Child, Error> {
        let mut command = self.bench(verb)?;
        command.args(arguments);
        Child::start(verb, command, self.dir)
    }
}

/// The address behind `before` in a line.
fn address_in(line: &str, before: &str) -> Option<SocketAddr> {
    let (_, after) = line.split_once(before)?;
    after.split_ascii_whitespace().next()?.trim_end_matches('/').parse().ok()
}

fn definitions(model: SocketAddr) -> String {
    format!(
        "\
server:
  limits:
    max_runs: 20000
models:
  main:
    provider: openai
    id: mock
    base_url: http://{model}/v1
    api_key: none
    retries: 0
tools:
  careful:
    built_in: [calculator]
    rules: {{calculator: {{approval: {{kind: required}}}}}}
agents:
  - id: {AGENT}
    name: My Agent
    instructions: Be brief.
    model: main
    history_runs: 3
  - id: {WAITING_AGENT}
    model: main
    tools: [careful]
"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_is_found_in_what_servers_say() {
        let address: SocketAddr = "127.0.0.1:8123".parse().unwrap();
        let line = "Daybook is ready at http://127.0.0.1:8123 (API: http://127.0.0.1:8123/docs)";
        assert_eq!(address_in(line, "http://"), Some(address));
        assert_eq!(address_in("listening on 127.0.0.1:8123", LISTENS), Some(address));
        assert_eq!(address_in("nothing here", LISTENS), None);
    }

    #[test]
    fn a_measurement_tells_its_errors() {
        let outcome = Outcome {
            count: 1,
            errors: [("status 503".to_owned(), 2)].into(),
            rate: 1.0,
            latency: crate::stats::Percentiles::default(),
            first_frame: crate::stats::Percentiles::default(),
            first_token: crate::stats::Percentiles::default(),
            all: 1,
            bytes: 1,
            cpu_seconds: 0.1,
        };
        let note = Measured { outcome, cpu: vec![("daybook".to_owned(), 0.5)] }.note();
        assert!(note.contains("2 ERRORS (status 503)") && note.contains("daybook 0.50"), "{note}");
    }
}
