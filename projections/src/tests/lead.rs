//! One node leads, others stand by; versions are built beside each other.

use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use daybook_store::{Entry, Store};
use sqlx::PgConnection;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::world::*;
use crate::error::{ApplyError, PostError};
use crate::lead;
use crate::post::Poster;
use crate::progress::{Hub, Served};
use crate::projection::{Projection, Scope};
use crate::runs::Runs;
use crate::{Runner, Views};

const PATIENCE: Duration = Duration::from_millis(100);

async fn leads(runner: &Runner) -> Vec<bool> {
    runner.status().await.unwrap().iter().map(|projection| projection.leading).collect()
}

#[tokio::test]
async fn one_of_two_runners_leads_and_the_other_takes_over() {
    let world = World::new().await;
    let first = Runner::start(world.store.clone(), LOG);
    until(|| async { leads(&first).await == [true; 3] }).await;
    let other = world.another().await;
    let second = Runner::start(other.clone(), LOG);
    for n in 0..20 {
        let id = format!("r{n}");
        append(&other, vec![run_write(&id, "s", &[accepted(&id, "s", None, "a", "m", NOW)])]).await;
        for views in [first.views().patient(), second.views().patient()] {
            let read = views.run(LOG, None, &run(&id)).await.unwrap();
            assert!(read.value.is_some() && read.lag == 0);
        }
    }
    assert_eq!((leads(&first).await, leads(&second).await), (vec![true; 3], vec![false; 3]));
    first.stop().await;
    until(|| async { leads(&second).await == [true; 3] }).await;
    append(&other, vec![run_write("late", "s", &[accepted("late", "s", None, "a", "m", NOW)])]).await;
    let read = second.views().patient().run(LOG, None, &run("late")).await.unwrap();
    assert!(read.value.is_some() && read.lag == 0);
    let rows: i64 = sqlx::query_scalar("SELECT count(*) FROM run_view").fetch_one(other.pool()).await.unwrap();
    assert_eq!(rows, 21);
    second.stop().await;
    other.close().await;
    world.end().await;
}

fn poster<P>(store: &Store, hub: &Hub, version: i32) -> Arc<Poster<P>> {
    Arc::new(Poster::<P> {
        store: store.clone(),
        log: LOG,
        progress: hub.progress(LOG, Runs::NAME, version),
        stop: CancellationToken::new(),
        silence: lead::SILENCE,
        trouble: watch::Sender::new(None),
        projection: PhantomData,
    })
}

/// When the leader was last heard, in seconds.
async fn heard(world: &World) -> Option<f64> {
    let sql = "SELECT extract(epoch FROM a.state_change)::float8 FROM pg_locks l JOIN pg_stat_activity a USING (pid) \
               WHERE l.locktype = 'advisory' AND l.granted AND a.state = 'idle' AND a.datname = current_database()";
    sqlx::query_scalar(sql).fetch_optional(world.store.pool()).await.unwrap()
}

#[tokio::test]
async fn a_leader_that_stands_still_loses_the_lead_and_one_that_lives_shows_it() {
    let world = World::new().await;
    world.append(vec![run_write("r", "s", &[accepted("r", "s", None, "a", "m", NOW)])]).await;
    let hub = Hub::default();
    let mut poster = poster::<Runs>(&world.store, &hub, Runs::VERSION);
    Arc::get_mut(&mut poster).unwrap().silence = Duration::from_millis(400);
    // As a stopped process does: it holds the lock, in the middle of a transaction, and says nothing.
    let mut still = world.store.pool().acquire().await.unwrap().detach();
    sqlx::raw_sql("BEGIN").execute(&mut still).await.unwrap();
    let key = lead::lock_key(Runs::NAME, Scope { log: LOG, version: Runs::VERSION });
    let lock = "SELECT pg_advisory_lock(hashtextextended($1, 0))";
    sqlx::query(lock).bind(&key).execute(&mut still).await.unwrap();

    let mut leading = tokio::task::JoinSet::new();
    leading.spawn({
        let poster = poster.clone();
        async move { poster.lead().await }
    });
    until(|| async { poster.progress.is_leading() }).await;
    assert!(sqlx::query("SELECT").execute(&mut still).await.is_err(), "it learns that it was deposed");
    // With nothing to post, the new one is heard nevertheless.
    until(|| async { heard(&world).await.is_some() }).await;
    let first = heard(&world).await;
    until(|| async { heard(&world).await.is_some_and(|at| Some(at) > first) }).await;
    poster.stop.cancel();
    leading.join_all().await.remove(0).unwrap();
    world.end().await;
}

