use cqrs_es::test::TestFramework;
use serde_json::{Map, json};

use super::*;
use crate::component::ComponentRef;
use crate::ids::{ComponentId, RunId, SessionId};
use crate::message::CallMetrics;
use crate::personal::Personal;
use crate::session::Admission;
use crate::tool::Effect;

pub(crate) fn accepted(admission: Admission) -> RunEvent {
    RunEvent::Accepted(Box::new(RunAccepted {
        run_id: RunId::parse("r-1").unwrap(),
        session_id: SessionId::parse("s-1").unwrap(),
        user_id: None,
        component: ComponentRef::agent(ComponentId::parse("my-agent").unwrap()),
        config_hash: "abc".into(),
        mode: RunMode::Plain,
        on_busy: OnBusy::Enqueue,
        admission,
        cancel_on_disconnect: false,
        message: "Hello".to_owned().into(),
        media: vec![].into(),
        dependencies: None.into(),
        metadata: None.into(),
        output_schema: None.into(),
        forked: None,
        base: None.into(),
        copied_from: None,
        at_ms: 1_000,
        frame: 0,
        parent: None,
    }))
}

pub(crate) fn model_requested(iteration: u32, attempt: u32) -> RunEvent {
    RunEvent::ModelCallRequested(ModelCallRequested {
        call_id: format!("m-{iteration}"),
        iteration,
        attempt,
        summary: None,
        history: vec![],
        own_messages: 1,
        prompt_hash: "p".into(),
        tools_hash: "t".into(),
        frame: 1,
        at_ms: 1_000,
    })
}

pub(crate) fn model_completed(iteration: u32, text: &str, tools: &[&str]) -> RunEvent {
    let call = |id: &&str| RequestedCall { id: (*id).into(), name: "tool".into(), arguments: "{}".to_owned().into() };
    RunEvent::ModelCallCompleted(ModelCallCompleted {
        call_id: format!("m-{iteration}"),
        text: text.to_owned().into(),
        reasoning: None.into(),
        replay: None.into(),
        tool_calls: tools.iter().map(call).collect(),
        finish_reason: "stop".into(),
        provider_data: Some(json!({"id": "x"})),
        metrics: CallMetrics::default(),
        frame: 4,
        at_ms: 2_000,
    })
}

fn tool_requested(id: &str, effect: Effect, attempt: u32) -> RunEvent {
    RunEvent::ToolCallRequested(ToolCallRequested {
        call_id: id.into(),
        tool: "tool".into(),
        idempotency_key: format!("key {id}"),
        effect,
        attempt,
        frame: 5,
        at_ms: 2_000,
        children: Vec::new(),
    })
}

pub(crate) fn tool_completed(id: &str) -> RunEvent {
    let (call_id, result) = (id.to_owned(), "ok".to_owned().into());
    RunEvent::ToolCallCompleted(ToolCallCompleted {
        call_id,
        result,
        whole: None.into(),
        media: None.into(),
        duration: 0.5,
        frame: 6,
        at_ms: 3_000,
        answers: false,
        spent: Default::default(),
    })
}

pub(crate) fn cancel_requested() -> RunEvent {
    RunEvent::CancelRequested(CancelRequested { by: "anonymous".into(), why: None.into(), at_ms: 3_000 })
}

pub(crate) fn succeeded() -> RunEvent {
    RunEvent::Succeeded(RunSucceeded { session_state: Map::new().into(), duration: 1.0, frame: 9, at_ms: 4_000 })
}

fn cancelled() -> RunEvent {
    RunEvent::Cancelled(RunCancelled {
        reason: "stop".to_owned().into(),
        stage: RunStage::Executing,
        partial: Some("half".to_owned()).into(),
        provider_data: None,
        time_to_first_token: None,
        session_state: Map::new().into(),
        duration: 1.0,
        frame: 9,
        at_ms: 4_000,
    })
}

pub(crate) fn state(events: &[RunEvent]) -> RunState {
    let mut state = RunState::default();
    events.iter().for_each(|event| state.evolve(event));
    state
}

pub(crate) fn given(events: &[RunEvent]) -> cqrs_es::test::AggregateTestExecutor<RunState> {
    TestFramework::with(()).given(events.to_vec())
}

#[test]
fn a_plain_run_calls_the_model_once_and_ends() {
    let mut events = vec![accepted(Admission::Active)];
    assert_eq!(state(&events).next(5, false), Next::CallModel { iteration: 1, attempt: 1, call_id: None });
    events.extend([model_requested(1, 1), model_completed(1, "Hi", &[])]);
    assert_eq!(state(&events).next(5, false), Next::Finish(Ending::Succeed));
    events.push(succeeded());
    let ended = state(&events);
    assert_eq!((ended.next(5, false), ended.status, ended.content()), (Next::Done, RunStatus::Completed, "Hi".into()));
}

