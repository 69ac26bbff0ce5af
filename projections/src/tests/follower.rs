//! What happens to approvals is told in order, by one node, and again when it was interrupted.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use daybook_domain::approval::{ApprovalEvent, ApprovalReminded, ApprovalState};
use daybook_store::Store;
use tokio::sync::Semaphore;

use super::approvals::{of, requested, resolved};
use super::world::*;
use crate::Follower;

/// Somebody who listens, and takes as long as he is held.
#[derive(Clone)]
struct Listener {
    heard: Arc<Mutex<Vec<String>>>,
    go_on: Arc<Semaphore>,
}

impl Listener {
    fn new() -> Self {
        Self { heard: Arc::default(), go_on: Arc::new(Semaphore::new(Semaphore::MAX_PERMITS)) }
    }

    fn held() -> Self {
        Self { go_on: Arc::new(Semaphore::new(0)), ..Self::new() }
    }

    /// Follows the log from where it was marked.
    async fn follow(&self, store: &Store) -> Follower {
        let follower = Follower::mark(store.clone(), LOG).await.unwrap();
        let listener = self.clone();
        follower.follow(move |event, state| listener.clone().hear(event, state));
        follower
    }

    async fn hear(self, event: ApprovalEvent, state: ApprovalState) {
        let approval = state.requested.map(|requested| requested.approval_id.to_string()).unwrap_or_default();
        self.heard.lock().unwrap().push(format!("{} {approval} {}", event.kind(), state.status.as_str()));
        self.go_on.acquire().await.unwrap().forget();
    }

    async fn until(&self, expected: &[&str]) {
        until(|| async { self.heard.lock().unwrap().len() >= expected.len() }).await;
        assert_eq!(*self.heard.lock().unwrap(), expected);
    }
}

#[tokio::test]
async fn what_happens_after_the_first_start_is_told_once_and_in_order() {
    let world = World::new().await;
    world.append(vec![of(0, vec![requested(0, "alice", None)])]).await;
    let listener = Listener::new();
    let follower = listener.follow(&world.store).await;
    world.append(vec![of(1, vec![requested(1, "alice", None)])]).await;
    world.append(vec![run_write("r", "s", &[accepted("r", "s", None, "a", "m", NOW)])]).await;
    listener.until(&["ApprovalRequested a-0001 pending"]).await;
    let reminded = ApprovalEvent::Reminded(ApprovalReminded { count: 1, at_ms: 1 });
    world.append(vec![of(1, vec![reminded]), of(0, vec![resolved()])]).await;
    let all =
        ["ApprovalRequested a-0001 pending", "ApprovalReminded a-0001 pending", "ApprovalResolved a-0000 approved"];
    listener.until(&all).await;
    follower.stop(Duration::from_secs(180)).await;

    // What happens while nobody follows is told at the next start, with the approval as it is by then.
    world.append(vec![of(2, vec![requested(2, "alice", None)]), of(1, vec![resolved()])]).await;
    world.append(vec![of(2, vec![resolved()])]).await;
    let later = Listener::new();
    let follower = later.follow(&world.store).await;
    let rest =
        ["ApprovalRequested a-0002 approved", "ApprovalResolved a-0001 approved", "ApprovalResolved a-0002 approved"];
    later.until(&rest).await;
    follower.stop(Duration::from_secs(180)).await;
    world.end().await;
}

#[tokio::test]
async fn one_of_two_tells_and_what_was_interrupted_is_told_again_by_the_other() {
    let world = World::new().await;
    let other = world.another().await;
    let (first, second) = (Listener::held(), Listener::new());
    let leading = first.follow(&world.store).await;
    world.append(vec![of(1, vec![requested(1, "alice", None)])]).await;
    let asked = ["ApprovalRequested a-0001 pending"];
    first.until(&asked).await;
    let standing_by = second.follow(&other).await;
    // It has no time to end, as in a crash.
    leading.stop(Duration::ZERO).await;
    second.until(&asked).await;
    world.append(vec![of(1, vec![resolved()])]).await;
    second.until(&[asked[0], "ApprovalResolved a-0001 approved"]).await;
    assert_eq!(*first.heard.lock().unwrap(), asked);
    standing_by.stop(Duration::from_secs(180)).await;
    other.close().await;
    world.end().await;
}

#[tokio::test]
async fn a_stop_lets_what_is_being_told_end_and_begins_nothing_new() {
    let world = World::new().await;
    let listener = Listener::held();
    let follower = listener.follow(&world.store).await;
    world.append([1, 2].map(|n| of(n, vec![requested(n, "alice", None)])).to_vec()).await;
    listener.until(&["ApprovalRequested a-0001 pending"]).await;
    let stopping = follower.stop(Duration::from_secs(180));
    let go_on = async {
        tokio::task::yield_now().await;
        listener.go_on.add_permits(1);
    };
    tokio::join!(stopping, go_on);
    assert_eq!(listener.heard.lock().unwrap().len(), 1);
    let next = Listener::new();
    let follower = next.follow(&world.store).await;
    next.until(&["ApprovalRequested a-0002 pending"]).await;
    follower.stop(Duration::from_secs(180)).await;
    world.end().await;
}
