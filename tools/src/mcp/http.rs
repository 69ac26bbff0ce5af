//! The conversation with a server at an address: `rmcp`'s streamable HTTP over a client of our own, whose errors do not
//! repeat the address (its query may hold a key) and which gives its headers to nobody else.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use reqwest::header::{HeaderName, HeaderValue};
use reqwest::redirect::{Attempt, Policy};
use rmcp::model::ClientJsonRpcMessage;
use rmcp::transport::StreamableHttpClientTransport;
use rmcp::transport::common::client_side_sse::{BoxedSseResponse, SseRetryPolicy};
use rmcp::transport::streamable_http_client::{
    StreamableHttpClient, StreamableHttpClientTransportConfig, StreamableHttpError, StreamableHttpPostResponse,
    StreamableHttpResponseLimits,
};

use super::options::Remote;
use super::stdio::Ending;
use super::wire::MAX_MESSAGE;

/// How often a stream that broke off is opened again before the connection counts as lost.
const RESUMES: usize = 3;

/// Redirections that are followed.
const MAX_REDIRECTS: usize = 5;

type Outcome<T> = Result<T, StreamableHttpError<reqwest::Error>>;
type Headers = HashMap<HeaderName, HeaderValue>;

/// The transport to an address. `ending` fires when a broken stream could not be opened again.
///
/// # Errors
/// When no HTTP client can be made on this machine.
pub(super) fn transport(
    remote: &Remote,
    connect_timeout: Duration,
    ending: Ending,
) -> Result<StreamableHttpClientTransport<Client>, String> {
    let client = reqwest::Client::builder()
        .connect_timeout(connect_timeout)
        .redirect(Policy::custom(same_place))
        .user_agent(concat!("daybook/", env!("CARGO_PKG_VERSION")))
        .build()
        .map_err(|fault| format!("no HTTP client could be made: {}", fault.without_url()))?;
    let headers: Headers = remote.headers.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
    let mut config = StreamableHttpClientTransportConfig::with_uri(remote.url.as_str())
        .custom_headers(headers)
        .max_sse_event_size(MAX_MESSAGE)
        .max_json_response_size(MAX_MESSAGE)
        .max_error_response_size(2048)
        // A session that the server forgot is a new connection to us: its tools may be others.
        .reinit_on_expired_session(false);
    config.retry_config = Arc::new(Resume(ending));
    Ok(StreamableHttpClientTransport::with_client(Client(client), config))
}

/// Follows redirections within the same origin only: headers with keys go along.
fn same_place(attempt: Attempt<'_>) -> reqwest::redirect::Action {
    let stays = attempt.previous().first().is_some_and(|first| first.origin() == attempt.url().origin());
    if stays && attempt.previous().len() <= MAX_REDIRECTS { attempt.follow() } else { attempt.stop() }
}

/// When a stream that broke off is opened again.
struct Resume(Ending);

impl std::fmt::Debug for Resume {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Resume")
    }
}

impl SseRetryPolicy for Resume {
    fn retry(&self, times: usize) -> Option<Duration> {
        if times > RESUMES {
            self.0.end("the server is gone: its stream could not be opened again");
            return None;
        }
        Some(Duration::from_millis(500) * 2_u32.saturating_pow(u32::try_from(times).unwrap_or(u32::MAX)))
    }
}

/// `reqwest`, with errors that do not tell the address.
#[derive(Clone)]
pub(super) struct Client(reqwest::Client);

fn discreet<T>(outcome: Outcome<T>) -> Outcome<T> {
    outcome.map_err(|fault| match fault {
        StreamableHttpError::Client(fault) => StreamableHttpError::Client(fault.without_url()),
        other => other,
    })
}

impl StreamableHttpClient for Client {
    type Error = reqwest::Error;

    async fn post_message(
        &self,
        uri: Arc<str>,
        message: ClientJsonRpcMessage,
        session_id: Option<Arc<str>>,
        auth_header: Option<String>,
        custom_headers: Headers,
    ) -> Outcome<StreamableHttpPostResponse> {
        let limits = StreamableHttpResponseLimits::default();
        self.post_message_with_response_limits(uri, message, session_id, auth_header, custom_headers, limits).await
    }

    async fn post_message_with_response_limits(
        &self,
        uri: Arc<str>,
        message: ClientJsonRpcMessage,
        session_id: Option<Arc<str>>,
        auth_header: Option<String>,
        custom_headers: Headers,
        limits: StreamableHttpResponseLimits,
    ) -> Outcome<StreamableHttpPostResponse> {
        let post =
            self.0.post_message_with_response_limits(uri, message, session_id, auth_header, custom_headers, limits);
        // Large: what it holds of a response.
        discreet(Box::pin(post).await)
    }

    async fn delete_session(
        &self,
        uri: Arc<str>,
        session_id: Arc<str>,
        auth_header: Option<String>,
        custom_headers: Headers,
    ) -> Outcome<()> {
        discreet(self.0.delete_session(uri, session_id, auth_header, custom_headers).await)
    }

    async fn get_stream(
        &self,
        uri: Arc<str>,
        session_id: Option<Arc<str>>,
        last_event_id: Option<String>,
        auth_header: Option<String>,
        custom_headers: Headers,
    ) -> Outcome<BoxedSseResponse> {
        self.get_stream_with_max_sse_event_size(
            uri,
            session_id,
            last_event_id,
            auth_header,
            custom_headers,
            MAX_MESSAGE,
        )
        .await
    }

    async fn get_stream_with_max_sse_event_size(
        &self,
        uri: Arc<str>,
        session_id: Option<Arc<str>>,
        last_event_id: Option<String>,
        auth_header: Option<String>,
        custom_headers: Headers,
        max_sse_event_size: usize,
    ) -> Outcome<BoxedSseResponse> {
        let get = self.0.get_stream_with_max_sse_event_size(
            uri,
            session_id,
            last_event_id,
            auth_header,
            custom_headers,
            max_sse_event_size,
        );
        discreet(Box::pin(get).await)
    }
}
