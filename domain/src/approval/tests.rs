use cqrs_es::test::TestFramework;
use serde_json::{Map, json};

use super::*;
use crate::component::ComponentRef;
use crate::ids::{ApprovalId, ComponentId, RunId, SessionId, UserId};
use crate::run::{Requirement, RequirementKind};
use crate::tool::{ApprovalKind, ApprovalRule, OnExpiry};

fn requested(rule: ApprovalRule) -> ApprovalEvent {
    let arguments = Map::from_iter([("service".to_owned(), json!("api"))]);
    ApprovalEvent::Requested(Box::new(ApprovalRequested {
        approval_id: ApprovalId::parse("a-1").unwrap(),
        run_id: RunId::parse("r-1").unwrap(),
        session_id: SessionId::parse("s-1").unwrap(),
        user_id: Some(UserId::parse("alice").unwrap()),
        component: ComponentRef::agent(ComponentId::parse("my-agent").unwrap()),
        source_name: "My Agent".into(),
        requirement: Requirement::new("c-1", RequirementKind::Confirmation),
        tool: "deploy".into(),
        call_hash: call_hash("deploy", &arguments),
        arguments: arguments.into(),
        expires_at_ms: rule.expires_after_seconds.map(|seconds| i64::try_from(seconds).unwrap() * 1000),
        rule,
        at_ms: 0,
    }))
}

fn required() -> ApprovalRule {
    ApprovalRule::new(ApprovalKind::Required)
}

fn resolve(verdict: Verdict, by: &str, resolved_by: Option<&str>) -> ApprovalCommand {
    let resolved_by = resolved_by.map(str::to_owned);
    ApprovalCommand::Resolve { verdict, by: by.into(), resolved_by, data: None, at_ms: 5 }
}

fn resolved(verdict: Verdict, by: &str, resolved_by: Option<&str>) -> ApprovalEvent {
    let (resolved_by, data) = (resolved_by.map(str::to_owned).into(), None.into());
    ApprovalEvent::Resolved(ApprovalResolved { verdict, by: by.into(), resolved_by, data, at_ms: 5 })
}

fn given(events: &[ApprovalEvent]) -> cqrs_es::test::AggregateTestExecutor<ApprovalState> {
    TestFramework::with(()).given(events.to_vec())
}

#[test]
fn the_first_decision_wins() {
    let events = [requested(required()), resolved(Verdict::Approved, "anonymous", Some("boss"))];
    given(&events[..1])
        .when(resolve(Verdict::Approved, "anonymous", Some("boss")))
        .then_expect_events(vec![events[1].clone()]);
    let settled = ApprovalError::Settled { status: ApprovalStatus::Approved, by: Some("boss".into()) };
    assert_eq!(settled.to_string(), "Approval is already 'approved' and cannot be resolved (by boss)");
    given(&events).when(resolve(Verdict::Rejected, "anonymous", None)).then_expect_error(settled);
    given(&events).when(ApprovalCommand::Expire { at_ms: 9 }).then_expect_events(vec![]);
}

#[test]
fn the_requester_may_not_decide_where_the_rule_says_so() {
    let events = [requested(ApprovalRule { not_by_requester: true, ..required() })];
    let own = ApprovalError::OwnRequest("alice".into());
    given(&events).when(resolve(Verdict::Approved, "anonymous", Some("alice"))).then_expect_error(own.clone());
    given(&events).when(resolve(Verdict::Approved, "user:alice", Some("boss"))).then_expect_error(own);
    given(&events).when(resolve(Verdict::Approved, "anonymous", None)).then_expect_error(ApprovalError::Nameless);
    let expected = vec![resolved(Verdict::Approved, "user:bob", Some("bob"))];
    given(&events).when(resolve(Verdict::Approved, "user:bob", Some("bob"))).then_expect_events(expected);
}

