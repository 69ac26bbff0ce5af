//! Tool calls and what paused runs ask about them. These keep their nulls.

use std::fmt::Write;

use daybook_domain::ids::RunId;
use daybook_domain::long_result::WholeResult;
use daybook_domain::run::{
    Choice, Decision, InputField, Question, Requirement, RequirementKind, ToolOutcome, ToolRecord, questions,
};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::members::Members;
use super::time::iso_offset;

/// Whether a call is shown as it was when it was told of, or as it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Told {
    /// In an event: what was asked about it is still marked as asked.
    InEvent,
    /// In a run: what was answered is no longer asked.
    InRun,
}

/// What is shown as the note of a call that was rejected without one.
const REJECTED_NOTE: &str = "Tool call was rejected";

/// A tool call.
pub(crate) fn execution(tool: &ToolRecord, told: Told) -> Value {
    let (failed, result) = match &tool.outcome {
        Some(ToolOutcome::Completed(result)) => (Some(false), Some(result)),
        Some(ToolOutcome::Failed(error)) => (Some(true), Some(error)),
        Some(ToolOutcome::Rejected(_)) => (Some(true), None),
        Some(ToolOutcome::Unknown) | None => (None, None),
    };
    let metrics = failed.filter(|_| tool.attempts > 0).map(|_| {
        let (start, end) = (seconds(tool.started_ms), seconds(tool.ended_ms));
        json!({"start_time": start, "end_time": end, "duration": tool.duration})
    });
    let kind = tool.asked.as_ref().map(|asked| asked.kind);
    let asks = |wanted| (kind == Some(wanted)).then_some(true);
    let confirms = asks(RequirementKind::Confirmation).or(asks(RequirementKind::UnknownOutcome));
    let settled = told == Told::InRun && !tool.is_open();
    let silent = tool.asked.as_ref().is_some_and(|asked| asked.silent).then_some(true);
    let mut shown = json!({
        "tool_call_id": tool.call.id,
        "tool_name": tool.call.name,
        "tool_args": arguments(tool),
        "tool_call_error": failed,
        "result": result,
        "metrics": metrics,
        "child_run_id": tool.children.first().map(|child| &child.run_id),
        "stop_after_tool_call": false,
        "created_at": tool.started_ms / 1000,
        "requires_confirmation": confirms.map(|_| !settled),
        "confirmed": confirmed(tool),
        "confirmation_note": note(tool),
        "requires_user_input": asks(RequirementKind::UserInput).or(tool.filled.as_ref().map(|_| true)),
        "user_input_schema": input_schema(tool),
        "user_feedback_schema": feedback_schema(tool),
        "answered": asks(RequirementKind::UserFeedback).and(tool.given.as_ref()).map(|_| true),
        "external_execution_required": asks(RequirementKind::ExternalExecution),
        "external_execution_silent": silent,
        "approval_type": approval_type(tool),
        "approval_id": tool.approval,
        "parent_tool_call_id": null,
    });
    if let Some(whole) = &tool.whole {
        shown["whole_result"] = whole_result(whole);
    }
    // Clients know of one run only.
    if tool.children.len() > 1 {
        shown["child_run_ids"] = tool.children.iter().map(|child| child.run_id.as_str()).collect();
    }
    shown
}

/// Where all of a long result is: under `/agents/{agent_id}/runs/{run_id}/results/{id}`.
pub(crate) fn whole_result(whole: &WholeResult) -> Value {
    Members::default()
        .with("id", whole.id())
        .with("bytes", whole.len)
        .with("sha256", whole.hash.as_str())
        .maybe("lost_bytes", Some(whole.lost).filter(|lost| *lost > 0))
        .done()
}

fn confirmed(tool: &ToolRecord) -> Option<bool> {
    match tool.given.as_ref()?.decision {
        Decision::Confirmed | Decision::RunAgain => Some(true),
        Decision::Rejected => Some(false),
        Decision::Filled | Decision::Chosen | Decision::Executed => None,
    }
}

fn note(tool: &ToolRecord) -> Option<&str> {
    let given = tool.given.as_ref().filter(|given| given.decision == Decision::Rejected)?;
    Some(given.note.as_deref().unwrap_or(REJECTED_NOTE))
}

fn approval_type(tool: &ToolRecord) -> Option<&'static str> {
    if tool.approval.is_some() {
        return Some("required");
    }
    tool.asked.as_ref().filter(|asked| asked.audited).map(|_| "audit")
}

/// The arguments of a tool that a person fills some of, each with its value.
fn input_schema(tool: &ToolRecord) -> Option<Vec<Value>> {
    let asked = tool.asked.as_ref().filter(|asked| asked.kind == RequirementKind::UserInput)?;
    let (model, filled) = (tool.call.parsed().unwrap_or_default(), tool.filled.clone().unwrap_or_default());
    let field = |field: &InputField| {
        let value = filled.get(&field.name).or_else(|| model.get(&field.name).filter(|_| !field.asked));
        let mut shown = input_field(field, value);
        // What may be left out, which differs from what clients expect.
        if field.asked && !field.required {
            shown["required"] = false.into();
        }
        shown
    };
    Some(asked.fields.iter().map(field).collect())
}

