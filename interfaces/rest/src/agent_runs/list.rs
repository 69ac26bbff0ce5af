//! `GET /agents/{agent_id}/runs`.

use daybook_domain::component::ComponentRef;
use daybook_domain::ids::SessionId;
use daybook_projections::RunFilter;
use poem_openapi::OpenApi;
use poem_openapi::param::{Path, Query};

use crate::docs::Tag;
use crate::errors::{ApiError, At};
use crate::guard::{AgentsRead, Guard};
use crate::params::{self, Raw, Required, run_status, text};
use crate::reads::{self, Answer};
use crate::state::{AppState, LOG};
use crate::wire::RunSchema;

pub(super) struct ListRuns(pub AppState);

#[OpenApi]
impl ListRuns {
    /// List the runs of an agent in a session, oldest first
    #[oai(path = "/agents/:agent_id/runs", method = "get", tag = "Tag::Agents", operation_id = "list_agent_runs")]
    async fn list(
        &self,
        _guard: Guard<AgentsRead>,
        /// The agent.
        agent_id: Path<String>,
        /// The session.
        session_id: Query<Required<String>>,
        /// In this state only; an unknown one gives nothing.
        status: Query<Option<Raw<String>>>,
    ) -> Result<Answer<Vec<RunSchema>>, ApiError> {
        let at = At("query", "session_id");
        let session: SessionId = params::id(at, session_id.text(at)?)?;
        let agent = ComponentRef::agent(self.0.known_agent(&agent_id)?.config.id.clone());
        let missing = || ApiError::not_found("Session not found");
        let (_, lag) = reads::found(self.0.views.session(LOG, None, &session).await?, missing)?;
        let statuses = text(&status).map(|word| run_status(&word.to_ascii_uppercase()).into_iter().collect::<Vec<_>>());
        if statuses.as_ref().is_some_and(Vec::is_empty) {
            return Ok(reads::answer(Vec::new(), 0));
        }
        let filter = RunFilter { component: Some(agent), statuses, ..RunFilter::default() };
        let read = self.0.views.runs_of_session(LOG, None, &session, &filter).await?;
        Ok(reads::answer(super::shown_in_list(&self.0, &read.value).await?, lag.max(read.lag)))
    }
}
