//! A node that stood still while another took its run over goes on, and is refused for its lease alone.

use daybook_test_support::{Script, eventually, text};
use serde_json::json;

use crate::node::{Node, World};
use crate::progress::say;
use crate::proxy::Side;

/// How the database calls a lost lease; a wrong version would be 3.
const LOST_LEASE: i16 = 4;

#[tokio::test]
async fn an_old_node_that_goes_on_is_refused_for_its_epoch_with_the_right_version() {
    let world = World::new().await;
    let (old, new) = (Node::start(&world, "old").await, Node::start(&world, "new").await);
    let script = Script::say(&["Let me see. "]).and_call("count_idempotent").then_say(&["All ", "done."]).message();

    // The model's answer, on its way to the database, and its node stands still.
    let held = old.proxy.catch(Side::Before, 1);
    let run = old.up().background("crash-agent", &[("message", &script), ("session_id", "s")]).await;
    let held = held.await.unwrap();
    assert_eq!(held.events, ["RunModelCallCompleted", "RunToolCallRequested"]);
    old.freeze().await;

    // The other node has the lease, and has not written: the run is at the version that the old node knows.
    let taken = new.proxy.catch(Side::Before, 0);
    let taken = tokio::time::timeout(daybook_test_support::PATIENCE, taken).await.expect("a takeover").unwrap();
    assert_eq!(taken.events, ["RunTakenOver"]);
    old.proxy.take_appends();
    held.let_go();
    let refused = eventually("the old node's append is answered", async || old.proxy.take_appends().pop()).await;
    assert_eq!(refused.events, ["RunModelCallCompleted", "RunToolCallRequested"]);
    assert_eq!(refused.outcomes, [LOST_LEASE]);

    taken.let_go();
    old.thaw().await;
    let seen = new.up().until("crash-agent", &run, "s", "COMPLETED").await;
    assert_eq!(text(&seen["content"]), "Let me see. All done.");
    assert_eq!(world.base.calls().len(), 1, "the old node never called the tool");
    world.base.database().assert_ended_once(&run).await;
    // It lives, and its next runs are its own.
    let next = old.up().run("crash-agent", &[("message", "Hello"), ("session_id", "t")]).await;
    assert_eq!(next["status"], json!("COMPLETED"));
    say("a stale append was refused for its epoch, its version being right");
}
