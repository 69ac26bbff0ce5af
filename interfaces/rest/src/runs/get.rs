//! `GET /{components}/{id}/runs/{run_id}`.

use poem_openapi::OpenApi;
use poem_openapi::param::{Path, Query};
use poem_openapi::payload::Json;

use crate::errors::ApiError;
use crate::guard::Guard;
use crate::kind::{Kind, Of};
use crate::params::Required;
use crate::wire::RunOutput;

pub(super) struct Get<K>(pub Of<K>);

#[OpenApi(prefix_path = K::PATH, tag = "K::TAG")]
impl<K: Kind> Get<K> {
    /// Get one run
    ///
    /// It is read from the log and not from a view, so that nothing that holds a view up hides how a run stands.
    #[oai(path = "/:component_id/runs/:run_id", method = "get", operation_id = "get_run")]
    async fn get(
        &self,
        _guard: Guard<K::Read>,
        /// The component.
        component_id: Path<String>,
        /// The run.
        run_id: Path<String>,
        /// The run's session.
        session_id: Query<Required<String>>,
    ) -> Result<Json<RunOutput>, ApiError> {
        let state = self.0.run(&component_id, &run_id, &session_id).await?;
        let detail = super::detail(&self.0, state).await?;
        let events = Some(super::events(&self.0, &detail).await?);
        Ok(Json(super::with_approval(&self.0, RunOutput { events, ..RunOutput::of(&detail) }).await?))
    }
}
