//! A node dies in the midst of a workflow: another goes on where it was, and nothing that ended runs again.

use daybook_domain::run::RunStatus;
use daybook_domain::tool::Effect;
use daybook_domain::workflow::{Ask, Expression, StepAnswer};
use serde_json::json;

use crate::flow_world::*;
use crate::world::*;

#[tokio::test(flavor = "multi_thread")]
async fn in_a_parallel_block_only_what_had_no_outcome_runs_again() {
    let flows = Flows::new().await;
    let config = || {
        let branches = vec![
            function("a", "upper"),
            effect("b", "hold", Effect::Idempotent),
            tool("c", "idem", &[("hold", Expression::Constant(json!(true)))]),
        ];
        workflow(vec![function("first", "join"), parallel("par", branches), function("end", "join")])
    };
    let engine = flows.engine(config()).await;
    let run = run(&engine, telling("Hello", "s")).await;
    until("one branch", async || {
        let ends = flows.world.kinds(&run).await.iter().filter(|kind| *kind == "RunStepEnded").count();
        let waits = flows.done.times("1.1") == 1 && flows.world.calls.lock().unwrap().len() == 1;
        ends == 2 && waits
    })
    .await;
    flows.world.kill(engine).await;
    flows.go_on.add_permits(1);
    flows.world.tool_go_on.add_permits(1);
    let engine = flows.engine(config()).await;
    let state = ended(&engine, &run).await;
    assert_eq!(state.status, RunStatus::Completed);
    assert_eq!([flows.done.times("0"), flows.done.times("1.0"), flows.done.times("2")], [1, 1, 1]);
    let keys = flows.done.keys("1.1");
    assert!(keys.len() == 2 && keys[0] == keys[1], "{keys:?}");
    let keys = flows.world.calls.lock().unwrap().clone();
    assert!(keys.len() == 2 && keys[0] == keys[1], "{keys:?}");
    flows.each_ended_once(&engine, &run).await;
    engine.shutdown().await;
    flows.world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn in_the_second_iteration_of_a_loop_it_goes_on_there() {
    let flows = Flows::new().await;
    let config = || {
        let body = vec![function("n", "count"), function("wait", "hold")];
        workflow(vec![repeat("loop", body, Some(cel("state.count >= 3")), 9), function("end", "join")])
    };
    let engine = flows.engine(config()).await;
    let run = run(&engine, telling("Hello", "s")).await;
    flows.go_on.add_permits(1);
    until("the second iteration", async || flows.done.times("0.i2.1") == 1).await;
    flows.world.kill(engine).await;
    let engine = flows.engine(config()).await;
    flows.go_on.add_permits(5);
    let state = ended(&engine, &run).await;
    assert_eq!(state.status, RunStatus::Completed);
    let wanted = [("0.i1.0", 1), ("0.i1.1", 1), ("0.i2.0", 1), ("0.i2.1", 2), ("0.i3.0", 1), ("0.i3.1", 1), ("1", 1)];
    for (place, times) in wanted {
        assert_eq!(flows.done.times(place), times, "{place}");
    }
    assert_eq!(flows.done.places().len(), 8);
    assert_eq!(state.session_state.unwrap()["count"], json!(3));
    engine.shutdown().await;
    flows.world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unsafe_step_without_outcome_is_asked_about() {
    let flows = Flows::new().await;
    let config = || workflow(vec![effect("send", "hold", Effect::Unsafe), function("end", "join")]);
    for outcome in ["again", "done", "left"] {
        let engine = flows.engine(config()).await;
        let before = flows.done.times("0");
        let run = run(&engine, telling("Hello", outcome)).await;
        until("the call", async || flows.done.times("0") == before + 1).await;
        flows.world.kill(engine).await;
        let engine = flows.engine(config()).await;
        let state = ended(&engine, &run).await;
        assert_paused(&state);
        assert_eq!(state.open_steps().next().unwrap().0.ask, Ask::UnknownOutcome);
        assert_eq!(flows.done.times("0"), before + 1, "nobody said that it may run again");
        let (answer, content, calls) = match outcome {
            "again" => (yes(&state), "joined: held Hello", 2),
            "done" => (StepAnswer { output: Some(json!("sent")), ..answer(&state) }, "joined: sent", 1),
            _ => (
                no(&state),
                "joined: Step skipped due to error: it is not known whether the step was carried out, and \
                               it is not to run again",
                1,
            ),
        };
        flows.go_on.add_permits(usize::from(outcome == "again"));
        let state = answered(&engine, &state, vec![answer]).await;
        assert_eq!(state.content(), content);
        assert_eq!(flows.done.times("0"), before + calls);
        engine.shutdown().await;
    }
    flows.world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_runs_of_steps_are_taken_up_where_they_stand() {
    let flows = Flows::new().await;
    let inner = called("inner", vec![function("up", "upper"), flows.agent_step("ask")]);
    let registry = || {
        let outer = workflow(vec![function("first", "join"), flows.nested("nested", &inner), function("end", "join")]);
        flows.registry(vec![inner.clone(), outer])
    };
    let engine = flows.world.engine_from(registry()).await;
    flows.world.script([Turn::Call(&[("c", "idem", "{}")]), Turn::Hold("so far"), Turn::Say("in the end")]);
    let run = run(&engine, telling("Hello", "s")).await;
    until("the second model call", async || flows.world.model.requests.lock().unwrap().len() == 2).await;
    flows.world.kill(engine).await;
    let engine = flows.world.engine_from(registry()).await;
    let state = ended(&engine, &run).await;
    assert_eq!(state.content(), "joined: in the end");
    // The tool's outcome was recorded, the model call had none.
    assert_eq!(flows.world.calls.lock().unwrap().len(), 1);
    assert_eq!(flows.world.model.requests.lock().unwrap().len(), 3);
    let mut places = flows.done.places();
    places.sort();
    assert_eq!(places, ["0", "0", "2"], "the first step of each workflow, and the last");
    let detail = engine.detail(LOG, state).await.unwrap().unwrap();
    assert_eq!((detail.children.len(), detail.children[0].children.len()), (1, 1));
    flows.each_ended_once(&engine, &run).await;
    engine.shutdown().await;
    flows.world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_stops_hands_a_workflow_over() {
    let flows = Flows::new().await;
    let config = || workflow(vec![function("a", "join"), function("wait", "hold"), function("end", "join")]);
    let engine = flows.engine(config()).await;
    let run = run(&engine, telling("Hello", "s")).await;
    until("the call", async || flows.done.times("1") == 1).await;
    engine.shutdown().await;
    let engine = flows.engine(config()).await;
    flows.go_on.add_permits(2);
    let state = ended(&engine, &run).await;
    assert_eq!(state.content(), "joined: held joined: Hello");
    assert_eq!([flows.done.times("0"), flows.done.times("2")], [1, 1]);
    engine.shutdown().await;
    flows.world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_node_that_has_the_functions_goes_on() {
    let flows = Flows::new().await;
    let config = || workflow(vec![function("wait", "hold"), function("end", "join")]);
    let engine = flows.engine(config()).await;
    let run = run(&engine, telling("Hello", "s")).await;
    until("the call", async || flows.done.times("0") == 1).await;
    flows.world.kill(engine).await;
    // It has a workflow of that name, and not the functions.
    let mut registry = flows.world.registry(crate::world::config(), Default::default());
    let other = workflow(vec![flows.agent_step("other")]);
    registry.add_workflow(other, Default::default(), daybook_engine::Listing::Public).unwrap();
    let without = flows.world.engine_from(registry).await;
    let with = flows.engine(config()).await;
    flows.go_on.add_permits(1);
    let state = ended(&with, &run).await;
    assert_eq!(state.status, RunStatus::Completed);
    assert_eq!(flows.done.places(), ["0", "0", "1"]);
    without.shutdown().await;
    with.shutdown().await;
    flows.world.close().await;
}
