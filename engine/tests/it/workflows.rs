//! Workflows: every kind of step, what steps see, and what watchers see of them.

use std::collections::BTreeMap;

use daybook_domain::command::ForkSession;
use daybook_domain::event::DomainEvent;
use daybook_domain::output::OutputSchema;
use daybook_domain::run::RunStatus;
use daybook_domain::workflow::{Expression, Place, Policies, Retries, StepKind};
use daybook_engine::{ExecuteError, FrameBody, Outcome, RegistryError, frames_of};
use serde_json::{Value, json};

use crate::flow_world::*;
use crate::teams::frames;
use crate::world::*;

/// As the recorded server has it: every kind of block.
fn full(flows: &Flows) -> Vec<daybook_domain::workflow::Step> {
    vec![
        function("start", "upper"),
        condition("maybe", cel("!input.contains('skip')"), vec![function("cond step", "join")], vec![]),
        parallel("par", vec![function("par a", "upper"), flows.agent_step("par b")]),
        repeat("looper", vec![function("loop body", "join")], None, 2),
        router("route", cel("['route a']"), vec![function("route a", "join"), function("route b", "upper")]),
        group("group", vec![function("g1", "join"), function("g2", "join")]),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_block_runs_and_is_shown() {
    let flows = Flows::new().await;
    let engine = flows.engine(workflow(full(&flows))).await;
    let state = watched(&engine, "Hello").await;
    assert_eq!(state.status, RunStatus::Completed);
    assert_eq!(state.content(), "joined: joined: joined: joined: Hi Alice!");
    let outputs: Vec<(String, Value)> =
        results(&state).iter().map(|output| (output.name.clone(), output.content.clone())).collect();
    let par =
        "## Parallel Execution Results\n\n### ✅ SUCCESS: par a\njoined: HELLO\n\n### ✅ SUCCESS: par b\nHi Alice!";
    let wanted = [
        ("start", "HELLO"),
        ("maybe", "Condition maybe completed with 1 results (if branch)"),
        ("par", &par.replace("joined: HELLO", "JOINED: HELLO")),
        ("looper", "Loop looper completed 2 iterations with 2 total steps"),
        ("route", "Router route completed with 1 results"),
        ("group", "Steps group completed with 2 results"),
    ];
    assert_eq!(outputs, wanted.map(|(name, content)| (name.to_owned(), json!(content))));
    // The agent was told what was said before it, and it cost what it cost.
    assert_eq!(
        flows.world.model.requests.lock().unwrap()[0].messages.last().unwrap().content.as_deref(),
        Some("joined: HELLO")
    );
    assert_eq!(state.spent.total().total_tokens, 3);

    let names: Vec<String> =
        frames(&engine, state.run_id().unwrap()).await.iter().map(|frame| name(&frame.body)).collect();
    let wanted = [
        "RunStarted",
        "StepStarted start",
        "StepOutput start",
        "StepCompleted start",
        "BlockStarted maybe",
        "StepStarted cond step",
        "StepCompleted cond step",
        "BlockCompleted maybe",
        "BlockStarted par",
    ];
    assert_eq!(names[..wanted.len()], wanted);
    let wanted = [
        "BlockCompleted par",
        "BlockStarted looper",
        "IterationStarted looper 1",
        "StepStarted loop body",
        "StepCompleted loop body",
        "IterationCompleted looper 1",
        "IterationStarted looper 2",
        "StepStarted loop body",
        "StepCompleted loop body",
        "IterationCompleted looper 2",
        "BlockCompleted looper",
        "BlockStarted route",
        "StepStarted route a",
        "StepCompleted route a",
        "BlockCompleted route",
        "BlockStarted group",
        "StepStarted g1",
        "StepCompleted g1",
        "StepStarted g2",
        "StepCompleted g2",
        "BlockCompleted group",
        "Completed",
    ];
    assert_eq!(names[names.len() - wanted.len()..], wanted);
    flows.each_ended_once(&engine, state.run_id().unwrap()).await;
    engine.shutdown().await;
    flows.world.close().await;
}

fn name(body: &FrameBody) -> String {
    let body = serde_json::to_value(body).unwrap();
    let camel = |text: &str| text.split('_').map(|word| word[..1].to_uppercase() + &word[1..]).collect::<String>();
    let step = body["step"]["name"].as_str().map(|name| format!(" {name}")).unwrap_or_default();
    let number = body["number"].as_u64().map(|number| format!(" {number}")).unwrap_or_default();
    format!("{}{step}{number}", camel(body["t"].as_str().unwrap()))
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_are_numbered_without_gaps_and_say_where_steps_stand() {
    let flows = Flows::new().await;
    let engine = flows.engine(workflow(full(&flows))).await;
    let state = watched(&engine, "Hello").await;
    let run = state.run_id().unwrap();
    let frames = frames(&engine, run).await;
    let indexes: Vec<u64> = frames.iter().map(|frame| frame.index).collect();
    assert_eq!(indexes, (0..indexes.len() as u64).collect::<Vec<_>>());
    let mut places = BTreeMap::new();
    for frame in &frames {
        if let FrameBody::StepStarted { step } = &frame.body {
            places.insert(step.name.clone(), (step.index.clone(), step.parent_id.is_some(), step.id.clone()));
        }
        if let Some(parent) = &frame.run.parent {
            let of = parent.step.as_ref().unwrap();
            assert_eq!((of.step_name.as_str(), &of.step_index), ("par b", &json!([2, 1])));
            assert_eq!(&of.workflow_run_id, run);
        }
    }
    let at = |name: &str| (places[name].0.clone(), places[name].1);
    assert_eq!(at("start"), (json!(0), false));
    assert_eq!(at("par b"), (json!([2, 1]), true));
    // As clients of the AgentOS API know it: a router's steps stand where the router does.
    assert_eq!(at("route a"), (json!(4), true));
    // Those that are made again from the log are the same, and say the same.
    assert_eq!(engine.run(LOG, run).await.unwrap().unwrap().next_frame, indexes.len() as u64);
    let child = state.children().next().unwrap().run_id;
    for run in [run, &child] {
        let mut folded = daybook_domain::run::RunState::default();
        let stream = daybook_domain::ids::StreamId::run(run);
        for recorded in flows.world.store.read_stream(LOG, &stream, 0).await.unwrap() {
            let DomainEvent::Run(event) = recorded.event else { panic!("of a run") };
            folded.evolve(&event);
            let (first, bodies) = frames_of(&event, &folded);
            for (at, body) in bodies.iter().enumerate() {
                let shown = &frames[usize::try_from(first).unwrap() + at];
                assert_eq!(&shown.run.run_id, run);
                // The last frame also tells of the runs under the run.
                if !matches!(body, FrameBody::Completed(_)) {
                    assert_eq!(&shown.body, body);
                }
            }
        }
    }
    engine.shutdown().await;
    flows.world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tools_get_what_expressions_make_of_what_was_said() {
    let flows = Flows::new().await;
    let arguments = [
        ("key", cel("outputs.start.startsWith('HELLO') ? 'greeted' : 'other'")),
        ("who", Expression::Constant(json!({"name": "Alice"}))),
        ("n", cel("state.base + 1")),
    ];
    let steps = vec![function("start", "upper"), tool("call", "idem", &arguments), function("end", "join")];
    let mut config = workflow(steps);
    config.session_state = json!({"base": 41}).as_object().cloned().unwrap();
    let engine = flows.engine(config).await;
    let state = told(&engine, "Hello").await;
    assert_eq!(state.status, RunStatus::Completed);
    let given = Value::Object(flows.world.given.lock().unwrap()[0].clone());
    assert_eq!(given, json!({"key": "greeted", "who": {"name": "Alice"}, "n": 42}));
    assert_eq!(state.content(), "joined: ok");
    // What the tool set is the session's.
    assert_eq!(state.session_state.unwrap()["greeted"], json!(true));
    engine.shutdown().await;
    flows.world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn loops_end_by_expressions_and_state_is_kept_by_functions() {
    let flows = Flows::new().await;
    let until = cel("state.count >= 3 && outputs['n'].count == iteration");
    let steps = vec![repeat("loop", vec![function("n", "count")], Some(until), 10), function("end", "join")];
    let engine = flows.engine(workflow(steps)).await;
    let state = told(&engine, "Hello").await;
    assert_eq!(state.content(), r#"joined: {"count":3}"#);
    assert_eq!(flows.done.places(), ["0.i1.0", "0.i2.0", "0.i3.0", "1"]);
    assert_eq!(state.session_state.unwrap()["count"], json!(3));
    engine.shutdown().await;
    flows.world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn closures_decide_by_name() {
    let flows = Flows::new().await;
    let rule = |name: &str| Expression::Function(name.into());
    let steps = vec![
        condition("if", rule("is_long"), vec![function("long", "upper")], vec![function("short", "join")]),
        router("route", rule("first_two"), ["x", "y", "z"].map(|name| function(name, "join")).to_vec()),
    ];
    let engine = flows.engine(workflow(steps)).await;
    let state = told(&engine, "Hi").await;
    assert_eq!(state.content(), "joined: joined: joined: Hi");
    assert_eq!(flows.done.places(), ["0.e0", "1.0", "1.1"]);
    engine.shutdown().await;
    flows.world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_stops_ends_the_workflow_early() {
    let flows = Flows::new().await;
    let steps = vec![group("group", vec![function("a", "stop"), function("b", "join")]), function("c", "join")];
    let engine = flows.engine(workflow(steps)).await;
    let state = told(&engine, "Hi").await;
    assert_eq!((state.status, state.content().as_str()), (RunStatus::Completed, "enough"));
    assert_eq!(flows.done.places(), ["0.0"]);
    engine.shutdown().await;
    flows.world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_workflow_runs_in_a_step_of_another() {
    let flows = Flows::new().await;
    let inner = called("inner", vec![function("up", "upper"), flows.agent_step("ask")]);
    let outer = workflow(vec![function("first", "join"), flows.nested("nested", &inner), function("last", "join")]);
    let engine = flows.world.engine_from(flows.registry(vec![inner, outer])).await;
    let state = told(&engine, "Hi").await;
    assert_eq!(state.content(), "joined: Hi Alice!");
    let detail = engine.detail(LOG, state.clone()).await.unwrap().unwrap();
    assert_eq!(detail.children.len(), 1);
    let nested = &detail.children[0];
    assert!(is_flow(nested.state.component().unwrap()));
    assert_eq!(nested.children.len(), 1);
    let step = nested.children[0].state.parent().unwrap().step.clone().unwrap();
    assert_eq!((step.workflow_id.as_str(), step.step_name.as_str()), ("inner", "ask"));
    assert_eq!(state.spent.total().total_tokens, 3);
    // Only the run at the top is one of the session's.
    assert_eq!(flows.world.runs_of(state.session_id().unwrap()).await.len(), 1);
    flows.each_ended_once(&engine, state.run_id().unwrap()).await;
    engine.shutdown().await;
    flows.world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_of_a_session_has_steps_and_runs_of_its_own() {
    let flows = Flows::new().await;
    let inner = called("inner", vec![flows.agent_step("ask")]);
    let outer = workflow(vec![function("first", "join"), flows.nested("nested", &inner)]);
    let engine = flows.world.engine_from(flows.registry(vec![inner, outer])).await;
    let state = told(&engine, "Hi").await;
    let component = state.component().unwrap().clone();
    let fork = ForkSession { component, session_id: state.session_id().unwrap().clone(), user_id: None };
    let Outcome::Forked { session_id } = engine.execute(envelope(fork)).await.unwrap() else { panic!("no copy") };
    let copied = flows.world.runs_of(&session_id).await[0].clone();
    let copy = engine.run(LOG, &copied).await.unwrap().unwrap();
    assert_eq!((copy.status, copy.content()), (RunStatus::Completed, state.content()));
    let detail = engine.detail(LOG, copy).await.unwrap().unwrap();
    let (nested, agent) = (&detail.children[0].state, &detail.children[0].children[0].state);
    assert_eq!(agent.content(), "Hi Alice!");
    for (run, above, place) in [(nested, &copied, "1"), (agent, nested.run_id().unwrap(), "0")] {
        let parent = run.parent().unwrap();
        assert_eq!((&parent.run_id, &parent.root, run.session_id()), (above, &copied, Some(&session_id)));
        let step = parent.step.as_ref().unwrap();
        assert_eq!(&step.workflow_run_id, above);
        assert_eq!(step.step_id, Place::recorded(place).step_id(above));
    }
    engine.shutdown().await;
    flows.world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_agents_of_steps_see_earlier_runs_where_the_workflow_says_so() {
    let flows = Flows::new().await;
    let mut config = workflow(vec![flows.agent_step("ask")]);
    config.history_runs = 1;
    let engine = flows.engine(config).await;
    for message in ["one", "two", "three"] {
        told(&engine, message).await;
    }
    let request = flows.world.model.requests.lock().unwrap()[2].clone();
    let said: Vec<&str> = request.messages[1..].iter().filter_map(|message| message.content.as_deref()).collect();
    assert_eq!(said, ["two", "Hi Alice!", "three"]);
    engine.shutdown().await;
    flows.world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_workflow_says_what_its_input_looks_like() {
    let flows = Flows::new().await;
    let mut config = workflow(vec![condition("if", cel("input.n > 1"), vec![function("a", "join")], vec![])]);
    let schema = json!({"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]});
    config.input_schema = OutputSchema::new(schema.as_object().cloned().unwrap(), false).ok();
    let engine = flows.engine(config).await;
    for (message, fault) in [("hello", "no JSON object"), (r#"{"n": "x"}"#, "/n"), ("{}", "\"n\"")] {
        let refused = engine.execute(envelope(telling(message, "s"))).await.unwrap_err();
        assert!(matches!(&refused, ExecuteError::Input(why) if why.contains(fault)), "{refused}");
    }
    let state = told(&engine, r#"{"n": 2}"#).await;
    assert_eq!(state.content(), r#"joined: {"n": 2}"#);
    engine.shutdown().await;
    flows.world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_mistakes_of_a_workflow_are_told_at_once() {
    let flows = Flows::new().await;
    let retries = Retries { count: 1, ..Retries::default() };
    let steps = vec![
        function("a", "nowhere"),
        condition("if", cel("inptu == 'a'"), vec![tool("t", "nothing", &[("x", cel("1 +"))])], vec![]),
        with(group("g", vec![]), Policies { retries, ..Policies::default() }),
        router("r", Expression::Function("nobody".into()), vec![function("x", "upper")]),
        tool("asks", "confirm", &[]),
    ];
    let mut registry = flows.registry(vec![]);
    let tools = flows.world.tools(Default::default());
    let refused = registry.add_workflow(workflow(steps), tools, daybook_engine::Listing::Public).unwrap_err();
    let RegistryError::Workflow { faults, .. } = &refused else { panic!("{refused}") };
    let wanted = [
        "g: the group has no `steps`",
        "g: a block cannot have retries",
        "asks: the tool \"confirm\" asks a person",
        "if: `test`: there is no variable \"inptu\"",
        "if > t: `arguments`: Syntax error",
        "r: `selector`: there is no closure \"nobody\"; there are: broken, first_two, is_long",
        "a: there is no function \"nowhere\"",
        "there is no tool \"nothing\"",
    ];
    for wanted in wanted {
        assert!(faults.iter().any(|fault| fault.starts_with(wanted)), "{wanted} is missing in {faults:#?}");
    }
    assert_eq!(faults.len(), wanted.len(), "{faults:#?}");
    assert!(refused.to_string().lines().count() > wanted.len());
    flows.world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_do_not_enter_the_log_by_steps() {
    let flows = Flows::new().await;
    let engine = flows.engine(workflow(vec![function("a", "secret")])).await;
    let state = told(&engine, "Hi").await;
    let recorded = serde_json::to_string(&state).unwrap();
    assert!(!recorded.contains(TOKEN) && !recorded.contains("hunter2"), "{recorded}");
    assert!(matches!(results(&state)[0].content, Value::Object(_)));
    engine.shutdown().await;
    flows.world.close().await;
}

/// The figures of a loop that goes on for long: rows, bytes and the size of its state.
#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_iterations_are_linear_in_the_log_and_flat_in_memory() {
    let flows = Flows::new().await;
    let figures = async |iterations: u32| {
        let body = vec![function("a", "join"), parallel("par", vec![function("b", "upper"), function("c", "join")])];
        let engine = flows.engine(workflow(vec![repeat("loop", body, None, iterations)])).await;
        let session = format!("s{iterations}");
        let run = run(&engine, telling("Hello", &session)).await;
        let state = ended(&engine, &run).await;
        assert_eq!(state.status, RunStatus::Completed);
        let StepKind::Loop(_) = workflow(vec![repeat("l", vec![], None, 1)]).steps[0].kind.clone() else { panic!() };
        let stream = daybook_domain::ids::StreamId::run(&run);
        let recorded = flows.world.store.read_stream(LOG, &stream, 0).await.unwrap();
        let bytes: usize =
            recorded.iter().map(|recorded| serde_json::to_string(&stored(&recorded.event)).unwrap().len()).sum();
        let size = serde_json::to_string(&state.flow).unwrap().len();
        engine.shutdown().await;
        (recorded.len(), bytes, size)
    };
    let (rows, bytes, size) = figures(100).await;
    let (many_rows, many_bytes, large) = figures(1000).await;
    assert!(many_rows <= rows * 10 && many_bytes <= bytes * 11, "{rows}, {bytes}; {many_rows}, {many_bytes}");
    assert!(large <= size + size / 10, "{size}; {large}");
    let calls = flows.done.places();
    assert_eq!(calls.len(), 3 * 1100);
    flows.world.close().await;
}

fn stored(event: &daybook_domain::event::DomainEvent) -> Value {
    let stored = event.store().unwrap();
    json!([stored.payload, stored.personal])
}
