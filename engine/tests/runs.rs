//! The whole engine without a network: a scripted model, counted tools, a manual clock, and a real log.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test says what it expects")]

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use daybook_domain::command::{CancelRun, Envelope, Principal, StartRun};
use daybook_domain::component::{AgentConfig, ComponentRef, ModelRef};
use daybook_domain::event::DomainEvent;
use daybook_domain::ids::{ComponentId, LogId, RunId, SessionId, StreamId};
use daybook_domain::message::{CallMetrics, Replay, ToolCall};
use daybook_domain::output::OutputSchema;
use daybook_domain::run::{OnBusy, RunEvent, RunMode, RunState, RunStatus, ToolOutcome};
use daybook_domain::tool::{Effect, ToolSpec};
use daybook_engine::{
    Engine, EngineOptions, ExecuteError, FrameBody, Outcome, Ports, Registry, Watch, WatchItem, build_request,
};
use daybook_models::{ChatEvent, ChatModel, ChatRequest, ChatResponse, ChatStream, ModelError, ModelInfo};
use daybook_store::embedded::{Embedded, EmbeddedOptions};
use daybook_store::{MasterKey, Store, StoreOptions};
use daybook_tools::{Tool, ToolContext, ToolError, ToolSet};
use futures::{StreamExt, stream};
use serde_json::{Map, Value, json};
use tokio::sync::Semaphore;

const LOG: LogId = LogId::DEFAULT;

/// After this long something that was to happen counts as never happening.
const PATIENCE: Duration = Duration::from_secs(180);

/// One answer of the scripted model: pieces, and whether it then waits for a permit before it goes on.
#[derive(Clone)]
enum Turn {
    Say(&'static str),
    Hold(&'static str),
    Call(&'static [(&'static str, &'static str, &'static str)]),
    /// Asks for the tool `pure` under this id, with this signed thought.
    Think(&'static str, &'static str),
    Fail(u16),
}

struct Script {
    info: ModelInfo,
    turns: Mutex<VecDeque<Turn>>,
    requests: Mutex<Vec<ChatRequest>>,
    go_on: Arc<Semaphore>,
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
            Turn::Say(text) => pieces(text).chain(stream::iter([Ok(done(text, vec![]))])).boxed(),
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

fn pieces(text: &'static str) -> impl stream::Stream<Item = Result<ChatEvent, ModelError>> + Send {
    stream::iter(text.split_inclusive(' ').map(|word| Ok(ChatEvent::Text(word.to_owned()))))
}

fn done(text: &str, tool_calls: Vec<ToolCall>) -> ChatEvent {
    ChatEvent::Done(Box::new(ChatResponse {
        text: text.to_owned(),
        reasoning: None,
        replay: None,
        tool_calls,
        finish_reason: "stop".into(),
        provider_data: Some(json!({"id": "x"})),
        metrics: CallMetrics::default(),
    }))
}

/// A tool that counts its calls and waits for a permit when its arguments say so.
struct Counted {
    spec: ToolSpec,
    calls: Arc<Mutex<Vec<String>>>,
    given: Arc<Mutex<Vec<Map<String, Value>>>>,
    go_on: Arc<Semaphore>,
}

#[async_trait]
impl Tool for Counted {
    fn spec(&self) -> &ToolSpec {
        &self.spec
    }

