//! `GET /approvals/{approval_id}` and `GET /approvals/{approval_id}/status`, both from the log.

use daybook_domain::approval::ApprovalState;
use poem_openapi::param::Path;
use poem_openapi::payload::Json;
use poem_openapi::{Object, OpenApi};

use crate::docs::Tag;
use crate::errors::ApiError;
use crate::guard::{ApprovalsRead, Guard};
use crate::state::{AppState, LOG};
use crate::wire::{ApprovalResponse, settled_at};

pub(super) struct ReadApproval(pub AppState);

/// What became of an approval.
#[derive(Debug, Object)]
struct ApprovalStatusResponse {
    /// Its id.
    approval_id: String,
    /// `pending`, `approved`, `rejected`, `expired` or `cancelled`.
    status: String,
    /// The run that waits.
    run_id: String,
    /// Unix seconds.
    resolved_at: Option<i64>,
    /// Who decided.
    resolved_by: Option<String>,
}

#[OpenApi]
impl ReadApproval {
    /// Get what became of an approval
    #[oai(
        path = "/approvals/:approval_id/status",
        method = "get",
        tag = "Tag::Approvals",
        operation_id = "get_approval_status"
    )]
    async fn status(
        &self,
        _guard: Guard<ApprovalsRead>,
        /// The approval.
        approval_id: Path<String>,
    ) -> Result<Json<ApprovalStatusResponse>, ApiError> {
        let state = find(&self.0, &approval_id).await?;
        let requested = state.visible().ok_or_else(super::not_found)?;
        Ok(Json(ApprovalStatusResponse {
            approval_id: requested.approval_id.to_string(),
            status: state.status.as_str().to_owned(),
            run_id: requested.run_id.to_string(),
            resolved_at: settled_at(&state),
            resolved_by: state.resolved_by().map(str::to_owned),
        }))
    }

    /// Get an approval
    #[oai(path = "/approvals/:approval_id", method = "get", tag = "Tag::Approvals", operation_id = "get_approval")]
    async fn one(
        &self,
        _guard: Guard<ApprovalsRead>,
        /// The approval.
        approval_id: Path<String>,
    ) -> Result<Json<ApprovalResponse>, ApiError> {
        let state = find(&self.0, &approval_id).await?;
        Ok(Json(response(&self.0, &state).await?))
    }
}

async fn find(state: &AppState, id: &str) -> Result<ApprovalState, ApiError> {
    state.engine.approval(LOG, &super::approval_id(id)?).await?.ok_or_else(super::not_found)
}

/// An approval with where its run stands.
pub(super) async fn response(state: &AppState, approval: &ApprovalState) -> Result<ApprovalResponse, ApiError> {
    let run = match approval.visible() {
        Some(requested) => state.engine.run(LOG, &requested.run_id).await?.map(|run| run.status),
        None => None,
    };
    ApprovalResponse::of(approval, run).ok_or_else(super::not_found)
}
