//! `POST /{components}/{id}/runs/{run_id}/cancel`.

use daybook_domain::command::CancelRun;
use poem_openapi::param::{Path, Query};
use poem_openapi::payload::Json;
use poem_openapi::{Object, OpenApi};

use crate::errors::ApiError;
use crate::guard::Guard;
use crate::kind::{self, Kind, Of};
use crate::params::{Raw, query_id};

pub(super) struct Cancel<K>(pub Of<K>);

/// Nothing: what became of the run is seen in the run.
#[derive(Debug, Object)]
struct Nothing {}

#[OpenApi(prefix_path = K::PATH, tag = "K::TAG")]
impl<K: Kind> Cancel<K> {
    /// Cancel a run
    ///
    /// Answers the same for a run that has ended, that is unknown, and that is somebody else's.
    #[oai(path = "/:component_id/runs/:run_id/cancel", method = "post", operation_id = "cancel_run")]
    async fn cancel(
        &self,
        guard: Guard<K::Run>,
        /// The component.
        component_id: Path<String>,
        /// The run.
        run_id: Path<String>,
        /// The run's session; a run of another session is unknown.
        session_id: Query<Option<Raw<String>>>,
    ) -> Result<Json<Nothing>, ApiError> {
        let command = CancelRun {
            component: Some(self.0.known(&component_id)?),
            run_id: kind::run_id(&run_id)?,
            session_id: query_id(&session_id, "session_id")?,
            reason: None,
        };
        self.0.engine.execute(guard.envelope(command)).await?;
        Ok(Json(Nothing {}))
    }
}
