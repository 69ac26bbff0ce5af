//! Servers that do what they should not.

use std::time::{Duration, Instant};

use daybook_tools::ToolSource as _;
use serde_json::json;

use super::*;

fn scripted(how: &str) -> McpOptions {
    let mut options = McpOptions::command([python(), script("mcp_scripted.py"), how.to_owned()]);
    options.env.insert("KEY".into(), "hunter2hunter2".into());
    options
}

/// The same, and where it notes process ids.
fn noting(how: &str) -> (McpOptions, tempfile::TempPath) {
    let file = tempfile::NamedTempFile::new().unwrap().into_temp_path();
    let mut options = scripted(how);
    options.command.as_mut().unwrap().push(file.display().to_string());
    (options, file)
}

/// The same, with little time for the greeting.
fn soon(how: &str) -> McpOptions {
    McpOptions { connect_timeout_seconds: 5, ..scripted(how) }
}

/// Why its tools are not known; told in time, and with the source closed in time.
async fn refusal(options: McpOptions) -> String {
    let source = source(options);
    let since = Instant::now();
    let fault = source.tools().await.err().unwrap().to_string();
    assert!(since.elapsed() < Duration::from_secs(20), "{fault} after {:?}", since.elapsed());
    source.close().await;
    assert!(!fault.contains("hunter2"), "{fault}");
    fault
}

#[tokio::test]
async fn servers_that_do_not_greet_are_told() {
    let (silent, garbage, endless, nonsense, crash) = tokio::join!(
        refusal(soon("silent")),
        refusal(soon("garbage")),
        refusal(soon("endless line")),
        refusal(scripted("nonsense")),
        refusal(scripted("crash")),
    );
    assert!(silent.contains("did not answer the greeting in 5 seconds"), "{silent}");
    assert!(garbage.contains("did not answer the greeting"), "{garbage}");
    assert!(endless.contains("did not answer the greeting"), "{endless}");
    assert!(nonsense.contains("no Model Context Protocol"), "{nonsense}");
    assert!(crash.contains("exit status: 1") && crash.contains("cannot start: no [redacted] here"), "{crash}");
}

#[tokio::test]
async fn programs_that_are_not_there_are_told() {
    let missing = refusal(McpOptions::command(["no-such-program-here"])).await;
    assert!(missing.contains("there is no program no-such-program-here"), "{missing}");
    let mut options = scripted("fine");
    options.directory = Some("/no/such/directory".into());
    let nowhere = refusal(options).await;
    assert!(nowhere.contains("correct `directory`"), "{nowhere}");
}

