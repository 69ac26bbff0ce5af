//! The load: each of N connections asks for one run after the other, each in a session of its own. Closed loop: a
//! connection asks again when it has its answer, so what is measured is what the server takes, not a queue. Or at a rate:
//! then each request has its time, whatever the answers before it take, and counts from that time.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use http_body_util::BodyExt as _;
use indicatif::{ProgressBar, ProgressStyle};
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until};

use crate::error::Error;
use crate::http::{Ask, Connection, Failed, body_of};
use crate::process;
use crate::seen::{Answered, Firsts, Kind, Seen, check_whole};
use crate::stats::Percentiles;

/// After a failure, so that a dead server is not asked a million times.
const AFTER_FAILURE: Duration = Duration::from_millis(20);

/// The options of `daybook-bench load`.
#[derive(Debug, Clone, Args)]
pub struct Options {
    /// Where the servers are; connections are dealt to them in turn
    #[arg(long, value_name = "HOST:PORT", required = true, num_args = 1.., value_delimiter = ',')]
    target: Vec<SocketAddr>,
    /// What is asked for
    #[arg(long, value_enum, default_value = "run")]
    kind: Kind,
    /// The agent, team or workflow that runs
    #[arg(long, default_value = "my-agent")]
    id: String,
    /// Ask for streams, and measure the times to the first frame and the first token too
    #[arg(long)]
    stream: bool,
    /// Connections
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..))]
    clients: u32,
    /// Requests a second over all connections; 0 asks again as soon as there is an answer
    #[arg(long, default_value_t = 0)]
    rate: u32,
    /// Seconds before anything is measured
    #[arg(long, default_value_t = 2.0)]
    warm_up: f64,
    /// Seconds that are measured
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
    /// Print one JSON object, and no progress
    #[arg(long)]
    json: bool,
}

/// What a load measured.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Outcome {
    /// Whole answers in the measured time.
    pub count: u64,
    /// What failed, from the first request on, by what was wrong.
    pub errors: BTreeMap<String, u64>,
    /// Whole answers a second.
    pub rate: f64,
    /// Milliseconds from request to the end of its answer.
    pub latency: Percentiles,
    /// Milliseconds from request to the first event of a stream; zero without streams.
    pub first_frame: Percentiles,
    /// Milliseconds from request to the first token; zero without streams.
    pub first_token: Percentiles,
    /// Whole answers with those of the warm-up, for what each cost.
    pub all: u64,
    /// The size of the last answer's body.
    pub bytes: usize,
    /// What the load itself took.
    pub cpu_seconds: f64,
}

impl Outcome {
    /// How many requests failed.
    pub fn failed(&self) -> u64 {
        self.errors.values().sum()
    }
}

/// One answer.
struct Sample {
    ended: Instant,
    latency: Duration,
    firsts: Option<Firsts<Duration>>,
}

#[derive(Default)]
struct Tally {
    samples: Vec<Sample>,
    errors: BTreeMap<String, u64>,
    bytes: usize,
}

/// Measures and prints.
pub async fn run(options: Options) -> Result<(), Error> {
    let outcome = measure(&options).await;
    if options.json {
        return crate::say(&serde_json::to_string(&outcome)?);
    }
    print(&outcome, options.stream).map_err(Error::io("write to standard output"))
}

fn print(outcome: &Outcome, stream: bool) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "count    {:>10}", outcome.count)?;
    writeln!(out, "errors   {:>10}", outcome.failed())?;
    outcome.errors.iter().try_for_each(|(what, count)| writeln!(out, "         {count:>10}  {what}"))?;
    writeln!(out, "rate     {:>10.1} /s", outcome.rate)?;
    let mut line = |name: &str, of: &Percentiles| {
        writeln!(out, "{name}  p50 {:.2} ms   p95 {:.2} ms   p99 {:.2} ms", of.p50, of.p95, of.p99)
    };
    line("whole    ", &outcome.latency)?;
    if !stream {
        return Ok(());
    }
    line("1st frame", &outcome.first_frame)?;
    line("1st token", &outcome.first_token)
}

