//! Appends: positions, versions, conflicts, duplicates, several streams, several nodes.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use daybook_domain::StreamId;
use daybook_store::{AppendError, CommandKey, Expected, Recorded, Store, StoreError, StreamWrite};
use futures::future::join_all;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::server::*;

fn command(key: &str, body: u8, resource: &str) -> CommandKey {
    CommandKey {
        principal: "user:alice".to_owned(),
        route: "POST /runs".to_owned(),
        key: key.to_owned(),
        body_hash: [body; 32],
        resource: resource.to_owned(),
    }
}

#[tokio::test]
async fn what_is_appended_comes_back_as_it_was() {
    let (_database, store) = fresh().await;
    let text = "nul \u{0}, quote \", emoji \u{1f980}";
    let first = store.append(add("a", Expected::Version(0), &[text, "two"])).await.unwrap();
    assert_eq!((first.last_position, first.versions), (2, vec![2]));
    let second = store.append(add("a", Expected::Version(2), &["three"])).await.unwrap();
    assert_eq!((second.last_position, second.versions), (3, vec![3]));
    assert!(second.recorded_at_ms >= first.recorded_at_ms);

    let all = store.read_after(LOG, 0, 100).await.unwrap();
    assert_eq!(all.iter().map(|r| (r.position, r.version)).collect::<Vec<_>>(), [(1, 1), (2, 2), (3, 3)]);
    assert_eq!(all[0].event, said(text));
    assert_eq!((all[0].principal.as_str(), all[0].interface.as_str()), ("user:alice", "test"));
    assert_eq!((all[0].correlation_id.as_deref(), all[0].causation_id.as_deref()), (Some("c-1"), None));
    assert_eq!(all[0].occurred_at_ms, meta().occurred_at_ms);
    assert_eq!(store.read_stream(LOG, &stream("a"), 1).await.unwrap(), all[1..]);
    assert_eq!(store.read_event(LOG, &stream("a"), 2).await.unwrap().as_ref(), Some(&all[1]));
    assert!(store.read_event(LOG, &stream("a"), 4).await.unwrap().is_none());
    assert_eq!(store.read_after(LOG, 1, 1).await.unwrap(), all[1..2]);
    assert_eq!(store.head(LOG).await.unwrap(), 3);
    let info = store.stream_info(LOG, &stream("a")).await.unwrap().unwrap();
    assert_eq!((info.version, info.first_position, info.last_position), (3, 1, 3));
    assert!(store.stream_info(LOG, &stream("b")).await.unwrap().is_none());
    assert!(store.read_stream(LOG, &stream("b"), 0).await.unwrap().is_empty());
    store.close().await;
    let closed = store.append(add("a", Expected::Any, &["late"])).await;
    assert!(matches!(closed, Err(AppendError::Store(StoreError::Closed))), "{closed:?}");
}

#[tokio::test]
async fn a_request_is_written_whole_or_not_at_all() {
    let (_database, store) = fresh().await;
    store.append(add("a", Expected::Any, &["one"])).await.unwrap();
    let writes = vec![write("b", Expected::Version(0), &["x"]), write("a", Expected::Version(7), &["y"])];
    match store.append(request(writes)).await {
        Err(AppendError::Conflict { stream: at, actual: 1 }) => assert_eq!(at, stream("a")),
        other => panic!("{other:?}"),
    }
    assert_eq!(store.head(LOG).await.unwrap(), 1);
    assert!(store.stream_info(LOG, &stream("b")).await.unwrap().is_none());

    let writes = vec![write("b", Expected::Version(0), &["x", "y"]), write("a", Expected::Version(1), &["z"])];
    let done = store.append(request(writes)).await.unwrap();
    assert_eq!((done.last_position, done.versions), (4, vec![2, 1 + 1]));
    // Only a check: nothing is written, and it still decides.
    let check = vec![write("a", Expected::Version(2), &[]), write("c", Expected::Any, &["w"])];
    assert_eq!(store.append(request(check)).await.unwrap().versions, [2, 1]);
    let check = vec![write("a", Expected::Version(1), &[]), write("c", Expected::Any, &["w"])];
    assert!(matches!(store.append(request(check)).await, Err(AppendError::Conflict { actual: 2, .. })));
    store.close().await;
}

