//! What can happen in Daybook: one folder per aggregate, and the words they share.
//! Everything here is pure: no IO, no clock, no randomness. Times and ids come in with commands.

mod aggregate;
pub mod approval;
pub mod command;
pub mod component;
pub mod event;
pub mod exact;
pub mod ids;
pub mod long_result;
pub mod media;
pub mod message;
pub mod output;
pub mod personal;
pub mod redact;
pub mod run;
pub mod session;
pub mod tool;
pub mod usage;
pub mod workflow;

pub use event::{DomainEvent, StoredForm};
pub use ids::{ApprovalId, ComponentId, LogId, RunId, SessionId, StreamId, UserId};
pub use personal::Personal;
