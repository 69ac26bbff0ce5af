//! Runs over a WebSocket: every action, what is wrong with a message, and what becomes of a run when its connection goes.

use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use crate::support::{Frame, Script, Socket, World, check_order, said, text};

/// The paths of WebSockets, with an encoding chosen or not.
const PATH: &str = "/agents/ws";

fn start(message: &str, session: &str, run: &str) -> Value {
    json!({"action": "start-agent", "agent_id": "my-agent", "message": message, "session_id": session, "run_id": run})
}

fn names(frames: &[Frame]) -> Vec<&str> {
    frames.iter().map(|frame| frame.event.as_str()).collect()
}

#[tokio::test]
async fn a_run_is_started_and_told_event_by_event_as_a_stream_would() {
    let world = World::new().await;
    let server = world.server().await;
    let mut socket = Socket::open(&server.api, PATH).await;
    let authenticated =
        json!({"event": "authenticated", "message": "Authentication successful. You can now send commands."});
    assert_eq!(socket.answer(&json!({"action": "authenticate", "token": "x"})).await, authenticated);
    assert_eq!(socket.answer(&json!({"action": "ping"})).await, json!({"event": "pong"}));
    assert_eq!(socket.answer(&json!({"action": "ping", "request_id": "q"})).await["request_id"], "q");
    socket.ask(&start("Hello", "s", "r")).await;
    let frames = socket.to_the_end("r").await;
    check_order(&frames);
    assert_eq!((said(&frames).as_str(), frames[0].event.as_str()), ("Hi Alice!", "RunStarted"));
    // What a client started comes as blocks, as clients of the recorded API read it.
    assert!(socket.seen.iter().filter(|told| told.data["run_id"] == "r").all(|told| told.block), "{:?}", socket.seen);
    let streamed = server.api.resume("my-agent", "r", "s", None).await.rest().await;
    let numbered: Vec<Frame> = streamed.into_iter().filter(|frame| frame.id.is_some()).collect();
    assert_eq!(frames, numbered);
    // No message, no session: an empty one, and a new one.
    socket.ask(&json!({"action": "start-agent", "agent_id": "my-agent"})).await;
    let first = socket.until("RunStarted").await;
    assert!(text(&first.data["session_id"]) != "s", "{first:?}");
    socket.to_the_end(text(&first.data["run_id"])).await;
}

#[tokio::test]
async fn what_is_wrong_is_told_and_the_connection_stays() {
    let world = World::new().await;
    let server = world.server().await;
    let mut socket = Socket::open(&server.api, PATH).await;
    let mut refusal = async |message: Message| {
        socket.send(message).await;
        let told = socket.next().await.expect("an answer").data;
        assert_eq!(told["event"], "error", "{told}");
        assert_eq!(socket.answer(&json!({"action": "ping"})).await, json!({"event": "pong"}));
        text(&told["error"]).to_owned()
    };
    let start = |more: Value| {
        let mut action = json!({"action": "start-agent", "agent_id": "my-agent", "message": "Hello"});
        action.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap());
        Message::text(action.to_string())
    };
    let long = "x".repeat(1 << 20);
    let cases = [
        (Message::text("{nope"), "send a JSON object"),
        (Message::text("[1]"), "send a JSON object"),
        (Message::binary(b"{\"action\": \"ping\"}".to_vec()), "send JSON as text"),
        (Message::text(json!({"action": "ping", "more": long}).to_string()), "1048576 at most are taken"),
        (Message::text("{}"), "Unknown action: None"),
        (Message::text("{\"action\": \"zzz\"}"), "Unknown action: zzz"),
        (Message::text("{\"action\": \"start-workflow\"}"), "Unknown action: start-workflow"),
        (Message::text("{\"action\": \"start-agent\"}"), "agent_id is required"),
        (Message::text("{\"action\": \"reconnect\"}"), "run_id is required for subscription"),
        (
            Message::text("{\"action\": \"reconnect\", \"run_id\": \"nope\"}"),
            "Run nope not found in buffer or database",
        ),
        (start(json!({"agent_id": "zzz"})), "Agent zzz not found"),
        (start(json!({"message": 5})), "message must be a text"),
        (start(json!({"metadata": [1]})), "Invalid metadata parameter: expected a JSON object"),
        (start(json!({"on_busy": "zzz"})), "on_busy: Input should be 'enqueue', 'reject', 'interrupt' or 'parallel'"),
        (start(json!({"on_disconnect": "cancel"})), "Cancel it with cancel-agent"),
        (start(json!({"run_id": "a\u{0}"})), "run_id: "),
        (start(json!({"idempotency_key": "a b"})), "idempotency_key must be"),
    ];
    for (message, expected) in cases {
        let told = refusal(message).await;
        assert!(told.contains(expected), "{told:?} instead of {expected:?}");
    }
    let go_on = json!({"action": "continue-agent", "agent_id": "my-agent", "run_id": "nope", "session_id": "s"});
    assert_eq!(refusal(Message::text(go_on.to_string())).await, "Run nope not found");
    let without = json!({"action": "continue-agent", "agent_id": "my-agent", "run_id": "nope"});
    assert_eq!(refusal(Message::text(without.to_string())).await, "Run nope not found");
    assert_eq!(world.model.requests().len(), 0, "nothing ran");
    // What has no measure ends the connection, with a reason.
    socket.send(Message::text("x".repeat(5 << 20))).await;
    assert_eq!(socket.closed().await, Some(1009));
}