#[tokio::test]
async fn what_can_never_be_stored_is_refused_before_the_queue() {
    let (_database, store) = fresh().await;
    let twice = vec![write("a", Expected::Any, &["x"]), write("a", Expected::Any, &["y"])];
    let nobody = vec![StreamWrite { subject: None, ..write("a", Expected::Any, &["x"]) }];
    let mut nul = add("a", Expected::Any, &["x"]);
    nul.meta.correlation_id = Some("a\0b".to_owned());
    for bad in [request(twice), request(nobody), nul, add("a", Expected::Any, &[])] {
        let refused = store.append(bad).await;
        assert!(matches!(refused, Err(AppendError::Store(StoreError::Invalid(_)))), "{refused:?}");
    }
    assert_eq!(store.head(LOG).await.unwrap(), 0);
    store.close().await;
}

#[tokio::test]
async fn of_fifty_equal_commands_one_is_executed() {
    let (database, store) = fresh().await;
    let other = database.store().await;
    let attempts = (0..50).map(|n| {
        let mut append = add("a", Expected::Any, &["once"]);
        append.command = Some(command("k", 1, &format!("run-{n}")));
        let store = if n % 2 == 0 { &store } else { &other };
        store.append(append)
    });
    let results = join_all(attempts).await;
    let winner = results.iter().position(Result::is_ok).expect("one is executed");
    for (n, result) in results.iter().enumerate().filter(|(n, _)| *n != winner) {
        match result {
            Err(AppendError::Duplicate { resource, same_body: true }) => assert_eq!(*resource, format!("run-{winner}")),
            other => panic!("{n}: {other:?}"),
        }
    }
    let mut other_body = add("a", Expected::Version(77), &["never"]);
    other_body.command = Some(command("k", 2, "other"));
    let refused = store.append(other_body).await;
    assert!(matches!(refused, Err(AppendError::Duplicate { same_body: false, .. })), "{refused:?}");
    assert_eq!(store.head(LOG).await.unwrap(), 1);
    store.close().await;
    other.close().await;
}

#[tokio::test]
async fn two_nodes_meeting_the_same_new_session_agree_on_its_key() {
    let (database, store) = fresh().await;
    let other = database.store().await;
    for round in 0..10 {
        let name = format!("s{round}");
        let (here, there) = tokio::join!(
            store.append(add(&name, Expected::Any, &["here"])),
            other.append(add(&name, Expected::Any, &["there"]))
        );
        here.unwrap();
        there.unwrap();
        let third = database.store().await;
        let mut events: Vec<_> =
            third.read_stream(LOG, &stream(&name), 0).await.unwrap().into_iter().map(|r| r.event).collect();
        if events[0] != said("here") {
            events.reverse();
        }
        assert_eq!(events, [said("here"), said("there")]);
        third.close().await;
    }
    store.close().await;
    other.close().await;
}

/// Reads along until `total` events were seen, as a projection would: never asking twice for a position.
async fn tail(store: Store, done: Arc<AtomicBool>, total: Arc<AtomicUsize>) -> Vec<Recorded> {
    let mut head = store.watch_head(LOG);
    let mut seen: Vec<Recorded> = Vec::new();
    loop {
        let finished = done.load(Ordering::SeqCst);
        let next = store.read_after(LOG, seen.len() as u64, 50).await.unwrap();
        if !next.is_empty() {
            seen.extend(next);
            continue;
        }
        if finished {
            assert_eq!(seen.len(), total.load(Ordering::SeqCst));
            return seen;
        }
        let at = seen.len() as u64;
        tokio::select! {
            moved = head.wait_for(|head| *head > at) => { moved.unwrap(); }
            () = tokio::time::sleep(std::time::Duration::from_millis(20)) => {}
        }
    }
}

