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
    SessionEvent::RunEnded(SessionRunEnded {
        run_id: run(n),
        status,
        usage,
        model: None,
        at: 2,
        others: Default::default(),
    })
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

fn begin(user: Option<&str>, state: Value) -> BeginSession {
    BeginSession {
        session_id: SessionId::parse("s-1").unwrap(),
        user_id: user.map(|user| UserId::parse(user).unwrap()),
        component: Some(ComponentRef::team(ComponentId::parse("t").unwrap())),
        name: Some("Mine".into()),
        metadata: Some(Map::from_iter([("m".into(), json!(2))])),
        state: state.as_object().unwrap().clone(),
        at: 1,
    }
}

#[test]
fn a_session_begins_once_and_a_stranger_is_told_nothing_of_it() {
    let created = SessionEvent::Created(SessionCreated {
        session_id: SessionId::parse("s-1").unwrap(),
        user_id: Some(UserId::parse("alice").unwrap()),
        component: Some(ComponentRef::team(ComponentId::parse("t").unwrap())),
        name: Some("Mine".to_owned()).into(),
        metadata: Some(Map::from_iter([("m".to_owned(), json!(2))])).into(),
        at: 1,
    });
    let patch = StatePatch { set: Map::from_iter([("a".into(), json!(1))]), unset: vec![] };
    let state = SessionEvent::StateChanged(SessionStateChanged { run_id: None, patch: patch.into(), at: 1 });
    let new = SessionState::default();
    assert_eq!(new.begin(begin(Some("alice"), json!({}))), Ok(vec![created.clone()]));
    assert_eq!(new.begin(begin(Some("alice"), json!({"a": 1}))), Ok(vec![created.clone(), state]));
    let mut there = new;
    there.evolve(&created);
    let exists = SessionError::Exists(SessionId::parse("s-1").unwrap());
    assert_eq!(there.begin(begin(Some("alice"), json!({"a": 1}))), Err(exists.clone()));
    for stranger in [Some("bob"), None] {
        assert_eq!(there.begin(begin(stranger, json!({}))), Err(SessionError::Foreign));
    }
    // One that a run began is there as well.
    let begun = session(&[admit(1, None, OnBusy::Enqueue)]);
    assert_eq!(begun.begin(begin(Some("alice"), json!({}))), Err(exists));
}

