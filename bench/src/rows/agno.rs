//! Durable runs a second, beside agno with the same agent on the same mock model.

use crate::anchors;
use crate::budget::Budget;
use crate::error::Error;
use crate::pace::Pace;
use crate::report::Row;
use crate::world::{Plan, World};

const CLIENTS: u32 = 32;
/// Its first answers take seconds: it makes its tables and opens its connections then. And few answers need a longer
/// look: at least this many seconds of warm-up and of measuring.
pub const LEAST: (f64, f64) = (4.0, 5.0);

/// Each of agno's settings, then Daybook beside the best of them.
pub async fn measure(world: &World<'_>, rows: &mut Vec<Row>) -> Result<(), Error> {
    world.say("agno: making .venv-bench");
    anchors::prepare_agno(world).await?;
    let mock = world.mock(&[]).await?;
    let (warm_up, seconds) = (world.pace.warm_up.max(LEAST.0), world.pace.seconds.max(LEAST.1));
    let pace = Pace { warm_up, seconds, ..world.pace };
    let mut best: Option<(String, Vec<f64>)> = None;
    for (db, workers) in world.pace.agno.iter().copied() {
        let name = anchors::title(db, workers);
        let agno = anchors::agno(world, "agno", db, workers, &mock).await?;
        let idle = agno.child.rss_bytes() as f64 / 1_048_576.0;
        let (mut rates, mut note) = (Vec::new(), String::new());
        for repeat in 1..=world.pace.repeats {
            world.say(format!("agno: {name}, {repeat} of {}", world.pace.repeats));
            let watched = [("agno", agno.child.pid()), world.watch_postgres(), ("model", mock.child.pid())];
            let measured = world.load_at(pace, &[agno.address], Plan::runs(CLIENTS), &watched).await?;
            rates.push(measured.outcome.rate);
            note = measured.note();
        }
        agno.child.stop().await;
        let row = Row::of(format!("{name}, {CLIENTS} clients"), "/s", &rates);
        rows.extend(row.map(|row| row.note(note).note(format!("{idle:.0} MB at its start"))));
        if best.as_ref().is_none_or(|(_, best)| median(best) < median(&rates)) {
            best = Some((name, rates));
        }
    }
    let database = world.database("beside_agno").await?;
    let daybook = world.daybook("daybook", &database, &mock).await?;
    let mut rates = Vec::new();
    for repeat in 1..=world.pace.repeats {
        world.say(format!("agno: Daybook, {repeat} of {}", world.pace.repeats));
        rates.push(world.load(&[daybook.address], Plan::runs(CLIENTS), &[]).await?.outcome.rate);
    }
    daybook.child.stop().await;
    mock.child.stop().await;
    if let (Some(row), Some((name, anchor))) = (Row::of("durable runs beside agno, 32 clients", "/s", &rates), best) {
        rows.push(row.beside(format!("best: {name}"), &anchor).within(Budget::TimesAnchor(20.0)));
    }
    Ok(())
}

fn median(figures: &[f64]) -> f64 {
    crate::stats::Spread::of(figures).map_or(0.0, |spread| spread.median)
}
