//! Teams whose members wait for people, whose nodes die, and that are cancelled.

use daybook_domain::command::{CancelRun, ContinueRun};
use daybook_domain::component::{ComponentRef, TeamMode};
use daybook_domain::ids::{ComponentId, RunId};
use daybook_domain::run::{Answer, RunMode, RunState, RunStatus};
use daybook_engine::{Engine, FrameBody};

use crate::pauses::{approval_of, continuing, resolve};
use crate::teams::{Crew, TO_A, asking, frames};
use crate::world::*;

fn answering(run: &RunId, session: &str, answers: Vec<Answer>) -> ContinueRun {
    let component = ComponentRef::team(ComponentId::parse("crew").unwrap());
    ContinueRun { component, ..continuing(run, session, answers) }
}

fn yes(run: Option<&RunId>, call: &str) -> Answer {
    Answer { run: run.cloned(), call_id: call.into(), confirmed: Some(true), ..Answer::default() }
}

fn cancelling(run: &RunId) -> CancelRun {
    CancelRun { component: None, run_id: run.clone(), session_id: None, reason: Some("enough".into()) }
}

async fn child_of(engine: &Engine, state: &RunState) -> RunState {
    let child = state.children().next().unwrap().run_id.clone();
    engine.run(LOG, &child).await.unwrap().unwrap()
}

