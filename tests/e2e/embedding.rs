//! A server inside of the program that uses it: agents run from code, tools, routes and hooks.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use daybook::{
    AgentDefinition, ApprovalKind, ApprovalNews, ApprovalNotice, ApprovalRule, Attachment, Builder, Daybook, Effect,
    ExecuteError, FrameBody, FunctionTool, Handle, MasterKey, ModelOptions, OnBusy, OpenApiOptions, OpenApiSource,
    OutputSchema, ProviderModel, RetryPolicy, RunError, RunStatus, Running, Settings, ToolContext, ToolError,
    ToolSource,
};
use nix::sys::signal::{Signal, kill};
use poem_openapi::OpenApi;
use poem_openapi::payload::PlainText;
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};

use crate::support::{Api, Fault, PATIENCE, Script, World, eventually, text};

fn builder(world: &World) -> Builder {
    let options = ModelOptions {
        base_url: world.model.url.clone(),
        retry: RetryPolicy::NEVER,
        ..ModelOptions::new(daybook::Api::OpenAiChat, "fake-gpt")
    };
    Daybook::builder()
        .settings(Settings { port: 0, data_dir: world.data_dir(), ..Settings::default() })
        .database_url(&world.database().url)
        .master_key(MasterKey::from_base64(&world.database().key).unwrap())
        .model("fake", Arc::new(ProviderModel::new(&options).unwrap()))
}

async fn started(builder: Builder) -> Running {
    builder.build().await.unwrap().start()
}

#[tokio::test]
async fn a_run_from_code_is_a_run_like_any_other() {
    let world = World::new().await;
    let running = started(builder(&world).agent(AgentDefinition::new("a").history_runs(2))).await;
    let script = Script::say(&["one ", "two"]).message_after("first ");
    let page = Attachment::text("text/plain", "what is in it").named("notes.txt");
    let call = running.agent("a").run(&script).session("s").user("alice").run_id("r").file(page);
    let answer = call.metadata(json!({"from": "test"}).as_object().unwrap().clone()).await.unwrap();
    assert_eq!((answer.status, answer.content.as_str()), (RunStatus::Completed, "one two"));
    assert_eq!((answer.run_id.as_str(), answer.session_id.as_str()), ("r", "s"));
    assert_eq!(answer.usage.total_tokens, 15);

    // Over the network it looks as if it had come from there.
    let api = Api::at(&format!("http://{}", running.address()));
    let seen = api.until("a", "r", "s", "COMPLETED").await;
    assert_eq!((&seen["content"], &seen["metadata"]["from"]), (&json!("one two"), &json!("test")));
    assert!(world.model.requests_with("first ")[0].to_string().contains("what is in it"));

    // The next run of the session sees it, and is watched.
    let mut events = running.agent("a").stream("second").session("s").user("alice").await.unwrap();
    let (mut said, mut ended) = (String::new(), false);
    while let Some(frame) = events.next().await {
        match &frame.unwrap().body {
            FrameBody::Content { text: Some(text), .. } => said += text,
            FrameBody::Completed(end) => {
                assert_eq!(end.content, said);
                ended = true;
            }
            _ => {}
        }
    }
    assert!(ended && said == "Hi Alice!", "{said}");
    assert!(world.model.requests_with("second")[0].to_string().contains("one two"));
    running.shutdown().await.unwrap();
}

#[derive(Debug, PartialEq, serde::Deserialize, schemars::JsonSchema)]
struct City {
    city: String,
}

#[tokio::test]
async fn an_answer_can_be_asked_for_in_a_shape() {
    let world = World::new().await;
    let running = started(builder(&world).agent(AgentDefinition::new("a"))).await;
    let schema = schemars::schema_for!(City).to_value().as_object().unwrap().clone();
    let shape = OutputSchema::new(schema, false).unwrap();
    let said =
        |text: &str| running.agent("a").run(Script::say(&[text]).message_after("shaped ")).output_schema(shape.clone());
    let answer = said("{\"city\": \"Oslo\"}").await.unwrap();
    assert_eq!(answer.read(), Some(City { city: "Oslo".to_owned() }));
    assert_eq!(said("Oslo, I think").await.unwrap().read::<City>(), None);
    let asked = world.model.requests_with("shaped ")[0]["response_format"].to_string();
    assert!(asked.contains("\"City\""), "{asked}");
    running.shutdown().await.unwrap();
}

