//! `POST /agents/{agent_id}/runs`.

use daybook_domain::ids::{ComponentId, RunId, SessionId};
use daybook_domain::run::RunStatus;
use daybook_engine::Outcome;
use poem_openapi::param::Path;
use poem_openapi::payload::Json;
use poem_openapi::{ApiResponse, Object, OpenApi, ResponseContent};

use super::form::{CreateRunForm, RunRequest};
use crate::docs::Tag;
use crate::errors::ApiError;
use crate::forms::{Form, aside};
use crate::guard::{AgentsRun, Guard};
use crate::state::{AppState, LOG, OnLeave};
use crate::wire::RunOutput;
use crate::wire::stream::Events;

pub(super) struct CreateRun(pub AppState);

/// A run that goes on without its caller.
#[derive(Debug, Object)]
pub(super) struct PendingRun {
    /// The run.
    run_id: String,
    /// Its session.
    session_id: String,
    /// `PENDING`: ask for the run to see how it goes.
    status: String,
}

/// How a run was started.
#[derive(ApiResponse)]
pub(super) enum Started {
    /// The answer, or with `stream` (the default) the events that make it.
    #[oai(status = 200)]
    Answered(Answered),
    /// It goes on in the background, or elsewhere because this server is stopping.
    #[oai(status = 202)]
    Accepted(Json<PendingRun>),
}

/// An answer at once or in pieces.
#[derive(ResponseContent)]
pub(super) enum Answered {
    /// At once.
    Whole(Json<Box<RunOutput>>),
    /// In pieces.
    Pieces(Events),
}

/// A run that was accepted.
struct Accepted {
    run_id: RunId,
    session_id: SessionId,
    queued: bool,
    leave: Option<OnLeave>,
}

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
        let accepted = self.accept(&guard, agent, request).await?;
        if stream {
            return Ok(Started::Answered(Answered::Pieces(self.pieces(accepted, only_content).await?)));
        }
        if background {
            return Ok(Started::Accepted(Json(accepted.pending())));
        }
        self.whole(accepted).await
    }
}

impl CreateRun {
    async fn accept(
        &self,
        guard: &Guard<AgentsRun>,
        agent: ComponentId,
        request: RunRequest,
    ) -> Result<Accepted, ApiError> {
        // A background run has nobody to leave.
        let leaves = request.cancel_on_disconnect && !request.background;
        let command = request.into_command(agent.clone());
        match self.0.engine.execute(guard.envelope(command)).await? {
            Outcome::Accepted { run_id, session_id, queued } => {
                let leave = leaves.then(|| self.0.on_leave(guard.principal().clone(), agent, run_id.clone()));
                Ok(Accepted { run_id, session_id, queued, leave })
            }
            Outcome::Cancelled => Err(ApiError::bad("The run was cancelled before it was started")),
        }
    }

    /// The run's events from the first.
    async fn pieces(&self, run: Accepted, only_content: bool) -> Result<Events, ApiError> {
        let watch = self.0.engine.watch(LOG, &run.run_id, None).await?.ok_or_else(super::run_not_found)?;
        Ok(Events::of_run(watch, run.leave, only_content, run.queued))
    }

    /// The run once it has ended or paused. When this node stops before that, the caller learns where to ask.
    async fn whole(&self, mut run: Accepted) -> Result<Started, ApiError> {
        let state = self.0.engine.wait(LOG, &run.run_id).await?.ok_or_else(super::run_not_found)?;
        run.leave.iter_mut().for_each(OnLeave::stay);
        if !state.status.is_end() && state.status != RunStatus::Paused {
            return Ok(Started::Accepted(Json(run.pending())));
        }
        let output = RunOutput::answering(&super::detail(&self.0, state).await?);
        Ok(Started::Answered(Answered::Whole(Json(Box::new(output)))))
    }
}

impl Accepted {
    fn pending(&self) -> PendingRun {
        PendingRun {
            run_id: self.run_id.to_string(),
            session_id: self.session_id.to_string(),
            status: "PENDING".to_owned(),
        }
    }
}
