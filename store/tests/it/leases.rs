//! Leases of run trees: who may append for one, and who may take it over.

use daybook_store::{Abilities, AppendError, Expected, Lease, LeaseOp, NodeInfo, Store, StrandedLease};

use crate::server::*;

fn take(tree: &str, node: &str, component: &str, tools: &[&str]) -> LeaseOp {
    LeaseOp::Take {
        tree: run(tree),
        node: node.to_owned(),
        epoch: 1,
        component: component.to_owned(),
        tools: tools.iter().map(|tool| (*tool).to_owned()).collect(),
    }
}

fn hold(tree: &str, node: &str, epoch: u64) -> LeaseOp {
    LeaseOp::Hold { tree: run(tree), node: node.to_owned(), epoch }
}

async fn append(store: &Store, lease: LeaseOp, version: u64) -> Result<u64, AppendError> {
    let mut request = add("a", Expected::Version(version), &["step"]);
    request.lease = lease;
    store.append(request).await.map(|appended| appended.versions[0])
}

async fn claim(store: &Store, node: &str, components: &[&str], tools: &[&str]) -> Vec<Lease> {
    let own = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    store.claim_leases(LOG, node, &own(components), &own(tools), 10).await.unwrap()
}

/// The node lives, however long the test takes.
async fn join(store: &Store, id: &str) {
    join_with(store, id, &[], &[]).await;
}

async fn join_with(store: &Store, id: &str, components: &[&str], tools: &[&str]) {
    let own = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let abilities = Abilities { components: own(components), models: vec![], tools: own(tools) };
    store.join_node(&NodeInfo { id: id.to_owned(), host: "h".to_owned(), pid: 7, abilities }).await.unwrap();
    last_heard(store, id, "1 day").await;
}

/// The node's last heartbeat came so long after now.
async fn last_heard(store: &Store, id: &str, after: &str) {
    sqlx::query("UPDATE nodes SET heartbeat_at = clock_timestamp() + $2::interval WHERE node_id = $1")
        .bind(id)
        .bind(after)
        .execute(store.pool())
        .await
        .unwrap();
}

#[tokio::test]
async fn after_a_takeover_the_old_holder_cannot_append_even_with_the_right_version() {
    let (_database, store) = fresh().await;
    join(&store, "n1").await;
    join(&store, "n2").await;
    append(&store, take("t", "n1", "agent", &["search"]), 0).await.unwrap();
    append(&store, hold("t", "n1", 1), 1).await.unwrap();
    assert!(claim(&store, "n2", &["agent"], &["search"]).await.is_empty(), "its holder lives");

    store.declare_dead("n1").await.unwrap();
    assert!(claim(&store, "n2", &["other"], &["search"]).await.is_empty(), "the node does not have the component");
    assert!(claim(&store, "n2", &["agent"], &[]).await.is_empty(), "the node does not have the tool");
    let claimed = claim(&store, "n2", &["agent", "other"], &["search", "more"]).await;
    assert_eq!(claimed, [Lease { tree: run("t"), epoch: 2, component: "agent".to_owned() }]);
    assert!(claim(&store, "n3", &["agent"], &["search"]).await.is_empty(), "n2 holds it now");

    for lost in [hold("t", "n1", 1), hold("t", "n1", 2), hold("t", "n2", 1), hold("unknown", "n2", 2)] {
        let refused = append(&store, lost.clone(), 2).await;
        assert!(matches!(refused, Err(AppendError::LostLease { .. })), "{lost:?}: {refused:?}");
    }
    append(&store, hold("t", "n2", 2), 2).await.unwrap();
    assert!(!store.heartbeat("n1").await.unwrap(), "n1 learns that it was given up");
    assert!(store.heartbeat("n2").await.unwrap());
    store.close().await;
}