async fn measure(options: &Options) -> Outcome {
    let begun = Instant::now();
    let from = begun + Duration::from_secs_f64(options.warm_up);
    let until = from + Duration::from_secs_f64(options.seconds);
    let ask = ask_of(options);
    let mut clients = JoinSet::new();
    for (number, target) in (0..options.clients).zip(options.target.iter().cycle()) {
        let turns = Turns::of(options, number, begun);
        clients.spawn(client(*target, ask.clone(), options.kind, options.stream, turns, until));
    }
    let bar = if options.json { ProgressBar::hidden() } else { bar(until - begun) };
    let mut tallies = Vec::new();
    let mut ticks = interval(Duration::from_millis(200));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            ended = clients.join_next() => match ended {
                Some(Ok(tally)) => tallies.push(tally),
                Some(Err(error)) => tallies.push(Tally {
                    errors: BTreeMap::from([(error.to_string(), 1)]),
                    ..Tally::default()
                }),
                None => break,
            },
            _ = ticks.tick() => bar.set_position(begun.elapsed().as_millis() as u64),
        }
    }
    bar.finish_and_clear();
    summarise(tallies, from, until)
}

fn bar(time: Duration) -> ProgressBar {
    let bar = ProgressBar::new(time.as_millis() as u64);
    if let Ok(style) = ProgressStyle::with_template("{elapsed:>4} [{bar:40}] {percent}%") {
        bar.set_style(style.progress_chars("=> "));
    }
    bar
}

/// The request that every connection sends.
fn ask_of(options: &Options) -> Ask {
    let stream = options.stream;
    let path = options.kind.path(&options.id);
    match options.kind {
        Kind::Run | Kind::Team | Kind::Workflow => Ask {
            path,
            content_type: "application/x-www-form-urlencoded",
            body: Bytes::from(format!("message=Hello&stream={stream}&user_id=alice")),
        },
        Kind::Model => Ask {
            path,
            content_type: "application/json",
            body: Bytes::from(format!(
                r#"{{"model":"mock","messages":[{{"role":"user","content":"Hello"}}],"stream":{stream}}}"#
            )),
        },
    }
}

/// The times of a connection's requests.
struct Turns {
    next: Instant,
    every: Duration,
}

impl Turns {
    /// The connections take turns; none when they ask whenever they have their answers.
    fn of(options: &Options, number: u32, begun: Instant) -> Option<Self> {
        let apart = Duration::from_secs(1).checked_div(options.rate)?;
        Some(Self { next: begun + apart * number, every: apart * options.clients })
    }

    /// The next one, which is long past when the answer before it was slow.
    fn take(&mut self) -> Instant {
        let due = self.next;
        self.next += self.every;
        due
    }
}

async fn client(
    target: SocketAddr,
    ask: Ask,
    kind: Kind,
    stream: bool,
    mut turns: Option<Turns>,
    until: Instant,
) -> Tally {
    let mut tally = Tally::default();
    let mut connection = None;
    loop {
        let asked = match turns.as_mut().map(Turns::take) {
            Some(due) => {
                sleep_until(due).await;
                due
            }
            None => Instant::now(),
        };
        if Instant::now() >= until {
            return tally;
        }
        match exchange(&mut connection, target, &ask, kind, stream).await {
            Ok(answered) => {
                tally.bytes = answered.bytes;
                let ended = Instant::now();
                let firsts = answered.firsts.map(|at| Firsts { frame: at.frame - asked, token: at.token - asked });
                tally.samples.push(Sample { ended, latency: ended - asked, firsts });
            }
            Err(failed) => {
                connection = None;
                *tally.errors.entry(failed.to_string()).or_default() += 1;
                sleep(AFTER_FAILURE).await;
            }
        }
    }
}

