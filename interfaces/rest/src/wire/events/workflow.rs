//! What the events of a workflow's own run say.

use daybook_domain::ids::RunId;
use daybook_domain::media::MediaKind;
use daybook_domain::run::MemberAsk;
use daybook_domain::workflow::{Ask, Decision, StepOutput, StepRequirement};
use daybook_engine::{FrameBody, RunEnd, StepAsked, StepTag};
use serde::ser::SerializeMap;
use serde_json::{Map, Value, json};
use std::sync::Arc;

use super::super::workflow_output::{Waits, cost};
use super::super::{media, pause, step, step_run_shown};
use super::{Event, maybe};

/// Writes what the event says.
pub(super) fn body<M: SerializeMap>(map: &mut M, event: &Event) -> Result<(), M::Error> {
    let run = &event.run.run_id;
    match event.body {
        FrameBody::Restarted { epoch } => map.serialize_entry("epoch", epoch),
        FrameBody::Completed(end) => completed(map, run, end),
        FrameBody::Error { message, error_type } => {
            map.serialize_entry("error", message)?;
            map.serialize_entry("error_type", error_type)
        }
        FrameBody::Cancelled { content, reason } => {
            map.serialize_entry("content", if content.is_empty() { reason } else { content })?;
            map.serialize_entry("reason", reason)
        }
        FrameBody::FlowPaused { steps, members, results } => paused(map, run, steps, members, results),
        body => of_step(map, run, body),
    }
}

/// Writes what an event about one step says; nothing for others.
fn of_step<M: SerializeMap>(map: &mut M, run: &RunId, body: &FrameBody) -> Result<(), M::Error> {
    match body {
        FrameBody::StepStarted { step } => tag(map, step),
        FrameBody::StepProgress { step, attempt, text } => {
            tag(map, step)?;
            map.serialize_entry("attempt", attempt)?;
            map.serialize_entry("content", text)
        }
        FrameBody::StepOutput { step, output } => {
            tag(map, step)?;
            map.serialize_entry("step_output", &step::output(output, run))
        }
        FrameBody::StepCompleted { step, output } => {
            tag(map, step)?;
            step_completed(map, run, output)
        }
        FrameBody::StepError { step, error } => {
            tag(map, step)?;
            map.serialize_entry("error", error)
        }
        FrameBody::StepPaused(asked) => {
            tag(map, &asked.step)?;
            all(map, step_paused(asked, run))
        }
        FrameBody::StepContinued { step, requirement } => {
            tag(map, step)?;
            all(map, requirement.as_ref().map(|asked| executor(asked)).unwrap_or_default())
        }
        FrameBody::BlockStarted { step, decision } => {
            tag(map, step)?;
            all(map, block_started(decision))
        }
        FrameBody::IterationStarted { step, number, max_iterations } => {
            tag(map, step)?;
            map.serialize_entry("iteration", number)?;
            map.serialize_entry("max_iterations", max_iterations)
        }
        FrameBody::IterationCompleted { step, number, max_iterations, goes_on, outputs } => {
            tag(map, step)?;
            map.serialize_entry("iteration", number)?;
            map.serialize_entry("max_iterations", max_iterations)?;
            map.serialize_entry("iteration_results", &shown(outputs, run))?;
            map.serialize_entry("should_continue", goes_on)
        }
        FrameBody::BlockCompleted { step, decision, iteration, iterations, output } => {
            tag(map, step)?;
            all(map, block_started(decision))?;
            all(map, block_completed(decision, *iteration, iterations, output, run))
        }
        _ => Ok(()),
    }
}

fn tag<M: SerializeMap>(map: &mut M, step: &StepTag) -> Result<(), M::Error> {
    map.serialize_entry("step_id", &step.id)?;
    maybe(map, "parent_step_id", step.parent_id.as_ref())?;
    map.serialize_entry("step_name", &step.name)?;
    map.serialize_entry("step_index", &step.index)
}

fn all<M: SerializeMap>(map: &mut M, members: Value) -> Result<(), M::Error> {
    let Value::Object(members) = members else { return Ok(()) };
    members.iter().try_for_each(|(name, value)| map.serialize_entry(name, value))
}

fn shown(outputs: &[Arc<StepOutput>], run: &RunId) -> Vec<Value> {
    outputs.iter().map(|output| step::output(output, run)).collect()
}

