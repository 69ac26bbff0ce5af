//! What is logged of MCP servers holds no keys, at any level that a person would set. One test, since the log is the process's.

#![expect(clippy::unwrap_used, reason = "a test's helpers fail the test")]

use std::io::Write;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use daybook_domain::ids::{RunId, SessionId};
use daybook_tools::{McpOptions, McpSource, ToolContext, ToolSource as _};
use serde_json::Map;

const SECRET: &str = "hunter2hunter2";

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn scripted(how: &str) -> McpOptions {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let python = root.parent().unwrap().join(".venv/bin/python");
    assert!(python.exists(), "{} is missing: run scripts/venv.sh first", python.display());
    let script = root.join("tests/mcp_scripted.py");
    let mut options = McpOptions::command([python.display().to_string(), script.display().to_string(), how.to_owned()]);
    options.env.insert("KEY".into(), SECRET.into());
    options
}

async fn call(options: McpOptions) {
    let source = McpSource::new("test", options).unwrap();
    let session = SessionId::parse("s".to_owned()).unwrap();
    let context = |run| ToolContext::new(run, session.clone(), None, "c".into(), "k".into(), Map::new());
    for tool in source.tools().await.unwrap_or_default() {
        let _ = tool.call(context(RunId::parse("r".to_owned()).unwrap()), Map::new()).await;
    }
    source.close().await;
}

#[tokio::test]
async fn keys_are_not_logged() {
    let log = Log::default();
    let writer = log.clone();
    tracing_subscriber::fmt()
        .with_max_level(tracing_subscriber::filter::LevelFilter::DEBUG)
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .init();
    call(scripted("crash")).await;
    call(scripted("chatty")).await;

    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    for answer in ["HTTP/1.1 500 No\r\ncontent-length: 0\r\nconnection: close\r\n\r\n", "nonsense"] {
        let mut options = McpOptions::url(format!("http://user:{SECRET}@127.0.0.1:{port}/mcp?key={SECRET}"));
        options.headers.insert("X-Key".into(), SECRET.into());
        let serve = async {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let _ = tokio::io::AsyncReadExt::read(&mut stream, &mut [0; 8192]).await;
                let _ = tokio::io::AsyncWriteExt::write_all(&mut stream, answer.as_bytes()).await;
            }
        };
        tokio::select! {
            () = call(options) => {}
            () = serve => {}
        }
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    let debugs = log.matches("debug ").count();
    assert!(log.contains("cannot start: no [redacted] here") && log.contains("[redacted]"), "{log}");
    assert!(debugs <= 1000, "{debugs} lines of a talkative server");
    let told = log.lines().find(|line| line.contains("hunter2"));
    assert_eq!(told, None);
}
