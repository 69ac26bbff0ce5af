//! HTTP as all providers use it: bounded bodies, no redirects, errors that hold no address and no key.

use std::error::Error as StdError;
use std::time::Duration;

use reqwest::header::{CONTENT_TYPE, HeaderMap};

use crate::port::ModelError;

/// The longest error body that is read.
pub(crate) const MAX_ERROR_BYTES: usize = 64 << 10;
/// The longest answer, streamed or whole: far more than any model says, and little enough that some may be open at once.
pub(crate) const MAX_ANSWER_BYTES: usize = 16 << 20;

/// A client that gives up connecting after `connect`. It follows no redirects: none is meant for a POST. It speaks HTTP/1.1,
/// a connection for each call: over HTTP/2 all calls of a provider share one, which takes as many at a time as the provider
/// allows (often 100), and the others would wait unseen until their time is up.
pub(crate) fn client(connect: Duration) -> reqwest::Result<reqwest::Client> {
    reqwest::Client::builder()
        .connect_timeout(connect)
        .tcp_keepalive(Duration::from_secs(30))
        .redirect(reqwest::redirect::Policy::none())
        .http1_only()
        .build()
}

/// The media type of a body in lower case; empty when it is not told.
pub(crate) fn content_type(headers: &HeaderMap) -> String {
    let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    kind.trim().to_ascii_lowercase()
}

/// The first `limit` bytes of the body, and what kept it from ending, if anything did.
pub(crate) async fn read_up_to(mut response: reqwest::Response, limit: usize) -> (Vec<u8>, Option<reqwest::Error>) {
    let mut body = Vec::new();
    while body.len() < limit {
        match response.chunk().await {
            Ok(Some(chunk)) => body.extend_from_slice(&chunk[..chunk.len().min(limit - body.len())]),
            Ok(None) => break,
            Err(error) => return (body, Some(error)),
        }
    }
    (body, None)
}

/// The port's error when the bytes did not get through. `clean` hides what must not be told.
pub(crate) fn transport(error: &reqwest::Error, clean: impl Fn(&str) -> String) -> ModelError {
    let why = clean(&cause(error));
    match error {
        error if error.is_timeout() && error.is_connect() => ModelError::Timeout(format!("connecting to it: {why}")),
        error if error.is_timeout() => ModelError::Timeout(why),
        error if error.is_builder() => ModelError::Unsupported(why),
        error if error.is_body() || error.is_decode() => ModelError::Truncated(why),
        _ => ModelError::Unreachable(why),
    }
}

/// The innermost causes of `error`. Its own words are left out: they hold the address.
fn cause(error: &reqwest::Error) -> String {
    let mut causes: Vec<String> = Vec::new();
    let mut next = error.source();
    while let Some(source) = next {
        let words = source.to_string();
        if causes.last() != Some(&words) {
            causes.push(words);
        }
        next = source.source();
    }
    if causes.is_empty() { "the connection failed".to_owned() } else { causes.join(": ") }
}
