//! Runs that wait for a person: what a start, memory and a new run notice of a great many of them.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::future::try_join_all;
use serde::Deserialize;
use tokio::time::sleep;

use crate::error::Error;
use crate::http::{Ask, Connection, Failed, body_of};
use crate::report::{Row, figure};
use crate::world::{Database, Plan, Server, WAITING_AGENT, World};

/// Connections that make the waiting runs.
const CONNECTIONS: u64 = 64;
/// For what a start leaves running to settle.
const SETTLE: Duration = Duration::from_secs(3);
const MEGABYTE: f64 = 1_048_576.0;

/// What one server was found to take.
#[derive(Default)]
struct Found {
    starts: Vec<f64>,
    memory: Vec<f64>,
    alone: Vec<f64>,
    rate: Vec<f64>,
    note: String,
}

/// The same three times over: without waiting runs, and with them; then one of them is decided.
pub async fn measure(world: &World<'_>, rows: &mut Vec<Row>) -> Result<(), Error> {
    let mock = world.mock(&[]).await?;
    let database = world.database("waiting").await?;
    // The first start migrates the database.
    world.daybook("daybook", &database, &mock).await?.child.stop().await;
    let without = look(world, &database, &mock, "none").await?;
    let count = world.pace.waiting;
    let daybook = world.daybook("daybook", &database, &mock).await?;
    world.say(format!("waiting: making {count} runs that wait"));
    let begun = Instant::now();
    make(daybook.address, count).await.map_err(|failed| Error::Missing(format!("a run that waits: {failed}")))?;
    let (took, held) = (begun.elapsed().as_secs_f64(), daybook.child.rss_bytes() as f64 / MEGABYTE);
    let deciding = decide(daybook.address).await.map_err(|failed| Error::Missing(format!("a decision: {failed}")))?;
    daybook.child.stop().await;
    let with = look(world, &database, &mock, &count.to_string()).await?;
    mock.child.stop().await;

    let many = figure(count as f64);
    let row = |what: &str, unit, with: &[f64], without: &[f64]| {
        Row::of(format!("{what}, {many} runs waiting"), unit, with).map(|row| row.beside("none waiting", without))
    };
    let made = format!(
        "they were made in {took:.0} s ({:.0} /s), and the server that made them took {held:.0} MB",
        count as f64 / took
    );
    rows.extend(row("start to \"ready\"", "ms", &with.starts, &without.starts).map(|row| row.note(made)));
    rows.extend(row("memory, idle", "MB", &with.memory, &without.memory));
    rows.extend(row("a new run at 1 client, p50", "ms", &with.alone, &without.alone));
    let notes = |row: Row| row.note(format!("with: {}", with.note)).note(format!("without: {}", without.note));
    rows.extend(row("new runs, 32 clients", "/s", &with.rate, &without.rate).map(notes));
    rows.extend(Row::of(format!("from a decision to the run's end, {many} runs waiting"), "ms", &[deciding]));
    Ok(())
}

async fn look(world: &World<'_>, database: &Database, mock: &Server, waiting: &str) -> Result<Found, Error> {
    let mut found = Found::default();
    // What a hundred thousand new runs leave for PostgreSQL to tidy up is not what they cost while they wait.
    for tidy in ["VACUUM (ANALYZE)", "CHECKPOINT"] {
        world.sql(database, tidy).await?;
    }
    for start in 1..=world.pace.starts {
        world.say(format!("waiting: {waiting} wait, start {start} of {}", world.pace.starts));
        let begun = Instant::now();
        let daybook = world.daybook("daybook", database, mock).await?;
        found.starts.push(begun.elapsed().as_secs_f64() * 1000.0);
        if start <= world.pace.repeats {
            sleep(SETTLE).await;
            found.memory.push(daybook.child.rss_bytes() as f64 / MEGABYTE);
            let watched = [("daybook", daybook.child.pid()), world.watch_postgres()];
            found.alone.push(world.load(&[daybook.address], Plan::runs(1), &[]).await?.outcome.latency.p50);
            let many = world.load(&[daybook.address], Plan::runs(32), &watched).await?;
            found.rate.push(many.outcome.rate);
            found.note = many.note();
        }
        daybook.child.stop().await;
    }
    Ok(found)
}

/// Starts so many runs, each of which pauses for an approval.
async fn make(target: SocketAddr, count: u64) -> Result<(), Failed> {
    let next = AtomicU64::new(0);
    let client = || async {
        let mut connection = Connection::open(target).await?;
        while next.fetch_add(1, Ordering::Relaxed) < count {
            let run = start(&mut connection).await?;
            if run.status != "PAUSED" {
                return Err(Failed::Answer(format!("a run that should wait is {}", run.status)));
            }
        }
        Ok(())
    };
    try_join_all((0..CONNECTIONS).map(|_| client())).await.map(drop)
}

#[derive(Deserialize)]
struct Run {
    run_id: String,
    session_id: String,
    status: String,
    #[serde(default)]
    tools: Vec<Tool>,
}

#[derive(Deserialize)]
struct Tool {
    approval_id: Option<String>,
}

async fn start(connection: &mut Connection) -> Result<Run, Failed> {
    let ask = Ask {
        path: format!("/agents/{WAITING_AGENT}/runs"),
        content_type: "application/x-www-form-urlencoded",
        body: Bytes::from("message=Hello&stream=false&user_id=alice"),
    };
    read(&body_of(connection.post(&ask).await?).await?)
}

/// Milliseconds from a decision to the end of the run that waited for it.
async fn decide(target: SocketAddr) -> Result<f64, Failed> {
    let mut connection = Connection::open(target).await?;
    let run = start(&mut connection).await?;
    let approval = run.tools.into_iter().find_map(|tool| tool.approval_id);
    let approval = approval.ok_or_else(|| Failed::Answer("a run without an approval".to_owned()))?;
    let ask = Ask {
        path: format!("/approvals/{approval}/resolve"),
        content_type: "application/json",
        body: Bytes::from(r#"{"status":"approved"}"#),
    };
    let begun = Instant::now();
    body_of(connection.post(&ask).await?).await?;
    let path = format!("/agents/{WAITING_AGENT}/runs/{}?session_id={}", run.run_id, run.session_id);
    while begun.elapsed() < Duration::from_secs(30) {
        let seen: Run = read(&body_of(connection.get(&path).await?).await?)?;
        if seen.status == "COMPLETED" {
            return Ok(begun.elapsed().as_secs_f64() * 1000.0);
        }
    }
    Err(Failed::Answer("the run did not end within 30 s of its decision".to_owned()))
}

fn read(body: &[u8]) -> Result<Run, Failed> {
    serde_json::from_slice(body).map_err(|error| Failed::Answer(format!("not a run: {error}")))
}
