//! A fault at every commit of a run with one tool call: the first commit, the second, ... until the run ends without one.

use std::collections::HashMap;
use std::time::Duration;

use daybook_test_support::{Script, eventually, text};
use serde_json::Value;
use tokio::time::sleep;

use crate::client::{Ask, KINDS, Kind, check, content, outcome, see_through};
use crate::node::{Node, World};
use crate::progress::say;
use crate::proxy::{Caught, Side};

/// By then a node no longer waits for the answer to an append.
const GIVE_UP: Duration = Duration::from_secs(8);

/// What happens at a boundary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// kill -9 of the node.
    Kill(Side),
    /// The connection to the database breaks.
    Cut(Side),
    /// The same, and the database stays away until the node has given the append up.
    Away(Side),
}

const KILLS: [Fault; 2] = [Fault::Kill(Side::Before), Fault::Kill(Side::After)];
const BREAKS: [Fault; 4] =
    [Fault::Cut(Side::Before), Fault::Cut(Side::After), Fault::Away(Side::Before), Fault::Away(Side::After)];

const TOOLS: [&str; 3] = ["count_pure", "count_idempotent", "count_unsafe"];

impl Fault {
    fn side(self) -> Side {
        match self {
            Self::Kill(side) | Self::Cut(side) | Self::Away(side) => side,
        }
    }
}

/// One way through the boundaries.
#[derive(Debug, Clone, Copy)]
struct Way {
    kind: Kind,
    tool: &'static str,
}

#[tokio::test]
async fn a_kill_at_every_commit_of_a_run_is_survived() {
    let world = World::new().await;
    let node = Node::start(&world, "a").await;
    go(&world, &node, Way { kind: Kind::Streamed, tool: "count_idempotent" }, &KILLS).await;
    go(&world, &node, Way { kind: Kind::Plain, tool: "count_unsafe" }, &KILLS[1..]).await;
}

#[tokio::test]
async fn a_connection_that_breaks_at_a_commit_repeats_and_loses_nothing() {
    let world = World::new().await;
    let node = Node::start(&world, "a").await;
    go(&world, &node, Way { kind: Kind::Streamed, tool: "count_unsafe" }, &BREAKS[..2]).await;
}

#[tokio::test]
#[ignore = "long: make chaos"]
async fn whole_a_kill_at_every_commit_of_every_kind_of_run_is_survived() {
    every_way(&KILLS).await;
}

#[tokio::test]
#[ignore = "long: make chaos"]
async fn whole_a_database_that_goes_away_at_a_commit_repeats_and_loses_nothing() {
    every_way(&BREAKS).await;
}

async fn every_way(faults: &[Fault]) {
    let world = World::new().await;
    let node = Node::start(&world, "a").await;
    let mut survived = 0;
    for kind in KINDS {
        for tool in TOOLS {
            survived += go(&world, &node, Way { kind, tool }, faults).await;
        }
    }
    say(&format!("{survived} faults at commits survived"));
}

/// All boundaries of one way, each fault at each; gives how many that were.
async fn go(world: &World, node: &Node, way: Way, faults: &[Fault]) -> usize {
    let mut survived = 0;
    for fault in faults {
        let mut boundary = 0;
        while at(world, node, way, *fault, boundary).await {
            boundary += 1;
        }
        assert!(boundary >= 4, "a run with a tool call has four commits, and {boundary} were found");
        say(&format!("{way:?}: {fault:?} at {boundary} commits survived"));
        survived += boundary;
    }
    survived
}

