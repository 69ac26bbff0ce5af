//! What every handler works with.

use std::sync::Arc;

use daybook_domain::LogId;
use daybook_domain::command::{CancelRun, Envelope, Principal};
use daybook_domain::component::{ComponentKind, ComponentRef};
use daybook_domain::ids::{ComponentId, RunId};
use daybook_engine::{Component, Engine};
use daybook_projections::{Runner, Views};
use daybook_store::Store;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::errors::ApiError;
use crate::settings::Settings;

/// The log every request is for, until tenants exist.
pub(crate) const LOG: LogId = LogId::DEFAULT;

/// What every handler works with. Cheap to clone.
#[derive(Clone)]
pub struct AppState {
    /// Where commands go, and what is answered from folds.
    pub engine: Engine,
    /// What is answered from views.
    pub views: Views,
    /// The log, for what only it knows.
    pub store: Store,
    /// What posts the views, on nodes that do.
    pub runner: Option<Arc<Runner>>,
    /// What the server says about itself.
    pub settings: Arc<Settings>,
    /// Fires when the server stops; clients cut off by that have not left.
    pub stopping: CancellationToken,
    /// Cancels on behalf of clients that left.
    pub tasks: TaskTracker,
}

impl AppState {
    /// The state of a server that stops when `stopping` fires.
    pub fn new(
        engine: Engine,
        views: Views,
        store: Store,
        runner: Option<Arc<Runner>>,
        settings: Settings,
        stopping: CancellationToken,
    ) -> Self {
        Self { engine, views, store, runner, settings: Arc::new(settings), stopping, tasks: TaskTracker::new() }
    }

    /// Waits for what was started on behalf of clients that left. Call it after serving, before the engine stops.
    pub async fn finish(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// The component of this kind and id, to be shown or run.
    ///
    /// # Errors
    /// 404 when this server has none, also for a text that can be no id.
    pub(crate) fn component(&self, kind: ComponentKind, id: &str) -> Result<Arc<Component>, ApiError> {
        let component = ComponentId::parse(id).ok().map(|id| ComponentRef { kind, id });
        let known = component.and_then(|component| self.engine.registry().component(&component).cloned());
        known.ok_or_else(|| ApiError::not_found(format!("{} not found", kind.title())))
    }

    /// Whether this server has the component; `earlier` is whether one counts that it only had.
    pub(crate) fn has(&self, component: &ComponentRef, earlier: bool) -> bool {
        let registry = self.engine.registry();
        let known = if earlier { registry.known(component) } else { registry.component(component) };
        known.is_some()
    }

    /// Whether `db_id` and `table` name what this server has.
    ///
    /// # Errors
    /// 400 for a table without a database, 404 for unknown ones.
    pub(crate) fn check_database(&self, db_id: Option<&str>, table: Option<&str>) -> Result<(), ApiError> {
        match (db_id, table) {
            (None, Some(_)) => Err(ApiError::bad("The db_id query parameter is required when passing a table")),
            (Some(id), _) if id != self.settings.db_id => {
                Err(ApiError::not_found(format!("No database found with id '{id}'")))
            }
            (_, Some(table)) if table != crate::wire::SESSION_TABLE => {
                Err(ApiError::not_found(format!("No table '{table}' found in database '{}'", self.settings.db_id)))
            }
            _ => Ok(()),
        }
    }

    /// Cancels `run` when the value is dropped before [`OnLeave::stay`] was called.
    pub(crate) fn on_leave(&self, principal: Principal, component: ComponentRef, run: RunId) -> OnLeave {
        OnLeave { armed: Some((self.clone(), principal, component, run)) }
    }
}

/// Stands for a client that wants its run cancelled when it goes away.
pub(crate) struct OnLeave {
    armed: Option<(AppState, Principal, ComponentRef, RunId)>,
}

impl OnLeave {
    /// The client got all it waited for.
    pub fn stay(&mut self) {
        self.armed = None;
    }
}

impl Drop for OnLeave {
    fn drop(&mut self) {
        let Some((state, principal, component, run_id)) = self.armed.take() else { return };
        if state.stopping.is_cancelled() {
            return;
        }
        let (tasks, component) = (state.tasks.clone(), Some(component));
        let reason = Some("The client disconnected".to_owned());
        let cancel = CancelRun { component, run_id, session_id: None, reason };
        tasks.spawn(async move {
            if let Err(error) = state.engine.execute(Envelope::new(principal, "rest", cancel)).await {
                tracing::warn!(%error, "a run was not cancelled after its client left");
            }
        });
    }
}
