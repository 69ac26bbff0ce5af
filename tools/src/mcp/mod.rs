//! Tools of MCP servers (Model Context Protocol), as a client of them.
//!
//! `options` is what a person writes; `keeper` holds a `connection` to the server, which `dial` made by `stdio` to a
//! `child` or by `http`, and has another made when it breaks; `listing` reads the tools, `result` what their calls give; `fault` says what went wrong.

mod child;
mod connection;
mod dial;
mod fault;
mod http;
mod keeper;
mod lines;
mod listing;
mod names;
mod options;
mod progress;
mod result;
mod stdio;
mod tool;
mod wire;
mod words;

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

use crate::{SourceError, Tool, ToolSource};
use fault::Means;
use keeper::{CLOSED, Shared};
pub use options::McpOptions;
use tool::McpTool;

/// The longest that closing takes.
const CLOSES_WITHIN: Duration = Duration::from_secs(12);

/// Changes are told at most this often: a server that announces them without end is not listed without end.
const CHANGES_EVERY: Duration = Duration::from_millis(500);

/// An MCP server as a source of tools.
///
/// The server is started or connected to when its tools are first asked for, and again when the connection breaks, with
/// growing pauses up to 30 seconds between tries. Calls that run when it breaks fail at once; calls while it is away fail
/// within 5 seconds.
///
/// A program leads a process group of its own, which ends with the source: by [`ToolSource::close`] in an orderly way (its
/// input ends, after 2 seconds SIGTERM, after another SIGKILL), and by dropping the source or the runtime. When Daybook itself
/// is killed, nobody is left to signal it: its input ends, at which servers that keep to the protocol leave; one that does not
/// read its input stays. A process that left the group is out of reach in every case.
///
/// The server's hints say what a second call of a tool does ([`Effect`](daybook_domain::tool::Effect)): trust them as far as
/// the server. Each call carries `daybook/idempotency_key`, `daybook/run_id`, `daybook/session_id` and `daybook/call_id` in
/// its `_meta`. Results have at most 4 MiB of text and 16 MiB of media. The server may not ask for anything in turn: it is
/// told that there are no roots, no sampling and no elicitation here.
pub struct McpSource {
    shared: Arc<Shared>,
    /// The keeping task, and whether it was started.
    keeping: Mutex<Option<JoinSet<()>>>,
    /// The generation of the tools that were last given, and when.
    given: AtomicU64,
    given_at: Mutex<Option<Instant>>,
}

impl McpSource {
    /// The server of these options under this name. Nothing is started yet.
    ///
    /// # Errors
    /// [`SourceError`] with what is wrong in the options, and how to mend it.
    pub fn new(name: impl Into<String>, options: McpOptions) -> Result<Self, SourceError> {
        let name = name.into();
        match Shared::new(name.clone(), options) {
            Ok(shared) => {
                Ok(Self { shared, keeping: Mutex::new(None), given: AtomicU64::new(0), given_at: Mutex::new(None) })
            }
            Err(fault) => Err(SourceError { source_name: name, fault }),
        }
    }

    fn start(&self) {
        let mut keeping = self.keeping.lock().unwrap_or_else(PoisonError::into_inner);
        if keeping.is_none() && !self.shared.stop.is_cancelled() {
            keeping.insert(JoinSet::new()).spawn(Arc::clone(&self.shared).keep());
        }
    }

    async fn list(&self) -> Result<Vec<Arc<dyn Tool>>, String> {
        if self.shared.stop.is_cancelled() {
            return Err(CLOSED.to_owned());
        }
        self.start();
        let options = &self.shared.options;
        let mut tries = 2;
        loop {
            let connection = self.shared.connection().await?;
            self.given.store(*self.shared.generation.borrow(), Ordering::Relaxed);
            *self.given_at.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
            let listing = listing::list(&connection, &self.shared.name, options.call_timeout_seconds);
            let listed = timeout(options.connect_timeout(), listing).await.map_err(|_| {
                let seconds = options.connect_timeout_seconds;
                format!("the server did not list its tools in {seconds} seconds: raise connect_timeout_seconds")
            })?;
            tries -= 1;
            match listed {
                Ok(listed) => {
                    let tool = |listed| Arc::new(McpTool::new(listed, Arc::clone(&self.shared))) as Arc<dyn Tool>;
                    return Ok(listed.into_iter().map(tool).collect());
                }
                // A listing changes nothing: it is made again over the next connection.
                Err(fault) if fault.means != Means::Answered && tries > 0 => {}
                Err(fault) => return Err(fault.words),
            }
        }
    }
}

#[async_trait]
impl ToolSource for McpSource {
    fn name(&self) -> &str {
        &self.shared.name
    }

    async fn tools(&self) -> Result<Vec<Arc<dyn Tool>>, SourceError> {
        let listed = Box::pin(self.list()).await;
        listed.map_err(|fault| SourceError {
            source_name: self.shared.name.clone(),
            fault: self.shared.secrets.hide(&fault),
        })
    }

    async fn changed(&self) {
        let mut generation = self.shared.generation.subscribe();
        let given = || self.given.load(Ordering::Relaxed);
        if generation.wait_for(|generation| *generation != given()).await.is_err() {
            std::future::pending::<()>().await;
        }
        let given_at = *self.given_at.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(given_at) = given_at {
            sleep_until(given_at + CHANGES_EVERY).await;
        }
    }

    async fn close(&self) {
        self.shared.stop.cancel();
        let keeping = self.keeping.lock().unwrap_or_else(PoisonError::into_inner).take();
        let closed = async {
            if let Some(mut keeping) = keeping {
                while keeping.join_next().await.is_some() {}
            }
            self.shared.tracker.close();
            self.shared.tracker.wait().await;
        };
        if timeout(CLOSES_WITHIN, closed).await.is_err() {
            tracing::warn!(source = self.shared.name, "the MCP server was left before its connection had ended");
        }
    }
}

impl Drop for McpSource {
    fn drop(&mut self) {
        self.shared.stop.cancel();
    }
}

impl fmt::Debug for McpSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("McpSource")
            .field("name", &self.shared.name)
            .field("options", &self.shared.options)
            .finish_non_exhaustive()
    }
}
