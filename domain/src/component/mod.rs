//! What can be run, and how it was configured when it ran: recorded once per configuration, by hash.

mod agent;
mod command;
mod config;
mod event;
mod state;
mod team;
#[cfg(test)]
mod tests;

pub use agent::{AgentConfig, Compaction, ModelRef};
pub use command::{ComponentError, Configure};
pub use config::{ComponentConfig, config_hash};
pub use event::{ComponentConfigured, ComponentEvent};
pub use state::{ComponentKind, ComponentRef, ComponentState};
pub use team::{
    CREATE_TASK, DELEGATE, DELEGATE_ALL, EXECUTE_TASKS, Member, OnMemberError, TeamConfig, TeamMode, UPDATE_TASK,
};