#[test]
fn what_a_session_begins_with_is_not_overwritten_by_its_component() {
    let mut state = SessionState::default();
    let events = state.begin(begin(None, json!({"color": "blue"}))).unwrap();
    events.iter().for_each(|event| state.evolve(event));
    let mut command = admit(1, None, OnBusy::Enqueue);
    command.default_state = Map::from_iter([("count".into(), json!(0)), ("color".into(), json!("red"))]);
    let (admission, events) = state.admit(command).unwrap();
    events.iter().for_each(|event| state.evolve(event));
    assert_eq!((admission, state.name.as_deref()), (Admission::Active, Some("Mine")));
    assert_eq!(Value::Object(state.state), json!({"count": 0, "color": "blue"}));
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

fn compacted(version: u64, previous: Option<u64>, runs: std::ops::Range<usize>) -> SessionCompacted {
    SessionCompacted {
        version,
        component: ComponentRef::agent(ComponentId::parse("a").unwrap()),
        config_hash: "h".into(),
        previous,
        runs: runs.map(run).collect(),
        messages: 1,
        summary: "s".to_owned().into(),
        source_hash: "s".into(),
        first_kept: None,
        model: ("m".into(), "P".into()),
        usage: Usage { total_tokens: 7, ..Usage::default() },
        duration: 1.0,
        tokens_before: 2,
        tokens_after: 1,
        at: 9,
    }
}

/// A session in which these runs have ended well.
fn talked(runs: std::ops::Range<usize>) -> SessionState {
    let mut state = session(&runs.clone().map(|n| admit(n, None, OnBusy::Enqueue)).collect::<Vec<_>>());
    runs.for_each(|n| state.evolve(&ended(n)));
    state
}

fn open(state: &SessionState) -> Vec<RunId> {
    state.unsummarised().cloned().collect()
}

#[test]
fn a_summary_stands_for_the_oldest_runs_and_the_next_one_for_those_after_them() {
    let mut state = talked(0..5);
    state.check_summary(&compacted(20, None, 0..2)).unwrap();
    state.evolve(&SessionEvent::Compacted(compacted(20, None, 0..2)));
    assert_eq!(open(&state), [2, 3, 4].map(run));
    assert_eq!(state.recent.len(), 5, "agents that summarise nothing see them as before");
    assert_eq!((state.totals.usage.total_tokens, state.updated_at), (7, 9));
    let next = compacted(21, Some(20), 2..4);
    state.check_summary(&next).unwrap();
    state.evolve(&SessionEvent::Compacted(next));
    assert_eq!(open(&state), [run(4)]);
    assert_eq!(state.summarised, Some(Summarised { version: 21, runs: 4 }));
    assert_eq!(state.totals.summaries.len(), 1);
    assert_eq!(state.totals.summaries[0].1.total_tokens, 14);
}

#[test]
fn a_summary_that_came_too_late_is_not_taken() {
    let mut state = talked(0..4);
    let late = compacted(20, None, 0..2);
    // Runs that begin and end meanwhile do not matter.
    let (_, events) = state.admit(admit(4, None, OnBusy::Enqueue)).unwrap();
    events.iter().chain([&ended(4)]).for_each(|event| state.evolve(event));
    state.check_summary(&late).unwrap();
    let mut replaced = state.clone();
    let gone = SessionRunReplaced { run_id: run(1), by: run(4), at: 3 };
    replaced.evolve(&SessionEvent::RunReplaced(gone));
    assert_eq!(replaced.check_summary(&late), Err(CompactError::Replaced));
    state.evolve(&SessionEvent::Compacted(compacted(19, None, 0..1)));
    assert_eq!(state.check_summary(&late), Err(CompactError::Compacted));
}

#[test]
fn what_is_forgotten_or_replaced_does_not_move_the_cut() {
    let mut state = talked(0..5);
    state.evolve(&SessionEvent::Compacted(compacted(20, None, 0..3)));
    let replaced = |n| SessionEvent::RunReplaced(SessionRunReplaced { run_id: run(n), by: run(9), at: 3 });
    state.evolve(&replaced(1));
    assert_eq!(open(&state), [run(3), run(4)]);
    state.evolve(&replaced(3));
    assert_eq!(open(&state), [run(4)]);
    // The hundred remembered runs push the summarised ones out first.
    for n in 10..109 {
        state.evolve(&ended(n));
    }
    assert_eq!((state.recent.front(), state.summarised.unwrap().runs), (Some(&run(4)), 0));
    assert_eq!(open(&state).len(), 100);
}

#[test]
fn a_session_is_compacted_by_itself_when_it_is_large_or_would_forget() {
    let state = SessionState::default();
    assert!(!state.is_compaction_due(&[50, 50], 1, 100));
    assert!(state.is_compaction_due(&[50, 51], 1, 100));
    assert!(!state.is_compaction_due(&[500, 500], 2, 100), "these stay word for word");
    assert!(!state.is_compaction_due(&[1; 99], 2, 100));
    assert!(state.is_compaction_due(&[1; 100], 2, 100));
    assert!(state.is_compaction_due(&[u64::MAX, u64::MAX, 1], 2, u64::MAX - 1));
}

proptest! {
    /// What is seen word for word is as much as fits, but never less than what must stay.
    #[test]
    fn what_is_seen_fits_or_must_stay(sizes in proptest::collection::vec(0u64..50, 0..20), least in 0usize..8, budget in 0u64..200) {
        let count = newest_within(&sizes, least, budget);
        prop_assert!(count <= sizes.len() && count >= least.min(sizes.len()));
        let of_newest = |count: usize| sizes[sizes.len() - count..].iter().sum::<u64>();
        prop_assert!(count <= least || of_newest(count) <= budget);
        prop_assert!(count == sizes.len() || of_newest(count + 1) > budget);
    }

    /// A compaction takes the oldest runs, leaves those that must stay, and always gets on.
    #[test]
    fn a_compaction_gets_on_and_leaves_what_must_stay(sizes in proptest::collection::vec(0u64..50, 0..20), keep in 0usize..8, budget in 0u64..200) {
        let count = oldest_within(&sizes, keep, budget);
        prop_assert!(count <= sizes.len().saturating_sub(keep));
        prop_assert_eq!(count > 0, sizes.len() > keep);
        prop_assert!(count <= 1 || sizes[..count].iter().sum::<u64>() <= budget);
    }

    /// Whatever ends, is replaced and summarised: what no summary stands for are exactly the last remembered runs that none
    /// took in, and old folds are never counted wrong.
    #[test]
    fn the_cut_is_where_the_summaries_end(steps in proptest::collection::vec((0usize..3, 1usize..6), 0..80)) {
        let mut state = SessionState::default();
        let (mut seen, mut version): (Vec<RunId>, u64) = (Vec::new(), 0);
        for (n, (what, pick)) in steps.into_iter().enumerate() {
            version += 1;
            match what {
                0 if !seen.is_empty() => {
                    let taken = pick.min(seen.len());
                    let previous = state.summarised.map(|summarised| summarised.version);
                    let runs = seen.drain(..taken).collect();
                    let event = SessionCompacted { runs, ..compacted(version, previous, 0..0) };
                    state.check_summary(&event).unwrap();
                    state.evolve(&SessionEvent::Compacted(event));
                }
                1 if !state.recent.is_empty() => {
                    let run_id = state.recent[pick % state.recent.len()].clone();
                    seen.retain(|run| *run != run_id);
                    state.evolve(&SessionEvent::RunReplaced(SessionRunReplaced { run_id, by: run(9999), at: 1 }));
                }
                _ => {
                    state.evolve(&ended(n));
                    seen.push(run(n));
                }
            }
            prop_assert_eq!(open(&state), seen.clone());
        }
    }
}
