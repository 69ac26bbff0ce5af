//! A model server on bare hyper: OpenAI's chat completions, whole or streamed, with delays that the options give.
//! Without delays an answer is one write of prepared bytes, so that the model is never the limit. Who offers it tools sees
//! it call the calculator once.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use futures::stream::{self, BoxStream, StreamExt as _};
use http_body_util::{BodyExt as _, Either, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::header::CONTENT_TYPE;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use crate::error::Error;
use crate::serving;

/// The options of `daybook-bench mock-model`.
#[derive(Debug, Clone, Args)]
pub struct Options {
    /// The port; 0 takes a free one
    #[arg(long, default_value_t = 0)]
    port: u16,
    /// Milliseconds from a request to its first token
    #[arg(long, default_value_t = 0)]
    first_token_ms: u64,
    /// Milliseconds from one token to the next
    #[arg(long, default_value_t = 0)]
    between_tokens_ms: u64,
    /// The tokens of an answer
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    tokens: u32,
    /// Send the first token of a stream, and hold the rest until the client goes away
    #[arg(long)]
    hold: bool,
}

impl Options {
    /// When the token of this number, from 0, is sent after a request came.
    fn due(&self, token: u32) -> Duration {
        Duration::from_millis(self.first_token_ms + self.between_tokens_ms * u64::from(token))
    }

    fn is_immediate(&self) -> bool {
        self.due(self.tokens - 1).is_zero() && !self.hold
    }
}

/// What is answered, written once.
struct Answers {
    options: Options,
    whole: Bytes,
    /// One for each token; the last one also ends the stream.
    pieces: Vec<Bytes>,
    /// All pieces.
    stream: Bytes,
    /// A call of the calculator, whole and as a stream.
    call: [Bytes; 2],
}

impl Answers {
    fn new(options: Options) -> Self {
        let tokens: Vec<String> = (0..options.tokens).map(|n| format!("token{n} ")).collect();
        let usage = json!({"prompt_tokens": 10, "completion_tokens": tokens.len(), "total_tokens": 10 + tokens.len()});
        let message = json!({"role": "assistant", "content": tokens.concat()});
        let whole = json!({"id": "chatcmpl-mock", "object": "chat.completion", "created": 1, "model": "mock",
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}], "usage": usage});
        let mut pieces: Vec<String> =
            tokens.iter().map(|token| chunk(json!([{"index": 0, "delta": {"content": token}}]), None)).collect();
        let opening = json!([{"index": 0, "delta": {"role": "assistant", "content": ""}}]);
        if let Some(first) = pieces.first_mut() {
            first.insert_str(0, &chunk(opening, None));
        }
        if let Some(last) = pieces.last_mut() {
            last.push_str(&chunk(json!([{"index": 0, "delta": {}, "finish_reason": "stop"}]), None));
            last.push_str(&chunk(json!([]), Some(usage)));
            last.push_str("data: [DONE]\n\n");
        }
        let stream = Bytes::from(pieces.concat());
        Self {
            options,
            whole: Bytes::from(whole.to_string()),
            pieces: pieces.into_iter().map(Bytes::from).collect(),
            stream,
            call: call(),
        }
    }
}

