//! Reading the log back as one consumer, and posting the views anew, over a log of real runs.

use crate::budget::Budget;
use crate::error::Error;
use crate::log::{Consumed, Posted};
use crate::pace::Pace;
use crate::report::{Row, figure};
use crate::world::{Database, Plan, World};

/// As if no view had ever been posted.
const FORGET: &str = "TRUNCATE projection_checkpoints, projection_parked, run_view, session_view, session_counts";

/// Fills a log, reads it, posts its views.
pub async fn measure(world: &World<'_>, rows: &mut Vec<Row>) -> Result<(), Error> {
    let database = world.database("reading").await?;
    fill(world, &database).await?;
    // What PostgreSQL does by itself a minute later.
    world.sql(&database, "VACUUM ANALYZE").await?;
    world.say("reading: the log");
    let repeats = world.pace.repeats.to_string();
    let (read, postgres): (Consumed, f64) = world.on_log("read", &["--repeats", &repeats], &database).await?;
    let log = format!("a log of {} events", figure(read.events as f64));
    let each = |seconds: f64| seconds * 1e6 / (read.events.max(1) * 2 * read.decoded.len().max(1) as u64) as f64;
    let cpu = format!("{log}; CPU us for each: consumer {:.2}, postgres {:.2}", each(read.cpu_seconds), each(postgres));
    let row = Row::of("reading back, decrypted and decoded", "events/s", &read.decoded);
    rows.extend(row.map(|row| row.within(Budget::AtLeast(250_000.0)).note(cpu)));
    rows.extend(Row::of("reading back, as stored", "events/s", &read.raw));
    views(world, &database, rows).await
}

async fn fill(world: &World<'_>, database: &Database) -> Result<(), Error> {
    world.say("reading: filling the log");
    let mock = world.mock(&[]).await?;
    let daybook = world.daybook("daybook", database, &mock).await?;
    let pace = Pace { warm_up: 0.0, seconds: world.pace.fill, ..world.pace };
    let filled = world.load_at(pace, &[daybook.address], Plan::runs(128), &[]).await?;
    daybook.child.stop().await;
    mock.child.stop().await;
    match filled.outcome.count {
        0 => Err(Error::Missing(format!("the log could not be filled: {}", filled.note()))),
        _ => Ok(()),
    }
}

/// Each view by itself, then all at once.
async fn views(world: &World<'_>, database: &Database, rows: &mut Vec<Row>) -> Result<(), Error> {
    let mut names: Vec<String> = Vec::new();
    let (mut all, mut note) = (Vec::new(), String::new());
    for repeat in 1..=world.pace.repeats {
        world.say(format!("reading: posting all views, {repeat} of {}", world.pace.repeats));
        let (posted, cost) = post(world, database, &[]).await?;
        let slowest = posted.views.iter().map(|(_, seconds)| *seconds).fold(0.0, f64::max);
        all.push(posted.events as f64 / slowest);
        names = posted.views.into_iter().map(|(name, _)| name).collect();
        note = cost;
    }
    names.sort();
    for name in names {
        let (mut rates, mut note) = (Vec::new(), String::new());
        for repeat in 1..=world.pace.repeats {
            world.say(format!("reading: posting the view {name}, {repeat} of {}", world.pace.repeats));
            let (posted, cost) = post(world, database, &["--view", &name]).await?;
            rates.extend(posted.views.iter().map(|(_, seconds)| posted.events as f64 / seconds));
            note = cost;
        }
        let row = Row::of(format!("posting the view {name}"), "events/s", &rates);
        rows.extend(row.map(|row| row.within(Budget::AtLeast(200_000.0)).note(note)));
    }
    rows.extend(Row::of("posting all views at once", "events/s", &all).map(|row| row.note(note)));
    Ok(())
}

/// Posts views anew, and tells what it cost.
async fn post(world: &World<'_>, database: &Database, arguments: &[&str]) -> Result<(Posted, String), Error> {
    world.sql(database, FORGET).await?;
    let (posted, postgres): (Posted, f64) = world.on_log("post", arguments, database).await?;
    let us = |seconds: f64| seconds * 1e6 / posted.events.max(1) as f64;
    let cost = format!("CPU us for each event: views {:.2}, postgres {:.2}", us(posted.cpu_seconds), us(postgres));
    Ok((posted, cost))
}
