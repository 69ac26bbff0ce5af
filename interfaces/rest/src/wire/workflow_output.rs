//! A run of a workflow as its caller gets it, and as it is read one by one.

use std::sync::Arc;

use daybook_domain::media::MediaKind;
use daybook_domain::run::{RunState, RunStatus};
use daybook_domain::workflow::{Ask, Place, StepOutput, StepType};
use daybook_engine::{RunDetail, StepAsked};
use poem_openapi::Object;
use serde_json::{Map, Value, json};

use super::run_output::{RunShape, step_run_shown};
use super::run_parts::{content, stage_name};
use super::{media, pause, step};

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
    /// Images that its steps gave.
    pub images: Option<Vec<Value>>,
    /// Videos that its steps gave.
    pub videos: Option<Vec<Value>>,
    /// Audio that its steps gave.
    pub audio: Option<Vec<Value>>,
    /// Files that its steps gave.
    pub files: Option<Vec<Value>>,
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
        let (content, content_type) = said(detail);
        let runs: Vec<Value> = children.iter().map(|child| step_run_shown(child, state.keeps_frames())).collect();
        let waits = Waits::of(state);
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
            metadata: Some(Value::Object(accepted.metadata.get().cloned().flatten().unwrap_or_default())),
            step_results: some(results(state)),
            images: given(state, MediaKind::Image),
            videos: given(state, MediaKind::Video),
            audio: given(state, MediaKind::Audio),
            files: given(state, MediaKind::File),
            step_executor_runs: some(runs),
            step_requirements: some(requirements(detail)),
            paused_step_index: waits.as_ref().map(|waits| waits.index.clone()),
            paused_step_name: waits.as_ref().map(|waits| waits.name.clone()),
            pause_kind: waits.map(|waits| waits.kind.to_owned()),
            metrics: cost(&state.flow.as_ref().map(|flow| flow.results()).unwrap_or_default(), state.duration),
            ..Self::default()
        }
    }

    /// A run that ended well says that it gave no media.
    fn answering(detail: &RunDetail) -> Self {
        let output = Self::of(detail);
        let empty = (detail.state.status == RunStatus::Completed).then(Vec::new);
        Self {
            images: output.images.or(empty.clone()),
            videos: output.videos.or(empty.clone()),
            audio: output.audio.or(empty.clone()),
            files: output.files.or(empty),
            ..output
        }
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

fn some(items: Vec<Value>) -> Option<Vec<Value>> {
    Some(items).filter(|items| !items.is_empty())
}

/// What its steps gave of this kind.
fn given(state: &RunState, kind: MediaKind) -> Option<Vec<Value>> {
    let outputs = state.flow.iter().flat_map(|flow| flow.results()).flat_map(|output| output.all());
    some(outputs.flat_map(|output| media::of_kind(&output.media, kind)).collect())
}

/// What the workflow's own steps came to.
pub(crate) fn results(state: &RunState) -> Vec<Value> {
    let Some(run) = state.run_id() else { return Vec::new() };
    let results = state.flow.iter().flat_map(|flow| flow.results());
    results.map(|output| step::output(&output, run)).collect()
}

/// What was asked about steps that still matters, in the order in which they were reached.
pub(crate) fn requirements(detail: &RunDetail) -> Vec<Value> {
    let state = &detail.state;
    let (Some(flow), Some(run)) = (&state.flow, state.run_id()) else { return Vec::new() };
    let input = state.messages.first().and_then(|first| first.content.as_deref());
    let results = flow.results();
    let order = |place: &Place| flow.step(place).map(|record| record.order);
    let shown = |asked: &StepAsked| {
        let before = results.iter().filter(|output| order(&output.place) < order(&asked.step.place));
        let given = step::given(input, before.map(AsRef::as_ref), run);
        step::requirement(asked, run, given, &calls(&asked.requirement.ask, &detail.children))
    };
    StepAsked::all(state).iter().map(shown).collect()
}

/// What the run that carries a step out asks, and those under it.
fn calls(ask: &Ask, children: &[RunDetail]) -> Vec<Value> {
    let Ask::Executor { child, .. } = ask else { return Vec::new() };
    let mut calls = Vec::new();
    let of_step = children.iter().filter(|known| known.state.run_id() == Some(&child.run_id));
    of_step.for_each(|known| pause::add_members(known, &mut calls));
    calls
}

/// What the steps cost that have a cost, and the seconds that all of it took.
pub(crate) fn cost(results: &[Arc<StepOutput>], duration: Option<f64>) -> Value {
    let single = results.iter().flat_map(StepOutput::all).filter(|output| output.kind == StepType::Step);
    let cost = |output: Arc<StepOutput>| {
        let executor = output.executor.as_ref().filter(|_| !output.spent.is_empty())?;
        let of_step = json!({
            "step_name": output.name,
            "executor_type": executor.kind.as_str(),
            "executor_name": executor.name,
            "metrics": step::metrics(&output),
        });
        Some((output.name.clone(), of_step))
    };
    json!({"steps": single.filter_map(cost).collect::<Map<_, _>>(), "duration": duration})
}

/// The step that a paused run waits at.
pub(crate) struct Waits {
    /// Where it stands.
    pub index: Value,
    /// Its name.
    pub name: String,
    /// What kind of thing it waits for.
    pub kind: &'static str,
}

impl Waits {
    /// At the first of these that has no answer.
    pub fn at(asked: &[StepAsked]) -> Option<Self> {
        let first = asked.iter().find(|asked| asked.given.is_none())?;
        let kind = if matches!(first.requirement.ask, Ask::Executor { .. }) { "executor" } else { "step" };
        Some(Self { index: first.step.index.clone(), name: first.step.name.clone(), kind })
    }

    /// `None` where it does not wait.
    pub fn of(state: &RunState) -> Option<Self> {
        Self::at(&StepAsked::all(state)).filter(|_| state.status == RunStatus::Paused)
    }
}

/// What the workflow said, and its type.
pub(crate) fn said(detail: &RunDetail) -> (Option<Value>, String) {
    let (state, config) = (&detail.state, &detail.config);
    let said = state.flow.as_ref().and_then(|flow| flow.content()).filter(|said| !said.is_string());
    match (state.status, said) {
        (RunStatus::Pending | RunStatus::Running | RunStatus::Paused, _) => (None, "str".to_owned()),
        (RunStatus::Completed, Some(said)) => {
            let kind = step::content_type(&said).to_owned();
            (Some(said), kind)
        }
        _ => content(state, config),
    }
}
