//! The OpenAI-compatible provider against a scripted server on loopback.

use std::time::Duration;

use daybook_models::{Api, ChatEvent, ChatModel, ModelError, ModelOptions, ProviderModel, Timeouts};
use futures::StreamExt;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net;
use tokio::task::JoinSet;

use crate::every::Wire;
use crate::fake::{self, Act, EVENTS, quick_retries, request, whole};

pub const WIRE: Wire = Wire {
    api: Api::OpenAiChat,
    kind: EVENTS,
    hello: || vec![said("Hel"), said("lo"), chunk(json!({}), Some("stop")), usage(), DONE.into()],
    half: || vec![said("Hel")],
    error: |status, message| {
        let kind = if status == 429 { "rate_limit_exceeded" } else { "server_error" };
        json!({"error": {"message": message, "type": kind, "param": null, "code": null}}).to_string()
    },
    midway: |message| (format!("data: {}\n\n", json!({"error": {"message": message, "code": 503}})), 503),
};

/// A server that speaks chat completions.
pub struct Fake(pub fake::Fake);

impl Fake {
    pub async fn new(acts: Vec<Act>) -> Self {
        Self(fake::Fake::new(acts).await)
    }

    pub fn options(&self) -> ModelOptions {
        ModelOptions {
            base_url: format!("{}/v1/", self.0.base_url),
            api_key: Some("sk-secret".into()),
            retry: quick_retries(),
            ..ModelOptions::new(Api::OpenAiChat, "fake-1")
        }
    }

    pub fn calls(&self) -> usize {
        self.0.calls()
    }

    /// Everything that comes for a plain question.
    pub async fn ask(&self) -> Vec<Result<ChatEvent, ModelError>> {
        ProviderModel::retrying(&self.options()).unwrap().stream(request()).await.unwrap().collect().await
    }

    /// The error a plain question ends in, and what came before it.
    pub async fn fails(&self) -> (Vec<ChatEvent>, ModelError) {
        fake::failed(self.ask().await)
    }
}

pub fn chunk(delta: Value, finish: Option<&str>) -> String {
    let choice = json!({"index": 0, "delta": delta, "finish_reason": finish});
    let chunk = json!({"id": "r1", "object": "chat.completion.chunk", "created": 1, "model": "fake-1",
        "system_fingerprint": "fp1", "choices": [choice]});
    format!("data: {chunk}\n\n")
}

pub fn said(text: &str) -> String {
    chunk(json!({"content": text}), None)
}

pub fn calls(calls: Value) -> String {
    chunk(json!({"tool_calls": calls}), None)
}

pub fn usage() -> String {
    let usage = json!({"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18,
        "prompt_tokens_details": {"cached_tokens": 4}, "completion_tokens_details": {"reasoning_tokens": 3}});
    format!("data: {}\n\n", json!({"id": "r1", "object": "chat.completion.chunk", "choices": [], "usage": usage}))
}

pub const DONE: &str = "data: [DONE]\n\n";

pub fn streams(parts: Vec<String>) -> Act {
    Act::streams(EVENTS, parts)
}

pub fn hello() -> Act {
    streams(vec![said("Hello"), chunk(json!({}), Some("stop")), usage(), DONE.into()])
}

fn refuses(status: u16, message: &str, headers: Vec<(&'static str, &'static str)>) -> Act {
    Act::Reply { status, headers, body: json!({"error": {"message": message, "type": "server_error"}}).to_string() }
}

