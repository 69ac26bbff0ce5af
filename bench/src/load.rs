//! The load: each of N connections asks for one run after the other, each in a session of its own. Closed loop: a
//! connection asks again when it has its answer, so what is measured is what the server takes, not a queue.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use clap::{Args, ValueEnum};
use http_body_util::BodyExt as _;
use indicatif::{ProgressBar, ProgressStyle};
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use crate::error::Error;
use crate::http::{Ask, Connection, Failed, body_of};
use crate::process;
use crate::sse::Reader;
use crate::stats::Percentiles;

/// After a failure, so that a dead server is not asked a million times.
const AFTER_FAILURE: Duration = Duration::from_millis(20);

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// A run of an agent.
    Run,
    /// An answer of the model itself.
    Model,
}

/// The options of `daybook-bench load`.
#[derive(Debug, Clone, Args)]
pub struct Options {
    /// Where the servers are; connections are dealt to them in turn
    #[arg(long, value_name = "HOST:PORT", required = true, num_args = 1.., value_delimiter = ',')]
    target: Vec<SocketAddr>,
    /// What is asked for
    #[arg(long, value_enum, default_value = "run")]
    kind: Kind,
    /// The agent that runs
    #[arg(long, default_value = "my-agent")]
    agent: String,
    /// Ask for streams, and measure the time to the first token too
    #[arg(long)]
    stream: bool,
    /// Connections
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..))]
    clients: u32,
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
    first_token: Option<Duration>,
}

#[derive(Default)]
struct Tally {
    samples: Vec<Sample>,
    errors: BTreeMap<String, u64>,
    bytes: usize,
}

/// What an answer said.
struct Answered {
    first_token: Option<Instant>,
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
    if stream { line("1st token", &outcome.first_token) } else { Ok(()) }
}

async fn measure(options: &Options) -> Outcome {
    let begun = Instant::now();
    let from = begun + Duration::from_secs_f64(options.warm_up);
    let until = from + Duration::from_secs_f64(options.seconds);
    let ask = ask_of(options);
    let mut clients = JoinSet::new();
    for (_, target) in (0..options.clients).zip(options.target.iter().cycle()) {
        clients.spawn(client(*target, ask.clone(), options.kind, options.stream, until));
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
    match options.kind {
        Kind::Run => Ask {
            path: format!("/agents/{}/runs", options.agent),
            content_type: "application/x-www-form-urlencoded",
            body: Bytes::from(format!("message=Hello&stream={stream}&user_id=alice")),
        },
        Kind::Model => Ask {
            path: "/v1/chat/completions".to_owned(),
            content_type: "application/json",
            body: Bytes::from(format!(
                r#"{{"model":"mock","messages":[{{"role":"user","content":"Hello"}}],"stream":{stream}}}"#
            )),
        },
    }
}

async fn client(target: SocketAddr, ask: Ask, kind: Kind, stream: bool, until: Instant) -> Tally {
    let mut tally = Tally::default();
    let mut connection = None;
    while Instant::now() < until {
        let asked = Instant::now();
        match exchange(&mut connection, target, &ask, kind, stream).await {
            Ok(answered) => {
                tally.bytes = answered.bytes;
                let ended = Instant::now();
                let first_token = answered.first_token.map(|at| at - asked);
                tally.samples.push(Sample { ended, latency: ended - asked, first_token });
            }
            Err(failed) => {
                connection = None;
                *tally.errors.entry(failed.to_string()).or_default() += 1;
                sleep(AFTER_FAILURE).await;
            }
        }
    }
    tally
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
        return Ok(Answered { first_token: None, bytes: body.len() });
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

/// A whole answer must say that all went well.
fn check_whole(kind: Kind, body: &[u8]) -> Result<(), Failed> {
    #[derive(Deserialize)]
    struct Run<'a> {
        status: &'a str,
    }
    #[derive(Deserialize)]
    struct Model<'a> {
        object: &'a str,
    }
    let good = match kind {
        Kind::Run => serde_json::from_slice::<Run<'_>>(body).is_ok_and(|run| run.status == "COMPLETED"),
        Kind::Model => serde_json::from_slice::<Model<'_>>(body).is_ok_and(|model| model.object == "chat.completion"),
    };
    if good { Ok(()) } else { Err(Failed::Answer(format!("not a completed answer: {}", beginning(body)))) }
}

