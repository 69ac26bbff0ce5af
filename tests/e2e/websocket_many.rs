//! Many runs on one WebSocket, and many WebSockets.

use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::support::{Script, Socket, World, check_order, long_pieces, said, text};

fn start(message: &str, run: &str) -> Value {
    json!({"action": "start-agent", "agent_id": "my-agent", "message": message, "session_id": run, "run_id": run})
}

#[tokio::test]
async fn several_runs_share_a_connection_up_to_a_limit() {
    let world = World::new().await;
    let server = world.server().await;
    let mut socket = Socket::open(&server.api, "/agents/ws").await;
    let script = Script::say(&["a ", "b"]).hold(1, "rest").message();
    for n in 0..32 {
        socket.ask(&start(&script, &format!("r{n}"))).await;
    }
    let mut one_too_many = start("Hello", "late");
    one_too_many["request_id"] = json!("q");
    socket.ask(&one_too_many).await;
    let refused = socket.until("error").await.data;
    assert!(text(&refused["error"]).contains("watches 32 runs") && refused["request_id"] == "q", "{refused}");
    for n in 0..32 {
        socket.until_said(&format!("r{n}"), "a ").await;
    }
    // Who comes back to a run that is watched already watches it once, from there.
    let last = socket.frames_of("r0").last().and_then(|frame| frame.id);
    socket.ask(&json!({"action": "reconnect", "run_id": "r0", "last_event_index": last})).await;
    socket.until("subscribed").await;
    world.model.open("rest");
    for n in 0..32 {
        let frames = socket.to_the_end(&format!("r{n}")).await;
        check_order(&frames);
        assert_eq!(said(&frames), "a b");
    }
    socket.ask(&start("Hello", "late")).await;
    socket.to_the_end("late").await;
}

#[tokio::test]
async fn a_run_that_waits_for_its_session_says_so() {
    let world = World::new().await;
    let server = world.server().await;
    let mut socket = Socket::open(&server.api, "/agents/ws").await;
    let held = Script::say(&["first"]).hold(0, "start").message();
    socket.ask(&start(&held, "one")).await;
    world.model.arrived("start", 1).await;
    let mut second = start("second.", "two");
    second["session_id"] = json!("one");
    second["idempotency_key"] = json!("k");
    socket.ask(&second).await;
    let queued = socket.until("queued").await.data;
    assert_eq!((&queued["run_id"], &queued["session_id"]), (&json!("two"), &json!("one")));
    world.model.open("start");
    socket.to_the_end("two").await;
    // The same key once more is the same run.
    let requests = world.model.requests().len();
    let mut again = Socket::open(&server.api, "/agents/ws").await;
    again.ask(&second).await;
    assert_eq!(again.to_the_end("two").await, socket.frames_of("two"));
    assert_eq!(world.model.requests().len(), requests);
}

#[tokio::test]
async fn a_client_that_does_not_read_holds_up_nobody_and_misses_nothing() {
    let world = World::new().await;
    let server = world.server().await;
    // More than the buffers on the way hold.
    let (count, letters) = (600, 16 << 10);
    let (message, expected) = (Script::long(count, letters).message(), long_pieces(count, letters).concat());
    let mut slow = Socket::open(&server.api, "/agents/ws").await;
    slow.ask(&start(&message, "slow")).await;
    server.api.until("my-agent", "slow", "slow", "COMPLETED").await;
    let mut quick = Socket::open(&server.api, "/agents/ws").await;
    quick.ask(&start(&message, "quick")).await;
    assert!(said(&quick.to_the_end("quick").await) == expected);
    let frames = slow.to_the_end("slow").await;
    check_order(&frames);
    assert!(said(&frames) == expected);
}

#[tokio::test]
async fn two_hundred_connections_each_watch_their_own_run() {
    let world = World::new().await;
    let server = world.server().await;
    let script = Script::say(&["a ", "b"]).hold(1, "rest").message();
    let mut watching = JoinSet::new();
    for n in 0..200 {
        let (api, message, run) = (server.api.clone(), script.clone(), format!("r{n}"));
        watching.spawn(async move {
            let mut socket = Socket::open(&api, "/agents/ws").await;
            socket.ask(&start(&message, &run)).await;
            let frames = socket.to_the_end(&run).await;
            check_order(&frames);
            assert_eq!(said(&frames), "a b");
            assert!(socket.seen.iter().all(|told| told.data["run_id"] == run), "only its own run: {:?}", socket.seen);
        });
    }
    world.model.arrived("rest", 200).await;
    world.model.open("rest");
    watching.join_all().await;
    // Closed connections leave nothing behind that a stop would wait for.
    assert!(server.terminate().await.success());
}

#[tokio::test]
async fn a_team_is_run_on_its_own_path_and_its_members_events_share_the_count() {
    let world = World::new().await;
    let (one, other) = (world.server().await, world.server().await);
    let task = Script::say(&["a fact"]).message();
    let work = json!({"member_id": "researcher", "task": task});
    let message = Script::call(&[("delegate_task_to_member", work)]).then_say(&["The answer."]).message();
    let mut socket = Socket::open(&one.api, "/teams/ws").await;
    let wrong = socket.answer(&json!({"action": "start-agent", "agent_id": "my-agent"})).await;
    assert_eq!(wrong["error"], "Unknown action: start-agent");
    assert_eq!(socket.answer(&json!({"action": "start-team", "team_id": "x"})).await["error"], "Team x not found");
    socket.seen.clear();
    socket
        .ask(&json!({"action": "start-team", "team_id": "my-team", "message": message, "session_id": "s", "run_id": "t"}))
        .await;
    let end = socket.until("TeamRunCompleted").await.data;
    assert_eq!((&end["run_id"], &end["content"]), (&json!("t"), &json!("The answer.")));
    let member = socket.seen.iter().find(|told| told.event() == "RunStarted").unwrap();
    assert_eq!((&member.data["agent_id"], &member.data["parent_run_id"]), (&json!("researcher"), &json!("t")));
    let indexes: Vec<u64> = socket.seen.iter().map(|told| told.data["event_index"].as_u64().unwrap()).collect();
    assert!(indexes.is_sorted_by(|one, next| one < next), "{indexes:?}");

    // From in the middle of the member's work, on another server.
    let from = member.data["event_index"].clone();
    let mut again = Socket::open(&other.api, "/teams/ws").await;
    again
        .ask(&json!({"action": "reconnect", "run_id": "t", "team_id": "my-team", "last_event_index": from, "resume": true}))
        .await;
    again.until("TeamRunCompleted").await;
    let rest: Vec<Value> = again.seen.iter().skip(1).map(|told| told.data.clone()).collect();
    let missed = socket.seen.iter().filter(|told| told.data["event_index"].as_u64() > from.as_u64());
    assert_eq!(rest, missed.map(|told| told.data.clone()).collect::<Vec<_>>());
    // A team's run is none of an agent's path.
    let mut agents = Socket::open(&other.api, "/agents/ws").await;
    let unknown = agents.answer(&json!({"action": "reconnect", "run_id": "t"})).await;
    assert_eq!(unknown["error"], "Run t not found in buffer or database");
}