#[tokio::test]
async fn text_and_reasoning_arrive_in_pieces_and_whole() {
    let fake = Fake::new(vec![streams(vec![
        chunk(json!({"role": "assistant", "content": ""}), None),
        chunk(json!({"reasoning_content": "thinking "}), None),
        chunk(json!({"reasoning_content": "hard"}), None),
        said("Hi"),
        ": a comment\n\n".into(),
        said(" Älice"),
        chunk(json!({}), Some("stop")),
        usage(),
        DONE.into(),
    ])])
    .await;
    let (events, response) = whole(fake.ask().await);
    let about = json!({"id": "r1", "system_fingerprint": "fp1"});
    assert_eq!(
        events,
        vec![
            ChatEvent::ProviderData(about.clone()),
            ChatEvent::Reasoning("thinking ".into()),
            ChatEvent::Reasoning("hard".into()),
            ChatEvent::Text("Hi".into()),
            ChatEvent::Text(" Älice".into()),
        ]
    );
    assert_eq!(response.text, "Hi Älice");
    assert_eq!(response.reasoning.as_deref(), Some("thinking hard"));
    assert_eq!(response.finish_reason, "stop");
    assert_eq!(response.provider_data, Some(about));
    let usage = response.metrics.usage;
    assert_eq!((usage.input_tokens, usage.output_tokens, usage.total_tokens), (11, 7, 18));
    assert_eq!((usage.cache_read_tokens, usage.reasoning_tokens), (4, 3));
    assert!(response.metrics.time_to_first_token.unwrap() <= response.metrics.duration);
}

#[tokio::test]
async fn the_request_is_plain_chat_completions() {
    let fake = Fake::new(vec![hello()]).await;
    whole(fake.ask().await);
    let call = fake.0.take_call();
    let body = &call.body;
    assert_eq!(call.header("authorization"), Some("Bearer sk-secret"));
    assert_eq!(call.path, "/v1/chat/completions");
    let messages = json!([{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]);
    assert_eq!(body["messages"], messages);
    assert_eq!(body["model"], "fake-1");
    assert_eq!((&body["stream"], &body["stream_options"]), (&json!(true), &json!({"include_usage": true})));
    assert_eq!((&body["temperature"], &body["max_tokens"]), (&json!(0.5), &json!(100)));
    assert_eq!(body["tools"][0]["type"], "function");
    assert_eq!(body["tools"][0]["function"]["name"], "weather");
    assert_eq!(body["tools"][0]["function"]["parameters"], request().tools[0].parameters);
}

#[tokio::test]
async fn a_server_without_a_key_gets_none() {
    let fake = Fake::new(vec![hello()]).await;
    let model = ProviderModel::new(&ModelOptions { api_key: None, ..fake.options() }).unwrap();
    whole(model.stream(request()).await.unwrap().collect().await);
    assert_eq!(fake.0.take_call().header("authorization"), None);
}

#[tokio::test]
async fn parallel_tool_calls_keep_order_ids_and_bytes() {
    let call = |index: u64, id: &str, name: &str| json!({"index": index, "id": id, "type": "function", "function": {"name": name, "arguments": ""}});
    let more = |index: u64, arguments: &str| json!({"index": index, "function": {"arguments": arguments}});
    let fake = Fake::new(vec![streams(vec![
        said("Let me look."),
        calls(json!([call(0, "call_a", "weather"), call(1, "call_b", "clock")])),
        calls(json!([more(0, "{\"ci")])),
        calls(json!([more(1, "{}"), more(0, "ty\":  1.0")])),
        calls(json!([more(0, ", \"city\":\"Oslo\" }")])),
        chunk(json!({}), Some("tool_calls")),
        usage(),
        DONE.into(),
    ])])
    .await;
    let (events, response) = whole(fake.ask().await);
    let got: Vec<_> = response.tool_calls.iter().map(|c| (&*c.id, &*c.name, &*c.arguments)).collect();
    let arguments = "{\"city\":  1.0, \"city\":\"Oslo\" }";
    assert_eq!(got, [("call_a", "weather", arguments), ("call_b", "clock", "{}")]);
    assert_eq!((response.text.as_str(), response.finish_reason.as_str()), ("Let me look.", "tool_calls"));
    let mut deltas = [String::new(), String::new()];
    for event in &events {
        if let ChatEvent::ToolArguments { index, id, name, delta } = event {
            assert_eq!((id, name), (&response.tool_calls[*index].id, &response.tool_calls[*index].name));
            deltas[*index].push_str(delta);
        }
    }
    assert_eq!(deltas, [arguments, "{}"]);
}

#[tokio::test]
async fn malformed_arguments_are_kept_as_they_came() {
    let call = json!([{"index": 0, "id": "c", "type": "function",
        "function": {"name": "weather", "arguments": "{\"city\": Osl"}}]);
    let end = chunk(json!({}), Some("tool_calls"));
    let fake = Fake::new(vec![streams(vec![calls(call), end, DONE.into()])]).await;
    let (_, response) = whole(fake.ask().await);
    assert_eq!(response.tool_calls[0].arguments, "{\"city\": Osl");
    assert!(response.tool_calls[0].parsed().is_err());
}

#[tokio::test]
async fn missing_and_repeated_call_ids_are_made_unique() {
    let call = |index: u64, id: Value| json!({"index": index, "id": id, "type": "function", "function": {"name": "weather", "arguments": "{}"}});
    let all = json!([call(0, json!("same")), call(1, json!("same")), call(2, Value::Null), call(3, json!(""))]);
    let fake = Fake::new(vec![streams(vec![calls(all), chunk(json!({}), Some("tool_calls")), DONE.into()])]).await;
    let (_, response) = whole(fake.ask().await);
    let mut ids: Vec<&str> = response.tool_calls.iter().map(|call| call.id.as_str()).collect();
    assert_eq!(ids[0], "same");
    assert!(ids[1..].iter().all(|id| id.starts_with("call_")), "{ids:?}");
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 4);
    assert!(response.tool_calls.iter().all(|call| call.arguments == "{}"));
}

