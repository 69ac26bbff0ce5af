//! What people are asked about the steps of a workflow, and what their answers do.

use daybook_domain::run::InputField;
use daybook_domain::run::{Answer, RunMode, RunState, RunStatus};
use daybook_domain::workflow::{
    Ask, Confirmation, HumanReview, InputReview, OnError, OnReject, OutputReview, Policies, RouterStep, Selector, Step,
    StepAnswer, StepKind, UserInput,
};
use daybook_engine::{ExecuteError, FrameBody};
use serde_json::{Value, json};

use crate::flow_world::*;
use crate::pauses::continuing;
use crate::teams::frames;
use crate::world::*;

fn reviewed(step: Step, review: HumanReview) -> Step {
    with(step, Policies { review, ..Policies::default() })
}

fn confirmed(step: Step, on_reject: OnReject) -> Step {
    let confirmation = Some(Confirmation { message: Some("Really?".into()), on_reject });
    reviewed(step, HumanReview { confirmation, ..HumanReview::default() })
}

fn asking_for_values(step: Step) -> Step {
    let field = InputField {
        name: "environment".into(),
        kind: "string".into(),
        description: Some("env".into()),
        required: true,
        nullable: false,
        asked: true,
        choices: vec![json!("staging"), json!("production")],
    };
    let user_input = Some(UserInput { message: Some("Choose env".into()), fields: vec![field] });
    reviewed(step, HumanReview { user_input, ..HumanReview::default() })
}