#[tokio::test]
async fn what_goes_wrong_is_told_by_its_kind() {
    let world = World::new().await;
    let running = started(builder(&world).agent(AgentDefinition::new("a"))).await;
    let agent = running.agent("a");

    let failed = agent.run(Script::fail(Fault::Status(500)).message()).await.unwrap_err();
    assert!(matches!(&failed, RunError::Failed { message, .. } if message.contains("scripted failure")), "{failed}");
    let absent = running.agent("b").run("x").await.unwrap_err();
    assert!(matches!(absent, RunError::Refused(ExecuteError::UnknownComponent(_))), "{absent}");
    let id = agent.run("x").session("").await.unwrap_err();
    assert!(matches!(id, RunError::Id { what: "session", .. }), "{id}");

    let held = Script::say(&["half", " more"]).hold(1, "gate").message();
    let accepted = agent.run(&held).session("s").idempotency_key("k").start().await.unwrap();
    let again = agent.run(&held).session("s").idempotency_key("k").start().await.unwrap();
    assert_eq!(accepted.run_id, again.run_id);
    let reused = agent.run("other").session("s").idempotency_key("k").start().await.unwrap_err();
    assert!(matches!(reused, RunError::Refused(ExecuteError::KeyReused)), "{reused}");
    world.model.arrived("gate", 1).await;
    let busy = agent.run("x").session("s").on_busy(OnBusy::Reject).await.unwrap_err();
    assert!(matches!(busy, RunError::Refused(ExecuteError::Session(_))), "{busy}");

    // What the model has said may still be on its way.
    let api = Api::at(&format!("http://{}", running.address()));
    api.resume("a", accepted.run_id.as_str(), "s", None).await.until_said("half").await;
    agent.cancel(&accepted.run_id, "not needed").await.unwrap();
    let cancelled = agent.wait(&accepted.run_id).await.unwrap_err();
    let RunError::Cancelled { reason, content, .. } = cancelled else { panic!("{cancelled}") };
    assert_eq!((reason.as_str(), content.as_str()), ("not needed", "half"));
    let others = running.agent("b").wait(&accepted.run_id).await.unwrap_err();
    assert!(matches!(others, RunError::Unknown(_)), "{others}");
    running.shutdown().await.unwrap();
}

#[derive(serde::Deserialize, schemars::JsonSchema)]
struct Question {
    question: String,
}

struct Questions {
    daybook: Handle,
}

#[OpenApi]
impl Questions {
    #[oai(path = "/ask", method = "post")]
    async fn ask(&self, agent: PlainText<String>) -> poem::Result<PlainText<String>> {
        Ok(PlainText(self.daybook.agent(agent.0).run("asked by a route").await?.content))
    }
}

