//! The three ways to run an agent, as the README shows them.

use std::path::Path;

use serde_json::{Value, json};

use crate::support::{Script, Server, Stream, World, check_order, daybook, ids_of, open_dir, said, text};

async fn demo(dir: &Path) -> Server {
    let mut command = daybook();
    command.args(["demo", "--port", "0", "--data-dir"]).arg(dir.join("data"));
    Server::start(command, &dir.join("log")).await
}

#[tokio::test]
async fn the_demo_answers_plain_streamed_and_in_the_background_as_the_readme_says() {
    let dir = open_dir();
    let server = demo(dir.path()).await;
    let api = &server.api;
    let form = |stream: &'static str| {
        let form = reqwest::multipart::Form::new().text("message", "Hello").text("user_id", "alice");
        form.text("session_id", "thread-42").text("stream", stream)
    };
    let runs = "/agents/my-agent/runs";

    let plain = api.post(runs).multipart(form("false")).send().await.unwrap();
    assert_eq!(plain.status(), 200);
    let plain: Value = plain.json().await.unwrap();
    assert_eq!(
        [&plain["session_id"], &plain["user_id"], &plain["agent_id"], &plain["status"]],
        ["thread-42", "alice", "my-agent", "COMPLETED"]
    );
    let content = text(&plain["content"]);
    assert!(!content.is_empty());

    let frames = Stream::new(api.post(runs).multipart(form("true")).send().await.unwrap()).rest().await;
    check_order(&frames);
    assert_eq!(frames.first().unwrap().event, "RunStarted");
    assert_eq!(frames.last().unwrap().event, "RunCompleted");
    assert_eq!(said(&frames), text(&frames.last().unwrap().data["content"]));

    let accepted = api.post(runs).multipart(form("false").text("background", "true")).send().await.unwrap();
    assert_eq!(accepted.status(), 202);
    let accepted: Value = accepted.json().await.unwrap();
    assert_eq!((&accepted["status"], &accepted["session_id"]), (&json!("PENDING"), &json!("thread-42")));
    let done = api.until("my-agent", text(&accepted["run_id"]), "thread-42", "COMPLETED").await;
    assert!(!text(&done["content"]).is_empty());

    let listed = ids_of(&api.runs("my-agent", "thread-42").await);
    let streamed = text(&frames[0].data["run_id"]);
    assert_eq!(listed, [text(&plain["run_id"]), streamed, text(&accepted["run_id"])]);
    assert!(server.terminate().await.success());
}

#[tokio::test]
async fn a_streamed_run_shows_each_piece_as_the_model_says_it() {
    let world = World::new().await;
    let server = world.server().await;
    let script = Script::say(&["one ", "two ", "three"]).hold(2, "third").message();
    let mut watch = server.api.stream("my-agent", &[("message", &script), ("session_id", "s")]).await;
    // The model is held: what is read here was shown before the answer was complete.
    watch.until_said("one two ").await;
    world.model.open("third");
    let frames = watch.rest().await;
    check_order(&frames);
    assert_eq!(said(&frames), "one two three");
    let names: Vec<&str> =
        frames.iter().map(|frame| frame.event.as_str()).filter(|name| *name != "RunContent").collect();
    let expected =
        ["RunStarted", "ModelRequestStarted", "ModelRequestCompleted", "RunContentCompleted", "RunCompleted"];
    assert_eq!(names, expected);
    let run = text(&frames[0].data["run_id"]);
    assert_eq!(world.database().assert_ended_once(run).await.first().unwrap(), "RunAccepted");
}

#[tokio::test]
async fn a_run_in_the_background_is_visible_while_it_runs() {
    let world = World::new().await;
    let server = world.server().await;
    let script = Script::say(&["done"]).hold(0, "start").message();
    let run = server.api.background("my-agent", &[("message", &script), ("session_id", "s")]).await;
    world.model.arrived("start", 1).await;
    let seen = server.api.look("my-agent", &run, "s").await.unwrap();
    assert_eq!((&seen["status"], &seen["run_id"]), (&json!("RUNNING"), &json!(run)));
    world.model.open("start");
    let done = server.api.until("my-agent", &run, "s", "COMPLETED").await;
    assert_eq!(done["content"], "done");
}

#[tokio::test]
async fn tools_run_with_their_arguments_and_the_model_gets_their_results() {
    let world = World::new().await;
    let server = world.server().await;
    let calls = [("get_weather", json!({"city": "Paris"})), ("broken_tool", json!({"why": "rust"}))];
    let script = Script::call(&calls).then_say(&["Both told."]).message();
    let run = server.api.run("tool-agent", &[("message", &script), ("session_id", "s")]).await;
    assert_eq!((&run["status"], &run["content"]), (&json!("COMPLETED"), &json!("Both told.")));
    assert_eq!(run["tools"][0]["result"], "Sunny in Paris, 21C");
    assert_eq!(run["tools"][1]["tool_call_error"], true);
    let request = world.model.requests().pop().unwrap();
    let results: Vec<String> =
        request["messages"].as_array().unwrap().iter().rev().take(2).map(Value::to_string).collect();
    assert!(results[1].contains("Sunny in Paris, 21C") && results[0].contains("broken: rust"), "{results:?}");
}

#[tokio::test]
async fn a_run_sees_the_last_runs_of_its_session_and_no_more() {
    let world = World::new().await;
    let server = world.server().await;
    for n in 0..6 {
        let said = format!("question {n}.");
        server.api.run("my-agent", &[("message", &said), ("session_id", "s")]).await;
    }
    server.api.run("my-agent", &[("message", "question 9."), ("session_id", "other")]).await;
    let last = world.model.requests_with("question 5.").pop().unwrap().to_string();
    for (n, seen) in [(0, false), (1, false), (2, true), (3, true), (4, true), (5, true)] {
        assert_eq!(last.contains(&format!("question {n}.")), seen, "{n}: {last}");
    }
    let other = world.model.requests_with("question 9.").pop().unwrap();
    assert_eq!(other["messages"].as_array().unwrap().len(), 2, "{other}");
}
