//! Kill -9 in the middle of runs: after the restart each ends once, and nothing recorded is done again.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::support::{Frame, Script, Server, Stream, World, check_order, eventually, said, text};

/// How a client waits for its run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Mode {
    Plain,
    Streamed,
    Background,
    BackgroundStreamed,
}

const MODES: [Mode; 4] = [Mode::Plain, Mode::Streamed, Mode::Background, Mode::BackgroundStreamed];

impl Mode {
    fn is_watched(self) -> bool {
        matches!(self, Self::Streamed | Self::BackgroundStreamed)
    }

    fn fields(self) -> [(&'static str, &'static str); 2] {
        let background = matches!(self, Self::Background | Self::BackgroundStreamed);
        [
            ("stream", if self.is_watched() { "true" } else { "false" }),
            ("background", if background { "true" } else { "false" }),
        ]
    }
}

/// Runs of one agent in all modes, each in its own session, which is named like the run.
struct Runs {
    agent: &'static str,
    modes: BTreeMap<String, Mode>,
    watches: BTreeMap<String, Stream>,
    waiting: JoinSet<()>,
}

impl Runs {
    /// Starts a run in each mode for each of the named scripts.
    async fn start(server: &Server, agent: &'static str, scripts: &[(&str, Script)]) -> Self {
        let (modes, watches, waiting) = (BTreeMap::new(), BTreeMap::new(), JoinSet::new());
        let mut runs = Self { agent, modes, watches, waiting };
        for (name, script) in scripts {
            for mode in MODES {
                let run = format!("{name}-{mode:?}");
                let message = script.message_after(&format!("{run}. "));
                let fields = [("message", message.as_str()), ("session_id", &run), ("run_id", &run)];
                let request = server.api.request(agent, &[&fields[..], &mode.fields()[..]].concat());
                if mode.is_watched() {
                    runs.watches.insert(run.clone(), Stream::new(request.send().await.unwrap()));
                } else if mode == Mode::Background {
                    assert_eq!(request.send().await.unwrap().status(), 202);
                } else {
                    runs.waiting.spawn(async move {
                        // It never gets an answer: its server dies.
                        request.send().await.unwrap_err();
                    });
                }
                runs.modes.insert(run, mode);
            }
        }
        runs
    }

    /// What the watchers had seen when their server was gone.
    async fn broken(&mut self) -> BTreeMap<String, Vec<Frame>> {
        while let Some(ended) = self.waiting.join_next().await {
            ended.unwrap();
        }
        let mut seen = BTreeMap::new();
        for (run, watch) in std::mem::take(&mut self.watches) {
            let frames = watch.rest().await;
            assert!(!frames.iter().any(|frame| frame.event == "RunCompleted"), "{run} had ended: {frames:?}");
            seen.insert(run, frames);
        }
        seen
    }

    /// Waits for all to be `status`, as another server tells.
    async fn until(&self, server: &Server, status: &str) -> BTreeMap<String, Value> {
        let mut seen = BTreeMap::new();
        for run in self.modes.keys() {
            seen.insert(run.clone(), server.api.until(self.agent, run, run, status).await);
        }
        seen
    }

    /// Takes up every watch after its last frame, and from the beginning, and holds them to what the run became.
    async fn check_watches(
        &self,
        server: &Server,
        before: &BTreeMap<String, Vec<Frame>>,
        ended: &BTreeMap<String, Value>,
    ) {
        for (run, first) in before {
            check_order(first);
            let last = first.iter().filter_map(|frame| frame.id).max();
            let second = server.api.resume(self.agent, run, run, last).await.rest().await;
            let both = [first.clone(), second].concat();
            check_order(&both);
            let whole = server.api.resume(self.agent, run, run, None).await.rest().await;
            check_order(&whole);
            let content = ended[run]["content"].as_str().unwrap_or_default();
            for frames in [&both, &whole] {
                assert!(frames.iter().any(|frame| frame.event == "RunRestarted"), "{run}: {frames:#?}");
                assert_eq!(said(frames), content, "{run}: {frames:#?}");
                let ends = if ended[run]["status"] == "PAUSED" { "RunPaused" } else { "RunCompleted" };
                assert_eq!(frames.last().unwrap().event, ends, "{run}: {frames:#?}");
                assert_eq!(frames.iter().filter(|frame| frame.event == ends).count(), 1, "{run}: {frames:#?}");
            }
            // No index ever has two contents.
            for frame in both.iter().filter(|frame| frame.id.is_some()) {
                let again = whole.iter().find(|other| other.id == frame.id);
                assert!(again.is_none_or(|again| again == frame), "{run}: {frame:?} is also {again:?}");
            }
        }
    }
}

