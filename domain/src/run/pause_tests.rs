use cqrs_es::test::TestFramework;
use serde_json::{Map, Value, json};

use super::tests::accepted;
use super::*;
use crate::message::{CallMetrics, ToolCall};
use crate::personal::Personal;
use crate::session::Admission;
use crate::tool::{ApprovalKind, ApprovalRule, Gate, ToolSpec};

fn spec(gate: Gate) -> ToolSpec {
    let parameters = json!({"type": "object", "required": ["subject", "to"], "properties": {
        "subject": {"type": "string"}, "to": {"type": "string", "description": "Whom", "enum": ["bob", "eve"]},
        "copies": {"type": ["integer", "null"]}}});
    ToolSpec { gate, ..ToolSpec::new("send", "Sends.", parameters) }
}

fn record(arguments: Value) -> ToolRecord {
    ToolRecord::new(ToolCall { id: "c".into(), name: "send".into(), arguments: arguments.to_string() }, 0)
}

fn answer(parts: Value) -> Answer {
    let object = |name: &str| parts[name].as_object().cloned();
    Answer {
        run: None,
        call_id: "c".into(),
        confirmed: parts["confirmed"].as_bool(),
        note: parts["note"].as_str().map(str::to_owned),
        values: object("values"),
        choices: object("choices"),
        result: parts["result"].as_str().map(str::to_owned),
        arguments: object("arguments"),
        tool: None,
    }
}

/// What an answer to the requirement of such a tool comes to.
fn read(gate: Gate, arguments: Value, parts: Value) -> Result<Option<Given>, AnswerError> {
    let tool = record(arguments);
    needed(&spec(gate), &tool).unwrap().read(&tool, &answer(parts))
}

#[test]
fn silence_is_no_answer() {
    for gate in [
        Gate::Confirmation,
        Gate::UserInput { fields: vec!["to".into()] },
        Gate::Feedback,
        Gate::External { silent: false },
    ] {
        assert_eq!(read(gate, json!({}), json!({})), Ok(None));
    }
    let nothing = json!({"values": {"to": null}});
    assert_eq!(read(Gate::UserInput { fields: vec!["to".into()] }, json!({}), nothing), Ok(None));
}

#[test]
fn a_confirmation_is_for_the_arguments_that_were_asked_about() {
    let confirm = |parts| read(Gate::Confirmation, json!({"subject": "S", "to": "bob"}), parts);
    assert_eq!(confirm(json!({"confirmed": true})), Ok(Some(Given::only(Decision::Confirmed))));
    let same = json!({"confirmed": true, "arguments": {"to": "bob", "subject": "S"}});
    assert_eq!(confirm(same), Ok(Some(Given::only(Decision::Confirmed))));
    let other = json!({"confirmed": true, "arguments": {"to": "eve", "subject": "S"}});
    assert_eq!(confirm(other), Err(AnswerError::OtherArguments("send".into())));
    let noted = Given { note: Some("no way".into()), ..Given::only(Decision::Rejected) };
    assert_eq!(confirm(json!({"confirmed": false, "note": "no way"})), Ok(Some(noted)));
}

#[test]
fn what_is_filled_in_must_be_whole_and_fit() {
    let gate = || Gate::UserInput { fields: vec!["to".into(), "copies".into()] };
    let fill = |values: Value| read(gate(), json!({"subject": "S", "to": "model"}), json!({"values": values}));
    // A client sends back what it was shown, also of what it is not asked for.
    let given = fill(json!({"to": "bob", "copies": 2, "subject": "S"})).unwrap().unwrap();
    for other in [json!({"to": "bob", "subject": "edited"}), json!({"to": "bob", "subject": 5})] {
        assert_eq!(fill(other), Err(AnswerError::OtherArguments("send".into())));
    }
    assert!(matches!(fill(json!({"to": "bob", "nope": 1})), Err(AnswerError::Unfit(_))));
    assert_eq!(Value::Object(given.values.unwrap()), json!({"to": "bob", "copies": 2}));
    assert!(fill(json!({"to": "eve"})).unwrap().is_some(), "the other field is not required");
    for wrong in [json!({"copies": 2}), json!({"to": 5}), json!({"to": "mallory"}), json!({"to": "bob", "copies": "2"})]
    {
        assert!(matches!(fill(wrong.clone()), Err(AnswerError::Unfit(_))), "{wrong}");
    }
}

