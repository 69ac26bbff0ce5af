//! Runs whose node dies, stands still or stops, and who watches them.

use daybook_domain::command::CancelRun;
use daybook_domain::ids::RunId;
use daybook_domain::run::{RunMode, RunStatus};
use daybook_engine::{Engine, ExecuteError, FrameBody, Watch, WatchItem};

use crate::world::*;

/// Kills the node while the first tool call of `tool` runs, and starts another.
async fn killed_in_tool(tool: &'static str) -> (World, Engine, RunId, Vec<String>) {
    let world = World::new().await;
    let engine = world.engine().await;
    let calls: &'static [(&str, &str, &str)] = match tool {
        "pure" => &[("a", "pure", r#"{"hold":1}"#)],
        "idem" => &[("a", "idem", r#"{"hold":1}"#)],
        _ => &[("a", "harm", r#"{"hold":1}"#)],
    };
    world.script([Turn::Call(calls)]);
    let run = run(&engine, start("go", "s")).await;
    until("the tool's start", async || world.calls.lock().unwrap().len() == 1).await;
    world.kill(engine).await;
    world.tool_go_on.add_permits(10);
    let next = world.engine().await;
    ended(&next, &run).await;
    let keys = world.calls.lock().unwrap().clone();
    (world, next, run, keys)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_pure_or_idempotent_call_is_made_again_with_its_key() {
    for tool in ["pure", "idem"] {
        let (world, engine, run, keys) = killed_in_tool(tool).await;
        assert_eq!((keys.len(), &keys[0]), (2, &keys[1]), "called again, with the same key");
        let kinds = world.kinds(&run).await;
        assert_eq!(kinds.last().map(String::as_str), Some("RunSucceeded"));
        assert_eq!(kinds.iter().filter(|kind| *kind == "RunToolCallCompleted").count(), 1);
        engine.shutdown().await;
        world.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_unsafe_call_is_not_made_again_and_a_person_is_asked() {
    let (world, engine, run, keys) = killed_in_tool("harm").await;
    assert_eq!(keys.len(), 1);
    let state = engine.run(LOG, &run).await.unwrap().unwrap();
    assert_eq!((state.status, state.requirements.len()), (RunStatus::Paused, 1));
    // Paused, it holds nothing up, and can still be cancelled.
    let other = self::run(&engine, start("next", "s")).await;
    assert_eq!(ended(&engine, &other).await.status, RunStatus::Completed);
    let cancel = CancelRun { component: None, run_id: run.clone(), session_id: None, reason: None };
    engine.execute(envelope(cancel)).await.unwrap();
    assert_eq!(engine.run(LOG, &run).await.unwrap().unwrap().status, RunStatus::Cancelled);
    engine.shutdown().await;
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recorded_outcome_is_never_repeated_and_watchers_see_a_restart() {
    let world = World::new().await;
    let engine = world.engine().await;
    world.script([Turn::Call(&[("a", "harm", "{}")]), Turn::Hold("one two three")]);
    let mut command = start("go", "s");
    command.mode = RunMode::Streaming;
    let run = run(&engine, command).await;
    let mut watch = engine.watch(LOG, &run, None).await.unwrap().unwrap();
    let mut seen = Vec::new();
    while seen.last() != Some(&"three".to_owned()) {
        if let Some(WatchItem::Frame(frame)) = watch.next().await.unwrap()
            && let FrameBody::Content { text: Some(text), .. } = &frame.body
        {
            seen.push(text.clone());
        }
    }
    drop(watch);
    world.kill(engine).await;
    let next = world.engine().await;
    let state = ended(&next, &run).await;
    assert_eq!((world.calls.lock().unwrap().len(), state.content().as_str()), (1, "Hi Alice!"));

    let mut watch = next.watch(LOG, &run, None).await.unwrap().unwrap();
    let (mut indexes, mut text, mut restarts) = (Vec::new(), String::new(), 0);
    while let Some(item) = watch.next().await.unwrap() {
        let WatchItem::Frame(frame) = item else { continue };
        indexes.push(frame.index);
        match &frame.body {
            FrameBody::Content { text: Some(piece), .. } => text.push_str(piece),
            FrameBody::Restarted { .. } => {
                restarts += 1;
                text.clear();
            }
            _ => {}
        }
    }
    assert!(indexes.windows(2).all(|pair| pair[0] < pair[1]), "{indexes:?}");
    assert_eq!((restarts, text.as_str()), (1, "Hi Alice!"));
    let kinds = world.kinds(&run).await;
    assert_eq!(
        kinds.iter().filter(|kind| ["RunSucceeded", "RunFailed", "RunCancelled"].contains(&kind.as_str())).count(),
        1
    );
    next.shutdown().await;
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_waits_is_let_go_when_another_node_has_taken_it_over() {
    let world = World::new().await;
    let still = world.engine().await;
    world.script([Turn::Hold("first"), Turn::Say("over there")]);
    let run = run(&still, start("go", "s")).await;
    until("the model is called", async || world.model.requests.lock().unwrap().len() == 1).await;
    // To the others it seemed dead: it stood still, and notices nothing when it goes on, for it appends nothing.
    world.store.declare_dead(still.node_id()).await.unwrap();
    let next = world.engine().await;
    assert_eq!(ended(&next, &run).await.content(), "over there");
    // Nobody watched the run. What the node that lost it still has would look like all there is.
    let watch = still.watch(LOG, &run, None).await.unwrap().unwrap();
    assert_eq!(watch.counts().await.unwrap(), (0, 0));
    assert!(world.store.frames().read(LOG, &run, None, 1).await.unwrap().is_empty());
    drop(watch);
    until("the run is let go", async || still.run_count() == 0).await;
    assert_eq!(ended(&still, &run).await.content(), "over there");
    still.shutdown().await;
    next.shutdown().await;
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_after_a_watch_began_does_not_count_as_missed() {
    let world = World::new().await;
    let engine = world.engine().await;
    world.script([Turn::Hold("one two three")]);
    let mut command = start("go", "s");
    command.mode = RunMode::Streaming;
    let run = run(&engine, command).await;
    let mut first = engine.watch(LOG, &run, None).await.unwrap().unwrap();
    let said = async |watch: &mut Watch, wanted: &str| loop {
        if let Some(WatchItem::Frame(frame)) = watch.next().await.unwrap()
            && matches!(&frame.body, FrameBody::Content { text: Some(text), .. } if text == wanted)
        {
            break frame.index;
        }
    };
    let last = said(&mut first, "three").await;
    let second = engine.watch(LOG, &run, Some(1)).await.unwrap().unwrap();
    world.model.go_on.add_permits(1);
    ended(&engine, &run).await;
    assert_eq!(second.counts().await.unwrap(), (last - 1, last + 1));
    let late = engine.watch(LOG, &run, Some(1)).await.unwrap().unwrap();
    let (missed, total) = late.counts().await.unwrap();
    assert!(total > last + 1 && missed == total - 2, "{missed} {total}");
    engine.shutdown().await;
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_node_hands_its_runs_over() {
    let world = World::new().await;
    let engine = world.engine().await;
    world.script([Turn::Hold("half ")]);
    let run = run(&engine, start("go", "s")).await;
    until("the model call", async || world.model.requests.lock().unwrap().len() == 1).await;
    engine.shutdown().await;
    let refused = engine.execute(envelope(start("late", "t"))).await;
    assert!(matches!(refused, Err(ExecuteError::Stopping)));
    let next = world.engine().await;
    assert_eq!(ended(&next, &run).await.status, RunStatus::Completed);
    let kinds = world.kinds(&run).await;
    assert_eq!(kinds.iter().filter(|kind| *kind == "RunTakenOver").count(), 1);
    next.shutdown().await;
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_whose_driver_panics_is_taken_up_anew() {
    let world = World::new().await;
    let engine = world.engine().await;
    world.script([Turn::Panic, Turn::Say("after all")]);
    let ends = async |command, status| {
        let run = run(&engine, command).await;
        until("the run has ended", async || {
            engine.run(LOG, &run).await.unwrap().is_some_and(|state| state.status == status)
        })
        .await;
        engine.run(LOG, &run).await.unwrap().unwrap()
    };
    let state = ends(start("go", "s"), RunStatus::Completed).await;
    assert_eq!(state.content(), "after all");
    assert_eq!(world.model.requests.lock().unwrap().len(), 2);

    // Not for ever: each time it may cost a model call.
    world.script([Turn::Panic, Turn::Panic, Turn::Panic, Turn::Panic]);
    let state = ends(start("go", "t"), RunStatus::Error).await;
    assert!(state.error.unwrap().1.contains("again and again"));
    assert_eq!(world.model.requests.lock().unwrap().len(), 5);
    engine.shutdown().await;
    world.close().await;
}
