//! A run of a workflow in a list.

use daybook_engine::RunDetail;
use poem_openapi::Object;
use serde_json::Value;

use super::history::{events_from_fold, shows_events};
use super::run_output::step_run_shown;
use super::run_parts::{is_going_on, stage_name};
use super::time::iso_seconds;
use super::workflow_output::{Waits, cost, requirements, results, said};

/// A run of a workflow.
#[derive(Debug, Default, Object)]
pub(crate) struct WorkflowRunSchema {
    /// The run.
    pub run_id: String,
    /// What was asked.
    pub run_input: Option<String>,
    /// What was streamed, without the pieces of text.
    pub events: Option<Vec<Value>>,
    /// The workflow.
    pub workflow_id: Option<String>,
    /// Whom it was for.
    pub user_id: Option<String>,
    /// The answer.
    pub content: Option<Value>,
    /// The content's type.
    pub content_type: Option<String>,
    /// Where it stands.
    pub status: Option<String>,
    /// How far a cancelled run was.
    pub cancellation_stage: Option<String>,
    /// What the steps gave.
    pub step_results: Option<Vec<Value>>,
    /// The runs of the steps.
    pub step_executor_runs: Option<Vec<Value>>,
    /// What a paused run waits for.
    pub step_requirements: Option<Vec<Value>>,
    /// Why it paused.
    pub pause_kind: Option<String>,
    /// The step it paused at.
    pub paused_step_name: Option<String>,
    /// Where it stands: a number, or a list of numbers in a block.
    pub paused_step_index: Option<Value>,
    /// Tokens and seconds.
    pub metrics: Option<Value>,
    /// ISO 8601.
    pub created_at: Option<String>,
    /// What the model thought aloud.
    pub reasoning_content: Option<String>,
    /// Steps of reasoning.
    pub reasoning_steps: Option<Vec<Value>>,
    /// Documents used.
    pub references: Option<Vec<Value>>,
    /// Sources named by the model.
    pub citations: Option<Value>,
    /// Messages of reasoning.
    pub reasoning_messages: Option<Vec<Value>>,
    /// Images made.
    pub images: Option<Vec<Value>>,
    /// Videos made.
    pub videos: Option<Vec<Value>>,
    /// Audio made.
    pub audio: Option<Vec<Value>>,
    /// Files made.
    pub files: Option<Vec<Value>>,
    /// The answer as sound.
    pub response_audio: Option<Value>,
}

impl WorkflowRunSchema {
    /// A run with those under it; `None` for one that was never accepted.
    pub fn of(detail: &RunDetail) -> Option<Self> {
        let (state, config) = (&detail.state, &detail.config);
        let accepted = state.accepted.as_ref()?;
        let going_on = is_going_on(state);
        let ((content, content_type), waits) = (said(detail), Waits::of(state));
        let none = || Some(Vec::new());
        let some = |items: Vec<Value>| Some(items).filter(|items| !items.is_empty());
        Some(Self {
            run_id: accepted.run_id.to_string(),
            run_input: state.messages.first().and_then(|first| first.content.clone()),
            events: Some(if shows_events(state) { events_from_fold(detail) } else { Vec::new() }),
            workflow_id: Some(config.id().to_string()),
            user_id: accepted.user_id.as_ref().map(ToString::to_string),
            content,
            content_type: Some(content_type),
            status: Some(state.status.as_str().to_owned()),
            cancellation_stage: state.cancel_stage.map(|stage| stage_name(stage).to_owned()),
            step_results: some(results(state)),
            step_executor_runs: some(
                detail.children.iter().map(|child| step_run_shown(child, shows_events(state))).collect(),
            ),
            step_requirements: some(requirements(detail)),
            pause_kind: waits.as_ref().map(|waits| waits.kind.to_owned()),
            paused_step_name: waits.as_ref().map(|waits| waits.name.clone()),
            paused_step_index: waits.map(|waits| waits.index),
            metrics: Some(cost(&state.flow.as_ref().map(|flow| flow.results()).unwrap_or_default(), state.duration)),
            created_at: Some(iso_seconds(accepted.at_ms / 1000)),
            reasoning_content: Some(if going_on { String::new() } else { state.reasoning() }),
            reasoning_steps: none(),
            references: none(),
            reasoning_messages: none(),
            images: none(),
            videos: none(),
            audio: none(),
            files: none(),
            ..Self::default()
        })
    }
}
