//! A run: one execution of a component, from acceptance to exactly one end. Its state says what comes next.

mod command;
mod event;
mod next;
mod state;
#[cfg(test)]
mod tests;

pub use command::{OnBusy, RunCommand, RunError, RunMode};
pub use event::{
    CancelRequested, ErrorKind, ModelCallCompleted, ModelCallFailed, ModelCallRequested, RequestedCall, Requirement,
    RequirementKind, RunAccepted, RunCancelled, RunEvent, RunFailed, RunPaused, RunStage, RunSucceeded, RunTakenOver,
    ToolCallCompleted, ToolCallFailed, ToolCallRequested, ToolOutcomeUnknown,
};
pub use next::{Ending, Next, PendingTool};
pub use state::{RunState, RunStatus, ToolOutcome, ToolRecord};
