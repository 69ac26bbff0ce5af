//! Steps that fail, take long, or are stopped.

use std::sync::atomic::Ordering;

use daybook_domain::command::ContinueRun;
use daybook_domain::ids::RunId;
use daybook_domain::run::{Answer, ErrorKind, RunStatus};
use daybook_domain::workflow::{Expression, OnError, Policies, Retries, Step};
use daybook_engine::Engine;
use serde_json::json;

use crate::flow_world::*;
use crate::pauses::continuing;
use crate::world::*;

fn on_error(step: Step, on_error: OnError) -> Step {
    with(step, Policies { on_error, ..Policies::default() })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_step_is_skipped_unless_its_policy_says_otherwise() {
    let flows = Flows::new().await;
    for bad in ["fail", "panic"] {
        let engine = flows.engine(workflow(vec![function("bad", bad)])).await;
        let state = told(&engine, "x").await;
        assert_eq!(state.status, RunStatus::Completed);
        let output = results(&state)[0].clone();
        let error = if bad == "fail" { "on purpose" } else { "the function broke down" };
        assert_eq!((output.success, output.error.as_deref()), (false, Some(error)));
        assert_eq!(state.content(), format!("Step skipped due to error: {error}"));
        engine.shutdown().await;
    }
    let steps = vec![on_error(function("bad", "fail"), OnError::Fail), function("never", "join")];
    let engine = flows.engine(workflow(steps)).await;
    let state = told(&engine, "x").await;
    assert_eq!(state.status, RunStatus::Error);
    assert_eq!(state.error, Some((ErrorKind::StepError, "Step \"bad\" failed: on purpose".into())));
    assert_eq!(flows.done.times("1"), 0);
    engine.shutdown().await;
    flows.world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_decision_that_cannot_be_made_is_a_failure_of_its_block() {
    let flows = Flows::new().await;
    let steps =
        |test: Expression| vec![condition("if", test, vec![function("a", "upper")], vec![]), function("b", "join")];
    for (test, error) in [
        (Expression::Function("broken".into()), "the closure \"broken\": no idea"),
        (cel("outputs.nowhere == 'a'"), "there is no key \"nowhere\""),
        (cel("input"), "must say true or false"),
    ] {
        let engine = flows.engine(workflow(steps(test))).await;
        let state = told(&engine, "x").await;
        let output = results(&state)[0].clone();
        assert!(output.error.as_ref().unwrap().contains(error), "{output:?}");
        assert_eq!(results(&state).len(), 2);
        engine.shutdown().await;
    }
    let steps = vec![on_error(router("r", cel("'nowhere'"), vec![function("x", "upper")]), OnError::Fail)];
    let engine = flows.engine(workflow(steps)).await;
    let state = told(&engine, "x").await;
    let (_, why) = state.error.unwrap();
    assert_eq!(why, "Step \"r\" failed: the router has no choice \"nowhere\"; there are: x");
    engine.shutdown().await;
    flows.world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_argument_that_cannot_be_made_is_a_failure_of_its_step() {
    let flows = Flows::new().await;
    let steps = vec![tool("t", "idem", &[("x", cel("1 / (iteration * 1)"))]), function("b", "join")];
    let engine = flows.engine(workflow(steps)).await;
    let state = told(&engine, "x").await;
    assert!(results(&state)[0].error.as_ref().unwrap().contains("its argument \"x\""), "{:?}", results(&state)[0]);
    assert_eq!(flows.world.calls.lock().unwrap().len(), 0);
    assert_eq!(flows.done.places(), ["1"]);
    engine.shutdown().await;
    flows.world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn retries_wait_and_outlive_their_node() {
    let flows = Flows::new().await;
    flows.failures.lock().unwrap().insert("0".into(), 2);
    let retries = Retries { count: 2, delay_ms: 60_000, exponential: true, cap_ms: 90_000 };
    let config = || {
        let retried = with(function("a", "flaky"), Policies { retries, ..Policies::default() });
        workflow(vec![retried, function("b", "join")])
    };
    let engine = flows.engine(config()).await;
    let run = run(&engine, telling("x", "s")).await;
    until("the first failure", async || flows.world.kinds(&run).await.iter().any(|kind| kind == "RunStepEnded")).await;
    flows.world.kill(engine).await;
    let engine = flows.engine(config()).await;
    until("the take-over", async || flows.world.kinds(&run).await.iter().any(|kind| kind == "RunTakenOver")).await;
    assert_eq!(flows.done.times("0"), 1);
    flows.world.clock.fetch_add(60_000, Ordering::SeqCst);
    let failures = async || flows.world.kinds(&run).await.iter().filter(|kind| *kind == "RunStepEnded").count();
    until("the second failure", async || failures().await == 2).await;
    assert_eq!(flows.done.times("0"), 2);
    flows.world.clock.fetch_add(90_000, Ordering::SeqCst);
    let state = ended(&engine, &run).await;
    assert_eq!(state.content(), "joined: fine");
    let keys = flows.done.keys("0");
    assert!(keys.len() == 3 && keys[0] != keys[1] && keys[1] != keys[2], "{keys:?}");
    engine.shutdown().await;
    flows.world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_takes_too_long_is_stopped() {
    let flows = Flows::new().await;
    let policies = || Policies { timeout_seconds: Some(1), ..Policies::default() };
    let steps = vec![parallel(
        "par",
        vec![
            with(function("slow", "hold"), policies()),
            with(flows.agent_step("slow agent"), policies()),
            with(tool("slow tool", "pure", &[("hold", Expression::Constant(json!(true)))]), policies()),
        ],
    )];
    let engine = flows.engine(workflow(steps)).await;
    flows.world.script([Turn::Hold("so far")]);
    let state = told(&engine, "x").await;
    assert_eq!(state.status, RunStatus::Completed);
    for output in &results(&state)[0].steps {
        assert_eq!(output.error.as_deref(), Some("the step took longer than 1 s and was stopped"), "{}", output.name);
    }
    let child = state.children().next().unwrap();
    assert_eq!(engine.run(LOG, &child.run_id).await.unwrap().unwrap().status, RunStatus::Cancelled);
    flows.each_ended_once(&engine, state.run_id().unwrap()).await;
    engine.shutdown().await;
    flows.world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failing_branch_stops_the_runs_beside_it() {
    let flows = Flows::new().await;
    let failing = parallel("par", vec![flows.agent_step("slow"), on_error(function("bad", "fail"), OnError::Fail)]);
    let engine = flows.engine(workflow(vec![failing, function("never", "join")])).await;
    flows.world.script([Turn::Hold("so far")]);
    let state = told(&engine, "x").await;
    assert_eq!(state.status, RunStatus::Error);
    let child = state.children().next().unwrap();
    assert_eq!(engine.run(LOG, &child.run_id).await.unwrap().unwrap().status, RunStatus::Cancelled);
    flows.each_ended_once(&engine, state.run_id().unwrap()).await;
    assert_eq!(flows.done.times("1"), 0);
    engine.shutdown().await;
    flows.world.close().await;
}

/// A workflow one of whose branches waits for a person while the other holds, and then does this.
async fn half_waiting(flows: &Flows, then: &str) -> (Engine, RunId) {
    let other = group("other", vec![function("wait", "hold"), on_error(function("then", then), OnError::Fail)]);
    let steps = vec![parallel("par", vec![flows.agent_step("ask"), other]), function("end", "join")];
    let engine = flows.engine(workflow(steps)).await;
    flows.world.script([Turn::Call(&[("c", "confirm", r#"{"to":"x"}"#)]), Turn::Say("sent")]);
    let run = run(&engine, telling("x", "s")).await;
    until("the pause of one branch", async || {
        let Some(state) = engine.run(LOG, &run).await.unwrap() else { return false };
        let Some(child) = state.children().next() else { return false };
        let child = engine.run(LOG, &child.run_id).await.unwrap();
        child.is_some_and(|child| child.status == RunStatus::Paused) && flows.done.times("0.1.0") == 1
    })
    .await;
    (engine, run)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_branch_that_waits_for_a_person_ends_with_the_workflow() {
    let flows = Flows::new().await;
    let (engine, run) = half_waiting(&flows, "fail").await;
    flows.go_on.add_permits(1);
    let state = ended(&engine, &run).await;
    assert_eq!(state.error, Some((ErrorKind::StepError, "Step \"then\" failed: on purpose".into())));
    let child = state.children().next().unwrap();
    assert_eq!(engine.run(LOG, &child.run_id).await.unwrap().unwrap().status, RunStatus::Cancelled);
    flows.each_ended_once(&engine, &run).await;
    engine.shutdown().await;

    flows.world.model.turns.lock().unwrap().clear();
    flows.done.0.lock().unwrap().clear();
    let (engine, run) = half_waiting(&flows, "join").await;
    engine.execute(envelope(cancelling(&run))).await.unwrap();
    let state = ended(&engine, &run).await;
    assert_eq!(state.status, RunStatus::Cancelled);
    flows.each_ended_once(&engine, &run).await;
    assert_eq!(flows.world.calls.lock().unwrap().len(), 0);
    engine.shutdown().await;
    flows.world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_counts_while_other_branches_run() {
    let flows = Flows::new().await;
    let (engine, run) = half_waiting(&flows, "join").await;
    let confirmed = Answer { call_id: "c".into(), confirmed: Some(true), ..Answer::default() };
    let component = telling("x", "s").component;
    let command = ContinueRun { component, ..continuing(&run, "s", vec![confirmed]) };
    engine.execute(envelope(command)).await.unwrap();
    assert_eq!(flows.world.calls.lock().unwrap().len(), 0);
    flows.go_on.add_permits(1);
    let state = ended(&engine, &run).await;
    assert_eq!(state.status, RunStatus::Completed);
    assert_eq!(results(&state)[0].steps[0].content, json!("sent"));
    assert_eq!(flows.world.calls.lock().unwrap().len(), 1);
    let kinds = flows.world.kinds(&run).await;
    assert!(!kinds.contains(&"RunPaused".to_owned()), "{kinds:?}");
    flows.each_ended_once(&engine, &run).await;
    engine.shutdown().await;
    flows.world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_workflow_stops_everything_under_it() {
    let flows = Flows::new().await;
    let inner = called("inner", vec![flows.agent_step("deep")]);
    let outer = workflow(vec![
        parallel("par", vec![function("code", "hold"), flows.nested("nested", &inner), function("done", "join")]),
        function("never", "join"),
    ]);
    let engine = flows.world.engine_from(flows.registry(vec![inner, outer])).await;
    flows.world.script([Turn::Hold("so far")]);
    let run = run(&engine, telling("x", "s")).await;
    until("the calls", async || {
        flows.done.times("0.0") == 1
            && flows.done.times("0.2") == 1
            && !flows.world.model.requests.lock().unwrap().is_empty()
    })
    .await;
    engine.execute(envelope(cancelling(&run))).await.unwrap();
    let state = ended(&engine, &run).await;
    assert_eq!(state.status, RunStatus::Cancelled);
    flows.each_ended_once(&engine, &run).await;
    let nested = engine.run(LOG, &state.children().next().unwrap().run_id).await.unwrap().unwrap();
    assert_eq!(nested.status, RunStatus::Cancelled);
    let deep = engine.run(LOG, &nested.children().next().unwrap().run_id).await.unwrap().unwrap();
    assert_eq!(deep.status, RunStatus::Cancelled);
    assert_eq!(flows.done.times("1"), 0);
    engine.shutdown().await;
    flows.world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_steps_run_beside_each_other_than_the_limit() {
    let flows = Flows::new().await;
    let names = ["a", "b", "c", "d"];
    let mut config = workflow(vec![parallel("par", names.map(|name| function(name, "hold")).to_vec())]);
    config.max_parallel = 2;
    let engine = flows.engine(config).await;
    let run = run(&engine, telling("x", "s")).await;
    for running in 2..=4 {
        until("as many as may", async || flows.done.places().len() == running).await;
        assert_eq!(flows.done.places().len(), running);
        flows.go_on.add_permits(1);
    }
    flows.go_on.add_permits(4);
    let state = ended(&engine, &run).await;
    assert_eq!(state.status, RunStatus::Completed);
    assert_eq!(results(&state)[0].steps.len(), 4);
    engine.shutdown().await;
    flows.world.close().await;
}
