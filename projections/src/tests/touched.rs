//! Tables nothing is known of yet: what is looked up by its key touches the rows it is about, and no others.

use daybook_domain::{DomainEvent, StreamId};
use daybook_store::Entry;
use sqlx::{AssertSqlSafe, Connection, PgConnection};

use super::world::*;
use crate::post::SETTINGS;
use crate::projection::{Projection, Scope};
use crate::runs::{self, Runs};
use crate::sessions::{self, Sessions};

const SCOPE: Scope = Scope { log: LOG, version: 1 };
/// Enough that walking over all of them shows.
const MANY: i64 = 1000;
/// Rows of these tables that this transaction read, from the tables or by way of an index.
const TOUCHED: &str = "SELECT coalesce(sum(seq_tup_read + coalesce(idx_tup_fetch, 0)), 0)::bigint \
     FROM pg_stat_xact_user_tables WHERE relname ~ $1";

async fn touched(db: &mut PgConnection, tables: &str) -> i64 {
    sqlx::query_scalar(TOUCHED).bind(tables).fetch_one(db).await.unwrap()
}

/// A connection to a database whose tables are never analysed, by the posters' settings or the ordinary ones.
async fn connect(world: &World, settings: &str) -> PgConnection {
    let pool = world.store.pool();
    for table in ["run_view", "session_view", "streams", "events_p0"] {
        let never = format!("ALTER TABLE {table} SET (autovacuum_enabled = off)");
        sqlx::query(AssertSqlSafe(never)).execute(pool).await.unwrap();
    }
    let mut db = PgConnection::connect_with(&pool.connect_options()).await.unwrap();
    sqlx::raw_sql(AssertSqlSafe(settings.to_owned())).execute(&mut db).await.unwrap();
    db
}

async fn append_all(world: &World, mut writes: Vec<daybook_store::StreamWrite>) {
    while !writes.is_empty() {
        let rest = writes.split_off(writes.len().min(100));
        world.append(std::mem::replace(&mut writes, rest)).await;
    }
}

async fn entries(world: &World, after: u64) -> Vec<Entry> {
    world.store.read_after(LOG, after, 10_000).await.unwrap().into_iter().map(Entry::from).collect()
}

async fn posted<P: Projection>(db: &mut PgConnection, events: &[Entry]) {
    let events: Vec<Entry> = events.iter().filter(|e| P::wants(crate::kinds::of(&e.event))).cloned().collect();
    for batch in events.chunks(500) {
        P::apply(db, SCOPE, batch).await.unwrap();
    }
}

#[tokio::test]
async fn a_batch_touches_the_rows_of_its_streams() {
    let world = World::new().await;
    let mut db = connect(&world, SETTINGS).await;
    let mut writes = Vec::new();
    for n in 0..MANY {
        let (run, session) = (format!("r{n}"), format!("s{n}"));
        writes.push(run_write(&run, &session, &[accepted(&run, &session, None, "a", "m", NOW + n)]));
        writes.push(session_write(&session, vec![created(&session, None, "a", None, NOW + n)]));
    }
    append_all(&world, writes).await;
    let events = entries(&world, 0).await;
    posted::<Runs>(&mut db, &events).await;
    posted::<Sessions>(&mut db, &events).await;

    let head = world.store.head(LOG).await.unwrap();
    let more: Vec<_> = (0..20).map(|n| format!("{}", n * 37)).collect();
    for n in &more {
        let events = [failed("why", NOW)].map(DomainEvent::Run).to_vec();
        world.append(vec![write(StreamId::run(&run(&format!("r{n}"))), &format!("s{n}"), events)]).await;
        world.append(vec![session_write(&format!("s{n}"), vec![admitted("next", NOW)])]).await;
    }
    let events = entries(&world, head).await;
    // More often than a statement is planned anew for its parameters.
    for _ in 0..10 {
        let mut tx = db.begin().await.unwrap();
        let before = (touched(&mut tx, "^run_view").await, touched(&mut tx, "^session_view").await);
        posted::<Runs>(&mut tx, &events).await;
        posted::<Sessions>(&mut tx, &events).await;
        let after = (touched(&mut tx, "^run_view").await, touched(&mut tx, "^session_view").await);
        let (runs, sessions) = (after.0 - before.0, after.1 - before.1);
        // Each is read, and found once more to be changed.
        assert!((20..=40).contains(&runs), "{runs} rows of runs for 20 of them");
        assert!((20..=40).contains(&sessions), "{sessions} rows of sessions for 20 of them");
        tx.rollback().await.unwrap();
    }
    db.close().await.unwrap();

    let mut db = connect(&world, "SET plan_cache_mode = force_generic_plan").await;
    let mut tx = db.begin().await.unwrap();
    for (sql, table, id) in [(runs::ONE, "^run_view", "r7"), (sessions::ONE, "^session_view", "s7")] {
        for _ in 0..10 {
            let before = touched(&mut tx, table).await;
            let query = sqlx::query(sql).bind(SCOPE.log.0).bind(SCOPE.version).bind(id).bind(None::<String>);
            assert_eq!(query.fetch_all(&mut *tx).await.unwrap().len(), 1);
            assert_eq!(touched(&mut tx, table).await - before, 1, "{sql}");
        }
    }
    tx.rollback().await.unwrap();
    db.close().await.unwrap();
    world.end().await;
}

#[tokio::test]
async fn a_stream_is_read_without_its_neighbours_and_its_past() {
    let world = World::new().await;
    // Most of the log is one stream, as of a session that is all a young log has.
    world.append(vec![session_write("big", vec![created("big", None, "a", None, NOW)])]).await;
    for batch in 0..10 {
        let mut writes =
            vec![session_write("big", (0..400).map(|n| admitted(&format!("r{batch}-{n}"), NOW)).collect())];
        for n in 0..100 {
            let id = format!("s{batch}-{n}");
            writes.push(session_write(&id, vec![created(&id, None, "a", None, NOW)]));
        }
        world.append(writes).await;
    }
    let mut db = connect(&world, "").await;
    let stream = StreamId::session(&session("big"));
    let all = world.store.read_stream(LOG, &stream, 0).await.unwrap();
    assert_eq!(all.len() as i64, 4 * MANY + 1);
    let after = all[all.len() - 101].clone();
    let tail = world.store.read_stream_from(LOG, &stream, after.version, after.position).await.unwrap();
    assert_eq!(tail, all[all.len() - 100..]);
    assert!(world.store.read_stream_from(LOG, &stream, all.len() as u64, u64::MAX).await.unwrap().is_empty());

    for analysed in [false, true] {
        if analysed {
            sqlx::query("ANALYZE events, streams").execute(&mut db).await.unwrap();
        }
        for (version, position) in [(after.version, 0), (after.version, after.position)] {
            let mut tx = db.begin().await.unwrap();
            let before = touched(&mut tx, "^events").await;
            let count = "SELECT count(*) FROM read_stream($1, $2, $3, $4)";
            let query = sqlx::query_scalar(count).bind(LOG.0).bind(stream.as_str());
            let rows: i64 =
                query.bind(version.cast_signed()).bind(position.cast_signed()).fetch_one(&mut *tx).await.unwrap();
            assert_eq!((rows, touched(&mut tx, "^events").await - before), (100, 100), "analysed: {analysed}");
            tx.rollback().await.unwrap();
        }
    }
    db.close().await.unwrap();
    world.end().await;
}
