//! A run in a list: of an agent, a team or a workflow.

use daybook_domain::component::{ComponentConfig, ComponentKind};
use daybook_domain::run::RunState;
use poem_openapi::Union;
use poem_openapi::types::{ToJSON, Type};

use super::run_schema::{RunSchema, TeamRunSchema};
use super::workflow_run::WorkflowRunSchema;

/// The shape of the runs of one kind, or of any, in lists.
pub(crate) trait ItemShape: Type + ToJSON + Sized + Send + Sync + 'static {
    /// A run with the configuration it ran with; `None` for one that was never accepted, or is of another kind.
    fn of(state: &RunState, config: &ComponentConfig) -> Option<Self>;
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
    fn of(state: &RunState, config: &ComponentConfig) -> Option<Self> {
        Self::of(state, config)
    }
}

impl ItemShape for TeamRunSchema {
    fn of(state: &RunState, config: &ComponentConfig) -> Option<Self> {
        Self::of(state, config)
    }
}

impl ItemShape for WorkflowRunSchema {
    fn of(state: &RunState, config: &ComponentConfig) -> Option<Self> {
        Self::of(state, config)
    }
}

impl ItemShape for RunItem {
    fn of(state: &RunState, config: &ComponentConfig) -> Option<Self> {
        Some(match config.component().kind {
            ComponentKind::Agent => Self::Agent(Box::new(RunSchema::of(state, config)?)),
            ComponentKind::Team => Self::Team(Box::new(TeamRunSchema::of(state, config)?)),
            ComponentKind::Workflow => Self::Workflow(Box::new(WorkflowRunSchema::of(state, config)?)),
        })
    }
}
