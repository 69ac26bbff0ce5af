//! Many streaming runs held open at once: each has shown its first token, and waits for the rest.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use clap::Args;
use http_body_util::BodyExt as _;
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::error::Error;
use crate::http::{Ask, Connection, Failed};
use crate::seen::{Kind, Seen};
use crate::serving;

/// Streams that are being opened at once; more would overflow the listening socket's queue.
const AT_ONCE: usize = 100;

/// The options of `daybook-bench streams`.
#[derive(Debug, Args)]
pub struct Options {
    /// Where the server is; its model should hold its answers
    #[arg(long, value_name = "HOST:PORT")]
    target: SocketAddr,
    /// The agent that runs
    #[arg(long, default_value = "my-agent")]
    agent: String,
    /// How many
    #[arg(long, default_value_t = 10_000)]
    count: usize,
    /// How many runs they watch; each starts one of its own unless said
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    runs: Option<u64>,
}

/// What was opened.
#[derive(Debug, Serialize, Deserialize)]
pub struct Opened {
    /// Streams that showed a token and are held.
    pub open: usize,
    /// Streams that failed before.
    pub failed: usize,
    /// One of the failures.
    pub why: Option<String>,
    /// How long it took.
    pub seconds: f64,
}

/// Opens them, says so with one line of JSON, and holds them until standard input is closed or a signal comes.
pub async fn run(options: Options) -> Result<(), Error> {
    let begun = Instant::now();
    let own = ask(format!("/agents/{}/runs", options.agent), "message=Hello&stream=true&user_id=alice".to_owned());
    let mut asks = vec![own];
    if let Some(runs) = options.runs {
        asks = futures::future::try_join_all((0..runs).map(|n| background(&options, n))).await?;
    }
    let permits = Arc::new(Semaphore::new(AT_ONCE));
    let mut opening = JoinSet::new();
    for ask in asks.iter().cycle().take(options.count) {
        opening.spawn(open(options.target, ask.clone(), permits.clone()));
    }
    let (mut held, mut failed, mut why) = (Vec::new(), 0, None);
    while let Some(opened) = opening.join_next().await {
        match opened.map_err(|error| Failed::Broken(error.to_string())).flatten() {
            Ok(stream) => held.push(stream),
            Err(error) => {
                failed += 1;
                why = Some(error.to_string());
            }
        }
    }
    let seconds = begun.elapsed().as_secs_f64();
    crate::say(&serde_json::to_string(&Opened { open: held.len(), failed, why, seconds })?)?;
    tokio::select! {
        closed = serving::input_closed() => closed,
        asked = serving::asked_to_end() => asked,
    }
}

fn ask(path: String, form: String) -> Ask {
    Ask { path, content_type: "application/x-www-form-urlencoded", body: form.into() }
}

/// Starts a run that nobody watches yet; gives what a watcher of it asks.
async fn background(options: &Options, number: u64) -> Result<Ask, Error> {
    let name = format!("bench-{}-{number}", std::process::id());
    let form = format!("message=Hello&background=true&stream=false&user_id=alice&session_id={name}&run_id={name}");
    let started = async {
        let mut connection = Connection::open(options.target).await?;
        connection.submit(&ask(format!("/agents/{}/runs", options.agent), form)).await
    };
    started.await.map_err(|error| Error::Missing(format!("a run could not be started: {error}")))?;
    Ok(ask(format!("/agents/{}/runs/{name}/resume", options.agent), format!("session_id={name}&user_id=alice")))
}

/// A stream after its first token; it ends when this is dropped.
type Held = (Connection, hyper::body::Incoming);

async fn open(target: SocketAddr, ask: Ask, permits: Arc<Semaphore>) -> Result<Held, Failed> {
    let _permit = permits.acquire().await.map_err(|error| Failed::Broken(error.to_string()))?;
    let mut connection = Connection::open(target).await?;
    let mut body = connection.post(&ask).await?.into_body();
    let mut seen = Seen::new(Kind::Run);
    while !seen.has_token() {
        let Some(frame) = body.frame().await else {
            return Err(Failed::Answer("a stream that ended before its first token".to_owned()));
        };
        let frame = frame.map_err(|error| Failed::Broken(error.to_string()))?;
        if let Some(data) = frame.data_ref() {
            seen.take(data);
        }
    }
    Ok((connection, body))
}
