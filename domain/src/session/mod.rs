//! A session: the conversation that runs belong to, who may use it, which run holds it, its state, and
//! what is summarised of it.

mod command;
mod compaction;
mod event;
mod state;
#[cfg(test)]
mod tests;

pub use command::{Admission, AdmitRun, BeginSession, SessionError};
pub use compaction::{CompactError, newest_within, oldest_within};
pub use event::{
    SessionCompacted, SessionCreated, SessionEvent, SessionRunAdmitted, SessionRunEnded, SessionRunReplaced,
    SessionStateChanged, StatePatch,
};
pub use state::{MAX_QUEUE, SessionState, SessionTotals, Summarised};
