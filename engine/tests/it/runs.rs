//! How runs go: what is recorded, what the model is asked, and how they end.

use daybook_domain::command::{CancelRun, StartRun};
use daybook_domain::event::DomainEvent;
use daybook_domain::ids::{RunId, SessionId, StreamId};
use daybook_domain::media::MediaContent;
use daybook_domain::output::OutputSchema;
use daybook_domain::run::{RunEvent, RunStatus, ToolOutcome, ToolRecord};
use daybook_engine::{ExecuteError, FrameBody, Outcome, WatchItem, build_request};
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::world::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_plain_run_costs_two_commits_and_its_request_can_be_rebuilt() {
    let world = World::new().await;
    let engine = world.engine().await;
    let first = run(&engine, start("Hello", "s")).await;
    assert_eq!(ended(&engine, &first).await.content(), "Hi Alice!");
    let second = run(&engine, start("Again", "s")).await;
    let state = ended(&engine, &second).await;
    assert_eq!((state.status, state.history.clone()), (RunStatus::Completed, vec![first.clone()]));

    let recorded = world.store.read_stream(LOG, &StreamId::run(&second), 0).await.unwrap();
    let times: std::collections::BTreeSet<i64> = recorded.iter().map(|recorded| recorded.recorded_at_ms).collect();
    assert_eq!(recorded.len(), 4);
    assert!(times.len() <= 2, "accepted with the model request, and the answer with the end: two commits");

    // From the log alone: configuration by hash, history by reference, own messages by fold.
    let DomainEvent::Run(RunEvent::ModelCallRequested(requested)) = &recorded[1].event else { panic!("a model call") };
    let detail = engine.detail(LOG, engine.run(LOG, &second).await.unwrap().unwrap()).await.unwrap().unwrap();
    let own = &detail.state.messages[..requested.own_messages];
    let rebuilt =
        build_request(detail.config.agent().unwrap(), detail.state.accepted.as_ref().unwrap(), &detail.history, own);
    let sent = world.model.requests.lock().unwrap()[1].clone();
    assert_eq!(rebuilt, sent);
    assert_eq!(daybook_engine::json_hash(&rebuilt).unwrap(), requested.prompt_hash);
    assert_eq!(
        sent.messages.iter().filter_map(|m| m.content.as_deref()).collect::<Vec<_>>(),
        ["Be brief.", "Hello", "Hi Alice!", "Again"]
    );
    engine.shutdown().await;
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn thoughts_go_back_within_their_run_unless_one_held_a_secret() {
    let world = World::new().await;
    let engine = world.engine().await;
    world.script([Turn::Think("a", "plain"), Turn::Think("b", "so"), Turn::Say("done")]);
    let first = run(&engine, start("go", "s")).await;
    ended(&engine, &first).await;
    let secret = "the key is sk-abcdefghijklmnopqrstuvwxyz0123456789";
    world.script([Turn::Think("c", "plain"), Turn::Think("d", secret), Turn::Say("done")]);
    let second = run(&engine, start("again", "s")).await;
    ended(&engine, &second).await;
    let given: Vec<Vec<Value>> = world
        .model
        .requests
        .lock()
        .unwrap()
        .iter()
        .map(|request| {
            request.messages.iter().filter_map(|m| m.replay.as_ref()).flat_map(|r| r.items.clone()).collect()
        })
        .collect();
    let thought = |text: &str| json!({"thought": text, "signature": "s"});
    let (plain, so) = (thought("plain"), thought("so"));
    // Of the second run the first is given back once: then one is lost, and a chain with a gap is worth nothing.
    assert_eq!(given, [vec![], vec![plain.clone()], vec![plain.clone(), so], vec![], vec![plain], vec![]]);
    let detail = engine.detail(LOG, engine.run(LOG, &second).await.unwrap().unwrap()).await.unwrap().unwrap();
    assert!(!serde_json::to_string(&detail.state).unwrap().contains("sk-abc"));
    engine.shutdown().await;
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_shape_of_an_answer_is_asked_for_and_the_callers_counts() {
    let world = World::new().await;
    let engine = world.engine().await;
    let schema = json!({"type": "object", "title": "Mine", "properties": {"a": {"type": "string"}}});
    let mine = OutputSchema::new(schema.as_object().cloned().unwrap(), true).unwrap();
    let shaped = run(&engine, StartRun { output_schema: Some(mine.clone()), ..start("go", "s") }).await;
    ended(&engine, &shaped).await;
    let plain = run(&engine, start("go", "s")).await;
    ended(&engine, &plain).await;
    let asked: Vec<_> = world.model.requests.lock().unwrap().iter().map(|sent| sent.output_schema.clone()).collect();
    assert_eq!(asked, [Some(mine), None]);
    engine.shutdown().await;
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tools_run_beside_each_other_and_a_failing_one_is_told_to_the_model() {
    let world = World::new().await;
    let engine = world.engine().await;
    world.script([Turn::Call(&[("a", "pure", r#"{"key":"x"}"#), ("b", "idem", r#"{"fail":1}"#), ("c", "none", "{}")])]);
    let first = run(&engine, start("go", "s")).await;
    let state = ended(&engine, &first).await;
    assert_eq!(state.status, RunStatus::Completed);
    let outcomes: Vec<_> = state.tools.iter().map(|tool| tool.outcome.clone().unwrap()).collect();
    assert_eq!(outcomes[0], ToolOutcome::Completed("ok".into()));
    assert_eq!(outcomes[1], ToolOutcome::Failed("it broke".into()));
    assert!(matches!(&outcomes[2], ToolOutcome::Failed(error) if error.contains("there is no tool \"none\"")));
    assert_eq!(state.session_state.unwrap().get("x"), Some(&json!(true)));

    // What was erased is in no state that is recorded later, though this node knew it; other sessions keep theirs.
    world.script([Turn::Call(&[("a", "pure", r#"{"key":"x"}"#)])]);
    let elsewhere = run(&engine, start("go", "t")).await;
    ended(&engine, &elsewhere).await;
    world.store.erase_session(LOG, &SessionId::parse("s").unwrap()).await.unwrap();
    for (session, kept) in [("s", None), ("t", Some(&json!(true)))] {
        let later = run(&engine, start("go on", session)).await;
        assert_eq!(ended(&engine, &later).await.session_state.unwrap().get("x"), kept, "{session}");
    }
    engine.shutdown().await;
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_failure_ends_the_run_with_its_message() {
    let world = World::new().await;
    let engine = world.engine().await;
    world.script([Turn::Fail(500)]);
    let run = run(&engine, start("go", "s")).await;
    let state = ended(&engine, &run).await;
    assert_eq!((state.status, state.error.unwrap().1.as_str()), (RunStatus::Error, "scripted failure"));
    engine.shutdown().await;
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_run_keeps_what_was_said_and_frees_its_session() {
    let world = World::new().await;
    let engine = world.engine().await;
    world.script([Turn::Hold("one two")]);
    let first = run(&engine, start("go", "s")).await;
    let queued = run(&engine, start("then", "s")).await;
    let dropped = run(&engine, start("never", "s")).await;
    until("text", async || {
        let mut watch = engine.watch(LOG, &first, None).await.unwrap().unwrap();
        let mut pieces = 0;
        while let Some(WatchItem::Frame(frame)) = watch.next().await.unwrap() {
            pieces +=
                usize::from(matches!(&frame.body, FrameBody::Content { text: Some(text), .. } if !text.is_empty()));
        }
        pieces == 2
    })
    .await;
    for run in [&dropped, &first] {
        let command = CancelRun { component: None, run_id: run.clone(), session_id: None, reason: None };
        assert_eq!(engine.execute(envelope(command)).await.unwrap(), Outcome::Cancelled);
    }
    let state = ended(&engine, &first).await;
    assert_eq!((state.status, state.content().as_str()), (RunStatus::Cancelled, "one two"));
    assert_eq!(ended(&engine, &queued).await.status, RunStatus::Completed);
    assert_eq!(ended(&engine, &dropped).await.status, RunStatus::Cancelled);
    assert_eq!(world.model.requests.lock().unwrap().len(), 2, "the cancelled run in the queue never called the model");
    engine.shutdown().await;
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_key_makes_one_run_however_often_it_is_sent() {
    let world = World::new().await;
    let engine = world.engine().await;
    let made = Arc::new(AtomicUsize::new(0));
    let mut all = tokio::task::JoinSet::new();
    for _ in 0..50 {
        let (engine, made) = (engine.clone(), made.clone());
        all.spawn(async move {
            let mut command = start("once", "s");
            command.session_id = None;
            let mut envelope = envelope(command);
            envelope.idempotency_key = Some("key".into());
            let Outcome::Accepted { run_id, .. } = engine.execute(envelope).await.unwrap() else { panic!("accepted") };
            made.fetch_add(1, Ordering::SeqCst);
            run_id
        });
    }
    let runs: std::collections::BTreeSet<RunId> = all.join_all().await.into_iter().collect();
    assert_eq!((runs.len(), made.load(Ordering::SeqCst)), (1, 50));
    let mut other = envelope(start("something else", "s"));
    other.idempotency_key = Some("key".into());
    assert!(matches!(engine.execute(other).await, Err(ExecuteError::KeyReused)));
    engine.shutdown().await;
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tool_gets_the_secret_that_the_log_does_not_keep() {
    let world = World::new().await;
    let engine = world.engine().await;
    let token = "sk-abcdefghijklmnopqrstuvwxyz0123456789";
    world.script([Turn::Call(&[("a", "pure", r#"{"password":"hunter2hunter2","city":"Oslo"}"#)])]);
    let run = run(&engine, start(&format!("use {token} please"), "s")).await;
    let state = ended(&engine, &run).await;
    assert_eq!(world.given.lock().unwrap()[0].get("password"), Some(&json!("hunter2hunter2")));
    let logged = serde_json::to_string(&engine.run(LOG, &run).await.unwrap().unwrap()).unwrap();
    assert!(!logged.contains("hunter2") && !logged.contains(token), "{logged}");
    assert!(logged.contains("use [redacted] please") && logged.contains("Oslo"), "{logged}");
    let sent = serde_json::to_string(&*world.model.requests.lock().unwrap()).unwrap();
    assert!(!sent.contains(token) && !sent.contains("hunter2"), "the model sees what the log keeps");
    assert_eq!(state.status, RunStatus::Completed);
    engine.shutdown().await;
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failing_tool_is_called_again_as_often_as_it_says_unless_it_may_do_harm() {
    let world = World::new().await;
    let engine = world.engine().await;
    for (tool, calls) in [("retried_pure", 3), ("retried_harm", 1)] {
        world.script([Turn::Call(match tool {
            "retried_pure" => &[("a", "retried_pure", r#"{"to":"x","fail":1}"#)],
            _ => &[("a", "retried_harm", r#"{"to":"x","fail":1}"#)],
        })]);
        let run = run(&engine, start("go", tool)).await;
        assert_eq!(ended(&engine, &run).await.status, RunStatus::Completed);
        assert_eq!(world.calls.lock().unwrap().drain(..).count(), calls, "{tool}");
    }
    engine.shutdown().await;
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_tool_gives_reaches_the_model_and_what_is_large_is_kept_apart() {
    let world = World::new().await;
    let engine = world.engine().await;
    world.script([Turn::Call(&[("a", "pure", "{\"picture\":1}")]), Turn::Say("seen")]);
    let run = run(&engine, start("go", "s")).await;
    let state = ended(&engine, &run).await;
    assert_eq!(state.status, RunStatus::Completed);
    let kept = state.messages.iter().find(|message| !message.media.is_empty()).unwrap();
    assert!(
        matches!(kept.media[0].content, MediaContent::Blob { len: 120_000, text: false, .. }),
        "{:?}",
        kept.media[0]
    );
    let request = world.model.requests.lock().unwrap()[1].clone();
    let given = request.messages.iter().find(|message| !message.media.is_empty()).unwrap();
    assert_eq!(given.media[0].content, MediaContent::Base64("QUJD".repeat(40_000)));
    engine.shutdown().await;
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn arguments_that_do_not_fit_are_told_to_the_model_and_nobody_is_asked() {
    let world = World::new().await;
    let engine = world.engine().await;
    let deep: &'static str =
        Box::leak(format!("{{\"to\":\"x\",\"deep\":{}{}}}", "[".repeat(100), "]".repeat(100)).into_boxed_str());
    let calls: &'static [(&str, &str, &str)] = Box::leak(Box::new([
        ("a", "confirm", "{\"to\":5}"),
        ("b", "approve", "{}"),
        ("c", "confirm", "not json"),
        ("d", "confirm", deep),
        ("e", "confirm", "{\"to\":\"a\\u0000b\"}"),
    ]));
    world.script([Turn::Call(calls), Turn::Say("I see")]);
    let run = run(&engine, start("go", "s")).await;
    let state = ended(&engine, &run).await;
    assert_eq!(state.status, RunStatus::Paused, "one of them fits");
    let asked: Vec<&str> = state.open_requirements().map(|(needed, _)| needed.call_id.as_str()).collect();
    assert_eq!(asked, ["e"]);
    let failed = |tool: &&ToolRecord| matches!(tool.outcome, Some(ToolOutcome::Failed(_)));
    assert_eq!(state.tools.iter().filter(failed).count(), 4);
    assert!(world.calls.lock().unwrap().is_empty());
    engine.shutdown().await;
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn arguments_that_are_too_long_are_told_and_not_carried_along() {
    let world = World::new().await;
    let engine = world.engine().await;
    let long = format!(r#"{{"key":"{}"}}"#, "x".repeat(3 << 20));
    let calls: &[_] = Box::leak(Box::new([("a", "pure", &*long.leak())]));
    world.script([Turn::Call(calls)]);
    let run = run(&engine, start("go", "s")).await;
    let state = ended(&engine, &run).await;
    let outcome = state.tools[0].outcome.clone().unwrap();
    assert!(matches!(&outcome, ToolOutcome::Failed(told) if told.contains("more than 1048576 bytes")), "{outcome:?}");
    let stored: usize =
        world.store.read_raw_after(LOG, 0, 10_000).await.unwrap().iter().map(|raw| raw.payload.len()).sum();
    let sent = serde_json::to_vec(&world.model.requests.lock().unwrap().last().unwrap().messages).unwrap();
    assert!(stored < 200_000 && sent.len() < 50_000, "{stored} bytes are stored and {} sent", sent.len());
    engine.shutdown().await;
    world.close().await;
}
