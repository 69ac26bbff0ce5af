//! Workflows over the wire, and kill -9 in the middle of their steps.

use serde_json::{Value, json};

use crate::support::{Api, Frame, Script, World, check_order, eventually, text};
use crate::teams::{each_ended_once, status};

/// Answers everything that the run asks about its steps with what `answer` makes of each.
async fn answer_steps(api: &Api, workflow: &str, run: &str, paused: &Value, answer: impl Fn(&mut Value)) {
    let mut requirements = paused["step_requirements"].clone();
    requirements.as_array_mut().unwrap().iter_mut().for_each(answer);
    let requirements = requirements.to_string();
    let fields = [("session_id", "s"), ("stream", "false"), ("step_requirements", requirements.as_str())];
    let response = api.post(&format!("/workflows/{workflow}/runs/{run}/continue")).form(&fields).send().await.unwrap();
    assert_eq!(response.status(), 200, "{}", response.text().await.unwrap());
}

/// Takes the watch up after its last frame, and from the beginning: both end once, and agree.
async fn check_watch(api: &Api, workflow: &str, before: Vec<Frame>) {
    check_order(&before);
    let last = before.iter().filter_map(|frame| frame.id).max();
    let after = api.resume(workflow, "r", "s", last).await.rest().await;
    let both = [before, after].concat();
    check_order(&both);
    let whole = api.resume(workflow, "r", "s", None).await.rest().await;
    check_order(&whole);
    for frames in [&both, &whole] {
        assert_eq!(frames.iter().filter(|frame| frame.event == "WorkflowCompleted").count(), 1, "{frames:#?}");
    }
    for frame in both.iter().filter(|frame| frame.id.is_some()) {
        let again = whole.iter().find(|other| other.id == frame.id);
        assert!(again.is_none_or(|again| again == frame), "{frame:?} is also {again:?}");
    }
}

#[tokio::test]
async fn a_kill_in_a_parallel_block_with_one_branch_done_repeats_only_the_other() {
    let world = World::new().await;
    let server = world.server().await;
    world.hold_tools();
    let says = Script::say(&["Said."]).message();
    let fields = [("message", says.as_str()), ("session_id", "s"), ("run_id", "r"), ("background", "true")];
    let mut watch = server.api.workflows().stream("crash-parallel", &fields).await;
    world.called(1).await;
    watch.until("StepCompleted").await;
    server.kill().await;
    let before = watch.rest().await;

    world.let_tools_go();
    let server = world.server().await;
    let api = server.api.workflows();
    let seen = status(&api, "crash-parallel", "r", "s", "COMPLETED").await;
    let calls = world.calls();
    let names: Vec<&str> = calls.iter().map(|(tool, _, _)| tool.as_str()).collect();
    assert_eq!(names, ["count_idempotent", "count_idempotent", "count_unsafe"], "{seen}");
    assert_eq!(calls[0].2, calls[1].2, "with the key of the first time");
    assert_eq!(world.model.requests().len(), 1, "the branch that was done is not run again");
    let steps = seen["step_results"][0]["steps"].as_array().unwrap();
    assert_eq!(steps.iter().map(|step| text(&step["content"])).collect::<Vec<_>>(), ["Said.", "ok"], "{seen}");
    each_ended_once(&world, "r", 2).await;
    check_watch(&api, "crash-parallel", before).await;
}

#[tokio::test]
async fn a_kill_in_the_second_iteration_of_a_loop_goes_on_there() {
    let world = World::new().await;
    let server = world.server().await;
    let fields = [("message", "go"), ("session_id", "s"), ("run_id", "r"), ("background", "true")];
    let watch = server.api.workflows().stream("crash-loop", &fields).await;
    // The second turn takes its time.
    world.called(2).await;
    server.kill().await;
    let before = watch.rest().await;

    let server = world.server().await;
    let api = server.api.workflows();
    // Nobody knows what an unsafe call did that a kill cut off, so a person is asked.
    let paused = status(&api, "crash-loop", "r", "s", "PAUSED").await;
    assert_eq!(paused["step_requirements"][0]["step_name"], "turn", "{paused}");
    answer_steps(&api, "crash-loop", "r", &paused, |needed| needed["edited_output"] = json!("done by hand")).await;
    let seen = status(&api, "crash-loop", "r", "s", "COMPLETED").await;
    let calls = world.calls();
    assert_eq!(calls.len(), 3, "one call for each turn: {calls:?}");
    let turns: Vec<&str> =
        seen["step_results"][0]["steps"].as_array().unwrap().iter().map(|step| text(&step["content"])).collect();
    assert_eq!(turns, ["ok", "done by hand", "ok"], "{seen}");
    each_ended_once(&world, "r", 1).await;
    check_watch(&api, "crash-loop", before).await;
}