#[tokio::test]
async fn a_kill_while_text_streams_loses_nothing() {
    let world = World::new().await;
    let server = world.server().await;
    let script = Script::say(&["one ", "two ", "three"]).hold(2, "third");
    let mut runs = Runs::start(&server, "my-agent", &[("text", script)]).await;
    for watch in runs.watches.values_mut() {
        watch.until_said("one two ").await;
    }
    world.model.arrived("third", MODES.len()).await;
    server.kill().await;
    let before = runs.broken().await;

    world.model.open("third");
    let server = world.server().await;
    let ended = runs.until(&server, "COMPLETED").await;
    for (run, seen) in &ended {
        assert_eq!(seen["content"], "one two three", "{run}");
        let events = world.database().assert_ended_once(run).await;
        assert_eq!(events.iter().filter(|event| *event == "RunTakenOver").count(), 1, "{run}: {events:?}");
        assert_eq!(world.model.requests_with(&format!("{run}. ")).len(), 2, "{run}: asked, and asked again");
    }
    runs.check_watches(&server, &before, &ended).await;
}

const TOOLS: [&str; 3] = ["count_pure", "count_idempotent", "count_unsafe"];

#[tokio::test]
async fn a_kill_between_a_tools_request_and_its_outcome_repeats_only_what_may_be_repeated() {
    let world = World::new().await;
    let server = world.server().await;
    world.hold_tools();
    let scripts = TOOLS.map(|tool| (tool, Script::say(&["Let me see. "]).and_call(tool).then_say(&["All ", "done."])));
    let mut runs = Runs::start(&server, "crash-agent", &scripts).await;
    let started = TOOLS.len() * MODES.len();
    world.called(started).await;
    server.kill().await;
    let before = runs.broken().await;
    let calls_before = world.calls_by_id();
    assert_eq!(calls_before.len(), started);

    world.let_tools_go();
    let server = world.server().await;
    let (unsafe_runs, others): (Vec<_>, Vec<_>) =
        runs.modes.keys().cloned().partition(|run| run.starts_with("count_unsafe"));
    let mut ended = BTreeMap::new();
    for run in &others {
        let seen = server.api.until("crash-agent", run, run, "COMPLETED").await;
        assert_eq!(seen["content"], "Let me see. All done.", "{run}");
        world.database().assert_ended_once(run).await;
        ended.insert(run.clone(), seen);
    }
    for run in &unsafe_runs {
        let seen = server.api.until("crash-agent", run, run, "PAUSED").await;
        let events = world.database().events_of(run).await;
        assert_eq!(events.last().unwrap(), "RunPaused", "{run}: {events:?}");
        assert!(events.iter().any(|event| event == "RunToolOutcomeUnknown"), "{run}: {events:?}");
        ended.insert(run.clone(), seen);
    }
    // Unsafe calls came once; the others once more, under the key of the first time.
    let calls = world.calls_by_id();
    assert_eq!(calls.len(), started, "no call got another id");
    for ((tool, id), keys) in &calls {
        let expected = if tool == "count_unsafe" { 1 } else { 2 };
        assert_eq!(keys.len(), expected, "{tool} {id}");
        assert!(keys.iter().all(|key| *key == calls_before[&(tool.clone(), id.clone())][0]), "{tool} {id}: {keys:?}");
    }
    runs.check_watches(&server, &before, &ended).await;
}

#[tokio::test]
async fn a_kill_between_a_tools_outcome_and_the_next_model_call_repeats_no_tool() {
    let world = World::new().await;
    let server = world.server().await;
    let scripts = TOOLS.map(|tool| {
        (tool, Script::say(&["Let me see. "]).and_call(tool).then_say(&["All ", "done."]).hold(0, "second"))
    });
    let mut runs = Runs::start(&server, "crash-agent", &scripts).await;
    let started = TOOLS.len() * MODES.len();
    world.model.arrived("second", started).await;
    server.kill().await;
    let before = runs.broken().await;

    world.model.open("second");
    let server = world.server().await;
    let ended = runs.until(&server, "COMPLETED").await;
    for (run, seen) in &ended {
        assert_eq!(seen["content"], "Let me see. All done.", "{run}");
        world.database().assert_ended_once(run).await;
    }
    let calls = world.calls_by_id();
    assert_eq!(calls.len(), started);
    assert!(calls.values().all(|keys| keys.len() == 1), "{calls:?}");
    runs.check_watches(&server, &before, &ended).await;
}

