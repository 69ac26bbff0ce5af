//! Runs whose tool no living node has: they do not go on, say why, and can be cancelled.

use std::sync::atomic::Ordering;

use daybook_domain::approval::{ApprovalStatus, Verdict};
use daybook_domain::command::{CancelRun, Command, ContinueRun, ResolveApproval};
use daybook_domain::component::ComponentRef;
use daybook_domain::ids::{ApprovalId, ComponentId, RunId, SessionId, StreamId};
use daybook_domain::run::{Answer, CancelRequested, ErrorKind, RunEvent, RunMode, RunStatus};
use daybook_domain::tool::{ApprovalKind, ApprovalRule, Effect, Gate, OnExpiry, ToolSpec};
use daybook_engine::{Engine, ExecuteError, Outcome};
use daybook_store::{Append, Expected, LeaseOp, Meta, StreamWrite, Subject};
use daybook_tools::{Tool, ToolSet};
use serde_json::json;

use crate::world::*;

/// Tools that not every node has.
fn extra(world: &World) -> ToolSet {
    let spec = |name: &str| ToolSpec::new(name, "", json!({"type": "object"}));
    let expires = |on_expiry| {
        let rule = ApprovalRule::new(ApprovalKind::Required);
        Some(ApprovalRule { expires_after_seconds: Some(60), on_expiry, ..rule })
    };
    let specs = [
        spec("extra").effect(Effect::Pure),
        ToolSpec { gate: Gate::Confirmation, ..spec("extra_confirm") },
        ToolSpec { approval: expires(OnExpiry::Deny), ..spec("extra_denies") },
        ToolSpec { approval: expires(OnExpiry::Fail), ..spec("extra_fails") },
    ];
    specs.into_iter().map(|spec| (spec.name.clone(), world.counted(spec) as std::sync::Arc<dyn Tool>)).collect()
}

async fn status(engine: &Engine, run: &RunId) -> RunStatus {
    engine.run(LOG, run).await.unwrap().unwrap().status
}

fn confirm(run: &RunId) -> ContinueRun {
    ContinueRun {
        component: ComponentRef::agent(ComponentId::parse("my-agent").unwrap()),
        run_id: run.clone(),
        session_id: SessionId::parse("confirm").unwrap(),
        answers: vec![Answer { call_id: "a".into(), confirmed: Some(true), ..Answer::default() }],
        step_answers: vec![],
        input: None,
        from: Default::default(),
        fork: false,
        regenerate: false,
        replace_original: true,
        mode: RunMode::Plain,
    }
}

fn cancel(run: &RunId) -> CancelRun {
    CancelRun { component: None, run_id: run.clone(), session_id: None, reason: None }
}

/// A run that waits for a person in the session of this name, and its approval.
async fn paused(engine: &Engine, session: &str) -> (RunId, Option<ApprovalId>) {
    let run = run(engine, start("go", session)).await;
    let state = ended(engine, &run).await;
    assert_eq!(state.status, RunStatus::Paused);
    let approval = state.open_requirements().find_map(|(needed, _)| needed.approval.clone());
    (run, approval)
}

