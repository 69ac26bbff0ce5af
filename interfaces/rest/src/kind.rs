//! The kinds of components, each with its own routes: `/agents`, `/teams` and `/workflows`. Handlers that are the same for
//! all are written once, for any kind `K`, and know from it what differs.

use std::collections::HashMap;
use std::marker::PhantomData;
use std::ops::Deref;

use daybook_domain::component::{ComponentKind, ComponentRef};
use daybook_domain::ids::{ComponentId, RunId, SessionId};
use daybook_domain::run::RunState;
use poem::endpoint::BoxEndpoint;
use poem::http::Method;
use poem_openapi::OpenApi;
use poem_openapi::registry::{MetaApi, MetaOperation, MetaPath, Registry};

use crate::docs::Tag;
use crate::errors::{ApiError, At};
use crate::guard::{AgentsRead, AgentsRun, Scope, TeamsRead, TeamsRun, WorkflowsRead, WorkflowsRun};
use crate::params::{self, Required};
use crate::state::{AppState, LOG};
use crate::wire::{
    ItemShape, RunOutput, RunSchema, RunShape, TeamRunOutput, TeamRunSchema, WorkflowRunOutput, WorkflowRunSchema,
};

/// A kind of component, as its routes know it.
pub(crate) trait Kind: Send + Sync + 'static {
    /// The kind.
    const KIND: ComponentKind;
    /// What its routes begin with.
    const PATH: &'static str;
    /// What the document calls the id in its routes.
    const PARAM: &'static str;
    /// What the document says of it.
    const ABOUT: &'static str;
    /// The group its operations are shown in.
    const TAG: Tag;
    /// The right to see components of the kind and their runs.
    type Read: Scope;
    /// The right to run them.
    type Run: Scope;
    /// The shape of a run.
    type Output: RunShape;
    /// The shape of a run in a list.
    type Item: ItemShape;
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident = $kind:ident, $path:literal, $param:literal, $about:literal, $read:ident, $run:ident, $output:ident, $item:ident;)+) => {
        $($(#[$doc])* pub(crate) struct $name;
        impl Kind for $name {
            const KIND: ComponentKind = ComponentKind::$kind;
            const PATH: &'static str = $path;
            const PARAM: &'static str = $param;
            const ABOUT: &'static str = $about;
            const TAG: Tag = Tag::$name;
            type Read = $read;
            type Run = $run;
            type Output = $output;
            type Item = $item;
        })+
    };
}

kinds! {
    /// `/agents`.
    Agents = Agent, "/agents", "agent_id", "The agent.", AgentsRead, AgentsRun, RunOutput, RunSchema;
    /// `/teams`.
    Teams = Team, "/teams", "team_id", "The team.", TeamsRead, TeamsRun, TeamRunOutput, TeamRunSchema;
    /// `/workflows`.
    Workflows = Workflow, "/workflows", "workflow_id", "The workflow.", WorkflowsRead, WorkflowsRun, WorkflowRunOutput, WorkflowRunSchema;
}

/// What handlers of one kind's routes work with.
pub(crate) struct Of<K> {
    state: AppState,
    kind: PhantomData<fn() -> K>,
}

impl<K> Clone for Of<K> {
    fn clone(&self) -> Self {
        Self { state: self.state.clone(), kind: PhantomData }
    }
}

impl<K> Deref for Of<K> {
    type Target = AppState;

    fn deref(&self) -> &AppState {
        &self.state
    }
}

impl<K: Kind> Of<K> {
    /// What the state gives for this kind.
    pub fn new(state: &AppState) -> Self {
        Self { state: state.clone(), kind: PhantomData }
    }

    /// The component of this id, to be run.
    ///
    /// # Errors
    /// 404 when this server has none, also for a text that can be no id.
    pub fn runnable(&self, id: &str) -> Result<ComponentRef, ApiError> {
        self.found(id, false)
    }

    /// The component of this id, to ask for its runs: also one that can no longer be run.
    ///
    /// # Errors
    /// As [`Of::runnable`].
    pub fn known(&self, id: &str) -> Result<ComponentRef, ApiError> {
        self.found(id, true)
    }

    fn found(&self, id: &str, earlier: bool) -> Result<ComponentRef, ApiError> {
        let component = ComponentId::parse(id).ok().map(|id| ComponentRef { kind: K::KIND, id });
        let component = component.filter(|component| self.state.has(component, earlier));
        component.ok_or_else(not_found::<K>)
    }

    /// The run that a path and `session_id` name.
    ///
    /// # Errors
    /// 404 when there is none, or it is another component's or session's; 422 for what can be no id.
    pub async fn run(&self, component: &str, run: &str, session: &Required<String>) -> Result<RunState, ApiError> {
        let at = At("query", "session_id");
        let session: SessionId = params::id(at, session.text(at)?)?;
        let component = self.known(component)?;
        let state = self.state.engine.run(LOG, &run_id(run)?).await?.ok_or_else(run_not_found)?;
        if state.component() != Some(&component) || state.session_id() != Some(&session) {
            return Err(run_not_found());
        }
        Ok(state)
    }
}

/// The run a path names.
///
/// # Errors
/// 422 when it cannot be an id.
pub(crate) fn run_id(text: &str) -> Result<RunId, ApiError> {
    params::id(At("path", "run_id"), text)
}

/// There is no such component.
pub(crate) fn not_found<K: Kind>() -> ApiError {
    ApiError::not_found(format!("{} not found", K::KIND.title()))
}

