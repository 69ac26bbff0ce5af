//! Teams over the wire, and kill -9 in the middle of what their members do.

use serde_json::{Value, json};

use crate::support::{Api, Frame, Script, Server, World, check_order, eventually, text};

/// A leader's script that hands this out, each to the member of its id, and then says so.
fn hands_out(work: &[(&str, &Script)]) -> Script {
    let arguments: Vec<Value> =
        work.iter().map(|(member, script)| json!({"member_id": member, "task": script.message()})).collect();
    let calls: Vec<(&str, Value)> =
        arguments.into_iter().map(|arguments| ("delegate_task_to_member", arguments)).collect();
    Script::call(&calls).then_say(&["All ", "told."])
}

/// The runs of a tree by the log, the one at the top first.
async fn tree(world: &World, root: &str) -> Vec<String> {
    let (mut open, mut tree) = (vec![root.to_owned()], Vec::new());
    while let Some(run) = open.pop() {
        open.extend(world.database().children_of(&run).await);
        tree.push(run);
    }
    tree
}

/// Each run of the tree has exactly one end in the log.
pub async fn each_ended_once(world: &World, root: &str, runs: usize) {
    let tree = tree(world, root).await;
    assert_eq!(tree.len(), runs, "{tree:?}");
    for run in tree {
        world.database().assert_ended_once(&run).await;
    }
}

pub async fn status(api: &Api, team: &str, run: &str, session: &str, status: &str) -> Value {
    eventually(&format!("{run} is {status}"), async || {
        let seen = api.look(team, run, session).await.ok()?;
        (seen["status"] == status).then_some(seen)
    })
    .await
}

/// Answers what the run asks, all of it with yes.
async fn say_yes(server: &Server, team: &str, run: &str, session: &str, paused: &Value) {
    let mut requirements = paused["requirements"].clone();
    for needed in requirements.as_array_mut().unwrap() {
        needed["confirmation"] = json!(true);
        needed["tool_execution"]["confirmed"] = json!(true);
    }
    let requirements = requirements.to_string();
    let fields = [("session_id", session), ("stream", "false"), ("requirements", &requirements)];
    let path = format!("/teams/{team}/runs/{run}/continue");
    let answer = server.api.post(&path).form(&fields).send().await.unwrap();
    assert_eq!(answer.status(), 200, "{}", answer.text().await.unwrap());
}

#[tokio::test]
async fn a_kill_in_a_members_tool_call_repeats_only_what_may_be_repeated() {
    for tool in ["count_pure", "count_idempotent", "count_unsafe"] {
        let world = World::new().await;
        let server = world.server().await;
        world.hold_tools();
        let calls = Script::call(&[(tool, json!({}))]).then_say(&["Done."]);
        let says = Script::say(&["Said."]);
        let script = hands_out(&[("crash-agent", &calls), ("asking-agent", &says)]);
        let api = server.api.teams();
        let mut watch = api
            .stream(
                "crash-team",
                &[("message", &script.message()), ("session_id", "s"), ("run_id", "r"), ("background", "true")],
            )
            .await;
        world.called(1).await;
        watch.until("RunCompleted").await;
        server.kill().await;
        let before = watch.rest().await;
        check_order(&before);

        world.let_tools_go();
        let server = world.server().await;
        let api = server.api.teams();
        let waits = tool == "count_unsafe";
        let seen = status(&api, "crash-team", "r", "s", if waits { "PAUSED" } else { "COMPLETED" }).await;
        if waits {
            let needed = &seen["requirements"][0];
            assert_eq!(needed["member_agent_id"], "crash-agent", "{seen}");
            say_yes(&server, "crash-team", "r", "s", &seen).await;
            status(&api, "crash-team", "r", "s", "COMPLETED").await;
        }
        // It was called again where that does no harm, or where a person said so.
        assert_eq!(world.calls().len(), 2, "{tool}");
        let keys: Vec<String> = world.calls().into_iter().map(|(_, _, key)| key).collect();
        assert_eq!(keys[0], keys[1], "{tool}");
        assert_eq!(world.model.requests().len(), 5, "{tool}: no model is asked twice");
        each_ended_once(&world, "r", 3).await;

        // Who watched goes on where they were; who comes later sees the same.
        let last = before.iter().filter_map(|frame| frame.id).max();
        let after = api.resume("crash-team", "r", "s", last).await.rest().await;
        let both = [before, after].concat();
        check_order(&both);
        let whole = api.resume("crash-team", "r", "s", None).await.rest().await;
        check_order(&whole);
        let ends = |frames: &[Frame]| frames.iter().filter(|frame| frame.event == "TeamRunCompleted").count();
        assert_eq!((ends(&both), ends(&whole)), (1, 1), "{tool}");
        for frame in both.iter().filter(|frame| frame.id.is_some()) {
            let again = whole.iter().find(|other| other.id == frame.id);
            assert!(again.is_none_or(|again| again == frame), "{tool}: {frame:?} is also {again:?}");
        }
    }
}

