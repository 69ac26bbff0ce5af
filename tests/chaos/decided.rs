//! kill -9 where a person's decision is recorded: the decision, the run's going on and its lease are one append, so that
//! either nothing was decided, or another node runs what was approved, once.

use daybook_test_support::{Api, Script, text};
use serde_json::{Value, json};

use crate::node::{Node, World};
use crate::progress::say;
use crate::proxy::Side;

const AGENT: &str = "asking-agent";

/// What is recorded at once when an approval is given.
const DECIDED: [&str; 3] = ["RunRequirementResolved", "RunContinued", "ApprovalResolved"];

#[tokio::test]
async fn a_kill_at_the_commit_of_a_decision_runs_what_was_approved_once_and_elsewhere() {
    let world = World::new().await;
    let (first, other) = (Node::start(&world, "first").await, Node::start(&world, "other").await);
    let mut calls = 0;
    for tool in ["ask_pure", "ask_idempotent", "ask_unsafe"] {
        for side in [Side::Before, Side::After] {
            let name = format!("{tool}-{side:?}");
            let (run, approval) = paused(&first.up(), tool, &name).await;
            // So that nothing but the kill ends the lease.
            world.base.hold_tools();
            let caught = first.proxy.catch(side, 0);
            let api = first.up();
            let (caught, lost) = tokio::join!(
                async {
                    let caught = caught.await.unwrap();
                    assert_eq!(caught.events, DECIDED, "{name}: the decision is one append");
                    first.kill().await;
                    caught
                },
                resolve(&api, &approval)
            );
            drop(caught);
            assert_eq!(lost, None, "{name}: who decided has no answer");
            let leases = "SELECT count(*) FROM leases WHERE tree_id = $1";
            let leased = world.base.database().count(leases, &run).await;
            assert_eq!(leased, i64::from(side == Side::After), "{name}: the lease is part of the decision");
            assert_eq!(world.base.calls().len(), calls, "{name}: nothing ran before the kill");

            let pending = other.up().ok(&format!("/approvals/{approval}")).await;
            if side == Side::Before {
                assert_eq!(pending["status"], "pending", "{name}: nothing was decided");
                let (status, decided) = resolve(&other.up(), &approval).await.unwrap();
                assert_eq!((status, &decided["status"]), (200, &json!("approved")), "{name}");
            } else {
                assert_eq!(pending["status"], "approved", "{name}: it was decided");
                // Whoever decides again, not having been answered, does not let it run twice.
                assert_eq!(resolve(&other.up(), &approval).await.unwrap().0, 409, "{name}");
            }
            world.base.let_tools_go();
            let seen = other.up().until(AGENT, &run, &name, "COMPLETED").await;
            assert_eq!(seen["content"], "All done.", "{name}: {seen}");
            calls += 1;
            assert_eq!(world.base.calls().len(), calls, "{name}: {:?}", world.base.calls());
            let events = world.base.database().assert_ended_once(&run).await;
            for once in ["RunRequirementResolved", "RunContinued", "RunToolCallRequested", "RunToolCallCompleted"] {
                assert_eq!(events.iter().filter(|event| *event == once).count(), 1, "{name}: {once} in {events:?}");
            }
            first.start_again(&world).await;
        }
    }
    say("a node was killed at the commit of a decision 6 times, and each call ran once");
}

/// A run that waits for an approval, and the approval's id.
async fn paused(api: &Api, tool: &str, session: &str) -> (String, String) {
    let message = Script::call(&[(tool, json!({}))]).then_say(&["All ", "done."]).message();
    let run = api.run(AGENT, &[("message", message.as_str()), ("session_id", session)]).await;
    assert_eq!(run["status"], "PAUSED", "{run}");
    (text(&run["run_id"]).to_owned(), text(&run["tools"][0]["approval_id"]).to_owned())
}

/// Approves; nothing when the node went away before it answered.
async fn resolve(api: &Api, approval: &str) -> Option<(u16, Value)> {
    let body = json!({"status": "approved", "resolved_by": "boss"}).to_string();
    let request = api.post(&format!("/approvals/{approval}/resolve")).header("content-type", "application/json");
    let response = request.body(body).send().await.ok()?;
    let status = response.status().as_u16();
    Some((status, response.json().await.ok()?))
}
