//! A server on loopback that answers each call as its script says, and what tests ask of models.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use daybook_domain::media::{Media, MediaContent, MediaKind};
use daybook_domain::message::{Answered, Message, Replay, Role, ToolCall};
use daybook_domain::output::OutputSchema;
use daybook_domain::tool::{Effect, ToolSpec};
use daybook_models::{
    Api, ChatEvent, ChatModel, ChatRequest, ChatResponse, ModelError, ModelOptions, ProviderModel, RetryPolicy,
};
use futures::{Stream, StreamExt, stream};
use poem::http::{HeaderMap, StatusCode};
use poem::listener::{Acceptor, Listener, TcpListener};
use poem::web::{Data, Json};
use poem::{Body, EndpointExt, Response, Route, Server, handler, post};
use serde_json::{Map, Value, json};
use tokio::task::JoinSet;

pub const EVENTS: &str = "text/event-stream; charset=utf-8";
pub const KEY: &str = "sk-secret-0123456789";

type Chunks = stream::BoxStream<'static, io::Result<Vec<u8>>>;

/// What the server does with one call.
pub enum Act {
    Stream { kind: &'static str, chunks: Chunks },
    Reply { status: u16, headers: Vec<(&'static str, &'static str)>, body: String },
}

/// What the server was sent.
pub struct Call {
    /// With the query.
    pub path: String,
    pub headers: HeaderMap,
    pub body: Value,
}

impl Call {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }
}

#[derive(Default)]
struct Script {
    acts: Mutex<Vec<Act>>,
    calls: Mutex<Vec<Call>>,
}

#[handler]
fn answer(request: &poem::Request, script: Data<&Arc<Script>>, body: Json<Value>) -> Response {
    let path = request.uri().path_and_query().unwrap().to_string();
    script.calls.lock().unwrap().push(Call { path, headers: request.headers().clone(), body: body.0 });
    let act = {
        let mut acts = script.acts.lock().unwrap();
        if acts.is_empty() { return StatusCode::IM_A_TEAPOT.into() } else { acts.remove(0) }
    };
    act.response()
}

impl Act {
    pub fn response(self) -> Response {
        match self {
            Self::Stream { kind, chunks } => {
                Response::builder().content_type(kind).body(Body::from_bytes_stream(chunks))
            }
            Self::Reply { status, headers, body } => {
                let mut response = Response::builder().status(StatusCode::from_u16(status).unwrap());
                for (name, value) in headers {
                    response = response.header(name, value);
                }
                response.body(body)
            }
        }
    }

    pub fn streams(kind: &'static str, parts: Vec<String>) -> Self {
        Self::Stream { kind, chunks: pieces(parts).boxed() }
    }

    /// The same in pieces of three bytes, as a slow network may bring them.
    pub fn trickles(kind: &'static str, parts: Vec<String>) -> Self {
        let bytes = parts.concat().into_bytes();
        let chunks: Vec<io::Result<Vec<u8>>> = bytes.chunks(3).map(|chunk| Ok(chunk.to_vec())).collect();
        Self::Stream { kind, chunks: stream::iter(chunks).boxed() }
    }

    /// `parts`, and then the connection breaks.
    pub fn breaks(kind: &'static str, parts: Vec<String>) -> Self {
        let broken = pieces(parts).chain(stream::once(async { Err(io::Error::other("gone")) }));
        Self::Stream { kind, chunks: broken.boxed() }
    }

    /// `parts`, and then nothing, without an end.
    pub fn goes_silent(kind: &'static str, parts: Vec<String>) -> Self {
        Self::Stream { kind, chunks: pieces(parts).chain(stream::pending()).boxed() }
    }

    pub fn refuses(status: u16, body: String, more: Vec<(&'static str, &'static str)>) -> Self {
        let mut headers = vec![("content-type", "application/json")];
        headers.extend(more);
        Self::Reply { status, headers, body }
    }
}