fn step_completed<M: SerializeMap>(map: &mut M, run: &RunId, output: &StepOutput) -> Result<(), M::Error> {
    map.serialize_entry("content", &output.content)?;
    map.serialize_entry("content_type", step::content_type(&output.content))?;
    let kinds = [
        ("images", MediaKind::Image),
        ("videos", MediaKind::Video),
        ("audio", MediaKind::Audio),
        ("files", MediaKind::File),
    ];
    for (name, kind) in kinds {
        maybe(map, name, Some(media::of_kind(&output.media, kind)).filter(|pieces| !pieces.is_empty()))?;
    }
    map.serialize_entry("step_response", &step::output(output, run))
}

/// What a step waits for.
fn step_paused(asked: &StepAsked, run: &RunId) -> Value {
    match &asked.requirement.ask {
        Ask::Before(before) => {
            let fields = step::schema(&before.fields, None);
            let mut members = json!({
                "requires_confirmation": before.confirmation,
                "requires_user_input": before.values,
            });
            let texts = [("confirmation_message", &before.message), ("user_input_message", &before.values_message)];
            for (name, text) in texts.into_iter().filter_map(|(name, text)| Some((name, text.as_ref()?))) {
                members[name] = text.as_str().into();
            }
            if !fields.is_empty() {
                members["user_input_schema"] = fields.into();
            }
            members
        }
        Ask::Routes { message, choices, many } => json!({
            "available_choices": choices, "user_input_message": message, "allow_multiple_selections": many,
        }),
        Ask::Output { message, .. } => json!({
            "requires_output_review": true, "output_review_message": message,
            "step_output": asked.output.as_ref().map(|output| step::output(output, run)),
        }),
        Ask::Executor { .. } => executor(&asked.requirement),
        Ask::Failure | Ask::UnknownOutcome => {
            let whole = step::requirement(asked, run, Value::Null, &[]);
            json!({
                "requires_confirmation": true, "requires_user_input": false,
                "confirmation_message": whole["confirmation_message"], "error": asked.error,
            })
        }
    }
}

/// The run that a step waits for, where it does; what that asks is in the event about the whole run.
fn executor(asked: &StepRequirement) -> Value {
    match &asked.ask {
        Ask::Executor { child, name, .. } => step::executor(child, name, &[]),
        _ => Value::Null,
    }
}

fn block_started(decision: &Decision) -> Value {
    match decision {
        Decision::Condition { holds } => json!({ "condition_result": holds }),
        Decision::Parallel { steps } => json!({ "parallel_step_count": steps }),
        Decision::Loop { max_iterations } => json!({ "max_iterations": max_iterations }),
        Decision::Iteration { .. } => Value::Null,
        Decision::Router { chosen } => json!({ "selected_steps": chosen }),
        Decision::Group { steps } => json!({ "steps_count": steps }),
    }
}

fn block_completed(
    decision: &Decision,
    iteration: u32,
    iterations: &[Vec<Arc<StepOutput>>],
    output: &StepOutput,
    run: &RunId,
) -> Value {
    let results = shown(&output.steps, run);
    let mut members = Map::new();
    let mut put = |name: &str, value: Value| drop(members.insert(name.to_owned(), value));
    match decision {
        Decision::Loop { .. } | Decision::Iteration { .. } => {
            put("total_iterations", iteration.into());
            put("all_results", iterations.iter().map(|outputs| shown(outputs, run)).collect());
        }
        Decision::Condition { holds } => {
            put("executed_steps", results.len().into());
            if *holds || !results.is_empty() {
                put("branch", if *holds { "if" } else { "else" }.into());
            }
            put("step_results", results.into());
        }
        Decision::Parallel { .. } => put("step_results", results.into()),
        Decision::Router { .. } | Decision::Group { .. } => {
            put("executed_steps", results.len().into());
            put("step_results", results.into());
        }
    }
    Value::Object(members)
}

fn completed<M: SerializeMap>(map: &mut M, run: &RunId, end: &RunEnd) -> Result<(), M::Error> {
    let said = end.said.clone().unwrap_or_else(|| end.content.as_str().into());
    map.serialize_entry("content", &said)?;
    map.serialize_entry("content_type", step::content_type(&said))?;
    map.serialize_entry("metadata", &end.metadata.clone().unwrap_or_default())?;
    map.serialize_entry("metrics", &cost(&end.results, Some(end.duration)))?;
    map.serialize_entry("step_results", &shown(&end.results, run))?;
    map.serialize_entry(
        "step_executor_runs",
        &end.children.iter().map(|child| step_run_shown(child, true)).collect::<Vec<_>>(),
    )
}

