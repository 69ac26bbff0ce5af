//! What an operator sees: whether a node is ready, and what happens while the database is away.

use std::path::{Path, PathBuf};

use reqwest::header::RETRY_AFTER;
use serde_json::{Value, json};

use crate::support::{Script, Server, World, answer, eventually, said, text};

#[tokio::test]
async fn a_node_without_its_database_says_so_and_recovers_by_itself() {
    let world = World::new().await;
    let server = world.server().await;
    assert_eq!(server.api.ok("/ready").await, json!({"ready": true, "reasons": []}));
    let script = Script::say(&["a ", "b"]).hold(1, "in the middle").message();
    let fields = [("message", script.as_str()), ("session_id", "s"), ("run_id", "r"), ("background", "true")];
    server.api.background("my-agent", &fields).await;
    world.model.arrived("in the middle", 1).await;

    world.database().go_away().await;
    let reasons = eventually("the node is not ready", async || {
        let answer = server.api.get("/ready").send().await.unwrap();
        let away = answer.status() == 503 && answer.headers().contains_key(RETRY_AFTER);
        Some(answer.json::<Value>().await.unwrap()["reasons"].clone()).filter(|_| away)
    })
    .await;
    assert!(text(&reasons[0]).contains("database"), "{reasons}");
    // It lives nevertheless.
    let health = server.api.ok("/health").await;
    assert_eq!((text(&health["status"]), health["database"].is_string()), ("degraded", true), "{health}");
    let refused = server.api.request("my-agent", &[("message", "Hello"), ("stream", "false")]).send().await.unwrap();
    assert_eq!(refused.status(), 503);
    assert!(refused.headers().contains_key(RETRY_AFTER));
    let refused: Value = refused.json().await.unwrap();
    assert!(text(&refused["detail"]).contains("database"), "{refused}");
    // The model's answer ends meanwhile, and is kept until it can be recorded.
    world.model.open("in the middle");

    world.database().come_back().await;
    server.api.ok("/ready").await;
    let run = server.api.until("my-agent", "r", "s", "COMPLETED").await;
    assert_eq!(run["content"], "a b");
    world.database().assert_ended_once("r").await;
    // Some of its connections may still be those that were cut.
    let next = server.api.request("my-agent", &[("message", "Hello"), ("session_id", "s"), ("stream", "false")]);
    answer(server.api.persist(next.header("Idempotency-Key", "next")).await, 200).await;
}

#[tokio::test]
async fn what_is_said_while_the_database_is_away_is_there_to_resume() {
    let world = World::new().await;
    let server = world.server().await;
    let mut watching = Vec::new();
    for n in 0..4 {
        let script = Script::say(&["one ", "two ", "three"]).hold(2, &format!("gate {n}")).message();
        let (session, run) = (format!("s{n}"), format!("r{n}"));
        let fields = [("message", script.as_str()), ("session_id", &session), ("run_id", &run)];
        let mut watch = server.api.stream("my-agent", &fields).await;
        watch.until_said("one two ").await;
        watching.push((session, run, watch));
    }
    world.database().go_away().await;
    for (n, (_, _, watch)) in watching.iter_mut().enumerate() {
        world.model.open(&format!("gate {n}"));
        watch.until_said("three").await;
    }
    world.database().come_back().await;
    for (session, run, watch) in watching {
        let frames = watch.rest().await;
        assert_eq!(said(&frames), "one two three");
        let again = server.api.resume("my-agent", &run, &session, None).await.rest().await;
        assert_eq!(again[1..], frames[..], "what {run}'s watcher saw");
    }
}

/// Definitions of one agent, with a limit.
fn define(world: &World, limit: &str) -> PathBuf {
    let path = world.dir.path().join("daybook.yaml");
    let model = format!("provider: openai\n    id: m\n    base_url: {}\n    retries: 0", world.model.url);
    let definitions = format!(
        "server:\n  limits:\n    {limit}\nmodels:\n  main:\n    {model}\nagents:\n  - id: my-agent\n    model: main\n"
    );
    std::fs::write(&path, definitions).unwrap();
    path
}

#[tokio::test]
async fn a_node_that_is_full_says_so_and_refuses_more() {
    let world = World::new().await;
    let server = world.serve(&define(&world, "max_runs: 2")).await;
    let script = Script::say(&["a ", "b"]).hold(1, "gate").message();
    for n in 0..2 {
        let (session, run) = (format!("s{n}"), format!("r{n}"));
        let fields = [("message", script.as_str()), ("session_id", &session), ("run_id", &run)];
        server.api.background("my-agent", &fields).await;
    }
    world.model.arrived("gate", 2).await;
    let answer = server.api.get("/ready").send().await.unwrap();
    assert_eq!((answer.status().as_u16(), answer.headers().contains_key(RETRY_AFTER)), (503, true));
    let full: Value = answer.json().await.unwrap();
    assert!(text(&full["reasons"][0]).contains("holds 2 runs"), "{full}");
    let refused = server.api.request("my-agent", &[("message", "Hello"), ("stream", "false")]).send().await.unwrap();
    assert_eq!((refused.status().as_u16(), refused.headers().contains_key(RETRY_AFTER)), (429, true));
    world.model.open("gate");
    for n in 0..2 {
        server.api.until("my-agent", &format!("r{n}"), &format!("s{n}"), "COMPLETED").await;
    }
    let ready = async || (server.api.get("/ready").send().await.unwrap().status() == 200).then_some(());
    eventually("there is room again", ready).await;
    assert!(server.terminate().await.success());
}

#[tokio::test]
async fn a_log_that_cannot_be_written_stops_nothing() {
    let world = World::new().await;
    let definitions = define(&world, "max_runs: 100");
    let server = Server::start(world.serving(&definitions), Path::new("/dev/full")).await;
    let run = server.api.run("my-agent", &[("message", "Hello"), ("session_id", "s")]).await;
    assert_eq!(run["status"], "COMPLETED");
    assert!(server.terminate().await.success());
}