#[tokio::test]
async fn a_paused_run_is_continued_and_a_running_one_cancelled() {
    let world = World::new().await;
    let server = world.server().await;
    let mut socket = Socket::open(&server.api, PATH).await;
    let asks = Script::call(&[("delete_file", json!({"path": "a.txt"}))]).then_say(&["Deleted."]).message();
    socket.ask(&json!({"action": "start-agent", "agent_id": "confirm-agent", "message": asks, "run_id": "p"})).await;
    let paused = socket.until("RunPaused").await.data;
    let wrong = socket.answer(&json!({"action": "continue-agent", "agent_id": "confirm-agent", "run_id": "p"})).await;
    assert_eq!(wrong["event"], "error", "no answer is none: {wrong}");
    let mut tool = paused["tools"][0].clone();
    tool["confirmed"] = json!(true);
    let before = socket.frames_of("p").len();
    // The session need not be said: a run has one.
    socket.ask(&json!({"action": "continue-agent", "agent_id": "confirm-agent", "run_id": "p", "tools": [tool]})).await;
    let frames = socket.to_the_end("p").await;
    check_order(&frames);
    assert_eq!((frames[before].event.as_str(), said(&frames).as_str()), ("RunContinued", "Deleted."));
    world.database().assert_ended_once("p").await;

    let held = Script::say(&["half ", "whole"]).hold(1, "never").message();
    socket.ask(&start(&held, "c", "c")).await;
    socket.until_said("c", "half ").await;
    let told = json!({"event": "cancel_requested", "run_id": "c"});
    socket.ask(&json!({"action": "cancel-agent", "agent_id": "my-agent", "run_id": "c", "reason": "enough"})).await;
    assert_eq!(socket.until("cancel_requested").await.data, told);
    let frames = socket.to_the_end("c").await;
    assert_eq!(names(&frames)[frames.len() - 2..], ["RunCancelled", "RunCompleted"]);
    assert_eq!(frames[frames.len() - 2].data["reason"], "enough");
    // What is unknown is told the same.
    let unknown = json!({"action": "cancel-agent", "agent_id": "my-agent", "run_id": "nope"});
    assert_eq!(socket.answer(&unknown).await, json!({"event": "cancel_requested", "run_id": "nope"}));
}

#[tokio::test]
async fn a_run_goes_on_without_its_connection_and_is_taken_up_from_an_index_on_another_server() {
    let world = World::new().await;
    let (one, other) = (world.server().await, world.server().await);
    let script = Script::say(&["a ", "b ", "c ", "d"]).hold(2, "second half").message();
    let mut first = Socket::open(&one.api, PATH).await;
    first.ask(&start(&script, "s", "r")).await;
    first.until_said("r", "a ").await;
    let before = first.frames_of("r");
    let last = before.last().and_then(|frame| frame.id);
    drop(first);
    world.model.arrived("second half", 1).await;
    // What the model has said may still be on its way.
    one.api.resume("my-agent", "r", "s", None).await.until_said("b ").await;

    let again = json!({"action": "reconnect", "run_id": "r", "last_event_index": last, "session_id": "s"});
    for server in [&one, &other] {
        let mut socket = Socket::open(&server.api, PATH).await;
        socket.ask(&again).await;
        let subscribed = socket.until("subscribed").await.data;
        let message = "Subscribed to agent run. You will receive new events as they occur.";
        assert_eq!((&subscribed["message"], &subscribed["status"]), (&json!(message), &json!("running")));
        let catch_up = &socket.seen[0].data;
        assert_eq!((&catch_up["event"], &catch_up["run_id"]), (&json!("catch_up"), &json!("r")));
        assert_eq!(catch_up["missed_events"], json!(socket.frames_of("r").len()));
        assert_eq!(said(&socket.frames_of("r")), "b ");
        assert!(!socket.seen.iter().any(|told| told.block), "who comes back reads JSON");
    }
    let mut socket = Socket::open(&other.api, PATH).await;
    socket.ask(&again).await;
    socket.until("subscribed").await;
    world.model.open("second half");
    let frames = [before, socket.to_the_end("r").await].concat();
    check_order(&frames);
    assert_eq!(said(&frames), "a b c d");
    world.database().assert_ended_once("r").await;

    // A run that has ended is told from its beginning, or from there on request.
    let replay = socket.answer(&again).await;
    assert_eq!((&replay["event"], &replay["total_events"]), (&json!("replay"), &json!(frames.len())));
    assert_eq!(replay["message"], "Run COMPLETED. Replaying all events.");
    let mut socket = Socket::open(&other.api, PATH).await;
    socket.ask(&again).await;
    assert_eq!(socket.to_the_end("r").await, frames);
    let mut socket = Socket::open(&other.api, PATH).await;
    let rest = json!({"action": "reconnect", "run_id": "r", "last_event_index": last, "resume": true});
    socket.ask(&rest).await;
    let seen = last.map_or(0, |last| usize::try_from(last).unwrap() + 1);
    assert_eq!(socket.to_the_end("r").await, frames[seen..]);
    for foreign in [json!({"agent_id": "tool-agent"}), json!({"session_id": "other"})] {
        let mut action = json!({"action": "reconnect", "run_id": "r"});
        action.as_object_mut().unwrap().extend(foreign.as_object().cloned().unwrap());
        assert_eq!(socket.answer(&action).await["error"], "Run r not found in buffer or database");
    }
}

