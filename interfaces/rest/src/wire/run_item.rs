//! A run in a list: of an agent, a team or a workflow.

use daybook_domain::component::ComponentKind;
use daybook_engine::RunDetail;
use poem_openapi::Union;
use poem_openapi::types::{ToJSON, Type};

use super::run_schema::{RunSchema, TeamRunSchema};
use super::workflow_run::WorkflowRunSchema;

/// The shape of the runs of one kind, or of any, in lists.
pub(crate) trait ItemShape: Type + ToJSON + Sized + Send + Sync + 'static {
    /// A run with those under it; `None` for one that was never accepted, or is of another kind.
    fn of(detail: &RunDetail) -> Option<Self>;
}

/// A run of any component.
#[derive(Union)]
pub(crate) enum RunItem {
    /// Of an agent.
    Agent(Box<RunSchema>),
    /// Of a team.
    Team(Box<TeamRunSchema>),
    /// Of a workflow.
    Workflow(Box<WorkflowRunSchema>),
}

impl ItemShape for RunSchema {
    fn of(detail: &RunDetail) -> Option<Self> {
        Self::of(detail)
    }
}

impl ItemShape for TeamRunSchema {
    fn of(detail: &RunDetail) -> Option<Self> {
        Self::of(detail)
    }
}

impl ItemShape for WorkflowRunSchema {
    fn of(detail: &RunDetail) -> Option<Self> {
        Self::of(detail)
    }
}

impl ItemShape for RunItem {
    fn of(detail: &RunDetail) -> Option<Self> {
        Some(match detail.config.component().kind {
            ComponentKind::Agent => Self::Agent(Box::new(RunSchema::of(detail)?)),
            ComponentKind::Team => Self::Team(Box::new(TeamRunSchema::of(detail)?)),
            ComponentKind::Workflow => Self::Workflow(Box::new(WorkflowRunSchema::of(detail)?)),
        })
    }
}
