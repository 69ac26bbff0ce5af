//! Workflows that repeat one step ten, a hundred and a thousand times: what an iteration takes of time, of the log and of
//! memory. Where nothing grows with what was done before, an iteration of the long ones is one of the short ones.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use crate::child::Child;
use crate::error::Error;
use crate::http::{Ask, Connection, Failed, body_of};
use crate::report::{Row, figure};
use crate::seen::{Kind, check_whole};
use crate::serve::{ITERATIONS, REPEATED, loop_of};
use crate::world::{Database, Server, World};

/// For what a start leaves running.
const SETTLE: Duration = Duration::from_secs(3);
/// How often it is looked how much memory is taken.
const LOOK_EVERY: Duration = Duration::from_millis(100);
const MEGABYTE: f64 = 1_048_576.0;
const EVENTS: &str = "SELECT count(*) || ' ' || coalesce(sum(pg_column_size(events.*)), 0) FROM events";

/// One run.
struct Looped {
    iterations: f64,
    ms: f64,
    events: f64,
    bytes: f64,
    /// The most memory that was taken while it ran, in megabytes.
    peak: f64,
    /// The size of the answer.
    answer: usize,
}

/// Loops of a function, then of an agent.
pub async fn measure(world: &World<'_>, rows: &mut Vec<Row>) -> Result<(), Error> {
    let mock = world.mock(&[]).await?;
    for step in REPEATED {
        let database = world.database(&format!("loops_{step}")).await?;
        let daybook = world.embedded("daybook", &database, &mock).await?;
        sleep(SETTLE).await;
        let idle = megabytes(&daybook.child);
        let mut found: [Vec<Looped>; ITERATIONS.len()] = Default::default();
        for repeat in 1..=world.pace.repeats {
            for (iterations, looped) in ITERATIONS.iter().zip(&mut found) {
                let of = world.pace.repeats;
                world.say(format!("teams: {iterations} iterations of one {step}, {repeat} of {of}"));
                looped.push(run(world, &database, &daybook, step, *iterations).await?);
            }
        }
        daybook.child.stop().await;
        rows.extend(told(step, &found, idle));
    }
    mock.child.stop().await;
    Ok(())
}

async fn run(
    world: &World<'_>,
    database: &Database,
    daybook: &Server,
    step: &str,
    iterations: u32,
) -> Result<Looped, Error> {
    let before = log_size(world, database).await?;
    let begun = Instant::now();
    let (answered, peak) = peak_while(&daybook.child, ask(daybook, &loop_of(step, iterations))).await;
    let ms = begun.elapsed().as_secs_f64() * 1000.0;
    let answer = answered.map_err(|why| Error::Missing(format!("a loop of {iterations} iterations: {why}")))?;
    let after = log_size(world, database).await?;
    let (events, bytes) = (after.0 - before.0, after.1 - before.1);
    Ok(Looped { iterations: f64::from(iterations), ms, events, bytes, peak, answer })
}

/// The size of the answer.
async fn ask(daybook: &Server, id: &str) -> Result<usize, Failed> {
    let ask = Ask {
        path: format!("/workflows/{id}/runs"),
        content_type: "application/x-www-form-urlencoded",
        body: Bytes::from("message=Hello&stream=false&user_id=alice"),
    };
    let mut connection = Connection::open(daybook.address).await?;
    let body = body_of(connection.post(&ask).await?).await?;
    check_whole(Kind::Workflow, &body)?;
    Ok(body.len())
}

/// Events of the log, and their bytes as stored, without indexes.
async fn log_size(world: &World<'_>, database: &Database) -> Result<(f64, f64), Error> {
    let said = world.ask(database, EVENTS).await?;
    let numbers =
        said.trim().split_once(' ').and_then(|(events, bytes)| Some((events.parse().ok()?, bytes.parse().ok()?)));
    numbers.ok_or_else(|| Error::Missing(format!("the size of the log is not {said:?}")))
}