/// One of several writers: random requests on few streams, many of them in conflict.
async fn scribble(store: Store, seed: u64, total: Arc<AtomicUsize>) -> Vec<(StreamId, u64, String)> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut written = Vec::new();
    for turn in 0..60 {
        let first = random.random_range(0..6);
        let names = [format!("s{first}"), format!("s{}", (first + 1 + random.random_range(0..5)) % 6)];
        let mut writes = Vec::new();
        for name in &names[..random.random_range(1..=2)] {
            let texts: Vec<String> =
                (0..random.random_range(1..4)).map(|n| format!("{seed}/{turn}/{name}/{n}")).collect();
            let expected = match random.random_range(0..3) {
                0 => Expected::Any,
                1 => Expected::Version(store.stream_info(LOG, &stream(name)).await.unwrap().map_or(0, |i| i.version)),
                _ => Expected::Version(random.random_range(0..40)),
            };
            writes.push(write(name, expected, &texts.iter().map(String::as_str).collect::<Vec<_>>()));
        }
        let kept = writes.clone();
        match store.append(request(writes)).await {
            Ok(appended) => {
                let mut count = 0;
                for (write, version) in kept.iter().zip(&appended.versions) {
                    count += write.events.len();
                    let before = version - write.events.len() as u64;
                    for (n, event) in write.events.iter().enumerate() {
                        written.push((write.stream.clone(), before + n as u64 + 1, format!("{event:?}")));
                    }
                }
                total.fetch_add(count, Ordering::SeqCst);
            }
            Err(AppendError::Conflict { .. }) => {}
            Err(other) => panic!("{other:?}"),
        }
    }
    written
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_live_reader_sees_every_event_once_in_order_whatever_happens_between_writers() {
    let (database, store) = fresh().await;
    let other = database.store().await;
    let total = Arc::new(AtomicUsize::new(0));
    let done = Arc::new(AtomicBool::new(false));
    let mut readers = tokio::task::JoinSet::new();
    for reader in [&store, &other] {
        readers.spawn(tail(reader.clone(), done.clone(), total.clone()));
    }
    let mut writers = tokio::task::JoinSet::new();
    for seed in 0..12 {
        let store = if seed % 3 == 0 { other.clone() } else { store.clone() };
        writers.spawn(scribble(store, seed, total.clone()));
    }
    let mut written: Vec<_> = writers.join_all().await.into_iter().flatten().collect();
    done.store(true, Ordering::SeqCst);
    let seen = readers.join_all().await;
    assert_eq!(seen[0], seen[1]);
    let seen = &seen[0];
    assert!(seen.len() > 100, "only {} events: the test tests nothing", seen.len());
    assert!(seen.iter().map(|r| r.position).eq(1..=seen.len() as u64));
    assert!(seen.windows(2).all(|pair| pair[0].recorded_at_ms <= pair[1].recorded_at_ms));
    let mut versions: HashMap<&StreamId, u64> = HashMap::new();
    for record in seen {
        let version = versions.entry(&record.stream).or_default();
        *version += 1;
        assert_eq!(record.version, *version, "{}", record.stream);
    }
    let mut read: Vec<_> = seen.iter().map(|r| (r.stream.clone(), r.version, format!("{:?}", r.event))).collect();
    read.sort();
    written.sort();
    assert_eq!(read, written);
    for (name, version) in versions {
        assert_eq!(store.stream_info(LOG, name).await.unwrap().unwrap().version, version);
        assert_eq!(store.read_stream(LOG, name, 0).await.unwrap().len() as u64, version);
    }
    store.close().await;
    other.close().await;
}

#[tokio::test]
async fn the_watched_head_moves_with_own_and_with_other_nodes_appends() {
    let (database, store) = fresh().await;
    let other = database.store().await;
    let mut head = store.watch_head(LOG);
    store.append(add("a", Expected::Any, &["one"])).await.unwrap();
    assert!(*head.borrow_and_update() >= 1, "own appends are seen at once");
    other.append(add("a", Expected::Any, &["two"])).await.unwrap();
    head.wait_for(|head| *head == 2).await.unwrap();
    let late = other.watch_head(LOG).wait_for(|head| *head == 2).await.map(|head| *head);
    assert_eq!(late.unwrap(), 2);
    store.close().await;
    other.close().await;
}

#[tokio::test]
async fn partitions_are_made_when_the_log_reaches_their_end() {
    let (_database, store) = fresh().await;
    store.append(add("a", Expected::Any, &["one"])).await.unwrap();
    // As if millions had been written, and nobody had kept house meanwhile.
    sqlx::query("UPDATE log_head SET position = 4999998").execute(store.pool()).await.unwrap();
    let done = store.append(add("a", Expected::Any, &["two", "three", "four"])).await.unwrap();
    assert_eq!(done.last_position, 5_000_001);
    let read = store.read_stream(LOG, &stream("a"), 0).await.unwrap();
    assert_eq!(read.iter().map(|r| r.position).collect::<Vec<_>>(), [1, 4_999_999, 5_000_000, 5_000_001]);
    store.close().await;
}
