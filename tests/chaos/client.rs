//! A client that does not give up: it asks again under its key, watches again after its last frame, and keeps what it was
//! told, to hold the servers to it.

use std::collections::BTreeMap;
use std::time::Duration;

use daybook_test_support::{Api, Frame, Stream, said, text};
use reqwest::Response;
use serde_json::Value;
use tokio::time::{Instant, sleep};

use crate::counts::now_ms;

/// Everything that can go wrong outside is over by then; a run that has not ended is stranded.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// A single answer takes no longer, or its connection is given up.
const ONE_ANSWER: Duration = Duration::from_secs(45);

const AGAIN: Duration = Duration::from_millis(100);

/// How a client waits for its run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Plain,
    Streamed,
    Background,
    BackgroundStreamed,
}

/// All of them.
pub const KINDS: [Kind; 4] = [Kind::Plain, Kind::Streamed, Kind::Background, Kind::BackgroundStreamed];

impl Kind {
    fn is_streamed(self) -> bool {
        matches!(self, Self::Streamed | Self::BackgroundStreamed)
    }

    fn is_background(self) -> bool {
        matches!(self, Self::Background | Self::BackgroundStreamed)
    }
}

/// What a client asks for.
#[derive(Debug, Clone)]
pub struct Ask {
    pub agent: &'static str,
    pub session: String,
    pub run: String,
    pub message: String,
    pub kind: Kind,
    pub on_busy: &'static str,
    pub key: String,
}

/// What a client was told about its run.
#[derive(Debug, Default)]
pub struct Told {
    pub run: String,
    /// The run in the answer to who waited for it.
    pub answer: Option<Value>,
    /// When a tool's outcome was shown, in unix milliseconds, by the call's id.
    pub recorded: Vec<(String, u64)>,
    /// By index.
    pub frames: BTreeMap<u64, Frame>,
    /// The run was refused, with this status.
    pub refused: Option<u16>,
    /// 503 and 429, on the way.
    pub unavailable: usize,
    /// How often it had to watch again.
    pub resumed: usize,
}

/// What a run has said. Where it said nothing, the API shows why it stands still or was stopped.
pub fn content(seen: &Value) -> &str {
    let shown = seen["content"].as_str().unwrap_or_default();
    let instead = match text(&seen["status"]) {
        "PAUSED" => shown == "I have tools to execute, but I need confirmation.",
        "CANCELLED" => {
            shown.starts_with("Interrupted by run ") || shown == format!("Run {} was cancelled", text(&seen["run_id"]))
        }
        _ => false,
    };
    if instead { "" } else { shown }
}

/// Whether nothing comes after this frame.
pub fn is_last(frame: &Frame) -> bool {
    ["RunCompleted", "RunError", "RunPaused"].contains(&frame.event.as_str())
}

/// Whether a run of this status goes on by itself.
pub fn is_over(status: &str) -> bool {
    ["COMPLETED", "ERROR", "CANCELLED", "PAUSED"].contains(&status)
}

impl Told {
    /// Takes a frame: indexes increase, and none comes again with other content.
    fn take(&mut self, frame: Frame, last: &mut Option<u64>) -> Result<(), String> {
        if let Some(run) = frame.data["run_id"].as_str() {
            self.run = run.to_owned();
        }
        let Some(index) = frame.id else { return Ok(()) };
        if last.is_some_and(|last| index <= last) {
            return Err(format!("index {index} after {last:?}: {frame:?}"));
        }
        *last = Some(index);
        if let (Some(call), "ToolCallCompleted") = (frame.data["tool"]["tool_call_id"].as_str(), &*frame.event) {
            self.recorded.push((call.to_owned(), now_ms()));
        }
        match self.frames.insert(index, frame.clone()) {
            Some(earlier) if earlier != frame => Err(format!("index {index} is {earlier:?} and {frame:?}")),
            _ => Ok(()),
        }
    }

    /// Whether the end was seen.
    pub fn saw_the_end(&self) -> bool {
        self.frames.values().any(is_last)
    }

