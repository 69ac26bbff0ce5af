//! Runs of agents: starting, reading, watching and stopping them.

mod answer;
mod cancel;
mod checkpoints;
mod compact;
mod continue_run;
mod create;
mod fork;
mod form;
mod get;
mod list;
mod media;
mod media_types;
mod result;
mod resume;

use std::collections::HashMap;
use std::sync::Arc;

use daybook_domain::StreamId;
use daybook_domain::ids::{ApprovalId, RunId};
use daybook_domain::run::{RunState, RunStatus};
use daybook_engine::{RunDetail, RunMeta};
use daybook_projections::RunRow;
use poem_openapi::OpenApi;
use poem_openapi::types::ToJSON;
use serde_json::Value;

use crate::errors::{ApiError, At};
use crate::params;
use crate::state::{AppState, LOG};
use crate::wire::{ApprovalResponse, RunOutput, RunSchema, events_from_log, shows_events};

/// The handlers.
pub(crate) fn routes(state: &AppState) -> impl OpenApi + use<> {
    let state = state.clone();
    (
        create::CreateRun(state.clone()),
        list::ListRuns(state.clone()),
        get::GetRun(state.clone()),
        result::GetResult(state.clone()),
        cancel::CancelAgentRun(state.clone()),
        continue_run::ContinueAgentRun(state.clone()),
        checkpoints::Checkpoints(state.clone()),
        fork::ForkAgentSession(state.clone()),
        compact::CompactAgentSession(state.clone()),
        resume::ResumeRun(state),
    )
}

/// The run a path names.
///
/// # Errors
/// 422 when it cannot be an id.
fn run_id(text: &str) -> Result<RunId, ApiError> {
    params::id(At("path", "run_id"), text)
}

/// A run with all that is shown of it, large media included.
///
/// # Errors
/// 404 when it was never accepted, or what the log answers.
async fn detail(state: &AppState, run: RunState) -> Result<RunDetail, ApiError> {
    let mut detail = state.engine.detail(LOG, run).await?.ok_or_else(run_not_found)?;
    let Some(session) = detail.state.session_id().cloned() else { return Ok(detail) };
    for message in &mut detail.state.messages {
        state.engine.inline_media(LOG, &session, &mut message.media).await?;
    }
    for message in &mut detail.history {
        state.engine.inline_media(LOG, &session, &mut message.media).await?;
    }
    Ok(detail)
}

/// A run with what was decided about its call, as clients find it.
///
/// # Errors
/// What the log answers.
async fn with_approval(state: &AppState, mut output: RunOutput) -> Result<RunOutput, ApiError> {
    let id = output.approval.as_deref().and_then(|id| ApprovalId::parse(id).ok());
    let Some(id) = id.filter(|_| output.status != RunStatus::Paused.as_str()) else { return Ok(output) };
    let Some(approval) = state.engine.approval(LOG, &id).await? else { return Ok(output) };
    let Some(shown) = ApprovalResponse::of(&approval, Some(RunStatus::Paused)) else { return Ok(output) };
    let mut metadata = output.metadata.take().unwrap_or_else(|| Value::Object(Default::default()));
    metadata["approval"] = shown.to_json().unwrap_or_default();
    Ok(RunOutput { metadata: Some(metadata), ..output })
}

/// What was streamed of a run, if it was.
///
/// # Errors
/// What the log answers.
async fn events(state: &AppState, run: &RunId, detail: &RunDetail) -> Result<Vec<Value>, ApiError> {
    let meta = RunMeta::of(&detail.state, &detail.config).filter(|_| shows_events(&detail.state));
    let Some(meta) = meta.map(Arc::new) else { return Ok(Vec::new()) };
    let recorded = state.store.read_stream(LOG, &StreamId::run(run), 0).await?;
    Ok(events_from_log(&recorded, &meta))
}

fn run_not_found() -> ApiError {
    ApiError::not_found("Run not found")
}

/// Runs as lists show them; each configuration is looked up once.
///
/// # Errors
/// What the log answers.
pub(crate) async fn shown_in_list(state: &AppState, rows: &[RunRow]) -> Result<Vec<RunSchema>, ApiError> {
    let (mut configs, mut shown) = (HashMap::new(), Vec::with_capacity(rows.len()));
    for row in rows {
        let Some(accepted) = &row.state.accepted else { continue };
        let hash = accepted.config_hash.as_str();
        if !configs.contains_key(hash) {
            configs.insert(hash, state.engine.config(LOG, hash).await?);
        }
        shown.extend(configs.get(hash).and_then(|config| RunSchema::of(&row.state, config)));
    }
    Ok(shown)
}
