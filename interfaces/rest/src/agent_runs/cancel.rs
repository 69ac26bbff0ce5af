//! `POST /agents/{agent_id}/runs/{run_id}/cancel`.

use daybook_domain::command::CancelRun;
use daybook_domain::component::ComponentRef;
use poem_openapi::param::{Path, Query};
use poem_openapi::payload::Json;
use poem_openapi::{Object, OpenApi};

use crate::docs::Tag;
use crate::errors::ApiError;
use crate::guard::{AgentsRun, Guard};
use crate::params::{Raw, query_id};
use crate::state::AppState;

pub(super) struct CancelAgentRun(pub AppState);

/// Nothing: what became of the run is seen in the run.
#[derive(Debug, Object)]
struct Nothing {}

#[OpenApi]
impl CancelAgentRun {
    /// Cancel a run of an agent
    ///
    /// Answers the same for a run that has ended, that is unknown, and that is somebody else's.
    #[oai(
        path = "/agents/:agent_id/runs/:run_id/cancel",
        method = "post",
        tag = "Tag::Agents",
        operation_id = "cancel_agent_run"
    )]
    async fn cancel(
        &self,
        guard: Guard<AgentsRun>,
        /// The agent.
        agent_id: Path<String>,
        /// The run.
        run_id: Path<String>,
        /// The run's session; a run of another session is unknown.
        session_id: Query<Option<Raw<String>>>,
    ) -> Result<Json<Nothing>, ApiError> {
        let agent = self.0.known_agent(&agent_id)?.config.id.clone();
        let command = CancelRun {
            component: Some(ComponentRef::agent(agent)),
            run_id: super::run_id(&run_id)?,
            session_id: query_id(&session_id, "session_id")?,
            reason: None,
        };
        self.0.engine.execute(guard.envelope(command)).await?;
        Ok(Json(Nothing {}))
    }
}