    /// The text it had at the end.
    pub fn text(&self) -> String {
        said(&self.frames.values().cloned().collect::<Vec<_>>())
    }
}

/// Asks, and asks again, until the run has ended, waits for a person, or was refused. `pick` names a server to ask.
pub async fn see_through(ask: &Ask, pick: impl Fn() -> Option<Api>) -> Result<Told, String> {
    let mut told = Told::default();
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        let Some(api) = pick() else {
            sleep(AGAIN).await;
            continue;
        };
        if attempt(ask, &api, &mut told).await? {
            return Ok(told);
        }
        sleep(AGAIN).await;
    }
    Err(format!("stranded: no end within {} s: {ask:?}, {told:?}", PATIENCE.as_secs()))
}

/// One connection; true when there is nothing more to ask.
async fn attempt(ask: &Ask, api: &Api, told: &mut Told) -> Result<bool, String> {
    let response = if told.run.is_empty() || ask.kind == Kind::Plain {
        start(ask, api).await
    } else if ask.kind.is_streamed() {
        told.resumed += 1;
        resume(ask, api, &told.run, told.frames.keys().next_back().copied()).await
    } else {
        return look(ask, api, &told.run).await;
    };
    let Ok(response) = response else { return Ok(false) };
    let status = response.status().as_u16();
    match status {
        200 if ask.kind.is_streamed() => watch(response, told).await,
        200 | 202 => {
            let Ok(answer) = response.json::<Value>().await else { return Ok(false) };
            told.run = text(&answer["run_id"]).to_owned();
            let waited = ask.kind == Kind::Plain && is_over(text(&answer["status"]));
            told.answer = Some(answer).filter(|_| waited);
            Ok(waited)
        }
        429 | 503 => {
            told.unavailable += 1;
            let says_when = response.headers().contains_key("retry-after");
            if says_when { Ok(false) } else { Err(format!("{status} without Retry-After")) }
        }
        409 if ask.on_busy == "reject" => {
            told.refused = Some(status);
            Ok(true)
        }
        _ => Err(format!("{status} {}: {ask:?}", response.text().await.unwrap_or_default())),
    }
}

async fn start(ask: &Ask, api: &Api) -> reqwest::Result<Response> {
    let fields = [
        ("message", ask.message.as_str()),
        ("session_id", &ask.session),
        ("run_id", &ask.run),
        ("on_busy", ask.on_busy),
        ("stream", if ask.kind.is_streamed() { "true" } else { "false" }),
        ("background", if ask.kind.is_background() { "true" } else { "false" }),
    ];
    let request = api.request(ask.agent, &fields).header("idempotency-key", &ask.key);
    // A stream lasts as long as it lasts: it is never silent for long.
    let request = if ask.kind.is_streamed() { request } else { request.timeout(ONE_ANSWER) };
    request.send().await
}

async fn resume(ask: &Ask, api: &Api, run: &str, after: Option<u64>) -> reqwest::Result<Response> {
    let mut fields = vec![("session_id", ask.session.clone())];
    fields.extend(after.map(|index| ("last_event_index", index.to_string())));
    api.post(&format!("/agents/{}/runs/{run}/resume", ask.agent)).form(&fields).send().await
}

async fn watch(response: Response, told: &mut Told) -> Result<bool, String> {
    let mut stream = Stream::new(response);
    let mut last = told.frames.keys().next_back().copied();
    while let Some(frame) = stream.next().await {
        if frame.event == "error" {
            return Ok(false);
        }
        let ends = is_last(&frame);
        told.take(frame, &mut last)?;
        if ends {
            return Ok(true);
        }
    }
    Ok(false)
}

async fn look(ask: &Ask, api: &Api, run: &str) -> Result<bool, String> {
    let path = format!("/agents/{}/runs/{run}?session_id={}", ask.agent, ask.session);
    let Ok(response) = api.get(&path).timeout(ONE_ANSWER).send().await else { return Ok(false) };
    match response.status().as_u16() {
        200 => Ok(response.json::<Value>().await.is_ok_and(|run| is_over(text(&run["status"])))),
        503 => Ok(false),
        status => Err(format!("{status}: the run {run} was accepted and is lost")),
    }
}

