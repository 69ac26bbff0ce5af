//! Two servers on one database.

use serde_json::json;

use crate::support::{Frame, Script, World, check_order, said};

#[tokio::test]
async fn a_run_on_one_server_is_watched_read_and_cancelled_through_another() {
    let world = World::new().await;
    let (one, other) = (world.server().await, world.server().await);
    let script = Script::say(&["half ", "whole"]).hold(1, "never").message();
    let mut here = one.api.stream("my-agent", &[("message", &script), ("session_id", "s"), ("run_id", "r")]).await;
    here.until_said("half ").await;

    assert_eq!(other.api.look("my-agent", "r", "s").await.unwrap()["status"], "RUNNING");
    let mut there = other.api.resume("my-agent", "r", "s", None).await;
    there.until_said("half ").await;
    assert_eq!(other.api.cancel("my-agent", "r", "s").await, 200);
    let (here, there) = (here.rest().await, there.rest().await);
    let numbered =
        |frames: &[Frame]| -> Vec<Frame> { frames.iter().filter(|frame| frame.id.is_some()).cloned().collect() };
    assert_eq!(numbered(&here), numbered(&there));
    check_order(&there);
    let names: Vec<&str> = there.iter().rev().take(2).map(|frame| frame.event.as_str()).collect();
    assert_eq!(names, ["RunCompleted", "RunCancelled"]);
    for server in [&one, &other] {
        let seen = server.api.look("my-agent", "r", "s").await.unwrap();
        assert_eq!((&seen["status"], &seen["content"]), (&json!("CANCELLED"), &json!("half ")));
    }
    world.database().assert_ended_once("r").await;
}

#[tokio::test]
async fn a_background_run_nobody_streams_can_be_watched_from_another_server() {
    let world = World::new().await;
    let (one, other) = (world.server().await, world.server().await);
    let script = Script::say(&["half ", "whole"]).hold(1, "go").message();
    let run = one.api.background("my-agent", &[("message", &script), ("session_id", "s")]).await;
    world.model.arrived("go", 1).await;
    let mut there = other.api.resume("my-agent", &run, "s", None).await;
    there.until_said("half ").await;
    world.model.open("go");
    let there = there.rest().await;
    check_order(&there);
    assert_eq!(said(&there), "half whole");
    assert_eq!(there.last().unwrap().event, "RunCompleted");
}

#[tokio::test]
async fn sessions_are_shared_and_runs_queue_across_servers() {
    let world = World::new().await;
    let (one, other) = (world.server().await, world.server().await);
    let held = Script::say(&["first"]).hold(0, "start").message();
    let first = one.api.background("my-agent", &[("message", &held), ("session_id", "s")]).await;
    world.model.arrived("start", 1).await;
    let second = other.api.background("my-agent", &[("message", "second."), ("session_id", "s")]).await;
    assert_eq!(one.api.look("my-agent", &second, "s").await.unwrap()["status"], "PENDING");
    world.model.open("start");
    one.api.until("my-agent", &second, "s", "COMPLETED").await;
    other.api.until("my-agent", &first, "s", "COMPLETED").await;
    let asked = world.model.requests_with("second.").pop().unwrap().to_string();
    assert!(asked.contains("first"), "the second run knows the first one's answer: {asked}");
}

#[tokio::test]
async fn when_a_server_is_killed_another_finishes_its_runs_and_serves_their_watchers() {
    let world = World::new().await;
    let (one, other) = (world.server().await, world.server().await);
    let script = Script::say(&["one ", "two ", "three"]).hold(2, "third").message();
    let mut here = one.api.stream("my-agent", &[("message", &script), ("session_id", "s"), ("run_id", "r")]).await;
    let mut there = other.api.resume("my-agent", "r", "s", None).await;
    here.until_said("one two ").await;
    there.until_said("one two ").await;
    let background = one.api.background("my-agent", &[("message", &script), ("session_id", "b")]).await;
    world.model.arrived("third", 2).await;
    one.kill().await;
    let here = here.rest().await;
    world.model.open("third");

    // Who watched through the other server only sees the restart.
    let there = there.rest().await;
    check_order(&there);
    assert!(there.iter().any(|frame| frame.event == "RunRestarted"), "{there:?}");
    assert_eq!(said(&there), "one two three");
    let last = here.iter().filter_map(|frame| frame.id).max();
    let both = [here, other.api.resume("my-agent", "r", "s", last).await.rest().await].concat();
    check_order(&both);
    assert_eq!(said(&both), "one two three");
    for (run, session) in [("r", "s"), (background.as_str(), "b")] {
        assert_eq!(other.api.until("my-agent", run, session, "COMPLETED").await["content"], "one two three");
        world.database().assert_ended_once(run).await;
    }
}
