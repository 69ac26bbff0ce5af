//! What the server says about itself.

mod config;
mod health;
mod home;
mod info;

use poem_openapi::OpenApi;

use crate::state::AppState;

/// The version of the AgentOS API that is spoken.
const AGENTOS_VERSION: &str = "3.1.10";

/// The handlers.
pub(crate) fn routes(state: &AppState) -> impl OpenApi + use<> {
    let state = state.clone();
    (home::Home(state.clone()), health::Health(state.clone()), info::Info(state.clone()), config::Config(state))
}
