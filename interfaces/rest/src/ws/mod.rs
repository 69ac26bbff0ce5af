//! Runs over a WebSocket: started, continued, cancelled and watched, several at a time, on one connection.
//! One implementation for all kinds of components; the route says which.

mod act;
mod action;
mod connection;
mod encoding;
mod handshake;
mod peer;
mod pulse;
mod words;

use std::sync::Arc;

use poem::Request;
use poem_openapi::param::Query;
use poem_openapi::{ApiResponse, OpenApi};
use tracing::Instrument;

use self::act::Actor;
use self::connection::Connection;
use self::encoding::Encoding;
use self::handshake::Handshake;
use crate::activity::Activity;
use crate::errors::ApiError;
use crate::guard::Caller;
use crate::kind::{Agents, Described, Kind, Of, Teams, Workflows};
use crate::params::Raw;
use crate::state::AppState;

/// The handlers.
pub(crate) fn routes(state: &AppState) -> impl OpenApi + use<> {
    (of::<Agents>(state), of::<Teams>(state), of::<Workflows>(state))
}

fn of<K: Kind>(state: &AppState) -> impl OpenApi + use<K> {
    Described::<K, _>::new(WebSockets(Of::<K>::new(state)))
}

struct WebSockets<K>(Of<K>);

/// The connection is a WebSocket now.
#[derive(ApiResponse)]
enum Opened {
    /// Messages follow.
    #[oai(status = 101)]
    Switched(
        /// `upgrade`.
        #[oai(header = "Connection")]
        String,
        /// `websocket`.
        #[oai(header = "Upgrade")]
        String,
        /// The answer to the client's key.
        #[oai(header = "Sec-WebSocket-Accept")]
        String,
    ),
}

#[OpenApi(prefix_path = K::PATH, tag = "K::TAG")]
impl<K: Kind> WebSockets<K> {
    /// Start, continue, cancel and watch runs over a WebSocket
    ///
    /// Each message is a JSON object with an `action`, here for agents: `authenticate`, `ping`, `start-agent` (`agent_id`,
    /// `message` and the other fields of a run), `continue-agent` (`agent_id`, `run_id`, `session_id`, and the answers),
    /// `cancel-agent` (`agent_id`, `run_id`) and `reconnect` (`run_id`, `last_event_index`). What is wrong with a message is
    /// told by an `error` event, and the connection stays. A browser's page may connect if its origin is one that CORS allows.
    #[oai(path = "/ws", method = "get", operation_id = "open_websocket")]
    #[expect(clippy::unused_async, reason = "handlers are async")]
    async fn open(
        &self,
        request: &Request,
        caller: Caller,
        /// One encoding for all messages, `json` or `sse`; when absent, the events of what was started or continued come as
        /// SSE blocks and everything else as JSON.
        encoding: Query<Option<Raw<Encoding>>>,
    ) -> Result<Opened, ApiError> {
        let (state, encoding) = (AppState::clone(&self.0), Encoding::read(&encoding)?);
        let Handshake { upgrade, accept } = Handshake::read(request, &state.settings.cors_origins)?;
        let activity = request.data::<Arc<Activity>>().cloned();
        // The connection counts as used for as long as the client is served.
        let under = activity.as_ref().map(Activity::request);
        let (tasks, stopping) = (state.tasks.clone(), state.stopping.clone());
        let actor = Actor { state, caller: Arc::new(caller), kind: K::KIND, encoding };
        let served = async move {
            let _until_served = under;
            match upgrade.await {
                Ok(socket) => Box::pin(Connection::new(actor, socket).await.serve(stopping, activity)).await,
                Err(error) => tracing::debug!(%error, "a client left before its WebSocket was open"),
            }
        };
        tasks.spawn(served.instrument(tracing::Span::current()));
        Ok(Opened::Switched("upgrade".to_owned(), "websocket".to_owned(), accept))
    }
}
