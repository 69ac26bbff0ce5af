//! `POST /sessions`.

use daybook_domain::component::ComponentKind;
use daybook_domain::session::SessionState;
use daybook_engine::Outcome;
use poem_openapi::param::Query;
use poem_openapi::payload::Json;
use poem_openapi::{ApiResponse, OpenApi};

use super::body::Wanted;
use crate::docs::Tag;
use crate::errors::ApiError;
use crate::guard::{Guard, SessionsWrite};
use crate::params::{Raw, SessionType, session_type, text};
use crate::state::AppState;
use crate::wire::SessionDetail;

pub(super) struct CreateSession(pub AppState);

/// A session that is there now.
#[derive(ApiResponse)]
enum Created {
    /// As it was created.
    #[oai(status = 201)]
    Session(Json<SessionDetail>),
}

#[OpenApi]
impl CreateSession {
    /// Create a session
    ///
    /// It is there before anything runs in it. Runs that name it go on from what it was created with.
    #[oai(
        path = "/sessions",
        method = "post",
        tag = "Tag::Sessions",
        operation_id = "create_session",
        request_header(
            name = "Idempotency-Key",
            ty = "String",
            description = "The same key with the same body gives the same session; with another body a 409."
        )
    )]
    async fn create(
        &self,
        guard: Guard<SessionsWrite>,
        /// With a component of this kind: an agent's when absent.
        r#type: Query<Option<Raw<SessionType>>>,
        /// The database.
        db_id: Query<Option<Raw<String>>>,
        wanted: Wanted,
    ) -> Result<Created, ApiError> {
        let kind = session_type(&r#type)?.map_or(ComponentKind::Agent, super::component_kind);
        self.0.check_database(text(&db_id), None)?;
        match self.0.engine.execute(guard.envelope(wanted.into_command(kind)?)).await? {
            Outcome::SessionCreated(session) => Ok(Created::Session(Json(self.shown(&session)))),
            _ => Err(ApiError::not_found("Session not found")),
        }
    }
}

impl CreateSession {
    fn shown(&self, session: &SessionState) -> SessionDetail {
        let registry = self.0.engine.registry();
        let component = session.component.as_ref().and_then(|component| registry.known(component));
        let name = session.name.as_deref().unwrap_or_default();
        // Nothing has run in it.
        SessionDetail::of(session, name, std::iter::empty(), component.map(AsRef::as_ref))
    }
}