/// What is lacking, of a command that was refused for it.
fn lacks(refused: Result<Outcome, ExecuteError>) -> String {
    match refused {
        Err(ExecuteError::NobodyCan(lacks)) => lacks,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_is_refused_while_no_living_node_has_the_tools_and_taken_when_one_has() {
    let world = World::new().await;
    let more = world.engine_of(config(), extra(&world)).await;
    world.script([
        Turn::Call(&[("a", "extra_confirm", "{}")]),
        Turn::Call(&[("a", "extra_denies", "{}")]),
        Turn::Call(&[("a", "extra_fails", "{}")]),
    ]);
    let (confirmed, _) = paused(&more, "confirm").await;
    let (denied, denies) = paused(&more, "denies").await;
    let (failed, fails) = paused(&more, "fails").await;
    let (denies, fails) = (denies.unwrap(), fails.unwrap());
    more.shutdown().await;

    let (less, other) = (world.engine().await, world.engine().await);
    let head = world.store.head(LOG).await.unwrap();
    let resolve = |verdict| ResolveApproval {
        approval_id: denies.clone(),
        verdict,
        resolved_by: Some("boss".into()),
        data: None,
    };
    world.clock.fetch_add(61_000, Ordering::SeqCst);
    for command in [
        Command::from(confirm(&confirmed)),
        resolve(Verdict::Approved).into(),
        resolve(Verdict::Rejected).into(),
        Command::WatchApproval(denies.clone()),
    ] {
        let lacks = lacks(less.execute(envelope(command)).await);
        assert!(lacks.contains(r#"the tool "extra_confirm""#) && !lacks.contains("my-agent"), "{lacks}");
    }
    assert_eq!(world.store.head(LOG).await.unwrap(), head, "nothing was recorded");
    let pending = less.approval(LOG, &denies).await.unwrap().unwrap();
    assert_eq!((pending.status, status(&less, &denied).await), (ApprovalStatus::Pending, RunStatus::Paused));
    assert!(less.stranded().is_empty(), "what is paused is not under way");
    // To end a run needs no tools.
    less.execute(envelope(Command::WatchApproval(fails))).await.unwrap();
    let state = less.run(LOG, &failed).await.unwrap().unwrap();
    assert_eq!((state.status, state.error.unwrap().0), (RunStatus::Error, ErrorKind::ApprovalExpired));

    // Another node gets the tools while it runs: what this one is told goes on there.
    other.replace(world.registry(config(), extra(&world))).await.unwrap();
    less.execute(envelope(confirm(&confirmed))).await.unwrap();
    less.execute(envelope(Command::WatchApproval(denies.clone()))).await.unwrap();
    for run in [&confirmed, &denied] {
        assert_eq!(ended(&less, run).await.status, RunStatus::Completed);
    }
    assert_eq!(less.approval(LOG, &denies).await.unwrap().unwrap().status, ApprovalStatus::Expired);
    assert_eq!(world.calls.lock().unwrap().len(), 1, "what expired did not run");
    less.shutdown().await;
    other.shutdown().await;
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_nobody_can_go_on_with_is_told_of_and_can_be_cancelled() {
    let world = World::new().await;
    let more = world.engine_of(config(), extra(&world)).await;
    world.script([Turn::Call(&[("a", "extra", r#"{"hold":1}"#)])]);
    let held = run(&more, start("go", "s")).await;
    until("the tool's start", async || world.calls.lock().unwrap().len() == 1).await;
    let queued = run(&more, start("next", "s")).await;
    world.kill(more).await;

    let less = world.engine().await;
    until("it is seen", async || less.stranded().len() == 2).await;
    let stranded = less.stranded();
    assert!(stranded.keys().eq([&held, &queued]), "{stranded:?}");
    assert!(stranded.values().all(|lacks| lacks.contains(r#"the tool "extra""#)), "{stranded:?}");
    let new = run(&less, start("new", "s")).await;
    assert_eq!(status(&less, &new).await, RunStatus::Pending, "the session is not free");
    for run in [&queued, &held] {
        less.execute(envelope(cancel(run))).await.unwrap();
        assert_eq!(ended(&less, run).await.status, RunStatus::Cancelled);
    }
    assert_eq!(ended(&less, &new).await.status, RunStatus::Completed);
    until("nothing is left to tell", async || less.stranded().is_empty()).await;
    assert_eq!(world.calls.lock().unwrap().len(), 1, "no tool ran to end them");
    less.shutdown().await;
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_whose_node_dies_before_it_heard_of_the_cancel_is_cancelled_by_one_without_its_tools() {
    let world = World::new().await;
    let more = world.engine_of(config(), extra(&world)).await;
    let less = world.engine().await;
    world.script([Turn::Call(&[("a", "extra", r#"{"hold":1}"#)])]);
    let run = run(&more, start("go", "s")).await;
    until("the tool's start", async || world.calls.lock().unwrap().len() == 1).await;
    // It stands still: for the others it lives, and holds the run.
    let node = more.node_id().to_owned();
    more.abandon();
    let dies = async {
        until("the request", async || world.kinds(&run).await.iter().any(|kind| kind == "RunCancelRequested")).await;
        world.store.declare_dead(&node).await.unwrap();
    };
    let (asked, ()) = tokio::join!(less.execute(envelope(cancel(&run))), dies);
    asked.unwrap();
    assert_eq!(ended(&less, &run).await.status, RunStatus::Cancelled);
    assert_eq!(world.calls.lock().unwrap().len(), 1);
    less.shutdown().await;
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_that_a_node_did_not_live_to_carry_out_is_carried_out_by_another() {
    let world = World::new().await;
    let more = world.engine_of(config(), extra(&world)).await;
    world.script([Turn::Call(&[("a", "extra", r#"{"hold":1}"#)])]);
    let run = run(&more, start("go", "s")).await;
    until("the tool's start", async || world.calls.lock().unwrap().len() == 1).await;
    world.kill(more).await;
    let less = world.engine().await;
    until("it is told of", async || less.stranded().len() == 1).await;
    // What a node that died in the middle of a cancel leaves: the request, and nobody who knows of it.
    let request = CancelRequested { by: "somebody".into(), why: None.into(), at_ms: 1 };
    let write = StreamWrite {
        stream: StreamId::run(&run),
        expected: Expected::Any,
        subject: Some(Subject { session: SessionId::parse("s").unwrap(), user: None }),
        events: vec![RunEvent::CancelRequested(request).into()],
    };
    let (principal, interface) = ("somebody".to_owned(), "test".to_owned());
    let meta = Meta { principal, interface, correlation_id: None, causation_id: None, occurred_at_ms: 1 };
    let append = Append { log_id: LOG, writes: vec![write], command: None, lease: LeaseOp::None, meta };
    world.store.append(append).await.unwrap();
    assert_eq!(ended(&less, &run).await.status, RunStatus::Cancelled);
    assert_eq!(world.calls.lock().unwrap().len(), 1, "no tool ran to end it");
    less.shutdown().await;
    world.close().await;
}
