//! What holds for every protocol alike: overload, errors, connections that break or go silent, keys.

use std::time::Duration;

use daybook_models::{Api, ChatEvent, ChatModel, ModelError, ModelOptions, ProviderModel, SetupError, Timeouts};
use futures::StreamExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net;
use tokio::task::JoinSet;

use crate::fake::{Act, Fake, KEY, ask, failed, request, whole};

/// A protocol as its fake speaks it.
pub struct Wire {
    pub api: Api,
    /// The media type of its answers.
    pub kind: &'static str,
    /// An answer that says `Hello`, whole.
    pub hello: fn() -> Vec<String>,
    /// The beginning of an answer that says `Hel`.
    pub half: fn() -> Vec<String>,
    /// The body of an answer with a status that is an error.
    pub error: fn(u16, &str) -> String,
    /// An error in the middle of an answer, which stands for this status.
    pub midway: fn(&str) -> (String, u16),
}

impl Wire {
    fn hello(&self) -> Act {
        Act::streams(self.kind, (self.hello)())
    }
}

fn all() -> [Wire; 5] {
    [crate::openai::WIRE, crate::anthropic::WIRE, crate::responses::WIRE, crate::gemini::WIRE, crate::ollama::WIRE]
}

/// The error of a plain question, what came before it, and how often the server was called.
async fn fails(wire: &Wire, acts: Vec<Act>) -> (Vec<ChatEvent>, ModelError, usize) {
    let fake = Fake::new(acts).await;
    let (before, error) = failed(ask(&fake.options(wire.api), request()).await);
    (before, error, fake.calls())
}

#[tokio::test]
async fn overload_is_waited_out() {
    for wire in all() {
        for (status, wait) in [(429, 1), (503, 0), (529, 0)] {
            let seconds = if wait == 1 { "1" } else { "0" };
            let refusal = Act::refuses(status, (wire.error)(status, "busy"), vec![("retry-after", seconds)]);
            let fake = Fake::new(vec![refusal, wire.hello()]).await;
            let before = std::time::Instant::now();
            let (_, response) = whole(ask(&fake.options(wire.api), request()).await);
            assert_eq!((response.text.as_str(), fake.calls()), ("Hello", 2), "{}", wire.api);
            assert!(before.elapsed() >= Duration::from_secs(wait), "{} was called too early", wire.api);
        }
    }
}

#[tokio::test]
async fn overload_beyond_patience_is_told_in_the_providers_words() {
    for wire in all() {
        let long = Act::refuses(429, (wire.error)(429, "slow down"), vec![("retry-after", "3600")]);
        let told =
            ModelError::Status { status: 429, message: "slow down".into(), retry_after: Some(Duration::from_secs(60)) };
        assert_eq!(fails(&wire, vec![long]).await, (vec![], told, 1), "{}", wire.api);
        let busy = || Act::refuses(503, (wire.error)(503, "busy"), vec![]);
        let (_, error, calls) = fails(&wire, vec![busy(), busy(), busy()]).await;
        assert_eq!((error.to_string().as_str(), calls), ("busy", 3), "{}", wire.api);
    }
}

#[tokio::test]
async fn refusals_are_told_once_and_show_no_key() {
    for wire in all() {
        let refusal = Act::refuses(401, (wire.error)(401, &format!("no such key: {KEY}")), vec![]);
        let (_, error, calls) = fails(&wire, vec![refusal]).await;
        let told = ModelError::Status { status: 401, message: "no such key: [api key]".into(), retry_after: None };
        assert_eq!((error, calls), (told, 1), "{}", wire.api);
        let page = format!("<html>{KEY}{}</html>", "x".repeat(100_000));
        let page = Act::Reply { status: 404, headers: vec![("content-type", "text/html")], body: page };
        let (_, error, _) = fails(&wire, vec![page]).await;
        assert!(matches!(error, ModelError::Status { status: 404, .. }), "{error}");
        let shown = error.to_string();
        assert!(shown.contains("<html>[api key]xxx") && shown.len() < 2200, "{shown}");
    }
}

#[tokio::test]
async fn an_error_in_the_middle_is_told_and_not_tried_again() {
    for wire in all() {
        let (error, status) = (wire.midway)(&format!("overloaded {KEY}"));
        let parts = [(wire.half)(), vec![error]].concat();
        let (before, error, calls) = fails(&wire, vec![Act::streams(wire.kind, parts), wire.hello()]).await;
        assert_eq!(before.last(), Some(&ChatEvent::Text("Hel".into())), "{}", wire.api);
        let told = ModelError::Status { status, message: "overloaded [api key]".into(), retry_after: None };
        assert_eq!((error, calls), (told, 1), "{}", wire.api);
    }
}

