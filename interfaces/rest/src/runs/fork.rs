//! `POST /{components}/{id}/sessions/{session_id}/fork`.

use daybook_domain::command::ForkSession;
use daybook_engine::Outcome;
use poem_openapi::param::{Path, Query};
use poem_openapi::payload::Json;
use poem_openapi::{Object, OpenApi};

use crate::errors::{ApiError, At};
use crate::guard::Guard;
use crate::kind::{Kind, Of};
use crate::params::{self, Raw, query_id};

pub(super) struct Fork<K>(pub Of<K>);

/// The copy of a session.
#[derive(Debug, Object)]
struct ForkedSession {
    /// The copy.
    session_id: String,
    /// What it is a copy of.
    forked_from_session_id: String,
}

#[OpenApi(prefix_path = K::PATH, tag = "K::TAG")]
impl<K: Kind> Fork<K> {
    /// Copy a session
    ///
    /// The copy has the ended runs under new ids and goes its own way; the session stays as it is.
    #[oai(path = "/:component_id/sessions/:session_id/fork", method = "post", operation_id = "fork_session")]
    async fn fork(
        &self,
        guard: Guard<K::Run>,
        /// The component.
        component_id: Path<String>,
        /// The session.
        session_id: Path<String>,
        /// Whose session it is.
        user_id: Query<Option<Raw<String>>>,
    ) -> Result<Json<ForkedSession>, ApiError> {
        let command = ForkSession {
            component: self.0.known(&component_id)?,
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
