//! `GET /{components}/{id}/runs/{run_id}`.

use poem_openapi::OpenApi;
use poem_openapi::param::{Path, Query};
use poem_openapi::payload::Json;

use crate::errors::ApiError;
use crate::guard::Guard;
use crate::kind::{Kind, Of};
use crate::params::{Raw, Required};
use crate::wire::RunShape;

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
        /// What a component's factory is given; components of this server have none.
        factory_input: Query<Option<Raw<String>>>,
    ) -> Result<Json<K::Output>, ApiError> {
        let _ = factory_input;
        let state = self.0.run(&component_id, &run_id, &session_id).await?;
        let detail = super::detail(&self.0, state).await?;
        let output = K::Output::of(&detail).with_events(super::events(&self.0, &detail).await?);
        Ok(Json(super::with_approval(&self.0, &detail.state, output).await?))
    }
}
