//! A run in a session's list: of an agent, a team or a workflow.

use poem_openapi::Union;

use super::run_schema::RunSchema;
use super::team_run::TeamRunSchema;
use super::workflow_run::WorkflowRunSchema;

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
