//! An approval: somebody with authority decides about one tool call with exactly these arguments.

mod command;
mod event;
mod state;
#[cfg(test)]
mod tests;

pub use command::{ApprovalCommand, ApprovalError, Verdict};
pub use event::{
    ApprovalCancelled, ApprovalDeleted, ApprovalEvent, ApprovalExpired, ApprovalReminded, ApprovalRequested,
    ApprovalResolved,
};
pub use state::{ApprovalState, ApprovalStatus, call_hash};
