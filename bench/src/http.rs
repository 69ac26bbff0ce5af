//! One keep-alive connection to a server on this machine.

use std::net::SocketAddr;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// Why an exchange failed, as it is counted.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Failed {
    /// No connection.
    #[error("cannot connect: {0}")]
    Connect(String),
    /// The connection broke in the middle.
    #[error("the connection broke: {0}")]
    Broken(String),
    /// The answer is not what a working server says.
    #[error("{0}")]
    Answer(String),
}

/// What is sent: always the same on one connection.
#[derive(Debug, Clone)]
pub struct Ask {
    /// The path.
    pub path: String,
    /// The body's media type.
    pub content_type: &'static str,
    /// The body.
    pub body: Bytes,
}

/// A connection; its task ends with it.
pub struct Connection {
    sender: SendRequest<Full<Bytes>>,
    address: SocketAddr,
    _task: JoinSet<()>,
}

impl Connection {
    /// Connects.
    pub async fn open(address: SocketAddr) -> Result<Self, Failed> {
        let connect = |error: &dyn std::fmt::Display| Failed::Connect(error.to_string());
        let stream = TcpStream::connect(address).await.map_err(|error| connect(&error))?;
        stream.set_nodelay(true).map_err(|error| connect(&error))?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|error| connect(&error))?;
        let mut task = JoinSet::new();
        task.spawn(async move {
            // Whoever waits for an answer is told by hyper.
            connection.await.ok();
        });
        Ok(Self { sender, address, _task: task })
    }

    /// Posts, and gives the answer once its head is there; anything but 200 is a failure.
    pub async fn post(&mut self, ask: &Ask) -> Result<Response<Incoming>, Failed> {
        let request = Request::builder().method(Method::POST).uri(&ask.path).header(CONTENT_TYPE, ask.content_type);
        self.exchange(request, ask.body.clone(), StatusCode::OK).await
    }

    /// Posts what is only to be accepted, and reads the answer; anything but 202 is a failure.
    pub async fn submit(&mut self, ask: &Ask) -> Result<(), Failed> {
        let request = Request::builder().method(Method::POST).uri(&ask.path).header(CONTENT_TYPE, ask.content_type);
        body_of(self.exchange(request, ask.body.clone(), StatusCode::ACCEPTED).await?).await.map(drop)
    }

    /// Gets `path`; anything but 200 is a failure.
    pub async fn get(&mut self, path: &str) -> Result<Response<Incoming>, Failed> {
        self.exchange(Request::builder().uri(path), Bytes::new(), StatusCode::OK).await
    }

    async fn exchange(
        &mut self,
        head: hyper::http::request::Builder,
        body: Bytes,
        expected: StatusCode,
    ) -> Result<Response<Incoming>, Failed> {
        let request = head.header(HOST, self.address.to_string()).body(Full::new(body));
        let request = request.map_err(|error| Failed::Answer(error.to_string()))?;
        let broken = |error: hyper::Error| Failed::Broken(error.to_string());
        self.sender.ready().await.map_err(broken)?;
        let response = self.sender.send_request(request).await.map_err(broken)?;
        if response.status() == expected {
            return Ok(response);
        }
        let status = response.status();
        response.into_body().collect().await.map_err(broken)?;
        Err(Failed::Answer(format!("status {status}")))
    }
}

/// The rest of an answer.
pub async fn body_of(response: Response<Incoming>) -> Result<Bytes, Failed> {
    let body = response.into_body().collect().await.map_err(|error| Failed::Broken(error.to_string()))?;
    Ok(body.to_bytes())
}