/// What a run became, and all of its frames; nothing when the server went away meanwhile.
pub async fn outcome(ask: &Ask, api: &Api, run: &str) -> Result<Option<(Value, Vec<Frame>)>, String> {
    let path = format!("/agents/{}/runs/{run}?session_id={}", ask.agent, ask.session);
    let Ok(response) = api.get(&path).send().await else { return Ok(None) };
    let status = response.status().as_u16();
    if status == 503 {
        return Ok(None);
    }
    if status != 200 {
        return Err(format!("{status}: the run {run} was accepted and is lost"));
    }
    let Ok(seen) = response.json::<Value>().await else { return Ok(None) };
    let Ok(response) = resume(ask, api, run, None).await else { return Ok(None) };
    if response.status() == 503 {
        return Ok(None);
    }
    let mut stream = Stream::new(response);
    let (mut frames, mut total) = (Vec::new(), None);
    while let Some(frame) = stream.next().await {
        if frame.event == "replay" {
            total = frame.data["total_events"].as_u64();
        }
        frames.extend(Some(frame).filter(|frame| frame.id.is_some()));
    }
    let Some(total) = total.filter(|total| *total == 0 || frames.last().is_some_and(is_last)) else { return Ok(None) };
    // It begins with how much follows.
    if frames.len() as u64 != total {
        return Err(format!("{run}: {} of {total} frames were replayed: {}", frames.len(), names(&frames)));
    }
    Ok(Some((seen, frames)))
}

/// Holds a run to what its client was told. Gives what is wrong.
pub fn check(ask: &Ask, told: &Told, seen: &Value, frames: &[Frame]) -> Result<(), String> {
    let (run, status) = (&told.run, text(&seen["status"]));
    if !is_over(status) {
        return Err(format!("{run} is {status}: stranded"));
    }
    let indexes: Vec<u64> = frames.iter().filter_map(|frame| frame.id).collect();
    if !indexes.is_sorted_by(|one, next| one < next) {
        return Err(format!("{run}: its indexes do not increase: {indexes:?}"));
    }
    for frame in frames {
        let index = frame.id.unwrap_or_default();
        if let Some(earlier) = told.frames.get(&index).filter(|earlier| *earlier != frame) {
            return Err(format!("{run}: index {index} is {earlier:?} and {frame:?}"));
        }
    }
    let ends = frames.iter().filter(|frame| is_last(frame)).count();
    // Nobody kept the frames of a run that nobody watched.
    if ends > 1 || (ends == 0 && !frames.is_empty()) || (told.saw_the_end() && ends == 0) {
        return Err(format!("{run} ended {ends} times: {frames:?}"));
    }
    let content = content(seen);
    if status != "ERROR" {
        for said in [Some(told.text()).filter(|_| told.saw_the_end()), Some(said(frames)).filter(|_| ends == 1)] {
            if said.as_ref().is_some_and(|said| said != content) {
                let (live, again) = (names(told.frames.values()), names(frames));
                let kind = ask.kind;
                return Err(format!("{run}, {kind:?}, says {said:?}, and it is {content:?}: {live}; again: {again}"));
            }
        }
    }
    if let Some(answer) = &told.answer
        && (answer["status"] != seen["status"] || answer["content"] != seen["content"])
        && !(answer["status"] == "PAUSED" && status == "CANCELLED")
    {
        return Err(format!("{run}: its client was told {answer}, and it is {seen}"));
    }
    Ok(())
}

/// Frames for messages.
fn names<'a>(frames: impl IntoIterator<Item = &'a Frame>) -> String {
    let name = |frame: &Frame| format!("{} {} {}", frame.id.unwrap_or_default(), frame.event, frame.data["content"]);
    frames.into_iter().map(name).collect::<Vec<_>>().join(", ")
}
