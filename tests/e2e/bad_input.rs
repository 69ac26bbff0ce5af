//! Bad input is refused with the right status and a reason, and the same connection answers the next request.

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::support::{PATIENCE, World};

/// One connection, which is never opened again.
struct Connection {
    host: String,
    sender: SendRequest<Full<Bytes>>,
    _driving: JoinSet<hyper::Result<()>>,
}

impl Connection {
    async fn open(base: &str) -> Self {
        let host = base.trim_start_matches("http://").to_owned();
        let (sender, connection) = handshake(TokioIo::new(TcpStream::connect(&host).await.unwrap())).await.unwrap();
        let mut driving = JoinSet::new();
        driving.spawn(connection);
        Self { host, sender, _driving: driving }
    }

    /// Status and body of the answer.
    async fn send(&mut self, case: &Case) -> (u16, String) {
        let request = Request::builder().method(case.method.clone()).uri(&*case.path).header("host", &self.host);
        let request = if case.kind.is_empty() { request } else { request.header("content-type", &*case.kind) };
        let request = request.body(Full::new(case.body.clone())).unwrap();
        let answer = async {
            self.sender.ready().await.map_err(|error| format!("the connection is gone: {error}"))?;
            let answer = self.sender.send_request(request).await.map_err(|error| error.to_string())?;
            let status = answer.status().as_u16();
            let body = answer.into_body().collect().await.map_err(|error| error.to_string())?.to_bytes();
            Ok::<_, String>((status, String::from_utf8_lossy(&body).into_owned()))
        };
        match timeout(PATIENCE, answer).await.expect("an answer in time") {
            Ok(answer) => answer,
            Err(error) => panic!("{} {}: {error}", case.method, case.path),
        }
    }
}

/// A request, and the answer it should get.
struct Case {
    method: Method,
    path: String,
    kind: String,
    body: Bytes,
    status: u16,
    says: String,
}

impl Case {
    fn new(method: Method, path: &str, status: u16, says: &str) -> Self {
        let (path, says) = (path.to_owned(), says.to_owned());
        Self { method, path, kind: String::new(), body: Bytes::new(), status, says }
    }

    fn get(path: &str, status: u16, says: &str) -> Self {
        Self::new(Method::GET, path, status, says)
    }

    fn body(mut self, kind: &str, body: impl Into<Bytes>) -> Self {
        (self.kind, self.body) = (kind.to_owned(), body.into());
        self
    }

    /// A run of my-agent, with these fields beside a message.
    fn run(fields: &[(&str, &str)], status: u16, says: &str) -> Self {
        let mut form = form_urlencoded(&[("stream", "false")]);
        if !fields.iter().any(|(name, _)| *name == "message") {
            form += "&message=Hello";
        }
        form = format!("{form}&{}", form_urlencoded(fields));
        Self::new(Method::POST, "/agents/my-agent/runs", status, says).body(URLENCODED, form)
    }

    fn multipart(body: impl Into<Bytes>, status: u16, says: &str) -> Self {
        Self::new(Method::POST, "/agents/my-agent/runs", status, says).body("multipart/form-data; boundary=x", body)
    }
}

const URLENCODED: &str = "application/x-www-form-urlencoded";

fn form_urlencoded(fields: &[(&str, &str)]) -> String {
    let url = reqwest::Url::parse_with_params("http://x/", fields).unwrap();
    url.query().unwrap_or_default().to_owned()
}

fn part(head: &str, body: &str) -> String {
    format!("--x\r\nContent-Disposition: form-data; {head}\r\n\r\n{body}\r\n")
}

fn file(name: &str, kind: &str, body: &str) -> String {
    format!(
        "--x\r\nContent-Disposition: form-data; name=\"files\"; filename=\"{name}\"\r\nContent-Type: {kind}\r\n\r\n{body}\r\n"
    )
}

