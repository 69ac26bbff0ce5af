//! What a person is asked about, and what not: a call that cannot be made as it stands goes back to the model.

use daybook_domain::run::{AnswerError, RunStatus, ToolOutcome};
use daybook_engine::ExecuteError;
use serde_json::{Value, json};

use crate::pauses::{continuing, filled, paused};
use crate::world::*;

#[tokio::test(flavor = "multi_thread")]
async fn what_is_filled_in_is_held_against_all_that_the_schema_says() {
    let world = World::new().await;
    let engine = world.engine().await;
    world.script([Turn::Call(&[("a", "travel", r#"{"to":"x","code":"the model's"}"#)]), Turn::Say("done")]);
    let (run, state) = paused(&engine, "s").await;
    let version = world.kinds(&run).await.len();
    for (wrong, why) in [
        (json!({"color": "red", "nights": "3"}), "\"nights\" must be of type integer"),
        (json!({"color": "red", "nights": 0}), "/nights"),
        (json!({"color": "blue"}), "one of \"red\", \"green\""),
        (json!({"color": "red", "code": "abcd"}), "/code"),
        (json!({"color": "red", "code": "A"}), "/code"),
        (json!({"nights": 3}), "\"color\" has no value"),
    ] {
        let refused = engine.execute(envelope(continuing(&run, "s", vec![filled("a", wrong.clone())]))).await;
        let Err(ExecuteError::Answer(AnswerError::Unfit(told))) = refused else { panic!("{wrong}: {refused:?}") };
        assert!(told.contains(why), "{wrong}: {told}");
    }
    assert_eq!(world.kinds(&run).await.len(), version, "what does not fit changes nothing");
    assert!(world.calls.lock().unwrap().is_empty() && state.status == RunStatus::Paused);
    let right = filled("a", json!({"color": "red", "nights": 3, "code": null}));
    engine.execute(envelope(continuing(&run, "s", vec![right]))).await.unwrap();
    assert_eq!(ended(&engine, &run).await.status, RunStatus::Completed);
    // Without what the model wrote where a person was asked, and was shown nothing.
    assert_eq!(Value::from(world.given.lock().unwrap()[0].clone()), json!({"to": "x", "color": "red", "nights": 3}));
    engine.shutdown().await;
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_asked_to_fill_in_a_call_that_cannot_be_made() {
    let world = World::new().await;
    let engine = world.engine().await;
    let calls = Turn::Call(&[
        ("a", "travel", r#"{"to":5}"#),
        ("b", "travel", r#"{"to":"x","nope":1}"#),
        ("c", "travel", "{}"),
        ("d", "fill", r#"{"key":5}"#),
    ]);
    world.script([calls, Turn::Say("a pity")]);
    let run = run(&engine, start("go", "s")).await;
    let state = ended(&engine, &run).await;
    assert_eq!((state.status, state.content().as_str()), (RunStatus::Completed, "a pity"));
    let told = |call: &str| match &state.tool(call).unwrap().outcome {
        Some(ToolOutcome::Failed(told)) => told.clone(),
        other => panic!("{call}: {other:?}"),
    };
    for (call, why) in [("a", "/to"), ("b", "nope"), ("c", "\"to\" is a required"), ("d", "/key")] {
        assert!(told(call).contains(why), "{}", told(call));
    }
    assert!(world.calls.lock().unwrap().is_empty());
    engine.shutdown().await;
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_could_not_wait_with_its_secret_is_told_so_and_not_to_come_again() {
    let world = World::new().await;
    let engine = world.engine().await;
    let call = Turn::Call(&[("a", "confirm", r#"{"to":"bob","password":"hunter2"}"#)]);
    world.script([call, Turn::Say("a pity")]);
    let run = run(&engine, start("go", "s")).await;
    let state = ended(&engine, &run).await;
    let Some(ToolOutcome::Failed(told)) = &state.tools[0].outcome else { panic!("{state:?}") };
    assert!(told.contains("confirm was not called: its argument \"password\" holds a secret"), "{told}");
    assert!(told.contains("do not call it again with that") && state.status == RunStatus::Completed, "{told}");
    assert!(world.calls.lock().unwrap().is_empty());
    engine.shutdown().await;
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_number_that_would_silently_be_another_is_told_to_the_model_before_anybody_is_asked() {
    let world = World::new().await;
    let engine = world.engine().await;
    let calls = Turn::Call(&[
        ("a", "confirm", r#"{"to":"bob","amount":12345678901234567890123}"#),
        ("b", "fill", r#"{"amount":18446744073709551616}"#),
        ("c", "pure", r#"{"amount":-9223372036854775809}"#),
        ("d", "pure", r#"{"amount":18446744073709551615}"#),
    ]);
    world.script([calls, Turn::Say("done")]);
    let run = run(&engine, start("go", "s")).await;
    let state = ended(&engine, &run).await;
    assert_eq!(state.status, RunStatus::Completed);
    for (call, number) in
        [("a", "12345678901234567890123"), ("b", "18446744073709551616"), ("c", "-9223372036854775809")]
    {
        let Some(ToolOutcome::Failed(told)) = &state.tool(call).unwrap().outcome else { panic!("{call}: {state:?}") };
        assert!(told.contains(number) && told.contains("give it as a text"), "{told}");
    }
    let given = world.given.lock().unwrap().clone();
    assert_eq!((given.len(), &given[0]["amount"]), (1, &json!(18_446_744_073_709_551_615_u64)));
    engine.shutdown().await;
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn questions_that_nobody_could_answer_are_told_to_the_model() {
    let world = World::new().await;
    let engine = world.engine().await;
    let calls = Turn::Call(&[
        ("a", "choose", r#"{"questions":[]}"#),
        ("b", "choose", r#"{"questions":[{"question":"Where?","options":["Oslo","Rome"]}]}"#),
        ("c", "choose", r#"{"questions":[{"question":"Where?","options":[]}]}"#),
    ]);
    world.script([calls, Turn::Say("a pity")]);
    let run = run(&engine, start("go", "s")).await;
    let state = ended(&engine, &run).await;
    assert_eq!((state.status, state.content().as_str()), (RunStatus::Completed, "a pity"));
    for call in &state.tools {
        let Some(ToolOutcome::Failed(told)) = &call.outcome else { panic!("{call:?}") };
        assert!(told.contains("asked nobody") && told.contains("Give `questions` as"), "{told}");
    }
    engine.shutdown().await;
    world.close().await;
}
