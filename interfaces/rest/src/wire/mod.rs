//! The shapes clients see. Members that are not there are left out, unless a shape says otherwise.

mod approval;
mod compaction;
pub(crate) mod events;
mod flow_history;
mod history;
mod lean;
mod media;
mod members;
pub(crate) mod message;
mod metrics;
mod pause;
mod run_event;
mod run_item;
mod run_output;
mod run_parts;
mod run_schema;
mod session;
mod spaced;
mod step;
pub(crate) mod stream;
mod time;
mod tool;
mod workflow_output;
mod workflow_run;

pub(crate) use approval::{ApprovalPage, ApprovalResponse, pause_kind, settled_at};
pub(crate) use compaction::compaction;
pub(crate) use history::{events_from_log, shows_events};
pub(crate) use lean::Lean;
pub(crate) use members::Members;
pub(crate) use run_item::{ItemShape, RunItem};
pub(crate) use run_output::{RunOutput, RunShape, TeamRunOutput, run_shown, step_run_shown};
pub(crate) use run_schema::{RunSchema, TeamRunSchema};
pub(crate) use session::{PaginationInfo, SessionDetail, SessionPage, SessionSchema};
pub(crate) use spaced::spaced;
pub(crate) use time::iso_micros;
pub(crate) use workflow_output::WorkflowRunOutput;
pub(crate) use workflow_run::WorkflowRunSchema;

/// The name clients know the table of sessions by.
pub(crate) const SESSION_TABLE: &str = "daybook_sessions";
