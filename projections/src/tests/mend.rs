//! What cannot be read hurts nothing else, and heals.

use daybook_domain::run::RunStatus;

use super::world::*;
use crate::Runner;

async fn payload(world: &World, position: u64) -> String {
    let ask = "SELECT payload::text FROM events WHERE position = $1";
    sqlx::query_scalar(ask).bind(position.cast_signed()).fetch_one(world.store.pool()).await.unwrap()
}

async fn set_payload(world: &World, position: u64, payload: &str) {
    let set = "UPDATE events SET payload = $2::json WHERE position = $1";
    let done = sqlx::query(set).bind(position.cast_signed()).bind(payload).execute(world.store.pool()).await.unwrap();
    assert_eq!(done.rows_affected(), 1);
}

#[tokio::test]
async fn a_parked_stream_hurts_no_other_and_heals() {
    let world = World::new().await;
    for id in ["good", "bad"] {
        world.append(vec![run_write(id, "s", &[accepted(id, "s", None, "a", "m", NOW)])]).await;
    }
    // A run without acceptance: readable, but it fits no row.
    world.append(vec![run_write("ghost", "s", &[cancelled(NOW)])]).await;
    let broken = world.append(vec![run_write("bad", "s", &[cancelled(NOW + 1)])]).await;
    let whole = payload(&world, broken).await;
    set_payload(&world, broken, r#"{"nothing":"of\u0000it"}"#).await;

    let runner = Runner::start(world.store.clone(), LOG);
    let views = runner.views().patient();
    let status = |id: &'static str| {
        let views = views.clone();
        async move {
            let read = views.run(LOG, None, &run(id)).await.unwrap();
            assert_eq!(read.lag, 0);
            read.value.map(|row| (row.state.status, row.state.cancel.is_some()))
        }
    };
    until(|| async { views.run(LOG, None, &run("good")).await.unwrap().lag == 0 }).await;
    assert_eq!(status("good").await, Some((RunStatus::Running, false)));
    assert_eq!(status("bad").await, Some((RunStatus::Running, false)), "as far as it could be read");
    assert_eq!(status("ghost").await, None);
    let parked = &runner.status().await.unwrap()[0].parked;
    let streams: Vec<&str> = parked.iter().map(|(stream, _)| stream.as_str()).collect();
    assert_eq!(streams, ["run:ghost", "run:bad"]);
    assert!(parked[1].1.contains("RunCancelRequested"), "{parked:?}");

    // Later events of a parked stream are left out, those of others are not.
    world.append(vec![run_write("bad", "s", &[succeeded(NOW + 2)])]).await;
    world.append(vec![run_write("good", "s", &[succeeded(NOW + 2)])]).await;
    assert_eq!(status("good").await, Some((RunStatus::Completed, false)));
    assert_eq!(status("bad").await, Some((RunStatus::Running, false)));
    runner.stop().await;

    set_payload(&world, broken, &whole).await;
    let runner = Runner::start(world.store.clone(), LOG);
    until(|| async { runner.status().await.unwrap()[0].parked.len() == 1 }).await;
    assert_eq!(status("bad").await, Some((RunStatus::Completed, true)), "with everything it missed");
    assert_eq!(runner.status().await.unwrap()[0].parked[0].0.as_str(), "run:ghost");
    runner.stop().await;
    world.end().await;
}

#[tokio::test]
async fn an_unknown_type_stops_the_projection_before_it() {
    let world = World::new().await;
    let known = world.append(vec![run_write("r", "s", &[accepted("r", "s", None, "a", "m", NOW)])]).await;
    let unknown = world.append(vec![run_write("r", "s", &[cancelled(NOW)])]).await;
    world.append(vec![run_write("r", "s", &[succeeded(NOW)])]).await;
    let rename = "UPDATE events SET type = 'RunTeleported' WHERE position = $1";
    sqlx::query(rename).bind(unknown.cast_signed()).execute(world.store.pool()).await.unwrap();

    let runner = Runner::start(world.store.clone(), LOG);
    until(|| async { runner.status().await.unwrap().iter().all(|projection| projection.stopped.is_some()) }).await;
    for projection in runner.status().await.unwrap() {
        assert_eq!((projection.position, projection.head, projection.leading), (known, unknown + 1, false));
        assert!(projection.stopped.unwrap().contains("RunTeleported"));
        assert!(projection.parked.is_empty());
    }
    let read = runner.views().run(LOG, None, &run("r")).await.unwrap();
    assert_eq!((read.value.unwrap().state.status, read.lag), (RunStatus::Running, 2), "it says how far it is behind");
    runner.stop().await;
    world.end().await;
}