#[test]
fn who_leaves_a_field_empty_says_that_there_is_none() {
    let parameters = json!({"type": "object", "required": ["to", "nights"], "properties": {
        "to": {"type": "string"}, "nights": {"anyOf": [{"type": "integer"}, {"type": "null"}]},
        "copies": {"type": "integer"}}});
    let spec = ToolSpec { gate: Gate::UserInput { fields: vec![] }, ..ToolSpec::new("send", "", parameters) };
    let mut tool = record(json!({"to": "the model's", "nights": 3, "copies": 2}));
    let needed = needed(&spec, &tool).unwrap();
    let given = needed.read(&tool, &answer(json!({"values": {"to": "bob", "nights": null}}))).unwrap().unwrap();
    tool.asked = Some(needed);
    tool.fill(given.values.unwrap());
    // Nothing filled in at all is silence, unless it is said to be meant.
    let optional = |confirmed: Option<bool>| {
        let asked = Gate::UserInput { fields: vec!["copies".into()] };
        read(asked, json!({"subject": "S", "to": "bob"}), json!({"values": {"copies": null}, "confirmed": confirmed}))
    };
    assert_eq!(optional(None), Ok(None));
    assert_eq!(optional(Some(true)).unwrap().unwrap().values, Some(Map::new()));
    // What the model had written there, nobody was shown.
    assert_eq!(Value::Object(tool.arguments().unwrap()), json!({"to": "bob", "nights": null}));
}

#[test]
fn choices_are_among_those_offered() {
    let asked = json!({"questions": [
        {"question": "Where?", "header": "Place", "options": [{"label": "Oslo"}, {"label": "Rome"}]},
        {"question": "What?", "options": [{"label": "Sea"}, {"label": "Hills"}], "multi_select": true}]});
    let choose = |choices: Value| read(Gate::Feedback, asked.clone(), json!({"choices": choices}));
    let given = choose(json!({"Where?": ["Oslo"], "What?": ["Sea", "Hills"]})).unwrap().unwrap();
    let told = "User feedback received: [{\"question\":\"Where?\",\"selected\":[\"Oslo\"]},{\"question\":\"What?\",\"selected\":[\"Sea\",\"Hills\"]}]";
    assert_eq!((given.decision, given.result.as_deref()), (Decision::Chosen, Some(told)));
    let wrong = [
        json!({"Where?": ["Oslo"]}),
        json!({"Where?": ["Paris"], "What?": ["Sea"]}),
        json!({"Where?": ["Oslo", "Rome"], "What?": ["Sea"]}),
        json!({"Where?": [], "What?": ["Sea"]}),
        json!({"Where?": "Oslo", "What?": ["Sea"]}),
        json!({"Where?": ["Oslo"], "What?": ["Sea", "Sea"]}),
        json!({"Where?": ["Oslo"], "What?": ["Sea"], "When?": ["Now"]}),
    ];
    for wrong in wrong {
        assert!(matches!(choose(wrong.clone()), Err(AnswerError::Unfit(_))), "{wrong}");
    }
}

#[test]
fn gates_come_one_after_the_other() {
    let mut spec = spec(Gate::UserInput { fields: vec!["to".into()] });
    spec.approval = Some(ApprovalRule::new(ApprovalKind::Required));
    let mut tool = record(json!({"subject": "S"}));
    assert_eq!(needed(&spec, &tool).unwrap().kind, RequirementKind::UserInput);
    tool.filled = Some(Map::from_iter([("to".to_owned(), json!("bob"))]));
    assert_eq!(needed(&spec, &tool).unwrap().kind, RequirementKind::Confirmation);
    assert_eq!(Value::Object(tool.arguments().unwrap()), json!({"subject": "S", "to": "bob"}));
    tool.confirmed = true;
    assert_eq!(needed(&spec, &tool), None);
    spec.gate = Gate::External { silent: true };
    assert_eq!(needed(&spec, &tool).unwrap().kind, RequirementKind::ExternalExecution);
    let audit = ToolSpec { approval: Some(ApprovalRule::new(ApprovalKind::Audit)), ..self::spec(Gate::None) };
    let asked = needed(&audit, &record(json!({}))).unwrap();
    assert!(asked.kind == RequirementKind::Confirmation && asked.audited, "there is a decision to record");
}

fn paused(kinds: &[(&str, RequirementKind)]) -> Vec<RunEvent> {
    let call = |(id, _): &(&str, RequirementKind)| RequestedCall {
        id: (*id).into(),
        name: "send".into(),
        arguments: "{}".to_owned().into(),
    };
    let requirements = kinds.iter().map(|(id, kind)| Requirement::new(*id, *kind)).collect();
    vec![
        accepted(Admission::Active),
        RunEvent::ModelCallRequested(ModelCallRequested {
            call_id: "m".into(),
            iteration: 1,
            attempt: 1,
            summary: None,
            history: vec![],
            own_messages: 1,
            prompt_hash: "p".into(),
            tools_hash: "t".into(),
            frame: 1,
            at_ms: 1_000,
        }),
        RunEvent::ModelCallCompleted(ModelCallCompleted {
            call_id: "m".into(),
            text: String::new().into(),
            reasoning: None.into(),
            replay: None.into(),
            tool_calls: kinds.iter().map(call).collect(),
            finish_reason: "tool_calls".into(),
            provider_data: None,
            metrics: CallMetrics::default(),
            frame: 2,
            at_ms: 2_000,
        }),
        RunEvent::Paused(RunPaused { requirements, steps: Vec::new(), frame: 3, at_ms: 3_000, members: None.into() }),
    ]
}

