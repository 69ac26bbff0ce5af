//! `GET /agents`.

use daybook_domain::component::ComponentKind;
use poem_openapi::OpenApi;
use poem_openapi::payload::Json;

use super::response::AgentResponse;
use crate::docs::Tag;
use crate::errors::ApiError;
use crate::guard::{AgentsRead, Guard};
use crate::state::AppState;

pub(super) struct ListAgents(pub AppState);

#[OpenApi]
impl ListAgents {
    /// List all agents
    #[oai(path = "/agents", method = "get", tag = "Tag::Agents", operation_id = "get_agents")]
    #[expect(clippy::unused_async, reason = "handlers are async")]
    async fn list(&self, _guard: Guard<AgentsRead>) -> Result<Json<Vec<AgentResponse>>, ApiError> {
        let db_id = &self.0.settings.db_id;
        let registry = self.0.engine.registry();
        let agents = registry.listed(ComponentKind::Agent).filter_map(|known| known.config.agent());
        Ok(Json(agents.map(|agent| AgentResponse::of(agent, db_id)).collect()))
    }
}