#[test]
fn a_lost_model_call_is_called_again_under_its_id() {
    let lost = state(&[accepted(Admission::Active), model_requested(1, 1)]);
    assert_eq!(lost.next(5, false), Next::CallModel { iteration: 1, attempt: 2, call_id: Some("m-1".into()) });
}

#[test]
fn what_has_an_outcome_is_never_called_again() {
    let events = [
        accepted(Admission::Active),
        model_requested(1, 1),
        model_completed(1, "", &["a", "b"]),
        tool_requested("a", Effect::Unsafe, 1),
        tool_requested("b", Effect::Pure, 1),
        tool_completed("a"),
    ];
    let Next::CallTools(pending) = state(&events).next(5, false) else { panic!("tools come next") };
    assert_eq!(pending.len(), 1);
    assert_eq!((pending[0].call.id.as_str(), pending[0].attempts), ("b", 1));
    assert_eq!(pending[0].idempotency_key, "key b");
    given(&events).when(RunCommand(tool_completed("a"))).then_expect_error(RunError::NoSuchCall("a".into()));
}

#[test]
fn an_unknown_outcome_pauses_after_the_other_tools_have_ended() {
    let unknown = RunEvent::ToolOutcomeUnknown(ToolOutcomeUnknown { call_id: "a".into(), at_ms: 0 });
    let mut events = vec![
        accepted(Admission::Active),
        model_requested(1, 1),
        model_completed(1, "", &["a", "b"]),
        tool_requested("a", Effect::Unsafe, 1),
        tool_requested("b", Effect::Pure, 1),
        unknown,
    ];
    assert!(matches!(state(&events).next(5, false), Next::CallTools(pending) if pending.len() == 1));
    events.push(tool_completed("b"));
    assert_eq!(state(&events).next(5, false), Next::Pause(vec!["a".into()]));
}

#[test]
fn after_a_cancel_request_nothing_starts_and_only_an_end_follows() {
    let events = [accepted(Admission::Active), model_requested(1, 1), cancel_requested()];
    assert_eq!(state(&events).next(5, false), Next::Finish(Ending::Cancel));
    given(&events).when(RunCommand(model_requested(2, 1))).then_expect_error(RunError::Cancelling);
    given(&events).when(RunCommand(succeeded())).then_expect_error(RunError::Cancelling);
    given(&events).when(RunCommand(cancel_requested())).then_expect_events(vec![]);
    given(&events).when(RunCommand(cancelled())).then_expect_events(vec![cancelled()]);
}

#[test]
fn a_run_ends_once() {
    let events = [accepted(Admission::Active), model_requested(1, 1), model_completed(1, "Hi", &[]), succeeded()];
    given(&events).when(RunCommand(succeeded())).then_expect_error(RunError::Ended);
    given(&events).when(RunCommand(cancelled())).then_expect_error(RunError::Ended);
    given(&events).when(RunCommand(cancel_requested())).then_expect_events(vec![]);
}

#[test]
fn a_run_is_accepted_once_and_nothing_happens_before() {
    given(&[accepted(Admission::Active)])
        .when(RunCommand(accepted(Admission::Active)))
        .then_expect_error(RunError::Exists);
    given(&[]).when(RunCommand(succeeded())).then_expect_error(RunError::Unknown);
}

#[test]
fn the_partial_text_of_a_cancelled_run_is_kept() {
    let ended = state(&[accepted(Admission::Active), model_requested(1, 1), cancel_requested(), cancelled()]);
    assert_eq!((ended.content().as_str(), ended.status), ("half", RunStatus::Cancelled));
}

#[test]
fn model_calls_are_limited() {
    let mut events = vec![accepted(Admission::Active)];
    for n in 1..=2 {
        let id = format!("t-{n}");
        events.extend([model_requested(n, 1), model_completed(n, "", &[&id]), tool_completed(&id)]);
    }
    assert!(matches!(state(&events).next(2, false), Next::Finish(Ending::Fail(ErrorKind::IterationLimit, _))));
    assert_eq!(state(&events).next(3, false), Next::CallModel { iteration: 3, attempt: 1, call_id: None });
}

#[test]
fn a_queued_run_waits_until_its_session_lets_it_go() {
    assert_eq!(state(&[accepted(Admission::Queued)]).next(5, false), Next::AwaitTurn);
    let cancelled = state(&[accepted(Admission::Queued), cancel_requested()]);
    assert_eq!(cancelled.next(5, false), Next::Finish(Ending::Cancel));
}

#[test]
fn erased_content_folds_without_it() {
    let mut event = accepted(Admission::Active);
    if let RunEvent::Accepted(e) = &mut event {
        e.message = Personal::Erased;
    }
    assert_eq!(state(&[event]).messages[0].content, None);
}