fn resolved(id: &str, decision: Decision, text: Option<&str>) -> RunEvent {
    let text: Personal<Option<String>> = text.map(str::to_owned).into();
    let (note, result) = if decision == Decision::Rejected { (text, None.into()) } else { (None.into(), text) };
    RunEvent::RequirementResolved(RequirementResolved {
        call_id: id.into(),
        decision,
        note,
        values: None.into(),
        result,
        by: "anonymous".into(),
        approval: None,
        at_ms: 4_000,
        fails: false,
    })
}

fn continued() -> RunEvent {
    RunEvent::Continued(RunContinued {
        mode: RunMode::Plain,
        admission: Admission::Active,
        steps: Vec::new(),
        frame: 5,
        at_ms: 5_000,
    })
}

fn state(events: &[RunEvent]) -> RunState {
    let mut state = RunState::default();
    events.iter().for_each(|event| state.evolve(event));
    state
}

fn given(events: &[RunEvent]) -> cqrs_es::test::AggregateTestExecutor<RunState> {
    TestFramework::with(()).given(events.to_vec())
}

#[test]
fn a_run_goes_on_when_everything_was_answered_and_each_answer_counts_once() {
    let mut events = paused(&[("a", RequirementKind::Confirmation), ("b", RequirementKind::ExternalExecution)]);
    assert_eq!(state(&events).next(5, true), Next::AwaitPerson);
    given(&events).when(RunCommand(continued())).then_expect_error(RunError::Unanswered);
    events.push(resolved("a", Decision::Confirmed, None));
    let again = RunCommand(resolved("a", Decision::Rejected, None));
    given(&events).when(again).then_expect_error(RunError::NoSuchCall("a".into()));
    given(&events).when(RunCommand(continued())).then_expect_error(RunError::Unanswered);
    events.push(resolved("b", Decision::Executed, Some("done")));
    given(&events).when(RunCommand(continued())).then_expect_events(vec![continued()]);
    events.push(continued());
    let Next::CallTools(pending) = state(&events).next(5, false) else { panic!("the confirmed call comes next") };
    assert_eq!(pending.iter().map(|tool| tool.call.id.as_str()).collect::<Vec<_>>(), ["a"]);
    let told = state(&events).messages.last().cloned().unwrap();
    assert_eq!((told.role, told.content.as_deref()), (crate::message::Role::Tool, Some("done")));
}

#[test]
fn a_rejected_call_is_told_to_the_model_and_never_runs() {
    for (note, expected) in [(None, REJECTED), (Some("no way"), "no way")] {
        let mut events = paused(&[("a", RequirementKind::Confirmation)]);
        events.extend([resolved("a", Decision::Rejected, note), continued()]);
        let state = state(&events);
        assert_eq!(state.next(5, false), Next::CallModel { iteration: 2, attempt: 1, call_id: None });
        let told = state.messages.last().unwrap();
        assert_eq!((told.content.as_deref(), told.answers.as_ref().unwrap().failed), (Some(expected), true));
        let requested = RunEvent::ToolCallRequested(ToolCallRequested {
            call_id: "a".into(),
            tool: "send".into(),
            idempotency_key: "k".into(),
            effect: crate::tool::Effect::Unsafe,
            attempt: 1,
            frame: 9,
            at_ms: 9,
            children: Vec::new(),
        });
        given(&events).when(RunCommand(requested)).then_expect_error(RunError::NoSuchCall("a".into()));
    }
}

#[test]
fn a_call_that_a_crash_hid_runs_again_when_a_person_says_so() {
    let mut events = paused(&[("a", RequirementKind::UnknownOutcome)]);
    let unknown = RunEvent::ToolOutcomeUnknown(ToolOutcomeUnknown { call_id: "a".into(), at_ms: 0 });
    events.insert(3, unknown);
    events.extend([resolved("a", Decision::RunAgain, None), continued()]);
    assert!(matches!(state(&events).next(5, false), Next::CallTools(pending) if pending[0].again));
}

#[test]
fn a_continued_run_that_waits_for_its_session_goes_on_with_its_tools() {
    let mut events = paused(&[("a", RequirementKind::Confirmation)]);
    let queued =
        RunContinued { mode: RunMode::Plain, admission: Admission::Queued, steps: Vec::new(), frame: 5, at_ms: 5_000 };
    events.extend([resolved("a", Decision::Confirmed, None), RunEvent::Continued(queued)]);
    let state = state(&events);
    assert_eq!((state.status, state.next(5, false)), (RunStatus::Pending, Next::AwaitTurn));
    assert!(matches!(state.next(5, true), Next::CallTools(_)));
}
