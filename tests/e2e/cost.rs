//! The thousandth run of a session costs what the tenth does, in what the database touches and in what the model is sent.

use sqlx::{Connection, PgConnection};
use tokio::task::JoinSet;

use crate::support::{World, eventually, ids_of};

/// The tables that runs and sessions are kept in. What nodes and checkpoints cost depends on time, not on runs.
const TOUCHED: &str = "
    SELECT coalesce(sum(coalesce(seq_tup_read, 0) + coalesce(idx_tup_fetch, 0)), 0)::bigint,
        coalesce(sum(heap_blks_read + heap_blks_hit + coalesce(idx_blks_read, 0) + coalesce(idx_blks_hit, 0)), 0)::bigint
    FROM pg_stat_user_tables JOIN pg_statio_user_tables USING (relid)
    WHERE pg_stat_user_tables.relname ~ '^(events|streams|snapshots|blobs|keys|run_view|session_view|session_counts)'";

/// Rows and buffers touched by a server that runs `count` times in `session` and then ends.
async fn cost(world: &World, session: &str, count: usize) -> (i64, i64) {
    let touched = async || -> (i64, i64) { sqlx::query_as(TOUCHED).fetch_one(&world.database().sql).await.unwrap() };
    let before = touched().await;
    let server = world.server().await;
    for _ in 0..count {
        server.api.run("my-agent", &[("message", "Hello"), ("session_id", session)]).await;
    }
    // A read waits for the views, and what a process has counted is told when it ends.
    server.api.look("my-agent", "nope", session).await.unwrap_err();
    assert!(server.terminate().await.success());
    eventually("its connections have ended and told what they counted", async || {
        let its = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = $1";
        (world.database().count(its, "daybook").await == 0).then_some(())
    })
    .await;
    let after = touched().await;
    (after.0 - before.0, after.1 - before.1)
}

/// The same for ten runs more, without what starting and warming up costs; and how much the model was sent at last.
async fn cost_of_ten(world: &World, session: &str) -> (i64, i64, usize) {
    // After this one, what others wrote lies before the session's last event, for both that follow.
    cost(world, session, 1).await;
    let (few, more) = (cost(world, session, 1).await, cost(world, session, 11).await);
    let sent = world.model.requests().pop().unwrap().to_string().len();
    (more.0 - few.0, more.1 - few.1, sent)
}

#[tokio::test]
async fn the_thousandth_run_of_a_session_costs_what_the_tenth_does() {
    let world = World::new().await;
    let server = world.server().await;
    let mut asking = JoinSet::new();
    for _ in 0..20 {
        let api = server.api.clone();
        asking.spawn(async move {
            for _ in 0..49 {
                api.run("my-agent", &[("message", "Hello"), ("session_id", "old")]).await;
            }
        });
    }
    asking.join_all().await;
    assert_eq!(ids_of(&server.api.runs("my-agent", "old").await).len(), 980);
    assert!(server.terminate().await.success());

    // What PostgreSQL does by itself within a minute of a table's growth: without it, plans are those of empty tables.
    let mut tidy = PgConnection::connect(&world.database().url).await.unwrap();
    sqlx::query("VACUUM ANALYZE").execute(&mut tidy).await.unwrap();
    tidy.close().await.unwrap();

    // In the same database, so that both look things up in the same indexes. How appends meet in a batch differs from
    // time to time by a little; what grew with the session would differ a hundredfold every time.
    let mut measured = Vec::new();
    let fits = |old: i64, young: i64| young > 0 && old as f64 <= 1.1 * young as f64;
    loop {
        let (young, old) = (cost_of_ten(&world, "young").await, cost_of_ten(&world, "old").await);
        measured.push((young, old));
        assert_eq!(old.2, young.2, "bytes the model is sent");
        if fits(old.0, young.0) && fits(old.1, young.1) {
            break;
        }
        assert!(measured.len() < 4, "rows and buffers, young session and old: {measured:?}");
    }
}
