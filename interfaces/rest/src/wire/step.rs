//! Steps of workflows: what they came to, and what is asked about them. These keep their nulls.

use daybook_domain::ids::RunId;
use daybook_domain::media::{Media, MediaKind};
use daybook_domain::run::{ChildRef, InputField};
use daybook_domain::workflow::{Ask, StepOutput, StepRequirement, StepType};
use daybook_engine::{StepAsked, StepTag};
use serde_json::{Map, Value, json};

use super::tool::input_field;
use super::{media, metrics};

/// How often a step's output may be rejected, where nothing says.
const MAX_RETRIES: u32 = 3;

/// What a step came to, in this run of its workflow.
pub(crate) fn output(output: &StepOutput, run: &RunId) -> Value {
    let block = output.kind != StepType::Step;
    // Clients know a parallel block as what carries itself out.
    let parallel = (output.kind == StepType::Parallel).then_some(("parallel", output.name.as_str()));
    let executor = output.executor.as_ref().map(|executor| (executor.kind.as_str(), executor.name.as_str()));
    let (kind, name) = executor.or(parallel).unzip();
    let cost = (!output.spent.is_empty()).then(|| metrics(output));
    let mut shown = json!({
        "content": content(&output.content),
        "step_name": output.name,
        "step_id": output.place.step_id(run),
        "step_type": output.kind.as_str(),
        "executor_type": kind,
        "executor_name": name,
        "step_run_id": output.child.as_ref().map(|child| &child.run_id),
        "images": pieces(&output.media, MediaKind::Image),
        "videos": pieces(&output.media, MediaKind::Video),
        "audio": pieces(&output.media, MediaKind::Audio),
        "files": pieces(&output.media, MediaKind::File),
        "metrics": cost,
        "success": output.success,
        "error": output.error,
        "stop": output.stop,
        "is_paused": false,
    });
    if block {
        shown["steps"] = output.steps.iter().map(|step| self::output(step, run)).collect();
    }
    shown
}

/// What a step cost.
pub(crate) fn metrics(output: &StepOutput) -> Value {
    metrics::of_spent(&output.spent, output.time_to_first_token, output.duration)
}

fn content(said: &Value) -> Value {
    if said.is_null() { Value::from("") } else { said.clone() }
}

fn pieces(all: &[Media], kind: MediaKind) -> Option<Vec<Value>> {
    Some(media::of_kind(all, kind)).filter(|pieces| !pieces.is_empty())
}

/// What a step's content is called: `str` for a text.
pub(crate) fn content_type(said: &Value) -> &'static str {
    match said {
        Value::Null | Value::String(_) => "str",
        Value::Object(_) => "dict",
        Value::Array(_) => "list",
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_f64() => "float",
        Value::Number(_) => "int",
    }
}

/// What is asked about a step of this run, with the answer where there is one. `input` is what the step was given, `calls`
/// what the runs under it ask.
pub(crate) fn requirement(asked: &StepAsked, run: &RunId, input: Value, calls: &[Value]) -> Value {
    let (step, needed, given) = (&asked.step, &asked.requirement, asked.given.as_ref());
    let mut shown = json!({
        "step_id": step.id,
        "step_name": step.name,
        "step_index": step.index,
        "step_type": step.kind.as_str(),
        "requires_confirmation": false,
        "confirmation_message": null,
        "confirmed": given.map(|given| given.confirmed),
        "on_reject": "skip",
        "requires_user_input": false,
        "user_input_message": null,
        "user_input": given.and_then(|given| given.values.as_ref()),
        "requires_route_selection": false,
        "available_choices": null,
        "allow_multiple_selections": false,
        "selected_choices": given.map(|given| &given.choices).filter(|chosen| !chosen.is_empty()),
        "requires_output_review": false,
        "output_review_message": null,
        "is_post_execution": false,
        "rejection_feedback": given.and_then(|given| given.feedback.as_ref()),
        "retry_count": needed.number,
        "max_retries": MAX_RETRIES,
        "timeout_at": null,
        "on_timeout": "cancel",
        "step_input": input,
    });
    if let Some(members) = shown.as_object_mut() {
        members.extend(ask(&needed.ask, given.and_then(|given| given.values.as_ref()), calls));
        let edited = given.and_then(|given| given.output.clone());
        members.extend(edited.map(|edited| ("edited_output".to_owned(), edited)));
        members.extend(asked.output.as_ref().map(|output| ("step_output".to_owned(), self::output(output, run))));
        members.extend(asked.error.as_ref().map(|error| ("error".to_owned(), error.as_str().into())));
    }
    shown
}

