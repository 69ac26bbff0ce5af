//! The view of approvals: pages, totals that follow what is decided, and what the clock demands.

use daybook_domain::approval::{
    ApprovalDeleted, ApprovalEvent, ApprovalReminded, ApprovalRequested, ApprovalResolved, ApprovalStatus, Verdict,
};
use daybook_domain::run::{Requirement, RequirementKind};
use daybook_domain::tool::{ApprovalKind, ApprovalRule};
use daybook_domain::{ApprovalId, DomainEvent, StreamId};
use daybook_store::StreamWrite;
use serde_json::Map;
use sqlx::AssertSqlSafe;

use super::world::*;
use crate::approvals::{Approvals, page_query};
use crate::projection::{Projection, Scope};
use crate::{ApprovalFilter, Runner};

fn id(n: usize) -> ApprovalId {
    ApprovalId::parse(format!("a-{n:04}")).unwrap()
}

pub(super) fn requested(n: usize, owner: &str, expires: Option<i64>) -> ApprovalEvent {
    let remind_every_seconds = expires.map(|_| 1000);
    ApprovalEvent::Requested(Box::new(ApprovalRequested {
        approval_id: id(n),
        run_id: run(&format!("r-{}", n % 100)),
        session_id: session("s"),
        user_id: Some(user(owner)),
        component: agent("a"),
        source_name: "A".to_owned(),
        requirement: Requirement::new("c", RequirementKind::Confirmation),
        tool: "t".to_owned(),
        arguments: Map::new().into(),
        call_hash: "h".to_owned(),
        rule: ApprovalRule { remind_every_seconds, ..ApprovalRule::new(ApprovalKind::Required) },
        expires_at_ms: expires,
        at_ms: 0,
    }))
}

pub(super) fn resolved() -> ApprovalEvent {
    let (verdict, by, at_ms) = (Verdict::Approved, "anonymous".to_owned(), 5);
    ApprovalEvent::Resolved(ApprovalResolved { verdict, by, resolved_by: None.into(), data: None.into(), at_ms })
}

pub(super) fn of(n: usize, events: Vec<ApprovalEvent>) -> StreamWrite {
    write(StreamId::approval(&id(n)), "s", events.into_iter().map(DomainEvent::from).collect())
}

#[tokio::test]
async fn pages_totals_and_timers_follow_the_log() {
    let world = World::new().await;
    let runner = Runner::start(world.store.clone(), LOG);
    let views = runner.views().patient();
    let owner = |n: usize| if n.is_multiple_of(2) { "alice" } else { "bob" };
    let asked = (0..6).map(|n| of(n, vec![requested(n, owner(n), (n == 5).then_some(2_000_000))]));
    world.append(asked.collect()).await;
    world.append(vec![of(0, vec![resolved()]), of(1, vec![resolved()])]).await;
    let deleted = ApprovalEvent::Deleted(ApprovalDeleted { by: "x".to_owned(), at_ms: 9 });
    world.append(vec![of(1, vec![deleted])]).await;

    let page = async |filter: ApprovalFilter| {
        let page = views.approvals(LOG, None, &filter).await.unwrap().value;
        let ids: Vec<_> = page.rows.iter().map(|row| row.state.requested.clone().unwrap().approval_id).collect();
        (ids, page.total)
    };
    let all = ApprovalFilter::default;
    assert_eq!(page(all()).await, ([5, 4, 3, 2, 0].map(id).to_vec(), 5), "newest first, none that was deleted");
    assert_eq!(page(ApprovalFilter { limit: 2, page: 2, ..all() }).await, ([3, 2].map(id).to_vec(), 5));
    let approved = ApprovalFilter { status: Some(ApprovalStatus::Approved), ..all() };
    assert_eq!(page(approved).await, (vec![id(0)], 1));
    let bobs = ApprovalFilter { user_id: Some(user("bob")), ..all() };
    assert_eq!(page(bobs).await, (vec![id(5), id(3)], 2));
    assert_eq!(page(ApprovalFilter { run_id: Some(run("r-4")), ..all() }).await, (vec![id(4)], 1));
    assert_eq!(page(ApprovalFilter { kind: Some(ApprovalKind::Audit), ..all() }).await, (vec![], 0));
    assert_eq!(views.pending_approvals(LOG, None).await.unwrap().value, 4);
    assert_eq!(views.pending_approvals(LOG, Some(&user("bob"))).await.unwrap().value, 2);
    let (alice, bobs) = (user("alice"), ApprovalFilter { user_id: Some(user("bob")), ..all() });
    assert_eq!(views.approvals(LOG, Some(&alice), &bobs).await.unwrap().value.total, 0);

    // The reminder is due first, once for everybody, and again when who claimed it did nothing.
    let due = async |now: i64| views.claim_due_approvals(LOG, now, 10).await.unwrap();
    assert!(due(999_999).await.is_empty());
    assert_eq!(due(1_000_000).await, [id(5)]);
    assert!(due(1_000_001).await.is_empty());
    assert_eq!(due(1_031_000).await, [id(5)]);
    let reminded = ApprovalEvent::Reminded(ApprovalReminded { count: 1, at_ms: 1_031_000 });
    world.append(vec![of(5, vec![reminded])]).await;
    assert!(due(1_100_000).await.is_empty(), "the next is later");
    assert_eq!(due(2_000_000).await, [id(5)]);
    world.append(vec![of(5, vec![resolved()])]).await;
    assert!(due(9_000_000).await.is_empty());
    runner.stop().await;
    world.end().await;
}

#[tokio::test]
async fn pages_come_from_an_index() {
    let world = World::new().await;
    let runner = Runner::start(world.store.clone(), LOG);
    for batch in 0..10 {
        let writes = (0..100).map(|n| of(batch * 100 + n, vec![requested(batch * 100 + n, "alice", None)]));
        world.append(writes.collect()).await;
    }
    let total = runner.views().patient().approvals(LOG, None, &ApprovalFilter::default()).await.unwrap().value.total;
    assert_eq!(total, 1000);
    let pool = world.store.pool();
    sqlx::query("ANALYZE approval_view").execute(pool).await.unwrap();
    let scope = Scope { log: LOG, version: Approvals::VERSION };
    let filters = [
        (ApprovalFilter::default(), vec![]),
        (ApprovalFilter { status: Some(ApprovalStatus::Rejected), ..ApprovalFilter::default() }, vec!["rejected"]),
        (ApprovalFilter { run_id: Some(run("r-1")), ..ApprovalFilter::default() }, vec!["r-1"]),
    ];
    for (filter, texts) in filters {
        let query = page_query(scope, None, &filter);
        let sql = format!("EXPLAIN {}", query.sql().as_str());
        let mut explain = sqlx::query_scalar::<_, String>(AssertSqlSafe(sql)).bind(LOG.0).bind(scope.version);
        for text in texts {
            explain = explain.bind(text);
        }
        let plan = explain.bind(100_i64).bind(0_i64).fetch_all(pool).await.unwrap().join("\n");
        assert!(!plan.contains("Seq Scan"), "{filter:?}: {plan}");
    }
    runner.stop().await;
    world.end().await;
}
