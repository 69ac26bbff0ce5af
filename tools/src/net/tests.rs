use std::io::Write as _;
use std::time::Duration;

use reqwest::Method;
use reqwest::header::HeaderValue;
use url::Url;

use super::*;
use crate::testing::{Answers, Server, answer};

fn limits() -> Limits {
    Limits { timeout: Duration::from_secs(5), max_bytes: 1000 }
}

fn client(allow: &[&str]) -> GuardedClient {
    let allow: Vec<_> = allow.iter().map(|&entry| entry.to_owned()).collect();
    GuardedClient::new(None, &allow, limits()).unwrap()
}

fn get(url: &str) -> Request {
    Request::get(Url::parse(url).unwrap())
}

#[tokio::test]
async fn loopback_is_reached_only_when_opened() {
    let server = Server::new(|_| answer("200 OK", &["Content-Type: text/plain; charset=utf-8"], "hello")).await;
    let refused = client(&[]).send(get(&server.url("/"))).await.unwrap_err();
    assert!(matches!(refused, NetError::Refused(_)), "{refused}");
    assert!(server.requests().is_empty());
    let by_name = client(&[]).send(get(&format!("http://localhost:{}/", server.address.port()))).await.unwrap_err();
    assert!(matches!(by_name, NetError::Refused(_)), "{by_name}");
    for allow in ["127.0.0.0/8", "127.0.0.1", &server.address.to_string()] {
        let answer = client(&[allow]).send(get(&server.url("/"))).await.unwrap();
        assert_eq!((answer.body.as_ref(), answer.media_type().as_str()), (&b"hello"[..], "text/plain"));
    }
    let name = format!("localhost:{}", server.address.port());
    assert!(client(&[&name]).send(get(&format!("http://{name}/"))).await.is_ok());
    assert!(client(&["localhost:1"]).send(get(&format!("http://{name}/"))).await.is_err());
    assert!(client(&["other"]).send(get(&server.url("/"))).await.is_err());
}

/// A name server that says something harmless first and the loopback afterwards.
#[tokio::test]
async fn a_name_that_changes_its_address_gains_nothing() {
    let server = Server::new(|_| answer("200 OK", &[], "secret")).await;
    let url = format!("http://rebind.test:{}/", server.address.port());
    let resolver = Answers::new(&["127.0.0.1"]);
    let client = GuardedClient::with_resolver(None, &[], limits(), resolver).unwrap();
    assert!(matches!(client.send(get(&url)).await, Err(NetError::Refused(_))));

    // The first answer may be reached (and stands for a public one), the second may not.
    let open = ["127.0.0.9/32".to_owned()];
    let client =
        GuardedClient::with_resolver(None, &open, limits(), Answers::new(&["127.0.0.9", "127.0.0.1"])).unwrap();
    assert!(matches!(client.send(get(&url)).await, Err(NetError::Unreachable { .. })), "nothing listens there");
    assert!(matches!(client.send(get(&url)).await, Err(NetError::Refused(_))));
    assert!(server.requests().is_empty());

    // A name that the operator opened leads inside, but never to link-local addresses.
    let metadata =
        GuardedClient::with_resolver(None, &["rebind.test".into()], limits(), Answers::new(&["169.254.169.254"]));
    assert!(matches!(metadata.unwrap().send(get(&url)).await, Err(NetError::Refused(_))));
    let inside = GuardedClient::with_resolver(None, &["rebind.test".into()], limits(), Answers::new(&["127.0.0.1"]));
    assert_eq!(inside.unwrap().send(get(&url)).await.unwrap().body.as_ref(), b"secret");

    // And of several addresses only those that may be reached are tried.
    let resolver = Answers::new(&[]);
    resolver.0.lock().unwrap().push(vec!["10.0.0.1".parse().unwrap(), "127.0.0.1".parse().unwrap()]);
    let client = GuardedClient::with_resolver(None, &["127.0.0.1/32".into()], limits(), resolver).unwrap();
    assert_eq!(client.send(get(&url)).await.unwrap().body.as_ref(), b"secret");
}

