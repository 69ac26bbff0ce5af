//! What can be run, and how it was configured when it ran: recorded once per configuration, by hash.

mod command;
mod event;
mod state;
#[cfg(test)]
mod tests;

pub use command::{ComponentError, Configure};
pub use event::{ComponentConfigured, ComponentEvent};
pub use state::{AgentConfig, Compaction, ComponentKind, ComponentRef, ComponentState, ModelRef, config_hash};
