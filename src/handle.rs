//! A server from within: for routes, tools and hooks, which are made before it is.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use daybook_engine::Engine;

use crate::run::{AgentHandle, RunError};

/// Reaches the agents of a server from its own routes, tools and hooks. Cheap to clone; made by
/// [`Builder::handle`](crate::Builder::handle), and of use from the time the server is built until it has stopped.
#[derive(Clone, Default)]
pub struct Handle {
    /// Taken out at the end: tools hold handles, and the engine holds the tools.
    engine: Arc<RwLock<Option<Engine>>>,
}

impl Handle {
    /// The agent of this id. Whether there is one is seen when it is run: definitions may change.
    pub fn agent(&self, id: impl Into<String>) -> AgentHandle {
        AgentHandle::new(self.clone(), id.into())
    }

    /// The engine.
    pub(crate) fn engine(&self) -> Result<Engine, RunError> {
        self.engine.read().unwrap_or_else(PoisonError::into_inner).clone().ok_or(RunError::NotServing)
    }

    pub(crate) fn connect(&self, engine: &Engine) {
        *self.engine.write().unwrap_or_else(PoisonError::into_inner) = Some(engine.clone());
    }

    pub(crate) fn disconnect(&self) {
        *self.engine.write().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle").field("serving", &self.engine().is_ok()).finish()
    }
}