/// The members that differ by what is asked.
fn ask(ask: &Ask, filled: Option<&Map<String, Value>>, calls: &[Value]) -> Map<String, Value> {
    let members = match ask {
        Ask::Before(before) => {
            let schema = schema(&before.fields, filled);
            let mut members = json!({
                "requires_confirmation": before.confirmation,
                "confirmation_message": before.message,
                "on_reject": before.on_reject.as_str(),
                "requires_user_input": before.values,
                "user_input_message": before.values_message,
            });
            if !schema.is_empty() {
                members["user_input_schema"] = schema.into();
            }
            members
        }
        Ask::Routes { message, choices, many } => json!({
            "requires_route_selection": true,
            "user_input_message": message,
            "available_choices": choices,
            "allow_multiple_selections": many,
        }),
        Ask::Output { message, max_rejections, .. } => json!({
            "requires_output_review": true,
            "output_review_message": message,
            "is_post_execution": true,
            "max_retries": max_rejections,
        }),
        Ask::Failure => json!({
            "requires_confirmation": true,
            "confirmation_message": "The step failed. Confirm to run it again; otherwise the workflow goes on without it.",
            "is_post_execution": true,
        }),
        Ask::UnknownOutcome => json!({
            "requires_confirmation": true,
            "confirmation_message": "The step may have run already: nobody knows how it ended. Confirm to run it again, or \
                give its output; otherwise it counts as failed.",
            "is_post_execution": true,
        }),
        Ask::Executor { child, name, steps } => {
            let mut members = executor(child, name, calls);
            if !steps.is_empty() {
                members["executor_step_requirements"] = steps.iter().map(|asked| inner(asked, &child.run_id)).collect();
            }
            members
        }
    };
    match members {
        Value::Object(members) => members,
        _ => Map::new(),
    }
}

/// The run that carries a step out, and what it and those under it ask.
pub(crate) fn executor(child: &ChildRef, name: &str, calls: &[Value]) -> Value {
    json!({
        "requires_executor_input": true,
        "executor_id": child.component.id,
        "executor_name": name,
        "executor_run_id": child.run_id,
        "executor_type": child.component.kind.as_str(),
        "executor_requirements": calls,
    })
}

/// What a workflow within a workflow asks about a step of its own.
fn inner(needed: &StepRequirement, run: &RunId) -> Value {
    let step = StepTag {
        id: needed.place.step_id(run),
        parent_id: needed.place.parent().map(|parent| parent.step_id(run)),
        name: needed.name.clone(),
        index: needed.place.step_index(false),
        kind: needed.kind,
        place: needed.place.clone(),
    };
    let asked = StepAsked { step, requirement: needed.clone(), output: None, error: None, given: None };
    requirement(&asked, run, Value::Null, &[])
}

/// The values a person fills in, as clients see them.
pub(crate) fn schema(fields: &[InputField], filled: Option<&Map<String, Value>>) -> Vec<Value> {
    let shown = |field: &InputField| {
        let mut shown = input_field(field, filled.and_then(|filled| filled.get(&field.name)));
        shown["required"] = field.required.into();
        shown
    };
    fields.iter().map(shown).collect()
}

/// What a step is given: the workflow's input where it is known, and what the steps before it came to.
pub(crate) fn given<'a>(input: Option<&str>, before: impl Iterator<Item = &'a StepOutput>, run: &RunId) -> Value {
    let (mut outputs, mut last) = (Map::new(), Value::Null);
    for earlier in before {
        outputs.insert(earlier.name.clone(), output(earlier, run));
        last = earlier.said().clone();
    }
    json!({
        "input": input,
        "previous_step_outputs": outputs,
        "previous_step_content": last,
        "additional_data": null,
        "images": null,
        "videos": null,
        "audio": null,
        "files": null,
    })
}

#[cfg(test)]
mod tests {
    use daybook_domain::workflow::{Place, StepGiven};

    use super::*;

    fn run() -> RunId {
        RunId::parse("r").unwrap()
    }

    fn named(name: &str, place: &str) -> Value {
        json!({"place": place, "name": name, "content": "HELLO", "success": true,
            "executor": {"kind": "function", "name": "fn_upper"}})
    }

    fn read(output: Value) -> StepOutput {
        serde_json::from_value(output).unwrap()
    }

    #[test]
    fn what_a_step_came_to_is_shown_as_recorded() {
        let shown = output(&read(named("upper", "0")), &run());
        let expected = json!({"content": "HELLO", "step_name": "upper", "step_id": Place::top(0).step_id(&run()),
            "step_type": "Step", "executor_type": "function", "executor_name": "fn_upper", "step_run_id": null,
            "images": null, "videos": null, "audio": null, "files": null, "metrics": null, "success": true,
            "error": null, "stop": false, "is_paused": false});
        assert_eq!(shown, expected);
    }

