//! Approvals: reading them, deciding about them, and hiding them.

mod body;
mod change;
mod list;
mod read;

use daybook_domain::ids::ApprovalId;
use poem_openapi::OpenApi;

use crate::errors::ApiError;
use crate::state::AppState;

/// The handlers.
pub(crate) fn routes(state: &AppState) -> impl OpenApi + use<> {
    (list::ListApprovals(state.clone()), read::ReadApproval(state.clone()), change::ChangeApproval(state.clone()))
}

fn not_found() -> ApiError {
    ApiError::not_found("Approval not found")
}

/// The approval a path names; what can be no id is as good as none.
fn approval_id(text: &str) -> Result<ApprovalId, ApiError> {
    ApprovalId::parse(text).map_err(|_| not_found())
}
