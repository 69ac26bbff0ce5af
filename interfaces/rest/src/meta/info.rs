//! `GET /info`: what the server is.

use daybook_domain::component::ComponentKind;
use poem_openapi::payload::Json;
use poem_openapi::{Object, OpenApi};

use super::AGENTOS_VERSION;
use crate::docs::Tag;
use crate::errors::ApiError;
use crate::guard::{Guard, Public};
use crate::state::AppState;

pub(super) struct Info(pub AppState);

/// What the server is.
#[derive(Debug, Object)]
struct InfoResponse {
    /// Its id.
    os_id: String,
    /// Its name.
    name: Option<String>,
    /// The operator's version of what it serves.
    os_version: String,
    /// The version of the AgentOS API it speaks.
    agno_version: String,
    /// The program's version.
    daybook_version: String,
    /// How many agents it has.
    agent_count: usize,
    /// How many teams.
    team_count: usize,
    /// How many workflows.
    workflow_count: usize,
    /// Its MCP server.
    mcp: McpInfo,
    /// How callers prove who they are: `none`.
    auth_mode: String,
    /// Whether users see only what is theirs.
    user_isolation: bool,
}

/// The MCP server.
#[derive(Debug, Default, Object)]
struct McpInfo {
    /// Whether there is one.
    enabled: bool,
    /// Where.
    path: Option<String>,
    /// How clients get tokens for it.
    oauth: Option<McpOAuthInfo>,
    /// Whether its tools can be called over REST.
    tool_run_endpoint: bool,
}

/// How clients get tokens.
#[derive(Debug, Object)]
struct McpOAuthInfo {
    /// Who gives them.
    authorization_servers: Option<Vec<String>>,
    /// For what.
    resource: Option<String>,
}

#[OpenApi]
impl Info {
    /// What the server is
    #[oai(path = "/info", method = "get", tag = "Tag::Core", operation_id = "get_info")]
    #[expect(clippy::unused_async, reason = "handlers are async")]
    async fn info(&self, _guard: Guard<Public>) -> Result<Json<InfoResponse>, ApiError> {
        let (settings, registry) = (&self.0.settings, self.0.engine.registry());
        let count = |kind| registry.listed(kind).count();
        Ok(Json(InfoResponse {
            os_id: settings.os_id.clone(),
            name: Some(settings.name.clone()),
            os_version: settings.version.clone(),
            agno_version: AGENTOS_VERSION.to_owned(),
            daybook_version: env!("CARGO_PKG_VERSION").to_owned(),
            agent_count: count(ComponentKind::Agent),
            team_count: count(ComponentKind::Team),
            workflow_count: count(ComponentKind::Workflow),
            mcp: McpInfo::default(),
            auth_mode: "none".to_owned(),
            user_isolation: false,
        }))
    }
}
