//! Runs that wait for a person: what answers them, who may, and what a crash, a clock and a crowd change about it.

use std::sync::atomic::Ordering;

use daybook_domain::approval::{ApprovalError, ApprovalStatus, Verdict};
use daybook_domain::command::{CancelRun, Command, ContinueRun, ForkSession, ResolveApproval};
use daybook_domain::component::ComponentRef;
use daybook_domain::ids::{ApprovalId, ComponentId, SessionId, UserId};
use daybook_domain::media::MediaContent;
use daybook_domain::message::Role;
use daybook_domain::run::{Answer, AnswerError, ErrorKind, REJECTED, RequirementKind, RunMode, RunStatus};
use daybook_engine::{ExecuteError, FrameBody, WatchItem};
use daybook_tools::{ShellOptions, shell};
use serde_json::{Value, json};

use crate::world::*;

pub fn continuing(run: &daybook_domain::RunId, session: &str, answers: Vec<Answer>) -> ContinueRun {
    ContinueRun {
        component: ComponentRef::agent(ComponentId::parse("my-agent").unwrap()),
        run_id: run.clone(),
        session_id: SessionId::parse(session).unwrap(),
        answers,
        step_answers: vec![],
        input: None,
        from: Default::default(),
        fork: false,
        regenerate: false,
        replace_original: true,
        mode: RunMode::Plain,
    }
}

fn yes(call: &str) -> Answer {
    Answer { call_id: call.into(), confirmed: Some(true), ..Answer::default() }
}

pub fn filled(call: &str, values: Value) -> Answer {
    Answer { call_id: call.into(), values: values.as_object().cloned(), ..Answer::default() }
}

pub fn resolve(id: &ApprovalId, verdict: Verdict, by: &str) -> ResolveApproval {
    ResolveApproval { approval_id: id.clone(), verdict, resolved_by: Some(by.into()), data: None }
}

pub async fn paused(
    engine: &daybook_engine::Engine,
    session: &str,
) -> (daybook_domain::RunId, daybook_domain::run::RunState) {
    let run = run(engine, start("go", session)).await;
    let state = ended(engine, &run).await;
    assert_eq!(state.status, RunStatus::Paused);
    (run, state)
}

