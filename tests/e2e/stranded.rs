//! A restart with definitions that have lost a tool: what needs it does not hang, but says what is lacking.

use std::path::PathBuf;

use serde_json::{Value, json};

use crate::support::{Api, Script, Server, World, eventually, text};

const LACKING: &str = "the tool \"careful_read_file\"";

/// Definitions of the agent `a`, with or without the tools that its runs began with.
fn write(world: &World, whole: bool) -> PathBuf {
    let (path, root) = (world.dir.path().join("daybook.yaml"), world.dir.path().display());
    let model = format!(
        "models: {{main: {{provider: openai, id: fake-gpt, base_url: \"{}\", retries: 0}}}}\n",
        world.model.url
    );
    let source = |name: &str, rule: &str| {
        let files = format!("files: {{root: {root}}}\n    prefix: {name}_\n    allow: [read_file]");
        format!("  {name}:\n    {files}\n    rules: {{read_file: {{{rule}}}}}\n")
    };
    let careful = source("careful", "confirmation: true");
    let approved = source("approved", "approval: {kind: required}");
    let (sources, tools) = match whole {
        true => (format!("tools:\n{careful}{approved}"), "[careful, approved]"),
        false => (String::new(), "[]"),
    };
    std::fs::write(&path, format!("{model}{sources}agents:\n  - id: a\n    tools: {tools}\n")).unwrap();
    path
}

/// A run that waits for a person about this tool, in the session of the tool's name.
async fn paused(server: &Server, tool: &str) -> Value {
    let call = Script::call(&[(tool, json!({"path": "notes.txt"}))]).then_say(&["Read."]).message();
    let run = server.api.run("a", &[("message", &call), ("session_id", tool)]).await;
    assert_eq!(run["status"], "PAUSED", "{run}");
    run
}

async fn go_on(api: &Api, run: &Value) -> (u16, Value) {
    let mut tools = run["tools"].clone();
    tools[0]["confirmed"] = json!(true);
    let tools = tools.to_string();
    let fields = [("session_id", text(&run["session_id"])), ("stream", "false"), ("tools", tools.as_str())];
    let path = format!("/agents/a/runs/{}/continue", text(&run["run_id"]));
    told(api.post(&path).form(&fields)).await
}

async fn approve(api: &Api, run: &Value) -> (u16, Value) {
    let path = format!("/approvals/{}/resolve", text(&run["tools"][0]["approval_id"]));
    let body = json!({"status": "approved", "resolved_by": "boss"}).to_string();
    told(api.post(&path).header("content-type", "application/json").body(body)).await
}

async fn told(request: reqwest::RequestBuilder) -> (u16, Value) {
    let response = request.send().await.unwrap();
    (response.status().as_u16(), response.json().await.unwrap())
}

#[tokio::test]
async fn answers_wait_for_a_tool_that_was_taken_out_and_are_taken_when_it_is_back() {
    let world = World::new().await;
    std::fs::write(world.dir.path().join("notes.txt"), "buy milk").unwrap();
    let server = world.serve(&write(&world, true)).await;
    let careful = paused(&server, "careful_read_file").await;
    let approved = paused(&server, "approved_read_file").await;
    assert!(server.terminate().await.success());

    let server = world.serve(&write(&world, false)).await;
    for (status, refused) in [go_on(&server.api, &careful).await, approve(&server.api, &approved).await] {
        assert_eq!(status, 503, "{refused}");
        let detail = text(&refused["detail"]);
        assert!(detail.contains(LACKING) && detail.contains("Nothing was recorded"), "{detail}");
    }
    for run in [&careful, &approved] {
        let (run, session) = (text(&run["run_id"]), text(&run["session_id"]));
        assert_eq!(server.api.look("a", run, session).await.unwrap()["status"], "PAUSED");
        let other = server.api.run("a", &[("message", "Hello"), ("session_id", session)]).await;
        assert_eq!(other["status"], "COMPLETED", "the session is free");
    }
    assert_eq!(server.api.ok("/approvals/count").await, json!({"count": 1}));
    assert_eq!(server.api.ok("/health").await["status"], "ok", "nothing is under way");
    assert!(server.terminate().await.success());

    let server = world.serve(&write(&world, true)).await;
    assert_eq!(go_on(&server.api, &careful).await.1["content"], "Read.");
    assert_eq!(approve(&server.api, &approved).await.0, 200);
    let approved = text(&approved["run_id"]);
    server.api.until("a", approved, "approved_read_file", "COMPLETED").await;
    world.database().assert_ended_once(approved).await;
}

#[tokio::test]
async fn runs_under_way_whose_tool_was_taken_out_are_told_of_and_cancelled() {
    let world = World::new().await;
    let server = world.serve(&write(&world, true)).await;
    let held = Script::say(&["half ", "whole"]).hold(1, "never").message();
    let run = server.api.background("a", &[("message", &held), ("session_id", "s")]).await;
    world.model.arrived("never", 1).await;
    server.kill().await;

    let server = world.serve(&write(&world, false)).await;
    let health = eventually("health says so", async || {
        let health = server.api.ok("/health").await;
        (health["status"] == "degraded").then_some(health)
    })
    .await;
    assert_eq!(health["stranded"]["runs"], 1, "{health}");
    assert!(text(&health["stranded"]["lacking"][0]).contains(LACKING), "{health}");
    let log = server.log();
    let line = log.lines().find(|line| line.contains("has all that a run needs")).unwrap_or_default();
    assert!(line.contains(&run) && line.contains("careful_read_file"), "{log}");
    let next = server.api.background("a", &[("message", "Hello"), ("session_id", "s")]).await;
    assert_eq!(server.api.look("a", &next, "s").await.unwrap()["status"], "PENDING");

    assert_eq!(server.api.cancel("a", &run, "s").await, 200);
    server.api.until("a", &run, "s", "CANCELLED").await;
    server.api.until("a", &next, "s", "COMPLETED").await;
    eventually("health is well", async || (server.api.ok("/health").await["status"] == "ok").then_some(())).await;
    world.database().assert_ended_once(&run).await;
    assert_eq!(server.log().matches("has all that a run needs").count(), 1, "{}", server.log());
}