#[tokio::test]
async fn a_silent_node_loses_its_leases_and_a_leaving_one_hands_them_over() {
    let (_database, store) = fresh().await;
    join(&store, "n1").await;
    join(&store, "n2").await;
    append(&store, take("t", "n1", "agent", &[]), 0).await.unwrap();
    last_heard(&store, "n1", "-7 seconds").await;
    assert_eq!(claim(&store, "n2", &["agent"], &[]).await[0].epoch, 2);
    store.leave_node("n2").await.unwrap();
    assert_eq!(store.lease(LOG, &run("t")).await.unwrap(), Some((None, 2)));
    assert_eq!(store.dead_neighbours("h").await.unwrap(), [("n1".to_owned(), 7)]);
    assert!(store.heartbeat("n1").await.unwrap(), "silent is not gone");
    assert_eq!(claim(&store, "n1", &["agent"], &[]).await[0].epoch, 3);
    store.close().await;
}

#[tokio::test]
async fn a_node_that_stood_still_takes_nothing_over_from_itself() {
    let (_database, store) = fresh().await;
    join(&store, "n1").await;
    join(&store, "n2").await;
    append(&store, take("t", "n1", "agent", &[]), 0).await.unwrap();
    last_heard(&store, "n1", "-7 seconds").await;
    assert!(claim(&store, "n1", &["agent"], &[]).await.is_empty());
    append(&store, hold("t", "n1", 1), 1).await.unwrap();
    assert_eq!(claim(&store, "n2", &["agent"], &[]).await[0].epoch, 2, "another may");
    store.close().await;
}

#[tokio::test]
async fn a_lease_is_taken_once_and_given_up_for_good() {
    let (_database, store) = fresh().await;
    join(&store, "n1").await;
    append(&store, take("t", "n1", "agent", &[]), 0).await.unwrap();
    let again = append(&store, take("t", "n1", "agent", &[]), 1).await;
    assert!(matches!(again, Err(AppendError::LostLease { .. })), "{again:?}");
    let release = LeaseOp::Release { tree: run("t"), node: "n1".to_owned(), epoch: 1 };
    append(&store, release.clone(), 1).await.unwrap();
    assert!(matches!(append(&store, release, 2).await, Err(AppendError::LostLease { .. })));
    assert_eq!(store.lease(LOG, &run("t")).await.unwrap(), None);
    store.close().await;
}

#[tokio::test]
async fn a_lease_given_up_is_claimed_anew_unless_it_has_moved_on() {
    let (_database, store) = fresh().await;
    join(&store, "n1").await;
    append(&store, take("t", "n1", "agent", &[]), 0).await.unwrap();
    assert_eq!(store.leases_of(LOG, "n1").await.unwrap(), [(run("t"), 1)]);
    assert_eq!(store.leases_of(LOG, "n2").await.unwrap(), []);
    for (node, epoch) in [("n1", 2), ("n2", 1)] {
        store.give_up_lease(LOG, node, &run("t"), epoch).await.unwrap();
        assert!(claim(&store, "n1", &["agent"], &[]).await.is_empty(), "{node} {epoch} is not who holds it");
    }
    store.give_up_lease(LOG, "n1", &run("t"), 1).await.unwrap();
    assert_eq!(claim(&store, "n1", &["agent"], &[]).await[0].epoch, 2);
    store.close().await;
}