#[tokio::test]
async fn a_server_that_crashes_at_start_is_not_started_in_a_busy_loop() {
    let (options, starts) = noting("crash");
    let source = source(options);
    let since = Instant::now();
    while since.elapsed() < Duration::from_secs(4) {
        assert!(source.tools().await.is_err());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let started = numbers(&starts).await.len();
    assert!((2..=6).contains(&started), "{started} starts in 4 seconds");
    source.close().await;
}

#[tokio::test]
async fn lists_that_are_none_are_refused_and_long_ones_taken() {
    let (endless, none) = tokio::join!(refusal(scripted("endless")), refusal(scripted("no list")));
    assert!(endless.contains("pages") || endless.contains("did not list"), "{endless}");
    assert!(none.contains("list of tools is none"), "{none}");
    let source = source(scripted("many"));
    let many = tools(&source).await;
    assert_eq!(many.len(), 10_000);
    assert_eq!(many[7].spec().name, "tool_00007");
    source.close().await;
}

/// The fault of a call, and whether calls work afterwards with the same server.
async fn called(how: &str) -> (String, bool) {
    let (options, starts) = noting(how);
    let source = source(options);
    let tool = named(&tools(&source).await, "call");
    let since = Instant::now();
    let fault = call(&tool, json!({})).await.unwrap_err().to_string();
    assert!(since.elapsed() < Duration::from_secs(15), "{fault} after {:?}", since.elapsed());
    assert_eq!(tools(&source).await.len(), 1);
    let same = numbers(&starts).await.len() == 1;
    source.close().await;
    assert!(!fault.contains("hunter2"), "{fault}");
    (fault, same)
}

#[tokio::test]
async fn answers_that_are_none_or_too_long_end_their_call_only() {
    let (fault, same) = called("long answer").await;
    assert!(fault.contains("longer than 32 MiB") && same, "{fault}");
    let (fault, same) = called("no answer").await;
    assert!(fault.contains("no answer of the Model Context Protocol") && same, "{fault}");
    let (fault, same) = called("repeats its key").await;
    assert_eq!((fault.as_str(), same), ("wrong key [redacted]", true));
}

#[tokio::test]
async fn what_cannot_be_told_apart_ends_the_connection() {
    let (fault, same) = called("long line").await;
    assert!(fault.contains("too long") && !same, "{fault}");
    let (fault, same) = called("half answer").await;
    assert!(fault.contains("exit status: 1") && !same, "{fault}");
}

#[tokio::test]
async fn much_talk_hides_no_answer() {
    let source = source(scripted("chatty"));
    assert_eq!(text(&named(&tools(&source).await, "call"), json!({})).await, "done");
    source.close().await;
}

#[tokio::test]
async fn what_a_dead_server_started_is_ended_too() {
    let (options, file) = noting("orphan");
    let source = source(options);
    let tool = named(&tools(&source).await, "call");
    let fault = call(&tool, json!({})).await.unwrap_err().to_string();
    assert!(fault.contains("the server ended"), "{fault}");
    let pids = numbers(&file).await;
    assert!(pids.len() >= 3, "{pids:?}");
    for pid in &pids[..3] {
        assert!(is_gone_soon(*pid).await, "{pid}");
    }
    source.close().await;
}

#[tokio::test]
async fn a_server_that_does_not_read_fails_calls_in_bounded_time() {
    let source = source(scripted("deaf"));
    let tool = named(&tools(&source).await, "call");
    // More than a pipe holds.
    let since = Instant::now();
    let fault = call(&tool, json!({"text": "x".repeat(1024 * 1024)})).await.unwrap_err().to_string();
    assert!(fault.contains("does not read") && since.elapsed() < Duration::from_secs(20), "{fault}");
    source.close().await;
}

#[tokio::test]
async fn a_server_that_heeds_nothing_is_killed() {
    let (options, file) = noting("stubborn");
    let source = source(options);
    assert_eq!(tools(&source).await.len(), 1);
    let pids = numbers(&file).await;
    let since = Instant::now();
    source.close().await;
    assert!(since.elapsed() < Duration::from_secs(12), "{:?}", since.elapsed());
    assert!(!is_alive(pids[0]));
    assert!(is_gone_soon(pids[1]).await, "what left its process group");
}

const HOST: &str = "MCP_TEST_UNREADING_HOST";

/// Not a test: what the next one starts, to be killed.
#[tokio::test]
async fn host_of_one_that_does_not_read() {
    let Some(file) = std::env::var_os(HOST) else { return };
    let mut options = scripted("unreading");
    options.command.as_mut().unwrap().push(file.into_string().unwrap());
    let source = source(options);
    tools(&source).await;
    println!("listed");
    tokio::time::sleep(SOON).await;
}

#[tokio::test]
async fn a_server_that_does_not_read_its_input_is_killed_after_daybook_was() {
    let (_, file) = noting("unreading");
    let mut command = std::process::Command::new(std::env::current_exe().unwrap());
    command.args(["faults::host_of_one_that_does_not_read", "--exact", "--nocapture"]).env(HOST, &*file);
    let mut host = command.stdout(std::process::Stdio::piped()).spawn().unwrap();
    let lines = std::io::BufRead::lines(std::io::BufReader::new(host.stdout.take().unwrap()));
    assert!(lines.map_while(Result::ok).any(|line| line.contains("listed")));
    let pids = numbers(&file).await;
    assert!(pids.len() == 2 && pids.iter().all(|pid| is_alive(*pid)), "{pids:?}");
    host.kill().unwrap();
    host.wait().unwrap();
    for pid in pids {
        assert!(is_gone_soon(pid).await, "{pid}");
    }
}
