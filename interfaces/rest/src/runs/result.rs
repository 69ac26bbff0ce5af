//! `GET /{components}/{id}/runs/{run_id}/results/{result_id}`: all of a tool's result that was too long for the run.

use poem_openapi::OpenApi;
use poem_openapi::param::{Path, Query};
use poem_openapi::payload::PlainText;

use crate::errors::ApiError;
use crate::guard::Guard;
use crate::kind::{Kind, Of};
use crate::params::Required;
use crate::state::LOG;

pub(super) struct GetResult<K>(pub Of<K>);

#[OpenApi(prefix_path = K::PATH, tag = "K::TAG")]
impl<K: Kind> GetResult<K> {
    /// Get all of a long result that a tool gave in a run
    ///
    /// Its id is in `whole_result` of the tool call, and in the note that stands in the result. The text is as the tool
    /// gave it, byte for byte, but for secrets, which are never kept.
    #[oai(path = "/:component_id/runs/:run_id/results/:result_id", method = "get", operation_id = "get_run_result")]
    async fn get(
        &self,
        _guard: Guard<K::Read>,
        /// The component.
        component_id: Path<String>,
        /// The run.
        run_id: Path<String>,
        /// The result.
        result_id: Path<String>,
        /// The run's session.
        session_id: Query<Required<String>>,
    ) -> Result<PlainText<String>, ApiError> {
        let state = self.0.run(&component_id, &run_id, &session_id).await?;
        let known = state.whole_result(&result_id);
        let missing =
            || ApiError::not_found("Result not found: the run has no long result of this id, or it was erased");
        let (known, session) = known.zip(state.session_id()).ok_or_else(missing)?;
        self.0.engine.whole_result(LOG, session, known).await?.map(PlainText).ok_or_else(missing)
    }
}
