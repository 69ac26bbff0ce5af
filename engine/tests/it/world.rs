//! A scripted model, counted tools, a manual clock, and a real log.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use daybook_domain::command::{Envelope, Principal, StartRun};
use daybook_domain::component::{AgentConfig, ComponentRef, ModelRef};
use daybook_domain::event::DomainEvent;
use daybook_domain::ids::{ComponentId, LogId, RunId, SessionId, StreamId};
use daybook_domain::media::{Media, MediaContent, MediaKind};
use daybook_domain::message::{CallMetrics, Replay, ToolCall};
use daybook_domain::run::{OnBusy, RunMode, RunState};
use daybook_domain::session::SessionEvent;
use daybook_domain::tool::{ApprovalKind, ApprovalRule, Effect, Gate, OnExpiry, ToolSpec};
use daybook_domain::usage::Usage;
use daybook_engine::{Engine, EngineOptions, Listing, Outcome, Ports, Registry};
use daybook_models::{ChatEvent, ChatModel, ChatRequest, ChatResponse, ChatStream, ModelError, ModelInfo};
use daybook_store::embedded::{Embedded, EmbeddedOptions};
use daybook_store::{MasterKey, Store, StoreOptions};
use daybook_tools::{Tool, ToolContext, ToolError, ToolOutput, ToolSet};
use futures::{StreamExt, stream};
use serde_json::{Map, Value, json};
use tokio::sync::Semaphore;

pub const LOG: LogId = LogId::DEFAULT;

/// After this long something that was to happen counts as never happening.
pub const PATIENCE: Duration = Duration::from_secs(180);

/// One answer of the scripted model: pieces, and whether it then waits for a permit before it goes on.
#[derive(Clone)]
pub enum Turn {
    Say(&'static str),
    Hold(&'static str),
    /// Says this for so many tokens.
    Spend(&'static str, u64),
    Call(&'static [(&'static str, &'static str, &'static str)]),
    /// Asks for the tool `pure` under this id, with this signed thought.
    Think(&'static str, &'static str),
    Fail(u16),
    /// A defect in the midst of a run.
    Panic,
}

pub struct Script {
    pub info: ModelInfo,
    pub turns: Mutex<VecDeque<Turn>>,
    pub requests: Mutex<Vec<ChatRequest>>,
    pub go_on: Arc<Semaphore>,
}

#[async_trait]
impl ChatModel for Script {
    fn info(&self) -> &ModelInfo {
        &self.info
    }

    async fn stream(&self, request: ChatRequest) -> Result<ChatStream, ModelError> {
        self.requests.lock().unwrap().push(request);
        let turn = self.turns.lock().unwrap().pop_front().unwrap_or(Turn::Say("Hi Alice!"));
        let go_on = self.go_on.clone();
        Ok(match turn {
            Turn::Fail(status) => {
                let error = ModelError::Status { status, message: "scripted failure".into(), retry_after: None };
                stream::iter([Err(error)]).boxed()
            }
            Turn::Call(calls) => {
                let call = |(id, name, arguments): &(&str, &str, &str)| ToolCall {
                    id: (*id).into(),
                    name: (*name).into(),
                    arguments: (*arguments).into(),
                };
                let tool_calls = calls.iter().map(call).collect();
                stream::iter([Ok(done("", tool_calls))]).boxed()
            }
            Turn::Think(id, thought) => {
                let items = vec![json!({"thought": thought, "signature": "s"})];
                let replay = Some(Replay { protocol: "p".into(), model: "m".into(), items });
                let call = ToolCall { id: id.into(), name: "pure".into(), arguments: "{}".into() };
                let ChatEvent::Done(answer) = done("", vec![call]) else { panic!("no end") };
                stream::iter([Ok(ChatEvent::Done(Box::new(ChatResponse { replay, ..*answer })))]).boxed()
            }
            Turn::Panic => stream::once(async { panic!("a defect, on purpose") }).boxed(),
            Turn::Say(text) => pieces(text).chain(stream::iter([Ok(done(text, vec![]))])).boxed(),
            Turn::Spend(text, total_tokens) => {
                let ChatEvent::Done(mut answer) = done(text, vec![]) else { panic!("no end") };
                answer.metrics.usage = Usage { total_tokens, ..Usage::default() };
                pieces(text).chain(stream::iter([Ok(ChatEvent::Done(answer))])).boxed()
            }
            Turn::Hold(text) => {
                let end = stream::once(async move {
                    go_on.acquire().await.unwrap().forget();
                    Ok(done(text, vec![]))
                });
                pieces(text).chain(end).boxed()
            }
        })
    }
}

pub fn pieces(text: &'static str) -> impl stream::Stream<Item = Result<ChatEvent, ModelError>> + Send {
    stream::iter(text.split_inclusive(' ').map(|word| Ok(ChatEvent::Text(word.to_owned()))))
}

pub fn done(text: &str, tool_calls: Vec<ToolCall>) -> ChatEvent {
    let usage = Usage { input_tokens: 2, output_tokens: 1, total_tokens: 3, ..Usage::default() };
    ChatEvent::Done(Box::new(ChatResponse {
        text: text.to_owned(),
        reasoning: None,
        replay: None,
        tool_calls,
        finish_reason: "stop".into(),
        provider_data: Some(json!({"id": "x"})),
        metrics: CallMetrics { usage, ..CallMetrics::default() },
    }))
}

/// A tool that counts its calls and waits for a permit when its arguments say so.
pub struct Counted {
    pub spec: ToolSpec,
    pub calls: Arc<Mutex<Vec<String>>>,
    pub given: Arc<Mutex<Vec<Map<String, Value>>>>,
    pub go_on: Arc<Semaphore>,
}

#[async_trait]
impl Tool for Counted {
    fn spec(&self) -> &ToolSpec {
        &self.spec
    }