    async fn call(&self, context: ToolContext, arguments: Map<String, Value>) -> Result<String, ToolError> {
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
        Ok("ok".to_owned())
    }
}

struct World {
    postgres: Embedded,
    folder: tempfile::TempDir,
    store: Store,
    model: Arc<Script>,
    calls: Arc<Mutex<Vec<String>>>,
    given: Arc<Mutex<Vec<Map<String, Value>>>>,
    tool_go_on: Arc<Semaphore>,
    clock: Arc<AtomicI64>,
    ids: Arc<AtomicU64>,
}

impl World {
    async fn new() -> Self {
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

    fn script(&self, turns: impl IntoIterator<Item = Turn>) {
        self.model.turns.lock().unwrap().extend(turns);
    }

    async fn engine(&self) -> Engine {
        let mut registry = Registry::default();
        registry.add_model("main", self.model.clone());
        let mut tools: ToolSet = BTreeMap::new();
        for (name, effect) in [("pure", Effect::Pure), ("idem", Effect::Idempotent), ("harm", Effect::Unsafe)] {
            let spec = ToolSpec {
                name: name.into(),
                description: String::new(),
                parameters: json!({"type": "object"}),
                effect,
                timeout_seconds: 60,
            };
            let (calls, given) = (self.calls.clone(), self.given.clone());
            let tool = Counted { spec, calls, given, go_on: self.tool_go_on.clone() };
            tools.insert(name.into(), Arc::new(tool));
        }
        registry.add_agent(config(), tools).unwrap();
        let (clock, ids) = (self.clock.clone(), self.ids.clone());
        let ports = Ports {
            clock: Arc::new(move || clock.load(Ordering::SeqCst)),
            ids: Arc::new(move || uuid::Uuid::from_u64_pair(7, ids.fetch_add(1, Ordering::SeqCst))),
        };
        let options = EngineOptions { grace: Duration::from_millis(200), ..EngineOptions::default() };
        Engine::start(self.store.clone(), registry, options, ports).await.unwrap()
    }

    /// The node dies: its tasks are gone, its leases are found without a living node.
    async fn kill(&self, engine: Engine) {
        let node = engine.node_id().to_owned();
        engine.abandon();
        self.store.declare_dead(&node).await.unwrap();
    }

    async fn kinds(&self, run: &RunId) -> Vec<String> {
        let recorded = self.store.read_stream(LOG, &StreamId::run(run), 0).await.unwrap();
        recorded
            .iter()
            .map(|recorded| match &recorded.event {
                DomainEvent::Run(event) => event.kind().to_owned(),
                other => panic!("{other:?} in a run's stream"),
            })
            .collect()
    }

    async fn close(self) {
        self.store.close().await;
        self.postgres.stop().await.unwrap();
        self.folder.close().unwrap();
    }
}

fn config() -> AgentConfig {
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
        tools: vec![],
        history_runs: 2,
        session_state: Map::new(),
        max_iterations: 5,
        metadata: Map::new(),
    }
}

fn start(message: &str, session: &str) -> StartRun {
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
    }
}

fn envelope(command: impl Into<daybook_domain::command::Command>) -> Envelope {
    Envelope::new(Principal::anonymous(), "test", command)
}

async fn run(engine: &Engine, command: StartRun) -> RunId {
    match engine.execute(envelope(command)).await.unwrap() {
        Outcome::Accepted { run_id, .. } => run_id,
        other => panic!("{other:?}"),
    }
}

async fn ended(engine: &Engine, run: &RunId) -> RunState {
    tokio::time::timeout(PATIENCE, engine.wait(LOG, run)).await.unwrap().unwrap().unwrap()
}

