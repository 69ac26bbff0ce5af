//! Answers that miss their shape: how the model is asked again, and what of it is seen by whom.

use daybook_domain::DomainEvent;
use daybook_domain::command::{ContinueFrom, ContinueRun, StartRun};
use daybook_domain::component::{AgentConfig, ComponentRef};
use daybook_domain::ids::{ComponentId, RunId, SessionId, StreamId};
use daybook_domain::output::OutputSchema;
use daybook_domain::run::{ModelCallRequested, RunEvent, RunMode, RunState, RunStatus};
use daybook_engine::{Engine, FrameBody, Outcome, WatchItem, build_request, json_hash};
use daybook_models::ChatRequest;
use serde_json::json;

use crate::world::*;

const GOOD: &str = r#"{"title": "Up"}"#;

fn shape() -> OutputSchema {
    let schema = json!({"type": "object", "title": "Movie", "required": ["title"],
        "properties": {"title": {"type": "string"}}});
    OutputSchema::new(schema.as_object().cloned().unwrap(), true).unwrap()
}

/// An agent whose answers have a shape, and are asked for again so often.
async fn shaped(world: &World, output_repairs: u32, max_iterations: u32) -> Engine {
    let output_schema = Some(shape());
    world.engine_of(AgentConfig { output_schema, output_repairs, max_iterations, ..config() }, Default::default()).await
}

fn requests(world: &World) -> Vec<ChatRequest> {
    world.model.requests.lock().unwrap().clone()
}

fn said(request: &ChatRequest) -> Vec<String> {
    request.messages.iter().filter_map(|message| message.content.clone()).collect()
}

/// How often the model was told that an answer misses its shape.
async fn misses(world: &World, run: &RunId) -> usize {
    world.kinds(run).await.iter().filter(|kind| *kind == "RunAnswerMissed").count()
}

async fn calls_of(world: &World, run: &RunId) -> Vec<ModelCallRequested> {
    let recorded = world.store.read_stream(LOG, &StreamId::run(run), 0).await.unwrap();
    let requested = |event| match event {
        DomainEvent::Run(RunEvent::ModelCallRequested(requested)) => Some(requested),
        _ => None,
    };
    recorded.into_iter().filter_map(|recorded| requested(recorded.event)).collect()
}