#[tokio::test]
async fn whoever_finds_the_checkpoint_moved_writes_nothing() {
    let world = World::new().await;
    let head = world.append(vec![run_write("r", "s", &[accepted("r", "s", None, "a", "m", NOW)])]).await;
    // A checkpoint that others moved between the reading of it and the commit: a trigger plays the other.
    let before = "INSERT INTO projection_checkpoints VALUES (1, 'runs', 1, 0, false)";
    sqlx::query(before).execute(world.store.pool()).await.unwrap();
    for sql in [
        "CREATE FUNCTION elsewhere() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'",
        "CREATE TRIGGER elsewhere BEFORE UPDATE ON projection_checkpoints FOR EACH ROW EXECUTE FUNCTION elsewhere()",
    ] {
        sqlx::query(sql).execute(world.store.pool()).await.unwrap();
    }
    let poster = poster::<Runs>(&world.store, &Hub::default(), Runs::VERSION);
    assert!(matches!(poster.lead().await, Err(PostError::Overtaken)));
    let rows: i64 = sqlx::query_scalar("SELECT count(*) FROM run_view").fetch_one(world.store.pool()).await.unwrap();
    assert_eq!(rows, 0);

    sqlx::query("DROP TRIGGER elsewhere ON projection_checkpoints").execute(world.store.pool()).await.unwrap();
    let runner = Runner::start(world.store.clone(), LOG);
    let views = runner.views().patient();
    until(|| async { views.run(LOG, None, &run("r")).await.unwrap().lag == 0 }).await;
    assert_eq!(views.run(LOG, None, &run("r")).await.unwrap().value.unwrap().seq.unsigned_abs(), head);
    runner.stop().await;
    world.end().await;
}

/// The runs as a later program posts them.
struct LaterRuns;

impl Projection for LaterRuns {
    const NAME: &'static str = Runs::NAME;
    const VERSION: i32 = Runs::VERSION + 1;

    fn wants(kind: &str) -> bool {
        Runs::wants(kind)
    }

    async fn apply(db: &mut PgConnection, scope: Scope, events: &[Entry]) -> Result<(), ApplyError> {
        Runs::apply(db, scope, events).await
    }

    async fn clear(db: &mut PgConnection, scope: Scope) -> Result<(), sqlx::Error> {
        Runs::clear(db, scope).await
    }
}

async fn versions(store: &Store) -> Vec<i32> {
    let ask = "SELECT DISTINCT version FROM run_view ORDER BY version";
    sqlx::query_scalar(ask).fetch_all(store.pool()).await.unwrap()
}

#[tokio::test]
async fn a_new_version_is_built_beside_the_old_one_which_serves_until_then() {
    let world = World::new().await;
    let runner = Runner::start(world.store.clone(), LOG);
    for n in 0..5 {
        let id = format!("r{n}");
        world.append(vec![run_write(&id, "s", &[accepted(&id, "s", None, "a", "m", NOW)])]).await;
    }
    let head = world.store.head(LOG).await.unwrap();
    assert_eq!(runner.views().patient().run(LOG, None, &run("r4")).await.unwrap().lag, 0);

    let (old, new) = (Runs::VERSION, LaterRuns::VERSION);
    let hub = Hub::default();
    let progress = hub.progress(LOG, Runs::NAME, new);
    let served = progress.reach(world.store.pool(), head, PATIENCE).await.unwrap();
    assert_eq!(served, Served { version: old, position: head }, "a new program reads the old rows");

    // The old program still posts: its rows stay, twice over.
    for expected in [vec![old, new], vec![old, new]] {
        let later = poster::<LaterRuns>(&world.store, &hub, new);
        let task = later.clone();
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(async move { task.lead().await });
        let on_new = Served { version: new, position: head };
        until(|| async { progress.reach(world.store.pool(), head, PATIENCE).await.unwrap() == on_new }).await;
        later.stop.cancel();
        tasks.join_next().await.unwrap().unwrap().unwrap();
        assert_eq!(versions(&world.store).await, expected);
    }
    assert!(
        runner.views().patient().run(LOG, None, &run("r0")).await.unwrap().value.is_some(),
        "the old program reads on"
    );

    runner.stop().await;
    let later = poster::<LaterRuns>(&world.store, &hub, new);
    let task = later.clone();
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(async move { task.lead().await });
    until(|| async { versions(&world.store).await == [new] }).await;
    later.stop.cancel();
    tasks.join_next().await.unwrap().unwrap().unwrap();
    // Back to the old program: it builds its rows again.
    let runner = Runner::start(world.store.clone(), LOG);
    let views = Views::new(world.store.clone()).patient();
    until(|| async { views.run(LOG, None, &run("r4")).await.unwrap().lag == 0 }).await;
    assert!(views.run(LOG, None, &run("r4")).await.unwrap().value.is_some());
    runner.stop().await;
    world.end().await;
}