#[tokio::test]
async fn queued_runs_survive_a_kill_and_keep_their_order() {
    let world = World::new().await;
    let server = world.server().await;
    let held = Script::say(&["first"]).hold(0, "start").message();
    let mut order = vec![server.api.background("my-agent", &[("message", &held), ("session_id", "s")]).await];
    world.model.arrived("start", 1).await;
    for n in 0..5 {
        let message = format!("queued {n}.");
        order.push(server.api.background("my-agent", &[("message", &message), ("session_id", "s")]).await);
    }
    server.kill().await;
    world.model.open("start");
    let server = world.server().await;
    for run in &order {
        server.api.until("my-agent", run, "s", "COMPLETED").await;
        world.database().assert_ended_once(run).await;
    }
    let ended: Vec<String> =
        sqlx::query_scalar("SELECT substr(stream_id, 5) FROM events WHERE type = 'RunSucceeded' ORDER BY position")
            .fetch_all(&world.database().sql)
            .await
            .unwrap();
    assert_eq!(ended, order);
}

#[tokio::test]
async fn a_cancelled_run_stays_cancelled_over_a_kill() {
    let world = World::new().await;
    let server = world.server().await;
    let script = Script::say(&["half ", "whole"]).hold(1, "never").message();
    let mut watch = server.api.stream("my-agent", &[("message", &script), ("session_id", "s"), ("run_id", "r")]).await;
    watch.until_said("half ").await;
    assert_eq!(server.api.cancel("my-agent", "r", "s").await, 200);
    server.kill().await;
    let server = world.server().await;
    server.api.until("my-agent", "r", "s", "CANCELLED").await;
    world.database().assert_ended_once("r").await;
    assert_eq!(world.model.requests().len(), 1);
}

#[tokio::test]
async fn after_sigterm_in_the_middle_the_next_start_finishes_the_runs() {
    let world = World::new().await;
    let server = world.server().await;
    let script = Script::say(&["one ", "two ", "three"]).hold(2, "third");
    let mut runs = Runs::start(&server, "my-agent", &[("text", script)]).await;
    for watch in runs.watches.values_mut() {
        watch.until_said("one two ").await;
    }
    world.model.arrived("third", MODES.len()).await;
    // It would be told where to ask.
    runs.waiting.shutdown().await;
    assert!(server.terminate().await.success());
    let before = runs.broken().await;
    let left = eventually("the node is gone", async || {
        let nodes = world.database().count("SELECT count(*) FROM nodes WHERE node_id <> $1", "").await;
        (nodes == 0).then_some(nodes)
    });
    left.await;

    world.model.open("third");
    let server = world.server().await;
    let ended = runs.until(&server, "COMPLETED").await;
    for (run, seen) in &ended {
        assert_eq!(seen["content"], "one two three", "{run}");
        let events = world.database().assert_ended_once(run).await;
        assert!(!events.iter().any(|event| event == "RunCancelRequested"), "{run}: {events:?}");
    }
    runs.check_watches(&server, &before, &ended).await;
}

#[tokio::test]
async fn a_finished_runs_answer_is_the_same_after_a_kill() {
    let world = World::new().await;
    let server = world.server().await;
    let script = Script::call(&[("count_unsafe", json!({}))]).then_say(&["All ", "done."]).message();
    let frames = server.api.stream("crash-agent", &[("message", &script), ("session_id", "s")]).await.rest().await;
    let run = text(&frames[0].data["run_id"]).to_owned();
    let before = server.api.look("crash-agent", &run, "s").await.unwrap();
    server.kill().await;
    let server = world.server().await;
    assert_eq!(server.api.look("crash-agent", &run, "s").await.unwrap(), before);
    let again = server.api.resume("crash-agent", &run, "s", None).await.rest().await;
    assert_eq!(again[0].event, "replay");
    assert_eq!(again[1..], frames[..]);
    assert_eq!(world.calls().len(), 1);
}
