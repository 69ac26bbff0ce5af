//! A model server on bare hyper: OpenAI's chat completions, whole or streamed, with delays that the options give.
//! Without delays an answer is one write of prepared bytes, so that the model is never the limit. Who offers it a tool that
//! it knows sees it call that tool once, at once: the calculator, or what hands a task to a team's member or to all of them.

use std::borrow::Cow;
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
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use crate::error::Error;
use crate::serving;

/// The tools that it calls, and the arguments of its calls.
const CALLS: [(&str, &str); 3] = [
    ("calculator", r#"{"expression": "1+1"}"#),
    ("delegate_task_to_member", r#"{"member_id": "writer", "task": "Write a line."}"#),
    ("delegate_task_to_members", r#"{"task": "Write a line."}"#),
];

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
    /// The calls of [`CALLS`].
    calls: [Call; CALLS.len()],
}

/// A call of a tool.
struct Call {
    tool: &'static str,
    whole: Bytes,
    stream: Bytes,
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
            calls: CALLS.map(|(tool, arguments)| Call::new(tool, arguments)),
        }
    }
}

impl Call {
    fn new(tool: &'static str, arguments: &str) -> Self {
        let call = json!([{"index": 0, "id": "call_mock", "type": "function",
            "function": {"name": tool, "arguments": arguments}}]);
        let usage = json!({"prompt_tokens": 10, "completion_tokens": 10, "total_tokens": 20});
        let message = json!({"role": "assistant", "content": null, "tool_calls": call});
        let whole = json!({"id": "chatcmpl-mock", "object": "chat.completion", "created": 1, "model": "mock",
            "choices": [{"index": 0, "message": message, "finish_reason": "tool_calls"}], "usage": usage});
        let called = json!([{"index": 0, "delta": {"role": "assistant", "tool_calls": call}}]);
        let end = json!([{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]);
        let stream =
            [chunk(called, None), chunk(end, None), chunk(json!([]), Some(usage)), "data: [DONE]\n\n".to_owned()];
        Self { tool, whole: Bytes::from(whole.to_string()), stream: Bytes::from(stream.concat()) }
    }
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
struct Asked<'a> {
    #[serde(default)]
    stream: bool,
    #[serde(default, borrow)]
    tools: Vec<Offered<'a>>,
    #[serde(default, borrow)]
    messages: Vec<Message<'a>>,
}

#[derive(Deserialize)]
struct Offered<'a> {
    #[serde(borrow)]
    function: Function<'a>,
}

#[derive(Deserialize)]
struct Function<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
}

#[derive(Deserialize)]
struct Message<'a> {
    #[serde(borrow)]
    role: Cow<'a, str>,
}

impl Asked<'_> {
    /// The call that it is the turn of.
    fn call<'c>(&self, calls: &'c [Call]) -> Option<&'c Call> {
        self.messages.last().filter(|last| last.role == "user")?;
        calls.iter().find(|call| self.tools.iter().any(|tool| tool.function.name == call.tool))
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
    let asked = serde_json::from_slice::<Asked<'_>>(&body).ok().filter(|_| is_chat);
    let Some(asked) = asked else {
        let mut refused = Response::new(Either::Left(Full::from("POST a chat completion to /v1/chat/completions")));
        *refused.status_mut() = StatusCode::NOT_FOUND;
        return Ok(refused);
    };
    let (kind, body) = if let Some(call) = asked.call(&answers.calls) {
        let (kind, call) =
            if asked.stream { ("text/event-stream", &call.stream) } else { ("application/json", &call.whole) };
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
    use crate::seen::{Kind, Seen};
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
    async fn who_offers_a_tool_that_is_known_sees_one_call_of_it() {
        let (_tasks, mut connection) = serving(options(0, 0)).await;
        let mut said = async |tool: &str, last: &str, stream: bool| {
            let tools = json!([{"type": "function", "function": {"name": tool, "parameters": {}}}]);
            let body = json!({"tools": tools, "stream": stream, "messages": [{"role": "user", "content": "x"}, {"role": last}]});
            let ask = Ask { body: Bytes::from(body.to_string()), ..ask("/v1/chat/completions", "") };
            String::from_utf8(body_of(connection.post(&ask).await.unwrap()).await.unwrap().to_vec()).unwrap()
        };
        for (tool, arguments) in CALLS {
            let whole: Value = serde_json::from_str(&said(tool, "user", false).await).unwrap();
            let call = &whole["choices"][0]["message"]["tool_calls"][0]["function"];
            assert_eq!((call["name"].as_str(), call["arguments"].as_str()), (Some(tool), Some(arguments)));
            let streamed = said(tool, "user", true).await;
            assert!(streamed.contains(tool) && streamed.ends_with("data: [DONE]\n\n"), "{streamed}");
            assert!(said(tool, "tool", false).await.contains("token0 token1 token2 "));
        }
        assert!(said("unknown", "user", false).await.contains("token0 token1 token2 "));
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