    async fn call(&self, context: ToolContext, arguments: Map<String, Value>) -> Result<ToolOutput, ToolError> {
        self.calls.lock().unwrap().push(context.idempotency_key.clone());
        self.given.lock().unwrap().push(arguments.clone());
        if arguments.get("hold").is_some() {
            self.go_on.acquire().await.unwrap().forget();
        }
        if let Some(key) = arguments.get("key").and_then(Value::as_str) {
            context.set_state(key, json!(true));
        }
        if arguments.get("fail").is_some() {
            return Err(ToolError::failed("it broke"));
        }
        if let Some(bytes) = arguments.get("long").and_then(Value::as_u64) {
            return Ok(long_text(usize::try_from(bytes).unwrap()).into());
        }
        if let Some(text) = arguments.get("error").and_then(Value::as_u64) {
            return Err(ToolError::failed(long_text(usize::try_from(text).unwrap())));
        }
        if arguments.get("json").is_some() {
            let item = |n: u32| json!({"n": n, "password": format!("hunter{n}")});
            return Ok(Value::from_iter((0..10_000).map(item)).to_string().into());
        }
        let mut output = ToolOutput::from("ok");
        if arguments.get("picture").is_some() {
            output.media.push(Media {
                id: "p".into(),
                kind: MediaKind::Image,
                mime_type: Some("image/png".into()),
                filename: None,
                format: None,
                content: MediaContent::Base64("QUJD".repeat(40_000)),
                metadata: None,
            });
        }
        Ok(output)
    }
}

/// What looks like a token, and stands in the middle of every long text.
pub const TOKEN: &str = "sk-abcdefghijklmnopqrstuvwxyz0123456789";

/// A text of so many bytes, or a few more, each line another; its letters have one to four bytes.
pub fn long_text(bytes: usize) -> String {
    let lines = |from: usize, to: usize| (from..to).map(|n| format!("{n} größer € 🦀\n")).collect::<String>();
    let half = lines(0, bytes / 40);
    let mut text = format!("{half}token {TOKEN}\n");
    let mut at = bytes / 40;
    while text.len() < bytes {
        text.push_str(&lines(at, at + 1));
        at += 1;
    }
    text
}

pub struct World {
    pub postgres: Embedded,
    pub folder: tempfile::TempDir,
    pub store: Store,
    pub model: Arc<Script>,
    pub calls: Arc<Mutex<Vec<String>>>,
    pub given: Arc<Mutex<Vec<Map<String, Value>>>>,
    pub tool_go_on: Arc<Semaphore>,
    pub clock: Arc<AtomicI64>,
    pub ids: Arc<AtomicU64>,
}

impl World {
    pub async fn new() -> Self {
        let folder = tempfile::Builder::new()
            .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o755))
            .tempdir()
            .unwrap();
        let options = EmbeddedOptions { dir: folder.path().to_owned(), bin_dir: None };
        let postgres = Embedded::start(options).await.unwrap();
        let key = MasterKey::load_or_create(&folder.path().join("master.key")).unwrap();
        let store = Store::open(StoreOptions::new(postgres.url(), key)).await.unwrap();
        let info = ModelInfo { id: "m".into(), provider: "P".into(), class: "C".into() };
        let go_on = Arc::new(Semaphore::new(0));
        let model = Script { info, turns: Mutex::default(), requests: Mutex::default(), go_on };
        Self {
            postgres,
            folder,
            store,
            model: Arc::new(model),
            calls: Arc::default(),
            given: Arc::default(),
            tool_go_on: Arc::new(Semaphore::new(0)),
            clock: Arc::new(AtomicI64::new(1_700_000_000_000)),
            ids: Arc::new(AtomicU64::new(1)),
        }
    }

    pub fn script(&self, turns: impl IntoIterator<Item = Turn>) {
        self.model.turns.lock().unwrap().extend(turns);
    }

    pub async fn engine(&self) -> Engine {
        self.engine_of(config(), ToolSet::new()).await
    }

    /// With this agent, and these tools beside the counted ones.
    pub async fn engine_of(&self, config: AgentConfig, more: ToolSet) -> Engine {
        self.engine_from(self.registry(config, more)).await
    }

    /// That can run these.
    pub async fn engine_from(&self, registry: Registry) -> Engine {
        let (clock, ids) = (self.clock.clone(), self.ids.clone());
        let ports = Ports {
            clock: Arc::new(move || clock.load(Ordering::SeqCst)),
            ids: Arc::new(move || uuid::Uuid::from_u64_pair(7, ids.fetch_add(1, Ordering::SeqCst))),
        };
        let options = EngineOptions { grace: Duration::from_millis(200), ..EngineOptions::default() };
        Engine::start(self.store.clone(), registry, options, ports).await.unwrap()
    }

    /// What such an engine can run.
    pub fn registry(&self, config: AgentConfig, more: ToolSet) -> Registry {
        let mut registry = Registry::default();
        registry.add_model("main", self.model.clone());
        registry.add_agent(config, self.tools(more), Listing::Public).unwrap();
        registry
    }

    /// Counted tools, beside others.
    pub fn tools(&self, more: ToolSet) -> ToolSet {
        let mut tools = more;
        for (name, effect) in [("pure", Effect::Pure), ("idem", Effect::Idempotent), ("harm", Effect::Unsafe)] {
            let spec = ToolSpec::new(name, "", json!({"type": "object"})).effect(effect);
            tools.insert(name.into(), self.counted(spec));
        }
        for spec in gated() {
            tools.insert(spec.name.clone(), self.counted(spec));
        }
        tools
    }

    /// One more scripted model.
    pub fn another_model(&self) -> Arc<Script> {
        let (info, go_on) = (self.model.info.clone(), Arc::new(Semaphore::new(0)));
        Arc::new(Script { info, turns: Mutex::default(), requests: Mutex::default(), go_on })
    }

    pub fn counted(&self, spec: ToolSpec) -> Arc<Counted> {
        let (calls, given) = (self.calls.clone(), self.given.clone());
        Arc::new(Counted { spec, calls, given, go_on: self.tool_go_on.clone() })
    }

    /// The node dies: its tasks are gone, its leases are found without a living node.
    pub async fn kill(&self, engine: Engine) {
        let node = engine.node_id().to_owned();
        engine.abandon();
        self.store.declare_dead(&node).await.unwrap();
    }

    /// The runs of a session, in the order in which they were let in.
    pub async fn runs_of(&self, session: &SessionId) -> Vec<RunId> {
        let recorded = self.store.read_stream(LOG, &StreamId::session(session), 0).await.unwrap();
        let admitted = |event| match event {
            DomainEvent::Session(SessionEvent::RunAdmitted(admitted)) => Some(admitted.run_id),
            _ => None,
        };
        recorded.into_iter().filter_map(|recorded| admitted(recorded.event)).collect()
    }

    pub async fn kinds(&self, run: &RunId) -> Vec<String> {
        let recorded = self.store.read_stream(LOG, &StreamId::run(run), 0).await.unwrap();
        recorded
            .iter()
            .map(|recorded| match &recorded.event {
                DomainEvent::Run(event) => event.kind().to_owned(),
                other => panic!("{other:?} in a run's stream"),
            })
            .collect()
    }

    pub async fn close(self) {
        self.store.close().await;
        self.postgres.stop().await.unwrap();
        self.folder.close().unwrap();
    }
}

