//! Tool calls and what paused runs ask about them. These keep their nulls.

use std::fmt::Write;

use daybook_domain::ids::RunId;
use daybook_domain::run::{Requirement, RequirementKind, ToolOutcome, ToolRecord};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::members::Members;
use super::time::iso_offset;

/// A tool call. `asks` is whether a person is asked about it.
pub(crate) fn execution(tool: &ToolRecord, asks: bool) -> Value {
    let (failed, result) = match &tool.outcome {
        Some(ToolOutcome::Completed(result)) => (Some(false), Some(result)),
        Some(ToolOutcome::Failed(error)) => (Some(true), Some(error)),
        Some(ToolOutcome::Unknown) | None => (None, None),
    };
    let metrics = failed.map(|_| {
        let (start, end) = (seconds(tool.started_ms), seconds(tool.ended_ms));
        json!({"start_time": start, "end_time": end, "duration": tool.duration})
    });
    json!({
        "tool_call_id": tool.call.id,
        "tool_name": tool.call.name,
        "tool_args": arguments(tool),
        "tool_call_error": failed,
        "result": result,
        "metrics": metrics,
        "child_run_id": null,
        "stop_after_tool_call": false,
        "created_at": tool.started_ms / 1000,
        "requires_confirmation": asks.then_some(true),
        "confirmed": null,
        "confirmation_note": null,
        "requires_user_input": null,
        "user_input_schema": null,
        "user_feedback_schema": null,
        "answered": null,
        "external_execution_required": null,
        "external_execution_silent": null,
        "approval_type": null,
        "approval_id": null,
        "parent_tool_call_id": null,
    })
}

/// The calls of a run, each with whether one of `requirements` is about it.
pub(crate) fn executions(tools: &[ToolRecord], requirements: &[Requirement]) -> Vec<Value> {
    let asks = |tool: &ToolRecord| requirements.iter().any(|needed| needed.call_id == tool.call.id);
    tools.iter().map(|tool| execution(tool, asks(tool))).collect()
}

/// What a paused run waits for, with the calls concerned.
pub(crate) fn requirements(run: &RunId, requirements: &[Requirement], tools: &[ToolRecord]) -> Vec<Value> {
    let about = |needed: &Requirement| tools.iter().find(|tool| tool.call.id == needed.call_id);
    requirements.iter().filter_map(|needed| Some(requirement(run, needed, about(needed)?))).collect()
}

fn requirement(run: &RunId, needed: &Requirement, tool: &ToolRecord) -> Value {
    let kind = match needed.kind {
        RequirementKind::UnknownOutcome => "unknown_outcome",
    };
    // The same in every frame and answer, so that a client can refer to it.
    let id = Uuid::new_v5(&Uuid::NAMESPACE_OID, format!("daybook {run} requirement {}", needed.call_id).as_bytes());
    Members::default()
        .with("id", id.to_string())
        .with("created_at", iso_offset(tool.ended_ms))
        .with("tool_execution", execution(tool, true))
        .with("kind", kind)
        .done()
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
    tool.call.parsed().unwrap_or_default()
}

/// Unix seconds with fractions.
#[expect(clippy::cast_precision_loss, reason = "milliseconds of this age fit a double exactly")]
fn seconds(ms: i64) -> f64 {
    ms as f64 / 1000.0
}

#[cfg(test)]
pub(crate) mod tests {
    use daybook_domain::message::ToolCall;
    use daybook_domain::tool::Effect;

    use super::*;

    /// A call of `get_weather` with this outcome.
    pub(crate) fn record(outcome: Option<ToolOutcome>) -> ToolRecord {
        let call = ToolCall {
            id: "call_1".to_owned(),
            name: "get_weather".to_owned(),
            arguments: "{\"city\": \"Paris\"}".to_owned(),
        };
        let (idempotency_key, effect) = ("k".to_owned(), Effect::Unsafe);
        let (started_ms, ended_ms, duration) = (1_795_442_143_123, 1_795_442_143_141, 0.0175);
        ToolRecord { call, effect, idempotency_key, attempts: 1, outcome, started_ms, ended_ms, duration }
    }

    #[test]
    fn a_call_keeps_every_member() {
        let started = execution(&record(None), false);
        assert_eq!(started.as_object().unwrap().len(), 21);
        assert_eq!(started["tool_call_error"], Value::Null);
        assert_eq!(started["created_at"], 1_795_442_143);
        let done = execution(&record(Some(ToolOutcome::Completed("Sunny".to_owned()))), false);
        assert_eq!((&done["tool_call_error"], &done["result"]), (&json!(false), &json!("Sunny")));
        assert_eq!(done["metrics"]["start_time"], 1_795_442_143.123);
    }

    #[test]
    fn the_sentence_is_as_recorded() {
        assert_eq!(sentence(&record(None)), "get_weather(city=Paris) completed in 0.0175s. ");
    }

    #[test]
    fn a_requirement_has_the_same_id_everywhere() {
        let needed = [Requirement { call_id: "call_1".to_owned(), kind: RequirementKind::UnknownOutcome }];
        let run = RunId::parse("r").unwrap();
        let first = requirements(&run, &needed, &[record(Some(ToolOutcome::Unknown))]);
        assert_eq!(first, requirements(&run, &needed, &[record(Some(ToolOutcome::Unknown))]));
        assert_eq!(first[0]["tool_execution"]["requires_confirmation"], true);
    }
}