fn names(frames: &[std::sync::Arc<daybook_engine::Frame>]) -> Vec<String> {
    let name = |body: &FrameBody| serde_json::to_value(body).unwrap()["t"].as_str().unwrap().to_owned();
    frames.iter().map(|frame| name(&frame.body)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn steps_wait_for_people_one_after_the_other() {
    let flows = Flows::new().await;
    let steps = vec![
        confirmed(function("inspect", "upper"), OnReject::Skip),
        asking_for_values(function("choose", "join")),
        function("finish", "join"),
    ];
    let engine = flows.engine(workflow(steps)).await;
    let state = watched(&engine, "Hello").await;
    assert_paused(&state);
    assert_eq!(flows.done.places(), [""; 0]);
    let state = answered(&engine, &state, vec![yes(&state)]).await;
    assert_paused(&state);
    assert_eq!(results(&state).len(), 1);

    let values = |values: Value| StepAnswer { values: values.as_object().cloned(), ..answer(&state) };
    for wrong in [json!({"environment": "moon"}), json!({"environment": 1}), json!({"region": "eu"})] {
        let refused = engine.execute(envelope(answering(&state, vec![values(wrong)]))).await.unwrap_err();
        assert!(matches!(refused, ExecuteError::Answer(_)), "{refused}");
    }
    let state = answered(&engine, &state, vec![values(json!({"environment": "staging"}))]).await;
    assert_eq!((state.status, state.content().as_str()), (RunStatus::Completed, "joined: joined: HELLO"));
    assert_eq!(flows.done.places(), ["0", "1", "2"]);
    assert_eq!(flows.seen.lock().unwrap()[1]["values"], json!({"environment": "staging"}));

    let frames = frames(&engine, state.run_id().unwrap()).await;
    let step = |kind: &str| [kind.to_owned(), "step_output".to_owned(), "step_completed".to_owned()];
    let mut wanted =
        vec!["run_started".to_owned(), "step_paused".into(), "flow_paused".into(), "step_continued".into()];
    wanted.extend(step("step_started"));
    wanted.extend(["step_paused".to_owned(), "flow_paused".into(), "step_continued".into()]);
    wanted.extend(step("step_started"));
    wanted.extend(step("step_started"));
    wanted.push("completed".into());
    assert_eq!(names(&frames), wanted);
    let indexes: Vec<u64> = frames.iter().map(|frame| frame.index).collect();
    assert_eq!(indexes, (0..indexes.len() as u64).collect::<Vec<_>>());
    engine.shutdown().await;
    flows.world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rejected_step_is_left_out_or_cancels_the_workflow() {
    let flows = Flows::new().await;
    let steps = |on_reject| vec![confirmed(function("a", "upper"), on_reject), function("b", "join")];
    let engine = flows.engine(workflow(steps(OnReject::Skip))).await;
    let state = told(&engine, "Hello").await;
    let state = answered(&engine, &state, vec![no(&state)]).await;
    assert_eq!((state.status, state.content().as_str()), (RunStatus::Completed, "joined: Hello"));
    assert_eq!(results(&state).len(), 1);
    engine.shutdown().await;

    let engine = flows.engine(workflow(steps(OnReject::Cancel))).await;
    let state = told(&engine, "Hello").await;
    let why = StepAnswer { feedback: Some("too risky".into()), ..no(&state) };
    let state = answered(&engine, &state, vec![why]).await;
    assert_eq!(state.status, RunStatus::Cancelled);
    assert_eq!(state.cancel_reason.as_deref(), Some("Step \"a\" was rejected: too risky"));
    assert_eq!(flows.done.places(), ["1"]);
    flows.each_ended_once(&engine, state.run_id().unwrap()).await;
    engine.shutdown().await;
    flows.world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_output_is_made_again_with_what_the_person_said() {
    let flows = Flows::new().await;
    let review =
        || HumanReview { output: Some(OutputReview { message: None, max_rejections: 1 }), ..HumanReview::default() };
    let steps = vec![reviewed(flows.agent_step("draft"), review()), function("end", "join")];
    let engine = flows.engine(workflow(steps)).await;
    flows.world.script([Turn::Say("a long draft"), Turn::Say("a draft")]);
    let state = told(&engine, "Write").await;
    assert_paused(&state);
    assert_eq!(results(&state)[0].content, json!("a long draft"));
    let shorter = StepAnswer { feedback: Some("shorter".into()), ..no(&state) };
    let state = answered(&engine, &state, vec![shorter]).await;
    assert_paused(&state);
    let told = flows.world.model.requests.lock().unwrap()[1].messages.last().unwrap().content.clone().unwrap();
    assert_eq!(told, "Write\n\nYour previous output:\na long draft\n\nFeedback from reviewer:\nshorter");
    // Who changes it takes it.
    let better = StepAnswer { output: Some(json!("my own")), ..answer(&state) };
    let state = answered(&engine, &state, vec![better]).await;
    assert_eq!(state.content(), "joined: my own");
    // Each time another run carried it out.
    assert_eq!(state.children().count(), 1);
    let kinds = flows.world.kinds(state.run_id().unwrap()).await;
    assert_eq!(kinds.iter().filter(|kind| *kind == "RunStepStarted").count(), 3);
    engine.shutdown().await;
    flows.world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_looks_at_the_input_and_changes_it() {
    let flows = Flows::new().await;
    let review = HumanReview { input: Some(InputReview::default()), ..HumanReview::default() };
    let engine = flows.engine(workflow(vec![reviewed(function("a", "upper"), review)])).await;
    let state = told(&engine, "Hello").await;
    let state = answered(&engine, &state, vec![StepAnswer { input: Some(json!("Bye")), ..yes(&state) }]).await;
    assert_eq!(state.content(), "BYE");
    engine.shutdown().await;
    flows.world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_person_fills_in_is_for_the_tool_of_the_step() {
    let flows = Flows::new().await;
    let arguments = [("n", cel("1 + 1")), ("environment", cel("'none'"))];
    let engine = flows.engine(workflow(vec![asking_for_values(tool("t", "idem", &arguments))])).await;
    let state = told(&engine, "Hello").await;
    let values = json!({"environment": "staging"}).as_object().cloned();
    let state = answered(&engine, &state, vec![StepAnswer { values, ..answer(&state) }]).await;
    assert_eq!(state.status, RunStatus::Completed);
    let given = Value::Object(flows.world.given.lock().unwrap()[0].clone());
    assert_eq!(given, json!({"n": 2, "environment": "staging"}));
    engine.shutdown().await;
    flows.world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_chooses_the_routes() {
    let flows = Flows::new().await;
    let choices = ["x", "y", "z"].map(|name| function(name, "join")).to_vec();
    let selector = Selector::Person { message: Some("Where to?".into()) };
    let route = step("route", StepKind::Router(RouterStep { selector, choices, many: true }));
    let engine = flows.engine(workflow(vec![route])).await;
    let state = told(&engine, "Hello").await;
    assert_paused(&state);
    let chosen = |names: &[&str]| {
        let choices = Some(names.iter().map(|name| (*name).to_owned()).collect());
        StepAnswer { choices, ..answer(&state) }
    };
    let refused = engine.execute(envelope(answering(&state, vec![chosen(&["nowhere"])]))).await.unwrap_err();
    assert!(refused.to_string().contains("there are: x, y, z"), "{refused}");
    let state = answered(&engine, &state, vec![chosen(&["z", "x"])]).await;
    assert_eq!(flows.done.places(), ["0.2", "0.0"]);
    assert_eq!(state.status, RunStatus::Completed);
    engine.shutdown().await;
    flows.world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_decides_what_becomes_of_a_failed_step() {
    let flows = Flows::new().await;
    flows.failures.lock().unwrap().insert("0".into(), 2);
    let bad = with(function("bad", "flaky"), Policies { on_error: OnError::Pause, ..Policies::default() });
    let engine = flows.engine(workflow(vec![bad, function("end", "join")])).await;
    let state = watched(&engine, "Hello").await;
    assert_paused(&state);
    assert_eq!(
        names(&frames(&engine, state.run_id().unwrap()).await)[1..],
        ["step_started", "step_error", "flow_paused"]
    );
    let state = answered(&engine, &state, vec![yes(&state)]).await;
    assert_paused(&state);
    let state = answered(&engine, &state, vec![yes(&state)]).await;
    assert_eq!(state.content(), "joined: fine");
    assert_eq!(flows.done.times("0"), 3);

    flows.failures.lock().unwrap().insert("0".into(), 1);
    let state = told(&engine, "Hello").await;
    let state = answered(&engine, &state, vec![no(&state)]).await;
    assert_eq!(state.content(), "joined: Step skipped due to error: flaky");
    assert!(!results(&state)[0].success);
    engine.shutdown().await;
    flows.world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_agent_of_a_step_asks_is_asked_of_the_workflow() {
    let flows = Flows::new().await;
    let steps = vec![function("a", "upper"), flows.agent_step("act"), function("end", "join")];
    let engine = flows.engine(workflow(steps)).await;
    flows.world.script([Turn::Call(&[("c", "confirm", r#"{"to":"x"}"#)]), Turn::Say("sent")]);
    let state = watched(&engine, "Hello").await;
    assert_paused(&state);
    let frames = frames(&engine, state.run_id().unwrap()).await;
    let FrameBody::FlowPaused { steps, members, results } = &frames.last().unwrap().body else { panic!("not paused") };
    assert_eq!((members.len(), results.len()), (1, 1));
    let Ask::Executor { child, .. } = &steps[0].requirement.ask else { panic!("{steps:?}") };
    assert_eq!(members[0].run_id, child.run_id);
    assert_eq!(flows.world.calls.lock().unwrap().len(), 0);

    let confirmed = Answer { call_id: "c".into(), confirmed: Some(true), ..Answer::default() };
    let (run, session) = (state.run_id().unwrap(), state.session_id().unwrap().to_string());
    let component = state.component().unwrap().clone();
    let command = daybook_domain::command::ContinueRun { component, ..continuing(run, &session, vec![confirmed]) };
    engine.execute(envelope(command)).await.unwrap();
    let state = ended(&engine, run).await;
    assert_eq!((state.status, state.content().as_str()), (RunStatus::Completed, "joined: sent"));
    assert_eq!(flows.world.calls.lock().unwrap().len(), 1);
    assert_eq!(flows.done.places(), ["0", "2"]);
    flows.each_ended_once(&engine, run).await;
    engine.shutdown().await;
    flows.world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_nested_workflow_asks_is_answered_at_the_top() {
    let flows = Flows::new().await;
    let inner = called("inner", vec![confirmed(function("ask", "upper"), OnReject::Skip)]);
    let outer = workflow(vec![
        parallel("par", vec![flows.nested("nested", &inner), confirmed(function("own", "join"), OnReject::Skip)]),
        function("end", "join"),
    ]);
    let engine = flows.world.engine_from(flows.registry(vec![inner, outer])).await;
    let state = told(&engine, "Hi").await;
    assert_paused(&state);
    let nested = state.children().next().unwrap();
    let inner = engine.run(LOG, &nested.run_id).await.unwrap().unwrap();
    assert_paused(&inner);
    let flow = state.flow.as_ref().unwrap();
    let copies = flow.asks().into_iter().find_map(|asked| match asked.ask {
        Ask::Executor { steps, .. } => Some(steps),
        _ => None,
    });
    assert_eq!(copies.unwrap()[0].name, "ask");
    // One of two answers: nothing goes on.
    let outcome = engine.execute(envelope(answering(&state, vec![yes(&inner)]))).await.unwrap();
    assert!(matches!(outcome, daybook_engine::Outcome::Continued { .. }));
    assert_eq!(engine.run(LOG, state.run_id().unwrap()).await.unwrap().unwrap().status, RunStatus::Paused);
    assert_eq!(flows.done.places(), [""; 0]);
    let state = answered(&engine, &state, vec![yes(&state)]).await;
    assert_eq!(state.status, RunStatus::Completed);
    let mut places = flows.done.places();
    places.sort();
    assert_eq!(places, ["0", "0.1", "1"]);
    flows.each_ended_once(&engine, state.run_id().unwrap()).await;
    engine.shutdown().await;
    flows.world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_say_nothing_new_or_the_wrong_thing_change_nothing() {
    let flows = Flows::new().await;
    let steps =
        vec![confirmed(function("a", "upper"), OnReject::Skip), confirmed(function("b", "join"), OnReject::Skip)];
    let engine = flows.engine(workflow(steps)).await;
    let first = told(&engine, "Hello").await;
    let refused = async |answers| engine.execute(envelope(answering(&first, answers))).await.unwrap_err().to_string();
    assert!(refused(vec![]).await.contains("waits for answers about the steps a"));
    assert!(refused(vec![answer(&first)]).await.contains("waits for answers about the steps a"));
    let unknown = StepAnswer { step_id: "nobody".into(), confirmed: Some(true), ..StepAnswer::default() };
    assert!(refused(vec![unknown]).await.contains("no step \"nobody\""));
    assert_eq!(flows.done.places(), [""; 0]);

    let second = answered(&engine, &first, vec![yes(&first)]).await;
    assert_paused(&second);
    // Clients send what they answered before along with what is new.
    let otherwise = engine.execute(envelope(answering(&second, vec![no(&first), yes(&second)]))).await.unwrap_err();
    assert!(otherwise.to_string().contains("first answer counts"), "{otherwise}");
    let state = answered(&engine, &second, vec![yes(&first), yes(&second)]).await;
    assert_eq!(state.status, RunStatus::Completed);
    // It is over: what was said once more is the run itself, and anything else is refused.
    let again = engine.execute(envelope(answering(&second, vec![yes(&second)]))).await;
    assert!(matches!(again, Ok(daybook_engine::Outcome::Continued { .. })), "{again:?}");
    let more = engine.execute(envelope(answering(&second, vec![]))).await.unwrap_err();
    assert_eq!(more.to_string(), "run is already completed");
    assert_eq!(flows.done.places(), ["0", "1"]);
    engine.shutdown().await;
    flows.world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_outlives_its_node_and_a_paused_workflow_can_be_cancelled() {
    let flows = Flows::new().await;
    let steps = || vec![flows.agent_step("act"), confirmed(function("b", "join"), OnReject::Skip)];
    let engine = flows.engine(workflow(steps())).await;
    let state = told(&engine, "Hello").await;
    assert_paused(&state);
    flows.world.kill(engine).await;
    let engine = flows.engine(workflow(steps())).await;
    let state = answered(&engine, &state, vec![yes(&state)]).await;
    assert_eq!(state.content(), "joined: Hi Alice!");
    assert_eq!(flows.world.model.requests.lock().unwrap().len(), 1);

    flows.world.script([Turn::Call(&[("c", "confirm", r#"{"to":"x"}"#)])]);
    let run = run(&engine, daybook_domain::command::StartRun { mode: RunMode::Plain, ..telling("Hello", "t") }).await;
    assert_paused(&ended(&engine, &run).await);
    engine.execute(envelope(cancelling(&run))).await.unwrap();
    let state = ended(&engine, &run).await;
    assert_eq!(state.status, RunStatus::Cancelled);
    flows.each_ended_once(&engine, &run).await;
    engine.shutdown().await;
    flows.world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_sent_again_says_nothing_about_the_next_question() {
    let flows = Flows::new().await;
    let turn = repeat("rounds", vec![confirmed(function("turn", "upper"), OnReject::Skip)], None, 3);
    let engine = flows.engine(workflow(vec![turn])).await;
    let state = watched(&engine, "Hello").await;
    assert_paused(&state);
    let number = |state: &RunState| state.open_steps().next().unwrap().0.number;
    assert_eq!(number(&state), 0);
    let first = StepAnswer { number: Some(0), ..yes(&state) };
    let second = answered(&engine, &state, vec![first.clone()]).await;
    assert_eq!((second.status, number(&second)), (RunStatus::Paused, 1));
    // The step has the same id in every iteration. What was said about the first is no word about the second.
    engine.execute(envelope(answering(&state, vec![first.clone()]))).await.unwrap();
    let still = engine.run(LOG, state.run_id().unwrap()).await.unwrap().unwrap();
    assert_eq!((number(&still), flows.done.places().len()), (1, 1));
    // Clients send all that was ever asked: the old answers are passed over. Two answers to one question are refused.
    let now = StepAnswer { number: Some(1), ..yes(&second) };
    let no = StepAnswer { confirmed: Some(false), ..now.clone() };
    let refused = engine.execute(envelope(answering(&state, vec![now.clone(), no]))).await.unwrap_err();
    assert!(refused.to_string().contains("answered twice"), "{refused}");
    let third = answered(&engine, &second, vec![first, now]).await;
    assert_eq!((third.status, number(&third), flows.done.places().len()), (RunStatus::Paused, 2, 2));
    engine.shutdown().await;
    flows.world.close().await;
}