/// Tools about which a person is asked.
fn gated() -> Vec<ToolSpec> {
    let text = json!({"type": "object", "properties": {"to": {"type": "string"}, "key": {"type": "string"}},
        "required": ["to"]});
    let tool = |name: &str, gate, approval| ToolSpec { gate, approval, ..ToolSpec::new(name, "", text.clone()) };
    let expires = |on_expiry| {
        let rule = ApprovalRule::new(ApprovalKind::Required);
        Some(ApprovalRule { expires_after_seconds: Some(60), remind_every_seconds: Some(40), on_expiry, ..rule })
    };
    let retried = |name, effect| ToolSpec { retries: 2, ..ToolSpec::new(name, "", text.clone()).effect(effect) };
    vec![
        retried("retried_pure", Effect::Pure),
        retried("retried_harm", Effect::Unsafe),
        tool("confirm", Gate::Confirmation, None),
        tool("fill", Gate::UserInput { fields: vec!["to".into()] }, None),
        ToolSpec { gate: Gate::UserInput { fields: travel_fields() }, ..ToolSpec::new("travel", "", travel()) },
        tool("outside", Gate::External { silent: false }, None),
        ToolSpec { gate: Gate::Feedback, ..ToolSpec::new("choose", "", json!({"type": "object"})) },
        tool("audited", Gate::Confirmation, Some(ApprovalRule::new(ApprovalKind::Audit))),
        tool("approve", Gate::None, Some(ApprovalRule::new(ApprovalKind::Required))),
        tool(
            "fill_approved",
            Gate::UserInput { fields: vec!["to".into()] },
            Some(ApprovalRule::new(ApprovalKind::Required)),
        ),
        tool("denies", Gate::None, expires(OnExpiry::Deny)),
        tool("fails", Gate::None, expires(OnExpiry::Fail)),
        tool("waits", Gate::None, expires(OnExpiry::Wait)),
    ]
}

