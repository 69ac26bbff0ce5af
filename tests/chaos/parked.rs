//! A view that cannot take an event hurts no run, says so, and catches up once it can.

use daybook_test_support::{eventually, ids_of, text};

use crate::node::{Node, World};
use crate::progress::say;

#[tokio::test]
async fn a_view_that_cannot_take_an_event_hurts_no_run_and_catches_up() {
    let world = World::new().await;
    let node = Node::start(&world, "a").await;
    let sql = &world.base.database().sql;
    sqlx::query("ALTER TABLE run_view ADD CONSTRAINT no_poison CHECK (run_id <> 'poison')").execute(sql).await.unwrap();

    let api = node.up();
    let poison = api.run("my-agent", &[("message", "Hello"), ("session_id", "s"), ("run_id", "poison")]).await;
    assert_eq!(poison["status"], "COMPLETED");
    let after = api.run("my-agent", &[("message", "And now?"), ("session_id", "s"), ("run_id", "after")]).await;
    assert_eq!(after["status"], "COMPLETED");
    let health = eventually("the stream is parked", async || {
        let health = api.ok("/health").await;
        health["projections"].is_array().then_some(health)
    })
    .await;
    let parked = &health["projections"][0]["parked"][0];
    assert_eq!((text(&health["status"]), text(&parked["stream"])), ("degraded", "run:poison"), "{health}");
    assert!(text(&parked["error"]).contains("no_poison"), "{health}");
    // The run itself is read from the log; the list lacks it, and nothing else.
    let seen = api.look("my-agent", "poison", "s").await.unwrap();
    assert_eq!((&seen["status"], &seen["content"]), (&poison["status"], &poison["content"]));
    assert_eq!(ids_of(&api.runs("my-agent", "s").await), ["after"]);

    // Whatever kept the view from it is mended, and the program is started again.
    sqlx::query("ALTER TABLE run_view DROP CONSTRAINT no_poison").execute(sql).await.unwrap();
    node.kill().await;
    node.start_again(&world).await;
    eventually("the view has caught up", async || (node.up().ok("/health").await["status"] == "ok").then_some(()))
        .await;
    assert_eq!(ids_of(&node.up().runs("my-agent", "s").await), ["poison", "after"]);
    say("a parked view hurt no run and caught up");
}
