//! A mixed load: all kinds of runs, with and without tools, cancels, busy sessions, and clients who ask again.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use daybook_test_support::{Api, Script, text};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout};

use crate::client::{Ask, KINDS, Told, check, content, outcome, see_through};
use crate::counts::{Counts, now_ms};
use crate::node::{Node, World};

const TOOLS: [&str; 3] = ["count_pure", "count_idempotent", "count_unsafe"];

/// How long a run may take to be found as it was told, with servers dying meanwhile.
const LOOK: Duration = Duration::from_secs(120);

/// A run that was accepted and what became of it.
#[derive(Debug, Clone)]
pub struct Entry {
    pub ask: Ask,
    pub status: String,
    pub content: String,
    /// The calls of its tools that have an outcome, by id, and when that was known, in unix milliseconds.
    pub recorded: Vec<(String, u64)>,
}

/// Nodes under load, and what their clients were told.
pub struct Field {
    pub world: World,
    pub nodes: Vec<Node>,
    pub counts: Counts,
    pub entries: Mutex<Vec<Entry>>,
    /// What is wrong; the first ends the load.
    pub wrong: Mutex<Vec<String>>,
    pub seed: u64,
    until: Instant,
    ended: AtomicBool,
}

/// What a run says and does, and the text it must have when it completes.
struct Plan {
    message: String,
    text: String,
    is_unsafe: bool,
}

impl Field {
    pub async fn new(seed: u64, lasting: Duration) -> Self {
        Self::on(World::new().await, seed, lasting).await
    }

    /// In a world that is there.
    pub async fn on(world: World, seed: u64, lasting: Duration) -> Self {
        let nodes = vec![Node::start(&world, "a").await, Node::start(&world, "b").await];
        let until = Instant::now() + lasting;
        let (entries, wrong, ended) = (Mutex::default(), Mutex::default(), AtomicBool::new(false));
        Self { world, nodes, counts: Counts::default(), entries, wrong, seed, until, ended }
    }

    /// Whether the load goes on.
    pub fn goes_on(&self) -> bool {
        Instant::now() < self.until && !self.ended.load(Ordering::Acquire) && self.wrong().is_empty()
    }

    /// Ends the load, before its time.
    pub fn end(&self) {
        self.ended.store(true, Ordering::Release);
    }