/// One run with one fault at commit `boundary`; false when the run has no such commit.
async fn at(world: &World, node: &Node, way: Way, fault: Fault, boundary: usize) -> bool {
    let name = format!("{:?}-{}-{fault:?}-{boundary}", way.kind, way.tool).replace(['(', ')'], "-");
    let script = Script::say(&["Let me see. "]).and_call(way.tool).then_say(&["All ", "done."]);
    let message = script.message_after(&format!("{name}. "));
    let (session, run, key) = (format!("s-{name}"), name.clone(), name.clone());
    let ask = Ask { agent: "crash-agent", session, run, message, kind: way.kind, on_busy: "enqueue", key };
    let lines_before = world.base.calls().len();
    node.proxy.take_appends();
    let trap = node.proxy.catch(fault.side(), boundary);
    let ending = see_through(&ask, || node.api());
    tokio::pin!(ending);
    let caught = tokio::select! {
        caught = trap => caught.ok(),
        told = &mut ending => {
            told.unwrap_or_else(|wrong| panic!("{name}: {wrong}"));
            None
        }
    };
    let Some(caught) = caught else {
        node.proxy.pass();
        return false;
    };
    let context = format!("{name}, at the commit of {:?}", caught.events);
    let striking = strike(world, node, fault, caught, lines_before);
    let (told, struck) = tokio::join!(ending, striking);
    let told = told.unwrap_or_else(|wrong| panic!("{context}: {wrong}"));
    let (seen, frames) = eventually("the run can be read", async || {
        outcome(&ask, &node.up(), &told.run).await.unwrap_or_else(|wrong| panic!("{context}: {wrong}"))
    })
    .await;
    check(&ask, &told, &seen, &frames).unwrap_or_else(|wrong| panic!("{context}: {wrong}"));
    struck.check(&context, way.tool, &seen, &world.base.calls()[lines_before..]);
    true
}

/// What was true when the fault was over.
struct Struck {
    fault: Fault,
    /// The tool's calls until then.
    calls: usize,
    /// Whether the intent to call was committed.
    requested: bool,
    /// Whether the call's outcome was committed.
    recorded: bool,
}

async fn strike(world: &World, node: &Node, fault: Fault, caught: Caught, lines_before: usize) -> Struck {
    let appends = node.proxy.take_appends();
    let committed = |event| appends.iter().any(|append| append.outcomes == [0] && append.events.contains(&event));
    let (requested, recorded) = (committed("RunToolCallRequested"), committed("RunToolCallCompleted"));
    match fault {
        Fault::Kill(_) => {
            node.kill().await;
            drop(caught);
        }
        Fault::Cut(_) => drop(caught),
        Fault::Away(_) => {
            node.proxy.go_away();
            drop(caught);
            let api = node.up();
            eventually("nothing is accepted", async || {
                let fields = [("message", "Hello"), ("stream", "false")];
                let answer = api.request("my-agent", &fields).send().await.ok()?;
                (answer.status() == 503).then_some(())
            })
            .await;
            sleep(GIVE_UP).await;
        }
    }
    let calls = world.base.calls().len() - lines_before;
    match fault {
        Fault::Kill(_) => node.start_again(world).await,
        Fault::Cut(_) => {}
        Fault::Away(_) => node.proxy.come_back(),
    }
    Struck { fault, calls, requested, recorded }
}

impl Struck {
    /// What is recorded is not done again. What was to be called and has no outcome is called again if that does no harm.
    fn check(&self, context: &str, tool: &str, seen: &Value, calls: &[(String, String, String)]) {
        let by_call: HashMap<&str, &str> = calls.iter().map(|(_, call, key)| (call.as_str(), key.as_str())).collect();
        assert!(by_call.len() <= 1, "{context}: one call, {calls:?}");
        assert!(calls.iter().all(|(_, call, key)| by_call[call.as_str()] == key), "{context}: one key, {calls:?}");
        // A node that lives asks for the outcome, unless the database stays away too long: then it too can only guess.
        let unknown = self.requested && !self.recorded && !matches!(self.fault, Fault::Cut(_));
        let killed = matches!(self.fault, Fault::Kill(_));
        let (ends, pauses) = (("COMPLETED", "Let me see. All done."), ("PAUSED", "Let me see. "));
        let was = (calls.len(), (text(&seen["status"]), content(seen)));
        let expected = match (unknown, killed, tool) {
            (true, true, "count_unsafe") => vec![(self.calls, pauses)],
            (true, true, _) => vec![(self.calls + 1, ends)],
            // It had not called yet when it lost sight of the append.
            (true, false, "count_unsafe") if self.calls == 0 => vec![(0, pauses), (1, ends)],
            _ => vec![(1, ends)],
        };
        assert!(expected.contains(&was), "{context}: {expected:?} expected, {was:?}, {calls:?}, {seen}");
    }
}
