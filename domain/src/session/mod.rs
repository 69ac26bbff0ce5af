//! A session: the conversation that runs belong to, who may use it, which run holds it, and its state.

mod command;
mod event;
mod state;
#[cfg(test)]
mod tests;

pub use command::{Admission, AdmitRun, SessionError};
pub use event::{
    SessionCreated, SessionEvent, SessionRunAdmitted, SessionRunEnded, SessionRunReplaced, SessionStateChanged,
    StatePatch,
};
pub use state::{MAX_QUEUE, SessionState, SessionTotals};
