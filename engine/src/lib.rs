//! How runs go: a run's fold says what comes next, the engine does it and appends the outcome.
//! Every interface executes commands and asks queries here; nothing else starts, stops or changes a run.

mod approvals;
mod cancel;
mod commit;
mod compact;
mod continue_run;
mod detail;
mod drive;
mod engine;
mod error;
mod fork;
mod fork_session;
mod frame;
mod frame_writer;
mod history;
mod hub;
mod live;
mod long_results;
mod model_call;
mod node;
mod plan;
mod prompt;
mod registry;
mod repair;
mod secrets;
mod sessions;
mod settle;
mod signals;
mod start;
mod stranded;
mod summarise;
mod tool_calls;
mod watch;

pub use compact::CompactionOutcome;
pub use detail::RunDetail;
pub use engine::{Engine, EngineOptions, Outcome, Ports};
pub use error::{ExecuteError, QueryError};
pub use fork::whole_turns;
pub use frame::{Frame, FrameBody, RunMeta, frames_of};
pub use node::SILENCE;
pub use prompt::{build_request, json_hash, output_schema, system_message};
pub use registry::{Component, Listing, Registry, RegistryError};
pub use summarise::summary_request;
pub use watch::{Watch, WatchItem};
