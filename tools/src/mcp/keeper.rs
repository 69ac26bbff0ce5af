//! Keeps a source connected: starts the server when it is first asked for, and again when it went.
//!
//! One task does it, so that any number of calls start one server, and none that gives up stops it. How often: at once when
//! a connection breaks that held for [`STEADY`] or was the first, else after 0.5, 1, 2, … and at most [`LONGEST_PAUSE`]. It
//! goes on for as long as the source is open, since the tools are missed for as long.

use std::sync::Arc;
use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBuilder};
use rmcp::service::{RoleClient, RunningService};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::connection::Connection;
use super::dial::{Dial, Events};
use super::options::{Endpoint, McpOptions};
use crate::secrets::Secrets;

/// A connection that held this long was a good one.
const STEADY: Duration = Duration::from_secs(10);

/// The time after a try that failed.
const FIRST_PAUSE: Duration = Duration::from_millis(500);

/// The longest time between two tries.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// How long a call waits for a server that went and is being started again.
const PATIENCE: Duration = Duration::from_secs(5);

/// The longest an ending connection is waited for.
const CLOSES_WITHIN: Duration = Duration::from_secs(8);

/// How long calls of a connection that is given up may go on, when the server still answers them.
const FINISHES_WITHIN: Duration = Duration::from_secs(60);

/// What is said of a source that is of no use any more.
pub(super) const CLOSED: &str = "the source was closed";

/// How things stand.
#[derive(Clone)]
enum Status {
    /// Being started; why the connection before went, if there was one.
    Starting(Option<String>),
    Up(Arc<Connection>),
    /// There is none, and why; the next try comes by itself.
    Away(String),
    Closed,
}

/// What the source, its tools and the keeping task share.
pub(super) struct Shared {
    pub(super) name: String,
    pub(super) options: McpOptions,
    pub(super) secrets: Arc<Secrets>,
    /// Counts connections and announced changes: the tools may be others when it moved.
    pub(super) generation: watch::Sender<u64>,
    pub(super) stop: CancellationToken,
    /// Short tasks that end connections and tell servers of cancelled calls.
    pub(super) tracker: TaskTracker,
    endpoint: Endpoint,
    status: watch::Sender<Status>,
}

impl Shared {
    /// # Errors
    /// What is wrong with the options.
    pub(super) fn new(name: String, options: McpOptions) -> Result<Arc<Self>, String> {
        Ok(Arc::new(Self {
            name,
            endpoint: options.endpoint()?,
            secrets: Arc::new(options.secrets()),
            options,
            generation: watch::Sender::new(0),
            stop: CancellationToken::new(),
            tracker: TaskTracker::new(),
            status: watch::Sender::new(Status::Starting(None)),
        }))
    }

    /// The connection as it is, waiting for one that is being made.
    ///
    /// # Errors
    /// Why there is none, soon.
    pub(super) async fn connection(&self) -> Result<Arc<Connection>, String> {
        if self.stop.is_cancelled() {
            return Err(CLOSED.to_owned());
        }
        let mut status = self.status.subscribe();
        let wait = async {
            loop {
                match &*status.borrow_and_update() {
                    Status::Up(connection) if connection.is_good() => return Ok(Arc::clone(connection)),
                    Status::Up(_) | Status::Starting(_) => {}
                    Status::Away(why) => return Err(format!("{why}; it is tried again")),
                    Status::Closed => return Err(CLOSED.to_owned()),
                }
                if status.changed().await.is_err() {
                    return Err(CLOSED.to_owned());
                }
            }
        };
        let patience = match &*self.status.borrow() {
            // The first try ends by itself within this.
            Status::Starting(None) => self.options.connect_timeout() + CLOSES_WITHIN,
            _ => PATIENCE,
        };
        timeout(patience, wait).await.unwrap_or_else(|_| {
            Err(match &*self.status.borrow() {
                Status::Starting(Some(why)) => format!("{why}; it is being started again"),
                _ => "the server is being started: try again".to_owned(),
            })
        })
    }

