//! The HTTP client rig sends through: rig's own, but with bounded bodies, and with JSON answers accepted where a
//! stream was asked for, since not every compatible server streams and every gateway has its own error pages.

#![expect(clippy::result_large_err, reason = "the error type is rig's")]

use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use reqwest::header::{CONTENT_TYPE, HeaderValue};
use rig_core::http_client::{
    BoxedStream, Error, HttpClientExt, LazyBody, MultipartForm, Request, Response, Result, StreamingResponse,
};
use rig_core::wasm_compat::WasmCompatSend;
use rig_reqwest::ReqwestClient;

use crate::http::{MAX_ANSWER_BYTES, MAX_ERROR_BYTES, content_type, read_up_to};
use crate::text::{MAX_EXCERPT_BYTES, bounded};

/// What came is no answer of the protocol.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct NotAnAnswer(pub(super) String);

/// The client. Clones share its connections.
#[derive(Debug, Clone)]
pub(super) struct Http {
    client: reqwest::Client,
    rig: ReqwestClient,
}

impl Http {
    /// A client that gives up connecting after `connect`.
    pub(super) fn new(connect: Duration) -> reqwest::Result<Self> {
        let client = crate::http::client(connect)?;
        Ok(Self { rig: ReqwestClient::from(client.clone()), client })
    }
}

impl HttpClientExt for Http {
    fn send<T, U>(
        &self,
        req: Request<T>,
    ) -> impl Future<Output = Result<Response<LazyBody<U>>>> + WasmCompatSend + 'static
    where
        T: Into<Bytes>,
        T: WasmCompatSend,
        U: From<Bytes>,
        U: WasmCompatSend + 'static,
    {
        self.rig.send(req)
    }

    fn send_multipart<U>(
        &self,
        req: Request<MultipartForm>,
    ) -> impl Future<Output = Result<Response<LazyBody<U>>>> + WasmCompatSend + 'static
    where
        U: From<Bytes>,
        U: WasmCompatSend + 'static,
    {
        self.rig.send_multipart(req)
    }

    fn send_streaming<T>(&self, req: Request<T>) -> impl Future<Output = Result<StreamingResponse>> + WasmCompatSend
    where
        T: Into<Bytes> + WasmCompatSend,
    {
        let (parts, body) = req.into_parts();
        open(self.client.request(parts.method, parts.uri.to_string()).headers(parts.headers).body(body.into()))
    }
}

async fn open(request: reqwest::RequestBuilder) -> Result<StreamingResponse> {
    let response = request.send().await.map_err(Error::instance)?;
    let status = response.status();
    if !status.is_success() {
        let headers = response.headers().clone();
        // The status is worth telling even when the rest of the body never comes.
        let (body, _) = read_up_to(response, MAX_ERROR_BYTES).await;
        return Err(Error::non_success_with_details(status, headers, String::from_utf8_lossy(&body).into_owned()));
    }
    let kind = content_type(response.headers());
    if kind.is_empty() || kind.starts_with("text/event-stream") {
        return streamed(response);
    }
    whole(response, &kind).await
}

/// The body as it arrives, up to [`MAX_ANSWER_BYTES`].
fn streamed(response: reqwest::Response) -> Result<StreamingResponse> {
    let mut read = 0_usize;
    let body = response.bytes_stream().map(move |chunk| {
        let chunk = chunk.map_err(Error::instance)?;
        read = read.saturating_add(chunk.len());
        if read > MAX_ANSWER_BYTES {
            return Err(Error::instance(NotAnAnswer(format!("it is longer than {MAX_ANSWER_BYTES} bytes"))));
        }
        Ok(chunk)
    });
    as_events(Box::pin(body))
}

/// A JSON object as a stream of this one event; anything else is refused with an excerpt.
async fn whole(response: reqwest::Response, kind: &str) -> Result<StreamingResponse> {
    let (body, failure) = read_up_to(response, MAX_ANSWER_BYTES).await;
    if let Some(error) = failure {
        return Err(Error::instance(error));
    }
    match serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(&body) {
        Ok(object) => {
            let event = format!("data: {}\n\n", serde_json::Value::Object(object));
            as_events(Box::pin(futures::stream::iter([Ok(Bytes::from(event))])))
        }
        Err(_) if body.is_empty() => Err(Error::instance(NotAnAnswer("the model answered nothing".to_owned()))),
        Err(_) => {
            let excerpt = bounded(&String::from_utf8_lossy(&body), MAX_EXCERPT_BYTES);
            Err(Error::instance(NotAnAnswer(format!("expected JSON or an event stream, got {kind}: {excerpt}"))))
        }
    }
}

fn as_events(body: BoxedStream) -> Result<StreamingResponse> {
    let mut response = Response::new(body);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    Ok(response)
}