#[tokio::test]
async fn who_was_connected_to_a_server_that_is_killed_takes_its_run_up_after_the_restart() {
    let world = World::new().await;
    let server = world.server().await;
    let script = Script::say(&["one ", "two"]).hold(1, "second").message();
    let mut socket = Socket::open(&server.api, PATH).await;
    socket.ask(&start(&script, "s", "r")).await;
    socket.until_said("r", "one ").await;
    world.model.arrived("second", 1).await;
    server.kill().await;
    assert_eq!(socket.closed().await, None, "nobody said goodbye");
    let before = socket.frames_of("r");
    let last = before.last().and_then(|frame| frame.id);

    world.model.open("second");
    let server = world.server().await;
    let mut socket = Socket::open(&server.api, PATH).await;
    socket.ask(&json!({"action": "reconnect", "run_id": "r", "last_event_index": last, "resume": true})).await;
    let frames = [before, socket.to_the_end("r").await].concat();
    check_order(&frames);
    assert!(names(&frames).contains(&"RunRestarted"), "{frames:?}");
    assert_eq!(said(&frames), "one two");
    world.database().assert_ended_once("r").await;
}

#[tokio::test]
async fn a_server_that_stops_says_goodbye_and_the_run_goes_on_elsewhere() {
    let world = World::new().await;
    let server = world.server().await;
    let script = Script::say(&["one ", "two"]).hold(1, "second").message();
    let mut socket = Socket::open(&server.api, PATH).await;
    socket.ask(&start(&script, "s", "r")).await;
    socket.until_said("r", "one ").await;
    let (closed, status) = tokio::join!(socket.closed(), server.terminate());
    assert_eq!(closed, Some(1001));
    assert!(status.success(), "{status}");
    world.model.open("second");
    let server = world.server().await;
    let before = socket.frames_of("r");
    let mut socket = Socket::open(&server.api, PATH).await;
    let last = before.last().and_then(|frame| frame.id);
    socket.ask(&json!({"action": "reconnect", "run_id": "r", "last_event_index": last, "resume": true})).await;
    let frames = [before, socket.to_the_end("r").await].concat();
    check_order(&frames);
    assert_eq!(said(&frames), "one two");
}

#[tokio::test]
async fn one_encoding_for_everything_is_chosen_in_the_address() {
    let world = World::new().await;
    let (server, other) = (world.server().await, world.server().await);
    for (path, block) in [("/agents/ws?encoding=json", false), ("/agents/ws?encoding=sse", true)] {
        let mut socket = Socket::try_open(&server.api, path, None).await.expect("it opens");
        socket.ask(&json!({"action": "ping"})).await;
        socket.ask(&json!({"action": "zzz"})).await;
        socket.until("error").await;
        let run = if block { "sse" } else { "json" };
        socket.ask(&start("Hello", run, run)).await;
        socket.to_the_end(run).await;
        // The run's own server may still be letting go of it; for the other it has ended.
        let mut again = Socket::try_open(&other.api, path, None).await.expect("it opens");
        again.ask(&json!({"action": "reconnect", "run_id": run})).await;
        again.until("replay").await;
        again.until("RunCompleted").await;
        for told in socket.seen.iter().chain(&again.seen) {
            assert_eq!(told.block, block, "{path}: {told:?}");
        }
    }
    assert_eq!(Socket::try_open(&server.api, "/agents/ws?encoding=xml", None).await.err(), Some(422));
}

#[tokio::test]
async fn only_pages_that_may_call_the_server_may_connect() {
    let world = World::new().await;
    let server = world.server().await;
    let own = server.api.base.clone();
    for (origin, status) in [
        (None, None),
        (Some("http://localhost:3000"), None),
        (Some(own.as_str()), None),
        (Some("http://evil.example"), Some(403)),
        (Some("null"), Some(403)),
    ] {
        assert_eq!(Socket::try_open(&server.api, PATH, origin).await.err(), status, "{origin:?}");
    }
    let plain = server.api.get(PATH).send().await.unwrap();
    assert_eq!(plain.status(), 400);
    let told: Value = plain.json().await.unwrap();
    assert!(text(&told["detail"]).contains("open it with a WebSocket client"), "{told}");
}
