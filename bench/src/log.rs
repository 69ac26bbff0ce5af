//! The log by itself, through the store's own API: appending, reading back, and posting the views.

use std::time::Duration;

use clap::Args;
use daybook_domain::run::{ModelCallCompleted, RunEvent};
use daybook_domain::{DomainEvent, LogId, RunId, SessionId, StreamId, UserId};
use daybook_projections::Runner;
use daybook_store::{Append, Expected, LeaseOp, MasterKey, Meta, Store, StoreOptions, StreamWrite, Subject};
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::error::Error;
use crate::process;
use crate::stats::Percentiles;

const LOG: LogId = LogId::DEFAULT;
/// Events read at a time, as the projections do.
const BATCH: usize = 1000;
/// How often it is looked whether the views have caught up.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// The options of `daybook-bench append`.
#[derive(Debug, Args)]
pub struct AppendOptions {
    /// Callers that append at once, each to a stream of its own
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..))]
    clients: u32,
    /// Events in one append
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    events: u32,
    /// Seconds before anything is measured
    #[arg(long, default_value_t = 2.0)]
    warm_up: f64,
    /// Seconds that are measured
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
}

/// What `append` prints.
#[derive(Debug, Serialize, Deserialize)]
pub struct Appended {
    /// Acknowledged events a second.
    pub events_per_second: f64,
    /// Milliseconds from an append to its acknowledgement.
    pub latency: Percentiles,
    /// Acknowledged events with those of the warm-up.
    pub all: u64,
    /// What this process took.
    pub cpu_seconds: f64,
}

/// Appends and prints what it measured; any error ends it.
pub async fn append(options: AppendOptions) -> Result<(), Error> {
    let store = open().await?;
    store.migrate(None).await?;
    let from = Instant::now() + Duration::from_secs_f64(options.warm_up);
    let until = from + Duration::from_secs_f64(options.seconds);
    let mut clients = JoinSet::new();
    for n in 0..options.clients {
        let client = Appender::new(store.clone(), n, options.events)?;
        clients.spawn(client.run(from, until));
    }
    let (mut all, mut samples) = (0, Vec::new());
    while let Some(ended) = clients.join_next().await {
        let (appends, measured) = ended.map_err(|error| Error::Missing(error.to_string()))??;
        all += appends * u64::from(options.events);
        samples.extend(measured);
    }
    store.close().await;
    let events = samples.len() as f64 * f64::from(options.events);
    let appended = Appended {
        events_per_second: events / options.seconds,
        latency: Percentiles::of_micros(&mut samples),
        all,
        cpu_seconds: process::own_cpu_seconds(),
    };
    crate::say(&serde_json::to_string(&appended)?)
}

/// Where the log is and its key, as for `daybook serve`.
async fn open() -> Result<Store, Error> {
    let variable = |name: &str| std::env::var(name).map_err(|_| Error::Missing(format!("{name} is not set")));
    let key = MasterKey::from_base64(&variable("DAYBOOK_MASTER_KEY")?)?;
    Ok(Store::open(StoreOptions::new(SecretString::from(variable("DATABASE_URL")?), key)).await?)
}

/// One caller: appends to its stream, which nobody else knows, and waits for each acknowledgement.
struct Appender {
    store: Store,
    stream: StreamId,
    subject: Subject,
    events: u32,
    version: u64,
}

impl Appender {
    fn new(store: Store, number: u32, events: u32) -> Result<Self, Error> {
        let bad = |error: daybook_domain::ids::IdError| Error::Missing(error.to_string());
        let name = format!("bench-{}-{number}", std::process::id());
        let subject = Subject {
            session: SessionId::parse(name.as_str()).map_err(bad)?,
            user: Some(UserId::parse("alice").map_err(bad)?),
        };
        let stream = StreamId::run(&RunId::parse(name).map_err(bad)?);
        Ok(Self { store, stream, subject, events, version: 0 })
    }

    /// How often it appended, and the microseconds of those appends that ended in the measured time.
    async fn run(mut self, from: Instant, until: Instant) -> Result<(u64, Vec<u32>), Error> {
        let (mut appends, mut samples) = (0, Vec::new());
        while Instant::now() < until {
            let begun = Instant::now();
            let appended = self.store.append(self.next()).await?;
            self.version = appended.versions.first().copied().unwrap_or_default();
            appends += 1;
            let ended = Instant::now();
            if ended >= from && ended < until {
                samples.push(u32::try_from((ended - begun).as_micros()).unwrap_or(u32::MAX));
            }
        }
        Ok((appends, samples))
    }

    fn next(&self) -> Append {
        let write = StreamWrite {
            stream: self.stream.clone(),
            expected: Expected::Version(self.version),
            subject: Some(self.subject.clone()),
            events: (0..self.events).map(|_| answer()).collect(),
        };
        let meta = Meta {
            principal: "user:alice".to_owned(),
            interface: "bench".to_owned(),
            correlation_id: None,
            causation_id: None,
            occurred_at_ms: chrono::Utc::now().timestamp_millis(),
        };
        Append { log_id: LOG, writes: vec![write], command: None, lease: LeaseOp::None, meta }
    }
}

