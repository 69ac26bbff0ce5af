//! Evidence and secrecy: changed rows are found, personal words stand nowhere in the clear, erased is erased.

use daybook_domain::UserId;
use daybook_domain::redact::Redactor;
use daybook_store::{Durability, Expected, FrameChunk, Store, StoreError, verify_leaf};
use sqlx::PgPool;

use crate::server::*;

#[tokio::test]
async fn a_changed_row_is_found_whatever_was_changed() {
    let (_database, store) = fresh().await;
    store.append(add("a", Expected::Any, &["one"])).await.unwrap();
    let mut tail = add("a", Expected::Any, &["two"]);
    tail.meta.correlation_id = None;
    store.append(tail).await.unwrap();
    let raws = store.read_raw_after(LOG, 0, 10).await.unwrap();
    assert!(raws.len() == 2 && raws.iter().all(verify_leaf));
    let changes = [
        "payload = replace(payload::text, '1', '2')::json",
        "personal = set_byte(personal, 20, get_byte(personal, 20) # 1)",
        "version = version + 5",
        "stream_id = 'session:b'",
        "type = 'SessionCreated'",
        "schema_version = 2",
        "event_id = gen_random_uuid()",
        "key_id = NULL",
        "principal = 'user:mallory'",
        "interface = 'rest'",
        "correlation_id = coalesce(correlation_id, '') || 'x'",
        "causation_id = ''",
        "occurred_at = occurred_at + interval '1 ms'",
        "recorded_at = recorded_at + interval '1 us'",
        "leaf_hash = sha256(leaf_hash)",
        "position = position + 100",
    ];
    for change in changes {
        let mut tx = store.pool().begin().await.unwrap();
        let sql = sqlx::AssertSqlSafe(format!("UPDATE events SET {change} WHERE log_id = 1 AND position = 2"));
        assert_eq!(sqlx::query(sql).execute(&mut *tx).await.unwrap().rows_affected(), 1);
        tx.commit().await.unwrap();
        let found = store.read_raw_after(LOG, 1, 1000).await.unwrap();
        assert!(found.len() == 1 && !verify_leaf(&found[0]), "not noticed: {change}");
        put_back(store.pool(), &raws[1]).await;
        assert!(verify_leaf(&store.read_raw_after(LOG, 1, 1).await.unwrap()[0]), "put back after {change}");
    }
    store.close().await;
}

async fn put_back(pool: &PgPool, raw: &daybook_store::RawRecorded) {
    sqlx::query(
        "UPDATE events SET position = $1, stream_id = $2, version = $3, event_id = $4, type = $5, schema_version = $6, \
         payload = $7::text::json, personal = $8, key_id = $9, leaf_hash = $10, principal = $11, interface = $12, \
         correlation_id = $13, causation_id = $14, occurred_at = to_timestamp(0) + $15 * interval '1 ms', \
         recorded_at = to_timestamp(0) + $16 * interval '1 us' WHERE log_id = 1 AND position > 1",
    )
    .bind(raw.position as i64)
    .bind(raw.stream.as_str())
    .bind(raw.version as i64)
    .bind(raw.event_id)
    .bind(&raw.kind)
    .bind(raw.schema_version as i16)
    .bind(&raw.payload)
    .bind(&raw.personal)
    .bind(raw.key_id)
    .bind(raw.leaf_hash)
    .bind(&raw.principal)
    .bind(&raw.interface)
    .bind(&raw.correlation_id)
    .bind(&raw.causation_id)
    .bind(raw.occurred_at_ms as f64)
    .bind(raw.recorded_at_us as f64)
    .execute(pool)
    .await
    .unwrap();
}

#[tokio::test]
async fn an_event_moved_to_another_stream_does_not_open() {
    let (_database, store) = fresh().await;
    store.append(add("a", Expected::Any, &["one"])).await.unwrap();
    let mut moved = store.read_raw_after(LOG, 0, 1).await.unwrap().remove(0);
    moved.stream = stream("b");
    assert!(matches!(store.decode(moved).await, Err(StoreError::Tampered(_))));
    store.close().await;
}

