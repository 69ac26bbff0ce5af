//! A run: one execution of a component, from acceptance to exactly one end. Its state says what comes next.

mod command;
mod event;
mod feedback;
mod flow;
mod input;
mod next;
#[cfg(test)]
mod pause_tests;
mod pauses;
#[cfg(test)]
mod repair_tests;
mod requirement;
mod said;
mod state;
mod task;
#[cfg(test)]
mod tests;
mod tools;
mod tree;

pub use command::{OnBusy, RunCommand, RunError, RunMode};
pub use event::{
    AnswerMissed, ErrorKind, Forked, ModelCallCompleted, ModelCallFailed, ModelCallRequested, RequestedCall,
    RunAccepted, RunEvent, RunTakenOver, ToolCallCompleted, ToolCallFailed, ToolCallRequested, ToolOutcomeUnknown,
};
pub use feedback::{Choice, Question, can_be_answered, questions};
pub use input::InputField;
pub use next::{Ending, Next};
pub use pauses::{
    CancelRequested, RequirementResolved, RunCancelled, RunContinued, RunFailed, RunPaused, RunReplaced, RunStage,
    RunSucceeded,
};
pub use requirement::{
    Answer, AnswerError, Decision, Given, REJECTED, Requirement, RequirementKind, after_a_crash, needed,
};
pub use state::{RunState, RunStatus};
pub use task::{Task, TaskChanged, TaskStatus};
pub use tools::{ToolOutcome, ToolRecord};
pub use tree::{ChildRef, MemberAsk, Parent, StepOf, child_run_id};