#[tokio::test]
async fn an_error_before_the_first_piece_is_tried_again() {
    for wire in all() {
        let (error, _) = (wire.midway)("overloaded");
        let fake = Fake::new(vec![Act::streams(wire.kind, vec![error]), wire.hello()]).await;
        let (_, response) = whole(ask(&fake.options(wire.api), request()).await);
        assert_eq!((response.text.as_str(), fake.calls()), ("Hello", 2), "{}", wire.api);
    }
}

#[tokio::test]
async fn an_answer_without_its_end_is_truncated() {
    for wire in all() {
        for act in [Act::streams(wire.kind, (wire.half)()), Act::breaks(wire.kind, (wire.half)())] {
            let (before, error, calls) = fails(&wire, vec![act, wire.hello()]).await;
            assert_eq!(before.last(), Some(&ChatEvent::Text("Hel".into())), "{}", wire.api);
            assert!(matches!(error, ModelError::Truncated(_)), "{}: {error:?}", wire.api);
            assert_eq!(calls, 1, "nobody is told the same words twice");
        }
    }
}

#[tokio::test]
async fn bytes_may_come_in_any_pieces() {
    for wire in all() {
        let fake = Fake::new(vec![Act::trickles(wire.kind, (wire.hello)())]).await;
        let (_, response) = whole(ask(&fake.options(wire.api), request()).await);
        assert_eq!(response.text, "Hello", "{}", wire.api);
    }
}

#[tokio::test]
async fn garbage_is_malformed_with_an_excerpt() {
    for wire in all() {
        let oops = if wire.kind.contains("event") { "data: {\"a\": oops\n\n" } else { "{\"a\": oops\n" };
        let (_, error, calls) = fails(&wire, vec![Act::streams(wire.kind, vec![oops.into()])]).await;
        assert!(matches!(&error, ModelError::Malformed(why) if why.contains("oops")), "{}: {error:?}", wire.api);
        assert_eq!(calls, 1);
        let page = Act::Reply { status: 200, headers: vec![("content-type", "text/html")], body: "<p>hi</p>".into() };
        let (_, error, _) = fails(&wire, vec![page]).await;
        assert!(matches!(&error, ModelError::Malformed(why) if why.contains("<p>hi</p>")), "{}: {error:?}", wire.api);
        let empty = Act::streams(wire.kind, vec![]);
        let (_, error, _) = fails(&wire, vec![empty]).await;
        assert_eq!(error, ModelError::Malformed("the model answered nothing".into()), "{}", wire.api);
    }
}

#[tokio::test]
async fn silence_is_not_waited_for_for_ever() {
    for wire in all() {
        let (short, long) = (Duration::from_millis(300), Duration::from_secs(180));
        // A first piece that comes late on a busy machine is no silence after it.
        let cases = [(vec![], short, "no answer within 300ms"), ((wire.half)(), long, "nothing more for 300ms")];
        for (parts, first_token, told) in cases {
            let timeouts = Timeouts { connect: long, first_token, between_tokens: short };
            let fake = Fake::new(vec![Act::goes_silent(wire.kind, parts)]).await;
            let options =
                ModelOptions { timeouts, retry: daybook_models::RetryPolicy::NEVER, ..fake.options(wire.api) };
            let (_, error) = failed(ask(&options, request()).await);
            assert_eq!(error, ModelError::Timeout(told.into()), "{}", wire.api);
        }
    }
}

#[tokio::test]
async fn a_server_that_is_not_there_is_unreachable() {
    for wire in all() {
        // A port below 1024 that nothing uses: one that was free a moment ago may be somebody's by now.
        let base_url = format!("http://127.0.0.1:1/{KEY}");
        let options = ModelOptions {
            base_url,
            api_key: Some(KEY.into()),
            retry: daybook_models::RetryPolicy::NEVER,
            ..ModelOptions::new(wire.api, "fake-1")
        };
        let (_, error) = failed(ask(&options, request()).await);
        assert!(matches!(error, ModelError::Unreachable(_)), "{error:?}");
        let shown = error.to_string();
        assert!(shown.contains("refused") && !shown.contains(KEY) && error.is_retryable(), "{shown}");
    }
}

