//! A scripted model behind the chat-completions protocol. The script of a run is in its message, so that many runs
//! share one server; gates hold an answer until the test lets it go on, so that no test depends on time.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::{StreamExt, stream};
use poem::http::StatusCode;
use poem::listener::{Acceptor, Listener, TcpListener};
use poem::web::{Data, Json};
use poem::{Body, EndpointExt, Response, Route, handler};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::eventually;

/// Before the script in a message.
const MARK: &str = "script:";

/// How Daybook begins when it tells a model that its answer misses its shape: no person says that.
const REPAIR: &str = "Your answer does not have the shape";

/// What is said where there is no script.
const REPLY: [&str; 3] = ["Hi", " Alice", "!"];

/// What the model does wrong.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub enum Fault {
    /// Answers with this status.
    Status(u16),
    /// Answers what is no JSON.
    Garbage,
    /// Ends its stream before it said anything.
    Nothing,
    /// Says a half and ends its stream in good order.
    Half,
    /// Says a half and cuts the connection.
    Cut,
}

/// One answer of the model.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Step {
    pieces: Vec<String>,
    /// Waits for the gate before the piece of this number.
    hold: Option<(usize, String)>,
    calls: Vec<(String, String)>,
    /// Instead of the pieces: so many, with so many letters each.
    long: Option<(usize, usize)>,
    /// Milliseconds before each piece, for a load that takes time; no test counts on it.
    #[serde(default)]
    pace: u64,
    fault: Option<Fault>,
}

/// What the model answers, one step after the other; a step follows the outcomes of the step before.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Script(Vec<Step>);

impl Script {
    /// Says these pieces.
    pub fn say(pieces: &[&str]) -> Self {
        Self::default().then_say(pieces)
    }

    /// Says so many pieces with so many letters each; see [`long_pieces`].
    pub fn long(count: usize, letters: usize) -> Self {
        Self(vec![Step { long: Some((count, letters)), ..Step::default() }])
    }

    /// Calls these tools at once, with JSON arguments.
    pub fn call(calls: &[(&str, Value)]) -> Self {
        let written = calls.iter().map(|(name, args)| ((*name).to_owned(), args.to_string())).collect();
        Self(vec![Step { calls: written, ..Step::default() }])
    }

    /// Fails.
    pub fn fail(fault: Fault) -> Self {
        let pieces = vec!["half of".to_owned(), " the".to_owned()];
        Self(vec![Step { fault: Some(fault), pieces, ..Step::default() }])
    }

    /// After that, says these pieces.
    pub fn then_say(mut self, pieces: &[&str]) -> Self {
        self.0.push(Step { pieces: pieces.iter().map(|piece| (*piece).to_owned()).collect(), ..Step::default() });
        self
    }

    /// Also calls this tool, without arguments, when it has said its last step.
    pub fn and_call(mut self, tool: &str) -> Self {
        if let Some(step) = self.0.last_mut() {
            step.calls.push((tool.to_owned(), "{}".to_owned()));
        }
        self
    }

    /// After that, does what `next` does.
    pub fn then(mut self, next: Self) -> Self {
        self.0.extend(next.0);
        self
    }

    /// The last step waits at `gate` before its piece `at`; a step that calls tools, before all of it.
    pub fn hold(mut self, at: usize, gate: &str) -> Self {
        if let Some(step) = self.0.last_mut() {
            step.hold = Some((at, gate.to_owned()));
        }
        self
    }

    /// The last step takes so many milliseconds before each piece, or before its calls.
    pub fn pace(mut self, milliseconds: u64) -> Self {
        if let Some(step) = self.0.last_mut() {
            step.pace = milliseconds;
        }
        self
    }

    /// A message that makes the model do this.
    pub fn message(&self) -> String {
        self.message_after("")
    }

    /// The same behind other words.
    pub fn message_after(&self, words: &str) -> String {
        format!("{words}{MARK}{}", serde_json::to_string(self).unwrap())
    }
}

/// The pieces of a long answer; each begins with its number.
pub fn long_pieces(count: usize, letters: usize) -> Vec<String> {
    (0..count).map(|n| format!("{n} {} ", "x".repeat(letters))).collect()
}