#[tokio::test]
async fn tools_routes_and_hooks_run_agents() {
    let world = World::new().await;
    let said: Arc<Mutex<Vec<String>>> = Arc::default();
    let bare = builder(&world);
    let daybook = bare.handle();
    let early = daybook.agent("expert").run("x").await.unwrap_err();
    assert!(matches!(early, RunError::NotServing), "{early}");

    let in_tool = daybook.clone();
    let ask = move |_: ToolContext, asked: Question| {
        let expert = in_tool.agent("expert");
        async move { Ok(expert.run(format!("expert, {}", asked.question)).await.map_err(ToolError::failed)?.content) }
    };
    let hook = |what: &'static str| {
        let said = said.clone();
        move |daybook: Handle| async move {
            let answer = daybook.agent("expert").run(format!("asked {what}")).await;
            said.lock().unwrap().push(format!("{what}: {}", answer.as_ref().unwrap().content));
            answer.map(drop)
        }
    };
    let (first, stop) = (hook("at the start"), hook("at the stop"));
    let running = started(
        bare.tool(FunctionTool::new("ask_expert", "Asks.", Effect::Idempotent, ask))
            .agent(AgentDefinition::new("expert"))
            .agent(AgentDefinition::new("front").tool("ask_expert"))
            .routes(Questions { daybook: daybook.clone() })
            .on_start(first)
            .on_stop(|daybook| async move { stop(daybook).await.unwrap() }),
    )
    .await;
    assert_eq!(*said.lock().unwrap(), ["at the start: Hi Alice!"]);

    let script = Script::call(&[("ask_expert", json!({"question": "what is it?"}))]).then_say(&["done"]);
    let answer = running.agent("front").run(script.message()).await.unwrap();
    assert_eq!(answer.content, "done");
    assert_eq!(world.model.requests_with("expert, what is it?").len(), 1);
    let last = world.model.requests();
    assert!(last[last.len() - 1].to_string().contains("Hi Alice!"), "the tool's result is the expert's answer");

    let api = Api::at(&format!("http://{}", running.address()));
    let ask = async |agent: &'static str| {
        let answer = api.post("/ask").header("content-type", "text/plain").body(agent).send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    };
    assert_eq!(ask("expert").await, (200, "Hi Alice!".to_owned()));
    let (status, refused) = ask("nobody").await;
    let refused: Value = serde_json::from_str(&refused).unwrap();
    assert_eq!((status, text(&refused["detail"])), (404, "Agent not found"));

    running.shutdown().await.unwrap();
    assert_eq!(said.lock().unwrap().len(), 2);
    let late = daybook.agent("expert").run("x").await.unwrap_err();
    assert!(matches!(late, RunError::NotServing), "{late}");
}

/// A server whose tool needs an approval, and that tells `hook` what happens to it.
async fn asking<R: Future<Output = Result<(), String>> + Send + 'static>(
    world: &World,
    hook: impl Fn(Handle, ApprovalNotice) -> R + Send + Sync + 'static,
) -> Running {
    let rule = ApprovalRule { remind_every_seconds: Some(1), ..ApprovalRule::new(ApprovalKind::Required) };
    let pay = |_: ToolContext, asked: Question| async move { Ok::<_, ToolError>(format!("paid: {}", asked.question)) };
    let tool = FunctionTool::new("pay", "Pays.", Effect::Unsafe, pay);
    started(builder(world).tool(tool.approval(rule)).agent(AgentDefinition::new("clerk").tool("pay")).on_approval(hook))
        .await
}

/// Lets the clerk ask whether it may pay; the run waits then.
async fn ask_to_pay(running: &Running, session: &str) -> String {
    let script = Script::call(&[("pay", json!({"question": session}))]).then_say(&["done"]).message();
    let api = Api::at(&format!("http://{}", running.address()));
    let run = api.run("clerk", &[("message", script.as_str()), ("session_id", session), ("user_id", "alice")]).await;
    assert_eq!(run["status"], "PAUSED", "{run}");
    text(&run["tools"][0]["approval_id"]).to_owned()
}

async fn decide(running: &Running, approval: &str, status: &str) {
    let api = Api::at(&format!("http://{}", running.address()));
    let body = json!({"status": status, "resolved_by": "boss"}).to_string();
    let request = api.post(&format!("/approvals/{approval}/resolve")).header("content-type", "application/json");
    assert_eq!(request.body(body).send().await.unwrap().status(), 200);
}

