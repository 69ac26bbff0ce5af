//! One connection to a server, from the greeting to its end.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rmcp::model::{
    CallToolRequest, CallToolRequestParams, ClientRequest, ListToolsRequest, PaginatedRequestParams, RequestMetaObject,
    ServerResult, SubscriptionFilter,
};
use rmcp::service::{Peer, PeerRequestOptions, RequestHandle, RoleClient, ServiceError};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::fault::{Fault, Means};
use super::progress::Calls;
use super::stdio::Ending;
use crate::ToolContext;

/// How long the server may take to be told that a call is not waited for any more.
const TELLS_WITHIN: Duration = Duration::from_secs(5);

/// When a server that stopped telling of changes is listened to again.
const LISTENS_AGAIN: Duration = Duration::from_secs(5);

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

impl Connection {
    /// The connection of a service that was greeted; `tracker` gets the tasks that tell the server of cancelled calls.
    pub(super) fn new(peer: Peer<RoleClient>, calls: Arc<Calls>, tracker: TaskTracker, ending: Ending) -> Self {
        let (retired, why_retired) = (CancellationToken::new(), OnceLock::new());
        Self { peer, calls, tracker, runtime: Handle::current(), ending, retired, why_retired }
    }

    /// Counts what the server says of its tools, for as long as it is polled. Servers that are greeted say it unasked, through
    /// [`Events`](super::dial::Events); those of the later protocol only to those who listen.
    pub(super) async fn listen(&self, generation: &watch::Sender<u64>) {
        let unasked = self.peer.peer_info().is_none_or(|info| info.protocol_version.has_initialize());
        if !unasked {
            let filter = SubscriptionFilter::builder().tools_list_changed().build();
            // A server that cannot be listened to does not say when its tools change.
            while let Ok(mut subscription) = self.peer.listen(filter.clone()).await {
                while let Ok(Some(_)) = subscription.next().await {
                    generation.send_modify(|generation| *generation += 1);
                }
                sleep(LISTENS_AGAIN).await;
                // What was said meanwhile was missed.
                generation.send_modify(|generation| *generation += 1);
            }
        }
        std::future::pending().await
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
