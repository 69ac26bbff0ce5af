//! The agents of this server.

mod get;
mod list;
mod response;

use poem_openapi::OpenApi;

use crate::state::AppState;

/// The handlers.
pub(crate) fn routes(state: &AppState) -> impl OpenApi + use<> {
    (list::ListAgents(state.clone()), get::GetAgent(state.clone()))
}