/// What `work` gives, and the most memory that was seen meanwhile.
async fn peak_while<T>(child: &Child, work: impl Future<Output = T>) -> (T, f64) {
    let mut ticks = interval(LOOK_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut work, mut peak) = (std::pin::pin!(work), 0.0_f64);
    loop {
        tokio::select! {
            done = &mut work => return (done, peak.max(megabytes(child))),
            _ = ticks.tick() => peak = peak.max(megabytes(child)),
        }
    }
}

fn megabytes(child: &Child) -> f64 {
    child.rss_bytes() as f64 / MEGABYTE
}

/// What is told of an iteration.
type Share = (&'static str, &'static str, fn(&Looped) -> f64);

const SHARES: [Share; 3] = [
    ("time", "ms", |of| of.ms / of.iterations),
    ("events in the log", "events", |of| of.events / of.iterations),
    ("bytes in the log", "bytes", |of| of.bytes / of.iterations),
];

/// The longest beside the one before it; memory beside that of a server that has done nothing.
fn told(step: &str, [few, many, most]: &[Vec<Looped>; 3], idle: f64) -> Vec<Row> {
    let [_, fewer, iterations] = ITERATIONS.map(|count| figure(f64::from(count)));
    let of = |all: &[Looped], share: fn(&Looped) -> f64| all.iter().map(share).collect::<Vec<_>>();
    let title = |what: &str| format!("{iterations} iterations of one {step}: {what}");
    let shares = SHARES.iter().filter_map(|(what, unit, share)| {
        let row = Row::of(title(&format!("{what} for each")), unit, &of(most, *share))?;
        Some(row.beside(format!("{fewer} iterations"), &of(many, *share)))
    });
    let mut rows: Vec<Row> = shares.collect();
    if let Some(first) = rows.first_mut() {
        first.notes.extend([few, many, most].iter().filter_map(|all| all.last()).map(whole));
    }
    let peak = Row::of(title("the most memory meanwhile"), "MB", &of(most, |of| of.peak));
    rows.extend(peak.map(|row| row.beside("idle", &[idle])));
    rows
}

fn whole(of: &Looped) -> String {
    let [iterations, events, kilobytes] = [of.iterations, of.events, of.bytes / 1000.0].map(figure);
    let answer = figure(of.answer as f64 / 1000.0);
    format!("{iterations} iterations: {:.2} s, {events} events, {kilobytes} kB, the answer {answer} kB", of.ms / 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn looped(iterations: f64, ms: f64) -> Looped {
        Looped { iterations, ms, events: iterations * 3.0 + 4.0, bytes: iterations * 900.0, peak: 40.0, answer: 2_000 }
    }

    #[test]
    fn what_grows_with_what_was_done_before_is_seen_in_the_ratio() {
        let linear = [vec![looped(10.0, 20.0)], vec![looped(100.0, 200.0)], vec![looped(1000.0, 2000.0)]];
        let ratios =
            |found: &[Vec<Looped>; 3]| told("agent", found, 20.0).iter().map(|row| row.ratio).collect::<Vec<_>>();
        let [time, events, bytes, memory] = ratios(&linear)[..] else { panic!("four rows") };
        assert_eq!((time, bytes, memory), (Some(1.0), Some(1.0), Some(2.0)));
        assert!(events.is_some_and(|ratio| ratio < 1.0), "what each run has once weighs less: {events:?}");
        let squared = [vec![looped(10.0, 20.0)], vec![looped(100.0, 2000.0)], vec![looped(1000.0, 200_000.0)]];
        assert_eq!(ratios(&squared)[0], Some(10.0));
    }

    #[test]
    fn the_whole_of_each_is_told_once() {
        let found = [vec![looped(10.0, 20.0)], vec![looped(100.0, 200.0)], vec![looped(1000.0, 2000.0)]];
        let notes: Vec<String> = told("function", &found, 20.0).into_iter().flat_map(|row| row.notes).collect();
        assert_eq!(notes.len(), 3);
        assert_eq!(notes[2], "1,000 iterations: 2.00 s, 3,004 events, 900 kB, the answer 2.00 kB");
    }
}