/// Polls until `ready`; the tests wait for what happens, never for time.
async fn until(what: &str, mut ready: impl AsyncFnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !ready().await {
        assert!(tokio::time::Instant::now() < deadline, "{what} did not happen");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plain_run_costs_two_commits_and_its_request_can_be_rebuilt() {
    let world = World::new().await;
    let engine = world.engine().await;
    let first = run(&engine, start("Hello", "s")).await;
    assert_eq!(ended(&engine, &first).await.content(), "Hi Alice!");
    let second = run(&engine, start("Again", "s")).await;
    let state = ended(&engine, &second).await;
    assert_eq!((state.status, state.history.clone()), (RunStatus::Completed, vec![first.clone()]));

    let recorded = world.store.read_stream(LOG, &StreamId::run(&second), 0).await.unwrap();
    let times: std::collections::BTreeSet<i64> = recorded.iter().map(|recorded| recorded.recorded_at_ms).collect();
    assert_eq!(recorded.len(), 4);
    assert!(times.len() <= 2, "accepted with the model request, and the answer with the end: two commits");

    // From the log alone: configuration by hash, history by reference, own messages by fold.
    let DomainEvent::Run(RunEvent::ModelCallRequested(requested)) = &recorded[1].event else { panic!("a model call") };
    let detail = engine.detail(LOG, engine.run(LOG, &second).await.unwrap().unwrap()).await.unwrap().unwrap();
    let own = &detail.state.messages[..requested.own_messages];
    let rebuilt = build_request(&detail.config, detail.state.accepted.as_ref().unwrap(), &detail.history, own);
    let sent = world.model.requests.lock().unwrap()[1].clone();
    assert_eq!(rebuilt, sent);
    assert_eq!(daybook_engine::json_hash(&rebuilt).unwrap(), requested.prompt_hash);
    assert_eq!(
        sent.messages.iter().filter_map(|m| m.content.as_deref()).collect::<Vec<_>>(),
        ["Be brief.", "Hello", "Hi Alice!", "Again"]
    );
    engine.shutdown().await;
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn thoughts_go_back_within_their_run_unless_one_held_a_secret() {
    let world = World::new().await;
    let engine = world.engine().await;
    world.script([Turn::Think("a", "plain"), Turn::Think("b", "so"), Turn::Say("done")]);
    let first = run(&engine, start("go", "s")).await;
    ended(&engine, &first).await;
    let secret = "the key is sk-abcdefghijklmnopqrstuvwxyz0123456789";
    world.script([Turn::Think("c", "plain"), Turn::Think("d", secret), Turn::Say("done")]);
    let second = run(&engine, start("again", "s")).await;
    ended(&engine, &second).await;
    let given: Vec<Vec<Value>> = world
        .model
        .requests
        .lock()
        .unwrap()
        .iter()
        .map(|request| {
            request.messages.iter().filter_map(|m| m.replay.as_ref()).flat_map(|r| r.items.clone()).collect()
        })
        .collect();
    let thought = |text: &str| json!({"thought": text, "signature": "s"});
    let (plain, so) = (thought("plain"), thought("so"));
    // Of the second run the first is given back once: then one is lost, and a chain with a gap is worth nothing.
    assert_eq!(given, [vec![], vec![plain.clone()], vec![plain.clone(), so], vec![], vec![plain], vec![]]);
    let detail = engine.detail(LOG, engine.run(LOG, &second).await.unwrap().unwrap()).await.unwrap().unwrap();
    assert!(!serde_json::to_string(&detail.state).unwrap().contains("sk-abc"));
    engine.shutdown().await;
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_shape_of_an_answer_is_asked_for_and_the_callers_counts() {
    let world = World::new().await;
    let engine = world.engine().await;
    let schema = json!({"type": "object", "title": "Mine", "properties": {"a": {"type": "string"}}});
    let mine = OutputSchema::new(schema.as_object().cloned().unwrap(), true).unwrap();
    let shaped = run(&engine, StartRun { output_schema: Some(mine.clone()), ..start("go", "s") }).await;
    ended(&engine, &shaped).await;
    let plain = run(&engine, start("go", "s")).await;
    ended(&engine, &plain).await;
    let asked: Vec<_> = world.model.requests.lock().unwrap().iter().map(|sent| sent.output_schema.clone()).collect();
    assert_eq!(asked, [Some(mine), None]);
    engine.shutdown().await;
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tools_run_beside_each_other_and_a_failing_one_is_told_to_the_model() {
    let world = World::new().await;
    let engine = world.engine().await;
    world.script([Turn::Call(&[("a", "pure", r#"{"key":"x"}"#), ("b", "idem", r#"{"fail":1}"#), ("c", "none", "{}")])]);
    let run = run(&engine, start("go", "s")).await;
    let state = ended(&engine, &run).await;
    assert_eq!(state.status, RunStatus::Completed);
    let outcomes: Vec<_> = state.tools.iter().map(|tool| tool.outcome.clone().unwrap()).collect();
    assert_eq!(outcomes[0], ToolOutcome::Completed("ok".into()));
    assert_eq!(outcomes[1], ToolOutcome::Failed("it broke".into()));
    assert!(matches!(&outcomes[2], ToolOutcome::Failed(error) if error.contains("there is no tool \"none\"")));
    assert_eq!(state.session_state.unwrap().get("x"), Some(&json!(true)));
    engine.shutdown().await;
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_failure_ends_the_run_with_its_message() {
    let world = World::new().await;
    let engine = world.engine().await;
    world.script([Turn::Fail(500)]);
    let run = run(&engine, start("go", "s")).await;
    let state = ended(&engine, &run).await;
    assert_eq!((state.status, state.error.unwrap().1.as_str()), (RunStatus::Error, "scripted failure"));
    engine.shutdown().await;
    world.close().await;
}

/// Kills the node while the first tool call of `tool` runs, and starts another.
async fn killed_in_tool(tool: &'static str) -> (World, Engine, RunId, Vec<String>) {
    let world = World::new().await;
    let engine = world.engine().await;
    let calls: &'static [(&str, &str, &str)] = match tool {
        "pure" => &[("a", "pure", r#"{"hold":1}"#)],
        "idem" => &[("a", "idem", r#"{"hold":1}"#)],
        _ => &[("a", "harm", r#"{"hold":1}"#)],
    };
    world.script([Turn::Call(calls)]);
    let run = run(&engine, start("go", "s")).await;
    until("the tool's start", async || world.calls.lock().unwrap().len() == 1).await;
    world.kill(engine).await;
    world.tool_go_on.add_permits(10);
    let next = world.engine().await;
    ended(&next, &run).await;
    let keys = world.calls.lock().unwrap().clone();
    (world, next, run, keys)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_pure_or_idempotent_call_is_made_again_with_its_key() {
    for tool in ["pure", "idem"] {
        let (world, engine, run, keys) = killed_in_tool(tool).await;
        assert_eq!((keys.len(), &keys[0]), (2, &keys[1]), "called again, with the same key");
        let kinds = world.kinds(&run).await;
        assert_eq!(kinds.last().map(String::as_str), Some("RunSucceeded"));
        assert_eq!(kinds.iter().filter(|kind| *kind == "RunToolCallCompleted").count(), 1);
        engine.shutdown().await;
        world.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_unsafe_call_is_not_made_again_and_a_person_is_asked() {
    let (world, engine, run, keys) = killed_in_tool("harm").await;
    assert_eq!(keys.len(), 1);
    let state = engine.run(LOG, &run).await.unwrap().unwrap();
    assert_eq!((state.status, state.requirements.len()), (RunStatus::Paused, 1));
    // Paused, it holds nothing up, and can still be cancelled.
    let other = self::run(&engine, start("next", "s")).await;
    assert_eq!(ended(&engine, &other).await.status, RunStatus::Completed);
    let cancel = CancelRun { component: None, run_id: run.clone(), session_id: None, reason: None };
    engine.execute(envelope(cancel)).await.unwrap();
    assert_eq!(engine.run(LOG, &run).await.unwrap().unwrap().status, RunStatus::Cancelled);
    engine.shutdown().await;
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recorded_outcome_is_never_repeated_and_watchers_see_a_restart() {
    let world = World::new().await;
    let engine = world.engine().await;
    world.script([Turn::Call(&[("a", "harm", "{}")]), Turn::Hold("one two three")]);
    let mut command = start("go", "s");
    command.mode = RunMode::Streaming;
    let run = run(&engine, command).await;
    let mut watch = engine.watch(LOG, &run, None).await.unwrap().unwrap();
    let mut seen = Vec::new();
    while seen.last() != Some(&"three".to_owned()) {
        if let Some(WatchItem::Frame(frame)) = watch.next().await.unwrap()
            && let FrameBody::Content { text: Some(text), .. } = &frame.body
        {
            seen.push(text.clone());
        }
    }
    drop(watch);
    world.kill(engine).await;
    let next = world.engine().await;
    let state = ended(&next, &run).await;
    assert_eq!((world.calls.lock().unwrap().len(), state.content().as_str()), (1, "Hi Alice!"));

    let mut watch = next.watch(LOG, &run, None).await.unwrap().unwrap();
    let (mut indexes, mut text, mut restarts) = (Vec::new(), String::new(), 0);
    while let Some(item) = watch.next().await.unwrap() {
        let WatchItem::Frame(frame) = item else { continue };
        indexes.push(frame.index);
        match &frame.body {
            FrameBody::Content { text: Some(piece), .. } => text.push_str(piece),
            FrameBody::Restarted { .. } => {
                restarts += 1;
                text.clear();
            }
            _ => {}
        }
    }
    assert!(indexes.windows(2).all(|pair| pair[0] < pair[1]), "{indexes:?}");
    assert_eq!((restarts, text.as_str()), (1, "Hi Alice!"));
    let kinds = world.kinds(&run).await;
    assert_eq!(
        kinds.iter().filter(|kind| ["RunSucceeded", "RunFailed", "RunCancelled"].contains(&kind.as_str())).count(),
        1
    );
    next.shutdown().await;
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_waits_is_let_go_when_another_node_has_taken_it_over() {
    let world = World::new().await;
    let still = world.engine().await;
    world.script([Turn::Hold("first"), Turn::Say("over there")]);
    let run = run(&still, start("go", "s")).await;
    until("the model is called", async || world.model.requests.lock().unwrap().len() == 1).await;
    // To the others it seemed dead: it stood still, and notices nothing when it goes on, for it appends nothing.
    world.store.declare_dead(still.node_id()).await.unwrap();
    let next = world.engine().await;
    assert_eq!(ended(&next, &run).await.content(), "over there");
    // Nobody watched the run. What the node that lost it still has would look like all there is.
    let watch = still.watch(LOG, &run, None).await.unwrap().unwrap();
    assert_eq!(watch.counts().await.unwrap(), (0, 0));
    assert!(world.store.frames().read(LOG, &run, None, 1).await.unwrap().is_empty());
    drop(watch);
    until("the run is let go", async || still.run_count() == 0).await;
    assert_eq!(ended(&still, &run).await.content(), "over there");
    still.shutdown().await;
    next.shutdown().await;
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_after_a_watch_began_does_not_count_as_missed() {
    let world = World::new().await;
    let engine = world.engine().await;
    world.script([Turn::Hold("one two three")]);
    let mut command = start("go", "s");
    command.mode = RunMode::Streaming;
    let run = run(&engine, command).await;
    let mut first = engine.watch(LOG, &run, None).await.unwrap().unwrap();
    let said = async |watch: &mut Watch, wanted: &str| loop {
        if let Some(WatchItem::Frame(frame)) = watch.next().await.unwrap()
            && matches!(&frame.body, FrameBody::Content { text: Some(text), .. } if text == wanted)
        {
            break frame.index;
        }
    };
    let last = said(&mut first, "three").await;
    let second = engine.watch(LOG, &run, Some(1)).await.unwrap().unwrap();
    world.model.go_on.add_permits(1);
    ended(&engine, &run).await;
    assert_eq!(second.counts().await.unwrap(), (last - 1, last + 1));
    let late = engine.watch(LOG, &run, Some(1)).await.unwrap().unwrap();
    let (missed, total) = late.counts().await.unwrap();
    assert!(total > last + 1 && missed == total - 2, "{missed} {total}");
    engine.shutdown().await;
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_run_keeps_what_was_said_and_frees_its_session() {
    let world = World::new().await;
    let engine = world.engine().await;
    world.script([Turn::Hold("one two")]);
    let first = run(&engine, start("go", "s")).await;
    let queued = run(&engine, start("then", "s")).await;
    let dropped = run(&engine, start("never", "s")).await;
    until("text", async || {
        let mut watch = engine.watch(LOG, &first, None).await.unwrap().unwrap();
        let mut pieces = 0;
        while let Some(WatchItem::Frame(frame)) = watch.next().await.unwrap() {
            pieces +=
                usize::from(matches!(&frame.body, FrameBody::Content { text: Some(text), .. } if !text.is_empty()));
        }
        pieces == 2
    })
    .await;
    for run in [&dropped, &first] {
        let command = CancelRun { component: None, run_id: run.clone(), session_id: None, reason: None };
        assert_eq!(engine.execute(envelope(command)).await.unwrap(), Outcome::Cancelled);
    }
    let state = ended(&engine, &first).await;
    assert_eq!((state.status, state.content().as_str()), (RunStatus::Cancelled, "one two"));
    assert_eq!(ended(&engine, &queued).await.status, RunStatus::Completed);
    assert_eq!(ended(&engine, &dropped).await.status, RunStatus::Cancelled);
    assert_eq!(world.model.requests.lock().unwrap().len(), 2, "the cancelled run in the queue never called the model");
    engine.shutdown().await;
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_node_hands_its_runs_over() {
    let world = World::new().await;
    let engine = world.engine().await;
    world.script([Turn::Hold("half ")]);
    let run = run(&engine, start("go", "s")).await;
    until("the model call", async || world.model.requests.lock().unwrap().len() == 1).await;
    engine.shutdown().await;
    let refused = engine.execute(envelope(start("late", "t"))).await;
    assert!(matches!(refused, Err(ExecuteError::Stopping)));
    let next = world.engine().await;
    assert_eq!(ended(&next, &run).await.status, RunStatus::Completed);
    let kinds = world.kinds(&run).await;
    assert_eq!(kinds.iter().filter(|kind| *kind == "RunTakenOver").count(), 1);
    next.shutdown().await;
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_key_makes_one_run_however_often_it_is_sent() {
    let world = World::new().await;
    let engine = world.engine().await;
    let made = Arc::new(AtomicUsize::new(0));
    let mut all = tokio::task::JoinSet::new();
    for _ in 0..50 {
        let (engine, made) = (engine.clone(), made.clone());
        all.spawn(async move {
            let mut command = start("once", "s");
            command.session_id = None;
            let mut envelope = envelope(command);
            envelope.idempotency_key = Some("key".into());
            let Outcome::Accepted { run_id, .. } = engine.execute(envelope).await.unwrap() else { panic!("accepted") };
            made.fetch_add(1, Ordering::SeqCst);
            run_id
        });
    }
    let runs: std::collections::BTreeSet<RunId> = all.join_all().await.into_iter().collect();
    assert_eq!((runs.len(), made.load(Ordering::SeqCst)), (1, 50));
    let mut other = envelope(start("something else", "s"));
    other.idempotency_key = Some("key".into());
    assert!(matches!(engine.execute(other).await, Err(ExecuteError::KeyReused)));
    engine.shutdown().await;
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tool_gets_the_secret_that_the_log_does_not_keep() {
    let world = World::new().await;
    let engine = world.engine().await;
    let token = "sk-abcdefghijklmnopqrstuvwxyz0123456789";
    world.script([Turn::Call(&[("a", "pure", r#"{"password":"hunter2hunter2","city":"Oslo"}"#)])]);
    let run = run(&engine, start(&format!("use {token} please"), "s")).await;
    let state = ended(&engine, &run).await;
    assert_eq!(world.given.lock().unwrap()[0].get("password"), Some(&json!("hunter2hunter2")));
    let logged = serde_json::to_string(&engine.run(LOG, &run).await.unwrap().unwrap()).unwrap();
    assert!(!logged.contains("hunter2") && !logged.contains(token), "{logged}");
    assert!(logged.contains("use [redacted] please") && logged.contains("Oslo"), "{logged}");
    let sent = serde_json::to_string(&*world.model.requests.lock().unwrap()).unwrap();
    assert!(!sent.contains(token) && !sent.contains("hunter2"), "the model sees what the log keeps");
    assert_eq!(state.status, RunStatus::Completed);
    engine.shutdown().await;
    world.close().await;
}
