//! MCP servers as sources of tools: real ones (from PyPI and npm) and scripted ones that misbehave.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test's helpers fail the test")]

mod faults;
mod http;
mod npm;
mod stdio;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use daybook_domain::ids::{RunId, SessionId};
use daybook_tools::{McpOptions, McpSource, Tool, ToolContext, ToolError, ToolOutput, ToolSource};
use serde_json::{Map, Value};

/// The longest that anything here may take.
const SOON: Duration = Duration::from_secs(40);

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// Python with the packages of `tests/requirements.txt`.
fn python() -> String {
    static PYTHON: std::sync::OnceLock<String> = std::sync::OnceLock::new();
    PYTHON.get_or_init(checked_python).clone()
}

fn checked_python() -> String {
    let python = root().join(".venv/bin/python");
    let has_mcp = std::process::Command::new(&python).args(["-c", "import mcp.server.mcpserver"]).output();
    assert!(
        has_mcp.is_ok_and(|output| output.status.success()),
        "{} has no package mcp: run scripts/venv.sh first",
        python.display()
    );
    python.display().to_string()
}

fn script(name: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(name).display().to_string()
}

/// The server of `mcp_server.py`, by standard input and output.
fn real() -> McpOptions {
    McpOptions::command([python(), script("mcp_server.py"), "stdio".into()])
}

fn source(options: McpOptions) -> McpSource {
    McpSource::new("test", options).unwrap()
}

fn context() -> ToolContext {
    ToolContext::new(
        RunId::parse("run-1".to_owned()).unwrap(),
        SessionId::parse("session-1".to_owned()).unwrap(),
        None,
        "call-1".to_owned(),
        "key-1".to_owned(),
        Map::new(),
    )
}

/// A context, and what is shown through it.
fn shown() -> (ToolContext, Arc<Mutex<Vec<String>>>) {
    let texts = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&texts);
    (context().with_progress(move |text| kept.lock().unwrap().push(text)), texts)
}

async fn tools(source: &McpSource) -> Vec<Arc<dyn Tool>> {
    tokio::time::timeout(SOON, source.tools()).await.unwrap().unwrap()
}

fn named(tools: &[Arc<dyn Tool>], name: &str) -> Arc<dyn Tool> {
    let found = tools.iter().find(|tool| tool.spec().name == name);
    let names = || tools.iter().map(|tool| tool.spec().name.clone()).collect::<Vec<_>>();
    Arc::clone(found.unwrap_or_else(|| panic!("no {name} in {:?}", names())))
}

async fn call(tool: &Arc<dyn Tool>, arguments: Value) -> Result<ToolOutput, ToolError> {
    let arguments = arguments.as_object().cloned().unwrap();
    tokio::time::timeout(SOON, tool.call(context(), arguments)).await.unwrap()
}

async fn text(tool: &Arc<dyn Tool>, arguments: Value) -> String {
    call(tool, arguments).await.unwrap().text
}

/// Calls until it works: a server that went comes back.
async fn text_in_time(tool: &Arc<dyn Tool>, arguments: Value) -> String {
    let since = Instant::now();
    loop {
        match call(tool, arguments.clone()).await {
            Ok(output) => return output.text,
            Err(fault) => assert!(since.elapsed() < SOON, "{fault}"),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Whether the process is there, and no zombie.
fn is_alive(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"));
    stat.is_ok_and(|stat| !stat.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with('Z')))
}

async fn is_gone_soon(pid: u32) -> bool {
    let since = Instant::now();
    while is_alive(pid) {
        if since.elapsed() > SOON {
            return false;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    true
}

/// The numbers in a file, one a line; waits for the first.
async fn numbers(file: &Path) -> Vec<u32> {
    let since = Instant::now();
    loop {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        let numbers: Vec<u32> = text.lines().filter_map(|line| line.parse().ok()).collect();
        if !numbers.is_empty() || since.elapsed() > SOON {
            return numbers;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
