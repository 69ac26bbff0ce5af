//! A real server from PyPI, by streamable HTTP.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use daybook_tools::ToolSource as _;
use serde_json::json;

use super::*;

/// A running server, killed when dropped.
struct Server {
    child: Child,
    port: u16,
}

impl Server {
    fn start(port: u16, env: Option<(&str, &str)>) -> Self {
        let mut command = Command::new(python());
        command.arg(script("mcp_server.py")).arg("http").arg(port.to_string()).stdout(Stdio::piped());
        command.envs(env);
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        Self { child, port: line.trim().parse().unwrap() }
    }

    fn options(&self) -> McpOptions {
        McpOptions::url(format!("http://127.0.0.1:{}/mcp?key=hunter2hunter2", self.port))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test]
async fn tools_are_listed_called_and_announced() {
    works(Server::start(0, None)).await;
}

#[tokio::test]
async fn servers_that_know_only_the_protocol_without_a_greeting_work_too() {
    works(Server::start(0, Some(("NO_GREETING", "1")))).await;
}

async fn works(server: Server) {
    let source = source(server.options());
    let listed = tools(&source).await;
    assert_eq!(text(&named(&listed, "echo"), json!({"text": "größe"})).await, "größe");
    assert_eq!(text(&named(&listed, "add"), json!({"a": 2, "b": 3})).await, r#"{"sum":5}"#);
    assert_eq!(call(&named(&listed, "image"), json!({})).await.unwrap().media.len(), 1);
    let fault = call(&named(&listed, "fail"), json!({"why": "no disk"})).await.unwrap_err();
    assert!(fault.to_string().contains("no disk"), "{fault}");
    assert!(text(&named(&listed, "who_am_i"), json!({})).await.contains("'daybook/idempotency_key', 'key-1'"));

    let slow = named(&listed, "slow");
    let (context, texts) = shown();
    let arguments = json!({"steps": 2, "pause": 0.2}).as_object().cloned().unwrap();
    assert_eq!(slow.call(context, arguments).await.unwrap().text, "2 steps");
    assert_eq!(*texts.lock().unwrap(), ["step 1 (1 of 2)", "step 2 (2 of 2)"]);
    let calls = (0..40).map(|_| text(&slow, json!({"steps": 1, "pause": 0.5})));
    let since = Instant::now();
    assert_eq!(futures::future::join_all(calls).await, vec!["1 steps"; 40]);
    assert!(since.elapsed() < Duration::from_secs(15), "{:?}", since.elapsed());

    assert_eq!(text(&named(&listed, "grow"), json!({})).await, "done");
    tokio::time::timeout(SOON, source.changed()).await.unwrap();
    assert_eq!(text(&named(&tools(&source).await, "grown"), json!({})).await, "grown");
    source.close().await;
}

#[tokio::test]
async fn headers_go_along_and_are_not_told() {
    let server = Server::start(0, Some(("REQUIRE_TOKEN", "open-sesame")));
    let mut options = server.options();
    options.headers.insert("authorization".into(), "Bearer open-sesame".into());
    let source = source(options);
    assert_eq!(text(&named(&tools(&source).await, "echo"), json!({"text": "in"})).await, "in");
    source.close().await;

    let mut options = server.options();
    options.headers.insert("Authorization".into(), "Bearer wrong-sesame".into());
    let refused = super::source(options);
    let fault = refused.tools().await.err().unwrap().to_string();
    assert!(fault.contains("401"), "{fault}");
    for secret in ["sesame", "hunter2"] {
        assert!(!fault.contains(secret) && !format!("{refused:?}").contains(secret), "{fault}");
    }
    refused.close().await;
}

#[tokio::test]
async fn a_server_that_goes_fails_calls_soon_and_is_found_again() {
    let server = Server::start(0, None);
    let port = server.port;
    let source = source(server.options());
    let listed = tools(&source).await;
    let echo = named(&listed, "echo");
    assert_eq!(text(&echo, json!({"text": "a"})).await, "a");

    let since = Instant::now();
    let fault = call(&named(&listed, "die"), json!({})).await.unwrap_err().to_string();
    assert!(since.elapsed() < Duration::from_secs(10), "{fault} after {:?}", since.elapsed());
    let since = Instant::now();
    let fault = call(&echo, json!({"text": "a"})).await.unwrap_err().to_string();
    assert!(since.elapsed() < Duration::from_secs(8), "{fault} after {:?}", since.elapsed());
    assert!(!fault.contains("hunter2"), "{fault}");
    drop(server);

    let _again = Server::start(port, None);
    assert_eq!(text_in_time(&echo, json!({"text": "b"})).await, "b");
    tokio::time::timeout(SOON, source.changed()).await.unwrap();
    source.close().await;
}

#[tokio::test]
async fn a_server_started_anew_between_calls_costs_no_call() {
    let server = Server::start(0, None);
    let port = server.port;
    let source = source(server.options());
    let echo = named(&tools(&source).await, "echo");
    assert_eq!(text(&echo, json!({"text": "a"})).await, "a");
    drop(server);
    let _again = Server::start(port, None);
    // The client has seen by now that its connections are closed, and opens another.
    tokio::time::sleep(Duration::from_millis(300)).await;
    // The server knows nothing of the session, and says so.
    assert_eq!(text(&echo, json!({"text": "b"})).await, "b");
    source.close().await;
}

#[tokio::test]
async fn nobody_at_the_address_is_told_without_it() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let source = source(McpOptions::url(format!("http://127.0.0.1:{free}/mcp?key=hunter2hunter2")));
    let fault = source.tools().await.err().unwrap().to_string();
    assert!(fault.contains("nothing answers") && !fault.contains("hunter2"), "{fault}");
    source.close().await;
}

#[tokio::test]
async fn a_server_of_another_kind_is_told() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let page = "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 5\r\nconnection: close\r\n\r\nhello";
    let serve = async {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 4096];
            let _ = tokio::io::AsyncReadExt::read(&mut stream, &mut request).await;
            let _ = tokio::io::AsyncWriteExt::write_all(&mut stream, page.as_bytes()).await;
        }
    };
    let source = source(McpOptions::url(format!("http://127.0.0.1:{port}/")));
    let fault = tokio::select! {
        listed = source.tools() => listed.err().unwrap().to_string(),
        () = serve => unreachable!(),
    };
    assert!(fault.contains("test: ") && fault.contains("answered with text/html, and not"), "{fault}");
    source.close().await;
}
