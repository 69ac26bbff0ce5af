//! Snapshots, blobs and frames.

use daybook_store::{Durability, Expected, FrameChunk, StoreError, Subject};

use crate::server::*;

#[tokio::test]
async fn the_latest_snapshot_of_a_fold_version_is_kept() {
    let (database, store) = fresh().await;
    let (a, whose) = (stream("a"), subject("a"));
    assert_eq!(store.load_snapshot(LOG, &a, 1).await.unwrap(), None);
    store.save_snapshot(LOG, &a, 500, 900, 1, "{\"n\":500}", &whose).await.unwrap();
    store.save_snapshot(LOG, &a, 400, 700, 1, "{\"n\":400}", &whose).await.unwrap();
    store.save_snapshot(LOG, &a, 10, 20, 2, "{}", &whose).await.unwrap();
    let again = database.store().await;
    assert_eq!(again.load_snapshot(LOG, &a, 1).await.unwrap(), Some((500, 900, "{\"n\":500}".to_owned())));
    assert_eq!(again.load_snapshot(LOG, &a, 2).await.unwrap(), Some((10, 20, "{}".to_owned())));
    assert_eq!(again.load_snapshot(LOG, &a, 3).await.unwrap(), None);
    sqlx::query("UPDATE snapshots SET version = 501 WHERE fold_version = 1").execute(store.pool()).await.unwrap();
    assert!(matches!(again.load_snapshot(LOG, &a, 1).await, Err(StoreError::Tampered(_))));
    store.close().await;
    again.close().await;
}

#[tokio::test]
async fn blobs_come_back_to_their_session_only() {
    let (database, store) = fresh().await;
    let bytes = vec![7; 100_000];
    let nobody = Subject { session: session("b"), user: None };
    let hash = store.put_blob(LOG, &subject("a"), &bytes).await.unwrap();
    assert_eq!(hash, store.put_blob(LOG, &subject("a"), &bytes).await.unwrap());
    assert_eq!(store.put_blob(LOG, &nobody, b"hello").await.unwrap(), hello());
    // The key made for the blob is the one the session's events use.
    store.append(add("a", Expected::Version(0), &["hi"])).await.unwrap();
    let again = database.store().await;
    assert_eq!(again.get_blob(LOG, &session("a"), &hash).await.unwrap(), Some(bytes));
    assert_eq!(again.get_blob(LOG, &session("b"), &hash).await.unwrap(), None);
    assert_eq!(again.get_blob(LOG, &session("b"), &hello()).await.unwrap(), Some(b"hello".to_vec()));
    assert_eq!(again.read_after(LOG, 0, 1).await.unwrap()[0].event, said("hi"));
    sqlx::query("UPDATE blobs SET body = set_byte(body, 50, get_byte(body, 50) # 1) WHERE session_id = 'a'")
        .execute(store.pool())
        .await
        .unwrap();
    assert!(matches!(again.get_blob(LOG, &session("a"), &hash).await, Err(StoreError::Tampered(_))));
    store.close().await;
    again.close().await;
}

#[tokio::test]
async fn large_personal_values_go_to_a_blob_and_come_back() {
    let (database, store) = fresh().await;
    let long = "a long story ".repeat(20_000);
    store.append(add("a", Expected::Version(0), &[&long, "short"])).await.unwrap();
    let (stored, blobs): (i32, i64) =
        sqlx::query_as("SELECT max(length(personal)), (SELECT count(*) FROM blobs) FROM events")
            .fetch_one(store.pool())
            .await
            .unwrap();
    assert!(stored < 1000 && blobs == 1, "{stored} bytes inline, {blobs} blobs");
    let again = database.store().await;
    let read = again.read_after(LOG, 0, 10).await.unwrap();
    assert_eq!((&read[0].event, &read[1].event), (&said(&long), &said("short")));
    assert!(store.erase_session(LOG, &session("a")).await.unwrap());
    let third = database.store().await;
    assert_ne!(third.read_after(LOG, 0, 1).await.unwrap()[0].event, said(&long), "erased with its key");
    store.close().await;
    again.close().await;
    third.close().await;
}

