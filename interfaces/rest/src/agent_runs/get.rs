//! `GET /agents/{agent_id}/runs/{run_id}`.

use daybook_domain::component::ComponentRef;
use daybook_domain::ids::{RunId, SessionId};
use daybook_domain::run::RunState;
use poem_openapi::OpenApi;
use poem_openapi::param::{Path, Query};
use poem_openapi::payload::Json;

use crate::docs::Tag;
use crate::errors::{ApiError, At};
use crate::guard::{AgentsRead, Guard};
use crate::params::{self, Required};
use crate::state::{AppState, LOG};
use crate::wire::RunOutput;

pub(super) struct GetRun(pub AppState);

#[OpenApi]
impl GetRun {
    /// Get one run of an agent
    ///
    /// It is read from the log and not from a view, so that nothing that holds a view up hides how a run stands.
    #[oai(path = "/agents/:agent_id/runs/:run_id", method = "get", tag = "Tag::Agents", operation_id = "get_agent_run")]
    async fn get(
        &self,
        _guard: Guard<AgentsRead>,
        /// The agent.
        agent_id: Path<String>,
        /// The run.
        run_id: Path<String>,
        /// The run's session.
        session_id: Query<Required<String>>,
    ) -> Result<Json<RunOutput>, ApiError> {
        let at = At("query", "session_id");
        let session: SessionId = params::id(at, session_id.text(at)?)?;
        let agent = ComponentRef::agent(self.0.known_agent(&agent_id)?.config.id.clone());
        let run = super::run_id(&run_id)?;
        let state = self.0.engine.run(LOG, &run).await?.ok_or_else(super::run_not_found)?;
        if state.component() != Some(&agent) || state.session_id() != Some(&session) {
            return Err(super::run_not_found());
        }
        Ok(Json(self.shown(&run, state).await?))
    }
}

impl GetRun {
    async fn shown(&self, run: &RunId, state: RunState) -> Result<RunOutput, ApiError> {
        let detail = super::detail(&self.0, state).await?;
        let events = Some(super::events(&self.0, run, &detail).await?);
        super::with_approval(&self.0, RunOutput { events, ..RunOutput::of(&detail) }).await
    }
}
