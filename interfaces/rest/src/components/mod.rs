//! The components of this server: `GET /agents`, `/teams`, `/workflows`, and each of them.

mod agent;
mod get;
mod list;
mod team;
mod workflow;

use daybook_engine::{Component, Registry};
use poem_openapi::OpenApi;
use poem_openapi::types::{ToJSON, Type};

use self::agent::AgentResponse;
use self::team::TeamResponse;
use self::workflow::WorkflowResponse;
pub(crate) use self::workflow::WorkflowSummaryResponse;
use crate::kind::{Agents, Described, Kind, Of, Teams, Workflows};
use crate::state::AppState;

/// The handlers.
pub(crate) fn routes(state: &AppState) -> impl OpenApi + use<> {
    (of::<Agents>(state), of::<Teams>(state), of::<Workflows>(state))
}

fn of<K: Shows>(state: &AppState) -> impl OpenApi + use<K> {
    let of = Of::<K>::new(state);
    Described::<K, _>::new((list::List(of.clone()), get::Get(of)))
}

/// A kind of component that clients see.
trait Shows: Kind {
    /// One component.
    type One: Type + ToJSON + Send + 'static;
    /// One component in the list of all.
    type Listed: Type + ToJSON + Send + Sync + 'static;

    /// The component; `None` for one of another kind.
    fn one(component: &Component, registry: &Registry, db_id: &str) -> Option<Self::One>;

    /// The component as the list shows it; `None` for one of another kind.
    fn listed(component: &Component, registry: &Registry, db_id: &str) -> Option<Self::Listed>;
}

impl Shows for Agents {
    type One = AgentResponse;
    type Listed = AgentResponse;

    fn one(component: &Component, _: &Registry, db_id: &str) -> Option<AgentResponse> {
        Some(AgentResponse::of(component.config.agent()?, db_id))
    }

    fn listed(component: &Component, registry: &Registry, db_id: &str) -> Option<AgentResponse> {
        Self::one(component, registry, db_id)
    }
}

impl Shows for Teams {
    type One = TeamResponse;
    type Listed = TeamResponse;

    fn one(component: &Component, registry: &Registry, db_id: &str) -> Option<TeamResponse> {
        let config = component.config.agent()?;
        Some(TeamResponse::of(config, config.team.as_ref()?, registry, db_id))
    }

    fn listed(component: &Component, registry: &Registry, db_id: &str) -> Option<TeamResponse> {
        Self::one(component, registry, db_id)
    }
}

impl Shows for Workflows {
    type One = WorkflowResponse;
    type Listed = WorkflowSummaryResponse;

    fn one(component: &Component, registry: &Registry, db_id: &str) -> Option<WorkflowResponse> {
        Some(WorkflowResponse::of(component.config.workflow()?, registry, db_id))
    }

    fn listed(component: &Component, _: &Registry, db_id: &str) -> Option<WorkflowSummaryResponse> {
        Some(WorkflowSummaryResponse::of(component.config.workflow()?, db_id))
    }
}
