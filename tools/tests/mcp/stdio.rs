//! A real server from PyPI, by standard input and output.

use std::time::{Duration, Instant};

use daybook_domain::media::{MediaContent, MediaKind};
use daybook_domain::tool::Effect;
use daybook_tools::ToolSource as _;
use serde_json::json;

use super::*;

async fn pid(tools: &[Arc<dyn Tool>]) -> u32 {
    let who = text_in_time(&named(tools, "who_am_i"), json!({})).await;
    who.split('|').next().unwrap().parse().unwrap()
}

#[tokio::test]
async fn tools_are_listed_and_called() {
    let source = source(real());
    let tools = tools(&source).await;
    let names: Vec<_> = tools.iter().map(|tool| tool.spec().name.clone()).collect();
    assert_eq!(names, ["add", "die", "echo", "fail", "grow", "image", "slow", "who_am_i"]);
    let effects = ["echo", "add", "die"].map(|name| named(&tools, name).spec().effect);
    assert_eq!(effects, [Effect::Pure, Effect::Idempotent, Effect::Unsafe]);
    let echo = named(&tools, "echo");
    assert_eq!(echo.spec().description, "Gives back the text.");
    assert_eq!(echo.spec().parameters["required"], json!(["text"]));
    assert_eq!(echo.spec().timeout_seconds, 60);

    assert_eq!(text(&echo, json!({"text": "größe 🦀\n"})).await, "größe 🦀\n");
    assert_eq!(text(&named(&tools, "add"), json!({"a": 2, "b": 3})).await, r#"{"sum":5}"#);
    let image = call(&named(&tools, "image"), json!({})).await.unwrap();
    let [picture] = &image.media[..] else { panic!("{image:?}") };
    assert_eq!((picture.kind, picture.mime_type.as_deref()), (MediaKind::Image, Some("image/png")));
    assert!(matches!(&picture.content, MediaContent::Base64(data) if data.starts_with("iVBOR")), "{picture:?}");
    let fault = call(&named(&tools, "fail"), json!({"why": "no disk"})).await.unwrap_err();
    assert!(fault.to_string().contains("no disk"), "{fault}");
    let fault = call(&echo, json!({"words": 1})).await.unwrap_err();
    assert!(fault.to_string().contains("text"), "{fault}");
    source.close().await;
}

#[tokio::test]
async fn the_server_gets_the_calls_key_and_its_own_variables_only() {
    let mut options = real();
    options.env.insert("MY_KEY".into(), "hunter2hunter2".into());
    let source = source(options);
    let tools = tools(&source).await;
    let who = text(&named(&tools, "who_am_i"), json!({})).await;
    for told in [
        "('daybook/call_id', 'call-1')",
        "('daybook/idempotency_key', 'key-1')",
        "('daybook/run_id', 'run-1')",
        "('daybook/session_id', 'session-1')",
        "'MY_KEY'",
        "'PATH'",
    ] {
        assert!(who.contains(told), "{told} in {who}");
    }
    assert!(!who.contains("CARGO"), "{who}");
    assert!(!format!("{source:?}").contains("hunter2"));
    source.close().await;
}

#[tokio::test]
async fn progress_is_shown_and_calls_run_side_by_side() {
    let source = source(real());
    let tools = tools(&source).await;
    let slow = named(&tools, "slow");
    let (context, texts) = shown();
    let arguments = json!({"steps": 3, "pause": 0.1}).as_object().cloned().unwrap();
    assert_eq!(slow.call(context, arguments).await.unwrap().text, "3 steps");
    let texts = texts.lock().unwrap().clone();
    assert_eq!(texts, ["step 1 (1 of 3)", "step 2 (2 of 3)", "step 3 (3 of 3)"]);

    let since = Instant::now();
    let calls = (0..20).map(|_| text(&slow, json!({"steps": 1, "pause": 1.0})));
    assert_eq!(futures::future::join_all(calls).await, vec!["1 steps"; 20]);
    assert!(since.elapsed() < Duration::from_secs(10), "{:?}", since.elapsed());
    source.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_that_are_given_up_are_cancelled_at_the_server() {
    let log = tempfile::NamedTempFile::new().unwrap();
    let mut options = real();
    options.env.insert("CANCELLED_LOG".into(), log.path().display().to_string().into());
    let source = source(options);
    let tools = tools(&source).await;
    let slow = named(&tools, "slow");
    let long = || json!({"steps": 1, "pause": 600}).as_object().cloned().unwrap();

    let dropped = tokio::time::timeout(Duration::from_millis(300), slow.call(context(), long())).await;
    assert!(dropped.is_err());
    let context = context();
    context.cancelled.cancel();
    let fault = slow.call(context, long()).await.unwrap_err();
    assert!(fault.to_string().contains("cancelled"), "{fault}");

    let since = Instant::now();
    while std::fs::read_to_string(log.path()).unwrap().is_empty() {
        assert!(since.elapsed() < SOON, "the server was not told");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(text(&named(&tools, "echo"), json!({"text": "a"})).await, "a");
    source.close().await;
}

#[tokio::test]
async fn new_tools_are_announced() {
    let source = source(real());
    let before = tools(&source).await;
    let unchanged = tokio::time::timeout(Duration::from_millis(700), source.changed()).await;
    assert!(unchanged.is_err(), "nothing changed yet");
    assert_eq!(text(&named(&before, "grow"), json!({})).await, "done");
    tokio::time::timeout(SOON, source.changed()).await.unwrap();
    let after = tools(&source).await;
    assert_eq!(after.len(), before.len() + 1);
    assert_eq!(text(&named(&after, "grown"), json!({})).await, "grown");
    source.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_dies_in_a_call_fails_it_at_once_and_comes_back() {
    let source = source(real());
    let tools = tools(&source).await;
    let first = pid(&tools).await;
    let (slow, die) = (named(&tools, "slow"), named(&tools, "die"));
    let since = Instant::now();
    let (died, beside) = tokio::join!(call(&die, json!({})), call(&slow, json!({"steps": 1, "pause": 600})),);
    assert!(since.elapsed() < Duration::from_secs(10), "{:?}", since.elapsed());
    let fault = died.unwrap_err().to_string();
    assert!(fault.contains("the server ended (exit status: 3)"), "{fault}");
    assert!(beside.unwrap_err().to_string().contains("exit status: 3"));

    let second = pid(&tools).await;
    assert_ne!(first, second);
    assert!(!is_alive(first));
    tokio::time::timeout(SOON, source.changed()).await.unwrap();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(second as i32), nix::sys::signal::Signal::SIGKILL).unwrap();
    assert!(is_gone_soon(second).await);
    assert_ne!(pid(&tools).await, second);
    source.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn closing_ends_the_server_and_its_tools() {
    let source = source(real());
    let tools = tools(&source).await;
    let server = pid(&tools).await;
    let slow = named(&tools, "slow");
    let waits = tokio::time::timeout(
        SOON,
        slow.call(context(), json!({"steps": 1, "pause": 600}).as_object().cloned().unwrap()),
    );
    let since = Instant::now();
    let closes = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        source.close().await;
    };
    let (waited, ()) = tokio::join!(waits, closes);
    assert!(waited.unwrap().unwrap_err().to_string().contains("closed"));
    assert!(since.elapsed() < Duration::from_secs(13), "{:?}", since.elapsed());
    assert!(!is_alive(server));
    let fault = call(&named(&tools, "echo"), json!({"text": "a"})).await.unwrap_err();
    assert!(fault.to_string().contains("closed"), "{fault}");
    assert!(source.tools().await.is_err_and(|fault| fault.fault.contains("closed")));
    source.close().await;
}

#[tokio::test]
async fn a_dropped_source_leaves_no_process() {
    let source = source(real());
    let tools = tools(&source).await;
    let server = pid(&tools).await;
    drop(source);
    assert!(is_gone_soon(server).await);
}

#[test]
fn a_dropped_runtime_leaves_no_process() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let source = source(real());
    let server = runtime.block_on(async { pid(&tools(&source).await).await });
    drop(runtime);
    let since = Instant::now();
    while is_alive(server) {
        assert!(since.elapsed() < SOON);
        std::thread::sleep(Duration::from_millis(20));
    }
    drop(source);
}

/// Not a test: what the next one starts, to be killed.
#[test]
fn host() {
    if std::env::var_os("MCP_TEST_HOST").is_none() {
        return;
    }
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let source = source(real());
        println!("server {}", pid(&tools(&source).await).await);
        tokio::time::sleep(SOON).await;
    });
}

#[tokio::test]
async fn a_server_that_reads_its_input_ends_when_daybook_is_killed() {
    let mut command = std::process::Command::new(std::env::current_exe().unwrap());
    command.args(["stdio::host", "--exact", "--nocapture"]).env("MCP_TEST_HOST", "1");
    let mut host = command.stdout(std::process::Stdio::piped()).spawn().unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(host.stdout.take().unwrap()));
    let said = lines.find_map(|line| line.unwrap().split_once("server ").and_then(|(_, pid)| pid.parse::<u32>().ok()));
    let server = said.unwrap();
    assert!(is_alive(server));
    host.kill().unwrap();
    host.wait().unwrap();
    assert!(is_gone_soon(server).await);
}
