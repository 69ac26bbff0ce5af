//! `GET /{components}/{id}/runs`.

use daybook_domain::ids::SessionId;
use daybook_projections::RunFilter;
use poem_openapi::OpenApi;
use poem_openapi::param::{Path, Query};

use crate::errors::{ApiError, At};
use crate::guard::Guard;
use crate::kind::{Kind, Of};
use crate::params::{self, Raw, Required, run_status, text};
use crate::reads::{self, Answer};
use crate::state::LOG;

pub(super) struct List<K>(pub Of<K>);

#[OpenApi(prefix_path = K::PATH, tag = "K::TAG")]
impl<K: Kind> List<K> {
    /// List the runs in a session, oldest first
    #[oai(path = "/:component_id/runs", method = "get", operation_id = "list_runs")]
    async fn list(
        &self,
        _guard: Guard<K::Read>,
        /// The component.
        component_id: Path<String>,
        /// The session.
        session_id: Query<Required<String>>,
        /// In this state only; an unknown one gives nothing.
        status: Query<Option<Raw<String>>>,
        /// What a component's factory is given; components of this server have none.
        factory_input: Query<Option<Raw<String>>>,
    ) -> Result<Answer<Vec<K::Item>>, ApiError> {
        let _ = factory_input;
        let at = At("query", "session_id");
        let session: SessionId = params::id(at, session_id.text(at)?)?;
        let component = self.0.known(&component_id)?;
        let missing = || ApiError::not_found("Session not found");
        let (_, lag) = reads::found(self.0.views.session(LOG, None, &session).await?, missing)?;
        let statuses = text(&status).map(|word| run_status(&word.to_ascii_uppercase()).into_iter().collect::<Vec<_>>());
        if statuses.as_ref().is_some_and(Vec::is_empty) {
            return Ok(reads::answer(Vec::new(), 0));
        }
        let filter = RunFilter { component: Some(component), statuses, ..RunFilter::default() };
        let read = self.0.views.runs_of_session(LOG, None, &session, &filter).await?;
        Ok(reads::answer(super::shown_in_list(&self.0, &read.value).await?, lag.max(read.lag)))
    }
}