fn beginning(body: &[u8]) -> String {
    String::from_utf8_lossy(&body[..body.len().min(80)]).into_owned()
}

/// Watches a stream for its first token and its good end.
pub struct Seen {
    kind: Kind,
    reader: Reader,
    first_token: Option<Instant>,
    ended_well: bool,
    bytes: usize,
}

impl Seen {
    /// Of a stream that has not begun.
    pub fn new(kind: Kind) -> Self {
        Self { kind, reader: Reader::default(), first_token: None, ended_well: false, bytes: 0 }
    }

    /// Takes what came.
    pub fn take(&mut self, chunk: &[u8]) {
        self.bytes += chunk.len();
        let (kind, first_token, ended_well) = (self.kind, &mut self.first_token, &mut self.ended_well);
        self.reader.push(chunk, |event, data| {
            let (is_token, is_end) = match kind {
                Kind::Run => (event == "RunContent", event == "RunCompleted"),
                Kind::Model => (has_text(data), data == "[DONE]"),
            };
            if is_token && first_token.is_none() {
                *first_token = Some(Instant::now());
            }
            *ended_well |= is_end;
        });
    }

    /// Whether a token has come.
    pub fn has_token(&self) -> bool {
        self.first_token.is_some()
    }

    fn end(self) -> Result<Answered, Failed> {
        match (self.first_token, self.ended_well) {
            (None, _) => Err(Failed::Answer("a stream without a token".to_owned())),
            (_, false) => Err(Failed::Answer("a stream that did not complete".to_owned())),
            (first_token, true) => Ok(Answered { first_token, bytes: self.bytes }),
        }
    }
}

/// Whether a chunk of a chat completion holds text.
fn has_text(data: &str) -> bool {
    data.split_once("\"content\":\"").is_some_and(|(_, text)| !text.starts_with('"'))
}

fn summarise(tallies: Vec<Tally>, from: Instant, until: Instant) -> Outcome {
    let (mut latency, mut first_token) = (Vec::new(), Vec::new());
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
            first_token.extend(sample.first_token.map(micros));
        }
    }
    Outcome {
        count: latency.len() as u64,
        errors,
        rate: latency.len() as f64 / (until - from).as_secs_f64(),
        latency: Percentiles::of_micros(&mut latency),
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
    fn only_completed_answers_count() {
        assert!(check_whole(Kind::Run, br#"{"run_id":"r","status":"COMPLETED"}"#).is_ok());
        let failed = check_whole(Kind::Run, br#"{"status":"ERROR"}"#).unwrap_err().to_string();
        assert!(failed.contains("ERROR"), "{failed}");
        assert!(check_whole(Kind::Run, b"<html>").is_err());
        assert!(check_whole(Kind::Model, br#"{"object":"chat.completion"}"#).is_ok());
    }

    #[test]
    fn a_stream_counts_with_a_token_and_its_end() {
        let seen = |kind, text: &str| {
            let mut seen = Seen::new(kind);
            seen.take(text.as_bytes());
            seen.end().map(|answered| answered.bytes)
        };
        let whole = "event: RunStarted\ndata: {}\n\nevent: RunContent\ndata: {}\n\nevent: RunCompleted\ndata: {}\n\n";
        assert_eq!(seen(Kind::Run, whole).unwrap(), whole.len());
        assert!(seen(Kind::Run, &whole.replace("RunCompleted", "RunError")).is_err());
        assert!(seen(Kind::Run, &whole.replace("RunContent", "RunReasoning")).is_err());
        let model = "data: {\"delta\":{\"content\":\"\"}}\n\ndata: {\"delta\":{\"content\":\"a\"}}\n\ndata: [DONE]\n\n";
        assert!(seen(Kind::Model, model).is_ok());
        assert!(seen(Kind::Model, &model.replace(":\"a\"", ":\"\"")).is_err(), "no text is no token");
        assert!(seen(Kind::Model, &model.replace("[DONE]", "{}")).is_err());
    }

    #[test]
    fn what_ended_in_the_measured_time_counts_and_every_error_does() {
        let from = Instant::now();
        let until = from + Duration::from_secs(2);
        let sample = |after_ms: u64| Sample {
            ended: from + Duration::from_millis(after_ms),
            latency: Duration::from_millis(5),
            first_token: None,
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
