//! `POST /approvals/{approval_id}/resolve` and `DELETE /approvals/{approval_id}`.

use daybook_domain::command::{Command, ResolveApproval};
use daybook_engine::Outcome;
use poem_openapi::param::Path;
use poem_openapi::payload::Json;
use poem_openapi::{ApiResponse, OpenApi};

use super::body::Decided;
use crate::docs::Tag;
use crate::errors::ApiError;
use crate::guard::{ApprovalsDelete, ApprovalsWrite, Guard};
use crate::state::AppState;
use crate::wire::ApprovalResponse;

pub(super) struct ChangeApproval(pub AppState);

/// Nothing more is to be said.
#[derive(ApiResponse)]
enum Gone {
    /// It is hidden from lists; what happened stays in the log.
    #[oai(status = 204)]
    Deleted(
        /// There is no body; clients know the header.
        #[oai(header = "Content-Type")]
        String,
    ),
}

#[OpenApi]
impl ChangeApproval {
    /// Decide about an approval
    ///
    /// The first decision wins; the others get a 409 that says what was decided and by whom. The run goes on by itself,
    /// also when nobody is connected.
    #[oai(
        path = "/approvals/:approval_id/resolve",
        method = "post",
        tag = "Tag::Approvals",
        operation_id = "resolve_approval"
    )]
    async fn resolve(
        &self,
        guard: Guard<ApprovalsWrite>,
        /// The approval.
        approval_id: Path<String>,
        body: Decided,
    ) -> Result<Json<ApprovalResponse>, ApiError> {
        let approval_id = super::approval_id(&approval_id)?;
        let Decided { verdict, resolved_by, data } = body;
        let command = ResolveApproval { approval_id, verdict, resolved_by, data };
        match self.0.engine.execute(guard.envelope(command)).await? {
            Outcome::Approval(state) => Ok(Json(super::read::response(&self.0, &state).await?)),
            _ => Err(super::not_found()),
        }
    }

    /// Hide an approval that was decided
    #[oai(
        path = "/approvals/:approval_id",
        method = "delete",
        tag = "Tag::Approvals",
        operation_id = "delete_approval"
    )]
    async fn delete(
        &self,
        guard: Guard<ApprovalsDelete>,
        /// The approval.
        approval_id: Path<String>,
    ) -> Result<Gone, ApiError> {
        let command = Command::DeleteApproval(super::approval_id(&approval_id)?);
        self.0.engine.execute(guard.envelope(command)).await?;
        Ok(Gone::Deleted("application/json".to_owned()))
    }
}
