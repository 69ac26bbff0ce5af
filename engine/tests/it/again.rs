//! Approved calls that a crash hid: what lets them run again, and what does not.

use std::sync::atomic::Ordering;

use daybook_domain::approval::{ApprovalError, ApprovalStatus, Verdict};
use daybook_domain::command::Command;
use daybook_domain::ids::{ApprovalId, RunId};
use daybook_domain::message::Role;
use daybook_domain::run::{Answer, RunStatus};
use daybook_engine::ExecuteError;

use crate::pauses::{approval_of, continuing, paused, resolve};
use crate::world::*;

/// A call of the tool that was approved and begun, and whose node died in the midst of it; with its new approval.
async fn hidden_by_a_crash(world: &World, tool: &'static str) -> (daybook_engine::Engine, RunId, ApprovalId) {
    let first = world.engine().await;
    let call: &'static [(&str, &str, &str)] = match tool {
        "denies" => &[("a", "denies", "{\"to\":\"bob\",\"hold\":true}")],
        _ => &[("a", "approve", "{\"to\":\"bob\",\"hold\":true}")],
    };
    world.script([Turn::Call(call), Turn::Say("done")]);
    let (run, state) = paused(&first, "s").await;
    first.execute(envelope(resolve(&approval_of(&state), Verdict::Approved, "boss"))).await.unwrap();
    until("the tool runs", async || world.calls.lock().unwrap().len() == 1).await;
    world.kill(first).await;
    let second = world.engine().await;
    let again = approval_of(&ended(&second, &run).await);
    (second, run, again)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_result_of_an_approved_call_that_a_crash_hid_may_be_told_and_nothing_runs_again() {
    let world = World::new().await;
    let (engine, run, again) = hidden_by_a_crash(&world, "approve").await;
    let told = Answer { call_id: "a".into(), result: Some("it was done".into()), ..Answer::default() };
    engine.execute(envelope(continuing(&run, "s", vec![told]))).await.unwrap();
    let state = ended(&engine, &run).await;
    assert_eq!((state.status, world.calls.lock().unwrap().len()), (RunStatus::Completed, 1));
    assert!(state.messages.iter().any(|message| message.content.as_deref() == Some("it was done")));
    // Nobody is asked any more what nobody need decide.
    assert_eq!(engine.approval(LOG, &again).await.unwrap().unwrap().status, ApprovalStatus::Cancelled);
    let late = engine.execute(envelope(resolve(&again, Verdict::Approved, "boss"))).await;
    assert!(matches!(late, Err(ExecuteError::Approval(ApprovalError::Settled { .. }))));
    engine.shutdown().await;
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_approval_to_run_a_call_again_expires_by_the_same_rule() {
    let world = World::new().await;
    let (engine, run, again) = hidden_by_a_crash(&world, "denies").await;
    world.clock.fetch_add(61_000, Ordering::SeqCst);
    engine.execute(envelope(Command::WatchApproval(again.clone()))).await.unwrap();
    let state = ended(&engine, &run).await;
    assert_eq!((state.status, world.calls.lock().unwrap().len()), (RunStatus::Completed, 1));
    assert_eq!(engine.approval(LOG, &again).await.unwrap().unwrap().status, ApprovalStatus::Expired);
    let told = state.messages.iter().find(|message| message.role == Role::Tool).unwrap();
    assert!(told.content.as_ref().unwrap().contains("not known whether the call was carried out"), "{told:?}");
    engine.shutdown().await;
    world.close().await;
}
