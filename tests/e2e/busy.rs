//! Many runs at once in one session: queued, parallel, refused, interrupting.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::support::{Script, World, ids_of, said, text};

#[tokio::test]
async fn a_hundred_runs_at_once_in_one_session_all_end_one_after_the_other() {
    let world = World::new().await;
    let server = world.server().await;
    let mut asking = JoinSet::new();
    for n in 0..100 {
        let message = format!("number {n}.");
        let fields = [("message", message.as_str()), ("session_id", "s"), ("stream", "false")];
        let request = server.api.request("my-agent", &fields);
        asking.spawn(async move {
            let answer = request.send().await.unwrap();
            assert_eq!(answer.status(), 200);
            let run: Value = answer.json().await.unwrap();
            assert_eq!((&run["status"], &run["content"]), (&json!("COMPLETED"), &json!("Hi Alice!")));
            text(&run["run_id"]).to_owned()
        });
    }
    let ended: BTreeSet<String> = asking.join_all().await.into_iter().collect();
    assert_eq!(ended.len(), 100);
    let listed = ids_of(&server.api.runs("my-agent", "s").await);
    assert_eq!(listed.len(), 100);
    assert_eq!(listed.iter().cloned().collect::<BTreeSet<_>>(), ended);
    // They ran in the order in which they were accepted, never two at a time: each began after the one before ended.
    let order: Vec<String> = sqlx::query_scalar(
        "SELECT substr(stream_id, 5) || ' ' || type FROM events \
         WHERE type IN ('RunModelCallRequested', 'RunSucceeded') ORDER BY position",
    )
    .fetch_all(&world.database().sql)
    .await
    .unwrap();
    let expected: Vec<String> =
        listed.iter().flat_map(|run| [format!("{run} RunModelCallRequested"), format!("{run} RunSucceeded")]).collect();
    assert_eq!(order, expected);
}

#[tokio::test]
async fn twenty_parallel_runs_that_overlap_in_the_model_lose_no_state() {
    let world = World::new().await;
    let server = world.server().await;
    let mut asking = JoinSet::new();
    for n in 0..20 {
        let args = json!({"key": format!("key{n}"), "value": format!("value{n}")});
        let script = Script::call(&[("set_key", args)]).hold(0, "all").then_say(&["set"]).message();
        let fields = [("message", script.as_str()), ("session_id", "s"), ("stream", "false"), ("on_busy", "parallel")];
        let request = server.api.request("crash-agent", &fields);
        asking.spawn(async move {
            let run: Value = request.send().await.unwrap().json().await.unwrap();
            assert_eq!((&run["status"], &run["content"]), (&json!("COMPLETED"), &json!("set")), "{run}");
        });
    }
    world.model.arrived("all", 20).await;
    world.model.open("all");
    asking.join_all().await;
    let state = server.api.session_state("s").await;
    let expected: serde_json::Map<_, _> = (0..20).map(|n| (format!("key{n}"), json!(format!("value{n}")))).collect();
    assert_eq!(state.as_object().unwrap().len(), 20, "{state}");
    assert!(expected.iter().all(|(key, value)| state[key] == *value), "{state}");
    assert_eq!(ids_of(&server.api.runs("crash-agent", "s").await).len(), 20);
}

#[tokio::test]
async fn a_run_may_be_refused_while_its_session_is_busy() {
    let world = World::new().await;
    let server = world.server().await;
    let held = Script::say(&["done"]).hold(0, "start").message();
    let run = server.api.background("my-agent", &[("message", &held), ("session_id", "s")]).await;
    world.model.arrived("start", 1).await;
    let ask = async |session: &str| {
        let fields = [("message", "Hello"), ("session_id", session), ("stream", "false"), ("on_busy", "reject")];
        server.api.request("my-agent", &fields).send().await.unwrap()
    };
    let refused = ask("s").await;
    assert_eq!(refused.status(), 409);
    assert!(text(&refused.json::<Value>().await.unwrap()["detail"]).contains("busy"));
    assert_eq!(ask("other").await.status(), 200);
    world.model.open("start");
    server.api.until("my-agent", &run, "s", "COMPLETED").await;
    assert_eq!(ask("s").await.status(), 200);
    assert_eq!(ids_of(&server.api.runs("my-agent", "s").await).len(), 2);
}

#[tokio::test]
async fn a_run_may_interrupt_the_one_that_holds_its_session() {
    let world = World::new().await;
    let server = world.server().await;
    let held = Script::say(&["half ", "whole"]).hold(1, "never").message();
    let mut watch = server.api.stream("my-agent", &[("message", &held), ("session_id", "s")]).await;
    watch.until_said("half ").await;
    let next = [("message", "Hello"), ("session_id", "s"), ("on_busy", "interrupt")];
    let run = server.api.run("my-agent", &next).await;
    assert_eq!((&run["status"], &run["content"]), (&json!("COMPLETED"), &json!("Hi Alice!")));
    let frames = watch.rest().await;
    assert_eq!(said(&frames), "half ");
    let names: Vec<&str> = frames.iter().rev().take(2).map(|frame| frame.event.as_str()).collect();
    assert_eq!(names, ["RunCompleted", "RunCancelled"]);
    let interrupted = text(&frames[0].data["run_id"]);
    let seen = server.api.look("my-agent", interrupted, "s").await.unwrap();
    assert_eq!((&seen["status"], &seen["content"]), (&json!("CANCELLED"), &json!("half ")));
    world.database().assert_ended_once(interrupted).await;
}

#[tokio::test]
async fn a_queued_stream_is_open_at_once_and_runs_when_its_turn_comes() {
    let world = World::new().await;
    let server = world.server().await;
    let held = Script::say(&["first"]).hold(0, "start").message();
    let first = server.api.background("my-agent", &[("message", &held), ("session_id", "s")]).await;
    world.model.arrived("start", 1).await;
    // Returns with the headers, although the run waits.
    let watch = server.api.stream("my-agent", &[("message", "Hello"), ("session_id", "s")]).await;
    assert_eq!(world.model.requests().len(), 1);
    let runs = server.api.runs("my-agent", "s").await;
    assert_eq!((&runs[0]["status"], &runs[1]["status"]), (&json!("RUNNING"), &json!("PENDING")));
    world.model.open("start");
    assert_eq!(said(&watch.rest().await), "Hi Alice!");
    server.api.until("my-agent", &first, "s", "COMPLETED").await;
}