#[tokio::test]
async fn the_program_hears_what_happens_to_approvals_and_failing_once_loses_nothing() {
    let world = World::new().await;
    let heard: Arc<Mutex<Vec<ApprovalNotice>>> = Arc::default();
    let hook = {
        let (heard, failed) = (heard.clone(), AtomicUsize::new(0));
        move |daybook: Handle, notice: ApprovalNotice| {
            let (heard, faulty) = (heard.clone(), matches!(notice.news, ApprovalNews::Approved { .. }));
            let faults = if faulty { failed.fetch_add(1, Ordering::SeqCst) } else { usize::MAX };
            async move {
                match faults {
                    0 => return Err("no mail today".to_owned()),
                    1 => panic!("a defect, on purpose"),
                    _ => {}
                }
                // It may ask agents, too.
                let told = daybook.agent("clerk").run(format!("told of {}", notice.requested.tool)).await;
                assert_eq!(told.unwrap().content, "Hi Alice!");
                heard.lock().unwrap().push(notice);
                Ok(())
            }
        }
    };
    let running = asking(&world, hook).await;
    let until = async |approval: &str, news: ApprovalNews| {
        let heard = &heard;
        eventually(&format!("{news:?} is told"), async || {
            let heard = heard.lock().unwrap();
            let of = |notice: &&ApprovalNotice| notice.requested.approval_id.as_str() == approval;
            heard.iter().filter(of).find(|notice| notice.news == news).cloned()
        })
        .await
    };
    let first = ask_to_pay(&running, "s1").await;
    let asked = until(&first, ApprovalNews::Requested).await.requested;
    assert_eq!((asked.tool.as_str(), asked.session_id.as_str()), ("pay", "s1"));
    assert_eq!(asked.user_id.as_ref().map(|user| user.as_str()), Some("alice"));
    assert_eq!(asked.arguments.get(), json!({"question": "s1"}).as_object());
    until(&first, ApprovalNews::Reminded { count: 1 }).await;
    decide(&running, &first, "approved").await;
    let by = Some("boss".to_owned());
    until(&first, ApprovalNews::Approved { by: by.clone() }).await;
    let second = ask_to_pay(&running, "s2").await;
    until(&second, ApprovalNews::Requested).await;
    decide(&running, &second, "rejected").await;
    until(&second, ApprovalNews::Rejected { by }).await;
    running.shutdown().await.unwrap();

    let heard = heard.lock().unwrap();
    let asked = heard.iter().filter(|notice| notice.news == ApprovalNews::Requested).count();
    let settled =
        |notice: &&ApprovalNotice| matches!(notice.news, ApprovalNews::Approved { .. } | ApprovalNews::Rejected { .. });
    assert_eq!((asked, heard.iter().filter(settled).count()), (2, 2), "each is told once: {heard:?}");
}

#[tokio::test]
async fn what_was_being_told_at_a_crash_is_told_at_the_next_start_and_what_is_moot_is_not() {
    let world = World::new().await;
    let begun = Arc::new(Semaphore::new(0));
    let hook = {
        let begun = begun.clone();
        move |_: Handle, _: ApprovalNotice| {
            begun.add_permits(1);
            std::future::pending()
        }
    };
    let running = asking(&world, hook).await;
    let waits = ask_to_pay(&running, "waits").await;
    let decided = ask_to_pay(&running, "decided").await;
    timeout(PATIENCE, begun.acquire()).await.expect("a call of the hook").unwrap().forget();
    decide(&running, &decided, "approved").await;
    drop(running);

    let (told, mut heard) = tokio::sync::mpsc::unbounded_channel();
    let hook =
        move |_: Handle, notice: ApprovalNotice| std::future::ready(told.send(notice).map_err(|_| String::new()));
    let running = asking(&world, hook).await;
    let mut all = Vec::new();
    while all.len() < 2 {
        let notice = timeout(PATIENCE, heard.recv()).await.expect("a notice").unwrap();
        // Reminders come as time goes by.
        if !matches!(notice.news, ApprovalNews::Reminded { .. }) {
            all.push((notice.requested.approval_id.to_string(), notice.news));
        }
    }
    let approved = ApprovalNews::Approved { by: Some("boss".to_owned()) };
    assert_eq!(all, [(waits, ApprovalNews::Requested), (decided, approved)]);
    running.shutdown().await.unwrap();
}

#[tokio::test]
async fn what_does_not_fit_ends_the_start_and_leaves_nothing_behind() {
    let world = World::new().await;
    let refused = builder(&world).on_start(|_| async { Err("the shop is closed") }).build().await;
    let Err(error) = refused else { panic!("started") };
    assert_eq!(error.to_string(), "on_start: the shop is closed");
    let daybook = Handle::default();
    let twice = builder(&world).routes(Questions { daybook: daybook.clone() }).public_routes(Questions { daybook });
    let Err(error) = twice.build().await else { panic!("started") };
    assert!(error.to_string().contains("POST /ask is there already"), "{error}");
    assert_eq!(world.database().count("SELECT count(*) FROM nodes WHERE $1 = ''", "").await, 0, "no node stays");
}

