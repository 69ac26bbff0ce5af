//! A guarded HTTP client for addresses that a user, a model or a document gives: it reaches the public internet and what
//! the operator opened, and nothing else, whatever names, notations, redirects or changing name servers say.

mod address;
mod body;
mod client;
mod policy;
#[cfg(test)]
mod tests;

pub use address::{Reach, classify};
pub(crate) use client::secret_header;
pub use client::{Answer, GuardedClient, Limits, Request};
pub use policy::{HostPattern, Resolver, SystemResolver};
use url::Url;

/// Why a request was not made, or has no answer. No message holds a query, a header, a user name or a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NetError {
    /// A setting cannot be used.
    #[error("{0}")]
    Setting(String),
    /// The address may not be asked.
    #[error("{0}")]
    Refused(String),
    /// Nothing was reached, or the connection broke.
    #[error("{host} cannot be reached: {fault}")]
    Unreachable {
        /// Which host.
        host: String,
        /// What went wrong.
        fault: String,
    },
    /// No whole answer came in time.
    #[error("{host} gave no whole answer within {seconds} seconds; ask for less, or raise timeout_seconds")]
    TimedOut {
        /// Which host.
        host: String,
        /// The time limit.
        seconds: u64,
    },
    /// The answer is longer than may be read.
    #[error("the answer of {host} is longer than {limit} bytes; ask for less, or raise max_response_bytes")]
    TooLarge {
        /// Which host.
        host: String,
        /// The limit, in bytes after decompression.
        limit: usize,
    },
    /// The answer leads elsewhere too often.
    #[error("{host} redirects more than {limit} times; give the address where it ends")]
    Redirects {
        /// The host that redirected last.
        host: String,
        /// The limit.
        limit: usize,
    },
    /// A write was sent, or may have been, and then went wrong.
    #[error("{fault}. The {method} may have been done all the same: find out before you send it again")]
    MaybeDone {
        /// The method of the write.
        method: String,
        /// What went wrong.
        fault: Box<NetError>,
    },
    /// The answer cannot be decoded.
    #[error("the answer of {host} cannot be read: {fault}")]
    Body {
        /// Which host.
        host: String,
        /// What is wrong with it.
        fault: String,
    },
}

impl NetError {
    fn private(host: &str) -> Self {
        Self::Refused(format!(
            "{host} is not a public address and may not be asked; an operator can open it with allow_private"
        ))
    }
}

/// An address as it may be shown: without its query, fragment, user name and password, where secrets stand.
pub(crate) fn shown(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    crate::text::clip(&format!("{}://{host}{port}{}", url.scheme(), url.path()), 200)
}

/// Headers that are nobody's to give: they frame the message or choose the host, speak for who is calling, or turn the
/// method or path that was allowed into another behind the server's front.
pub(crate) fn is_reserved_header(name: &str) -> bool {
    const RESERVED: [&str; 19] = [
        "accept-encoding",
        "connection",
        "content-length",
        "expect",
        "forwarded",
        "host",
        "http2-settings",
        "keep-alive",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "via",
        "x-http-method",
        "x-http-method-override",
        "x-method-override",
        "x-original-url",
        "x-real-ip",
        "x-rewrite-url",
    ];
    const STARTS: [&str; 3] = ["proxy-", "sec-", "x-forwarded-"];
    let name = name.to_ascii_lowercase();
    RESERVED.contains(&name.as_str()) || STARTS.iter().any(|start| name.starts_with(start))
}
