//! What the figures are held against, of others' making: `pgbench`, and agno with AgentOS.

use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use secrecy::ExposeSecret as _;
use tokio::process::Command;
use tokio::time::{Instant, sleep};

use crate::child::{self, Child};
use crate::error::Error;
use crate::http::Connection;
use crate::pace::AgnoDb;
use crate::world::{Database, Server, WITHIN, World};

/// Rows of pgbench's accounts are 100,000 times this.
const SCALE: &str = "10";
/// Making a Python environment may mean downloading it.
const VENV_WITHIN: Duration = Duration::from_secs(300);

/// Makes pgbench's tables.
pub async fn prepare_pgbench(world: &World<'_>, database: &Database) -> Result<(), Error> {
    let mut command = world.postgres_program("pgbench");
    command.args(["--initialize", "--quiet", "--scale", SCALE]).arg(database.url.expose_secret());
    child::output("pgbench", command, WITHIN).await.map(drop)
}

/// Transactions a second of `pgbench -N` with 32 clients.
pub async fn pgbench(world: &World<'_>, database: &Database) -> Result<f64, Error> {
    let seconds = world.pace.seconds.ceil().to_string();
    let mut command = world.postgres_program("pgbench");
    command.args(["-N", "-n", "-c", "32", "-j", "2", "-T", &seconds]).arg(database.url.expose_secret());
    let printed = child::output("pgbench", command, WITHIN).await?;
    tps(&printed).ok_or_else(|| Error::Missing(format!("pgbench tells no tps: {printed}")))
}

/// `tps = 1234.5 (without initial connection time)`.
fn tps(printed: &str) -> Option<f64> {
    printed.lines().find_map(|line| line.strip_prefix("tps = "))?.split_ascii_whitespace().next()?.parse().ok()
}

/// Makes agno's Python environment where it is not there yet.
pub async fn prepare_agno(world: &World<'_>) -> Result<(), Error> {
    let mut command = Command::new(world.root.join("scripts/venv-bench.sh"));
    command.current_dir(&world.root);
    child::output("scripts/venv-bench.sh", command, VENV_WITHIN).await.map(drop)
}

/// AgentOS with an agent, a team and a workflow like Daybook's, on uvicorn; `group` is whose it is.
pub async fn agno(world: &World<'_>, group: &str, db: AgnoDb, workers: u32, model: &Server) -> Result<Server, Error> {
    let name = format!("{group}_{}_{workers}", slug(db));
    let db_url = match db {
        AgnoDb::Sqlite => format!("sqlite:///{}", world.dir.join(&name).with_extension("db").display()),
        AgnoDb::Postgres => alchemy(&world.database(&name).await?, "psycopg"),
        AgnoDb::AsyncPostgres => alchemy(&world.database(&name).await?, "psycopg_async"),
    };
    let port = free_port()?;
    let mut command = Command::new(world.root.join(".venv-bench/bin/python"));
    command.args(["-m", "uvicorn", "agno_server:app", "--host", "127.0.0.1", "--log-level", "warning"]);
    command.args(["--port", &port.to_string(), "--workers", &workers.to_string()]);
    command.arg("--app-dir").arg(world.root.join("bench"));
    command.env("AGNO_DB", db_url).env("MODEL_URL", format!("http://{}/v1", model.address));
    command.env("AGNO_TELEMETRY", "false").env("PYTHONDONTWRITEBYTECODE", "1").current_dir(world.dir);
    let mut child = Child::start(&name, command, world.dir)?;
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    wait_until_it_answers(&mut child, address).await?;
    Ok(Server { child, address })
}

/// A setting's name, for people.
pub fn title(db: AgnoDb, workers: u32) -> String {
    format!("agno, {}, {workers} worker{}", slug(db), if workers == 1 { "" } else { "s" })
}

/// As a part of names.
fn slug(db: AgnoDb) -> &'static str {
    match db {
        AgnoDb::Sqlite => "sqlite",
        AgnoDb::Postgres => "postgres",
        AgnoDb::AsyncPostgres => "async_postgres",
    }
}

/// SQLAlchemy's name of a database.
fn alchemy(database: &Database, driver: &str) -> String {
    let url = database.url.expose_secret();
    url.replacen("postgres://daybook@localhost/", &format!("postgresql+{driver}://daybook@/"), 1)
}

fn free_port() -> Result<u16, Error> {
    let listener = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    Ok(listener.map_err(Error::io("find a free port"))?.port())
}

async fn wait_until_it_answers(child: &mut Child, address: SocketAddr) -> Result<(), Error> {
    let until = Instant::now() + WITHIN;
    loop {
        if let Ok(mut connection) = Connection::open(address).await
            && connection.get("/health").await.is_ok()
        {
            return Ok(());
        }
        if !child.lives() {
            return Err(child.failed("ended at its start"));
        }
        if Instant::now() > until {
            return Err(child.failed(format!("did not answer within {} s", WITHIN.as_secs())));
        }
        sleep(Duration::from_millis(100)).await;
    }
}

#[cfg(test)]
mod tests {
    use secrecy::SecretString;

    use super::*;

    #[test]
    fn the_rate_of_pgbench_is_read() {
        let printed = "number of failed transactions: 0 (0.000%)\nlatency average = 9.8 ms\n\
            initial connection time = 40.2 ms\ntps = 3264.509 (without initial connection time)\n";
        assert_eq!(tps(printed), Some(3264.509));
        assert_eq!(tps("pgbench: error"), None);
    }

    #[test]
    fn sqlalchemy_gets_the_socket() {
        let url = "postgres://daybook@localhost/agno_1?host=%2Ftmp%2Fx&port=5432&sslmode=disable";
        let named = alchemy(&Database { url: SecretString::from(url) }, "psycopg");
        assert_eq!(named, "postgresql+psycopg://daybook@/agno_1?host=%2Ftmp%2Fx&port=5432&sslmode=disable");
    }
}