const CONFIRM: Turn = Turn::Call(&[("m", "confirm", r#"{"to":"bob"}"#)]);

#[tokio::test(flavor = "multi_thread")]
async fn what_a_member_asks_the_team_asks_and_an_answer_goes_on_with_both() {
    let crew = Crew::new(&["a", "b"]).await;
    let engine = crew.engine(TeamMode::Coordinate).await;
    let both = Turn::Call(&[
        ("own", "confirm", r#"{"to":"ann"}"#),
        ("x", "delegate_task_to_member", r#"{"member_id":"a","task":"ask"}"#),
    ]);
    crew.world.script([both, Turn::Say("Done")]);
    crew.says("a", [CONFIRM, Turn::Say("Sent")]);
    let run = run(&engine, daybook_domain::command::StartRun { mode: RunMode::Streaming, ..asking("Go", "s") }).await;
    let state = ended(&engine, &run).await;
    assert_eq!((state.status, state.open_requirements().count()), (RunStatus::Paused, 1));
    let member = child_of(&engine, &state).await;
    assert_eq!((member.status, member.open_requirements().count()), (RunStatus::Paused, 1));
    let shown = frames(&engine, &run).await;
    let Some(FrameBody::Paused { requirements, members, .. }) = shown.last().map(|frame| &frame.body) else { panic!() };
    assert_eq!((requirements.len(), members.len()), (1, 1));
    assert_eq!((&members[0].run_id, members[0].name.as_str()), (member.run_id().unwrap(), "A"));

    // One answer is not all; the second, without saying whose it is, is.
    engine.execute(envelope(answering(&run, "s", vec![yes(member.run_id(), "m")]))).await.unwrap();
    assert_eq!(engine.run(LOG, &run).await.unwrap().unwrap().status, RunStatus::Paused);
    let silence = engine.execute(envelope(answering(&run, "s", vec![]))).await.unwrap_err().to_string();
    assert!(silence.contains("confirm"), "{silence}");
    assert!(engine.execute(envelope(answering(&run, "s", vec![yes(None, "nope")]))).await.is_err());
    engine.execute(envelope(answering(&run, "s", vec![yes(None, "own")]))).await.unwrap();
    let state = ended(&engine, &run).await;
    assert_eq!((state.status, state.content().as_str()), (RunStatus::Completed, "Done"));
    assert_eq!(crew.world.calls.lock().unwrap().len(), 2);
    let told = |message: &daybook_domain::message::Message| message.answers.as_ref().is_some_and(|a| a.call_id == "x");
    assert_eq!(state.messages.iter().find(|message| told(message)).unwrap().content.as_deref(), Some("Sent"));
    let indexes: Vec<u64> = frames(&engine, &run).await.iter().map(|frame| frame.index).collect();
    assert_eq!(indexes, (0..indexes.len() as u64).collect::<Vec<_>>());
    crew.each_ended_once(&engine, &run).await;
    engine.shutdown().await;
    crew.world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_comes_before_the_team_has_paused_is_not_forgotten() {
    let crew = Crew::new(&["a", "b"]).await;
    let engine = crew.engine(TeamMode::Coordinate).await;
    let both = Turn::Call(&[
        ("x", "delegate_task_to_member", r#"{"member_id":"a","task":"ask"}"#),
        ("y", "delegate_task_to_member", r#"{"member_id":"b","task":"wait"}"#),
    ]);
    crew.world.script([both, Turn::Say("Done")]);
    crew.says("a", [Turn::Call(&[("m", "approve", r#"{"to":"bob"}"#)]), Turn::Say("Sent")]);
    crew.says("b", [Turn::Hold("slow")]);
    let run = run(&engine, asking("Go", "s")).await;
    let member = daybook_domain::run::child_run_id(&run, "x", 0);
    let paused =
        async || engine.run(LOG, &member).await.unwrap().is_some_and(|state| state.status == RunStatus::Paused);
    until("the member's pause", paused).await;
    assert_eq!(engine.run(LOG, &run).await.unwrap().unwrap().status, RunStatus::Running);
    let asked = engine.run(LOG, &member).await.unwrap().unwrap();
    let verdict = resolve(&approval_of(&asked), daybook_domain::approval::Verdict::Approved, "boss");
    engine.execute(envelope(verdict)).await.unwrap();
    crew.members["b"].go_on.add_permits(1);
    until("the end", async || engine.run(LOG, &run).await.unwrap().unwrap().status.is_end()).await;
    let state = engine.run(LOG, &run).await.unwrap().unwrap();
    assert_eq!((state.status, crew.world.calls.lock().unwrap().len()), (RunStatus::Completed, 1));
    crew.each_ended_once(&engine, &run).await;
    engine.shutdown().await;
    crew.world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_nested_teams_pause_outlives_its_node() {
    let crew = Crew::new(&["a"]).await;
    let first = crew.world.engine_from(crew.nested()).await;
    let inner = Turn::Call(&[("i", "delegate_task_to_member", r#"{"member_id":"inner","task":"see to it"}"#)]);
    crew.world.script([inner.clone(), Turn::Say("All done")]);
    // The team in the middle speaks with the same model as its member, in turn.
    crew.says("a", [TO_A, CONFIRM]);
    let run = run(&first, asking("Go", "s")).await;
    assert_eq!(ended(&first, &run).await.status, RunStatus::Paused);
    let tree = crew.tree(&first, &run).await;
    assert_eq!(tree.iter().map(|state| state.status).collect::<Vec<_>>(), [RunStatus::Paused; 3]);
    crew.world.kill(first).await;

    let next = crew.world.engine_from(crew.nested()).await;
    crew.says("a", [Turn::Say("Sent"), Turn::Say("Seen to")]);
    next.execute(envelope(answering(&run, "s", vec![yes(None, "m")]))).await.unwrap();
    let state = ended(&next, &run).await;
    assert_eq!((state.status, state.content().as_str()), (RunStatus::Completed, "All done"));
    assert_eq!((crew.calls("a"), crew.world.calls.lock().unwrap().len()), (4, 1), "nothing was done twice");
    assert_eq!(state.spent.total().total_tokens, 4 * 3);
    crew.each_ended_once(&next, &run).await;
    next.shutdown().await;
    crew.world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_in_a_members_call_repeats_nothing_that_was_done() {
    for (tool, calls) in [("idem", 3), ("harm", 2)] {
        let crew = Crew::new(&["a", "b"]).await;
        let first = crew.engine(TeamMode::Coordinate).await;
        let both = Turn::Call(&[
            ("x", "delegate_task_to_member", r#"{"member_id":"a","task":"act"}"#),
            ("y", "delegate_task_to_member", r#"{"member_id":"b","task":"say"}"#),
        ]);
        crew.world.script([both, Turn::Say("All done")]);
        let held: &'static [(&str, &str, &str)] =
            if tool == "idem" { &[("c", "idem", r#"{"hold":1}"#)] } else { &[("c", "harm", r#"{"hold":1}"#)] };
        crew.says("a", [Turn::Call(&[("before", "harm", "{}")]), Turn::Call(held)]);
        crew.says("b", [Turn::Say("Said")]);
        let run = run(&first, asking("Go", "s")).await;
        let said = daybook_domain::run::child_run_id(&run, "y", 0);
        until("the call", async || crew.world.calls.lock().unwrap().len() == 2).await;
        until("the other's end", async || {
            first.run(LOG, &said).await.unwrap().is_some_and(|state| state.status.is_end())
        })
        .await;
        crew.world.kill(first).await;

        crew.world.tool_go_on.add_permits(5);
        crew.says("a", [Turn::Say("Acted")]);
        let next = crew.engine(TeamMode::Coordinate).await;
        let state = ended(&next, &run).await;
        if tool == "harm" {
            assert_eq!(state.status, RunStatus::Paused, "a person is asked whether it runs again");
            let done = Answer { call_id: "c".into(), result: Some("it was done".into()), ..Answer::default() };
            next.execute(envelope(answering(&run, "s", vec![done]))).await.unwrap();
        }
        let state = ended(&next, &run).await;
        assert_eq!((state.status, state.content().as_str()), (RunStatus::Completed, "All done"));
        let keys = crew.world.calls.lock().unwrap().clone();
        assert_eq!(keys.len(), calls, "{keys:?}");
        assert_eq!((crew.calls("a"), crew.calls("b")), (3, 1), "no model was asked twice");
        crew.each_ended_once(&next, &run).await;
        next.shutdown().await;
        crew.world.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn cancelling_a_team_stops_everybody_and_each_ends_once() {
    let crew = Crew::new(&["a", "b", "c"]).await;
    let engine = crew.engine(TeamMode::Coordinate).await;
    let all = Turn::Call(&[
        ("x", "delegate_task_to_member", r#"{"member_id":"a","task":"act"}"#),
        ("y", "delegate_task_to_member", r#"{"member_id":"b","task":"say"}"#),
        ("z", "delegate_task_to_member", r#"{"member_id":"c","task":"ask"}"#),
        ("own", "harm", r#"{"hold":1}"#),
    ]);
    crew.world.script([all]);
    crew.says("a", [Turn::Call(&[("c", "harm", r#"{"hold":1}"#)])]);
    crew.says("b", [Turn::Hold("half a word")]);
    crew.says("c", [CONFIRM]);
    let run = run(&engine, asking("Go", "s")).await;
    let asker = daybook_domain::run::child_run_id(&run, "z", 0);
    until("all to be at it", async || crew.world.calls.lock().unwrap().len() == 2 && crew.calls("b") == 1).await;
    until("the member's pause", async || {
        engine.run(LOG, &asker).await.unwrap().is_some_and(|state| state.status == RunStatus::Paused)
    })
    .await;
    engine.execute(envelope(cancelling(&run))).await.unwrap();
    let statuses: Vec<_> = crew.tree(&engine, &run).await.iter().map(|state| state.status).collect();
    assert_eq!(statuses, [RunStatus::Cancelled; 4]);
    crew.each_ended_once(&engine, &run).await;
    engine.shutdown().await;
    crew.world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cancelling_a_paused_team_ends_its_members_and_so_does_a_cancel_that_a_crash_cut_off() {
    let crew = Crew::new(&["a"]).await;
    let engine = crew.engine(TeamMode::Coordinate).await;
    crew.world.script([TO_A]);
    crew.says("a", [Turn::Call(&[("m", "approve", r#"{"to":"bob"}"#)])]);
    let run = self::run(&engine, asking("Go", "s")).await;
    let state = ended(&engine, &run).await;
    assert_eq!(state.status, RunStatus::Paused);
    let approval = approval_of(&child_of(&engine, &state).await);
    engine.execute(envelope(cancelling(&run))).await.unwrap();
    let statuses: Vec<_> = crew.tree(&engine, &run).await.iter().map(|state| state.status).collect();
    assert_eq!(statuses, [RunStatus::Cancelled; 2]);
    let approval = engine.approval(LOG, &approval).await.unwrap().unwrap();
    assert_eq!(approval.status, daybook_domain::approval::ApprovalStatus::Cancelled);
    crew.each_ended_once(&engine, &run).await;

    // The node dies between the request and the end.
    crew.world.script([TO_A]);
    crew.says("a", [Turn::Hold("half")]);
    let run = self::run(&engine, asking("Go", "t")).await;
    until("the member", async || crew.calls("a") == 2).await;
    crew.world.kill(engine).await;
    let other = crew.world.engine_from(daybook_engine::Registry::default()).await;
    other.execute(envelope(cancelling(&run))).await.unwrap();
    let next = crew.engine(TeamMode::Coordinate).await;
    until("the end", async || next.run(LOG, &run).await.unwrap().unwrap().status.is_end()).await;
    let statuses: Vec<_> = crew.tree(&next, &run).await.iter().map(|state| state.status).collect();
    assert_eq!(statuses, [RunStatus::Cancelled; 2]);
    crew.each_ended_once(&next, &run).await;
    next.shutdown().await;
    other.shutdown().await;
    crew.world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_member_can_be_cancelled_alone() {
    let crew = Crew::new(&["a", "b"]).await;
    let engine = crew.engine(TeamMode::Coordinate).await;
    let both = Turn::Call(&[
        ("x", "delegate_task_to_member", r#"{"member_id":"a","task":"act"}"#),
        ("y", "delegate_task_to_member", r#"{"member_id":"b","task":"ask"}"#),
    ]);
    crew.world.script([both, Turn::Say("Without them")]);
    crew.says("a", [Turn::Hold("half")]);
    crew.says("b", [CONFIRM]);
    let run = run(&engine, asking("Go", "s")).await;
    until("the member", async || crew.calls("a") == 1).await;
    let ids = ["x", "y"].map(|call| daybook_domain::run::child_run_id(&run, call, 0));
    engine.execute(envelope(cancelling(&ids[0]))).await.unwrap();
    let state = ended(&engine, &run).await;
    assert_eq!(state.status, RunStatus::Paused, "the other one still asks");
    engine.execute(envelope(cancelling(&ids[1]))).await.unwrap();
    until("the end", async || engine.run(LOG, &run).await.unwrap().unwrap().status.is_end()).await;
    let statuses: Vec<_> = crew.tree(&engine, &run).await.iter().map(|state| state.status).collect();
    assert_eq!(statuses, [RunStatus::Completed, RunStatus::Cancelled, RunStatus::Cancelled]);
    crew.each_ended_once(&engine, &run).await;
    engine.shutdown().await;
    crew.world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_team_whose_member_breaks_down_again_and_again_is_ended_with_all_its_runs() {
    let crew = Crew::new(&["a", "b"]).await;
    let engine = crew.engine(TeamMode::Coordinate).await;
    let both = Turn::Call(&[
        ("x", "delegate_task_to_member", r#"{"member_id":"a","task":"act"}"#),
        ("y", "delegate_task_to_member", r#"{"member_id":"b","task":"wait"}"#),
    ]);
    crew.world.script([both]);
    crew.says("a", [Turn::Panic, Turn::Panic, Turn::Panic]);
    crew.says("b", [Turn::Hold("one"), Turn::Hold("two"), Turn::Hold("three")]);
    let run = run(&engine, asking("Go", "s")).await;
    until("the end", async || engine.run(LOG, &run).await.unwrap().unwrap().status.is_end()).await;
    let statuses: Vec<_> = crew.tree(&engine, &run).await.iter().map(|state| state.status).collect();
    assert_eq!(statuses, [RunStatus::Error; 3]);
    crew.each_ended_once(&engine, &run).await;
    engine.shutdown().await;
    crew.world.close().await;
}