/// A value that a person fills in.
pub(crate) fn input_field(field: &InputField, value: Option<&Value>) -> Value {
    let shown = Members::default()
        .with("name", field.name.as_str())
        .with("field_type", field.kinds().map(python_type).collect::<Vec<_>>().join(" | "))
        .with("description", field.description.clone().map_or(Value::Null, Value::from))
        .with("value", value.cloned().unwrap_or_default());
    shown.list("allowed_values", field.choices.clone()).done()
}

/// The types' names as clients know them.
fn python_type(kind: &str) -> &str {
    match kind {
        "string" => "str",
        "integer" => "int",
        "number" => "float",
        "boolean" => "bool",
        "array" => "list",
        "object" => "dict",
        "any" => "Any",
        other => other,
    }
}

/// The questions of a call that asks for choices, with what was chosen.
fn feedback_schema(tool: &ToolRecord) -> Option<Vec<Value>> {
    tool.asked.as_ref().filter(|asked| asked.kind == RequirementKind::UserFeedback)?;
    let chosen = tool.given.as_ref().and_then(|given| given.values.clone()).unwrap_or_default();
    let question = |question: Question| {
        let selected = chosen.get(&question.question).cloned();
        let is_selected = |label: &str| {
            selected.as_ref().and_then(Value::as_array).is_some_and(|labels| labels.contains(&Value::from(label)))
        };
        let option = |option: &Choice| json!({"label": option.label, "description": option.description, "selected": is_selected(&option.label)});
        json!({
            "question": question.question,
            "header": question.header,
            "multi_select": question.multi_select,
            "selected_options": selected,
            "options": question.options.iter().map(option).collect::<Vec<_>>(),
        })
    };
    Some(questions(&tool.call).into_iter().map(question).collect())
}

/// The calls of a run.
pub(crate) fn executions(tools: &[ToolRecord], told: Told) -> Vec<Value> {
    tools.iter().map(|tool| execution(tool, told)).collect()
}

/// What a run asked of people, with the calls concerned.
pub(crate) fn requirements(run: &RunId, requirements: &[Requirement], tools: &[ToolRecord], told: Told) -> Vec<Value> {
    let about = |needed: &Requirement| tools.iter().find(|tool| tool.call.id == needed.call_id);
    requirements.iter().filter_map(|needed| Some(requirement(run, about(needed)?, told))).collect()
}

/// What was asked about one call.
pub(crate) fn requirement(run: &RunId, tool: &ToolRecord, told: Told) -> Value {
    let kind = tool.asked.as_ref().map_or(RequirementKind::Confirmation, |asked| asked.kind);
    // The same in every frame and answer, so that a client can refer to it.
    let id = Uuid::new_v5(&Uuid::NAMESPACE_OID, format!("daybook {run} requirement {}", tool.call.id).as_bytes());
    Members::default()
        .with("id", id.to_string())
        .with("created_at", iso_offset(tool.asked_ms))
        .maybe("confirmation", confirmed(tool))
        .maybe("confirmation_note", note(tool))
        .with("tool_execution", execution(tool, told))
        .maybe("user_input_schema", input_schema(tool))
        .maybe("user_feedback_schema", feedback_schema(tool))
        .with("kind", kind.as_str())
        .done()
}

/// What a paused run says of calls that a crash hid.
const MAY_HAVE_RUN: &str =
    "A tool may have run already: nobody knows how it ended, and whether it runs again is for a person to say.";

/// What a paused run says when its model said nothing; nothing where the wait is to be silent. `open` are those of the
/// requirements that nobody has answered.
pub(crate) fn paused_words<'a>(
    requirements: &[Requirement],
    mut open: impl Iterator<Item = &'a Requirement>,
) -> &'static str {
    let spoken = requirements.iter().rev().find(|needed| !needed.silent);
    if open.any(|needed| needed.kind == RequirementKind::UnknownOutcome) {
        return MAY_HAVE_RUN;
    }
    match spoken.map(|needed| needed.kind) {
        Some(RequirementKind::UnknownOutcome) => MAY_HAVE_RUN,
        Some(RequirementKind::Confirmation) => "I have tools to execute, but I need confirmation.",
        Some(RequirementKind::UserInput) => "I have tools to execute, but I need user input.",
        Some(RequirementKind::ExternalExecution) => "I have tools to execute, but it needs external execution.",
        Some(RequirementKind::UserFeedback) => "I have a question.",
        None => "",
    }
}

