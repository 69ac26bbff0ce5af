//! `GET /sessions/{session_id}`.

use daybook_projections::{RunFilter, RunRow, SessionRow};
use poem_openapi::OpenApi;
use poem_openapi::param::{Path, Query};

use crate::docs::Tag;
use crate::errors::ApiError;
use crate::guard::{Guard, SessionsRead};
use crate::params::{Raw, SessionType, query_id, session_type, text};
use crate::reads::{self, Answer};
use crate::state::{AppState, LOG};
use crate::wire::SessionDetail;

pub(super) struct GetSession(pub AppState);

#[OpenApi]
impl GetSession {
    /// Get one session
    #[oai(path = "/sessions/:session_id", method = "get", tag = "Tag::Sessions", operation_id = "get_session_by_id")]
    async fn get(
        &self,
        _guard: Guard<SessionsRead>,
        /// The session.
        session_id: Path<String>,
        /// The kind of session; the session's own kind decides.
        r#type: Query<Option<Raw<SessionType>>>,
        /// Of this user only.
        user_id: Query<Option<Raw<String>>>,
        /// The database.
        db_id: Query<Option<Raw<String>>>,
        /// The table.
        table: Query<Option<Raw<String>>>,
    ) -> Result<Answer<SessionDetail>, ApiError> {
        session_type(&r#type)?;
        let user = query_id(&user_id, "user_id")?;
        self.0.check_database(text(&db_id), text(&table))?;
        let missing = || ApiError::not_found(format!("Session with id '{}' not found", *session_id));
        let (row, lag) = super::session(&self.0, &session_id, user.as_ref(), missing).await?;
        let (runs, lag_of_runs) = self.runs(&row).await?;
        Ok(reads::answer(self.shown(&row, &runs), lag.max(lag_of_runs)))
    }
}

impl GetSession {
    /// The session's newest runs, oldest first.
    async fn runs(&self, row: &SessionRow) -> Result<(Vec<RunRow>, u64), ApiError> {
        let Some(id) = &row.state.session_id else { return Ok((Vec::new(), 0)) };
        let read = self.0.views.runs_of_session(LOG, None, id, &RunFilter::default()).await?;
        Ok((read.value, read.lag))
    }

    fn shown(&self, row: &SessionRow, runs: &[RunRow]) -> SessionDetail {
        let component = row.state.component.as_ref();
        let registry = self.0.engine.registry();
        let agent = component.and_then(|component| registry.known(component));
        SessionDetail::of(&row.state, row.name(), runs.iter().map(|run| &run.state), agent.map(AsRef::as_ref))
    }
}
