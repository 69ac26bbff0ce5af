//! The database.

mod migrate;

use poem_openapi::OpenApi;

use crate::state::AppState;

/// The handlers.
pub(crate) fn routes(state: &AppState) -> impl OpenApi + use<> {
    migrate::Migrate(state.clone())
}