fn hello() -> String {
    "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824".to_owned()
}

fn chunk(tree: &str, first: u64, last: u64) -> FrameChunk {
    FrameChunk {
        log: LOG,
        tree: run(tree),
        subject: subject(tree),
        first_index: first,
        last_index: last,
        count: (last - first + 1) as u32,
        body: format!("{tree} {first}-{last}").into(),
    }
}

#[tokio::test]
async fn frames_are_read_in_order_from_where_a_watcher_was() {
    let (database, store) = fresh().await;
    let frames = store.frames();
    frames.put(&[], Durability::Now).await.unwrap();
    frames.put(&[chunk("a", 3, 5), chunk("b", 0, 9), chunk("a", 0, 2)], Durability::Now).await.unwrap();
    frames.put(&[chunk("a", 1_000_000, 1_000_001)], Durability::Now).await.unwrap();
    let frames = database.store().await.frames();
    let all = [chunk("a", 0, 2), chunk("a", 3, 5), chunk("a", 1_000_000, 1_000_001)];
    assert_eq!(frames.read(LOG, &run("a"), None, 10).await.unwrap(), all);
    assert_eq!(frames.read(LOG, &run("a"), Some(1), 10).await.unwrap(), all);
    assert_eq!(frames.read(LOG, &run("a"), Some(2), 1).await.unwrap(), all[1..2]);
    assert_eq!(frames.read(LOG, &run("a"), Some(5), 10).await.unwrap(), all[2..]);
    assert!(frames.read(LOG, &run("a"), Some(1_000_001), 10).await.unwrap().is_empty());
    assert_eq!(frames.spans(LOG, &run("a")).await.unwrap(), [(0, 2), (3, 5), (1_000_000, 1_000_001)]);
    assert!(frames.spans(LOG, &run("c")).await.unwrap().is_empty());
    assert!(store.erase_session(LOG, &all[0].subject.session).await.unwrap());
    assert!(frames.spans(LOG, &run("a")).await.unwrap().is_empty());
    store.close().await;
}

#[tokio::test]
async fn frames_of_past_days_are_dropped() {
    let (_database, store) = fresh().await;
    let days = "SELECT count(*) FROM pg_inherits WHERE inhparent = 'frames'::regclass";
    let before: i64 = sqlx::query_scalar(days).fetch_one(store.pool()).await.unwrap();
    sqlx::raw_sql(
        "CREATE TABLE frames_20200101 PARTITION OF frames FOR VALUES FROM ('2020-01-01Z') TO ('2020-01-02Z')",
    )
    .execute(store.pool())
    .await
    .unwrap();
    let dropped: i64 = sqlx::query_scalar("SELECT drop_old_frames()").fetch_one(store.pool()).await.unwrap();
    let after: i64 = sqlx::query_scalar(days).fetch_one(store.pool()).await.unwrap();
    assert_eq!((dropped, after), (1, before));
    store.close().await;
}

#[tokio::test]
async fn a_batch_is_read_with_its_own_keys_only() {
    let (database, store) = fresh().await;
    for n in 0..300 {
        store.append(add(&format!("s{n}"), Expected::Version(0), &["hello"])).await.unwrap();
    }
    store.close().await;
    let before = database.touched("keys").await;
    // A store that has seen none of them yet.
    let store = database.store().await;
    let read = store.read_after(LOG, 0, 20).await.unwrap();
    assert_eq!(read.iter().map(|recorded| &recorded.event).collect::<Vec<_>>(), vec![&said("hello"); 20]);
    store.close().await;
    let touched = database.touched("keys").await - before;
    // Each session's key and its user's.
    assert!((20..=40).contains(&touched), "{touched} keys of 301 were read for 20 sessions");
}
