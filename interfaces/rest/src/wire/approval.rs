//! Approvals as clients see them. These keep their nulls.

use daybook_domain::approval::{ApprovalState, ApprovalStatus};
use daybook_domain::component::ComponentKind;
use daybook_domain::message::ToolCall;
use daybook_domain::run::{RequirementKind, RunStatus, ToolRecord};
use daybook_domain::tool::ApprovalKind;
use poem_openapi::Object;
use serde_json::{Value, json};

use super::PaginationInfo;
use super::tool::{self, Told};

/// An approval.
#[derive(Debug, Object)]
pub(crate) struct ApprovalResponse {
    /// Its id.
    pub id: String,
    /// The run that waits.
    pub run_id: String,
    /// The run's session.
    pub session_id: String,
    /// `pending`, `approved`, `rejected`, `expired` or `cancelled`.
    pub status: String,
    /// The kind of what runs: `agent`, `team` or `workflow`.
    pub source_type: String,
    /// `required` or `audit`.
    pub approval_type: Option<String>,
    /// What the run waits for.
    pub pause_type: Option<String>,
    /// The tool.
    pub tool_name: Option<String>,
    /// The arguments it would be called with.
    pub tool_args: Option<Value>,
    /// Unix seconds.
    pub expires_at: Option<i64>,
    /// The agent.
    pub agent_id: Option<String>,
    /// The team.
    pub team_id: Option<String>,
    /// The workflow.
    pub workflow_id: Option<String>,
    /// Whose run it is.
    pub user_id: Option<String>,
    /// The schedule that started it.
    pub schedule_id: Option<String>,
    /// The schedule's run.
    pub schedule_run_id: Option<String>,
    /// The name of what runs, for people.
    pub source_name: Option<String>,
    /// What the run waits for, with the call.
    pub requirements: Option<Vec<Value>>,
    /// What it is about, for people.
    pub context: Option<Value>,
    /// What was kept with the decision.
    pub resolution_data: Option<Value>,
    /// Who decided.
    pub resolved_by: Option<String>,
    /// Unix seconds.
    pub resolved_at: Option<i64>,
    /// Unix seconds.
    pub created_at: Option<i64>,
    /// Unix seconds.
    pub updated_at: Option<i64>,
    /// Where the run stands.
    pub run_status: Option<String>,
}

/// A page of approvals.
#[derive(Debug, Object)]
pub(crate) struct ApprovalPage {
    /// The approvals, newest first.
    pub data: Vec<ApprovalResponse>,
    /// Where the page is.
    pub meta: PaginationInfo,
}

impl ApprovalResponse {
    /// An approval with where its run stands; `None` for one that was never requested or is deleted.
    pub fn of(state: &ApprovalState, run: Option<RunStatus>) -> Option<Self> {
        let requested = state.visible()?;
        let required = requested.rule.kind == ApprovalKind::Required;
        let arguments = requested.arguments.get().cloned();
        let component = Some(&requested.component);
        let of = |kind| component.filter(|component| component.kind == kind).map(|component| component.id.to_string());
        Some(Self {
            id: requested.approval_id.to_string(),
            run_id: requested.run_id.to_string(),
            session_id: requested.session_id.to_string(),
            status: state.status.as_str().to_owned(),
            source_type: requested.component.kind.as_str().to_owned(),
            approval_type: Some(if required { "required" } else { "audit" }.to_owned()),
            pause_type: Some(requested.requirement.kind.as_str().to_owned()),
            tool_name: Some(requested.tool.clone()),
            tool_args: arguments.map(Value::Object),
            expires_at: requested.expires_at_ms.map(|at| at.div_euclid(1000)),
            agent_id: of(ComponentKind::Agent),
            team_id: of(ComponentKind::Team),
            workflow_id: of(ComponentKind::Workflow),
            user_id: requested.user_id.as_ref().map(ToString::to_string),
            schedule_id: None,
            schedule_run_id: None,
            source_name: Some(requested.source_name.clone()),
            requirements: required.then(|| vec![asked(state)]),
            context: Some(json!({"tool_names": [requested.tool], "source_name": requested.source_name})),
            resolution_data: state
                .resolved
                .as_ref()
                .and_then(|resolved| resolved.data.get().cloned().flatten())
                .map(Value::Object),
            resolved_by: state.resolved_by().map(str::to_owned),
            resolved_at: settled_at(state),
            created_at: Some(requested.at_ms.div_euclid(1000)),
            updated_at: Some(state.updated_ms.div_euclid(1000)),
            run_status: run.map(|status| status.as_str().to_owned()),
        })
    }
}

/// Unix seconds of the decision.
pub(crate) fn settled_at(state: &ApprovalState) -> Option<i64> {
    let settled = !matches!(state.status, ApprovalStatus::Pending | ApprovalStatus::Cancelled);
    let at = state.resolved.as_ref().map_or(state.updated_ms, |resolved| resolved.at_ms);
    settled.then(|| at.div_euclid(1000))
}

/// What was asked, as the run showed it.
fn asked(state: &ApprovalState) -> Value {
    let Some(requested) = &state.requested else { return Value::Null };
    let arguments = requested.arguments.get().cloned().map(Value::Object).unwrap_or_default();
    let call = ToolCall {
        id: requested.requirement.call_id.clone(),
        name: requested.tool.clone(),
        arguments: arguments.to_string(),
    };
    let tool = ToolRecord {
        asked: Some(requested.requirement.clone()),
        asked_ms: requested.at_ms,
        approval: requested.requirement.approval.clone(),
        ..ToolRecord::new(call, requested.at_ms)
    };
    let mut shown = tool::requirement(&requested.run_id, &tool, Told::InEvent);
    // It is shown inside the very approval.
    shown["tool_execution"]["approval_id"] = Value::Null;
    shown
}

/// The kind of pause a word stands for.
pub(crate) fn pause_kind(word: &str) -> Option<RequirementKind> {
    use RequirementKind as K;
    let all = [K::UnknownOutcome, K::Confirmation, K::UserInput, K::UserFeedback, K::ExternalExecution];
    all.into_iter().find(|kind| kind.as_str() == word)
}