fn paused<M: SerializeMap>(
    map: &mut M,
    run: &RunId,
    steps: &[StepAsked],
    members: &[MemberAsk],
    results: &[Arc<StepOutput>],
) -> Result<(), M::Error> {
    map.serialize_entry("status", "PAUSED")?;
    if let Some(waits) = Waits::at(steps) {
        map.serialize_entry("paused_step_index", &waits.index)?;
        map.serialize_entry("paused_step_name", &waits.name)?;
        map.serialize_entry("pause_kind", waits.kind)?;
    }
    let asked = |asked: &StepAsked| {
        let calls = calls_of(&asked.requirement.ask, steps, members);
        step::requirement(asked, run, step::given(None, results.iter().map(AsRef::as_ref), run), &calls)
    };
    map.serialize_entry("step_requirements", &steps.iter().map(asked).collect::<Vec<_>>())?;
    map.serialize_entry("step_results", &shown(results, run))?;
    map.serialize_entry("step_executor_runs", &json!([]))?;
    map.serialize_entry("metadata", &json!({}))
}

/// What the run that carries a step out asks. What runs under it ask is told with it where no other step waits for a run:
/// otherwise only the run itself tells which of them it is under.
fn calls_of(ask: &Ask, steps: &[StepAsked], members: &[MemberAsk]) -> Vec<Value> {
    let Ask::Executor { child, .. } = ask else { return Vec::new() };
    let waiting = steps.iter().filter(|asked| matches!(asked.requirement.ask, Ask::Executor { .. })).count();
    let of_child = members.iter().filter(|asked| waiting == 1 || asked.run_id == child.run_id);
    of_child.map(pause::of_ask).collect()
}

#[cfg(test)]
mod tests {
    use daybook_domain::component::ComponentRef;
    use daybook_domain::ids::ComponentId;
    use daybook_engine::RunMeta;

    use super::super::tests::meta;
    use super::super::{Event, name};
    use super::*;

    fn flow() -> RunMeta {
        let component = ComponentRef::workflow(ComponentId::parse("my-workflow").unwrap());
        RunMeta { component, name: "My Workflow".to_owned(), ..(*meta()).clone() }
    }

    fn told(body: Value) -> (&'static str, Value) {
        let body: FrameBody = serde_json::from_value(body).unwrap();
        let run = flow();
        (name(run.component.kind, &body), Event { index: None, at: 1, run: &run, body: &body }.value())
    }

    fn tag(index: Value) -> Value {
        json!({"place": "2.0", "id": "i1", "parent_id": "i0", "name": "par a", "index": index})
    }

    fn output() -> Value {
        json!({"place": "2.0", "name": "par a", "content": "HELLO", "success": true,
            "executor": {"kind": "function", "name": "fn_upper"}})
    }

    #[test]
    fn a_step_is_told_as_recorded() {
        let (name, started) = told(json!({"t": "step_started", "step": tag(json!([2, 0]))}));
        let expected = json!({"created_at": 1, "event": "StepStarted", "workflow_id": "my-workflow",
            "workflow_name": "My Workflow", "run_id": "r1", "session_id": "s1", "nested_depth": 0, "step_id": "i1",
            "parent_step_id": "i0", "step_name": "par a", "step_index": [2, 0]});
        assert_eq!((name, started), ("StepStarted", expected));
        let (name, ended) = told(json!({"t": "step_completed", "step": tag(json!(2)), "output": output()}));
        assert_eq!(
            (name, &ended["content"], &ended["content_type"]),
            ("StepCompleted", &json!("HELLO"), &json!("str"))
        );
        assert_eq!(ended["step_response"]["executor_name"], "fn_upper");
        let (name, failed) = told(json!({"t": "step_error", "step": tag(json!(2)), "error": "boom"}));
        assert_eq!((name, &failed["error"]), ("StepError", &json!("boom")));
    }