    pub fn wrong(&self) -> Vec<String> {
        self.wrong.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn object(&self, wrong: String) {
        self.wrong.lock().unwrap_or_else(PoisonError::into_inner).push(wrong);
    }

    /// A node that is up, by chance.
    pub fn any(&self) -> Option<Api> {
        let up: Vec<Api> = self.nodes.iter().filter_map(Node::api).collect();
        up.choose(&mut rand::rng()).cloned()
    }

    /// One client after the other, until the load ends. `home` names the node to ask, else any.
    pub async fn work(&self, worker: u64, home: Option<usize>) {
        let mut rng = StdRng::seed_from_u64(self.seed ^ (worker << 32));
        let mut number = 0;
        while self.goes_on() {
            number += 1;
            let name = format!("{worker}-{number}");
            let plan = plan(&name, &mut rng);
            // Some sessions are a worker's own, some are everybody's, and no session grows for ever.
            let session = if rng.random_bool(0.5) {
                format!("shared-{}-{}", number / 20, rng.random_range(0..4))
            } else {
                format!("own-{worker}-{}", number / 20)
            };
            let on_busy = match rng.random_range(0..20) {
                0..11 => "enqueue",
                11..16 => "parallel",
                16..18 => "reject",
                _ => "interrupt",
            };
            let kind = *KINDS.choose(&mut rng).unwrap();
            let (run, key, message) = (format!("run-{name}"), format!("key-{name}"), plan.message.clone());
            let ask = Ask { agent: "crash-agent", session, run, message, kind, on_busy, key };
            let cancel_after = rng.random_bool(0.12).then(|| Duration::from_millis(rng.random_range(0..600)));
            if let Err(wrong) = self.one(&ask, &plan, cancel_after, home).await {
                self.object(wrong);
            }
        }
    }

    async fn one(
        &self,
        ask: &Ask,
        plan: &Plan,
        cancel_after: Option<Duration>,
        home: Option<usize>,
    ) -> Result<(), String> {
        let pick = || home.map_or_else(|| self.any(), |home| self.nodes[home].api());
        let cancel = async {
            let Some(after) = cancel_after else { return };
            sleep(after).await;
            if let Some(api) = self.any() {
                let path = format!("/agents/{}/runs/{}/cancel", ask.agent, ask.run);
                let asked = api.post(&path).timeout(Duration::from_secs(20)).send().await;
                self.counts.add("cancels", usize::from(asked.is_ok_and(|answer| answer.status() == 200)));
            }
        };
        let (told, ()) = tokio::join!(see_through(ask, pick), cancel);
        let told = told?;
        self.counts.add("answers 429 or 503", told.unavailable);
        self.counts.add("watched again", told.resumed);
        if told.refused.is_some() {
            self.counts.one("refused as busy");
            return Ok(());
        }
        let known_at = now_ms();
        let seen = self.hold_to(ask, &told).await?;
        let entry = entry(ask, plan, &told, &seen, known_at)?;
        self.counts.one(&entry.status);
        self.entries.lock().unwrap_or_else(PoisonError::into_inner).push(entry);
        Ok(())
    }

    /// Asks any node for the run and holds it to what was told; servers may die in between, so again and again.
    async fn hold_to(&self, ask: &Ask, told: &Told) -> Result<Value, String> {
        let deadline = Instant::now() + LOOK;
        loop {
            let found = match self.any() {
                Some(api) => timeout(Duration::from_secs(30), outcome(ask, &api, &ask.run)).await.ok(),
                None => None,
            };
            match found {
                Some(Ok(Some((seen, frames)))) => return check(ask, told, &seen, &frames).map(|()| seen),
                Some(Err(wrong)) => return Err(wrong),
                Some(Ok(None)) | None if Instant::now() < deadline => sleep(Duration::from_millis(200)).await,
                _ => return Err(format!("{} could not be read for {} s", ask.run, LOOK.as_secs())),
            }
        }
    }
}

fn plan(name: &str, rng: &mut StdRng) -> Plan {
    let words = |part: &str, count: usize| (0..count).map(|n| format!("{name}{part}{n} ")).collect::<Vec<_>>();
    let first = words("a", rng.random_range(0..6));
    let second = words("b", rng.random_range(1..10));
    let said = |words: &[String]| words.iter().map(String::as_str).collect::<Vec<_>>().join("");
    let pieces = |words: &[String]| Script::say(&words.iter().map(String::as_str).collect::<Vec<_>>());
    let pace = rng.random_range(0..60);
    let (script, text, is_unsafe) = if rng.random_bool(0.4) {
        (pieces(&second).pace(pace), said(&second), false)
    } else {
        let tool = *TOOLS.choose(rng).unwrap();
        let call = Script::call(&[(tool, json!({"milliseconds": rng.random_range(0..400)}))]);
        let script = if first.is_empty() { call } else { pieces(&first).pace(pace).then(call) };
        // A step that only talks ends the run: the words before a call belong to its step.
        let script = if first.is_empty() { script } else { Script::say(&[&said(&first)]).and_call(tool) };
        (script.then(pieces(&second).pace(pace)), said(&first) + &said(&second), tool == "count_unsafe")
    };
    Plan { message: script.message_after(&format!("{name}. ")), text, is_unsafe }
}

/// What the ledger keeps of a run, once it is as it should be.
fn entry(ask: &Ask, plan: &Plan, told: &Told, seen: &Value, known_at: u64) -> Result<Entry, String> {
    let (status, content) = (text(&seen["status"]).to_owned(), content(seen).to_owned());
    let fits = match status.as_str() {
        "COMPLETED" => content == plan.text,
        "CANCELLED" => plan.text.starts_with(&content),
        "PAUSED" => plan.is_unsafe && plan.text.starts_with(&content),
        _ => false,
    };
    if !fits {
        return Err(format!("{} should have said {:?}: {seen}", ask.run, plan.text));
    }
    let mut recorded = told.recorded.clone();
    for tool in seen["tools"].as_array().into_iter().flatten().filter(|tool| tool["result"].is_string()) {
        recorded.push((text(&tool["tool_call_id"]).to_owned(), known_at));
    }
    Ok(Entry { ask: ask.clone(), status, content, recorded })
}