#[tokio::test]
async fn a_team_in_a_workflow_waits_for_a_person_across_a_kill() {
    let world = World::new().await;
    let (first, other) = (world.server().await, world.server().await);
    let asks = Script::call(&[("ask_pure", json!({}))]).then_say(&["Asked."]);
    let hands = json!({"member_id": "asking-agent", "task": asks.message()});
    let script = Script::call(&[("delegate_task_to_member", hands)]).then_say(&["All told."]);
    let run = first
        .api
        .workflows()
        .background("crash-team-step", &[("message", &script.message()), ("session_id", "s")])
        .await;
    let paused = status(&first.api.workflows(), "crash-team-step", &run, "s", "PAUSED").await;
    assert_eq!(paused["step_requirements"][0]["executor_type"], "team", "{paused}");
    first.kill().await;

    let pending = other.api.ok("/approvals?status=pending").await;
    let path = format!("/approvals/{}/resolve", text(&pending["data"][0]["id"]));
    let answer = other.api.post(&path).json(&json!({"status": "approved"})).send().await.unwrap();
    assert_eq!(answer.status(), 200, "{}", answer.text().await.unwrap());
    let seen = status(&other.api.workflows(), "crash-team-step", &run, "s", "COMPLETED").await;
    assert_eq!((&seen["content"], world.calls().len()), (&json!("All told."), 1), "{seen}");
    assert_eq!(world.model.requests().len(), 4, "no model is asked twice");
    each_ended_once(&world, &run, 3).await;
}

#[tokio::test]
async fn cancelling_a_workflow_on_another_server_stops_its_steps() {
    let world = World::new().await;
    let (first, other) = (world.server().await, world.server().await);
    world.hold_tools();
    let holds = Script::say(&["half ", "a word"]).hold(1, "never").message();
    let run = first.api.workflows().background("crash-parallel", &[("message", &holds), ("session_id", "s")]).await;
    world.called(1).await;
    world.model.arrived("never", 1).await;
    assert_eq!(other.api.workflows().cancel("crash-parallel", &run, "s").await, 200);
    let seen = status(&other.api.workflows(), "crash-parallel", &run, "s", "CANCELLED").await;
    assert_eq!(seen["step_executor_runs"][0]["status"], "CANCELLED", "{seen}");
    each_ended_once(&world, &run, 2).await;
    assert_eq!(world.calls().len(), 1, "nothing starts after it");
}

#[tokio::test]
async fn clients_find_out_what_was_wrong_with_what_they_sent() {
    let world = World::new().await;
    let server = world.server().await;
    let api = server.api.workflows();
    let paused = server.api.workflows().run("hitl-workflow", &[("message", "x"), ("session_id", "s")]).await;
    let run = text(&paused["run_id"]).to_owned();
    for wrong in [
        json!([{"step_id": "nope", "confirmed": true}]),
        json!([{"confirmed": true}]),
        json!([5]),
        json!({"step_id": "nope"}),
        json!([{"step_id": paused["step_requirements"][0]["step_id"], "confirmed": "maybe"}]),
    ] {
        let wrong = wrong.to_string();
        let fields = [("session_id", "s"), ("stream", "false"), ("step_requirements", wrong.as_str())];
        let path = format!("/workflows/hitl-workflow/runs/{run}/continue");
        let response = api.post(&path).form(&fields).send().await.unwrap();
        let (status, body) = (response.status(), response.text().await.unwrap());
        assert!(status.is_client_error() && !body.is_empty(), "{wrong}: {status} {body}");
    }
    // It still waits, and goes on when it is answered well; the same answer again changes nothing.
    let again = eventually("the pause", async || api.look("hitl-workflow", &run, "s").await.ok()).await;
    assert_eq!(again["status"], "PAUSED");
    answer_steps(&api, "hitl-workflow", &run, &again, |needed| needed["confirmed"] = json!(true)).await;
    let next = status(&api, "hitl-workflow", &run, "s", "PAUSED").await;
    assert_eq!(next["paused_step_name"], "choose", "{next}");
}