#[tokio::test]
async fn dropping_the_stream_closes_the_connection() {
    for wire in all() {
        let listener = net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base_url = format!("http://{}", listener.local_addr().unwrap());
        let (kind, half) = (wire.kind, (wire.half)().concat());
        let mut server = JoinSet::new();
        server.spawn(async move {
            let (mut client, _) = listener.accept().await?;
            let (mut request, mut buffer) = (Vec::new(), [0; 4096]);
            while !request.ends_with(b"}") {
                let read = client.read(&mut buffer).await?;
                request.extend_from_slice(&buffer[..read]);
            }
            client.write_all(format!("HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\n\r\n{half}").as_bytes()).await?;
            // Ends when the client closes the connection, and not before.
            client.read(&mut buffer).await
        });
        let options = ModelOptions { base_url, ..ModelOptions::new(wire.api, "fake-1") };
        let mut answer = ProviderModel::retrying(&options).unwrap().stream(request()).await.unwrap();
        while !matches!(answer.next().await, Some(Ok(ChatEvent::Text(_)))) {}
        assert!(server.try_join_next().is_none());
        drop(answer);
        let closed = tokio::time::timeout(Duration::from_secs(180), server.join_next()).await;
        let read = closed.expect("the connection is still open").unwrap().unwrap();
        assert!(!read.is_ok_and(|read| read > 0), "{}", wire.api);
    }
}

#[tokio::test]
async fn a_server_without_a_key_gets_none_and_no_key_is_in_an_address() {
    for wire in all() {
        let fake = Fake::new(vec![wire.hello(), wire.hello()]).await;
        whole(ask(&fake.options(wire.api), request()).await);
        let call = fake.take_call();
        assert!(!call.path.contains(KEY), "{}", call.path);
        let sent = call.headers.values().filter(|value| value.to_str().is_ok_and(|text| text.contains(KEY))).count();
        assert_eq!(sent, 1, "{}", wire.api);
        whole(ask(&ModelOptions { api_key: None, ..fake.options(wire.api) }, request()).await);
        let call = fake.take_call();
        for name in ["authorization", "x-api-key", "x-goog-api-key"] {
            assert_eq!(call.header(name), None, "{}", wire.api);
        }
    }
}

#[test]
fn wrong_options_are_refused_and_debug_shows_no_key() {
    for wire in all() {
        let options = |base_url: &str| ModelOptions {
            base_url: base_url.to_owned(),
            api_key: Some(KEY.into()),
            ..ModelOptions::new(wire.api, "m")
        };
        for url in ["localhost", "ftp://h", "https://h/v1?key=x", "https://me:s3cret@h"] {
            let Err(error) = ProviderModel::new(&options(url)) else { panic!("accepted {url}") };
            assert!(matches!(error, SetupError::BaseUrl { .. }) && !error.to_string().contains("s3cret"), "{error}");
        }
        let no_model = ModelOptions::new(wire.api, " ");
        assert!(matches!(ProviderModel::new(&no_model), Err(SetupError::NoModel)));
        let key = ModelOptions { api_key: Some("two\nlines".into()), ..options("http://h") };
        assert!(matches!(ProviderModel::new(&key), Err(SetupError::ApiKey(_))));
        let fine = options("https://h/v1");
        let shown = format!("{fine:?} {:?}", ProviderModel::retrying(&fine).unwrap());
        assert!(!shown.contains(KEY), "{shown}");
        let option = ModelOptions { max_tokens: Some(0), ..fine.clone() };
        assert!(matches!(ProviderModel::new(&option), Err(SetupError::Option { option: "max_tokens", .. })));
    }
}

#[test]
fn options_of_other_protocols_are_refused_not_ignored() {
    let given = |api: Api, change: fn(&mut ModelOptions)| {
        let mut options = ModelOptions::new(api, "m");
        change(&mut options);
        ProviderModel::new(&options).err().map(|error| error.to_string())
    };
    let cache = |options: &mut ModelOptions| options.prompt_cache = Some(daybook_models::CacheTime::OneHour);
    let key = |options: &mut ModelOptions| options.prompt_cache_key = Some("k".into());
    let alive = |options: &mut ModelOptions| options.keep_alive = Some("5m".into());
    let context = |options: &mut ModelOptions| options.context_tokens = Some(4096);
    for wire in all() {
        assert_eq!(given(wire.api, cache).is_none(), wire.api == Api::Anthropic);
        assert_eq!(given(wire.api, key).is_none(), matches!(wire.api, Api::OpenAiChat | Api::OpenAiResponses));
        assert_eq!(given(wire.api, alive).is_none(), wire.api == Api::Ollama);
        assert_eq!(given(wire.api, context).is_none(), wire.api == Api::Ollama);
    }
    let told = given(Api::Gemini, cache).unwrap();
    assert_eq!(told, "prompt_cache of model `m`: gemini has no such option, only anthropic has it");
    let told = given(Api::Ollama, key).unwrap();
    assert_eq!(
        told,
        "prompt_cache_key of model `m`: ollama has no such option, only openai and openai-responses have it"
    );
}