#[tokio::test]
async fn a_stop_ends_in_any_case() {
    let world = World::with_private_database().await;
    let path = world.dir.path().join("daybook.yaml");
    std::fs::write(&path, "server:\n  limits:\n    shutdown_seconds: 0\nagents:\n  - id: a\n").unwrap();
    let server = world.serve(&path).await;
    let postgres = world.postgres().unwrap();
    // The database answers nobody any more, so nothing can be written. It goes first: then no process is added.
    let freeze = |pid: i32| kill(nix::unistd::Pid::from_raw(pid), Signal::SIGSTOP);
    freeze(postgres.as_raw()).unwrap();
    let frozen: Vec<_> = children(postgres.as_raw()).into_iter().chain([postgres.as_raw()]).collect();
    // Some may be ending.
    for pid in &frozen {
        let _ = freeze(*pid);
    }
    let begun = Instant::now();
    let log = server.log_file();
    let ended = timeout(PATIENCE, server.terminate()).await;
    for pid in frozen {
        // Some have ended.
        let _ = kill(nix::unistd::Pid::from_raw(pid), Signal::SIGCONT);
    }
    assert_eq!(ended.unwrap().code(), Some(1), "after {:?}", begun.elapsed());
    let told = std::fs::read_to_string(log).unwrap();
    assert!(told.contains("did not stop within 15s"), "{told}");
}

/// The processes that this one started.
fn children(pid: i32) -> Vec<i32> {
    let tasks = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    tasks.split_whitespace().filter_map(|child| child.parse().ok()).collect()
}

#[tokio::test]
async fn a_real_document_becomes_tools_and_they_are_used() {
    let world = World::new().await;
    let server = world.server().await;
    let options = |operations: &[&str]| -> OpenApiOptions {
        let base = &server.api.base;
        let document = format!("{base}/openapi.json");
        let options =
            json!({"document": document, "base_url": base, "allow_private": ["127.0.0.1"], "operations": operations});
        serde_json::from_value(options).unwrap()
    };
    // Every operation of Daybook's own document becomes a tool.
    let all = OpenApiSource::new("daybook", options(&[])).unwrap().tools().await.unwrap();
    let names: Vec<&str> = all.iter().map(|tool| tool.spec().name.as_str()).collect();
    assert!(
        names.len() > 20 && names.contains(&"create_agent_run") && names.contains(&"resolve_approval"),
        "{names:?}"
    );

    let wanted = ["get_approval_count", "get_agent_run", "create_agent_run"];
    let tools = OpenApiSource::new("daybook", options(&wanted)).unwrap().tools().await.unwrap();
    let effects: Vec<Effect> = tools.iter().map(|tool| tool.spec().effect).collect();
    assert_eq!(effects.iter().filter(|effect| **effect == Effect::Pure).count(), 2, "{effects:?}");
    let agent = wanted.iter().fold(AgentDefinition::new("caller"), |agent, name| agent.tool(*name));
    let running = started(builder(&world).tools(tools).agent(agent)).await;
    let start = json!({"agent_id": "my-agent", "message": "hello there", "stream": false, "session_id": "inner"});
    let calls = [
        ("get_approval_count", json!({})),
        ("create_agent_run", start),
        ("get_agent_run", json!({"agent_id": "my-agent", "run_id": "nope", "session_id": "inner"})),
        ("get_agent_run", json!({"agent_id": 5})),
    ];
    let script = Script::call(&calls).then_say(&["done"]).message();
    let answer = running.agent("caller").run(&script).await.unwrap();
    assert_eq!(answer.content, "done");
    let api = Api::at(&format!("http://{}", running.address()));
    let seen = api.until("caller", answer.run_id.as_str(), answer.session_id.as_str(), "COMPLETED").await;
    let result = |at: usize| text(&seen["tools"][at]["result"]).to_owned();
    assert!(result(0).contains("\"count\""), "{}", result(0));
    assert!(result(1).contains("COMPLETED"), "{}", result(1));
    assert!(seen["tools"][2]["tool_call_error"] == true && result(2).contains("404"), "{}", result(2));
    assert!(seen["tools"][3]["tool_call_error"] == true && result(3).contains("agent_id"), "{}", result(3));
    running.shutdown().await.unwrap();
}