#[tokio::test]
async fn a_lease_is_stranded_while_no_living_node_could_claim_it() {
    let (_database, store) = fresh().await;
    let stranded = async || store.stranded_leases(LOG, 10).await.unwrap();
    append(&store, take("t", "gone", "agent", &["search", "mail"]), 0).await.unwrap();
    let tools = vec!["search".to_owned(), "mail".to_owned()];
    let lease = StrandedLease { tree: run("t"), component: "agent".to_owned(), tools };
    assert_eq!(stranded().await, std::slice::from_ref(&lease));
    join_with(&store, "n1", &["agent"], &["search"]).await;
    join_with(&store, "n2", &["other"], &["search", "mail"]).await;
    assert_eq!(stranded().await, std::slice::from_ref(&lease), "each has only half of it");
    join_with(&store, "n1", &["agent"], &["mail", "more", "search"]).await;
    assert!(stranded().await.is_empty(), "what a node tells anew counts");
    last_heard(&store, "n1", "-7 seconds").await;
    assert_eq!(stranded().await, [lease], "the dead claim nothing");
    sqlx::query(
        "INSERT INTO nodes (node_id, host, pid, started_at, heartbeat_at) VALUES ('old', 'h', 1, now(), now())",
    )
    .execute(store.pool())
    .await
    .unwrap();
    last_heard(&store, "old", "1 day").await;
    assert!(stranded().await.is_empty(), "who does not say what it can run may run it");
    let living = store.living_nodes().await.unwrap();
    assert_eq!((living.len(), living.iter().filter(|node| node.is_none()).count()), (2, 1));
    store.close().await;
}

#[tokio::test]
async fn one_lease_is_claimed_whatever_it_needs_unless_a_living_node_has_it() {
    let (_database, store) = fresh().await;
    join(&store, "n1").await;
    join(&store, "n2").await;
    append(&store, take("t", "n1", "agent", &["search"]), 0).await.unwrap();
    for node in ["n1", "n2"] {
        assert_eq!(store.claim_lease(LOG, node, &run("t")).await.unwrap(), None, "n1 lives and holds it");
    }
    store.declare_dead("n1").await.unwrap();
    let claimed = store.claim_lease(LOG, "n2", &run("t")).await.unwrap().unwrap();
    assert_eq!((claimed.tree, claimed.epoch), (run("t"), 2));
    assert!(matches!(append(&store, hold("t", "n1", 1), 1).await, Err(AppendError::LostLease { .. })));
    append(&store, hold("t", "n2", 2), 1).await.unwrap();
    assert_eq!(store.claim_lease(LOG, "n2", &run("unknown")).await.unwrap(), None);
    store.close().await;
}

#[tokio::test]
async fn of_many_that_claim_at_once_one_gets_each_tree() {
    let (database, store) = fresh().await;
    for n in 0..20 {
        let mut request = add(&format!("s{n}"), Expected::Any, &["step"]);
        request.lease = take(&format!("t{n}"), "gone", "agent", &[]);
        store.append(request).await.unwrap();
    }
    let other = database.store().await;
    join(&store, "n1").await;
    join(&store, "n2").await;
    let mut claimed = Vec::new();
    for _ in 0..4 {
        let (mine, theirs) = tokio::join!(claim(&store, "n1", &["agent"], &[]), claim(&other, "n2", &["agent"], &[]));
        claimed.extend(mine.into_iter().chain(theirs));
    }
    let mut trees: Vec<_> = claimed.iter().map(|lease| lease.tree.clone()).collect();
    trees.sort();
    trees.dedup();
    assert_eq!((trees.len(), claimed.len()), (20, 20));
    assert!(claimed.iter().all(|lease| lease.epoch == 2));
    store.close().await;
    other.close().await;
}

#[tokio::test]
async fn a_release_touches_its_own_lease_only() {
    let (database, store) = fresh().await;
    for n in 0..300 {
        append(&store, take(&format!("t{n}"), "n1", "agent", &[]), n).await.unwrap();
    }
    store.close().await;
    let before = database.touched("leases").await;
    let store = database.store().await;
    for n in 0..20 {
        let release = LeaseOp::Release { tree: run(&format!("t{n}")), node: "n1".to_owned(), epoch: 1 };
        append(&store, release, 300 + n).await.unwrap();
    }
    store.close().await;
    let touched = database.touched("leases").await - before;
    // Each is compared with its holder, and found once more to be deleted.
    assert!((20..=40).contains(&touched), "{touched} leases of 300 were read for 20 releases");
}