fn pieces(parts: Vec<String>) -> impl Stream<Item = io::Result<Vec<u8>>> + Send + 'static {
    stream::iter(parts.into_iter().map(|part| Ok(part.into_bytes())))
}

/// The server.
pub struct Fake {
    pub base_url: String,
    script: Arc<Script>,
    _server: JoinSet<io::Result<()>>,
}

impl Fake {
    pub async fn new(acts: Vec<Act>) -> Self {
        let script = Arc::new(Script { acts: Mutex::new(acts), ..Script::default() });
        let acceptor = TcpListener::bind("127.0.0.1:0").into_acceptor().await.unwrap();
        let address: SocketAddr = *acceptor.local_addr()[0].as_socket_addr().unwrap();
        let app = Route::new().at("/*path", post(answer)).data(Arc::clone(&script));
        let mut server = JoinSet::new();
        server.spawn(Server::new_with_acceptor(acceptor).run(app));
        Self { base_url: format!("http://{address}"), script, _server: server }
    }

    pub fn options(&self, api: Api) -> ModelOptions {
        ModelOptions {
            base_url: format!("{}/", self.base_url),
            api_key: Some(KEY.into()),
            retry: quick_retries(),
            ..ModelOptions::new(api, "fake-1")
        }
    }

    pub fn calls(&self) -> usize {
        self.script.calls.lock().unwrap().len()
    }

    /// The first call it was sent and that was not taken yet.
    pub fn take_call(&self) -> Call {
        self.script.calls.lock().unwrap().remove(0)
    }
}

pub fn quick_retries() -> RetryPolicy {
    RetryPolicy { max_retries: 2, min_delay: Duration::from_millis(1), max_delay: Duration::from_secs(2) }
}

/// Everything that comes for `request`.
pub async fn ask(options: &ModelOptions, request: ChatRequest) -> Vec<Result<ChatEvent, ModelError>> {
    ProviderModel::retrying(options).unwrap().stream(request).await.unwrap().collect().await
}

/// The pieces, and the whole they add up to.
pub fn whole(came: Vec<Result<ChatEvent, ModelError>>) -> (Vec<ChatEvent>, ChatResponse) {
    let mut events: Vec<ChatEvent> = came.into_iter().map(|piece| piece.expect("an error")).collect();
    let Some(ChatEvent::Done(response)) = events.pop() else { panic!("no end: {events:?}") };
    let text: String =
        events.iter().filter_map(|e| if let ChatEvent::Text(t) = e { Some(&**t) } else { None }).collect();
    assert_eq!(text, response.text);
    let mut arguments = vec![String::new(); response.tool_calls.len()];
    for event in &events {
        if let ChatEvent::ToolArguments { index, id, name, delta } = event {
            assert_eq!((id, name), (&response.tool_calls[*index].id, &response.tool_calls[*index].name));
            arguments[*index].push_str(delta);
        }
    }
    assert!(response.tool_calls.iter().zip(arguments).all(|(call, pieces)| call.arguments == pieces));
    (events, *response)
}

/// The error it ended in, and what came before it.
pub fn failed(mut came: Vec<Result<ChatEvent, ModelError>>) -> (Vec<ChatEvent>, ModelError) {
    let error = came.pop().unwrap().expect_err("an answer");
    (came.into_iter().map(Result::unwrap).collect(), error)
}

/// The answer to a plain question, and what the server was sent for it.
pub async fn answered(api: Api, act: Act) -> (ChatResponse, Call) {
    answered_to(api, act, |_| {}, request()).await
}

/// The answer to `request` with options changed by `change`, and what the server was sent for it.
pub async fn answered_to(
    api: Api,
    act: Act,
    change: impl FnOnce(&mut ModelOptions),
    request: ChatRequest,
) -> (ChatResponse, Call) {
    let fake = Fake::new(vec![act]).await;
    let mut options = fake.options(api);
    change(&mut options);
    let (_, response) = whole(ask(&options, request).await);
    (response, fake.take_call())
}

