//! `GET /agents/{agent_id}/runs/{run_id}/results/{result_id}`: all of a tool's result that was too long for the run.

use daybook_domain::component::ComponentRef;
use daybook_domain::ids::SessionId;
use poem_openapi::OpenApi;
use poem_openapi::param::{Path, Query};
use poem_openapi::payload::PlainText;

use crate::docs::Tag;
use crate::errors::{ApiError, At};
use crate::guard::{AgentsRead, Guard};
use crate::params::{self, Required};
use crate::state::{AppState, LOG};

pub(super) struct GetResult(pub AppState);

#[OpenApi]
impl GetResult {
    /// Get all of a long result that a tool gave in a run of an agent
    ///
    /// Its id is in `whole_result` of the tool call, and in the note that stands in the result. The text is as the tool
    /// gave it, byte for byte, but for secrets, which are never kept.
    #[oai(
        path = "/agents/:agent_id/runs/:run_id/results/:result_id",
        method = "get",
        tag = "Tag::Agents",
        operation_id = "get_agent_run_result"
    )]
    async fn get(
        &self,
        _guard: Guard<AgentsRead>,
        /// The agent.
        agent_id: Path<String>,
        /// The run.
        run_id: Path<String>,
        /// The result.
        result_id: Path<String>,
        /// The run's session.
        session_id: Query<Required<String>>,
    ) -> Result<PlainText<String>, ApiError> {
        let at = At("query", "session_id");
        let session: SessionId = params::id(at, session_id.text(at)?)?;
        let agent = ComponentRef::agent(self.0.known_agent(&agent_id)?.config.id.clone());
        let state = self.0.engine.run(LOG, &super::run_id(&run_id)?).await?.ok_or_else(super::run_not_found)?;
        if state.component() != Some(&agent) || state.session_id() != Some(&session) {
            return Err(super::run_not_found());
        }
        let known = state.whole_result(&result_id);
        let missing =
            || ApiError::not_found("Result not found: the run has no long result of this id, or it was erased");
        let known = known.ok_or_else(missing)?;
        self.0.engine.whole_result(LOG, &session, known).await?.map(PlainText).ok_or_else(missing)
    }
}
