//! The answers of requests that start a run or continue one: the whole run, its events, or where to ask for it.

use bytes::Bytes;
use daybook_domain::component::ComponentKind;
use daybook_domain::ids::{RunId, SessionId};
use daybook_domain::run::{RunState, RunStatus};
use daybook_engine::Outcome;
use poem_openapi::payload::Json;
use poem_openapi::types::ToJSON;
use poem_openapi::{ApiResponse, Object, ResponseContent};

use crate::errors::ApiError;
use crate::kind::run_not_found;
use crate::state::{AppState, LOG, OnLeave};
use crate::wire::stream::{Events, whole_run};
use crate::wire::{RunShape, WorkflowRunOutput};

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
pub(super) enum Started<T: RunShape> {
    /// The answer, or with `stream` (the default) the events that make it.
    #[oai(status = 200)]
    Answered(Answered<T>),
    /// It goes on in the background, or elsewhere because this server is stopping.
    #[oai(status = 202)]
    Accepted(Json<PendingRun>),
}

/// An answer at once or in pieces.
#[derive(ResponseContent)]
pub(super) enum Answered<T: RunShape> {
    /// At once.
    Whole(Json<Box<T>>),
    /// In pieces.
    Pieces(Events),
}

/// A run that was accepted or continued.
pub(super) struct Going {
    run_id: RunId,
    session_id: SessionId,
    queued: bool,
    /// Its caller's events are those after this one.
    after: Option<u64>,
    leave: Option<OnLeave>,
    /// Whether it goes on, or was to go on: clients find its events beside the answer then.
    continued: bool,
}

impl Going {
    /// What the engine's outcome is a run of; `None` when it is of none.
    pub fn of(outcome: Outcome) -> Option<Self> {
        match outcome {
            Outcome::Accepted { run_id, session_id, queued } => {
                Some(Self { run_id, session_id, queued, after: None, leave: None, continued: false })
            }
            Outcome::Continued { run_id, session_id, queued, after } => {
                Some(Self { run_id, session_id, queued, after, leave: None, continued: true })
            }
            Outcome::Approval(_)
            | Outcome::SessionCreated(_)
            | Outcome::Forked { .. }
            | Outcome::Compaction(_)
            | Outcome::Cancelled => None,
        }
    }

    /// A paused run that stays as it is; `None` for any other.
    pub fn paused(state: &RunState) -> Option<Self> {
        let accepted = state.accepted.as_ref().filter(|_| state.status == RunStatus::Paused)?;
        let (run_id, session_id) = (accepted.run_id.clone(), accepted.session_id.clone());
        let after = state.paused_frame.and_then(|frame| frame.checked_sub(1));
        Some(Self { run_id, session_id, queued: false, after, leave: None, continued: true })
    }

    /// The run.
    pub fn run_id(&self) -> &RunId {
        &self.run_id
    }

    /// Cancels it when its client goes away.
    pub fn leaving(self, leave: Option<OnLeave>) -> Self {
        Self { leave, ..self }
    }

    /// Answers as the caller wants to wait.
    pub async fn answer<T: RunShape>(
        self,
        state: &AppState,
        stream: bool,
        background: bool,
        only_content: bool,
    ) -> Result<Started<T>, ApiError> {
        if stream {
            let watch = state.engine.watch(LOG, &self.run_id, self.after).await?.ok_or_else(run_not_found)?;
            let flow = watch.meta.component.kind == ComponentKind::Workflow;
            let last = last(state.clone(), self.run_id, flow && !only_content);
            let events = Events::of_run(watch, self.leave, only_content, self.queued, last);
            return Ok(Started::Answered(Answered::Pieces(events)));
        }
        if background {
            return Ok(Started::Accepted(Json(self.pending())));
        }
        self.whole(state).await
    }

    /// The run once it has ended or paused. When this node stops before that, the caller learns where to ask.
    async fn whole<T: RunShape>(mut self, state: &AppState) -> Result<Started<T>, ApiError> {
        let run = state.engine.wait(LOG, &self.run_id).await?.ok_or_else(run_not_found)?;
        self.leave.iter_mut().for_each(OnLeave::stay);
        if !run.status.is_end() && run.status != RunStatus::Paused {
            return Ok(Started::Accepted(Json(self.pending())));
        }
        let detail = super::detail(state, run).await?;
        let mut output = T::answering(&detail);
        if let Some(events) = super::events_of_answer(state, &detail, self.continued).await? {
            output = output.with_events(events);
        }
        let output = super::with_approval(state, &detail.state, output).await?;
        Ok(Started::Answered(Answered::Whole(Json(Box::new(output)))))
    }

    fn pending(&self) -> PendingRun {
        PendingRun {
            run_id: self.run_id.to_string(),
            session_id: self.session_id.to_string(),
            status: "PENDING".to_owned(),
        }
    }
}

/// What follows the last event of a stream: all of a workflow's run that paused.
async fn last(state: AppState, run: RunId, wanted: bool) -> Option<Bytes> {
    if !wanted {
        return None;
    }
    let known = state.engine.run(LOG, &run).await.ok()?.filter(|run| run.status == RunStatus::Paused)?;
    let detail = super::detail(&state, known).await.ok()?;
    let events = super::events(&state, &detail).await.ok()?;
    WorkflowRunOutput::of(&detail).with_events(events).to_json().map(|output| whole_run(&output))
}