pub fn approval_of(state: &daybook_domain::run::RunState) -> ApprovalId {
    state.open_requirements().find_map(|(needed, _)| needed.approval.clone()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_asked_about_a_command_that_cannot_run() {
    let world = World::new().await;
    let options = ShellOptions { allow: vec!["true".into()], ..ShellOptions::new(world.folder.path()) };
    let tools = shell(&options).unwrap().into_iter().map(|tool| (tool.spec().name.clone(), tool)).collect();
    let engine = world.engine_of(config(), tools).await;
    let call = Turn::Call(&[
        ("a", "run_command", r#"{"command":"true; id"}"#),
        ("b", "run_command", r#"{"command":""}"#),
        ("c", "run_command", r#"{"command":"true 'open"}"#),
        ("d", "run_command", r#"{"command":"true\u0000"}"#),
        ("e", "run_command", r#"{"command":"true 'well'"}"#),
    ]);
    world.script([call, Turn::Say("done")]);
    let (run, state) = paused(&engine, "s").await;
    let open: Vec<_> = state.open_requirements().map(|(needed, _)| needed.call_id.as_str()).collect();
    assert_eq!(open, ["e"]);

    engine.execute(envelope(continuing(&run, "s", vec![yes("e")]))).await.unwrap();
    let state = ended(&engine, &run).await;
    assert_eq!(state.status, RunStatus::Completed);
    let told: Vec<_> = state.messages.iter().filter(|message| message.role == Role::Tool).collect();
    let words = ["true; may not be run", "a command is a text", "a quote", "U+0000", "exit code: 0"];
    for (message, words) in told.iter().zip(words) {
        let told = message.content.as_deref().unwrap_or_default().replace('"', "");
        assert!(told.contains(words), "{told}");
    }
    assert_eq!(told.len(), words.len());
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn several_requirements_of_one_turn_are_answered_one_by_one_and_each_call_runs_once() {
    let world = World::new().await;
    let engine = world.engine().await;
    let call = Turn::Call(&[
        ("a", "pure", "{}"),
        ("b", "confirm", "{\"to\":\"bob\"}"),
        ("c", "fill", "{\"to\":\"the model's\",\"key\":\"k\"}"),
        ("d", "outside", "{\"to\":\"x\"}"),
    ]);
    world.script([call, Turn::Say("done")]);
    let (run, state) = paused(&engine, "s").await;
    // What needs nobody has run; nothing else has.
    assert_eq!(world.calls.lock().unwrap().len(), 1);
    let kinds: Vec<_> = state.open_requirements().map(|(needed, _)| needed.kind).collect();
    let expected = [RequirementKind::Confirmation, RequirementKind::UserInput, RequirementKind::ExternalExecution];
    assert_eq!(kinds, expected);

    let refused = async |answers| engine.execute(envelope(continuing(&run, "s", answers))).await.unwrap_err();
    let version = world.kinds(&run).await.len();
    assert!(matches!(refused(vec![]).await, ExecuteError::Unanswered(_)));
    assert!(matches!(refused(vec![yes("zzz")]).await, ExecuteError::Answer(AnswerError::NoSuchCall(_))));
    assert!(matches!(
        refused(vec![yes("b"), filled("c", json!({"to": 5}))]).await,
        ExecuteError::Answer(AnswerError::Unfit(_))
    ));
    let edited = Answer { arguments: json!({"to": "eve"}).as_object().cloned(), ..yes("b") };
    assert!(matches!(refused(vec![edited]).await, ExecuteError::Answer(AnswerError::OtherArguments(_))));
    assert_eq!(world.kinds(&run).await.len(), version, "what does not fit changes nothing");

    engine.execute(envelope(continuing(&run, "s", vec![yes("b")]))).await.unwrap();
    let no = Answer { confirmed: Some(false), ..yes("b") };
    assert!(matches!(refused(vec![no]).await, ExecuteError::Answer(AnswerError::Answered(_))));
    let result = Answer { call_id: "d".into(), result: Some("from outside".into()), ..Answer::default() };
    let all = vec![yes("b"), filled("c", json!({"to": "a person's"})), result];
    engine.execute(envelope(continuing(&run, "s", all.clone()))).await.unwrap();
    let state = ended(&engine, &run).await;
    assert_eq!((state.status, state.content().as_str()), (RunStatus::Completed, "done"));
    let given = world.given.lock().unwrap().clone();
    let given: Vec<Value> = given.into_iter().map(Value::Object).collect();
    assert_eq!(given.len(), 3, "{given:?}");
    assert!(given.contains(&json!({"to": "bob"})) && given.contains(&json!({"to": "a person's", "key": "k"})));
    let told = state.messages.iter().filter(|message| message.role == Role::Tool);
    assert!(told.into_iter().any(|message| message.content.as_deref() == Some("from outside")));

    // The same answers once more are not a new decision.
    engine.execute(envelope(continuing(&run, "s", all))).await.unwrap();
    assert_eq!(world.given.lock().unwrap().len(), 3);
    engine.shutdown().await;
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_person_chose_is_the_result_of_a_call_that_never_runs() {
    const ASKED: &str = r#"{"questions":[{"question":"Where?","options":[{"label":"Oslo"},{"label":"Rome"}]}]}"#;
    let world = World::new().await;
    let engine = world.engine().await;
    world.script([Turn::Call(&[("a", "choose", ASKED)]), Turn::Say("done")]);
    let (run, state) = paused(&engine, "s").await;
    let kinds: Vec<_> = state.open_requirements().map(|(needed, _)| needed.kind).collect();
    assert_eq!(kinds, [RequirementKind::UserFeedback]);
    let chosen =
        |choices: Value| Answer { call_id: "a".into(), choices: choices.as_object().cloned(), ..Answer::default() };
    let version = world.kinds(&run).await.len();
    for wrong in [json!({"Where?": ["Paris"]}), json!({"Where?": ["Oslo", "Rome"]}), json!({"When?": ["Oslo"]})] {
        let refused = engine.execute(envelope(continuing(&run, "s", vec![chosen(wrong.clone())]))).await;
        assert!(matches!(refused, Err(ExecuteError::Answer(AnswerError::Unfit(_)))), "{wrong}");
    }
    let yes_is_no_choice = engine.execute(envelope(continuing(&run, "s", vec![yes("a")]))).await;
    let Err(ExecuteError::Unanswered(told)) = yes_is_no_choice else { panic!("{yes_is_no_choice:?}") };
    assert!(told.contains("answers about choose") && told.contains("in `tools`"), "{told}");
    assert_eq!(world.kinds(&run).await.len(), version, "what does not fit changes nothing");

    let oslo = chosen(json!({"Where?": ["Oslo"]}));
    engine.execute(envelope(continuing(&run, "s", vec![oslo]))).await.unwrap();
    let state = ended(&engine, &run).await;
    assert_eq!((state.status, state.content().as_str()), (RunStatus::Completed, "done"));
    let told: Vec<_> = state.messages.iter().filter(|message| message.role == Role::Tool).collect();
    let result = r#"User feedback received: [{"question":"Where?","selected":["Oslo"]}]"#;
    assert_eq!((told.len(), told[0].content.as_deref()), (1, Some(result)));
    let asked = world.model.requests.lock().unwrap().last().cloned().unwrap();
    assert!(asked.messages.iter().any(|message| message.content.as_deref() == Some(result)), "the model is told");
    assert!(world.calls.lock().unwrap().is_empty());
    engine.shutdown().await;
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rejected_call_never_runs_and_the_run_goes_on() {
    let world = World::new().await;
    let engine = world.engine().await;
    world.script([Turn::Call(&[("a", "confirm", "{\"to\":\"bob\"}")]), Turn::Say("a pity")]);
    let (run, _) = paused(&engine, "s").await;
    let no = Answer { confirmed: Some(false), ..yes("a") };
    engine.execute(envelope(continuing(&run, "s", vec![no]))).await.unwrap();
    let state = ended(&engine, &run).await;
    assert_eq!((state.status, state.content().as_str()), (RunStatus::Completed, "a pity"));
    assert!(state.messages.iter().any(|message| message.content.as_deref() == Some(REJECTED)));
    assert!(world.calls.lock().unwrap().is_empty());
    engine.shutdown().await;
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_twenty_who_decide_at_once_one_wins_and_the_tool_runs_once() {
    let world = World::new().await;
    let engine = world.engine().await;
    world.script([Turn::Call(&[("a", "approve", "{\"to\":\"bob\"}")]), Turn::Say("done")]);
    let (run, state) = paused(&engine, "s").await;
    let id = approval_of(&state);
    let bypass = engine.execute(envelope(continuing(&run, "s", vec![yes("a")]))).await;
    assert!(matches!(bypass, Err(ExecuteError::Answer(AnswerError::NeedsApproval))));
    let deciders = (0..20).map(|n| engine.execute(envelope(resolve(&id, Verdict::Approved, &format!("boss {n}")))));
    let (mut won, mut lost) = (0, 0);
    for decided in futures::future::join_all(deciders).await {
        match decided {
            Ok(_) => won += 1,
            Err(ExecuteError::Approval(ApprovalError::Settled { status, by })) => {
                assert!(status == ApprovalStatus::Approved && by.unwrap().starts_with("boss "));
                lost += 1;
            }
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!((won, lost), (1, 19));
    let state = ended(&engine, &run).await;
    assert_eq!((state.status, world.calls.lock().unwrap().len()), (RunStatus::Completed, 1));
    // Who was told to continue once it is approved gets that run, not another.
    engine.execute(envelope(continuing(&run, "s", vec![]))).await.unwrap();
    assert_eq!(world.model.requests.lock().unwrap().len(), 2);
    engine.shutdown().await;
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_approval_decided_on_another_node_after_a_crash_lets_the_call_run_once() {
    let world = World::new().await;
    let first = world.engine().await;
    world.script([Turn::Call(&[("a", "approve", "{\"to\":\"bob\",\"hold\":true}")]), Turn::Say("done")]);
    let (run, state) = paused(&first, "s").await;
    let id = approval_of(&state);
    world.kill(first).await;
    let second = world.engine().await;
    second.execute(envelope(resolve(&id, Verdict::Approved, "boss"))).await.unwrap();
    until("the tool runs", async || world.calls.lock().unwrap().len() == 1).await;
    // It is in the middle of the call: nobody knows whether it was done, and an unsafe tool is not simply run again.
    world.kill(second).await;
    let third = world.engine().await;
    let state = ended(&third, &run).await;
    let open: Vec<_> = state.open_requirements().map(|(needed, _)| needed.kind).collect();
    assert_eq!((state.status, open), (RunStatus::Paused, vec![RequirementKind::UnknownOutcome]));
    assert_eq!(world.calls.lock().unwrap().len(), 1);
    // The approval was for one call: that it runs again needs another, whoever continues the run.
    let again = approval_of(&state);
    let no = Answer { confirmed: Some(false), ..yes("a") };
    for answer in [yes("a"), no] {
        let bypass = third.execute(envelope(continuing(&run, "s", vec![answer]))).await;
        assert!(matches!(bypass, Err(ExecuteError::Answer(AnswerError::NeedsApproval))));
    }
    let [first, second] = [&id, &again].map(async |id| third.approval(LOG, id).await.unwrap().unwrap());
    let (first, second) = (first.await, second.await);
    assert_eq!((first.status, second.status), (ApprovalStatus::Approved, ApprovalStatus::Pending));
    let (first, second) = (first.requested.unwrap(), second.requested.unwrap());
    assert!(first.approval_id != second.approval_id && first.call_hash == second.call_hash);
    assert_eq!(second.requirement.kind, RequirementKind::UnknownOutcome);
    world.tool_go_on.add_permits(1);
    third.execute(envelope(resolve(&again, Verdict::Approved, "boss"))).await.unwrap();
    let state = ended(&third, &run).await;
    assert_eq!((state.status, state.content().as_str()), (RunStatus::Completed, "done"));
    let keys = world.calls.lock().unwrap().clone();
    assert!(keys.len() == 2 && keys[0] == keys[1], "it was approved again, and the key is the same: {keys:?}");
    third.shutdown().await;
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_approval_is_of_the_arguments_that_a_person_filled_in() {
    let world = World::new().await;
    let engine = world.engine().await;
    world.script([Turn::Call(&[("a", "fill_approved", "{\"key\":\"k\"}")]), Turn::Say("done")]);
    let (run, state) = paused(&engine, "s").await;
    assert!(state.open_requirements().all(|(needed, _)| needed.approval.is_none()), "first the input");
    engine.execute(envelope(continuing(&run, "s", vec![filled("a", json!({"to": "bob"}))]))).await.unwrap();
    let state = ended(&engine, &run).await;
    assert_eq!(state.status, RunStatus::Paused);
    let approval = engine.approval(LOG, &approval_of(&state)).await.unwrap().unwrap();
    let requested = approval.requested.unwrap();
    assert_eq!(requested.arguments.get(), json!({"to": "bob", "key": "k"}).as_object());
    let late = engine.execute(envelope(continuing(&run, "s", vec![filled("a", json!({"to": "eve"}))]))).await;
    assert!(late.is_err());
    engine.execute(envelope(resolve(&requested.approval_id, Verdict::Approved, "boss"))).await.unwrap();
    ended(&engine, &run).await;
    let given = world.given.lock().unwrap().clone();
    assert_eq!(Value::Object(given[0].clone()), json!({"to": "bob", "key": "k"}));
    engine.shutdown().await;
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_approval_that_expires_follows_its_rule() {
    let world = World::new().await;
    let engine = world.engine().await;
    for (tool, session) in [("denies", "s1"), ("fails", "s2"), ("waits", "s3")] {
        let call: &'static [(&str, &str, &str)] = match tool {
            "denies" => &[("a", "denies", "{\"to\":\"x\"}")],
            "fails" => &[("a", "fails", "{\"to\":\"x\"}"), ("b", "approve", "{\"to\":\"x\"}")],
            _ => &[("a", "waits", "{\"to\":\"x\"}")],
        };
        world.script([Turn::Call(call), Turn::Say("went on")]);
        let (run, state) = paused(&engine, session).await;
        world.model.turns.lock().unwrap().truncate(1);
        let ids: Vec<_> = state.open_requirements().filter_map(|(needed, _)| needed.approval.clone()).collect();
        let tick = async |seconds: i64| {
            world.clock.fetch_add(seconds * 1000, Ordering::SeqCst);
            engine.execute(envelope(Command::WatchApproval(ids[0].clone()))).await.unwrap();
            engine.approval(LOG, &ids[0]).await.unwrap().unwrap()
        };
        let early = tick(10).await;
        assert_eq!((early.status, early.reminders), (ApprovalStatus::Pending, 0), "{tool}: too early for anything");
        assert_eq!(tick(31).await.reminders, 1);
        let late = tick(20).await;
        let state = ended(&engine, &run).await;
        match tool {
            "denies" => {
                assert_eq!((late.status, state.status), (ApprovalStatus::Expired, RunStatus::Completed));
                assert!(state.messages.iter().any(|message| {
                    message.content.as_ref().is_some_and(|text| text.contains("expired before anybody decided"))
                }));
            }
            "fails" => {
                assert_eq!((late.status, state.status), (ApprovalStatus::Expired, RunStatus::Error));
                assert_eq!(state.error.unwrap().0, ErrorKind::ApprovalExpired);
                let other = engine.approval(LOG, &ids[1]).await.unwrap().unwrap();
                assert_eq!(other.status, ApprovalStatus::Cancelled);
                let continued = engine.execute(envelope(continuing(&run, session, vec![yes("b")]))).await;
                assert!(matches!(continued, Err(ExecuteError::Answer(AnswerError::Ended(RunStatus::Error)))));
            }
            _ => {
                assert_eq!((late.status, state.status), (ApprovalStatus::Pending, RunStatus::Paused));
                assert_eq!(tick(20).await.reminders, 2);
                engine.execute(envelope(resolve(&ids[0], Verdict::Approved, "boss"))).await.unwrap();
                assert_eq!(ended(&engine, &run).await.status, RunStatus::Completed);
            }
        }
        world.model.turns.lock().unwrap().clear();
        let decided = engine.execute(envelope(resolve(&ids[0], Verdict::Approved, "late"))).await;
        assert!(matches!(decided, Err(ExecuteError::Approval(ApprovalError::Settled { .. }))));
    }
    assert_eq!(world.calls.lock().unwrap().len(), 1, "only what was approved has run");
    engine.shutdown().await;
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cancelling_a_paused_run_cancels_what_it_waited_for() {
    let world = World::new().await;
    let engine = world.engine().await;
    world.script([Turn::Call(&[("a", "approve", "{\"to\":\"bob\"}")])]);
    let (run, state) = paused(&engine, "s").await;
    let id = approval_of(&state);
    let cancel = CancelRun { component: None, run_id: run.clone(), session_id: None, reason: None };
    engine.execute(envelope(cancel)).await.unwrap();
    assert_eq!(ended(&engine, &run).await.status, RunStatus::Cancelled);
    assert_eq!(engine.approval(LOG, &id).await.unwrap().unwrap().status, ApprovalStatus::Cancelled);
    let continued = engine.execute(envelope(continuing(&run, "s", vec![yes("a")]))).await;
    assert!(matches!(continued, Err(ExecuteError::Answer(AnswerError::Ended(RunStatus::Cancelled)))));
    let decided = engine.execute(envelope(resolve(&id, Verdict::Approved, "boss"))).await;
    assert!(matches!(decided, Err(ExecuteError::Approval(ApprovalError::Settled { .. }))));
    assert!(world.calls.lock().unwrap().is_empty());
    engine.shutdown().await;
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_continued_run_waits_for_its_session_and_its_frames_go_on_counting() {
    let world = World::new().await;
    let engine = world.engine().await;
    world.script([Turn::Call(&[("a", "confirm", "{\"to\":\"bob\"}")]), Turn::Hold("other"), Turn::Say("done")]);
    let (paused_run, _) = paused(&engine, "s").await;
    // A paused run does not hold its session.
    let other = run(&engine, start("other", "s")).await;
    until("the other run goes", async || world.model.requests.lock().unwrap().len() == 2).await;
    let mut command = continuing(&paused_run, "s", vec![yes("a")]);
    command.mode = RunMode::Streaming;
    let outcome = engine.execute(envelope(command)).await.unwrap();
    let daybook_engine::Outcome::Continued { queued, after, .. } = outcome else { panic!("{outcome:?}") };
    assert!(queued);
    assert_eq!(engine.run(LOG, &paused_run).await.unwrap().unwrap().status, RunStatus::Pending);
    let mut watch = engine.watch(LOG, &paused_run, after).await.unwrap().unwrap();
    world.model.go_on.add_permits(1);
    let mut frames = Vec::new();
    while let Some(item) = watch.next().await.unwrap() {
        if let WatchItem::Frame(frame) = item {
            frames.push((frame.index, frame.body.clone()));
        }
    }
    assert!(matches!(frames[0].1, FrameBody::Continued), "{frames:?}");
    assert!(frames.windows(2).all(|pair| pair[0].0 + 1 == pair[1].0));
    assert!(matches!(frames.last().unwrap().1, FrameBody::Completed(_)));
    assert_eq!(ended(&engine, &other).await.status, RunStatus::Completed);
    engine.shutdown().await;
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ended_run_is_gone_on_from_in_a_new_one_and_regenerated() {
    let world = World::new().await;
    let engine = world.engine().await;
    world.script([Turn::Say("first"), Turn::Say("second"), Turn::Say("better")]);
    let source = run(&engine, start("go", "s")).await;
    ended(&engine, &source).await;
    let forked = async |command: ContinueRun| match engine.execute(envelope(command)).await.unwrap() {
        daybook_engine::Outcome::Accepted { run_id, .. } => ended(&engine, &run_id).await,
        other => panic!("{other:?}"),
    };
    let more = forked(ContinueRun { input: Some("more".into()), ..continuing(&source, "s", vec![]) }).await;
    let said: Vec<_> = more.messages.iter().filter_map(|message| message.content.as_deref()).collect();
    assert_eq!((said, more.content().as_str()), (vec!["go", "first", "more", "second"], "second"));
    let fork = more.accepted.as_ref().unwrap().forked.clone().unwrap();
    assert_eq!((fork.run_id, fork.message_index), (source.clone(), 3), "the system message counts");

    let better = forked(ContinueRun { regenerate: true, ..continuing(&source, "s", vec![]) }).await;
    let said: Vec<_> = better.messages.iter().filter_map(|message| message.content.as_deref()).collect();
    assert_eq!(said, ["go", "better"]);
    assert_eq!(engine.run(LOG, &source).await.unwrap().unwrap().status, RunStatus::Regenerated);
    // What was replaced is no longer part of the conversation.
    let next = run(&engine, start("next", "s")).await;
    ended(&engine, &next).await;
    let request = world.model.requests.lock().unwrap().last().cloned().unwrap();
    let said: Vec<_> = request.messages.iter().filter_map(|message| message.content.clone()).collect();
    assert_eq!(
        said.iter().filter(|text| *text == "first").count(),
        1,
        "only in the run that went on from it: {said:?}"
    );

    let command = ForkSession {
        component: ComponentRef::agent(ComponentId::parse("my-agent").unwrap()),
        session_id: SessionId::parse("s").unwrap(),
        user_id: None,
    };
    let outcome = engine.execute(envelope(command)).await.unwrap();
    let daybook_engine::Outcome::Forked { session_id } = outcome else { panic!("{outcome:?}") };
    let later = run(&engine, start("later", session_id.as_str())).await;
    ended(&engine, &later).await;
    let request = world.model.requests.lock().unwrap().last().cloned().unwrap();
    assert!(request.messages.iter().any(|message| message.content.as_deref() == Some("next")), "the copy remembers");
    engine.shutdown().await;
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_has_the_bytes_of_what_tools_gave_though_the_original_is_erased() {
    let world = World::new().await;
    let engine = world.engine().await;
    world.script([Turn::Call(&[("a", "pure", r#"{"picture":1}"#)]), Turn::Say("seen")]);
    let source = run(&engine, start("go", "s")).await;
    ended(&engine, &source).await;
    let copy = async || {
        let command = ForkSession {
            component: ComponentRef::agent(ComponentId::parse("my-agent").unwrap()),
            session_id: SessionId::parse("s").unwrap(),
            user_id: None,
        };
        let outcome = engine.execute(envelope(command)).await.unwrap();
        let daybook_engine::Outcome::Forked { session_id } = outcome else { panic!("{outcome:?}") };
        session_id
    };
    let first = copy().await;
    // Goes on from the first run, whose messages it has in itself.
    let more = ContinueRun { input: Some("more".into()), ..continuing(&source, "s", vec![]) };
    let outcome = engine.execute(envelope(more)).await.unwrap();
    let daybook_engine::Outcome::Accepted { run_id, .. } = outcome else { panic!("{outcome:?}") };
    ended(&engine, &run_id).await;
    let second = copy().await;
    world.store.erase_session(LOG, &SessionId::parse("s").unwrap()).await.unwrap();
    for (session, pictures) in [(first, 1), (second, 2)] {
        let later = run(&engine, start("later", session.as_str())).await;
        ended(&engine, &later).await;
        let request = world.model.requests.lock().unwrap().last().cloned().unwrap();
        let media: Vec<_> = request.messages.iter().flat_map(|message| &message.media).collect();
        assert_eq!(media.len(), pictures);
        assert!(media.iter().all(|item| item.content == MediaContent::Base64("QUJD".repeat(40_000))), "{media:?}");
    }
    engine.shutdown().await;
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_is_copied_by_its_owner_only() {
    let world = World::new().await;
    let engine = world.engine().await;
    let mut command = start("go", "s");
    command.user_id = Some(UserId::parse("alice").unwrap());
    let run = run(&engine, command).await;
    ended(&engine, &run).await;
    let fork = |user: Option<&str>| ForkSession {
        component: ComponentRef::agent(ComponentId::parse("my-agent").unwrap()),
        session_id: SessionId::parse("s").unwrap(),
        user_id: user.map(|user| UserId::parse(user).unwrap()),
    };
    for stranger in [None, Some("bob")] {
        let refused = engine.execute(envelope(fork(stranger))).await;
        assert!(matches!(refused, Err(ExecuteError::UnknownSession)));
    }
    engine.execute(envelope(fork(Some("alice")))).await.unwrap();
    engine.shutdown().await;
    world.close().await;
}
