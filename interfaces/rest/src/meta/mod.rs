//! What the server says about itself.

mod config;
mod health;
mod home;
mod info;
mod ready;

use poem_openapi::OpenApi;

use crate::state::AppState;

/// The version of the AgentOS API that is spoken.
const AGENTOS_VERSION: &str = "3.1.10";

/// The handlers.
pub(crate) fn routes(state: &AppState) -> impl OpenApi + use<> {
    let state = state.clone();
    let home = (home::Home(state.clone()), info::Info(state.clone()), config::Config(state.clone()));
    (home, health::Health(state.clone()), ready::Ready(state))
}