fn call() -> [Bytes; 2] {
    let function = json!({"name": "calculator", "arguments": "{\"expression\": \"1+1\"}"});
    let call = json!([{"index": 0, "id": "call_mock", "type": "function", "function": function}]);
    let usage = json!({"prompt_tokens": 10, "completion_tokens": 10, "total_tokens": 20});
    let message = json!({"role": "assistant", "content": null, "tool_calls": call});
    let whole = json!({"id": "chatcmpl-mock", "object": "chat.completion", "created": 1, "model": "mock",
        "choices": [{"index": 0, "message": message, "finish_reason": "tool_calls"}], "usage": usage});
    let called = json!([{"index": 0, "delta": {"role": "assistant", "tool_calls": call}}]);
    let end = json!([{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]);
    let stream = [chunk(called, None), chunk(end, None), chunk(json!([]), Some(usage)), "data: [DONE]\n\n".to_owned()];
    [Bytes::from(whole.to_string()), Bytes::from(stream.concat())]
}

fn chunk(choices: Value, usage: Option<Value>) -> String {
    let mut chunk = json!({"id": "chatcmpl-mock", "object": "chat.completion.chunk", "created": 1, "model": "mock",
        "choices": choices});
    if let Some(usage) = usage {
        chunk["usage"] = usage;
    }
    format!("data: {chunk}\n\n")
}

/// What matters of a request.
#[derive(Deserialize)]
struct Asked {
    #[serde(default)]
    stream: bool,
    #[serde(default)]
    tools: Vec<IgnoredAny>,
    #[serde(default)]
    messages: Vec<Message>,
}

#[derive(Deserialize)]
struct Message {
    role: String,
}

impl Asked {
    /// Whether it is the turn of a tool.
    fn wants_call(&self) -> bool {
        !self.tools.is_empty() && self.messages.last().is_some_and(|last| last.role == "user")
    }
}

type Body = Either<Full<Bytes>, StreamBody<BoxStream<'static, Result<Frame<Bytes>, Infallible>>>>;

/// Serves until SIGTERM or SIGINT.
pub async fn run(options: Options) -> Result<(), Error> {
    let listener = TcpListener::bind(("127.0.0.1", options.port)).await.map_err(Error::io("listen"))?;
    serving::announce(listener.local_addr().map_err(Error::io("listen"))?)?;
    tokio::select! {
        ended = accept(listener, options) => ended,
        asked = serving::asked_to_end() => asked,
    }
}

/// Serves until dropped.
async fn accept(listener: TcpListener, options: Options) -> Result<(), Error> {
    let answers = Arc::new(Answers::new(options));
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let (stream, _) = accepted.map_err(Error::io("accept a connection"))?;
                connections.spawn(serve(stream, answers.clone()));
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn serve(stream: TcpStream, answers: Arc<Answers>) {
    stream.set_nodelay(true).ok();
    let service = service_fn(|request| {
        let answers = answers.clone();
        async move { answer(request, &answers).await }
    });
    // A client that goes away is no mistake here.
    http1::Builder::new().serve_connection(TokioIo::new(stream), service).await.ok();
}

async fn answer(request: Request<Incoming>, answers: &Arc<Answers>) -> Result<Response<Body>, hyper::Error> {
    let came = Instant::now();
    let is_chat = request.method() == Method::POST && request.uri().path().ends_with("/chat/completions");
    let body = request.into_body().collect().await?.to_bytes();
    let asked = serde_json::from_slice::<Asked>(&body).ok().filter(|_| is_chat);
    let Some(asked) = asked else {
        let mut refused = Response::new(Either::Left(Full::from("POST a chat completion to /v1/chat/completions")));
        *refused.status_mut() = StatusCode::NOT_FOUND;
        return Ok(refused);
    };
    let [whole_call, streamed_call] = &answers.call;
    let (kind, body) = if asked.wants_call() {
        let (kind, call) =
            if asked.stream { ("text/event-stream", streamed_call) } else { ("application/json", whole_call) };
        (kind, Either::Left(Full::new(call.clone())))
    } else if !asked.stream {
        sleep_until(came + answers.options.due(answers.options.tokens - 1)).await;
        ("application/json", Either::Left(Full::new(answers.whole.clone())))
    } else if answers.options.is_immediate() {
        ("text/event-stream", Either::Left(Full::new(answers.stream.clone())))
    } else {
        ("text/event-stream", Either::Right(StreamBody::new(paced(came, answers.clone()))))
    };
    let mut response = Response::new(body);
    response.headers_mut().insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static(kind));
    Ok(response)
}

/// The pieces, each at its time.
fn paced(came: Instant, answers: Arc<Answers>) -> BoxStream<'static, Result<Frame<Bytes>, Infallible>> {
    let pieces = stream::iter(0..answers.options.tokens).then(move |token| {
        let answers = answers.clone();
        async move {
            if answers.options.hold && token > 0 {
                std::future::pending::<()>().await;
            }
            sleep_until(came + answers.options.due(token)).await;
            Ok(Frame::data(answers.pieces.get(token as usize).cloned().unwrap_or_default()))
        }
    });
    pieces.boxed()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::{Ask, Connection, Failed, body_of};
    use crate::load::{Kind, Seen};
    use crate::sse::Reader;

    fn options(first_token_ms: u64, between_tokens_ms: u64) -> Options {
        Options { port: 0, first_token_ms, between_tokens_ms, tokens: 3, hold: false }
    }

    #[test]
    fn a_stream_holds_every_token_its_usage_and_its_end() {
        let answers = Answers::new(options(0, 0));
        assert_eq!(answers.pieces.concat(), answers.stream);
        let (mut reader, mut told) = (Reader::default(), Vec::new());
        reader.push(&answers.stream, |_, data| told.push(data.to_owned()));
        assert_eq!(told.pop().unwrap(), "[DONE]");
        let chunks: Vec<Value> = told.iter().map(|data| serde_json::from_str(data).unwrap()).collect();
        let text: String = chunks.iter().filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str()).collect();
        assert_eq!(text, "token0 token1 token2 ");
        assert_eq!(chunks[chunks.len() - 1]["usage"]["completion_tokens"], 3);
        assert_eq!(chunks[chunks.len() - 2]["choices"][0]["finish_reason"], "stop");
        let whole: Value = serde_json::from_slice(&answers.whole).unwrap();
        assert_eq!(whole["choices"][0]["message"]["content"], text);
    }

    #[test]
    fn tokens_are_due_after_the_first_at_equal_distances() {
        let slow = options(20, 2);
        assert_eq!([0, 1, 2].map(|token| slow.due(token).as_millis()), [20, 22, 24]);
        assert!(!slow.is_immediate() && options(0, 0).is_immediate());
        assert!(!Options { hold: true, ..options(0, 0) }.is_immediate());
    }

    async fn serving(options: Options) -> (JoinSet<Result<(), Error>>, Connection) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, options));
        (tasks, Connection::open(address).await.unwrap())
    }

    fn ask(path: &str, body: &'static str) -> Ask {
        Ask { path: path.to_owned(), content_type: "application/json", body: Bytes::from(body) }
    }

    #[tokio::test]
    async fn the_server_answers_whole_or_streamed_and_nothing_else() {
        for options in [options(0, 0), options(1, 1)] {
            let (_tasks, mut connection) = serving(options).await;
            let whole = connection.post(&ask("/v1/chat/completions", r#"{"model":"x"}"#)).await.unwrap();
            let whole: Value = serde_json::from_slice(&body_of(whole).await.unwrap()).unwrap();
            assert_eq!(whole["choices"][0]["message"]["content"], "token0 token1 token2 ");
            let streamed = connection.post(&ask("/v1/chat/completions", r#"{"stream":true}"#)).await.unwrap();
            assert_eq!(streamed.headers()[CONTENT_TYPE], "text/event-stream");
            assert!(body_of(streamed).await.unwrap().ends_with(b"data: [DONE]\n\n"));
            let refused = connection.post(&ask("/v1/embeddings", "{}")).await.map(drop);
            assert!(matches!(&refused, Err(Failed::Answer(why)) if why.contains("404")), "{refused:?}");
        }
    }

    #[tokio::test]
    async fn who_offers_tools_sees_one_call() {
        let (_tasks, mut connection) = serving(options(0, 0)).await;
        let with = |messages: &'static str| ask("/v1/chat/completions", messages);
        let first = r#"{"tools":[{}],"messages":[{"role":"user","content":"x"}]}"#;
        let called = connection.post(&with(first)).await.unwrap();
        let called: Value = serde_json::from_slice(&body_of(called).await.unwrap()).unwrap();
        assert_eq!(called["choices"][0]["message"]["tool_calls"][0]["function"]["name"], "calculator");
        let second = r#"{"tools":[{}],"messages":[{"role":"user"},{"role":"tool","content":"2"}]}"#;
        let said = connection.post(&with(second)).await.unwrap();
        let said: Value = serde_json::from_slice(&body_of(said).await.unwrap()).unwrap();
        assert_eq!(said["choices"][0]["message"]["content"], "token0 token1 token2 ");
    }

    #[tokio::test]
    async fn a_held_stream_shows_its_first_token_and_no_end() {
        let (_tasks, mut connection) = serving(Options { hold: true, ..options(0, 0) }).await;
        let response = connection.post(&ask("/v1/chat/completions", r#"{"stream":true}"#)).await.unwrap();
        let (mut body, mut seen) = (response.into_body(), Seen::new(Kind::Model));
        while !seen.has_token() {
            let frame = body.frame().await.expect("a token comes").unwrap();
            seen.take(frame.data_ref().unwrap());
        }
        let more = tokio::time::timeout(Duration::from_millis(50), body.frame()).await;
        assert!(more.is_err(), "held: {more:?}");
    }
}
