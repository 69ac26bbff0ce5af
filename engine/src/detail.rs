//! A run with all that is needed to show it, and the runs under it.

use std::sync::Arc;

use daybook_domain::component::ComponentConfig;
use daybook_domain::ids::{LogId, RunId};
use daybook_domain::message::Message;
use daybook_domain::run::RunState;
use serde::{Deserialize, Serialize};

use crate::engine::{Engine, Inner, fold_run};
use crate::error::QueryError;

/// A run with what is needed to show it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunDetail {
    /// The run's fold.
    pub state: RunState,
    /// The configuration it runs with.
    pub config: Arc<ComponentConfig>,
    /// What its model saw of earlier runs, oldest first: a summary, where there was one, and messages.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<Message>,
    /// The runs that carry out its calls or steps, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub children: Vec<RunDetail>,
}

impl Engine {
    /// A run with what is needed to show it, and the runs under it; `None` when there is no such run.
    ///
    /// # Errors
    /// [`QueryError`] when the log does not answer.
    pub async fn detail(&self, log: LogId, state: RunState) -> Result<Option<RunDetail>, QueryError> {
        let Some(accepted) = &state.accepted else { return Ok(None) };
        let config = self.inner.config(log, &accepted.config_hash).await?;
        let summary = state.summary.map(|version| (&accepted.session_id, version));
        let others = state.parent().is_some();
        let history = self.inner.history(log, summary, state.history.clone(), others).await?.messages;
        let children = self.inner.children(log, &state).await?;
        Ok(Some(RunDetail { state, config, history, children }))
    }
}

impl Inner {
    /// The runs that carry out the calls or steps of a run, each with those under it. Those that were not accepted yet are
    /// left out.
    pub async fn children(&self, log: LogId, state: &RunState) -> Result<Vec<RunDetail>, QueryError> {
        let mut children = Vec::new();
        for child in state.children() {
            children.extend(Box::pin(self.child(log, &child.run_id)).await?);
        }
        Ok(children)
    }

    /// A child run, and those under it; `None` when it was not accepted.
    pub async fn child(&self, log: LogId, run: &RunId) -> Result<Option<RunDetail>, QueryError> {
        let (state, _) = fold_run(&self.store, log, run).await?;
        let Some(accepted) = &state.accepted else { return Ok(None) };
        let config = self.config(log, &accepted.config_hash).await?;
        let children = self.children(log, &state).await?;
        Ok(Some(RunDetail { state, config, history: Vec::new(), children }))
    }
}
