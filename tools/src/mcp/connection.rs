//! One connection to a server, from the greeting to its end.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rmcp::handler::client::ClientHandler;
use rmcp::model::{
    CallToolRequest, CallToolRequestParams, ClientCapabilities, ClientConfig, ClientRequest, Implementation,
    ListToolsRequest, PaginatedRequestParams, ProgressNotificationParam, ProtocolVersion, RequestMetaObject,
    ServerResult,
};
use rmcp::service::{
    NotificationContext, Peer, PeerRequestOptions, RequestHandle, RoleClient, RunningService, ServiceError, ServiceExt,
};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::child::Program;
use super::fault::{Fault, Means, of_greeting};
use super::http;
use super::options::Endpoint;
use super::progress::Calls;
use super::secrets::Secrets;
use super::stdio::{Ending, Stdio};
use crate::ToolContext;

/// How long the server may take to be told that a call is not waited for any more.
const TELLS_WITHIN: Duration = Duration::from_secs(5);

/// What answers the server's own messages.
pub(super) struct Events {
    calls: Arc<Calls>,
    generation: watch::Sender<u64>,
}

impl ClientHandler for Events {
    fn get_info(&self) -> ClientConfig {
        let me = Implementation::new("daybook", env!("CARGO_PKG_VERSION"));
        let mut info = ClientConfig::new(ClientCapabilities::default(), me);
        // The newest that has a greeting: servers of every age know it.
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

/// A connection that was greeted.
pub(super) struct Connection {
    peer: Peer<RoleClient>,
    calls: Arc<Calls>,
    tracker: TaskTracker,
    runtime: Handle,
    /// Why and when it ended.
    pub(super) ending: Ending,
    /// Fires when new calls need another connection; those that wait may still get their answers.
    pub(super) retired: CancellationToken,
    why_retired: OnceLock<String>,
}

impl Dial<'_> {
    /// Starts or calls the server, and greets it.
    ///
    /// # Errors
    /// Why there is no connection, and how to mend it.
    pub(super) async fn connect(&self) -> Result<(Connection, RunningService<RoleClient, Events>), String> {
        let ending = Ending::default();
        let calls = Arc::<Calls>::default();
        let events = Events { calls: Arc::clone(&calls), generation: self.generation.clone() };
        let greeting = async {
            match self.endpoint {
                Endpoint::Program(launch) => {
                    let (program, pipes) = Program::start(launch, self.name, self.secrets)?;
                    let greeted = events.serve(Stdio::new(program, pipes, ending.clone())).await;
                    greeted.map_err(|fault| of_greeting(&fault, ending.over.is_cancelled().then(|| ending.why())))
                }
                Endpoint::Address(remote) => {
                    let transport = http::transport(remote, self.within, ending.clone())?;
                    events.serve(transport).await.map_err(|fault| of_greeting(&fault, None))
                }
            }
        };
        let running = timeout(self.within, Box::pin(greeting)).await.unwrap_or_else(|_| {
            Err(format!(
                "the server did not answer the greeting in {} seconds: see whether it speaks the Model Context Protocol, or \
                 raise connect_timeout_seconds",
                self.within.as_secs()
            ))
        })?;
        let peer = running.peer().clone();
        let (tracker, runtime) = (self.tracker.clone(), Handle::current());
        let (retired, why_retired) = (CancellationToken::new(), OnceLock::new());
        Ok((Connection { peer, calls, tracker, runtime, ending, retired, why_retired }, running))
    }
}

/// A request that is waited for. Dropped before its answer, it tells the server to stop.
struct Waiting<'a> {
    connection: &'a Connection,
    handle: Option<RequestHandle<RoleClient>>,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let Some(handle) = self.handle.take() else { return };
        self.connection.calls.end(&handle.progress_token);
        if self.connection.ending.over.is_cancelled() {
            return;
        }
        let tell = async move {
            let told = handle.cancel(Some("nobody waits for it any more".to_owned()));
            // A server that does not take it has bigger troubles.
            let _ = timeout(TELLS_WITHIN, told).await;
        };
        self.connection.tracker.spawn_on(tell, &self.connection.runtime);
    }
}

impl Connection {
    /// Whether new calls may have it.
    pub(super) fn is_good(&self) -> bool {
        !self.retired.is_cancelled() && !self.ending.over.is_cancelled() && !self.peer.is_transport_closed()
    }

    /// Keeps new calls off it.
    pub(super) fn retire(&self, why: &str) {
        // The first reason is the one that led to the others.
        let _ = self.why_retired.set(why.to_owned());
        self.retired.cancel();
    }

    /// Why it is of no use any more.
    pub(super) fn why_retired(&self) -> String {
        self.why_retired.get().cloned().unwrap_or_else(|| self.ending.why())
    }

    /// Calls a tool and waits for its result.
    ///
    /// # Errors
    /// The server's refusal, or how the connection ended: at once when it does.
    pub(super) async fn call(
        &self,
        name: &str,
        request: CallToolRequestParams,
        meta: RequestMetaObject,
        context: &ToolContext,
    ) -> Result<ServerResult, Fault> {
        let request = ClientRequest::CallToolRequest(CallToolRequest::new(request));
        let answer = self.request(request, PeerRequestOptions::no_options().with_meta(meta), Some(context));
        tokio::select! {
            biased;
            answer = answer => answer,
            () = context.cancelled.cancelled() => Err(Fault::answered(format!("{name} was cancelled"))),
        }
    }

    /// A page of the server's tools.
    ///
    /// # Errors
    /// The same.
    pub(super) async fn page(&self, cursor: Option<String>) -> Result<ServerResult, Fault> {
        let params = cursor.map(|cursor| PaginatedRequestParams::default().with_cursor(Some(cursor)));
        let request = ListToolsRequest { method: Default::default(), params, extensions: Default::default() };
        self.request(ClientRequest::ListToolsRequest(request), PeerRequestOptions::no_options(), None).await
    }

    /// Whether the server said that it has tools.
    pub(super) fn has_tools(&self) -> bool {
        self.peer.peer_info().is_some_and(|info| info.capabilities.tools.is_some())
    }

    async fn request(
        &self,
        request: ClientRequest,
        options: PeerRequestOptions,
        context: Option<&ToolContext>,
    ) -> Result<ServerResult, Fault> {
        let sent = tokio::select! {
            sent = self.peer.send_request_with_option(request, options) => sent,
            () = self.ending.over.cancelled() => Err(ServiceError::TransportClosed),
        };
        let handle = sent.map_err(|fault| self.fault(fault))?;
        if let Some(context) = context {
            self.calls.begin(handle.progress_token.clone(), context.clone());
        }
        let mut waiting = Waiting { connection: self, handle: Some(handle) };
        let Some(handle) = waiting.handle.as_mut() else { return Err(Fault::broken("no request was made")) };
        let answer = tokio::select! {
            // What arrived before the end counts.
            biased;
            answer = &mut handle.rx => answer.unwrap_or(Err(ServiceError::TransportClosed)),
            () = self.ending.over.cancelled() => Err(ServiceError::TransportClosed),
        };
        self.calls.end(&handle.progress_token);
        waiting.handle = None;
        match answer {
            Ok(result) => Ok(result),
            Err(fault) => Err(self.fault(fault)),
        }
    }

    fn fault(&self, fault: ServiceError) -> Fault {
        let fault = Fault::of(fault, || self.ending.why());
        if fault.means != Means::Answered {
            self.retire(&fault.words);
        }
        fault
    }
}