#[tokio::test]
async fn redirects_are_checked_anew() {
    let inner = Server::new(|_| answer("200 OK", &[], "secret")).await;
    for target in
        [inner.url("/"), "file:///etc/passwd".into(), "http://[::1]/".into(), "http://169.254.169.254/".into()]
    {
        let outer = Server::new(move |_| answer("302 Found", &[&format!("Location: {target}")], "")).await;
        let client = client(&[&outer.address.to_string()]);
        let error = client.send(get(&outer.url("/"))).await.unwrap_err();
        assert!(matches!(error, NetError::Refused(_)), "{error}");
    }
    assert!(inner.requests().is_empty());
    let hosts = Some(vec![HostPattern::parse("127.0.0.1:1").unwrap()]);
    let narrow = GuardedClient::new(hosts, &["127.0.0.1".into()], limits()).unwrap();
    let error = narrow.send(get(&inner.url("/"))).await.unwrap_err().to_string();
    assert!(error.contains(&format!("{} is not among the hosts", inner.address)), "with its port: {error}");
}

#[tokio::test]
async fn redirects_end() {
    let server = Server::new(|_| answer("307 Temporary Redirect", &["Location: /again"], "")).await;
    let error = client(&["127.0.0.1"]).send(get(&server.url("/"))).await.unwrap_err();
    assert!(matches!(error, NetError::Redirects { limit: 5, .. }), "{error}");
    assert_eq!(server.requests().len(), 6);
}

#[tokio::test]
async fn credentials_stay_with_their_origin() {
    let other = Server::new(|_| answer("200 OK", &[], "there")).await;
    let target = other.url("/next");
    let server = Server::new(move |request| {
        let next = if request.starts_with("POST /far") { target.as_str() } else { "/near2" };
        if request.starts_with("GET /near2") {
            return answer("200 OK", &[], "here");
        }
        answer("302 Found", &[&format!("Location: {next}")], "")
    })
    .await;
    let send = async |path: &str| {
        let mut request = get(&server.url(path));
        request.method = Method::POST;
        request.body = Some("x".into());
        request.headers.insert("authorization", HeaderValue::from_static("Bearer hunter2"));
        request.headers.insert("x-key", client::secret_header("x-key", "hunter3").unwrap());
        request.headers.insert("x-plain", HeaderValue::from_static("plain"));
        request.headers.insert("accept", HeaderValue::from_static("text/html"));
        request.headers.insert("idempotency-key", HeaderValue::from_static("once"));
        assert!(!format!("{request:?}").contains("hunter"));
        client(&["127.0.0.1"]).send(request).await.unwrap()
    };
    send("/near").await;
    let near = server.requests().pop().unwrap();
    assert!(near.starts_with("GET /near2") && near.contains("hunter2") && near.contains("hunter3"), "{near}");
    assert!(!near.contains("once"), "the key is of a call that writes: {near}");
    send("/far").await;
    let far = other.requests().pop().unwrap();
    assert!(far.starts_with("GET /next") && far.contains("text/html"), "{far}");
    for secret in ["hunter", "x-plain", "once"] {
        assert!(!far.contains(secret), "{far}");
    }
}

