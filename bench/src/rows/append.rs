//! Appending to the log, beside `pgbench -N` on the same PostgreSQL in the same minute.

use crate::anchors;
use crate::budget::Budget;
use crate::error::Error;
use crate::log::Appended;
use crate::report::Row;
use crate::world::World;

/// Clients, events of one append, and how many times pgbench's rate it should be.
const CASES: [(u32, u32, f64); 3] = [(32, 1, 3.0), (256, 1, 4.5), (32, 10, 10.0)];

/// Each case in turn with pgbench.
pub async fn measure(world: &World<'_>, rows: &mut Vec<Row>) -> Result<(), Error> {
    let database = world.database("append").await?;
    world.say("append: making pgbench's tables");
    anchors::prepare_pgbench(world, &database).await?;
    let (warm_up, seconds) = (world.pace.warm_up.to_string(), world.pace.seconds.to_string());
    for (clients, events, times) in CASES {
        let (mut rates, mut anchor, mut note) = (Vec::new(), Vec::new(), String::new());
        for repeat in 1..=world.pace.repeats {
            world.say(format!("append: {clients} clients x {events}, {repeat} of {}", world.pace.repeats));
            anchor.push(anchors::pgbench(world, &database).await?);
            let (clients, events) = (clients.to_string(), events.to_string());
            let arguments = ["--clients", &clients, "--events", &events, "--warm-up", &warm_up, "--seconds", &seconds];
            let (appended, postgres): (Appended, f64) = world.on_log("append", &arguments, &database).await?;
            rates.push(appended.events_per_second);
            note = cost(&appended, postgres);
        }
        let what = format!("log append, {clients} clients x {events} event{}", if events == 1 { "" } else { "s" });
        let row = Row::of(what, "events/s", &rates);
        rows.extend(row.map(|row| {
            row.beside("pgbench -N, 32 clients, transactions", &anchor).within(Budget::TimesAnchor(times)).note(note)
        }));
    }
    Ok(())
}

fn cost(appended: &Appended, postgres: f64) -> String {
    let each = |seconds: f64| seconds * 1e6 / appended.all.max(1) as f64;
    let latency = appended.latency;
    format!(
        "an append p50 {:.2} ms, p95 {:.2}, p99 {:.2}; CPU us for each event: store {:.1}, postgres {:.1}",
        latency.p50,
        latency.p95,
        latency.p99,
        each(appended.cpu_seconds),
        each(postgres)
    )
}
