//! Commands of a component's configuration.

use super::config::ComponentConfig;

/// Record this configuration, unless it is.
#[derive(Debug, Clone)]
pub struct Configure {
    /// The configuration.
    pub config: ComponentConfig,
}

/// Why a configuration cannot be recorded.
#[derive(Debug, thiserror::Error)]
pub enum ComponentError {
    /// The stream of one hash holds another configuration.
    #[error("the stream of configuration {0} already holds another configuration")]
    HashTaken(String),
}