/// Sends all cases over one connection, with a good request after each.
async fn refused(cases: Vec<Case>) {
    let world = World::new().await;
    let server = world.server().await;
    let mut connection = Connection::open(&server.api.base).await;
    let mut wrong = Vec::new();
    for case in cases {
        let (status, body) = connection.send(&case).await;
        let sent = String::from_utf8_lossy(&case.body[..case.body.len().min(120)]).into_owned();
        let told = serde_json::from_str::<Value>(&body).is_ok_and(|body| !body["detail"].is_null());
        if status != case.status || !body.contains(&case.says) || !told {
            let shown: String = body.chars().take(300).collect();
            wrong.push(format!(
                "{} {} {sent:?}: {status} {shown}, not {} {}",
                case.method, case.path, case.status, case.says
            ));
        }
        let (status, body) = connection.send(&Case::get("/agents/my-agent", 200, "")).await;
        assert!(
            status == 200 && body.contains("My Agent"),
            "after {} {} {sent:?}: {status} {body}",
            case.method,
            case.path
        );
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(world.model.requests().len(), 0, "nothing ran");
    let run = server.api.run("my-agent", &[("message", "Hello")]).await;
    assert_eq!(run["content"], "Hi Alice!");
}

#[tokio::test]
async fn runs_that_cannot_be_are_refused_with_a_reason() {
    let two_megabytes = "x".repeat(2 << 20);
    let long_id = "i".repeat(300);
    refused(vec![
        Case::new(Method::POST, "/agents/zzz/runs", 404, "Agent not found")
            .body(URLENCODED, "message=Hello&stream=false"),
        Case::new(Method::POST, "/agents/zzz/runs", 404, "Agent not found")
            .body(URLENCODED, "message=Hello&stream=true"),
        Case::new(Method::POST, "/agents/my-agent/runs", 422, "message").body(URLENCODED, "stream=false"),
        Case::new(Method::POST, "/agents/my-agent/runs", 422, "message"),
        Case::run(&[("message", "")], 422, "message"),
        Case::run(&[("message", &two_megabytes)], 400, "Field exceeded maximum size of 1024KB."),
        Case::multipart(
            part("name=\"message\"", &two_megabytes) + "--x--\r\n",
            400,
            "Part exceeded maximum size of 1024KB.",
        ),
        Case::run(&[("stream", "maybe")], 422, "stream"),
        Case::run(&[("background", "sometimes")], 422, "background"),
        Case::run(&[("version", "abc")], 422, "version"),
        Case::run(&[("on_busy", "whatever")], 422, "on_busy"),
        Case::run(&[("on_disconnect", "whatever")], 422, "on_disconnect"),
        Case::run(&[("metadata", "[1]")], 400, "Invalid metadata parameter"),
        Case::run(&[("metadata", "{nope")], 422, "metadata"),
        Case::run(&[("session_state", "{nope")], 422, "session_state"),
        Case::run(&[("session_state", "7")], 400, "session_state"),
        Case::run(&[("dependencies", "{\"a\":")], 422, "dependencies"),
        Case::run(&[("knowledge_filters", "{nope")], 422, "knowledge_filters"),
        Case::run(&[("output_schema", "[1]")], 422, "output_schema"),
        Case::run(&[("images", "{}")], 422, "images"),
        Case::run(&[("images", "nope")], 422, "images"),
        Case::run(&[("input_files", "[1]")], 422, "input_files"),
        Case::run(&[("session_id", "a\0b")], 422, "session_id"),
        Case::run(&[("user_id", "a\nb")], 422, "user_id"),
        Case::run(&[("run_id", "a\u{7f}b")], 422, "run_id"),
        Case::run(&[("session_id", &long_id)], 422, "session_id"),
        Case::run(&[("run_id", &long_id)], 422, "run_id"),
    ])
    .await;
}

#[tokio::test]
async fn broken_bodies_and_files_are_refused_with_a_reason() {
    let hello = part("name=\"message\"", "Hello") + &part("name=\"stream\"", "false");
    let many = file("a.txt", "text/plain", "a").repeat(51);
    refused(vec![
        // It breaks off in the middle of a part, and before its end.
        Case::multipart("--x\r\nContent-Disposition: form-data; name=\"message\"\r\n\r\nHello", 422, "message"),
        Case::multipart("--x\r\nContent-Dispo", 422, "message"),
        Case::multipart("", 422, "message"),
        Case::multipart("no multipart at all", 422, "message"),
        Case::new(Method::POST, "/agents/my-agent/runs", 400, "Missing boundary").body("multipart/form-data", "hello"),
        Case::new(Method::POST, "/agents/my-agent/runs", 422, "message")
            .body("application/json", "{\"message\":\"Hello\"}"),
        Case::new(Method::POST, "/agents/my-agent/runs", 422, "message").body("text/plain", "Hello"),
        Case::new(Method::POST, "/agents/my-agent/runs", 422, "message").body("nonsense", &b"\xff\xfe\x00"[..]),
        Case::multipart(
            format!("{hello}{}--x--\r\n", file("a.exe", "application/x-msdownload", "MZ")),
            400,
            "Unsupported file type",
        ),
        Case::multipart(
            format!("{hello}{}--x--\r\n", file("a.zzz", "application/octet-stream", "?")),
            400,
            "Unsupported",
        ),
        Case::multipart(format!("{hello}{many}--x--\r\n"), 400, "50"),
        Case::multipart(
            format!("{hello}{}{}--x--\r\n", part("name=\"files_metadata\"", "nope"), file("a.txt", "text/plain", "a")),
            422,
            "files_metadata",
        ),
        Case::multipart(format!("{hello}{}--x--\r\n", part("name=\"session_id\"", "a\0b")), 422, "session_id"),
    ])
    .await;
}

#[tokio::test]
async fn wrong_methods_paths_and_queries_are_refused_with_a_reason() {
    let long_id = "i".repeat(2000);
    let resume = |form: &str, status, says: &str| {
        Case::new(Method::POST, "/agents/my-agent/runs/r/resume", status, says).body(URLENCODED, form.to_owned())
    };
    refused(vec![
        Case::new(Method::PUT, "/config", 405, "Method Not Allowed"),
        Case::new(Method::DELETE, "/agents/my-agent/runs", 405, "Method Not Allowed"),
        Case::new(Method::PATCH, "/agents/my-agent/runs/r/cancel", 405, "Method Not Allowed"),
        Case::get("/agents/my-agent/runs/r/resume", 405, "Method Not Allowed"),
        Case::get("/nope", 404, "Not Found"),
        Case::get("/agents/zzz", 404, "Agent not found"),
        Case::get("/agents/my-agent/runs", 422, "session_id"),
        Case::get("/agents/my-agent/runs?session_id=nope", 404, "not found"),
        Case::get("/agents/my-agent/runs/r", 422, "session_id"),
        Case::get("/agents/my-agent/runs/r?session_id=nope", 404, "Run not found"),
        Case::get("/agents/my-agent/runs/a%00b?session_id=s", 422, "run_id"),
        Case::get("/agents/my-agent/runs/r?session_id=a%00b", 422, "session_id"),
        Case::get("/agents/a%00b", 404, "Agent not found"),
        Case::get(&format!("/agents/{long_id}"), 404, "Agent not found"),
        Case::get(&format!("/sessions/{long_id}"), 422, "session_id"),
        Case::get(&format!("/agents/my-agent/runs/r?session_id={long_id}"), 422, "session_id"),
        Case::get("/sessions?page=0", 422, "page"),
        Case::get("/sessions?page=-1", 422, "page"),
        Case::get("/sessions?page=one", 422, "page"),
        Case::get("/sessions?limit=0", 422, "limit"),
        Case::get("/sessions?limit=-5", 422, "limit"),
        Case::get("/sessions?limit=1000000000", 422, "limit"),
        Case::get("/sessions?limit=99999999999999999999999999", 422, "limit"),
        Case::get("/sessions?page=9223372036854775807&limit=100", 422, "page"),
        Case::get("/sessions?type=zzz", 422, "type"),
        Case::get("/sessions?sort_order=sideways", 422, "sort_order"),
        Case::get("/sessions?db_id=zzz", 404, "No database found with id 'zzz'"),
        Case::get("/sessions/nope", 404, "not found"),
        Case::get("/sessions/nope/runs", 404, "not found"),
        resume("last_event_index=abc", 422, "last_event_index"),
        resume("last_event_index=99999999999999999999999999", 422, "last_event_index"),
        resume("session_id=a%00b", 422, "session_id"),
        Case::new(Method::POST, "/agents/zzz/runs/r/resume", 404, "Agent not found"),
        Case::new(Method::POST, "/agents/zzz/runs/r/cancel", 404, "Agent not found"),
        Case::new(Method::POST, "/agents/my-agent/runs/a%00b/cancel", 422, "run_id"),
        Case::new(Method::POST, "/databases/main-db/migrate?target_version=zzz", 422, "zzz"),
        Case::new(Method::POST, "/databases/zzz/migrate", 404, "No database found"),
    ])
    .await;
}

#[tokio::test]
async fn an_idempotency_key_that_is_none_is_refused() {
    let world = World::new().await;
    let server = world.server().await;
    for key in ["", "has a space", &"k".repeat(256)] {
        let request = server.api.request("my-agent", &[("message", "Hello"), ("stream", "false")]);
        let answer = request.header("Idempotency-Key", key).send().await.unwrap();
        assert_eq!(answer.status(), 422, "{key:?}");
        assert!(answer.text().await.unwrap().contains("Idempotency-Key"));
    }
    assert_eq!(world.model.requests().len(), 0);
}

#[tokio::test]
async fn a_body_beyond_all_limits_is_cut_off_and_the_server_lives_on() {
    let world = World::new().await;
    let server = world.server().await;
    // Its length is not told beforehand, so it must be found out.
    let chunks = (0..101).map(|_| Ok::<_, std::io::Error>(Bytes::from(vec![b'x'; 1 << 20])));
    let large = reqwest::Body::wrap_stream(futures::stream::iter(chunks));
    let part = reqwest::multipart::Part::stream(large).file_name("a.txt").mime_str("text/plain").unwrap();
    let form = reqwest::multipart::Form::new().text("message", "Hello").text("stream", "false").part("files", part);
    let answer = server.api.post("/agents/my-agent/runs").multipart(form).send().await.unwrap();
    assert_eq!(answer.status(), 413);
    assert!(answer.text().await.unwrap().contains("maximum size"));
    assert_eq!(server.api.run("my-agent", &[("message", "Hello")]).await["content"], "Hi Alice!");
}
