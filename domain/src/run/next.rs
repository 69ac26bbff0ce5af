//! What a run needs next, read from its state alone: the engine does it and appends the outcome.

use super::event::ErrorKind;
use super::state::{RunState, RunStatus};
use super::tools::{ToolOutcome, ToolRecord};

/// What comes next for a run.
#[derive(Debug, Clone, PartialEq)]
pub enum Next {
    /// It waits for its session.
    AwaitTurn,
    /// Call the model. `attempt` is over 1 when an earlier call's outcome was lost.
    CallModel {
        /// Counts model calls from 1.
        iteration: u32,
        /// Counts attempts of this call from 1.
        attempt: u32,
        /// The id of the lost call, to be kept.
        call_id: Option<String>,
    },
    /// Call these tools, beside each other, as far as nothing must be asked before.
    CallTools(Vec<ToolRecord>),
    /// Ask a person about calls whose outcome nobody knows.
    Pause(Vec<String>),
    /// Nothing until a person answers.
    AwaitPerson,
    /// End it.
    Finish(Ending),
    /// Nothing, ever.
    Done,
}

/// How a run is to end.
#[derive(Debug, Clone, PartialEq)]
pub enum Ending {
    /// Well.
    Succeed,
    /// With this error.
    Fail(ErrorKind, String),
    /// Stopped.
    Cancel,
}

impl RunState {
    /// What comes next, given the configured limit of model calls, and whether its session lets a waiting run go.
    pub fn next(&self, max_iterations: u32, granted: bool) -> Next {
        if self.accepted.is_none() || self.status.is_end() {
            return Next::Done;
        }
        if self.cancel.is_some() {
            return self.end_children().unwrap_or(Next::Finish(Ending::Cancel));
        }
        match self.status {
            RunStatus::Pending if !granted => return Next::AwaitTurn,
            RunStatus::Paused => return Next::AwaitPerson,
            _ => {}
        }
        if let Some((kind, message)) = &self.failure {
            let failed = || Next::Finish(Ending::Fail(*kind, message.clone()));
            return self.end_children().unwrap_or_else(failed);
        }
        if let Some(open) = &self.open_call {
            let (attempt, call_id) = (open.attempt + 1, Some(open.call_id.clone()));
            return Next::CallModel { iteration: self.iterations, attempt, call_id };
        }
        self.after_model(max_iterations)
    }

    /// Runs that carry out its calls are ended before it is: what they did is part of what it did. Those of a run that is
    /// paused are ended with it.
    fn end_children(&self) -> Option<Next> {
        let open = |tool: &&ToolRecord| tool.outcome.is_none() && !tool.children.is_empty();
        let open: Vec<ToolRecord> = self.tools.iter().filter(open).cloned().collect();
        (!open.is_empty() && self.status != RunStatus::Paused).then_some(Next::CallTools(open))
    }

    fn after_model(&self, max_iterations: u32) -> Next {
        let pending: Vec<ToolRecord> = self.tools.iter().filter(|tool| tool.outcome.is_none()).cloned().collect();
        if !pending.is_empty() {
            return Next::CallTools(pending);
        }
        let unknown = |tool: &&ToolRecord| tool.outcome == Some(ToolOutcome::Unknown);
        let unknown: Vec<String> = self.tools.iter().filter(unknown).map(|tool| tool.call.id.clone()).collect();
        if !unknown.is_empty() {
            return Next::Pause(unknown);
        }
        if self.answered {
            return Next::Finish(Ending::Succeed);
        }
        let last = self.own_messages().iter().rev().find(|message| message.role == crate::message::Role::Assistant);
        match last {
            Some(message) if message.tool_calls.is_empty() && !self.is_being_repaired() => {
                Next::Finish(Ending::Succeed)
            }
            _ if self.iterations >= max_iterations => {
                let message = format!(
                    "The run stopped after {max_iterations} model calls, the most it may make (max_iterations)."
                );
                Next::Finish(Ending::Fail(ErrorKind::IterationLimit, message))
            }
            _ => Next::CallModel { iteration: self.iterations + 1, attempt: 1, call_id: None },
        }
    }
}
