//! What the model does wrong ends the run with an error that tells what happened.

use serde_json::json;

use crate::support::{Fault, Script, World, said, text};

#[tokio::test]
async fn a_model_that_fails_ends_the_run_with_an_error_that_tells() {
    let world = World::new().await;
    let server = world.server().await;
    let faults: [(Fault, &[&str]); 6] = [
        (Fault::Status(429), &["scripted failure"]),
        (Fault::Status(500), &["scripted failure"]),
        (Fault::Garbage, &[]),
        (Fault::Nothing, &["answer"]),
        (Fault::Half, &["answer"]),
        (Fault::Cut, &["answer"]),
    ];
    for (fault, words) in faults {
        let message = Script::fail(fault).message();
        let run = server.api.run("my-agent", &[("message", &message)]).await;
        assert_eq!(run["status"], "ERROR", "{fault:?}: {run}");
        let told = text(&run["content"]);
        assert!(told.len() > 10 && words.iter().all(|word| told.contains(word)), "{fault:?}: {told}");
        world.database().assert_ended_once(text(&run["run_id"])).await;

        let session = format!("{fault:?}");
        let fields = [("message", message.as_str()), ("session_id", &session)];
        let frames = server.api.stream("my-agent", &fields).await.rest().await;
        let last = frames.last().unwrap();
        assert_eq!((last.event.as_str(), &last.data["content"]), ("RunError", &json!(told)), "{fault:?}");
        assert!(!frames.iter().any(|frame| frame.event == "RunCompleted"), "{fault:?}");
        if matches!(fault, Fault::Half | Fault::Cut) {
            assert_eq!(said(&frames), "half of the", "{fault:?}");
        }
        // Neither the server nor the session is the worse for it.
        let next = server.api.run("my-agent", &[("message", "Hello"), ("session_id", &session)]).await;
        assert_eq!(next["content"], "Hi Alice!", "{fault:?}");
    }
}

#[tokio::test]
async fn a_model_that_cannot_be_reached_is_told_as_such() {
    let world = World::new().await;
    let mut command = world.command();
    // Nobody listens there, and nobody else gets the port.
    let deaf = tokio::net::TcpSocket::new_v4().unwrap();
    deaf.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    command.env("MODEL_URL", format!("http://{}/v1", deaf.local_addr().unwrap()));
    let server = crate::support::Server::start(command, &world.dir.path().join("log")).await;
    let run = server.api.run("my-agent", &[("message", "Hello")]).await;
    assert_eq!(run["status"], "ERROR");
    assert!(text(&run["content"]).contains("connect") || text(&run["content"]).contains("reach"), "{run}");
}

#[tokio::test]
async fn a_model_that_asks_for_tools_that_are_not_there_is_told_so() {
    let world = World::new().await;
    let server = world.server().await;
    let calls = [("no_such_tool", json!({})), ("get_weather", json!({"nope": 1})), ("get_weather", json!("no object"))];
    let script = Script::call(&calls).then_say(&["Never mind."]).message();
    let run = server.api.run("tool-agent", &[("message", &script)]).await;
    assert_eq!((&run["status"], &run["content"]), (&json!("COMPLETED"), &json!("Never mind.")));
    for tool in run["tools"].as_array().unwrap() {
        assert_eq!(tool["tool_call_error"], true, "{tool}");
        assert!(text(&tool["result"]).len() > 10, "{tool}");
    }
}

#[tokio::test]
async fn a_model_that_never_stops_asking_for_tools_is_stopped() {
    let world = World::new().await;
    let server = world.server().await;
    let again = || Script::call(&[("count_pure", json!({}))]);
    let script = (0..60).fold(Script::default(), |script, _| script.then(again())).message();
    let run = server.api.run("crash-agent", &[("message", &script)]).await;
    assert_eq!(run["status"], "ERROR", "{run}");
    assert!(world.calls().len() < 60);
    assert!(text(&run["content"]).contains("model calls"), "{}", run["content"]);
}