/// Ids, names and arguments of the calls.
pub fn calls(response: &ChatResponse) -> Vec<(&str, &str, &str)> {
    response.tool_calls.iter().map(|call| (&*call.id, &*call.name, &*call.arguments)).collect()
}

pub fn message(role: Role, content: &str) -> Message {
    Message {
        id: "m".into(),
        role,
        content: Some(content.into()),
        reasoning: None,
        tool_calls: vec![],
        answers: None,
        whole: None,
        repair: false,
        media: vec![],
        provider_data: None,
        replay: None,
        metrics: None,
        created_at: 0,
    }
}

pub fn request() -> ChatRequest {
    let city = json!({"type": "object", "properties": {"city": {"type": "string"}}});
    let weather = ToolSpec::new("weather", "The weather", city).effect(Effect::Pure);
    ChatRequest {
        messages: vec![message(Role::System, "Be brief."), message(Role::User, "Hi")],
        tools: vec![weather],
        temperature: Some(0.5),
        max_tokens: Some(100),
        output_schema: None,
    }
}

/// The request after the model asked for two tools, of which one failed.
pub fn after_tools(replay: Option<Replay>) -> ChatRequest {
    let mut asked = message(Role::Assistant, "Let me look.");
    asked.reasoning = Some("Hm.".into());
    asked.replay = replay;
    let call =
        |id: &str, arguments: &str| ToolCall { id: id.into(), name: "weather".into(), arguments: arguments.into() };
    asked.tool_calls = vec![call("call_a", "{\"city\": \"Oslo\"}"), call("call_b", "{\"city\": Osl")];
    let outcome = |id: &str, text: &str, failed: bool| {
        let mut outcome = message(Role::Tool, text);
        outcome.answers = Some(Answered { call_id: id.into(), tool: "weather".into(), arguments: Value::Null, failed });
        outcome
    };
    let mut request = request();
    request.messages.extend([asked, outcome("call_a", "rain", false), outcome("call_b", "not JSON", true)]);
    request
}

/// A question with one of each kind of media.
pub fn with_media() -> ChatRequest {
    use base64::Engine as _;
    let media = |kind, mime: &str, name: &str, content: MediaContent| Media {
        id: "x".into(),
        kind,
        mime_type: Some(mime.into()),
        filename: Some(name.into()),
        format: None,
        content,
        metadata: None,
    };
    let base64 = |text: &str| MediaContent::Base64(base64::engine::general_purpose::STANDARD.encode(text));
    let mut request = request();
    request.messages[1].media = vec![
        media(MediaKind::Image, "image/jpeg", "a.jpg", MediaContent::Base64("QUJD".into())),
        media(MediaKind::File, "text/csv; charset=utf-8", "c.csv", base64("a,b")),
        media(MediaKind::File, "application/pdf", "e.pdf", MediaContent::Base64("JVBERg==".into())),
        media(MediaKind::Audio, "audio/wav", "f.wav", MediaContent::Base64("UklGRg==".into())),
    ];
    request
}

/// A question with a picture, and a document, that are elsewhere.
pub fn with_addresses() -> ChatRequest {
    let media = |kind, url: &str| Media {
        id: "x".into(),
        kind,
        mime_type: None,
        filename: None,
        format: None,
        content: MediaContent::Url(url.into()),
        metadata: None,
    };
    let mut request = request();
    request.messages[1].media = vec![
        media(MediaKind::Image, "https://example.com/b.png?x=1"),
        media(MediaKind::File, "https://example.com/d.pdf"),
    ];
    request
}

pub fn schema() -> Map<String, Value> {
    let schema = json!({"type": "object", "title": "Movie", "required": ["title", "cast"], "properties": {
        "title": {"type": "string"},
        "cast": {"type": "array", "items": {"type": "object", "properties": {"name": {"type": "string"}},
            "required": ["name"]}}}});
    schema.as_object().cloned().unwrap()
}

/// A question whose answer must be a movie.
pub fn with_schema() -> ChatRequest {
    ChatRequest { output_schema: Some(OutputSchema::new(schema(), true).unwrap()), tools: vec![], ..request() }
}