/// There is no such run, or not for this caller.
pub(crate) fn run_not_found() -> ApiError {
    ApiError::not_found("Run not found")
}

/// What handlers written for any kind call the id of a component.
const ID: &str = "component_id";

/// What clients call the operations of agents, teams and workflows, by the name they have in the handlers.
const OPERATIONS: [[&str; 4]; 14] = [
    ["list_components", "get_agents", "get_teams", "get_workflows"],
    ["get_component", "get_agent", "get_team", "get_workflow"],
    ["create_run", "create_agent_run", "create_team_run", "create_workflow_run"],
    ["list_runs", "list_agent_runs", "list_team_runs", "list_workflow_runs"],
    ["get_run", "get_agent_run", "get_team_run", "get_workflow_run"],
    ["get_run_result", "get_agent_run_result", "get_team_run_result", "get_workflow_run_result"],
    ["cancel_run", "cancel_agent_run", "cancel_team_run", "cancel_workflow_run"],
    ["continue_run", "continue_agent_run", "continue_team_run", "continue_workflow_run"],
    ["resume_run", "resume_agent_run_stream", "resume_team_run_stream", "resume_workflow_run_stream"],
    ["list_checkpoints", "list_agent_run_checkpoints", "list_team_run_checkpoints", ""],
    ["get_checkpoint", "get_agent_run_checkpoint_snapshot", "get_team_run_checkpoint_snapshot", ""],
    ["fork_session", "fork_agent_session", "fork_team_session", ""],
    ["compact_session", "compact_agent_session", "compact_team_session", ""],
    ["open_websocket", "open_agents_websocket", "open_teams_websocket", "open_workflows_websocket"],
];

/// Handlers written for any kind, described as those of `K`.
pub(crate) struct Described<K, T>(T, PhantomData<fn() -> K>);

impl<K: Kind, T: OpenApi> Described<K, T> {
    /// These handlers.
    pub fn new(handlers: T) -> Self {
        Self(handlers, PhantomData)
    }

    fn path(path: MetaPath) -> MetaPath {
        let (id, param) = (format!("{{{ID}}}"), format!("{{{}}}", K::PARAM));
        let operations = path.operations.into_iter().map(Self::operation).collect();
        MetaPath { path: path.path.replace(&id, &param), operations }
    }

    fn operation(operation: MetaOperation) -> MetaOperation {
        let mut params = operation.params;
        for param in params.iter_mut().filter(|param| param.name == ID) {
            param.name = K::PARAM.to_owned();
            param.description = Some(K::ABOUT.to_owned());
        }
        let named = |name| OPERATIONS.iter().find(|names| names[0] == name).map(|names| names[column::<K>()]);
        let operation_id = operation.operation_id.map(|name| named(name).unwrap_or(name));
        MetaOperation { params, operation_id, ..operation }
    }
}

fn column<K: Kind>() -> usize {
    match K::KIND {
        ComponentKind::Agent => 1,
        ComponentKind::Team => 2,
        ComponentKind::Workflow => 3,
    }
}

impl<K: Kind, T: OpenApi> OpenApi for Described<K, T> {
    fn meta() -> Vec<MetaApi> {
        let described = |api: MetaApi| MetaApi { paths: api.paths.into_iter().map(Self::path).collect() };
        T::meta().into_iter().map(described).collect()
    }

    fn register(registry: &mut Registry) {
        T::register(registry);
    }

    fn add_routes(self, route_table: &mut HashMap<String, HashMap<Method, BoxEndpoint<'static>>>) {
        self.0.add_routes(route_table);
    }
}

#[cfg(test)]
mod tests {
    use poem_openapi::OpenApiService;
    use poem_openapi::param::Path;
    use poem_openapi::payload::PlainText;
    use serde_json::{Value, json};

    use super::*;

    struct Get<K>(PhantomData<fn() -> K>);

    #[OpenApi(prefix_path = K::PATH, tag = "K::TAG")]
    #[expect(clippy::unused_async, reason = "handlers are async")]
    impl<K: Kind> Get<K> {
        /// Get one run
        #[oai(path = "/:component_id/runs/:run_id", method = "get", operation_id = "get_run")]
        async fn get(
            &self,
            /// The component.
            component_id: Path<String>,
            /// The run.
            run_id: Path<String>,
        ) -> PlainText<String> {
            PlainText(format!("{} {} {}", K::KIND.as_str(), *component_id, *run_id))
        }
    }

    #[tokio::test]
    async fn one_handler_serves_each_kind_under_its_own_name() {
        let (teams, workflows) = (Get::<Teams>(PhantomData), Get::<Workflows>(PhantomData));
        let both = (Described::<Teams, _>::new(teams), Described::<Workflows, _>::new(workflows));
        let service = OpenApiService::new(both, "t", "1");
        let document: Value = serde_json::from_str(&service.spec()).unwrap();
        let operation = &document["paths"]["/teams/{team_id}/runs/{run_id}"]["get"];
        assert_eq!(operation["operationId"], "get_team_run");
        assert_eq!(operation["tags"], json!(["Teams"]));
        let param = &operation["parameters"][0];
        assert_eq!((&param["name"], &param["description"]), (&json!("team_id"), &json!("The team.")));
        let operation = &document["paths"]["/workflows/{workflow_id}/runs/{run_id}"]["get"];
        assert_eq!(operation["operationId"], "get_workflow_run");
        let client = poem::test::TestClient::new(service);
        client.get("/workflows/w/runs/r").send().await.assert_text("workflow w r").await;
        client.get("/teams/t/runs/r").send().await.assert_text("team t r").await;
    }
}
