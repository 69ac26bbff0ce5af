//! `GET /agents/{agent_id}`.

use daybook_domain::component::ComponentKind;
use poem_openapi::OpenApi;
use poem_openapi::param::Path;
use poem_openapi::payload::Json;

use super::response::AgentResponse;
use crate::docs::Tag;
use crate::errors::ApiError;
use crate::guard::{AgentsRead, Guard};
use crate::state::AppState;

pub(super) struct GetAgent(pub AppState);

#[OpenApi]
impl GetAgent {
    /// Get one agent
    #[oai(path = "/agents/:agent_id", method = "get", tag = "Tag::Agents", operation_id = "get_agent")]
    #[expect(clippy::unused_async, reason = "handlers are async")]
    async fn get(
        &self,
        _guard: Guard<AgentsRead>,
        /// The agent.
        agent_id: Path<String>,
    ) -> Result<Json<AgentResponse>, ApiError> {
        let agent = self.0.component(ComponentKind::Agent, &agent_id)?;
        let agent = agent.config.agent().ok_or_else(|| ApiError::not_found("Agent not found"))?;
        Ok(Json(AgentResponse::of(agent, &self.0.settings.db_id)))
    }
}