async fn exchange(
    connection: &mut Option<Connection>,
    target: SocketAddr,
    ask: &Ask,
    kind: Kind,
    stream: bool,
) -> Result<Answered, Failed> {
    let connection = match connection {
        Some(connection) => connection,
        None => connection.insert(Connection::open(target).await?),
    };
    let response = connection.post(ask).await?;
    if !stream {
        let body = body_of(response).await?;
        check_whole(kind, &body)?;
        return Ok(Answered { firsts: None, bytes: body.len() });
    }
    let mut body = response.into_body();
    let mut seen = Seen::new(kind);
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| Failed::Broken(error.to_string()))?;
        if let Some(data) = frame.data_ref() {
            seen.take(data);
        }
    }
    seen.end()
}

fn summarise(tallies: Vec<Tally>, from: Instant, until: Instant) -> Outcome {
    let (mut latency, mut first_frame, mut first_token) = (Vec::new(), Vec::new(), Vec::new());
    let (mut errors, mut all, mut bytes) = (BTreeMap::new(), 0, 0);
    let micros = |time: Duration| u32::try_from(time.as_micros()).unwrap_or(u32::MAX);
    for tally in tallies {
        bytes = bytes.max(tally.bytes);
        all += tally.samples.len() as u64;
        for (what, count) in tally.errors {
            *errors.entry(what).or_default() += count;
        }
        for sample in tally.samples.iter().filter(|sample| sample.ended >= from && sample.ended < until) {
            latency.push(micros(sample.latency));
            first_frame.extend(sample.firsts.map(|firsts| micros(firsts.frame)));
            first_token.extend(sample.firsts.map(|firsts| micros(firsts.token)));
        }
    }
    Outcome {
        count: latency.len() as u64,
        errors,
        rate: latency.len() as f64 / (until - from).as_secs_f64(),
        latency: Percentiles::of_micros(&mut latency),
        first_frame: Percentiles::of_micros(&mut first_frame),
        first_token: Percentiles::of_micros(&mut first_token),
        all,
        bytes,
        cpu_seconds: process::own_cpu_seconds(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn at_a_rate_the_connections_take_turns() {
        let begun = Instant::now();
        let due = |number| {
            let mut turns = Turns::of(&Options::of(2, 20), number, begun)?;
            Some([turns.take(), turns.take(), turns.take()].map(|due| (due - begun).as_millis()))
        };
        assert_eq!([due(0), due(1)], [Some([0, 100, 200]), Some([50, 150, 250])]);
        assert!(Turns::of(&Options::of(2, 0), 0, begun).is_none());
    }

    impl Options {
        fn of(clients: u32, rate: u32) -> Self {
            Self {
                target: Vec::new(),
                kind: Kind::Run,
                id: String::new(),
                stream: false,
                clients,
                rate,
                warm_up: 0.0,
                seconds: 1.0,
                json: true,
            }
        }
    }

    #[test]
    fn what_ended_in_the_measured_time_counts_and_every_error_does() {
        let from = Instant::now();
        let until = from + Duration::from_secs(2);
        let sample = |after_ms: u64| Sample {
            ended: from + Duration::from_millis(after_ms),
            latency: Duration::from_millis(5),
            firsts: None,
        };
        let early = Sample { ended: from - Duration::from_millis(1), ..sample(0) };
        let errors = || BTreeMap::from([("status 503".to_owned(), 2)]);
        let tallies = vec![
            Tally { samples: vec![early, sample(0), sample(1999)], errors: errors(), bytes: 7 },
            Tally { samples: vec![sample(2000)], errors: errors(), bytes: 7 },
        ];
        let outcome = summarise(tallies, from, until);
        assert_eq!((outcome.count, outcome.all, outcome.failed(), outcome.bytes), (2, 4, 4, 7));
        assert_eq!((outcome.rate, outcome.latency.p50, outcome.first_token.p50), (1.0, 5.0, 0.0));
    }
}
