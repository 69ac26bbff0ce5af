//! What went wrong with a server, in a sentence that a model or a person can use.

use std::error::Error;

use rmcp::service::{ClientInitializeError, ServiceError};
use rmcp::transport::DynamicTransportError;
use rmcp::transport::streamable_http_client::StreamableHttpError;

use super::words::shortened;

/// The longest sentence of a server that is passed on, in characters.
const MAX_WORDS: usize = 2000;

/// What went wrong with one request.
#[derive(Debug)]
pub(super) struct Fault {
    /// The sentence.
    pub(super) words: String,
    /// What it means for the connection.
    pub(super) means: Means,
}

/// What a fault means for the connection.
#[derive(Debug, PartialEq, Eq, Clone, Copy)]
pub(super) enum Means {
    /// Nothing: the server answered.
    Answered,
    /// It is of no use any more.
    Broken,
    /// The same, and the server did nothing with the request: it may be made again.
    Forgotten,
}

impl Fault {
    pub(super) fn answered(words: impl Into<String>) -> Self {
        Self { words: words.into(), means: Means::Answered }
    }

    pub(super) fn broken(words: impl Into<String>) -> Self {
        Self { words: words.into(), means: Means::Broken }
    }

    /// What `rmcp` says of a request; `why` is why the connection ended, if it did.
    pub(super) fn of(fault: ServiceError, why: impl FnOnce() -> String) -> Self {
        match fault {
            ServiceError::McpError(error) => {
                Self::answered(format!("the server refused: {}", shortened(&error.message, MAX_WORDS)))
            }
            ServiceError::TransportSend(fault) => of_transport(&fault),
            ServiceError::TransportClosed => Self::broken(why()),
            other => Self::answered(shortened(&other.to_string(), MAX_WORDS)),
        }
    }
}

fn of_transport(fault: &DynamicTransportError) -> Fault {
    let Some(http) = fault.error.downcast_ref::<StreamableHttpError<reqwest::Error>>() else {
        return Fault::broken(format!("the server could not be written to ({})", fault.error));
    };
    match http {
        StreamableHttpError::SessionExpired => {
            Fault { words: "the server forgot the session".to_owned(), means: Means::Forgotten }
        }
        StreamableHttpError::HttpStatus(status) => Fault::answered(match status.status {
            429 => "the server has too many requests (HTTP 429): try again later".to_owned(),
            status => format!("the server failed (HTTP {status})"),
        }),
        StreamableHttpError::AuthRequired(_) => {
            Fault::answered("the server asks for authorization (HTTP 401): correct Authorization in `headers`")
        }
        StreamableHttpError::InsufficientScope(_) => {
            Fault::answered("the server does not allow it (HTTP 403): the key in `headers` may not do this")
        }
        StreamableHttpError::ResponseBodyTooLarge { .. } => {
            Fault::answered("the server's answer is too long: ask for less")
        }
        StreamableHttpError::Client(fault) if fault.is_connect() => {
            Fault::broken(format!("nothing answers at the address{}: is the server running?", root(fault)))
        }
        StreamableHttpError::Client(fault) => Fault::broken(format!("the server did not answer{}", root(fault))),
        StreamableHttpError::UnexpectedContentType(kind) => Fault::broken(format!(
            "the server answered {}, and not with the Model Context Protocol: is `url` the address of an MCP server?",
            kind.as_ref().map_or("without a content type".to_owned(), |kind| format!("with {}", shortened(kind, 100)))
        )),
        // A server that knows no 404 for this says so when it was started anew.
        StreamableHttpError::UnexpectedServerResponse(words) => {
            Fault::broken(format!("the server did not take the request: {}", shortened(words, 300)))
        }
        other => Fault::broken(shortened(&other.to_string(), 300)),
    }
}

/// The innermost cause, in parentheses: the outer ones only say that sending failed.
fn root(fault: &dyn Error) -> String {
    let mut cause = fault.source();
    while let Some(inner) = cause.and_then(Error::source) {
        cause = Some(inner);
    }
    cause.map(|cause| format!(" ({})", shortened(&cause.to_string(), 300))).unwrap_or_default()
}

/// Why there was no greeting; `why` is why the connection ended, if it did.
pub(super) fn of_greeting(fault: &ClientInitializeError, why: Option<String>) -> String {
    if let Some(why) = why {
        return why;
    }
    match fault {
        ClientInitializeError::TransportError { error, .. } => of_transport(error).words,
        ClientInitializeError::JsonRpcError(error) => {
            format!("the server refused the greeting: {}", shortened(&error.message, 300))
        }
        ClientInitializeError::ConnectionClosed(_) => "the server ended the connection at the greeting".to_owned(),
        // The others repeat what the server said, at any length.
        _ => "the server answered the greeting with what is no Model Context Protocol".to_owned(),
    }
}
