//! WebSockets, each of which starts and watches a run of its own: what the server takes for them, and how long the last
//! frame takes while all run at the same time.

use std::time::Duration;

use tokio::time::sleep;

use crate::error::Error;
use crate::report::{Row, figure};
use crate::sockets::Watched;
use crate::world::{Server, World};

const SOCKETS: u64 = 1_000;
/// The model takes 1,4 s for an answer, so that all run at the same time.
const MODEL: [&str; 6] = ["--first-token-ms", "500", "--between-tokens-ms", "100", "--tokens", "10"];
const MODEL_MS: f64 = 1_400.0;
/// For a load to settle.
const SETTLE: Duration = Duration::from_secs(3);
const MEGABYTE: f64 = 1_048_576.0;

/// Memory while all are held, then runs to their ends.
pub async fn measure(world: &World<'_>, rows: &mut Vec<Row>) -> Result<(), Error> {
    let database = world.database("websocket").await?;
    world.say("websocket: memory");
    let mock = world.mock(&["--hold"]).await?;
    let daybook = world.daybook("daybook", &database, &mock).await?;
    sleep(SETTLE).await;
    let idle = megabytes(&daybook);
    let mut held = world.start("sockets", &arguments(&daybook, true).iter().map(String::as_str).collect::<Vec<_>>())?;
    let watched: Watched = serde_json::from_str(&held.line(Duration::from_secs(120)).await?)?;
    sleep(SETTLE).await;
    let row = Row::of(
        format!("memory, {} WebSockets of one run each", figure(watched.open as f64)),
        "MB",
        &[megabytes(&daybook)],
    );
    rows.extend(row.map(|row| row.beside("idle", &[idle]).note(note(&watched))));
    held.stop().await;
    daybook.child.stop().await;
    mock.child.stop().await;
    to_the_end(world, rows).await
}

async fn to_the_end(world: &World<'_>, rows: &mut Vec<Row>) -> Result<(), Error> {
    let database = world.database("websocket_ends").await?;
    let mock = world.mock(&MODEL).await?;
    let daybook = world.daybook("daybook", &database, &mock).await?;
    let (mut last, mut notes) = (Vec::new(), String::new());
    for repeat in 1..=world.pace.repeats {
        world.say(format!("websocket: {SOCKETS} runs to their ends, {repeat} of {}", world.pace.repeats));
        let cpu = daybook.child.cpu_seconds();
        let arguments = arguments(&daybook, false);
        let mut running = world.start("sockets", &arguments.iter().map(String::as_str).collect::<Vec<_>>())?;
        let watched: Watched = serde_json::from_str(&running.line(Duration::from_secs(120)).await?)?;
        running.stop().await;
        let cpu = (daybook.child.cpu_seconds() - cpu) * 1000.0 / watched.open.max(1) as f64;
        last.push(watched.waited.p99);
        notes = format!("{}; daybook took {cpu:.2} ms CPU for each", note(&watched));
    }
    let row = Row::of(
        format!("{} WebSockets at once, a run each: to its last frame, p99", figure(SOCKETS as f64)),
        "ms",
        &last,
    );
    rows.extend(row.map(|row| row.beside("the model's time", &[MODEL_MS]).note(notes)));
    daybook.child.stop().await;
    mock.child.stop().await;
    Ok(())
}

fn arguments(daybook: &Server, hold: bool) -> Vec<String> {
    let target = ["--target".to_owned(), daybook.address.to_string()];
    let count = ["--count".to_owned(), SOCKETS.to_string()];
    target.into_iter().chain(count).chain(hold.then(|| "--hold".to_owned())).collect()
}

fn megabytes(daybook: &Server) -> f64 {
    daybook.child.rss_bytes() as f64 / MEGABYTE
}

fn note(watched: &Watched) -> String {
    let failed = match &watched.why {
        None => "none failed".to_owned(),
        Some(why) => format!("{} FAILED ({why})", watched.failed),
    };
    let waited = watched.waited;
    let (p50, p95, p99) = (waited.p50, waited.p95, waited.p99);
    format!("{failed} in {:.1} s; p50 {p50:.0} ms, p95 {p95:.0}, p99 {p99:.0}", watched.seconds)
}
