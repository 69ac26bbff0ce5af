use cqrs_es::test::TestFramework;
use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::*;
use crate::component::ComponentRef;
use crate::ids::{ComponentId, RunId, SessionId, UserId};
use crate::run::{OnBusy, RunStatus};
use crate::usage::Usage;

fn run(n: usize) -> RunId {
    RunId::parse(format!("r-{n}")).unwrap()
}

fn admit(n: usize, user: Option<&str>, on_busy: OnBusy) -> AdmitRun {
    AdmitRun {
        session_id: SessionId::parse("s-1").unwrap(),
        run_id: run(n),
        user_id: user.map(|user| UserId::parse(user).unwrap()),
        component: ComponentRef::agent(ComponentId::parse("a").unwrap()),
        on_busy,
        name: Some("Hello".into()),
        default_state: Map::new(),
        state: None,
        at: 1,
    }
}

fn ended(n: usize) -> SessionEvent {
    let (status, usage) = (RunStatus::Completed, Usage::default());
    SessionEvent::RunEnded(SessionRunEnded { run_id: run(n), status, usage, model: None, at: 2 })
}

fn session(commands: &[AdmitRun]) -> SessionState {
    let mut state = SessionState::default();
    for command in commands {
        let (_, events) = state.admit(command.clone()).unwrap();
        events.iter().for_each(|event| state.evolve(event));
    }
    state
}

#[test]
fn one_run_holds_the_session_and_the_others_go_in_turn() {
    let mut state = session(&[1, 2, 3].map(|n| admit(n, None, OnBusy::Enqueue)));
    assert_eq!((state.active.clone(), state.queue.len()), (Some(run(1)), 2));
    state.evolve(&ended(1));
    assert_eq!(state.active, Some(run(2)));
    state.evolve(&ended(3));
    state.evolve(&ended(2));
    assert_eq!((state.active.clone(), state.queue.len()), (None, 0));
}

#[test]
fn an_interrupting_run_goes_next_and_a_parallel_one_goes_beside() {
    let mut state = session(&[
        admit(1, None, OnBusy::Enqueue),
        admit(2, None, OnBusy::Enqueue),
        admit(3, None, OnBusy::Interrupt),
        admit(4, None, OnBusy::Parallel),
    ]);
    assert!(state.may_run(&run(4)) && state.may_run(&run(1)) && !state.may_run(&run(3)));
    state.evolve(&ended(1));
    assert_eq!(state.active, Some(run(3)));
}

#[test]
fn a_busy_session_refuses_who_will_not_wait() {
    let state = session(&[admit(1, None, OnBusy::Enqueue)]);
    assert_eq!(state.admit(admit(2, None, OnBusy::Reject)).unwrap_err(), SessionError::Busy(run(1)));
}

#[test]
fn the_queue_is_bounded() {
    let runs: Vec<AdmitRun> = (0..=MAX_QUEUE).map(|n| admit(n, None, OnBusy::Enqueue)).collect();
    let error = session(&runs).admit(admit(9999, None, OnBusy::Enqueue)).unwrap_err();
    assert_eq!(error, SessionError::QueueFull(MAX_QUEUE));
}

#[test]
fn a_session_is_its_users_and_nobody_elses() {
    let created = SessionEvent::Created(SessionCreated {
        session_id: SessionId::parse("s-1").unwrap(),
        user_id: Some(UserId::parse("alice").unwrap()),
        component: None,
        name: None.into(),
        metadata: None.into(),
        at: 1,
    });
    let given = || TestFramework::<SessionState>::with(()).given(vec![created.clone()]);
    given().when(admit(1, Some("bob"), OnBusy::Enqueue)).then_expect_error(SessionError::Foreign);
    given().when(admit(1, None, OnBusy::Enqueue)).then_expect_error(SessionError::Foreign);
    let admitted = SessionRunAdmitted { run_id: run(1), admission: Admission::Active, again: false, at: 1 };
    let expected = vec![SessionEvent::RunAdmitted(admitted)];
    given().when(admit(1, Some("alice"), OnBusy::Enqueue)).then_expect_events(expected);
}

#[test]
fn the_component_sets_what_is_missing_and_the_caller_what_it_says() {
    let mut command = admit(1, None, OnBusy::Enqueue);
    command.default_state = Map::from_iter([("count".into(), json!(0)), ("color".into(), json!("red"))]);
    command.state = Some(Map::from_iter([("color".into(), json!("blue"))]));
    let mut state = session(&[command.clone()]);
    assert_eq!(Value::Object(state.state.clone()), json!({"count": 0, "color": "blue"}));
    state.evolve(&ended(1));
    command.run_id = run(2);
    let (_, events) = state.admit(command).unwrap();
    assert_eq!(events.len(), 1, "nothing changes, so nothing is recorded");
}

proptest! {
    /// Patches of runs beside each other set other keys: whatever their order, none is lost.
    #[test]
    fn patches_of_other_keys_commute(mut keys in proptest::collection::hash_set("[a-z]{1,6}", 1..20), seed in 0usize..20) {
        let patch = |key: &String| StatePatch { set: Map::from_iter([(key.clone(), json!(key))]), unset: vec![] };
        let all: Vec<String> = keys.drain().collect();
        let (mut one, mut other) = (Map::new(), Map::new());
        all.iter().for_each(|key| patch(key).apply(&mut one));
        let mut turned = all.clone();
        turned.rotate_left(seed % all.len());
        turned.iter().for_each(|key| patch(key).apply(&mut other));
        prop_assert_eq!(one.len(), all.len());
        prop_assert!(all.iter().all(|key| one.get(key) == other.get(key)));
    }

    /// Whatever is admitted and ended in whatever order: at most one run holds the session, none waits beside a free one.
    #[test]
    fn a_free_session_has_no_queue(steps in proptest::collection::vec((0usize..8, any::<bool>()), 0..60)) {
        let mut state = SessionState::default();
        for (n, (pick, start)) in steps.into_iter().enumerate() {
            if start {
                let on_busy = [OnBusy::Enqueue, OnBusy::Interrupt, OnBusy::Parallel][pick % 3];
                let (_, events) = state.admit(admit(n, None, on_busy)).unwrap();
                events.iter().for_each(|event| state.evolve(event));
            } else {
                state.evolve(&ended(pick));
            }
            prop_assert!(state.active.is_some() || state.queue.is_empty());
        }
    }
}
