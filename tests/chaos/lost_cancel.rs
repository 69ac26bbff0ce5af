//! A cancel that the log does not take lets the run go on.

use std::time::Duration;

use daybook_test_support::{Script, text};
use tokio::time::sleep;

use crate::node::{Node, World};
use crate::progress::say;
use crate::proxy::Side;

/// By then a node no longer waits for the answer to an append.
const GIVE_UP: Duration = Duration::from_secs(8);

#[tokio::test]
async fn a_cancel_that_cannot_be_recorded_does_not_hold_the_run() {
    let world = World::new().await;
    let node = Node::start(&world, "a").await;
    let script = Script::say(&["Let me see. "]).and_call("count_unsafe").then_say(&["All ", "done."]).message();
    // The intent to call the tool is committed; the node does not know it yet, and is asked to cancel.
    let intent = node.proxy.catch(Side::After, 1);
    let fields = [("message", script.as_str()), ("session_id", "s"), ("run_id", "r")];
    node.up().background("crash-agent", &fields).await;
    let intent = intent.await.unwrap();
    assert_eq!(intent.events, ["RunModelCallCompleted", "RunToolCallRequested"]);
    let request = node.proxy.catch(Side::Before, 0);
    let api = node.up();
    let cancel = api.cancel("crash-agent", "r", "s");
    let lose_it = async {
        // For the request to be there before the node hears of the intent, so that no tool starts; else nothing is tried.
        sleep(Duration::from_millis(500)).await;
        intent.let_go();
        let request = request.await.unwrap();
        assert_eq!(request.events, ["RunCancelRequested"]);
        node.proxy.go_away();
        drop(request);
        sleep(GIVE_UP).await;
        let calls = world.base.calls().len();
        node.proxy.come_back();
        calls
    };
    let (answer, calls) = tokio::join!(cancel, lose_it);
    // Told that it could not be recorded, or it was, once the database was back.
    assert!([200, 503].contains(&answer), "{answer}");
    let end = if answer == 503 { "COMPLETED" } else { "CANCELLED" };
    let seen = node.up().until("crash-agent", "r", "s", end).await;
    if answer == 503 {
        assert_eq!((text(&seen["content"]), world.base.calls().len()), ("Let me see. All done.", 1));
    }
    say(&format!(
        "a lost cancel was answered with {answer}; the tool was called {calls} times before, and the run is {end}"
    ));
}