#[derive(Default)]
struct Gate {
    arrived: usize,
    open: Option<watch::Sender<bool>>,
}

#[derive(Default)]
struct Shared {
    gates: Mutex<HashMap<String, Gate>>,
    requests: Mutex<Vec<Value>>,
}

impl Shared {
    fn gate<T>(&self, name: &str, with: impl FnOnce(&mut Gate, watch::Sender<bool>) -> T) -> T {
        let mut gates = self.gates.lock().unwrap();
        let gate = gates.entry(name.to_owned()).or_default();
        let open = gate.open.get_or_insert_with(|| watch::channel(false).0).clone();
        with(gate, open)
    }
}

/// The model's server; ends with the test.
pub struct Model {
    /// Where it is.
    pub url: String,
    shared: Arc<Shared>,
    _serving: JoinSet<io::Result<()>>,
}

impl Model {
    /// Starts it.
    pub async fn start() -> Self {
        let acceptor = TcpListener::bind("127.0.0.1:0").into_acceptor().await.unwrap();
        let address = acceptor.local_addr().remove(0);
        let address = address.as_socket_addr().unwrap().to_owned();
        let shared = Arc::new(Shared::default());
        let app = Route::new().at("/v1/chat/completions", poem::post(completions)).data(shared.clone());
        let mut serving = JoinSet::new();
        serving.spawn(poem::Server::new_with_acceptor(acceptor).run(app));
        Self { url: format!("http://{address}/v1"), shared, _serving: serving }
    }

    /// Lets everything at `gate` go on, and everything that will come there.
    pub fn open(&self, gate: &str) {
        self.shared.gate(gate, |_, open| open.send_replace(true));
    }

    /// Waits until `count` answers, since the beginning, have come to `gate`.
    pub async fn arrived(&self, gate: &str, count: usize) {
        let arrived = || self.shared.gate(gate, |gate, _| gate.arrived);
        eventually(&format!("{count} answers at gate {gate}"), async || (arrived() >= count).then_some(())).await;
    }

    /// All requests so far.
    pub fn requests(&self) -> Vec<Value> {
        self.shared.requests.lock().unwrap().clone()
    }

    /// The requests whose last message of a person holds `words`.
    pub fn requests_with(&self, words: &str) -> Vec<Value> {
        self.requests().into_iter().filter(|request| said_last(request).contains(words)).collect()
    }
}

fn text_of(content: &Value) -> String {
    match content {
        Value::String(text) => text.clone(),
        Value::Array(parts) => parts.iter().filter_map(|part| part["text"].as_str()).collect(),
        _ => String::new(),
    }
}

/// Whether a person says it.
fn is_said(message: &Value) -> bool {
    message["role"] == "user" && !text_of(&message["content"]).starts_with(REPAIR)
}

/// The last message of a person.
fn said_last(request: &Value) -> String {
    let messages = request["messages"].as_array().map(Vec::as_slice).unwrap_or_default();
    messages.iter().rfind(|message| is_said(message)).map(|last| text_of(&last["content"])).unwrap_or_default()
}

/// The step that comes next: one for each answer since a person spoke.
fn next_step(request: &Value) -> Step {
    let said = said_last(request);
    let Some((_, script)) = said.split_once(MARK) else { return usual() };
    let mut scripts = serde_json::Deserializer::from_str(script).into_iter::<Script>();
    let Some(Ok(Script(steps))) = scripts.next() else { return usual() };
    let messages = request["messages"].as_array().map(Vec::as_slice).unwrap_or_default();
    let answers = messages.iter().rev().take_while(|message| !is_said(message));
    let done = answers.filter(|message| message["role"] == "assistant").count();
    steps.into_iter().nth(done).unwrap_or_else(usual)
}

fn usual() -> Step {
    Step { pieces: REPLY.map(str::to_owned).to_vec(), ..Step::default() }
}

enum Part {
    Pause(u64),
    Bytes(String),
    Gate(String),
    Cut,
}

