use super::tests::*;
use super::*;
use crate::message::Role;
use crate::session::Admission;

fn missed(iteration: u32, repair: u32) -> RunEvent {
    let told = format!("no object {repair}").into();
    RunEvent::AnswerMissed(AnswerMissed { call_id: format!("m-{iteration}"), repair, told, at_ms: 2_000 })
}

/// A run whose first answer missed its shape.
fn first_miss() -> Vec<RunEvent> {
    vec![accepted(Admission::Active), model_requested(1, 1), model_completed(1, "words", &[]), missed(1, 1)]
}

#[test]
fn an_answer_that_missed_is_asked_for_again_and_is_not_what_the_run_says() {
    let mut events = first_miss();
    let asked = state(&events);
    assert_eq!(asked.next(5, false), Next::CallModel { iteration: 2, attempt: 1, call_id: None });
    assert_eq!((asked.repairs(), asked.content().as_str(), asked.answer()), (1, "", None));
    events.push(model_requested(2, 1));
    // After a crash the same call is made again.
    assert_eq!(
        state(&events).next(5, false),
        Next::CallModel { iteration: 2, attempt: 2, call_id: Some("m-2".into()) }
    );
    events.push(model_completed(2, "{}", &[]));
    let mended = state(&events);
    assert_eq!(mended.next(5, false), Next::Finish(Ending::Succeed));
    assert_eq!((mended.content().as_str(), mended.answer()), ("{}", Some("{}")));
    let said: Vec<_> = mended.messages.iter().map(|said| (said.role, said.content.as_deref(), said.repair)).collect();
    let (user, model) = (Role::User, Role::Assistant);
    let expected = [
        (user, Some("Hello"), false),
        (model, Some("words"), false),
        (user, Some("no object 1"), true),
        (model, Some("{}"), false),
    ];
    assert_eq!(said, expected);
    let later: Vec<_> = mended.for_history().into_iter().filter_map(|message| message.content).collect();
    assert_eq!(later, ["Hello", "{}"]);
}

#[test]
fn an_answer_that_misses_to_the_end_is_the_answer() {
    let mut events = first_miss();
    events.extend([model_requested(2, 1), model_completed(2, "more words", &[])]);
    let state = state(&events);
    assert_eq!((state.next(5, false), state.content().as_str()), (Next::Finish(Ending::Succeed), "more words"));
    assert_eq!(state.for_history().len(), 2);
}

#[test]
fn a_repair_may_call_tools_first() {
    let mut events = first_miss();
    events.extend([model_requested(2, 1), model_completed(2, "I look.", &["a"])]);
    assert!(matches!(state(&events).next(5, false), Next::CallTools(calls) if calls.len() == 1));
    events.extend([tool_completed("a"), model_requested(3, 1), model_completed(3, "{}", &[])]);
    let state = state(&events);
    assert_eq!((state.next(5, false), state.content().as_str()), (Next::Finish(Ending::Succeed), "I look.{}"));
}

#[test]
fn only_an_answer_can_miss() {
    let begun = [accepted(Admission::Active), model_requested(1, 1)];
    given(&begun).when(RunCommand(missed(1, 1))).then_expect_error(RunError::NoSuchCall("m-1".into()));
    let calls = [&begun[..], &[model_completed(1, "", &["a"])]].concat();
    given(&calls).when(RunCommand(missed(1, 1))).then_expect_error(RunError::NoSuchCall("m-1".into()));
    let answered = [&begun[..], &[model_completed(1, "words", &[])]].concat();
    given(&answered).when(RunCommand(missed(1, 1))).then_expect_events(vec![missed(1, 1)]);
    given(&first_miss()).when(RunCommand(missed(1, 2))).then_expect_error(RunError::NoSuchCall("m-1".into()));
    let ended = [&answered[..], &[succeeded()]].concat();
    given(&ended).when(RunCommand(missed(1, 1))).then_expect_error(RunError::Ended);
}

#[test]
fn a_cancel_ends_a_run_that_is_being_repaired() {
    let mut events = first_miss();
    events.push(cancel_requested());
    assert_eq!(state(&events).next(5, false), Next::Finish(Ending::Cancel));
}

#[test]
fn where_a_long_result_is_stands_with_its_call_and_its_message() {
    let whole = crate::long_result::WholeResult { hash: "ab".repeat(32), len: 70_000, lost: 0, beginning: 3, end: 2 };
    let ended = |event: &RunEvent| {
        let mut event = event.clone();
        match &mut event {
            RunEvent::ToolCallCompleted(e) => e.whole = Some(whole.clone()).into(),
            RunEvent::ToolCallFailed(e) => e.whole = Some(whole.clone()).into(),
            _ => {}
        }
        event
    };
    let failed = RunEvent::ToolCallFailed(ToolCallFailed {
        call_id: "a".into(),
        error: "no".to_owned().into(),
        whole: None.into(),
        duration: 0.5,
        frame: 6,
        at_ms: 3_000,
        fatal: false,
        spent: Default::default(),
    });
    for outcome in [tool_completed("a"), failed] {
        let before = [accepted(Admission::Active), model_requested(1, 1), model_completed(1, "", &["a"])];
        let state = state(&[&before[..], &[ended(&outcome)]].concat());
        assert_eq!(state.tools[0].whole.as_ref(), Some(&whole));
        assert_eq!(state.whole_result(whole.id()), Some(&whole));
        assert_eq!(state.whole_result("other"), None);
    }
}