#[tokio::test]
async fn a_server_that_does_not_stream_is_understood() {
    let message = json!({"role": "assistant", "content": "Hello", "tool_calls": [
        {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": {"city": "Oslo"}}}]});
    let body = json!({"id": "r2", "object": "chat.completion", "usage": {"prompt_tokens": 3, "completion_tokens": 2},
        "choices": [{"index": 0, "message": message, "finish_reason": "tool_calls"}]});
    let headers = vec![("content-type", "application/json")];
    let fake = Fake::new(vec![Act::Reply { status: 200, headers, body: body.to_string() }]).await;
    let (_, response) = whole(fake.ask().await);
    assert_eq!(response.text, "Hello");
    assert_eq!((&*response.tool_calls[0].id, &*response.tool_calls[0].arguments), ("c1", r#"{"city":"Oslo"}"#));
    assert_eq!(response.metrics.usage.total_tokens, 5);
    assert_eq!(response.provider_data, Some(json!({"id": "r2"})));
}

#[tokio::test]
async fn a_rate_limit_is_waited_for() {
    let fake = Fake::new(vec![refuses(429, "slow down", vec![("retry-after", "1")]), hello()]).await;
    let before = std::time::Instant::now();
    let (_, response) = whole(fake.ask().await);
    assert_eq!((response.text.as_str(), fake.calls()), ("Hello", 2));
    assert!(before.elapsed() >= Duration::from_secs(1));
}

#[tokio::test]
async fn a_rate_limit_beyond_patience_is_told() {
    let fake = Fake::new(vec![refuses(429, "slow down", vec![("retry-after", "3600")])]).await;
    let retry_after = Some(Duration::from_secs(60));
    let told = ModelError::Status { status: 429, message: "slow down".into(), retry_after };
    assert_eq!((fake.fails().await.1, fake.calls()), (told, 1));
}

#[tokio::test]
async fn a_server_that_keeps_failing_is_given_up_with_its_own_words() {
    let failure = || refuses(500, "scripted failure", vec![]);
    let fake = Fake::new(vec![failure(), failure(), failure()]).await;
    let (before, error) = fake.fails().await;
    assert_eq!((before, fake.calls()), (vec![], 3));
    assert_eq!(error.to_string(), "scripted failure");
    assert!(matches!(error, ModelError::Status { status: 500, .. }));
}

#[tokio::test]
async fn a_refusal_is_not_tried_again_and_shows_no_key() {
    let fake = Fake::new(vec![refuses(401, "Incorrect API key: sk-secret", vec![])]).await;
    let (_, error) = fake.fails().await;
    assert_eq!(fake.calls(), 1);
    let told = ModelError::Status { status: 401, message: "Incorrect API key: [api key]".into(), retry_after: None };
    assert_eq!(error, told);
}

#[tokio::test]
async fn an_error_without_json_is_told_in_short() {
    let body = format!("<html>{}</html>", "x".repeat(100_000));
    let fake = Fake::new(vec![Act::Reply { status: 404, headers: vec![("content-type", "text/html")], body }]).await;
    let (_, error) = fake.fails().await;
    assert!(matches!(error, ModelError::Status { status: 404, .. }), "{error}");
    assert!(error.to_string().contains("<html>xxx") && error.to_string().len() < 2200, "{error}");
}

#[tokio::test]
async fn an_error_in_the_middle_is_told_and_not_tried_again() {
    let error = format!("data: {}\n\n", json!({"error": {"message": "overloaded", "code": 503}}));
    let fake = Fake::new(vec![streams(vec![said("Hel"), error]), hello()]).await;
    let (before, error) = fake.fails().await;
    assert_eq!(before.last(), Some(&ChatEvent::Text("Hel".into())));
    assert_eq!(error, ModelError::Status { status: 503, message: "overloaded".into(), retry_after: None });
    assert_eq!(fake.calls(), 1);
}

#[tokio::test]
async fn an_error_beside_a_choice_is_an_error() {
    let choice = json!([{"index": 0, "delta": {"content": ""}, "finish_reason": "error"}]);
    let error = json!({"id": "r", "object": "chat.completion.chunk", "choices": choice,
        "error": {"message": "upstream gone", "code": 400}});
    let fake = Fake::new(vec![streams(vec![said("Hel"), format!("data: {error}\n\n"), DONE.into()])]).await;
    assert_eq!(fake.fails().await.1.to_string(), "upstream gone");
}

#[tokio::test]
async fn a_stream_without_its_end_is_truncated() {
    let fake = Fake::new(vec![streams(vec![said("Hel")])]).await;
    let (before, error) = fake.fails().await;
    assert_eq!(before.last(), Some(&ChatEvent::Text("Hel".into())));
    assert!(matches!(error, ModelError::Truncated(_)), "{error}");
}

#[tokio::test]
async fn a_broken_connection_is_truncated() {
    let fake = Fake::new(vec![Act::breaks(EVENTS, vec![said("Hel")])]).await;
    let (before, error) = fake.fails().await;
    assert_eq!(before.last(), Some(&ChatEvent::Text("Hel".into())));
    assert!(matches!(error, ModelError::Truncated(_)), "{error:?}");
}

#[tokio::test]
async fn garbage_is_malformed_with_an_excerpt() {
    let json_kind = vec![("content-type", "application/json")];
    let half = Act::Reply { status: 200, headers: json_kind, body: "{\"choices\": [{\"mess".into() };
    let foreign = format!("data: {}\n\n", json!({"greeting": "moin"}));
    let cases = [
        (half, "{\"choices\": [{\"mess"),
        (streams(vec!["data: {\"choices\": oops\n\n".into()]), "oops"),
        (streams(vec![foreign, DONE.into()]), "nothing"),
        (streams(vec!["no event at all\n\n".into()]), "nothing"),
    ];
    for (act, excerpt) in cases {
        let fake = Fake::new(vec![act]).await;
        let (_, error) = fake.fails().await;
        assert!(matches!(error, ModelError::Malformed(_)), "{error:?}");
        assert!(error.to_string().contains(excerpt), "{error} has no {excerpt}");
        assert_eq!(fake.calls(), 1);
    }
}

#[tokio::test]
async fn an_empty_answer_is_no_answer() {
    let role = chunk(json!({"role": "assistant", "content": ""}), None);
    let json_kind = vec![("content-type", "application/json")];
    let cases = [
        streams(vec![DONE.into()]),
        streams(vec![]),
        streams(vec![role, DONE.into()]),
        Act::Reply { status: 200, headers: json_kind, body: String::new() },
    ];
    for act in cases {
        let (_, error) = Fake::new(vec![act]).await.fails().await;
        assert_eq!(error, ModelError::Malformed("the model answered nothing".into()));
    }
    let stopped = streams(vec![chunk(json!({"content": ""}), Some("stop")), DONE.into()]);
    let (_, response) = whole(Fake::new(vec![stopped]).await.ask().await);
    assert_eq!((response.text.as_str(), response.finish_reason.as_str()), ("", "stop"));
}

#[tokio::test]
async fn unusual_ends_are_passed_on() {
    for (reason, expected) in [(Some("length"), "length"), (Some("eos_token"), "eos_token"), (None, "stop")] {
        let fake = Fake::new(vec![streams(vec![said("Hi"), chunk(json!({}), reason), DONE.into()])]).await;
        let (_, response) = whole(fake.ask().await);
        assert_eq!((response.text.as_str(), response.finish_reason.as_str()), ("Hi", expected));
    }
}

/// Short enough to wait for.
const SHORT: Duration = Duration::from_millis(300);

/// The error when the server sends `parts` and then nothing, without an end; the first piece may take `first_token`.
async fn silence_after(parts: Vec<String>, first_token: Duration) -> ModelError {
    let fake = Fake::new(vec![Act::goes_silent(EVENTS, parts)]).await;
    let timeouts = Timeouts { connect: Duration::from_secs(180), first_token, between_tokens: SHORT };
    let model = ProviderModel::new(&ModelOptions { timeouts, ..fake.options() }).unwrap();
    let mut came: Vec<_> = model.stream(request()).await.unwrap().collect().await;
    came.pop().unwrap().expect_err("an answer")
}

#[tokio::test]
async fn silence_is_not_waited_for_for_ever() {
    let first = ModelError::Timeout("no answer within 300ms".into());
    assert_eq!(silence_after(vec![], SHORT).await, first);
    let no_words = vec![": still here\n\n".into(), chunk(json!({"role": "assistant"}), None)];
    assert_eq!(silence_after(no_words, SHORT).await, first);
    // A word that comes late on a busy machine is no silence after it.
    let silence = silence_after(vec![said("Hel")], Duration::from_secs(180)).await;
    assert_eq!(silence, ModelError::Timeout("nothing more for 300ms".into()));
}

#[tokio::test]
async fn a_server_that_is_not_there_is_unreachable() {
    // A port below 1024 that nothing uses: one that was free a moment ago may be somebody's by now.
    let base_url = "http://127.0.0.1:1/v1".to_owned();
    let model = ProviderModel::new(&ModelOptions { base_url, ..ModelOptions::new(Api::OpenAiChat, "fake-1") }).unwrap();
    let mut came: Vec<_> = model.stream(request()).await.unwrap().collect().await;
    let error = came.pop().unwrap().expect_err("an answer");
    assert!(matches!(error, ModelError::Unreachable(_)), "{error:?}");
    assert!(error.to_string().contains("refused") && error.is_retryable(), "{error}");
}

#[tokio::test]
async fn dropping_the_stream_closes_the_connection() {
    let listener = net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base_url = format!("http://{}/v1", listener.local_addr().unwrap());
    let mut server = JoinSet::new();
    server.spawn(async move {
        let (mut client, _) = listener.accept().await?;
        let (mut request, mut buffer) = (Vec::new(), [0; 4096]);
        while !request.ends_with(b"}") {
            let read = client.read(&mut buffer).await?;
            request.extend_from_slice(&buffer[..read]);
        }
        let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n";
        client.write_all(format!("{head}{}", said("Hel")).as_bytes()).await?;
        // Ends when the client closes the connection, and not before.
        client.read(&mut buffer).await
    });
    let options = ModelOptions { base_url, ..ModelOptions::new(Api::OpenAiChat, "fake-1") };
    let mut answer = ProviderModel::retrying(&options).unwrap().stream(request()).await.unwrap();
    while !matches!(answer.next().await, Some(Ok(ChatEvent::Text(_)))) {}
    assert!(server.try_join_next().is_none());
    drop(answer);
    let closed = tokio::time::timeout(Duration::from_secs(180), server.join_next()).await;
    let read = closed.expect("the connection is still open").unwrap().unwrap();
    assert!(!read.is_ok_and(|read| read > 0));
}