/// A schema as Python's libraries write it.
fn travel() -> Value {
    json!({
        "$defs": {"Color": {"enum": ["red", "green"], "type": "string"}},
        "type": "object", "required": ["to", "color"], "additionalProperties": false,
        "properties": {
            "to": {"type": "string"},
            "nights": {"anyOf": [{"type": "integer", "minimum": 1}, {"type": "null"}]},
            "color": {"$ref": "#/$defs/Color"},
            "code": {"type": "string", "maxLength": 3, "pattern": "^[a-z]+$"},
        },
    })
}

fn travel_fields() -> Vec<String> {
    ["nights", "color", "code"].map(str::to_owned).into()
}

pub fn config() -> AgentConfig {
    AgentConfig {
        id: ComponentId::parse("my-agent").unwrap(),
        name: "My Agent".into(),
        description: None,
        role: None,
        instructions: vec!["Be brief.".into()],
        model: ModelRef { key: "main".into(), id: "m".into(), provider: "P".into(), class: "C".into() },
        temperature: None,
        max_tokens: None,
        output_schema: None,
        output_repairs: 0,
        tools: vec![],
        history_runs: 2,
        compaction: None,
        session_state: Map::new(),
        max_iterations: 5,
        metadata: Map::new(),
        team: None,
    }
}

pub fn start(message: &str, session: &str) -> StartRun {
    StartRun {
        component: ComponentRef::agent(ComponentId::parse("my-agent").unwrap()),
        run_id: None,
        session_id: Some(SessionId::parse(session).unwrap()),
        user_id: None,
        message: message.into(),
        media: vec![],
        mode: RunMode::Plain,
        on_busy: OnBusy::Enqueue,
        cancel_on_disconnect: false,
        session_state: None,
        dependencies: None,
        metadata: None,
        output_schema: None,
        forked: None,
        base: None,
        replaces: false,
    }
}

pub fn envelope(command: impl Into<daybook_domain::command::Command>) -> Envelope {
    Envelope::new(Principal::anonymous(), "test", command)
}

pub async fn run(engine: &Engine, command: StartRun) -> RunId {
    match engine.execute(envelope(command)).await.unwrap() {
        Outcome::Accepted { run_id, .. } => run_id,
        other => panic!("{other:?}"),
    }
}

pub async fn ended(engine: &Engine, run: &RunId) -> RunState {
    tokio::time::timeout(PATIENCE, engine.wait(LOG, run)).await.unwrap().unwrap().unwrap()
}

/// Polls until `ready`; the tests wait for what happens, never for time.
pub async fn until(what: &str, mut ready: impl AsyncFnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !ready().await {
        assert!(tokio::time::Instant::now() < deadline, "{what} did not happen");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