/// What is said of a call that ended: `get_weather(city=Paris) completed in 0.0175s. `
pub(crate) fn sentence(tool: &ToolRecord) -> String {
    let mut text = format!("{}(", tool.call.name);
    for (at, (name, value)) in arguments(tool).iter().enumerate() {
        text.push_str(if at == 0 { "" } else { ", " });
        text.push_str(name);
        text.push('=');
        match value {
            Value::String(word) => text.push_str(word),
            other => text.push_str(&other.to_string()),
        }
    }
    // Writing to a string does not fail.
    let _ = write!(text, ") completed in {:.4}s. ", tool.duration);
    text
}

/// The arguments; empty when the model wrote something that is no object.
fn arguments(tool: &ToolRecord) -> Map<String, Value> {
    tool.arguments().unwrap_or_default()
}

/// Unix seconds with fractions.
#[expect(clippy::cast_precision_loss, reason = "milliseconds of this age fit a double exactly")]
fn seconds(ms: i64) -> f64 {
    ms as f64 / 1000.0
}

#[cfg(test)]
pub(crate) mod tests {
    use daybook_domain::message::ToolCall;

    use super::*;

    /// A call of `get_weather` with this outcome.
    pub(crate) fn record(outcome: Option<ToolOutcome>) -> ToolRecord {
        let call = ToolCall {
            id: "call_1".to_owned(),
            name: "get_weather".to_owned(),
            arguments: "{\"city\": \"Paris\"}".to_owned(),
        };
        let (started_ms, ended_ms, duration) = (1_795_442_143_123, 1_795_442_143_141, 0.0175);
        ToolRecord { attempts: 1, outcome, ended_ms, duration, ..ToolRecord::new(call, started_ms) }
    }

    #[test]
    fn a_call_keeps_every_member() {
        let started = execution(&record(None), Told::InEvent);
        assert_eq!(started.as_object().unwrap().len(), 21);
        assert_eq!(started["tool_call_error"], Value::Null);
        assert_eq!(started["created_at"], 1_795_442_143);
        let done = execution(&record(Some(ToolOutcome::Completed("Sunny".to_owned()))), Told::InEvent);
        assert_eq!((&done["tool_call_error"], &done["result"]), (&json!(false), &json!("Sunny")));
        assert_eq!(done["metrics"]["start_time"], 1_795_442_143.123);
    }

    #[test]
    fn a_long_result_says_where_all_of_it_is() {
        let hash = "0123456789abcdef".repeat(4);
        let whole = WholeResult { hash: hash.clone(), len: 70_000, lost: 0, beginning: 3, end: 2 };
        let shown =
            |whole| execution(&ToolRecord { whole: Some(whole), ..record(None) }, Told::InRun)["whole_result"].take();
        let expected = json!({"id": "0123456789abcdef", "bytes": 70_000, "sha256": hash});
        assert_eq!(shown(whole.clone()), expected);
        assert_eq!(shown(WholeResult { lost: 5, ..whole })["lost_bytes"], 5);
    }

    #[test]
    fn the_sentence_is_as_recorded() {
        assert_eq!(sentence(&record(None)), "get_weather(city=Paris) completed in 0.0175s. ");
    }

    #[test]
    fn a_requirement_has_the_same_id_everywhere() {
        let needed = [Requirement::new("call_1", RequirementKind::UnknownOutcome)];
        let tool = ToolRecord { asked: Some(needed[0].clone()), ..record(Some(ToolOutcome::Unknown)) };
        let run = RunId::parse("r").unwrap();
        let first = requirements(&run, &needed, std::slice::from_ref(&tool), Told::InEvent);
        assert_eq!(first, requirements(&run, &needed, &[tool], Told::InEvent));
        assert_eq!(first[0]["tool_execution"]["requires_confirmation"], true);
        assert_eq!(first[0]["kind"], "unknown_outcome");
    }

    #[test]
    fn what_is_filled_in_is_shown_with_its_type() {
        let field = |name: &str, asked| InputField {
            name: name.to_owned(),
            kind: "string".to_owned(),
            description: None,
            required: true,
            nullable: false,
            asked,
            choices: Vec::new(),
        };
        let fields = vec![field("city", false), field("to", true)];
        let asked = Requirement { fields, ..Requirement::new("call_1", RequirementKind::UserInput) };
        let mut tool = ToolRecord { asked: Some(asked), attempts: 0, ..record(None) };
        let shown = |tool: &ToolRecord| execution(tool, Told::InEvent)["user_input_schema"].clone();
        let field =
            |name: &str, value: Value| json!({"name": name, "field_type": "str", "description": null, "value": value});
        assert_eq!(shown(&tool), json!([field("city", json!("Paris")), field("to", Value::Null)]));
        tool.filled = Some(Map::from_iter([("to".to_owned(), json!("bob"))]));
        assert_eq!(shown(&tool), json!([field("city", json!("Paris")), field("to", json!("bob"))]));
        assert_eq!(execution(&tool, Told::InRun)["tool_args"], json!({"city": "Paris", "to": "bob"}));
    }
}