#[test]
fn another_spelling_is_no_other_person() {
    let events = [requested(ApprovalRule { not_by_requester: true, ..required() })];
    for name in [" alice", "Alice", "ALICE\n", "\u{ff41}lice"] {
        let own = ApprovalError::OwnRequest("alice".into());
        given(&events).when(resolve(Verdict::Approved, "anonymous", Some(name))).then_expect_error(own.clone());
        let by = format!("user:{name}");
        given(&events).when(resolve(Verdict::Rejected, &by, Some("boss"))).then_expect_error(own);
    }
    given(&events).when(resolve(Verdict::Approved, "anonymous", Some(" "))).then_expect_error(ApprovalError::Nameless);
    let [ApprovalEvent::Requested(asked)] = &events else { panic!("{events:?}") };
    let rene = ApprovalRequested { user_id: Some(UserId::parse("Ren\u{e9}").unwrap()), ..(**asked).clone() };
    let own = ApprovalError::OwnRequest("Ren\u{e9}".into());
    let decomposed = resolve(Verdict::Approved, "anonymous", Some("rene\u{301}"));
    given(&[ApprovalEvent::Requested(Box::new(rene))]).when(decomposed).then_expect_error(own);
}

#[test]
fn where_nobody_knows_the_requester_nobody_approves() {
    let ApprovalEvent::Requested(asked) = requested(ApprovalRule { not_by_requester: true, ..required() }) else {
        panic!("not requested")
    };
    let events = [ApprovalEvent::Requested(Box::new(ApprovalRequested { user_id: None, ..*asked }))];
    given(&events)
        .when(resolve(Verdict::Approved, "anonymous", Some("boss")))
        .then_expect_error(ApprovalError::NoRequester);
    let rejected = resolved(Verdict::Rejected, "anonymous", Some("boss"));
    given(&events).when(resolve(Verdict::Rejected, "anonymous", Some("boss"))).then_expect_events(vec![rejected]);
}

#[test]
fn what_is_deleted_is_gone_for_callers_and_what_is_pending_stays() {
    let deleted = ApprovalEvent::Deleted(ApprovalDeleted { by: "x".into(), at_ms: 7 });
    let delete = || ApprovalCommand::Delete { by: "x".into(), at_ms: 7 };
    let events = [requested(required()), resolved(Verdict::Approved, "x", None), deleted.clone()];
    given(&events[..1]).when(delete()).then_expect_error(ApprovalError::Pending);
    given(&events[..2]).when(delete()).then_expect_events(vec![deleted]);
    given(&events).when(delete()).then_expect_error(ApprovalError::Unknown);
    given(&events).when(resolve(Verdict::Approved, "x", None)).then_expect_error(ApprovalError::Unknown);
}

#[test]
fn it_is_due_at_the_next_reminder_or_its_expiry() {
    let due = |rule: ApprovalRule, reminders: u32| {
        let mut state = ApprovalState::default();
        state.evolve(&requested(rule));
        (0..reminders)
            .for_each(|n| state.evolve(&ApprovalEvent::Reminded(ApprovalReminded { count: n + 1, at_ms: 1 })));
        state.due_ms()
    };
    assert_eq!(due(required(), 0), None);
    let both = ApprovalRule { expires_after_seconds: Some(10), remind_every_seconds: Some(4), ..required() };
    assert_eq!(
        (due(both.clone(), 0), due(both.clone(), 1), due(both.clone(), 2)),
        (Some(4000), Some(8000), Some(10_000))
    );
    let waits = ApprovalRule { on_expiry: OnExpiry::Wait, ..both };
    assert_eq!(due(waits.clone(), 2), Some(12_000), "who waits is reminded, and never expires");
    assert_eq!(due(ApprovalRule { remind_every_seconds: None, ..waits }, 0), None);
}

#[test]
fn the_hash_is_of_the_exact_call() {
    let arguments = |json: serde_json::Value| json.as_object().cloned().unwrap();
    let hash = call_hash("deploy", &arguments(json!({"a": 1, "b": {"x": 1, "y": 2}})));
    assert_eq!(hash, call_hash("deploy", &arguments(json!({"b": {"y": 2, "x": 1}, "a": 1}))), "whatever the order");
    assert_ne!(hash, call_hash("deploy", &arguments(json!({"a": "1", "b": {"x": 1, "y": 2}}))));
    assert_ne!(hash, call_hash("destroy", &arguments(json!({"a": 1, "b": {"x": 1, "y": 2}}))));
}
