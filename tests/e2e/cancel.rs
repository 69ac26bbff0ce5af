//! Cancel means stop: no tool starts after the answer, and what was said is kept.

use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::support::{Script, World, said, text};

#[tokio::test]
async fn cancelling_while_text_streams_keeps_the_partial_text() {
    let world = World::new().await;
    let server = world.server().await;
    let script = Script::say(&["half ", "whole"]).hold(1, "never").message();
    let mut watch = server.api.stream("my-agent", &[("message", &script), ("session_id", "s")]).await;
    watch.until_said("half ").await;
    let run = text(&watch.seen[0].data["run_id"]).to_owned();
    assert_eq!(server.api.cancel("my-agent", &run, "s").await, 200);
    let frames = watch.rest().await;
    let names: Vec<&str> = frames.iter().rev().take(2).map(|frame| frame.event.as_str()).collect();
    assert_eq!(names, ["RunCompleted", "RunCancelled"]);
    assert_eq!(said(&frames), "half ");
    let seen = server.api.look("my-agent", &run, "s").await.unwrap();
    assert_eq!((&seen["status"], &seen["content"]), (&json!("CANCELLED"), &json!("half ")));
    assert_eq!(seen["cancellation_stage"], "EXECUTING");
    let events = world.database().assert_ended_once(&run).await;
    assert_eq!(events[events.len() - 2..], ["RunCancelRequested", "RunCancelled"]);
    // The session goes on.
    let next = server.api.run("my-agent", &[("message", "Hello"), ("session_id", "s")]).await;
    assert_eq!(next["status"], "COMPLETED");
}

#[tokio::test]
async fn cancelling_a_plain_run_answers_the_one_who_waits_for_it() {
    let world = World::new().await;
    let server = world.server().await;
    let script = Script::say(&["half ", "whole"]).hold(1, "here").message();
    let fields = [("message", script.as_str()), ("session_id", "s"), ("stream", "false"), ("run_id", "plain-1")];
    let mut asking = JoinSet::new();
    asking.spawn(server.api.request("my-agent", &fields).send());
    world.model.arrived("here", 1).await;
    assert_eq!(server.api.cancel("my-agent", "plain-1", "s").await, 200);
    let answer: Value = asking.join_next().await.unwrap().unwrap().unwrap().json().await.unwrap();
    assert_eq!((&answer["status"], &answer["run_id"]), (&json!("CANCELLED"), &json!("plain-1")));
    world.database().assert_ended_once("plain-1").await;
}

#[tokio::test]
async fn cancelling_in_the_middle_of_a_tool_starts_no_other() {
    let world = World::new().await;
    let server = world.server().await;
    world.hold_tools();
    let script =
        Script::call(&[("count_idempotent", json!({}))]).then(Script::call(&[("count_pure", json!({}))])).message();
    let run = server.api.background("crash-agent", &[("message", &script), ("session_id", "s")]).await;
    world.called(1).await;
    assert_eq!(server.api.cancel("crash-agent", &run, "s").await, 200);
    let calls_at_the_answer = world.calls();
    let requests_at_the_answer = world.model.requests().len();
    world.let_tools_go();
    server.api.until("crash-agent", &run, "s", "CANCELLED").await;
    // A later run has gone through the same engine: what the cancelled one would still have done, it has not done.
    server.api.run("crash-agent", &[("message", "Hello"), ("session_id", "s")]).await;
    assert_eq!(world.calls(), calls_at_the_answer);
    assert_eq!(world.calls().len(), 1);
    assert_eq!(world.model.requests().len(), requests_at_the_answer + 1);
    let events = world.database().assert_ended_once(&run).await;
    let after = events.iter().skip_while(|event| *event != "RunCancelRequested");
    assert!(
        !after.clone().any(|event| event == "RunToolCallRequested" || event == "RunModelCallRequested"),
        "{events:?}"
    );
}

#[tokio::test]
async fn tools_that_the_model_asks_for_while_the_run_is_cancelled_do_not_start() {
    let world = World::new().await;
    let server = world.server().await;
    let calls = [("count_pure", json!({})), ("count_unsafe", json!({}))];
    let script = Script::call(&calls).hold(0, "asks").message();
    let run = server.api.background("crash-agent", &[("message", &script), ("session_id", "s")]).await;
    world.model.arrived("asks", 1).await;
    assert_eq!(server.api.cancel("crash-agent", &run, "s").await, 200);
    world.model.open("asks");
    server.api.until("crash-agent", &run, "s", "CANCELLED").await;
    server.api.run("crash-agent", &[("message", "Hello"), ("session_id", "s")]).await;
    assert_eq!(world.calls(), []);
    world.database().assert_ended_once(&run).await;
}

