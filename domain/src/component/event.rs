//! Events of a component's configuration.

use serde::{Deserialize, Serialize};

use super::config::ComponentConfig;
use crate::event::{DomainEvent, events};

/// A configuration was first used; runs refer to it by hash.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ComponentConfigured {
    /// SHA-256 of the canonical JSON, hex.
    pub hash: String,
    /// The whole configuration.
    pub config: ComponentConfig,
}

events! {
    /// What happens to a configuration.
    ComponentEvent, "Component" {
        /// It was first used.
        Configured(ComponentConfigured) = 1,
    }
}

impl ComponentEvent {
    pub(crate) fn wrap(self) -> DomainEvent {
        DomainEvent::Component(self)
    }
}