#[tokio::test]
async fn a_nested_teams_pause_survives_a_kill_and_another_server_goes_on_with_it() {
    let world = World::new().await;
    let (first, other) = (world.server().await, world.server().await);
    let asks = Script::call(&[("ask_pure", json!({}))]).then_say(&["Asked."]);
    let inner = hands_out(&[("asking-agent", &asks)]);
    let script = hands_out(&[("crash-team", &inner)]);
    let run = first.api.teams().background("upper-team", &[("message", &script.message()), ("session_id", "s")]).await;
    let paused = status(&first.api.teams(), "upper-team", &run, "s", "PAUSED").await;
    assert_eq!(paused["requirements"][0]["member_agent_id"], "asking-agent", "{paused}");
    assert_eq!(paused["requirements"][0]["tool_execution"]["tool_name"], "ask_pure");
    first.kill().await;

    // What it waits for is an approval, which is given where there is still a server.
    let pending = other.api.ok("/approvals?status=pending").await;
    let id = text(&pending["data"][0]["id"]).to_owned();
    let path = format!("/approvals/{id}/resolve");
    let answer = other.api.post(&path).json(&json!({"status": "approved"})).send().await.unwrap();
    assert_eq!(answer.status(), 200, "{}", answer.text().await.unwrap());
    let seen = status(&other.api.teams(), "upper-team", &run, "s", "COMPLETED").await;
    assert_eq!((&seen["content"], world.calls().len()), (&json!("All told."), 1));
    assert_eq!(seen["member_responses"][0]["member_responses"][0]["content"], "Asked.", "{seen}");
    assert_eq!(world.model.requests().len(), 6, "two for each run");
    each_ended_once(&world, &run, 3).await;
}

#[tokio::test]
async fn cancelling_a_team_on_another_server_stops_its_members() {
    let world = World::new().await;
    let (first, other) = (world.server().await, world.server().await);
    world.hold_tools();
    let calls = Script::call(&[("count_unsafe", json!({}))]).then_say(&["Done."]);
    let says = Script::say(&["half ", "a word"]).hold(1, "never");
    let script = hands_out(&[("crash-agent", &calls), ("asking-agent", &says)]);
    let run = first.api.teams().background("crash-team", &[("message", &script.message()), ("session_id", "s")]).await;
    world.called(1).await;
    world.model.arrived("never", 1).await;
    assert_eq!(other.api.teams().cancel("crash-team", &run, "s").await, 200);
    let seen = status(&other.api.teams(), "crash-team", &run, "s", "CANCELLED").await;
    let statuses: Vec<&Value> =
        seen["member_responses"].as_array().unwrap().iter().map(|member| &member["status"]).collect();
    assert_eq!(statuses, ["CANCELLED", "CANCELLED"], "{seen}");
    each_ended_once(&world, &run, 3).await;
}

#[tokio::test]
async fn a_team_takes_about_as_long_as_its_slowest_member() {
    // All five are there at once: none goes on before the last has come. That is what is shown; no clock is asked.
    let world = World::new().await;
    let server = world.server().await;
    let waits = Script::say(&["slow"]).hold(0, "all");
    let work = [("crash-agent", &waits); 5];
    let run = server
        .api
        .teams()
        .background("crash-team", &[("message", &hands_out(&work).message()), ("session_id", "s")])
        .await;
    world.model.arrived("all", 5).await;
    world.model.open("all");
    status(&server.api.teams(), "crash-team", &run, "s", "COMPLETED").await;
    each_ended_once(&world, &run, 6).await;
}