#[handler]
fn completions(shared: Data<&Arc<Shared>>, Json(request): Json<Value>) -> Response {
    let step = next_step(&request);
    shared.requests.lock().unwrap().push(request);
    match step.fault {
        Some(Fault::Status(status)) => {
            let body = json!({"error": {"message": "scripted failure", "type": "server_error", "code": "scripted"}});
            let status = StatusCode::from_u16(status).unwrap();
            return Response::builder().status(status).content_type("application/json").body(body.to_string());
        }
        Some(Fault::Garbage) => {
            return Response::builder().content_type("application/json").body("{\"choices\": [{\"mess");
        }
        _ => {}
    }
    let shared = shared.0.clone();
    let chunks = stream::iter(parts(step)).then(move |part| {
        let shared = shared.clone();
        async move {
            match part {
                Part::Bytes(bytes) => Ok(bytes),
                Part::Cut => {
                    // What was said is sent before.
                    tokio::task::yield_now().await;
                    Err(io::Error::other("cut"))
                }
                Part::Pause(milliseconds) => {
                    tokio::time::sleep(Duration::from_millis(milliseconds)).await;
                    Ok(String::new())
                }
                Part::Gate(name) => {
                    let mut open = shared.gate(&name, |gate, open| {
                        gate.arrived += 1;
                        open.subscribe()
                    });
                    open.wait_for(|open| *open).await.map_err(io::Error::other)?;
                    Ok(": the gate is open\n\n".to_owned())
                }
            }
        }
    });
    Response::builder().content_type("text/event-stream").body(Body::from_bytes_stream(chunks.boxed()))
}

fn parts(mut step: Step) -> Vec<Part> {
    if let Some((count, letters)) = step.long {
        step.pieces = long_pieces(count, letters);
    }
    let id = format!("chatcmpl-{}", uuid::Uuid::now_v7().simple());
    let chunk = |delta: Value, finish: Option<&str>| {
        let choices = json!([{"index": 0, "delta": delta, "finish_reason": finish}]);
        let chunk = json!({"id": id, "created": 1, "model": "fake-gpt", "object": "chat.completion.chunk",
            "system_fingerprint": "fp_fake", "choices": choices});
        Part::Bytes(format!("data: {chunk}\n\n"))
    };
    if matches!(step.fault, Some(Fault::Nothing)) {
        return Vec::new();
    }
    let mut parts = vec![chunk(json!({"role": "assistant", "content": ""}), None)];
    let hold = |at: usize| step.hold.iter().filter(move |(hold, _)| *hold == at).map(|(_, gate)| gate.clone());
    let pause = || Some(step.pace).filter(|pace| *pace > 0).map(Part::Pause);
    for (at, piece) in step.pieces.iter().enumerate() {
        parts.extend(hold(at).map(Part::Gate));
        parts.extend(pause());
        parts.push(chunk(json!({"content": piece}), None));
    }
    parts.extend(hold(step.pieces.len()).map(Part::Gate));
    parts.extend(pause().filter(|_| step.pieces.is_empty()));
    for (at, (name, arguments)) in step.calls.iter().enumerate() {
        let call_id = format!("call_{}", uuid::Uuid::now_v7().simple());
        let function = json!({"name": name, "arguments": ""});
        let call = json!({"index": at, "id": call_id, "type": "function", "function": function});
        parts.push(chunk(json!({"tool_calls": [call]}), None));
        parts.push(chunk(json!({"tool_calls": [{"index": at, "function": {"arguments": arguments}}]}), None));
    }
    match step.fault {
        Some(Fault::Cut) => parts.push(Part::Cut),
        Some(_) => {}
        None => {
            parts.push(chunk(json!({}), Some(if step.calls.is_empty() { "stop" } else { "tool_calls" })));
            let usage = json!({"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15});
            let usage = json!({"id": id, "created": 1, "model": "fake-gpt", "object": "chat.completion.chunk",
                "choices": [], "usage": usage});
            parts.push(Part::Bytes(format!("data: {usage}\n\ndata: [DONE]\n\n")));
        }
    }
    parts
}
