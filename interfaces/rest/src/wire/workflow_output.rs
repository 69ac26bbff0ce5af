//! A run of a workflow as its caller gets it, and as it is read one by one.

use daybook_engine::RunDetail;
use poem_openapi::Object;
use serde_json::Value;

use super::run_output::{RunShape, run_shown};
use super::run_parts::{content, is_going_on, stage_name};

/// A run of a workflow, its answer and how it came about.
#[derive(Debug, Default, Object)]
#[oai(skip_serializing_if_is_none)]
pub(crate) struct WorkflowRunOutput {
    /// The run.
    pub run_id: String,
    /// The workflow.
    pub workflow_id: String,
    /// Its name for people.
    pub workflow_name: String,
    /// The run that started it, where it is a step's.
    pub parent_run_id: Option<String>,
    /// The step that it carries out.
    pub workflow_step_id: Option<String>,
    /// The conversation.
    pub session_id: String,
    /// Whom it was for.
    pub user_id: Option<String>,
    /// What was asked.
    pub input: Option<String>,
    /// The answer; for a failed run what went wrong.
    pub content: Option<Value>,
    /// `str`, or what the answer's shape is called.
    pub content_type: String,
    /// Unix seconds.
    pub created_at: i64,
    /// `PENDING`, `RUNNING`, `COMPLETED`, `PAUSED`, `CANCELLED` or `ERROR`.
    pub status: String,
    /// How far a cancelled run was: `PENDING`, `EXECUTING` or `PAUSED`.
    pub cancellation_stage: Option<String>,
    /// What the caller keeps with the run.
    pub metadata: Option<Value>,
    /// What the steps came to, in order.
    pub step_results: Option<Vec<Value>>,
    /// The runs that carried steps out, in order.
    pub step_executor_runs: Option<Vec<Value>>,
    /// What a paused run waits for, and what was answered before.
    pub step_requirements: Option<Vec<Value>>,
    /// Where the step it waits at stands.
    pub paused_step_index: Option<Value>,
    /// The step it waits at.
    pub paused_step_name: Option<String>,
    /// What kind of thing it waits for.
    pub pause_kind: Option<String>,
    /// What the steps cost, and seconds.
    pub metrics: Value,
    /// What was streamed, without the pieces of text.
    pub events: Option<Vec<Value>>,
}

impl RunShape for WorkflowRunOutput {
    fn of(detail: &RunDetail) -> Self {
        let RunDetail { state, config, children, .. } = detail;
        let Some(accepted) = &state.accepted else { return Self::default() };
        let parent = accepted.parent.as_ref();
        let (content, content_type) =
            if is_going_on(state) { (None, "str".to_owned()) } else { content(state, config) };
        let runs: Vec<Value> = children.iter().map(run_shown).collect();
        Self {
            run_id: accepted.run_id.to_string(),
            workflow_id: config.id().to_string(),
            workflow_name: config.name().to_owned(),
            parent_run_id: parent.map(|parent| parent.run_id.to_string()),
            workflow_step_id: parent.and_then(|parent| parent.step.as_ref()).map(|step| step.step_id.clone()),
            session_id: accepted.session_id.to_string(),
            user_id: accepted.user_id.as_ref().map(ToString::to_string),
            input: state.messages.first().and_then(|first| first.content.clone()),
            content,
            content_type,
            created_at: accepted.at_ms / 1000,
            status: state.status.as_str().to_owned(),
            cancellation_stage: state.cancel_stage.map(|stage| stage_name(stage).to_owned()),
            metadata: accepted.metadata.get().cloned().flatten().map(Value::Object),
            step_executor_runs: Some(runs).filter(|runs| !runs.is_empty()),
            ..Self::default()
        }
    }

    fn answering(detail: &RunDetail) -> Self {
        Self::of(detail)
    }

    fn with_events(self, events: Vec<Value>) -> Self {
        Self { events: Some(events), ..self }
    }

    fn with_approval(mut self, approval: Value) -> Self {
        let mut metadata = self.metadata.take().unwrap_or_else(|| Value::Object(Default::default()));
        metadata["approval"] = approval;
        Self { metadata: Some(metadata), ..self }
    }
}