/// Every call's request is built again from the log, and is what was sent.
async fn assert_rebuilt(world: &World, engine: &Engine, state: &RunState, sent: &[ChatRequest]) {
    let detail = engine.detail(LOG, state.clone()).await.unwrap().unwrap();
    let calls = calls_of(world, state.run_id().unwrap()).await;
    assert_eq!(calls.len(), sent.len());
    for (call, sent) in calls.iter().zip(sent) {
        let own = &state.messages[..call.own_messages];
        let rebuilt =
            build_request(detail.config.agent().unwrap(), state.accepted.as_ref().unwrap(), &detail.history, own);
        assert_eq!(json_hash(&rebuilt).unwrap(), call.prompt_hash);
        assert_eq!(&rebuilt, sent);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_miss_is_told_and_mended_and_only_the_mended_answer_is_seen() {
    let world = World::new().await;
    let engine = shaped(&world, 2, 5).await;
    world.script([Turn::Say(r#"{"title": 5}"#), Turn::Say(GOOD)]);
    let run = run(&engine, StartRun { mode: RunMode::Streaming, ..start("go", "s") }).await;
    let mut watch = engine.watch(LOG, &run, None).await.unwrap().unwrap();
    let (mut shown, mut end) = (Vec::new(), None);
    while let Some(item) = watch.next().await.unwrap() {
        let WatchItem::Frame(frame) = item else { continue };
        match &frame.body {
            FrameBody::Content { text: Some(text), .. } => shown.push(text.clone()),
            FrameBody::Completed(completed) => end = Some(completed.content.clone()),
            _ => {}
        }
    }
    assert_eq!((shown, end.as_deref()), (vec![GOOD.to_owned()], Some(GOOD)));
    let state = ended(&engine, &run).await;
    assert_eq!((state.status, state.content().as_str(), state.answer()), (RunStatus::Completed, GOOD, Some(GOOD)));
    assert_eq!((state.usage.input_tokens, state.usage.total_tokens), (4, 6), "both calls cost something");
    let kinds = world.kinds(&run).await;
    let call = ["RunModelCallRequested", "RunModelCallCompleted"];
    let expected = [&["RunAccepted"], &call[..], &["RunAnswerMissed"], &call[..], &["RunSucceeded"]].concat();
    assert_eq!(kinds, expected);
    let sent = requests(&world);
    let told = said(&sent[1]);
    assert_eq!(told[..3], ["Be brief.", "go", r#"{"title": 5}"#]);
    assert!(told[3].contains("at /title: ") && told[3].contains("string"), "{told:?}");
    assert_eq!(told.len(), 4);
    assert_rebuilt(&world, &engine, &state, &sent).await;

    // A later run sees what was said, and not how it came about.
    let next = self::run(&engine, start("next", "s")).await;
    ended(&engine, &next).await;
    assert_eq!(said(&requests(&world)[2]), ["Be brief.", "go", GOOD, "next"]);
    engine.shutdown().await;
    // The same from the log, when nothing is remembered.
    let engine = shaped(&world, 0, 5).await;
    let last = self::run(&engine, start("last", "s")).await;
    ended(&engine, &last).await;
    let told = said(requests(&world).last().unwrap());
    assert!(told.contains(&GOOD.to_owned()) && !told.iter().any(|text| text.contains("at /title")), "{told:?}");
    engine.shutdown().await;
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_miss_to_the_end_is_taken_as_it_is_after_as_many_repairs_as_are_allowed() {
    let world = World::new().await;
    // Repairs, model calls, and how many calls are made.
    for (repairs, iterations, calls) in [(2, 5, 3), (2, 2, 2), (1, 5, 2), (0, 5, 1), (2, 1, 1)] {
        let engine = shaped(&world, repairs, iterations).await;
        let before = requests(&world).len();
        let answers = ["one", "two", "three", "four"];
        world.model.turns.lock().unwrap().clear();
        world.script(answers.map(Turn::Say));
        let run = run(&engine, start("go", &format!("{repairs}-{iterations}"))).await;
        let state = ended(&engine, &run).await;
        assert_eq!((state.status, state.content().as_str()), (RunStatus::Completed, answers[calls - 1]));
        assert_eq!(requests(&world).len() - before, calls);
        assert_eq!(state.usage.input_tokens, 2 * calls as u64);
        assert_eq!(misses(&world, &run).await, calls - 1);
        engine.shutdown().await;
    }
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_between_the_miss_and_its_repair_asks_again_in_the_same_words() {
    let world = World::new().await;
    let engine = shaped(&world, 1, 5).await;
    world.script([Turn::Say("words"), Turn::Hold(GOOD), Turn::Say(GOOD)]);
    let run = run(&engine, StartRun { mode: RunMode::Streaming, ..start("go", "s") }).await;
    until("the repair", async || requests(&world).len() == 2).await;
    world.kill(engine).await;
    // With another agent by now: the run keeps its own.
    let next = world.engine().await;
    let state = ended(&next, &run).await;
    assert_eq!((state.status, state.content().as_str()), (RunStatus::Completed, GOOD));
    assert_eq!((misses(&world, &run).await, state.repairs()), (1, 1));
    let sent = requests(&world);
    assert_eq!((sent.len(), &sent[1]), (3, &sent[2]));
    let attempts: Vec<_> = calls_of(&world, &run).await.iter().map(|call| (call.iteration, call.attempt)).collect();
    assert_eq!(attempts, [(1, 1), (2, 1), (2, 2)]);
    assert_rebuilt(&world, &next, &state, &sent).await;
    // After the restart frame no word of the answer that missed is shown either.
    let mut watch = next.watch(LOG, &run, None).await.unwrap().unwrap();
    while let Some(item) = watch.next().await.unwrap() {
        let WatchItem::Frame(frame) = item else { continue };
        let FrameBody::Content { text: Some(text), .. } = &frame.body else { continue };
        assert!(!text.contains("words"), "{text}");
    }
    next.shutdown().await;
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_shape_that_a_caller_asks_for_is_mended_too_and_tool_calls_are_no_answers() {
    let world = World::new().await;
    let engine = world.engine_of(AgentConfig { output_repairs: 2, ..config() }, Default::default()).await;
    let secret = r#"{"title": "Up", "sk-abcdefghijklmnopqrstuvwxyz0123456789": 1}"#;
    let mut closed = shape();
    closed.schema.insert("additionalProperties".into(), json!(false));
    world.script([Turn::Call(&[("a", "pure", "{}")]), Turn::Say(secret), Turn::Say(GOOD)]);
    let run = run(&engine, StartRun { output_schema: Some(closed), ..start("go", "s") }).await;
    let state = ended(&engine, &run).await;
    assert_eq!((state.content().as_str(), misses(&world, &run).await), (GOOD, 1));
    let told = said(&requests(&world)[2]).pop().unwrap();
    assert!(told.contains("[redacted]") && !told.contains("sk-abc"), "{told}");
    // Without a shape nothing is held against anything.
    let plain = self::run(&engine, start("go", "s")).await;
    assert_eq!(ended(&engine, &plain).await.content(), "Hi Alice!");
    engine.shutdown().await;
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_is_given_anew_from_what_the_person_said() {
    let world = World::new().await;
    let engine = shaped(&world, 2, 5).await;
    for (regenerate, from) in [(true, ContinueFrom::End), (false, ContinueFrom::LastUser)] {
        world.script([Turn::Say("words"), Turn::Say(GOOD), Turn::Say(GOOD)]);
        let session = if regenerate { "anew" } else { "from" };
        let source = run(&engine, start("go", session)).await;
        ended(&engine, &source).await;
        let again = ContinueRun {
            component: ComponentRef::agent(ComponentId::parse("my-agent").unwrap()),
            run_id: source,
            session_id: SessionId::parse(session).unwrap(),
            answers: vec![],
            step_answers: vec![],
            input: None,
            from,
            fork: !regenerate,
            regenerate,
            replace_original: regenerate,
            mode: RunMode::Plain,
        };
        let Outcome::Accepted { run_id, .. } = engine.execute(envelope(again)).await.unwrap() else { panic!("a run") };
        assert_eq!(ended(&engine, &run_id).await.content(), GOOD);
        assert_eq!(said(requests(&world).last().unwrap()), ["Be brief.", "go"]);
    }
    engine.shutdown().await;
    world.close().await;
}
