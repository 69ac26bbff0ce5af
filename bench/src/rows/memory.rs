//! What Daybook takes: memory with nothing to do and with many open streams, and the time of a start.

use std::time::{Duration, Instant};

use tokio::time::sleep;

use crate::budget::Budget;
use crate::error::Error;
use crate::report::{Row, figure};
use crate::streams::Opened;
use crate::world::{Database, Server, World};

const STREAMS: u64 = 10_000;
/// Runs that are watched by many streams each.
const RUNS: u64 = 20;
const STREAMS_MB: f64 = 600.0;
/// Files beside the streams' connections: each has its client's, and a run has its model's too.
const OTHER_FILES: u64 = 500;
/// For what a start leaves running, and for a load to settle.
const SETTLE: Duration = Duration::from_secs(3);
const MEGABYTE: f64 = 1_048_576.0;

/// Starts, then memory.
pub async fn measure(world: &World<'_>, rows: &mut Vec<Row>) -> Result<(), Error> {
    let mock = world.mock(&["--hold"]).await?;
    let database = world.database("memory").await?;
    // The first start migrates the database.
    world.daybook("daybook", &database, &mock).await?.child.stop().await;
    let (mut starts, mut idle) = (Vec::new(), Vec::new());
    for start in 1..=world.pace.starts {
        world.say(format!("memory: start {start} of {}", world.pace.starts));
        let begun = Instant::now();
        let daybook = world.daybook("daybook", &database, &mock).await?;
        starts.push(begun.elapsed().as_secs_f64() * 1000.0);
        if start <= world.pace.repeats {
            sleep(SETTLE).await;
            idle.push(daybook.child.rss_bytes() as f64 / MEGABYTE);
        }
        daybook.child.stop().await;
    }
    let row = Row::of("start with the database up, to \"ready\"", "ms", &starts);
    rows.extend(row.map(|row| row.within(Budget::AtMost(300.0))));
    let row = Row::of("memory, idle", "MB", &idle);
    rows.extend(row.map(|row| row.within(Budget::AtMost(60.0))));
    for watched in [Some(RUNS), None] {
        streams(world, &database, &mock, watched, rows).await?;
    }
    mock.child.stop().await;
    Ok(())
}

/// Streams of `runs` running runs that many watch, or of one run each, which has a connection to its model then.
async fn streams(
    world: &World<'_>,
    database: &Database,
    mock: &Server,
    runs: Option<u64>,
    rows: &mut Vec<Row>,
) -> Result<(), Error> {
    let files = if runs.is_some() { 1 } else { 2 };
    let count = STREAMS.min(world.files.saturating_sub(OTHER_FILES) / files);
    world.say(format!("memory: opening {count} streams"));
    let daybook = world.daybook("daybook", database, mock).await?;
    let cpu = daybook.child.cpu_seconds();
    let (target, number) = (daybook.address.to_string(), count.to_string());
    let mut arguments = vec!["--target", &target, "--count", &number];
    let watched = runs.map(|runs| runs.to_string());
    if let Some(watched) = &watched {
        arguments.extend(["--runs", watched]);
    }
    let mut streams = world.start("streams", &arguments)?;
    let opened: Opened = serde_json::from_str(&streams.line(Duration::from_secs(180)).await?)?;
    let cpu = daybook.child.cpu_seconds() - cpu;
    sleep(SETTLE).await;
    let held = daybook.child.rss_bytes() as f64 / MEGABYTE;
    let of = runs.map_or("one run each".to_owned(), |runs| format!("{runs} running runs"));
    let row = Row::of(format!("memory, {} open streams of {of}", figure(opened.open as f64)), "MB", &[held]);
    let failed = match &opened.why {
        None => "none failed".to_owned(),
        Some(why) => format!("{} FAILED ({why})", opened.failed),
    };
    let note = format!(
        "opened in {:.1} s, {failed}; daybook took {:.2} ms CPU for each",
        opened.seconds,
        cpu * 1000.0 / opened.open.max(1) as f64
    );
    rows.extend(row.map(|row| judged(row, opened.open as u64, held).note(note)));
    streams.stop().await;
    daybook.child.stop().await;
    Ok(())
}

/// Fewer streams cannot meet the budget for 10,000, but they can miss it.
fn judged(row: Row, open: u64, held: f64) -> Row {
    if open == STREAMS || held > STREAMS_MB { row.within(Budget::AtMost(STREAMS_MB)) } else { row }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::Verdict;

    #[test]
    fn fewer_streams_can_only_miss_the_budget() {
        let verdict = |open, held| judged(Row::of("x", "MB", &[held]).unwrap(), open, held).verdict;
        assert_eq!(verdict(STREAMS, 600.0), Some(Verdict::Met));
        assert_eq!(verdict(STREAMS, 601.0), Some(Verdict::Missed));
        assert_eq!(verdict(STREAMS - 1, 601.0), Some(Verdict::Missed));
        assert_eq!(verdict(STREAMS - 1, 600.0), None);
    }
}
