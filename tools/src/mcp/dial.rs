//! How a connection comes to be: the server is started or called, and greeted.

use std::sync::Arc;
use std::time::Duration;

use rmcp::handler::client::ClientHandler;
use rmcp::model::{ClientCapabilities, ClientConfig, Implementation, ProgressNotificationParam, ProtocolVersion};
use rmcp::service::{
    ClientInitializeError, ClientLifecycleMode, ClientServiceExt as _, NotificationContext, RoleClient, RunningService,
};
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use super::child::Program;
use super::connection::Connection;
use super::fault::of_greeting;
use super::http;
use super::options::Endpoint;
use super::progress::Calls;
use super::stdio::{Ending, Stdio};
use crate::secrets::Secrets;

/// What answers the server's own messages.
pub(super) struct Events {
    calls: Arc<Calls>,
    generation: watch::Sender<u64>,
}

impl ClientHandler for Events {
    fn get_info(&self) -> ClientConfig {
        let me = Implementation::new("daybook", env!("CARGO_PKG_VERSION"));
        let mut info = ClientConfig::new(ClientCapabilities::default(), me);
        // The newest that has a greeting.
        info.protocol_version = ProtocolVersion::LATEST_WITH_INITIALIZE;
        info
    }

    async fn on_progress(&self, report: ProgressNotificationParam, _context: NotificationContext<RoleClient>) {
        self.calls.show(&report);
    }

    async fn on_tool_list_changed(&self, _context: NotificationContext<RoleClient>) {
        self.generation.send_modify(|generation| *generation += 1);
    }
}

/// How to connect.
pub(super) struct Dial<'a> {
    pub(super) endpoint: &'a Endpoint,
    pub(super) name: &'a str,
    pub(super) secrets: &'a Arc<Secrets>,
    pub(super) within: Duration,
    pub(super) generation: &'a watch::Sender<u64>,
    pub(super) tracker: &'a TaskTracker,
}

/// A connection, and what runs it.
type Dialled = (Connection, RunningService<RoleClient, Events>);

/// Why there is none.
enum Refusal {
    /// The server took the greeting for a message and refused it.
    Refused(String),
    Failed(String),
}

impl Dial<'_> {
    /// Connects. Servers of every age know the greeting; one that refuses it may know only the protocol that has none.
    ///
    /// # Errors
    /// Why there is no connection, and how to mend it.
    pub(super) async fn connect(&self) -> Result<Dialled, String> {
        let connect = async {
            let refused = match self.greet(ClientLifecycleMode::Initialize).await {
                Ok(dialled) => return Ok(dialled),
                Err(Refusal::Failed(why)) => return Err(why),
                Err(Refusal::Refused(why)) => why,
            };
            let without = ClientLifecycleMode::Discover { preferred_versions: vec![ProtocolVersion::LATEST] };
            self.greet(without).await.map_err(|_| refused)
        };
        timeout(self.within, Box::pin(connect)).await.unwrap_or_else(|_| {
            Err(format!(
                "the server did not answer the greeting in {} seconds: see whether it speaks the Model Context Protocol, or \
                 raise connect_timeout_seconds",
                self.within.as_secs()
            ))
        })
    }

    async fn greet(&self, lifecycle: ClientLifecycleMode) -> Result<Dialled, Refusal> {
        let (ending, calls) = (Ending::default(), Arc::<Calls>::default());
        let events = Events { calls: Arc::clone(&calls), generation: self.generation.clone() };
        let greeted = match self.endpoint {
            Endpoint::Program(launch) => {
                let (program, pipes) = Program::start(launch, self.name, self.secrets).map_err(Refusal::Failed)?;
                let transport = Stdio::new(program, pipes, ending.clone());
                events.serve_with_lifecycle(transport, lifecycle).await
            }
            Endpoint::Address(remote) => {
                let transport = http::transport(remote, self.within, ending.clone()).map_err(Refusal::Failed)?;
                events.serve_with_lifecycle(transport, lifecycle).await
            }
        };
        match greeted {
            Ok(running) => {
                let peer = running.peer().clone();
                Ok((Connection::new(peer, calls, self.tracker.clone(), ending), running))
            }
            Err(fault) => {
                let words = of_greeting(&fault, ending.over.is_cancelled().then(|| ending.why()));
                Err(match fault {
                    ClientInitializeError::JsonRpcError(_) => Refusal::Refused(words),
                    _ => Refusal::Failed(words),
                })
            }
        }
    }
}
