//! `POST /agents/{agent_id}/sessions/{session_id}/fork`.

use daybook_domain::command::ForkSession;
use daybook_domain::component::ComponentRef;
use daybook_engine::Outcome;
use poem_openapi::param::{Path, Query};
use poem_openapi::payload::Json;
use poem_openapi::{Object, OpenApi};

use crate::docs::Tag;
use crate::errors::{ApiError, At};
use crate::guard::{AgentsRun, Guard};
use crate::params::{self, Raw, query_id};
use crate::state::AppState;

pub(super) struct ForkAgentSession(pub AppState);

/// The copy of a session.
#[derive(Debug, Object)]
struct ForkedSession {
    /// The copy.
    session_id: String,
    /// What it is a copy of.
    forked_from_session_id: String,
}

#[OpenApi]
impl ForkAgentSession {
    /// Copy a session of an agent
    ///
    /// The copy has the ended runs under new ids and goes its own way; the session stays as it is.
    #[oai(
        path = "/agents/:agent_id/sessions/:session_id/fork",
        method = "post",
        tag = "Tag::Agents",
        operation_id = "fork_agent_session"
    )]
    async fn fork(
        &self,
        guard: Guard<AgentsRun>,
        /// The agent.
        agent_id: Path<String>,
        /// The session.
        session_id: Path<String>,
        /// Whose session it is.
        user_id: Query<Option<Raw<String>>>,
    ) -> Result<Json<ForkedSession>, ApiError> {
        let command = ForkSession {
            component: ComponentRef::agent(self.0.known_agent(&agent_id)?.config.id.clone()),
            session_id: params::id(At("path", "session_id"), &session_id)?,
            user_id: query_id(&user_id, "user_id")?,
        };
        match self.0.engine.execute(guard.envelope(command)).await? {
            Outcome::Forked { session_id: copy } => {
                Ok(Json(ForkedSession { session_id: copy.to_string(), forked_from_session_id: session_id.0 }))
            }
            _ => Err(ApiError::not_found("Session not found")),
        }
    }
}
