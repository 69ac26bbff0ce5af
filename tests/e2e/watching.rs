//! Watching a run: again, late, slowly, or not to its end.

use serde_json::json;

use crate::support::{Frame, Script, Stream, World, check_order, long_pieces, said, text};

#[tokio::test]
async fn a_watcher_who_comes_back_gets_what_it_missed_and_then_what_comes() {
    let world = World::new().await;
    let server = world.server().await;
    let script = Script::say(&["a ", "b ", "c ", "d"]).hold(2, "second half").message();
    let fields = [("message", script.as_str()), ("session_id", "s"), ("run_id", "r"), ("background", "true")];
    let mut watch = server.api.stream("my-agent", &fields).await;
    watch.until_said("a ").await;
    let last = watch.last_index();
    let first = std::mem::take(&mut watch.seen);
    drop(watch);
    world.model.arrived("second half", 1).await;
    // What the model has said may still be on its way.
    server.api.resume("my-agent", "r", "s", None).await.until_said("b ").await;

    let mut again = server.api.resume("my-agent", "r", "s", last).await;
    again.until("subscribed").await;
    assert_eq!(again.seen[0].event, "catch_up");
    assert_eq!(again.seen[0].data["missed_events"], json!(again.seen.len() - 2));
    assert_eq!(said(&again.seen), "b ");
    // `Last-Event-ID` is how browsers say it.
    let header = server.api.post("/agents/my-agent/runs/r/resume").header("Last-Event-ID", last.unwrap().to_string());
    let by_header = Stream::new(header.form(&[("session_id", "s")]).send().await.unwrap());
    world.model.open("second half");
    let again = again.rest().await;
    let numbered = |frames: &[Frame]| -> Vec<_> { frames.iter().filter(|frame| frame.id.is_some()).cloned().collect() };
    assert_eq!(numbered(&by_header.rest().await), numbered(&again));
    let both = [first, again].concat();
    check_order(&both);
    assert_eq!(said(&both), "a b c d");
    assert_eq!(both.last().unwrap().data["content"], "a b c d");
}

#[tokio::test]
async fn a_run_can_be_watched_after_its_end_from_anywhere() {
    let world = World::new().await;
    let server = world.server().await;
    let fields = [("message", "Hello"), ("session_id", "s"), ("run_id", "r")];
    let frames = server.api.stream("my-agent", &fields).await.rest().await;
    let indexes: Vec<u64> = frames.iter().filter_map(|frame| frame.id).collect();
    assert_eq!(indexes, (0..frames.len() as u64).collect::<Vec<_>>(), "dense, from 0");
    for after in [None, Some(0), Some(3), Some(indexes.len() as u64 - 1), Some(999), Some(u64::from(u32::MAX) * 1000)] {
        let again = server.api.resume("my-agent", "r", "s", after).await.rest().await;
        assert_eq!(again[0].event, "replay", "{after:?}");
        let expected: Vec<_> = frames.iter().filter(|frame| frame.id > after || after.is_none()).cloned().collect();
        assert_eq!(again[1..], expected[..], "{after:?}");
    }
    // What happened is the same after a restart.
    server.kill().await;
    let server = world.server().await;
    let again = server.api.resume("my-agent", "r", "s", Some(2)).await.rest().await;
    assert_eq!(again[1..], frames[3..]);
}

#[tokio::test]
async fn who_asks_for_a_run_that_is_not_theirs_to_watch_learns_nothing() {
    let world = World::new().await;
    let server = world.server().await;
    server.api.stream("my-agent", &[("message", "Hello"), ("session_id", "s"), ("run_id", "r")]).await.rest().await;
    for (agent, run, session) in [("my-agent", "nope", "s"), ("tool-agent", "r", "s"), ("my-agent", "r", "other")] {
        let frames = server.api.resume(agent, run, session, None).await.rest().await;
        assert_eq!(frames.len(), 1, "{agent} {run} {session}: {frames:?}");
        assert_eq!(frames[0].event, "error");
        assert_eq!(frames[0].data["error"], format!("Run {run} not found in buffer or database"));
    }
}

#[tokio::test]
async fn a_reader_that_does_not_read_holds_up_nobody_and_misses_nothing() {
    let world = World::new().await;
    let server = world.server().await;
    // More than the buffers on the way hold.
    let (count, letters) = (600, 16 << 10);
    let (message, expected) = (Script::long(count, letters).message(), long_pieces(count, letters).concat());
    let ask = async |run: &str| {
        let fields = [("message", message.as_str()), ("session_id", run), ("run_id", run), ("stream", "true")];
        server.api.request("my-agent", &fields).send().await.unwrap()
    };
    let slow = ask("slow").await;
    drop(ask("gone").await);
    // The runs end although nobody has read a byte of them.
    for run in ["slow", "gone"] {
        let ended = server.api.until("my-agent", run, run, "COMPLETED").await;
        assert!(text(&ended["content"]) == expected, "{run}");
    }
    let frames = Stream::new(slow).rest().await;
    check_order(&frames);
    assert!(said(&frames) == expected);
    assert_eq!(frames.last().unwrap().event, "RunCompleted");
}

#[tokio::test]
async fn many_watchers_of_one_run_see_the_same() {
    let world = World::new().await;
    let server = world.server().await;
    let script = Script::say(&["a ", "b ", "c"]).hold(1, "rest").message();
    let fields = [("message", script.as_str()), ("session_id", "s"), ("run_id", "r")];
    let mut first = server.api.stream("my-agent", &fields).await;
    first.until_said("a ").await;
    let mut watches = Vec::new();
    for _ in 0..20 {
        watches.push(server.api.resume("my-agent", "r", "s", None).await);
    }
    for watch in &mut watches {
        watch.until_said("a ").await;
    }
    world.model.open("rest");
    let first = first.rest().await;
    for watch in watches {
        let frames: Vec<_> = watch.rest().await.into_iter().filter(|frame| frame.id.is_some()).collect();
        assert_eq!(frames, first);
    }
}