#[tokio::test]
async fn a_write_does_not_leave_its_origin() {
    let other = Server::new(|_| answer("200 OK", &[], "there")).await;
    let target = other.url("/next");
    for (method, status) in [(Method::POST, "307 Temporary Redirect"), (Method::DELETE, "302 Found")] {
        let location = format!("Location: {target}");
        let server = Server::new(move |_| answer(status, &[&location], "")).await;
        let request = Request { method, body: Some("secret".into()), ..get(&server.url("/")) };
        let error = client(&["127.0.0.1"]).send(request).await.unwrap_err();
        assert!(matches!(&error, NetError::Refused(fault) if fault.contains("another origin")), "{error}");
    }
    assert!(other.requests().is_empty());
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[tokio::test]
async fn bodies_are_limited_after_decompression_too() {
    let server = Server::new(|request| match request.split(' ').nth(1) {
        Some("/fits") => answer("200 OK", &["Content-Encoding: gzip"], gzip(&[b'a'; 1000])),
        Some("/bomb") => answer("200 OK", &["Content-Encoding: gzip"], gzip(&vec![b'a'; 200_000])),
        Some("/empties") => answer("200 OK", &["Content-Encoding: gzip"], gzip(b"").repeat(200)),
        Some("/broken") => answer("200 OK", &["Content-Encoding: gzip"], "plain after all"),
        Some("/odd") => answer("200 OK", &["Content-Encoding: zstd"], "?"),
        Some("/endless") => [&b"HTTP/1.1 200 OK\r\n\r\n"[..], &[b'a'; 100_000]].concat(),
        _ => answer("200 OK", &[], vec![b'a'; 1001]),
    })
    .await;
    let send = async |path: &str| client(&["127.0.0.1"]).send(get(&server.url(path))).await;
    assert_eq!(send("/fits").await.unwrap().body.len(), 1000);
    for path in ["/bomb", "/empties", "/endless", "/long"] {
        let result = send(path).await;
        assert!(matches!(result, Err(NetError::TooLarge { limit: 1000, .. })), "{path}: {result:?}");
    }
    for path in ["/broken", "/odd"] {
        assert!(matches!(send(path).await, Err(NetError::Body { .. })), "{path}");
    }
}

#[tokio::test]
async fn slow_servers_are_left() {
    let server = Server::new(|_| Vec::new()).await;
    let quick = Limits { timeout: Duration::from_secs(1), ..limits() };
    let client = GuardedClient::new(None, &["127.0.0.1".into()], quick).unwrap();
    let error = client.send(get(&server.url("/?token=hunter2"))).await.unwrap_err();
    assert!(matches!(error, NetError::TimedOut { seconds: 1, .. }), "{error}");
}

#[tokio::test]
async fn a_write_that_may_have_been_done_says_so() {
    let server = Server::new(|request| match request.split(' ').nth(1) {
        Some("/never") => Vec::new(),
        Some("/garbage") => b"garbage".to_vec(),
        Some("/cut") => b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc".to_vec(),
        Some("/long") => answer("200 OK", &[], vec![b'a'; 1001]),
        Some("/done") => answer("303 See Other", &["Location: /garbage"], ""),
        Some("/away") => answer("303 See Other", &["Location: ftp://elsewhere/"], ""),
        Some("/moved") => answer("307 Temporary Redirect", &["Location: /cut"], ""),
        Some("/forever") => answer("308 Permanent Redirect", &["Location: /forever"], ""),
        Some("/nowhere") => answer("307 Temporary Redirect", &["Location: http://127.0.0.1:1/"], ""),
        _ => answer("500 Internal Server Error", &[], "no"),
    })
    .await;
    let quick = Limits { timeout: Duration::from_secs(1), ..limits() };
    let client = GuardedClient::new(None, &["127.0.0.1".into()], quick).unwrap();
    let send = async |method: &Method, url: &str| {
        client.send(Request { method: method.clone(), body: Some("x".into()), ..get(url) }).await
    };
    for path in ["/never", "/garbage", "/cut", "/long", "/done", "/away", "/moved"] {
        for method in [Method::POST, Method::PUT, Method::PATCH, Method::DELETE] {
            let error = send(&method, &server.url(path)).await.unwrap_err();
            assert!(matches!(error, NetError::MaybeDone { .. }), "{method} {path}: {error}");
            let text = error.to_string();
            assert!(text.contains(&format!("The {method} may have been done all the same")), "{text}");
        }
        let error = send(&Method::GET, &server.url(path)).await.unwrap_err();
        assert!(!matches!(error, NetError::MaybeDone { .. }), "GET {path}: {error}");
    }
    // What was never sent, or was sent on, was not done.
    let (forever, nowhere) = (server.url("/forever"), server.url("/nowhere"));
    for url in ["http://127.0.0.1:1/", "http://10.0.0.1/", "ftp://127.0.0.1/", &forever, &nowhere] {
        let error = send(&Method::POST, url).await.unwrap_err();
        assert!(!matches!(error, NetError::MaybeDone { .. }), "{url}: {error}");
    }
    assert_eq!(send(&Method::POST, &server.url("/error")).await.unwrap().status, 500);
}

#[tokio::test]
async fn errors_hold_no_secrets() {
    let server = Server::new(|_| b"garbage".to_vec()).await;
    let client = client(&["127.0.0.1"]);
    for url in [server.url("/?token=hunter2"), "http://127.0.0.1:1/?token=hunter2".to_owned()] {
        let error = client.send(get(&url)).await.unwrap_err();
        assert!(matches!(error, NetError::Unreachable { .. }), "{error}");
        assert!(!error.to_string().contains("hunter2") && !format!("{error:?}").contains("hunter2"), "{error}");
    }
}
