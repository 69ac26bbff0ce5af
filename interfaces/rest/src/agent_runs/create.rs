//! `POST /agents/{agent_id}/runs`.

use poem_openapi::OpenApi;
use poem_openapi::param::Path;

use super::answer::{Going, Started};
use super::form::{CreateRunForm, RunRequest};
use crate::docs::Tag;
use crate::errors::ApiError;
use crate::forms::{Form, aside};
use crate::guard::{AgentsRun, Guard};
use crate::state::AppState;

pub(super) struct CreateRun(pub AppState);

#[OpenApi]
impl CreateRun {
    /// Run an agent
    ///
    /// Answers with the whole run, streams its events, or leaves it running in the background. A client that goes
    /// away cancels nothing unless it asked for that with `on_disconnect=cancel`.
    #[oai(
        path = "/agents/:agent_id/runs",
        method = "post",
        tag = "Tag::Agents",
        operation_id = "create_agent_run",
        request_header(
            name = "Idempotency-Key",
            ty = "String",
            description = "The same key with the same fields gives the same run, once started; with others a 409."
        )
    )]
    async fn create(
        &self,
        guard: Guard<AgentsRun>,
        /// The agent.
        agent_id: Path<String>,
        form: Form<CreateRunForm>,
    ) -> Result<Started, ApiError> {
        let fields = form.0;
        let request = aside(Some(&self.0.tasks), fields.size(), move || RunRequest::read(fields)).await??;
        let agent = self.0.agent(&agent_id)?.config.id.clone();
        let (stream, background, only_content) = (request.stream, request.background, request.only_content);
        // A background run has nobody to leave.
        let leaves = request.cancel_on_disconnect && !background;
        let outcome = self.0.engine.execute(guard.envelope(request.into_command(agent.clone()))).await?;
        let going = Going::of(outcome).ok_or_else(|| ApiError::bad("The run was cancelled before it was started"))?;
        let leave = leaves.then(|| self.0.on_leave(guard.principal().clone(), agent, going.run_id().clone()));
        going.leaving(leave).answer(&self.0, stream, background, only_content).await
    }
}