    #[test]
    fn a_block_holds_what_its_steps_came_to() {
        let usage = json!({"input_tokens": 6, "output_tokens": 2, "total_tokens": 8});
        let mut inner = named("par b", "2.1");
        inner["child"] = json!({"run_id": "c1", "component": {"kind": "agent", "id": "writer"}});
        inner["spent"] = json!([[["fake-gpt", "OpenAI"], usage]]);
        inner["duration"] = json!(0.5);
        let block = json!({"place": "2", "name": "par", "kind": "parallel", "content": "both", "success": true,
            "steps": [named("par a", "2.0"), inner]});
        let shown = output(&read(block), &run());
        assert_eq!((&shown["executor_type"], &shown["executor_name"]), (&json!("parallel"), &json!("par")));
        assert_eq!((&shown["steps"][0]["step_name"], shown["steps"][0].get("steps")), (&json!("par a"), None));
        let agent = &shown["steps"][1];
        assert_eq!((&agent["step_run_id"], &agent["metrics"]["total_tokens"]), (&json!("c1"), &json!(8)));
        assert_eq!(agent["metrics"]["details"]["model"][0]["provider"], "OpenAI Chat");
    }

    fn asked(ask: Value) -> StepAsked {
        let requirement = json!({"place": "3.i2.1", "name": "deploy", "kind": "step", "ask": ask});
        let step = json!({"place": "3.i2.1", "id": "d1", "name": "deploy", "index": [3, 1]});
        serde_json::from_value(json!({"step": step, "requirement": requirement})).unwrap()
    }

    fn shown(ask: Value) -> Value {
        requirement(&asked(ask), &run(), Value::Null, &[json!({"id": "q"})])
    }

    #[test]
    fn what_is_asked_says_what_kind_of_answer_it_needs() {
        let field = json!({"name": "environment", "kind": "string", "description": "env", "required": true,
            "nullable": false, "asked": true, "choices": ["staging", "production"]});
        let before = json!({"kind": "before", "confirmation": true, "message": "Now?", "values": true,
            "values_message": "Where?", "fields": [field]});
        let shown = self::tests::shown(before);
        assert_eq!((&shown["step_index"], &shown["confirmed"]), (&json!([3, 1]), &Value::Null));
        assert_eq!((&shown["requires_confirmation"], &shown["confirmation_message"]), (&json!(true), &json!("Now?")));
        let fields = json!([{"name": "environment", "field_type": "str", "description": "env", "value": null,
            "allowed_values": ["staging", "production"], "required": true}]);
        assert_eq!((&shown["requires_user_input"], &shown["user_input_schema"]), (&json!(true), &fields));
        let routes = json!({"kind": "routes", "choices": ["a", "b"], "many": true});
        let shown = self::tests::shown(routes);
        assert_eq!(
            (&shown["requires_route_selection"], &shown["requires_confirmation"]),
            (&json!(true), &json!(false))
        );
        assert_eq!(
            (&shown["available_choices"], &shown["allow_multiple_selections"]),
            (&json!(["a", "b"]), &json!(true))
        );
        let review = json!({"kind": "output", "rejections": 1, "max_rejections": 5});
        let shown = self::tests::shown(review);
        assert_eq!((&shown["requires_output_review"], &shown["is_post_execution"]), (&json!(true), &json!(true)));
        assert_eq!((&shown["retry_count"], &shown["max_retries"]), (&json!(0), &json!(5)));
        let child = json!({"run_id": "c1", "component": {"kind": "agent", "id": "careful"}});
        let executor = json!({"kind": "executor", "child": child, "name": "Careful"});
        let shown = self::tests::shown(executor);
        assert_eq!((&shown["executor_run_id"], &shown["executor_type"]), (&json!("c1"), &json!("agent")));
        assert_eq!(shown["executor_requirements"], json!([{"id": "q"}]));
    }

    #[test]
    fn an_answer_stands_beside_what_was_asked() {
        let given = StepGiven { confirmed: false, feedback: Some("not now".to_owned()), ..StepGiven::default() };
        let asked = StepAsked { given: Some(given), ..asked(json!({"kind": "before", "confirmation": true})) };
        let shown = requirement(&asked, &run(), Value::Null, &[]);
        assert_eq!((&shown["confirmed"], &shown["rejection_feedback"]), (&json!(false), &json!("not now")));
    }
}