    #[test]
    fn blocks_are_told_by_what_they_are() {
        let block = |decision: Value, steps: Value| {
            let output = json!({"place": "1", "name": "b", "content": "x", "success": true, "steps": steps});
            let started = told(json!({"t": "block_started", "step": tag(json!(1)), "decision": decision}));
            let ended = told(json!({"t": "block_completed", "step": tag(json!(1)), "decision": decision,
                "iteration": 2, "iterations": [[output_of("a")], [output_of("a")]], "output": output}));
            (started, ended)
        };
        let ((name, begun), (end, ended)) = block(json!({"kind": "condition", "holds": true}), json!([output()]));
        assert_eq!((name, end), ("ConditionExecutionStarted", "ConditionExecutionCompleted"));
        assert_eq!((&begun["condition_result"], &ended["branch"]), (&json!(true), &json!("if")));
        assert_eq!((&ended["executed_steps"], &ended["step_results"][0]["step_name"]), (&json!(1), &json!("par a")));
        let (_, (_, ended)) = block(json!({"kind": "condition", "holds": false}), json!([]));
        assert_eq!((&ended["executed_steps"], ended.get("branch")), (&json!(0), None));
        let ((name, begun), (end, ended)) = block(json!({"kind": "loop", "max_iterations": 3}), json!([output()]));
        assert_eq!((name, end), ("LoopExecutionStarted", "LoopExecutionCompleted"));
        assert_eq!((&begun["max_iterations"], &ended["total_iterations"]), (&json!(3), &json!(2)));
        assert_eq!(ended["all_results"][1][0]["step_name"], "a");
        let ((name, begun), (_, ended)) = block(json!({"kind": "router", "chosen": ["a"]}), json!([output()]));
        assert_eq!(
            (name, &begun["selected_steps"], &ended["selected_steps"]),
            ("RouterExecutionStarted", &json!(["a"]), &json!(["a"]))
        );
        let ((name, begun), _) = block(json!({"kind": "parallel", "steps": 2}), json!([]));
        assert_eq!((name, &begun["parallel_step_count"]), ("ParallelExecutionStarted", &json!(2)));
        let ((name, begun), _) = block(json!({"kind": "group", "steps": 2}), json!([]));
        assert_eq!((name, &begun["steps_count"]), ("StepsExecutionStarted", &json!(2)));
    }

    fn output_of(name: &str) -> Value {
        json!({"place": "1.i1.0", "name": name, "content": "x", "success": true})
    }

    fn asked(ask: Value, given: Value) -> Value {
        json!({"step": tag(json!(1)), "requirement": {"place": "1", "name": "choose", "ask": ask}, "given": given})
    }

    #[test]
    fn a_pause_is_named_after_what_is_asked() {
        let paused = |ask: Value| {
            let mut body = asked(ask, Value::Null);
            body["t"] = "step_paused".into();
            told(body)
        };
        let (name, event) = paused(json!({"kind": "before", "confirmation": true, "message": "Now?"}));
        assert_eq!((name, &event["requires_confirmation"]), ("StepPaused", &json!(true)));
        assert_eq!((&event["confirmation_message"], event.get("user_input_message")), (&json!("Now?"), None));
        let (name, event) = paused(json!({"kind": "routes", "choices": ["a", "b"], "many": false}));
        assert_eq!((name, &event["available_choices"]), ("RouterPaused", &json!(["a", "b"])));
        let (name, event) = paused(json!({"kind": "output", "rejections": 0, "max_rejections": 3}));
        assert_eq!((name, &event["requires_output_review"]), ("StepOutputReview", &json!(true)));
        let child = json!({"run_id": "c1", "component": {"kind": "team", "id": "desk"}});
        let (name, event) = paused(json!({"kind": "executor", "child": child, "name": "Desk"}));
        assert_eq!((name, &event["executor_type"]), ("StepExecutorPaused", &json!("team")));
    }

    #[test]
    fn a_paused_workflow_tells_what_is_asked_and_what_was_answered() {
        let before = || json!({"kind": "before", "confirmation": true});
        let steps = [asked(before(), json!({"confirmed": true})), asked(before(), Value::Null)];
        let (name, event) = told(json!({"t": "flow_paused", "steps": steps, "results": [output()]}));
        assert_eq!(
            (name, &event["status"], &event["pause_kind"]),
            ("WorkflowPaused", &json!("PAUSED"), &json!("step"))
        );
        let needed = &event["step_requirements"];
        assert_eq!((&needed[0]["confirmed"], &needed[1]["confirmed"]), (&json!(true), &Value::Null));
        assert_eq!(needed[1]["step_input"]["previous_step_content"], "HELLO");
        assert_eq!((&event["paused_step_name"], &event["paused_step_index"]), (&json!("par a"), &json!(1)));
        assert_eq!(event["step_results"][0]["content"], "HELLO");
    }

    #[test]
    fn the_last_event_tells_what_the_steps_came_to() {
        let end = json!({"t": "completed", "content": "HELLO", "duration": 1.5, "results": [output()],
            "usage": {"input_tokens": 0, "output_tokens": 0, "total_tokens": 0}});
        let (name, event) = told(end);
        assert_eq!(
            (name, &event["content"], &event["content_type"]),
            ("WorkflowCompleted", &json!("HELLO"), &json!("str"))
        );
        assert_eq!(event["metrics"], json!({"steps": {}, "duration": 1.5}));
        assert_eq!((&event["step_results"][0]["step_name"], &event["metadata"]), (&json!("par a"), &json!({})));
        let (name, event) = told(json!({"t": "cancelled", "content": "", "reason": "stopped"}));
        assert_eq!(
            (name, &event["content"], &event["reason"]),
            ("WorkflowCancelled", &json!("stopped"), &json!("stopped"))
        );
    }
}
