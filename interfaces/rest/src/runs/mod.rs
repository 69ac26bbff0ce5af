//! Runs of agents, teams and workflows: starting, reading, watching and stopping them.

mod answer;
mod answers;
mod cancel;
mod checkpoints;
mod compact;
mod continue_form;
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
mod step_answers;
mod tree;

pub(crate) use continue_run::command as continue_command;
pub(crate) use form::RunRequest;

use daybook_domain::StreamId;
use daybook_domain::component::ComponentKind;
use daybook_domain::run::{RunState, RunStatus};
use daybook_engine::{RunDetail, RunMeta};
use daybook_projections::RunRow;
use poem_openapi::OpenApi;
use poem_openapi::types::ToJSON;
use serde_json::Value;

use self::continue_form::Continues;
use crate::errors::ApiError;
use crate::kind::{Agents, Described, Kind, Of, Teams, Workflows, run_not_found};
use crate::state::{AppState, LOG};
use crate::wire::{ApprovalResponse, ItemShape, RunItem, RunShape, events_from_log, shows_events};

/// The handlers.
pub(crate) fn routes(state: &AppState) -> impl OpenApi + use<> {
    (
        (of_any::<Agents>(state), of_pauses::<Agents>(state), of_conversations::<Agents>(state)),
        (of_any::<Teams>(state), of_pauses::<Teams>(state), of_conversations::<Teams>(state)),
        (of_any::<Workflows>(state), of_pauses::<Workflows>(state)),
    )
}

/// What every kind of component has.
fn of_any<K: Kind>(state: &AppState) -> impl OpenApi + use<K> {
    let of = Of::<K>::new(state);
    Described::<K, _>::new((
        create::Create(of.clone()),
        list::List(of.clone()),
        get::Get(of.clone()),
        result::GetResult(of.clone()),
        cancel::Cancel(of.clone()),
        resume::Resume(of),
    ))
}

/// What they have whose runs wait for people.
fn of_pauses<K: Continues>(state: &AppState) -> impl OpenApi + use<K> {
    Described::<K, _>::new(continue_run::Continue(Of::<K>::new(state)))
}

/// What those have that talk with a model.
fn of_conversations<K: Kind>(state: &AppState) -> impl OpenApi + use<K> {
    let of = Of::<K>::new(state);
    Described::<K, _>::new((checkpoints::Checkpoints(of.clone()), fork::Fork(of.clone()), compact::Compact(of)))
}

/// A run with all that is shown of it, large media included.
///
/// # Errors
/// 404 when it was never accepted, or what the log answers.
async fn detail(state: &AppState, run: RunState) -> Result<RunDetail, ApiError> {
    let earlier = tree::TakenOver::by(state, &run).await?;
    let mut detail = state.engine.detail(LOG, run).await?.ok_or_else(run_not_found)?;
    earlier.before(&mut detail);
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
async fn with_approval<T: RunShape>(state: &AppState, run: &RunState, output: T) -> Result<T, ApiError> {
    let shows = run.status.is_end();
    let id = run.tools.iter().rev().find_map(|tool| tool.approval.as_ref()).filter(|_| shows);
    let Some(id) = id else { return Ok(output) };
    let Some(approval) = state.engine.approval(LOG, id).await? else { return Ok(output) };
    let Some(shown) = ApprovalResponse::of(&approval, Some(RunStatus::Paused)) else { return Ok(output) };
    Ok(output.with_approval(shown.to_json().unwrap_or_default()))
}

/// What was streamed of a run, if it was.
///
/// # Errors
/// What the log answers.
async fn events(state: &AppState, detail: &RunDetail) -> Result<Vec<Value>, ApiError> {
    if shows_events(&detail.state) { all_events(state, detail).await } else { Ok(Vec::new()) }
}

/// The events that clients find beside the answer to a request; `None` for none.
///
/// # Errors
/// What the log answers.
async fn events_of_answer(
    state: &AppState,
    detail: &RunDetail,
    continued: bool,
) -> Result<Option<Vec<Value>>, ApiError> {
    if shows_events(&detail.state) || detail.config.component().kind != ComponentKind::Team {
        return if continued { events(state, detail).await.map(Some) } else { Ok(None) };
    }
    // Of a team they find what stopped its run, and that it went on, though nobody watched.
    let turns = ["TeamRunPaused", "TeamRunContinued", "TeamRunError"];
    let events = own_events(state, detail).await?.into_iter().map(|(_, event)| event);
    let turn = |event: &Value| event["event"].as_str().is_some_and(|name| turns.contains(&name));
    Ok(Some(events.filter(turn).collect::<Vec<_>>()).filter(|events| !events.is_empty()))
}

async fn all_events(state: &AppState, detail: &RunDetail) -> Result<Vec<Value>, ApiError> {
    let (mut told, mut open) = (Vec::new(), vec![detail]);
    while let Some(run) = open.pop() {
        told.extend(own_events(state, run).await?);
        open.extend(&run.children);
    }
    told.sort_by_key(|(index, _)| *index);
    Ok(told.into_iter().map(|(_, event)| event).collect())
}

/// The events of a run's own, each with its index.
async fn own_events(state: &AppState, detail: &RunDetail) -> Result<Vec<(u64, Value)>, ApiError> {
    let Some(meta) = RunMeta::of(&detail.state, &detail.config) else { return Ok(Vec::new()) };
    let recorded = state.store.read_stream(LOG, &StreamId::run(&meta.run_id), 0).await?;
    Ok(events_from_log(&recorded, &meta, &detail.children))
}

/// Runs as lists show them.
///
/// # Errors
/// What the log answers.
async fn shown_in_list<T: ItemShape>(state: &AppState, rows: &[RunRow]) -> Result<Vec<T>, ApiError> {
    Ok(tree::of_rows(state, rows).await?.iter().filter_map(T::of).collect())
}

/// Runs as the lists of sessions show them: each after those under it.
///
/// # Errors
/// What the log answers.
pub(crate) async fn shown_with_those_under(state: &AppState, rows: &[RunRow]) -> Result<Vec<RunItem>, ApiError> {
    fn add(detail: &RunDetail, shown: &mut Vec<RunItem>) {
        detail.children.iter().for_each(|child| add(child, shown));
        shown.extend(RunItem::of(detail));
    }
    let mut shown = Vec::with_capacity(rows.len());
    tree::of_rows(state, rows).await?.iter().for_each(|detail| add(detail, &mut shown));
    Ok(shown)
}
