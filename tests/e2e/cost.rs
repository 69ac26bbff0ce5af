//! The thousandth run of a session costs what the tenth does, in what the database touches and in what the model is sent.

use sqlx::{Connection, PgConnection};
use tokio::task::JoinSet;

use crate::support::{Script, Server, World, eventually, ids_of};

/// The tables that runs and sessions are kept in. What nodes and checkpoints cost depends on time, not on runs.
const TABLES: &str = "'^(events|streams|snapshots|blobs|keys|run_view|session_view|session_counts)'";

/// What runs cost.
#[derive(Debug)]
struct Cost {
    /// Rows touched.
    rows: i64,
    /// Buffers touched.
    buffers: i64,
    /// Bytes the model was sent by the last of them.
    sent: usize,
}

/// Rows and buffers touched so far.
async fn touched(world: &World) -> (i64, i64) {
    let touched = format!(
        "SELECT coalesce(sum(coalesce(seq_tup_read, 0) + coalesce(idx_tup_fetch, 0)), 0)::bigint, \
         coalesce(sum(heap_blks_read + heap_blks_hit + coalesce(idx_blks_read, 0) + coalesce(idx_blks_hit, 0)), 0)::bigint \
         FROM pg_stat_user_tables JOIN pg_statio_user_tables USING (relid) \
         WHERE pg_stat_user_tables.relname ~ {TABLES}"
    );
    sqlx::query_as(sqlx::AssertSqlSafe(touched)).fetch_one(&world.database().sql).await.unwrap()
}

/// Waits until the views have taken in the whole log; touches none of the tables that are measured.
async fn posted(world: &World) {
    let posted = "SELECT coalesce(bool_and(projection_checkpoints.position = log_head.position), false) \
         FROM projection_checkpoints JOIN log_head USING (log_id)";
    eventually("the views have all", async || {
        sqlx::query_scalar::<_, bool>(posted).fetch_one(&world.database().sql).await.unwrap().then_some(())
    })
    .await;
}

/// Runs once. What it appends is posted before it appends more, so that how appends meet in a batch decides nothing.
async fn run(world: &World, server: &Server, session: &str) {
    let gate = uuid::Uuid::now_v7().simple().to_string();
    let message = Script::say(&["Hi"]).hold(0, &gate).message();
    let post = async {
        world.model.arrived(&gate, 1).await;
        posted(world).await;
        world.model.open(&gate);
    };
    let fields = [("message", &*message), ("session_id", session)];
    tokio::join!(server.api.run("my-agent", &fields), post);
    posted(world).await;
}

/// Rows and buffers touched by a server that runs `count` times in `session` and then ends.
async fn cost(world: &World, session: &str, count: usize) -> (i64, i64) {
    let before = touched(world).await;
    let server = world.server().await;
    for _ in 0..count {
        run(world, &server, session).await;
    }
    // What a process of PostgreSQL has counted is told when it ends.
    assert!(server.terminate().await.success());
    eventually("its connections have ended and told what they counted", async || {
        let its = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = $1";
        (world.database().count(its, "daybook").await == 0).then_some(())
    })
    .await;
    let after = touched(world).await;
    (after.0 - before.0, after.1 - before.1)
}

/// The cost of ten runs, without what starting and warming up costs.
async fn cost_of_ten(world: &World, session: &str) -> Cost {
    // After this one, what others wrote lies before the session's last event, for both that follow.
    cost(world, session, 1).await;
    let (few, more) = (cost(world, session, 1).await, cost(world, session, 11).await);
    let sent = world.model.requests().pop().unwrap().to_string().len();
    Cost { rows: more.0 - few.0, buffers: more.1 - few.1, sent }
}

#[tokio::test]
async fn the_thousandth_run_of_a_session_costs_what_the_tenth_does() {
    let world = World::new().await;
    // Makes the tables.
    assert!(world.server().await.terminate().await.success());
    let mut tidy = PgConnection::connect(&world.database().url).await.unwrap();
    // Comes when it likes, and touches them too.
    let leave_alone = format!(
        "DO $$ DECLARE t regclass; BEGIN FOR t IN SELECT oid FROM pg_class WHERE relkind = 'r' AND relname ~ {TABLES} \
         LOOP EXECUTE format('ALTER TABLE %s SET (autovacuum_enabled = off)', t); END LOOP; END $$"
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(leave_alone)).execute(&mut tidy).await.unwrap();

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
    sqlx::query("VACUUM ANALYZE").execute(&mut tidy).await.unwrap();
    tidy.close().await.unwrap();

    // In the same database, so that both look things up in the same indexes; three times, and the middle one counts.
    let (mut young, mut old) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        young.push(cost_of_ten(&world, "young").await);
        old.push(cost_of_ten(&world, "old").await);
    }
    let shown = format!("young session: {young:?}, old session: {old:?} (rows and buffers touched, bytes sent)");
    for part in [|of: &Cost| of.rows, |of: &Cost| of.buffers] {
        let (young, old) = (median(&young, part), median(&old, part));
        assert!(young > 0 && old as f64 <= 1.1 * young as f64, "{shown}");
    }
    assert!(young.iter().chain(&old).all(|cost| cost.sent == young[0].sent), "{shown}");
}

fn median(of: &[Cost], part: impl Fn(&Cost) -> i64) -> i64 {
    let mut all: Vec<i64> = of.iter().map(part).collect();
    all.sort_unstable();
    all[all.len() / 2]
}
