//! The same command twice is one run.

use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::support::{Script, World, ids_of, text};

#[tokio::test]
async fn the_same_key_fifty_times_at_once_is_one_run_and_fifty_equal_answers() {
    let world = World::new().await;
    let server = world.server().await;
    let mut asking = JoinSet::new();
    for _ in 0..50 {
        let fields = [("message", "Hello"), ("session_id", "s"), ("stream", "false")];
        let request = server.api.request("my-agent", &fields).header("Idempotency-Key", "order-7");
        asking.spawn(async move {
            let answer = request.send().await.unwrap();
            assert_eq!(answer.status(), 200);
            answer.json::<Value>().await.unwrap()
        });
    }
    let answers = asking.join_all().await;
    assert_eq!(answers.len(), 50);
    assert_eq!(answers[0]["content"], "Hi Alice!");
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:#?}");
    assert_eq!(ids_of(&server.api.runs("my-agent", "s").await), [text(&answers[0]["run_id"])]);
    assert_eq!(world.model.requests().len(), 1);
    world.database().assert_ended_once(text(&answers[0]["run_id"])).await;
}

#[tokio::test]
async fn the_same_key_with_another_body_is_refused_and_nothing_runs() {
    let world = World::new().await;
    let server = world.server().await;
    let ask = async |message: &str, key: &str, agent: &str| {
        let fields = [("message", message), ("session_id", "s"), ("stream", "false")];
        server.api.request(agent, &fields).header("Idempotency-Key", key).send().await.unwrap()
    };
    let first: Value = ask("Hello", "k", "my-agent").await.json().await.unwrap();
    let other = ask("Goodbye", "k", "my-agent").await;
    assert_eq!(other.status(), 409);
    let told: Value = other.json().await.unwrap();
    assert!(text(&told["detail"]).contains("Idempotency-Key"), "{told}");
    // Another key, and the same key for another agent, are other commands.
    assert_ne!(ask("Hello", "k2", "my-agent").await.json::<Value>().await.unwrap()["run_id"], first["run_id"]);
    assert_ne!(ask("Hello", "k", "nohist-agent").await.json::<Value>().await.unwrap()["run_id"], first["run_id"]);
    assert_eq!(world.model.requests().len(), 3);
}

#[tokio::test]
async fn a_key_is_still_known_after_a_restart_and_in_the_background() {
    let world = World::new().await;
    let server = world.server().await;
    let fields = [("message", "Hello"), ("session_id", "s"), ("stream", "false"), ("background", "true")];
    let first = server.api.request("my-agent", &fields).header("Idempotency-Key", "k").send().await.unwrap();
    assert_eq!(first.status(), 202);
    let first: Value = first.json().await.unwrap();
    server.api.until("my-agent", text(&first["run_id"]), "s", "COMPLETED").await;
    server.kill().await;

    let server = world.server().await;
    let again = server.api.request("my-agent", &fields).header("Idempotency-Key", "k").send().await.unwrap();
    assert_eq!(again.status(), 202);
    let again: Value = again.json().await.unwrap();
    assert_eq!((&again["run_id"], &again["session_id"]), (&first["run_id"], &json!("s")));
    assert_eq!(world.model.requests().len(), 1);
}

#[tokio::test]
async fn a_key_sent_again_is_not_refused_because_of_its_own_run() {
    let world = World::new().await;
    let server = world.server().await;
    let script = Script::say(&["a ", "b"]).hold(1, "gate").message();
    let ask = async |key: &str| {
        let fields = [("message", script.as_str()), ("session_id", "s"), ("stream", "false"), ("background", "true")];
        let request = server.api.request("my-agent", &[&fields[..], &[("on_busy", "reject")]].concat());
        request.header("Idempotency-Key", key).send().await.unwrap()
    };
    let first = ask("k").await;
    assert_eq!(first.status(), 202);
    let first: Value = first.json().await.unwrap();
    // The session is busy with that very run.
    let again = ask("k").await;
    assert_eq!(again.status(), 202);
    assert_eq!(again.json::<Value>().await.unwrap()["run_id"], first["run_id"]);
    assert_eq!(ask("other").await.status(), 409);
    world.model.open("gate");
    let run = text(&first["run_id"]);
    server.api.until("my-agent", run, "s", "COMPLETED").await;
    assert_eq!(ids_of(&server.api.runs("my-agent", "s").await), [run]);
}