const PLANTED: &str = "the-planted-sentence";

async fn plant(store: &Store, name: &str) -> String {
    store.append(add(name, Expected::Any, &[PLANTED])).await.unwrap();
    store.save_snapshot(LOG, &stream(name), 1, 1, 3, PLANTED, &subject(name)).await.unwrap();
    let chunk = FrameChunk {
        log: LOG,
        tree: run(name),
        subject: subject(name),
        first_index: 0,
        last_index: 4,
        count: 5,
        body: PLANTED.into(),
    };
    store.frames().put(&[chunk], Durability::Now).await.unwrap();
    store.put_blob(LOG, &subject(name), PLANTED.as_bytes()).await.unwrap()
}

#[tokio::test]
async fn planted_words_stand_nowhere_in_the_clear() {
    let (_database, store) = fresh().await;
    plant(&store, "a").await;
    let tables: Vec<String> = sqlx::query_scalar(
        "SELECT relname::text FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace",
    )
    .fetch_all(store.pool())
    .await
    .unwrap();
    assert!(tables.iter().any(|table| table.starts_with("frames_")), "{tables:?}");
    let mut rows = 0;
    for table in tables {
        // As text, bytes are hex.
        let sql = format!("SELECT t::text FROM {table} t");
        let texts: Vec<String> = sqlx::query_scalar(sqlx::AssertSqlSafe(sql)).fetch_all(store.pool()).await.unwrap();
        rows += texts.len();
        for text in texts {
            assert!(!text.contains(PLANTED) && !text.contains(&hex::encode(PLANTED)), "{table}: {text}");
        }
    }
    assert!(rows > 8, "only {rows} rows were looked at");
    store.close().await;
}

#[tokio::test]
async fn an_erased_session_reads_as_erased_and_its_evidence_holds() {
    let (database, store) = fresh().await;
    let other = database.store().await;
    let hash = plant(&store, "a").await;
    plant(&store, "b").await;
    assert_eq!(other.read_stream(LOG, &stream("a"), 0).await.unwrap()[0].event, said(PLANTED), "the other has the key");
    assert!(other.erase_session(LOG, &session("a")).await.unwrap());
    assert!(!other.erase_session(LOG, &session("a")).await.unwrap());
    let events = other.read_after(LOG, 0, 10).await.unwrap();
    assert_eq!([&events[0].event, &events[1].event], [&erased(), &said(PLANTED)]);
    assert!(store.read_raw_after(LOG, 0, 10).await.unwrap().iter().all(verify_leaf));
    assert_eq!(other.load_snapshot(LOG, &stream("a"), 3).await.unwrap(), None);
    assert_eq!(other.get_blob(LOG, &session("a"), &hash).await.unwrap(), None);
    assert!(other.frames().read(LOG, &run("a"), None, 10).await.unwrap().is_empty());

    // A node that still remembers the old key does not write under it.
    store.append(add("a", Expected::Any, &["anew"])).await.unwrap();
    let third = database.store().await;
    assert_eq!(third.read_after(LOG, 2, 1).await.unwrap()[0].event, said("anew"));

    assert!(third.erase_user(LOG, &UserId::parse("alice").unwrap()).await.unwrap());
    store.append(add("c", Expected::Any, &["after"])).await.unwrap();
    let fourth = database.store().await;
    let events: Vec<_> = fourth.read_after(LOG, 0, 10).await.unwrap().into_iter().map(|r| r.event).collect();
    assert_eq!(events, [erased(), erased(), erased(), said("after")]);
    for store in [store, other, third, fourth] {
        store.close().await;
    }
}

#[tokio::test]
async fn with_a_redactor_secrets_do_not_reach_the_log() {
    let database = Database::create().await;
    let mut options = database.options();
    options.redactor = Some(Redactor::new([]));
    let store = Store::open(options).await.unwrap();
    store.append(add("a", Expected::Any, &["Bearer abcdef123456"])).await.unwrap();
    assert_eq!(store.read_after(LOG, 0, 1).await.unwrap()[0].event, said("Bearer [redacted]"));
    store.close().await;
}
