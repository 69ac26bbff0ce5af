//! Conversations.

mod body;
mod create;
mod get;
mod list;
mod runs;

use daybook_domain::component::ComponentKind;
use daybook_domain::ids::{SessionId, UserId};
use daybook_projections::SessionRow;
use poem_openapi::OpenApi;

use crate::errors::{ApiError, At};
use crate::params::SessionType;
use crate::state::{AppState, LOG};
use crate::{params, reads};

/// The handlers.
pub(crate) fn routes(state: &AppState) -> impl OpenApi + use<> {
    (
        list::ListSessions(state.clone()),
        create::CreateSession(state.clone()),
        get::GetSession(state.clone()),
        runs::SessionRuns(state.clone()),
    )
}

/// What sessions of this kind are with.
fn component_kind(kind: SessionType) -> ComponentKind {
    match kind {
        SessionType::Agent => ComponentKind::Agent,
        SessionType::Team => ComponentKind::Team,
        SessionType::Workflow => ComponentKind::Workflow,
    }
}

/// The session of this id, if it is `owner`'s or nobody in particular asks, and how far its view is behind.
///
/// # Errors
/// `missing` when there is none, or it is another user's.
async fn session(
    state: &AppState,
    id: &str,
    owner: Option<&UserId>,
    missing: impl FnOnce() -> ApiError,
) -> Result<(SessionRow, u64), ApiError> {
    let id: SessionId = params::id(At("path", "session_id"), id)?;
    reads::found(state.views.session(LOG, owner, &id).await?, missing)
}
