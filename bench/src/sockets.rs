//! Many WebSockets at once, each of which starts a run of its own and watches it to its last frame.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use clap::Args;
use futures::{SinkExt as _, StreamExt as _};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

use crate::error::Error;
use crate::http::Failed;
use crate::serving;
use crate::stats::Percentiles;

/// Connections that are being opened at once; more would overflow the listening socket's queue.
const AT_ONCE: usize = 100;

/// The buffer of a connection, in bytes: what measures takes as little as possible.
const BUFFER: usize = 4 << 10;

/// The options of `daybook-bench sockets`.
#[derive(Debug, Args)]
pub struct Options {
    /// Where the server is
    #[arg(long, value_name = "HOST:PORT")]
    target: SocketAddr,
    /// The agent that runs
    #[arg(long, default_value = "my-agent")]
    agent: String,
    /// How many
    #[arg(long, default_value_t = 1_000)]
    count: usize,
    /// Hold each after its first token instead of watching it to its end; the server's model should hold its answers
    #[arg(long)]
    hold: bool,
}

/// What was watched.
#[derive(Debug, Serialize, Deserialize)]
pub struct Watched {
    /// Connections that showed what was waited for.
    pub open: usize,
    /// Those that failed before.
    pub failed: usize,
    /// One of the failures.
    pub why: Option<String>,
    /// From the first connection to the last frame of all.
    pub seconds: f64,
    /// From asking for a run to its last frame, or to its first token where they are held.
    pub waited: Percentiles,
}

/// A connection, and how long its client has waited, in microseconds.
type Seen = (WebSocketStream<TcpStream>, u32);

/// Opens them, says with one line of JSON what they showed, and holds those that are to be held until standard input is
/// closed or a signal comes.
pub async fn run(options: Options) -> Result<(), Error> {
    let begun = Instant::now();
    let permits = Arc::new(Semaphore::new(AT_ONCE));
    let wanted = if options.hold { "RunContent" } else { "RunCompleted" };
    let mut opening = JoinSet::new();
    for _ in 0..options.count {
        opening.spawn(watch(options.target, options.agent.clone(), wanted, permits.clone()));
    }
    let (mut held, mut waited, mut failed, mut why) = (Vec::new(), Vec::new(), 0, None);
    while let Some(seen) = opening.join_next().await {
        match seen.map_err(|error| Failed::Broken(error.to_string())).flatten() {
            Ok((socket, micros)) => {
                held.push(socket);
                waited.push(micros);
            }
            Err(error) => {
                failed += 1;
                why = Some(error.to_string());
            }
        }
    }
    let (open, seconds) = (held.len(), begun.elapsed().as_secs_f64());
    let waited = Percentiles::of_micros(&mut waited);
    crate::say(&serde_json::to_string(&Watched { open, failed, why, seconds, waited })?)?;
    if !options.hold {
        return Ok(());
    }
    tokio::select! {
        closed = serving::input_closed() => closed,
        asked = serving::asked_to_end() => asked,
    }
}

/// A connection that has shown an event of this name.
async fn watch(target: SocketAddr, agent: String, wanted: &str, permits: Arc<Semaphore>) -> Result<Seen, Failed> {
    let broken = |error: &dyn std::fmt::Display| Failed::Broken(error.to_string());
    let permit = permits.acquire().await.map_err(|error| broken(&error))?;
    let mut socket = open(target).await?;
    drop(permit);
    let begun = Instant::now();
    let start = json!({"action": "start-agent", "agent_id": agent, "message": "Hello", "user_id": "alice"});
    socket.send(Message::text(start.to_string())).await.map_err(|error| broken(&error))?;
    let head = format!("event: {wanted}\n");
    while let Some(message) = socket.next().await {
        match message.map_err(|error| broken(&error))? {
            Message::Text(text) if text.starts_with(&head) => {
                let micros = u32::try_from(begun.elapsed().as_micros()).unwrap_or(u32::MAX);
                return Ok((socket, micros));
            }
            Message::Text(text) if text.starts_with("{\"event\": \"error\"") => {
                return Err(Failed::Answer(text.as_str().to_owned()));
            }
            _ => {}
        }
    }
    Err(Failed::Answer(format!("a connection that ended before {wanted}")))
}

async fn open(target: SocketAddr) -> Result<WebSocketStream<TcpStream>, Failed> {
    let connect = |error: &dyn std::fmt::Display| Failed::Connect(error.to_string());
    let stream = TcpStream::connect(target).await.map_err(|error| connect(&error))?;
    stream.set_nodelay(true).map_err(|error| connect(&error))?;
    let config = WebSocketConfig::default().read_buffer_size(BUFFER).write_buffer_size(BUFFER);
    let address = format!("ws://{target}/agents/ws");
    let opened = tokio_tungstenite::client_async_with_config(address, stream, Some(config)).await;
    Ok(opened.map_err(|error| connect(&error))?.0)
}