#[tokio::test]
async fn cancelling_a_queued_run_takes_it_out_of_the_queue() {
    let world = World::new().await;
    let server = world.server().await;
    let held = Script::say(&["first"]).hold(0, "start").message();
    let first = server.api.background("my-agent", &[("message", &held), ("session_id", "s")]).await;
    world.model.arrived("start", 1).await;
    let queued = server.api.background("my-agent", &[("message", "second."), ("session_id", "s")]).await;
    let third = server.api.background("my-agent", &[("message", "third."), ("session_id", "s")]).await;
    assert_eq!(server.api.look("my-agent", &queued, "s").await.unwrap()["status"], "PENDING");
    assert_eq!(server.api.cancel("my-agent", &queued, "s").await, 200);
    server.api.until("my-agent", &queued, "s", "CANCELLED").await;
    assert_eq!(server.api.look("my-agent", &first, "s").await.unwrap()["status"], "RUNNING");
    world.model.open("start");
    server.api.until("my-agent", &first, "s", "COMPLETED").await;
    server.api.until("my-agent", &third, "s", "COMPLETED").await;
    assert_eq!(world.model.requests_with("second.").len(), 0);
    let events = world.database().assert_ended_once(&queued).await;
    assert!(!events.iter().any(|event| event == "RunModelCallRequested"), "{events:?}");
}

#[tokio::test]
async fn cancelling_what_has_ended_or_never_was_changes_nothing() {
    let world = World::new().await;
    let server = world.server().await;
    let run = server.api.run("my-agent", &[("message", "Hello"), ("session_id", "s")]).await;
    let run = text(&run["run_id"]);
    let before = world.database().events_of(run).await;
    for (agent, run, expected) in [("my-agent", run, 200), ("my-agent", "nope", 200), ("zzz", run, 404)] {
        assert_eq!(server.api.cancel(agent, run, "s").await, expected, "{agent} {run}");
    }
    assert_eq!(world.database().events_of(run).await, before);
    assert_eq!(world.database().events_of("nope").await, Vec::<String>::new());
    assert_eq!(server.api.look("my-agent", run, "s").await.unwrap()["status"], "COMPLETED");
}

#[tokio::test]
async fn another_agents_run_is_not_cancelled() {
    let world = World::new().await;
    let server = world.server().await;
    let script = Script::say(&["whole"]).hold(0, "start").message();
    let run = server.api.background("my-agent", &[("message", &script), ("session_id", "s")]).await;
    world.model.arrived("start", 1).await;
    assert_eq!(server.api.cancel("tool-agent", &run, "s").await, 200);
    assert_eq!(server.api.cancel("my-agent", &run, "other").await, 200);
    world.model.open("start");
    server.api.until("my-agent", &run, "s", "COMPLETED").await;
}

#[tokio::test]
async fn a_streams_client_that_leaves_cancels_only_when_it_asked_to() {
    let world = World::new().await;
    let server = world.server().await;
    let script = Script::say(&["half ", "whole"]).hold(1, "gate").message();
    for (run, on_disconnect) in [("stays", "continue"), ("goes", "cancel"), ("unsaid", "")] {
        let fields = [("session_id", run), ("run_id", run), ("message", &script), ("on_disconnect", on_disconnect)];
        let mut watch = server.api.stream("my-agent", &fields).await;
        watch.until_said("half ").await;
    }
    let seen = server.api.until("my-agent", "goes", "goes", "CANCELLED").await;
    assert_eq!(seen["content"], "half ");
    for run in ["stays", "unsaid"] {
        assert_eq!(server.api.look("my-agent", run, run).await.unwrap()["status"], "RUNNING");
    }
    world.model.open("gate");
    for run in ["stays", "unsaid"] {
        assert_eq!(server.api.until("my-agent", run, run, "COMPLETED").await["content"], "half whole");
    }
}

#[tokio::test]
async fn a_plain_runs_client_that_leaves_cancels_only_when_it_asked_to() {
    let world = World::new().await;
    let server = world.server().await;
    let script = Script::say(&["half ", "whole"]).hold(1, "gate").message();
    let mut asking = JoinSet::new();
    for (run, on_disconnect) in [("stays", "continue"), ("goes", "cancel")] {
        let fields = [("session_id", run), ("run_id", run), ("message", &script), ("on_disconnect", on_disconnect)];
        asking.spawn(server.api.request("my-agent", &[&fields[..], &[("stream", "false")]].concat()).send());
    }
    world.model.arrived("gate", 2).await;
    asking.shutdown().await;
    server.api.until("my-agent", "goes", "goes", "CANCELLED").await;
    assert_eq!(server.api.look("my-agent", "stays", "stays").await.unwrap()["status"], "RUNNING");
    world.model.open("gate");
    assert_eq!(server.api.until("my-agent", "stays", "stays", "COMPLETED").await["content"], "half whole");
}
