//! `POST /{components}/{id}/runs`.

use poem_openapi::OpenApi;
use poem_openapi::param::Path;

use super::answer::{Going, Started};
use super::form::{CreateRunForm, RunRequest};
use crate::errors::ApiError;
use crate::forms::{Form, aside};
use crate::guard::Guard;
use crate::kind::{Kind, Of};

pub(super) struct Create<K>(pub Of<K>);

#[OpenApi(prefix_path = K::PATH, tag = "K::TAG")]
impl<K: Kind> Create<K> {
    /// Start a run
    ///
    /// Answers with the whole run, streams its events, or leaves it running in the background. A client that goes
    /// away cancels nothing unless it asked for that with `on_disconnect=cancel`.
    #[oai(
        path = "/:component_id/runs",
        method = "post",
        operation_id = "create_run",
        request_header(
            name = "Idempotency-Key",
            ty = "String",
            description = "The same key with the same fields gives the same run, once started; with others a 409."
        )
    )]
    async fn create(
        &self,
        guard: Guard<K::Run>,
        /// The component.
        component_id: Path<String>,
        form: Form<CreateRunForm>,
    ) -> Result<Started<K::Output>, ApiError> {
        let fields = form.0;
        let request = aside(Some(&self.0.tasks), fields.size(), move || RunRequest::read(fields)).await??;
        let component = self.0.runnable(&component_id)?;
        let (stream, background, only_content) = (request.stream, request.background, request.only_content);
        // A background run has nobody to leave.
        let leaves = request.cancel_on_disconnect && !background;
        let outcome = self.0.engine.execute(guard.envelope(request.into_command(component.clone()))).await?;
        let going = Going::of(outcome).ok_or_else(|| ApiError::bad("The run was cancelled before it was started"))?;
        let leave = leaves.then(|| self.0.on_leave(guard.principal().clone(), component, going.run_id().clone()));
        going.leaving(leave).answer(&self.0, stream, background, only_content).await
    }
}
