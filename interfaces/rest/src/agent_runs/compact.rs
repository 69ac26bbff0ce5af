//! `POST /agents/{agent_id}/sessions/{session_id}/compact`.

use daybook_domain::ids::{SessionId, UserId};
use poem_openapi::OpenApi;
use poem_openapi::param::{Path, Query};
use poem_openapi::payload::Json;
use serde_json::{Value, json};

use crate::docs::Tag;
use crate::errors::{ApiError, At};
use crate::guard::{AgentsRun, Guard};
use crate::params::{self, Raw, query_id};
use crate::state::AppState;

pub(super) struct CompactAgentSession(pub AppState);

#[OpenApi]
impl CompactAgentSession {
    /// Compact a session of an agent
    ///
    /// Agents of this server see a configured number of earlier runs and have no compaction to run, which is what this
    /// answers.
    #[oai(
        path = "/agents/:agent_id/sessions/:session_id/compact",
        method = "post",
        tag = "Tag::Agents",
        operation_id = "compact_agent_session"
    )]
    #[expect(clippy::unused_async, reason = "handlers are async")]
    async fn compact(
        &self,
        _guard: Guard<AgentsRun>,
        /// The agent.
        agent_id: Path<String>,
        /// The session.
        session_id: Path<String>,
        /// Whose session it is.
        user_id: Query<Option<Raw<String>>>,
    ) -> Result<Json<Value>, ApiError> {
        self.0.known_agent(&agent_id)?;
        let _: SessionId = params::id(At("path", "session_id"), &session_id)?;
        let _: Option<UserId> = query_id(&user_id, "user_id")?;
        let message = "Compaction is not enabled on this agent.";
        let (record, metrics) = (Value::Null, Value::Null);
        Ok(Json(json!({
            "status": "not_enabled", "message": message, "compacted": false, "record": record, "metrics": metrics
        })))
    }
}
