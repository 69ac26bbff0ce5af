//! Tools that come together from one place, such as a server, and may change while Daybook runs.

use std::sync::Arc;

use async_trait::async_trait;

use crate::Tool;

/// Why the tools of a source are not known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{source_name}: {fault}")]
pub struct SourceError {
    /// The source's name.
    pub source_name: String,
    /// What is wrong, and how to mend it.
    pub fault: String,
}

/// A place that several tools come from.
#[async_trait]
pub trait ToolSource: Send + Sync + 'static {
    /// Its name among the sources of this server.
    fn name(&self) -> &str;

    /// Its tools as of now, always in the same order.
    ///
    /// # Errors
    /// [`SourceError`] when the place does not answer, or answers what cannot be used.
    async fn tools(&self) -> Result<Vec<Arc<dyn Tool>>, SourceError>;

    /// Returns when the tools may have changed since [`ToolSource::tools`] was last called. Never, unless implemented.
    async fn changed(&self) {
        std::future::pending().await
    }

    /// Ends connections and child processes. Calls of its tools fail from then on.
    async fn close(&self) {}
}

/// Tools under one name that stay the same, such as those of [`files`](crate::files).
pub struct FixedSource {
    name: String,
    tools: Vec<Arc<dyn Tool>>,
}

impl FixedSource {
    /// These tools under this name.
    pub fn new(name: impl Into<String>, tools: Vec<Arc<dyn Tool>>) -> Self {
        Self { name: name.into(), tools }
    }
}

#[async_trait]
impl ToolSource for FixedSource {
    fn name(&self) -> &str {
        &self.name
    }

    async fn tools(&self) -> Result<Vec<Arc<dyn Tool>>, SourceError> {
        Ok(self.tools.clone())
    }
}
