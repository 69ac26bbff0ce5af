//! A client of the WebSocket interface.

use futures::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::{HeaderValue, header};
use tokio_tungstenite::tungstenite::{Error, Message};

use super::{Api, Frame, PATIENCE};

/// One message of the server.
#[derive(Debug, Clone, PartialEq)]
pub struct Told {
    /// What it says.
    pub data: Value,
    /// Whether it came as an SSE block, and not as JSON.
    pub block: bool,
}

impl Told {
    /// The event's name.
    pub fn event(&self) -> &str {
        self.data["event"].as_str().unwrap_or_else(|| panic!("no event: {self:?}"))
    }

    fn read(text: &str) -> Self {
        let (data, block) = match text.strip_prefix("event: ") {
            None => (serde_json::from_str(text).expect("JSON"), false),
            Some(rest) => {
                let (name, rest) = rest.split_once("\ndata: ").expect("data after the event");
                let json = rest.strip_suffix("\n\n").expect("a block ends with an empty line");
                let data: Value = serde_json::from_str(json).expect("JSON as data");
                assert_eq!(data["event"], name, "{text}");
                (data, true)
            }
        };
        Self { data, block }
    }
}

/// An open WebSocket.
pub struct Socket {
    stream: WebSocketStream<TcpStream>,
    /// The messages read so far.
    pub seen: Vec<Told>,
}

impl Socket {
    /// Opens one at this path.
    pub async fn open(api: &Api, path: &str) -> Self {
        let mut socket = Self::try_open(api, path, None).await.unwrap_or_else(|status| panic!("answered {status}"));
        let greeting = json!({"event": "connected", "message": "Connected to AgentOS.", "requires_auth": false});
        assert_eq!(socket.next().await.expect("a greeting").data, greeting);
        socket.seen.clear();
        socket
    }

    /// The same, as a page of `origin` would; `Err` with the status of an answer that is no upgrade.
    pub async fn try_open(api: &Api, path: &str, origin: Option<&str>) -> Result<Self, u16> {
        let host = api.base.strip_prefix("http://").expect("a base address");
        let mut request = format!("ws://{host}{path}").into_client_request().unwrap();
        if let Some(origin) = origin {
            request.headers_mut().insert(header::ORIGIN, HeaderValue::from_str(origin).unwrap());
        }
        let socket = TcpStream::connect(host).await.unwrap();
        match tokio_tungstenite::client_async(request, socket).await {
            Ok((stream, _)) => Ok(Self { stream, seen: Vec::new() }),
            Err(Error::Http(answer)) => Err(answer.status().as_u16()),
            Err(error) => panic!("no WebSocket: {error}"),
        }
    }

    /// Asks for something.
    pub async fn ask(&mut self, action: &Value) {
        self.send(Message::text(action.to_string())).await;
    }

    /// Sends a message as it is.
    pub async fn send(&mut self, message: Message) {
        timeout(PATIENCE, self.stream.send(message)).await.expect("the server takes it").unwrap();
    }

    /// The next message; `None` when the server has closed the connection or is gone.
    pub async fn next(&mut self) -> Option<Told> {
        // Pings are no sign of life here: the server sends them whatever becomes of the run.
        let deadline = Instant::now() + PATIENCE;
        loop {
            match timeout_at(deadline, self.stream.next()).await.expect("a silent connection") {
                Some(Ok(Message::Text(text))) => {
                    let told = Told::read(&text);
                    self.seen.push(told.clone());
                    return Some(told);
                }
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                Some(Ok(other)) => {
                    self.seen.push(Told { data: json!({"event": "closed", "code": code(&other)}), block: false });
                    return None;
                }
                Some(Err(_)) | None => return None,
            }
        }
    }

    /// Asks for something, and gives the next message.
    pub async fn answer(&mut self, action: &Value) -> Value {
        self.ask(action).await;
        self.next().await.expect("an answer").data
    }

    /// Reads up to the first message of this event from here on.
    pub async fn until(&mut self, event: &str) -> Told {
        while let Some(told) = self.next().await {
            if told.event() == event {
                return told;
            }
        }
        panic!("no {event} in {:?}", self.events());
    }

    /// Reads until this much text of the run was said.
    pub async fn until_said(&mut self, run: &str, text: &str) {
        while !super::said(&self.frames_of(run)).contains(text) {
            assert!(self.next().await.is_some(), "{text:?} was never said: {:?}", self.events());
        }
    }

    /// Reads until the run has ended, in whatever way; its frames.
    pub async fn to_the_end(&mut self, run: &str) -> Vec<Frame> {
        loop {
            let frames = self.frames_of(run);
            if frames.last().is_some_and(|last| ["RunCompleted", "RunError"].contains(&last.event.as_str())) {
                return frames;
            }
            assert!(self.next().await.is_some(), "{run} never ended: {:?}", self.events());
        }
    }

    /// The names of the messages so far.
    pub fn events(&self) -> Vec<&str> {
        self.seen.iter().map(Told::event).collect()
    }

    /// What was told of this run, as frames of a stream.
    pub fn frames_of(&self, run: &str) -> Vec<Frame> {
        let of_run = self.seen.iter().filter(|told| told.data["run_id"] == run && told.data["event_index"].is_u64());
        let frame = |told: &Told| Frame {
            id: told.data["event_index"].as_u64(),
            event: told.event().to_owned(),
            data: told.data.clone(),
        };
        of_run.map(frame).collect()
    }

    /// Reads on until the server closes; the code it gave.
    pub async fn closed(&mut self) -> Option<u64> {
        while self.next().await.is_some() {}
        self.seen.last().and_then(|told| told.data["code"].as_u64())
    }
}

fn code(message: &Message) -> Option<u16> {
    let Message::Close(Some(frame)) = message else { return None };
    Some(frame.code.into())
}
