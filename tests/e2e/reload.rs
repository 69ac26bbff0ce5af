//! SIGHUP under load: new runs get what the file says now, all others end with what they were accepted with.

use std::path::{Path, PathBuf};

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::support::{Script, Server, World, eventually, text};

const RUNS: usize = 40;
const QUEUED: usize = 10;

/// Definitions with these agents, whose instruction and model tell which ones they are.
fn write(path: &Path, world: &World, version: &str, agents: &[&str], tools: &str) {
    let model = format!(
        "models:\n  main:\n    provider: openai\n    id: {version}-model\n    base_url: {}\n    retries: 0\n",
        world.model.url
    );
    let agent = |id: &&str| format!("  - id: {id}\n    instructions: The {version} one.\n    tools: {tools}\n");
    let agents: String = agents.iter().map(agent).collect();
    let server = format!("server:\n  name: {version}\n");
    std::fs::write(path, format!("{server}{model}agents:\n{agents}")).unwrap();
}

/// Calls a tool once the gate is open, then says how it was.
fn script(words: &str) -> String {
    let call = Script::call(&[("calculator", json!({"expression": "1+1"}))]).hold(0, "gate");
    call.then_say(&["done"]).message_after(words)
}

async fn agents(server: &Server) -> Vec<String> {
    let agents = server.api.ok("/agents").await;
    agents.as_array().unwrap().iter().map(|agent| text(&agent["id"]).to_owned()).collect()
}

/// What all requests for `words` were made with.
fn made_with(world: &World, words: &str, version: &str, tools: bool) -> usize {
    let requests = world.model.requests_with(words);
    for request in &requests {
        let system = request["messages"][0]["content"].to_string();
        assert_eq!(request["model"], format!("{version}-model"), "{words}");
        assert!(system.contains(&format!("The {version} one.")), "{words}: {system}");
        assert_eq!(request["tools"].as_array().is_some_and(|tools| !tools.is_empty()), tools, "{words}");
    }
    requests.len()
}

fn config(world: &World) -> PathBuf {
    world.dir.path().join("daybook.yaml")
}

#[tokio::test]
async fn new_runs_get_the_new_definitions_and_all_others_end_with_theirs() {
    let world = World::new().await;
    let path = config(&world);
    write(&path, &world, "old", &["changing", "leaving"], "[calculator]");
    let server = world.serve(&path).await;

    let mut runs = Vec::new();
    for n in 0..RUNS {
        let agent = ["changing", "leaving"][n % 2];
        let (session, words) = (format!("s{n}"), format!("old {n} "));
        let fields = [("message", script(&words)), ("session_id", session.clone())];
        let fields: Vec<(&str, &str)> = fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
        runs.push((agent, session, server.api.background(agent, &fields).await, words));
    }
    world.model.arrived("gate", RUNS).await;
    for n in 0..QUEUED {
        let (agent, session, words) = (["changing", "leaving"][n % 2], format!("s{n}"), format!("waiting {n} "));
        let message = script(&words);
        let fields = [("message", message.as_str()), ("session_id", session.as_str())];
        runs.push((agent, session.clone(), server.api.background(agent, &fields).await, words));
    }

    // A wrong file changes nothing, and all of it is told.
    let broken = "agents:\n  - id: changing\n    modle: x\n  - id: other\n    history_runs: many\n";
    std::fs::write(&path, broken).unwrap();
    server.signal(Signal::SIGHUP);
    server.logged("everything stays as it was").await;
    for place in ["daybook.yaml:3:5: unknown field `modle`", "daybook.yaml:5:19: history_runs: "] {
        assert!(server.log().contains(place), "{}", server.log());
    }
    assert_eq!(agents(&server).await, ["changing", "leaving"]);

    write(&path, &world, "new", &["changing", "coming"], "[]");
    server.signal(Signal::SIGHUP);
    let now = async || (agents(&server).await == ["changing", "coming"]).then_some(());
    eventually("the new agents are there", now).await;
    server.logged("they need a restart").await;
    assert!(server.log().contains("settings=\"name\""), "{}", server.log());
    assert_eq!(server.api.ok("/config").await["name"], "old");
    for agent in ["changing", "coming"] {
        let run = server.api.run(agent, &[("message", &format!("new {agent} "))]).await;
        assert_eq!(run["status"], "COMPLETED");
        assert_eq!(made_with(&world, &format!("new {agent} "), "new", false), 1);
    }
    let gone = server.api.request("leaving", &[("message", "new"), ("stream", "false")]).send().await.unwrap();
    assert_eq!(gone.status(), 404);

    world.model.open("gate");
    for (agent, session, run, words) in &runs {
        let ended: Value = server.api.until(agent, run, session, "COMPLETED").await;
        assert_eq!(ended["content"], "done", "{words}");
        assert!(ended["tools"][0]["result"].is_string(), "{words}: {ended}");
        assert_eq!(made_with(&world, words, "old", true), 2, "{words}");
    }
    assert!(server.terminate().await.success());
}
