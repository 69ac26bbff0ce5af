//! `POST /{components}/{id}/sessions/{session_id}/compact`.

use daybook_domain::command::CompactSession;
use daybook_domain::ids::SessionId;
use daybook_engine::Outcome;
use poem_openapi::OpenApi;
use poem_openapi::param::{Path, Query};
use poem_openapi::payload::Json;
use serde_json::Value;

use crate::errors::{ApiError, At};
use crate::guard::Guard;
use crate::kind::{Kind, Of};
use crate::params::{self, Raw, query_id};
use crate::wire::compaction;

pub(super) struct Compact<K>(pub Of<K>);

#[OpenApi(prefix_path = K::PATH, tag = "K::TAG")]
impl<K: Kind> Compact<K> {
    /// Compact a session
    ///
    /// The model summarises the session's ended runs, except the newest `history_runs`: later runs are given the
    /// summary in their place. The runs themselves stay as they are. `status` says what it came to: `compacted`, or why
    /// nothing has changed: `not_enabled` (the component has no `compaction`), `no_history` (no run has ended well),
    /// `nothing_to_fold` (all ended runs are among the newest), `already_compacted` (the others are summarised already),
    /// `summary_failed` (the model said nothing, or would not). 503 when the model cannot be asked at the moment, 500 when
    /// asking again would not help; nothing has changed then.
    #[oai(path = "/:component_id/sessions/:session_id/compact", method = "post", operation_id = "compact_session")]
    async fn compact(
        &self,
        guard: Guard<K::Run>,
        /// The component.
        component_id: Path<String>,
        /// The session.
        session_id: Path<String>,
        /// Whose session it is.
        user_id: Query<Option<Raw<String>>>,
    ) -> Result<Json<Value>, ApiError> {
        let session: SessionId = params::id(At("path", "session_id"), &session_id)?;
        let command = CompactSession {
            component: self.0.runnable(&component_id)?,
            session_id: session.clone(),
            user_id: query_id(&user_id, "user_id")?,
        };
        match self.0.engine.execute(guard.envelope(command)).await? {
            Outcome::Compaction(came) => Ok(Json(compaction(&session, &came))),
            _ => Err(ApiError::not_found("Session not found")),
        }
    }
}