/// An event of the usual size, with something personal in it: a model's answer of ten tokens.
fn answer() -> DomainEvent {
    let completed = ModelCallCompleted {
        call_id: "0193568f-0000-7000-8000-000000000000".to_owned(),
        text: (0..10).map(|n| format!("token{n} ")).collect::<String>().into(),
        reasoning: None.into(),
        tool_calls: Vec::new(),
        finish_reason: "stop".to_owned(),
        provider_data: None,
        replay: None.into(),
        metrics: daybook_domain::message::CallMetrics::default(),
        frame: 1,
        at_ms: 1_700_000_000_000,
    };
    RunEvent::ModelCallCompleted(completed).into()
}

/// The options of `daybook-bench read`.
#[derive(Debug, Args)]
pub struct ReadOptions {
    /// How often the whole log is read; each time is told
    #[arg(long, default_value_t = 3)]
    repeats: u32,
}

/// What `read` prints.
#[derive(Debug, Serialize, Deserialize)]
pub struct Consumed {
    /// Events in the log.
    pub events: u64,
    /// Events a second: read, decrypted and decoded by one consumer; for each repeat.
    pub decoded: Vec<f64>,
    /// The same without decrypting and decoding.
    pub raw: Vec<f64>,
    /// What this process took.
    pub cpu_seconds: f64,
}

/// Reads the whole log as one consumer and prints how fast that went.
pub async fn read(options: ReadOptions) -> Result<(), Error> {
    let store = open().await?;
    let mut consumed = Consumed { events: 0, decoded: Vec::new(), raw: Vec::new(), cpu_seconds: 0.0 };
    for _ in 0..options.repeats {
        let begun = Instant::now();
        consumed.events = 0;
        loop {
            let batch = store.read_after(LOG, consumed.events, BATCH).await?;
            let Some(last) = batch.last() else { break };
            consumed.events = last.position;
        }
        consumed.decoded.push(consumed.events as f64 / begun.elapsed().as_secs_f64());
        let (begun, mut position) = (Instant::now(), 0);
        loop {
            let batch = store.read_raw_after(LOG, position, BATCH).await?;
            let Some(last) = batch.last() else { break };
            position = last.position;
        }
        consumed.raw.push(position as f64 / begun.elapsed().as_secs_f64());
    }
    store.close().await;
    consumed.cpu_seconds = process::own_cpu_seconds();
    crate::say(&serde_json::to_string(&consumed)?)
}

/// The options of `daybook-bench post`.
#[derive(Debug, Args)]
pub struct PostOptions {
    /// Only this view, such as `runs`; all at once unless said
    #[arg(long)]
    view: Option<String>,
    /// Seconds after which it is given up
    #[arg(long, default_value_t = 120.0)]
    patience: f64,
}

/// What `post` prints.
#[derive(Debug, Serialize, Deserialize)]
pub struct Posted {
    /// Events in the log.
    pub events: u64,
    /// Each view and how many seconds it took to reach the head, all posting at once.
    pub views: Vec<(String, f64)>,
    /// What this process took.
    pub cpu_seconds: f64,
}

/// Posts the views from their checkpoints to the head as it is now, and prints how long each took.
pub async fn post(options: PostOptions) -> Result<(), Error> {
    let store = open().await?;
    let events = store.head(LOG).await?;
    let begun = Instant::now();
    let wanted = |name: &str| options.view.as_deref().is_none_or(|view| view == name);
    let runner = Runner::start_some(store.clone(), LOG, wanted);
    let mut views: Vec<(String, f64)> = Vec::new();
    loop {
        let all = runner.status().await?;
        let count = all.len();
        if count == 0 {
            return Err(Error::Missing(format!("there is no view {:?}", options.view.unwrap_or_default())));
        }
        let seconds = begun.elapsed().as_secs_f64();
        for view in all {
            if let Some(why) = view.stopped.or(view.parked.first().map(|(stream, why)| format!("{stream}: {why}"))) {
                return Err(Error::Missing(format!("the view {} does not post: {why}", view.name)));
            }
            if view.position >= events && !views.iter().any(|(name, _)| name == view.name) {
                views.push((view.name.to_owned(), seconds));
            }
        }
        if views.len() == count {
            break;
        }
        if seconds > options.patience {
            return Err(Error::Missing(format!("the views did not reach {events} in {seconds:.0} s")));
        }
        sleep(LOOK_EVERY).await;
    }
    runner.stop().await;
    store.close().await;
    crate::say(&serde_json::to_string(&Posted { events, views, cpu_seconds: process::own_cpu_seconds() })?)
}