    /// What the keeping task does, until the source is closed or dropped.
    pub(super) async fn keep(self: Arc<Self>) {
        let mut pauses = Pauses::default();
        let (mut before, mut told) = (None, None);
        loop {
            self.status.send_replace(Status::Starting(before.take()));
            let dial = Dial {
                endpoint: &self.endpoint,
                name: &self.name,
                secrets: &self.secrets,
                within: self.options.connect_timeout(),
                generation: &self.generation,
                tracker: &self.tracker,
            };
            let dialled = tokio::select! {
                dialled = Box::pin(dial.connect()) => dialled,
                () = self.stop.cancelled() => break,
            };
            let since = Instant::now();
            let (why, least) = match dialled {
                Ok((connection, running)) => (self.watch_over(connection, running).await, Duration::ZERO),
                Err(why) => (why, FIRST_PAUSE),
            };
            if self.stop.is_cancelled() {
                break;
            }
            let why = self.secrets.hide(&why);
            if since.elapsed() >= STEADY {
                pauses = Pauses::default();
            }
            let pause = pauses.next().max(least);
            // The same again and again is said once.
            if told.as_ref() == Some(&why) {
                tracing::debug!(source = self.name, ?pause, "no MCP server: {why}");
            } else {
                tracing::warn!(source = self.name, ?pause, "no MCP server: {why}");
                told = Some(why.clone());
            }
            if !pause.is_zero() {
                self.status.send_replace(Status::Away(why.clone()));
                tokio::select! {
                    () = sleep(pause) => {}
                    () = self.stop.cancelled() => break,
                }
            }
            before = Some(why);
        }
        self.status.send_replace(Status::Closed);
    }

    /// Lets calls have the connection until it ends, and says why it did.
    async fn watch_over(&self, connection: Connection, running: RunningService<RoleClient, Events>) -> String {
        let connection = Arc::new(connection);
        self.generation.send_modify(|generation| *generation += 1);
        self.status.send_replace(Status::Up(Arc::clone(&connection)));
        let finish = running.cancellation_token();
        let mut ended = Box::pin(running.waiting());
        tokio::select! {
            _ = &mut ended => {
                connection.ending.end("the connection to the server ended");
                return connection.ending.why();
            }
            () = connection.ending.over.cancelled() => {}
            () = connection.retired.cancelled() => {}
            () = connection.listen(&self.generation) => {}
            () = self.stop.cancelled() => connection.ending.end(CLOSED),
        }
        // Others that wait for this connection's answers may still get them.
        let why = connection.why_retired();
        let stop = self.stop.clone();
        let close = async move {
            let idle = async {
                while Arc::strong_count(&connection) > 1 && !connection.ending.over.is_cancelled() {
                    sleep(Duration::from_millis(100)).await;
                }
            };
            tokio::select! {
                _ = timeout(FINISHES_WITHIN, idle) => {}
                () = stop.cancelled() => {}
            }
            finish.cancel();
            let _ = timeout(CLOSES_WITHIN, ended).await;
            connection.ending.end("the connection to the server was closed");
        };
        self.tracker.spawn(close);
        why
    }
}

/// The times between tries.
#[derive(Default)]
struct Pauses(Option<backon::ExponentialBackoff>);

impl Pauses {
    /// Nothing at first, then more and more.
    fn next(&mut self) -> Duration {
        match &mut self.0 {
            Some(backoff) => backoff.next().unwrap_or(LONGEST_PAUSE),
            None => {
                let builder = ExponentialBuilder::default().with_min_delay(FIRST_PAUSE);
                self.0 = Some(builder.with_max_delay(LONGEST_PAUSE).with_factor(2.0).without_max_times().build());
                Duration::ZERO
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_have_an_end() {
        let mut pauses = Pauses::default();
        let seconds: Vec<f64> = (0..10).map(|_| pauses.next().as_secs_f64()).collect();
        assert_eq!(seconds, [0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0]);
        assert_eq!((0..2000).map(|_| pauses.next()).max(), Some(LONGEST_PAUSE));
    }
}
