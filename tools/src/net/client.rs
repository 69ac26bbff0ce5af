//! Makes requests: one hop after the other, each checked anew.

use std::error::Error as _;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{self, HeaderMap, HeaderValue};
use reqwest::{Client, Method, Response, StatusCode};
use url::Url;

use super::body::{BodyFault, BodyReader};
use super::policy::{GuardedResolver, HostPattern, NoPublicAddress, Policy, Resolver, SystemResolver};
use super::{NetError, shown};
use crate::text::clip;

/// How many redirects are followed.
const MAX_REDIRECTS: usize = 5;

/// The longest wait for a connection: an address that does not answer costs no more than this.
const CONNECT: Duration = Duration::from_secs(10);

/// What a request may cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The time of the whole: names, redirects and body. Whole seconds, at least one.
    pub timeout: Duration,
    /// The longest body, in bytes, before and after decompression.
    pub max_bytes: usize,
}

impl Default for Limits {
    /// 30 seconds and 1 MiB.
    fn default() -> Self {
        Self { timeout: Duration::from_secs(30), max_bytes: 1 << 20 }
    }
}

/// A request. When a redirect leads to another origin, a read goes on with `Accept` and `Accept-Language` only, and
/// anything else is refused.
#[derive(Clone)]
pub struct Request {
    /// The method.
    pub method: Method,
    /// Where to.
    pub url: Url,
    /// Headers; `Accept-Encoding` and `User-Agent` are set by the client.
    pub headers: HeaderMap,
    /// The body.
    pub body: Option<Bytes>,
}

impl Request {
    /// A GET without headers.
    pub fn get(url: Url) -> Self {
        Self { method: Method::GET, url, headers: HeaderMap::new(), body: None }
    }

    /// Whether it may change something at its server.
    pub(crate) fn is_write(&self) -> bool {
        !matches!(self.method, Method::GET | Method::HEAD | Method::OPTIONS)
    }
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Queries, headers and bodies may hold secrets.
        f.debug_struct("Request").field("method", &self.method).field("url", &shown(&self.url)).finish_non_exhaustive()
    }
}

/// An answer, whatever its status.
#[derive(Clone)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// Where it came from in the end, after redirects.
    pub url: Url,
    /// Its whole body, decompressed.
    pub body: Bytes,
}

impl Answer {
    /// Its media type without parameters, in small letters; empty when it has none.
    pub fn media_type(&self) -> String {
        let value = self.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
    }
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("Answer");
        out.field("status", &self.status).field("url", &shown(&self.url)).field("bytes", &self.body.len());
        out.finish_non_exhaustive()
    }
}

/// An HTTP client that reaches public addresses only, and what the operator opened. Cheap to clone.
///
/// It uses no proxy of the environment, keeps no cookies, and follows at most 5 redirects.
#[derive(Clone)]
pub struct GuardedClient {
    policy: Arc<Policy>,
    limits: Limits,
    public: Client,
    /// For hosts whose names the operator opened: a connection pool of its own, so that what one may reach the other
    /// does not share.
    internal: Client,
}

impl fmt::Debug for GuardedClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GuardedClient")
            .field("policy", &self.policy)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

impl GuardedClient {
    /// A client that may ask `hosts` (any when `None`), and of internal addresses those in `allow_private`: host names,
    /// `host:port`, addresses and CIDR ranges. A name opens private and loopback addresses; link-local ones, where
    /// clouds keep their metadata, are opened by address or range only.
    ///
    /// # Errors
    /// [`NetError::Setting`] when an entry cannot be read or TLS cannot be set up.
    pub fn new(hosts: Option<Vec<HostPattern>>, allow_private: &[String], limits: Limits) -> Result<Self, NetError> {
        Self::with_resolver(hosts, allow_private, limits, Arc::new(SystemResolver))
    }

    /// The same, with names resolved by `resolver`.
    ///
    /// # Errors
    /// As [`GuardedClient::new`].
    pub fn with_resolver(
        hosts: Option<Vec<HostPattern>>,
        allow_private: &[String],
        limits: Limits,
        resolver: Arc<dyn Resolver>,
    ) -> Result<Self, NetError> {
        let mut policy = Policy { hosts, ..Policy::default() };
        policy.allow_private(allow_private)?;
        let policy = Arc::new(policy);
        let client = |internal| {
            build(GuardedResolver { resolver: Arc::clone(&resolver), policy: Arc::clone(&policy), internal })
        };
        let (public, internal) = (client(false)?, client(true)?);
        let limits = Limits { timeout: limits.timeout.max(Duration::from_secs(1)), ..limits };
        Ok(Self { policy, limits, public, internal })
    }

    /// Whether the operator named the address's host, or its address when it is written as one, in `allow_private`.
    pub fn is_opened(&self, url: &Url) -> bool {
        self.policy.is_opened(url)
    }

    /// Makes the request, follows its redirects and reads the whole answer. An answer with an error status is an answer.
    ///
    /// # Errors
    /// [`NetError`]; [`NetError::MaybeDone`] for a write from the moment on when it may have reached its server.
    pub async fn send(&self, request: Request) -> Result<Answer, NetError> {
        let host = request.url.host_str().unwrap_or_default().to_owned();
        let method = request.method.to_string();
        let seconds = self.limits.timeout.as_secs();
        let wrote = AtomicBool::new(false);
        let answer = tokio::time::timeout(self.limits.timeout, Box::pin(self.follow(request, &wrote)))
            .await
            .unwrap_or(Err(NetError::TimedOut { host, seconds }));
        answer.map_err(|fault| match wrote.load(Ordering::Relaxed) {
            true => NetError::MaybeDone { method, fault: Box::new(fault) },
            false => fault,
        })
    }

    /// `wrote` tells, also when this is dropped, whether a write may have reached a server.
    async fn follow(&self, mut request: Request, wrote: &AtomicBool) -> Result<Answer, NetError> {
        for _ in 0..=MAX_REDIRECTS {
            let response = self.hop(&request, wrote).await?;
            match target(&request.url, &response)? {
                None => return self.read(request.url, response).await,
                Some(next) => {
                    let keeps = keeps_method(&request.method, response.status());
                    if keeps && request.is_write() {
                        // Who sends a write on to another place has not done it.
                        wrote.store(false, Ordering::Relaxed);
                    }
                    redirect(&mut request, keeps, next)?;
                }
            }
        }
        Err(NetError::Redirects { host: request.url.host_str().unwrap_or_default().to_owned(), limit: MAX_REDIRECTS })
    }

    async fn hop(&self, request: &Request, wrote: &AtomicBool) -> Result<Response, NetError> {
        self.policy.check(&request.url)?;
        let client = if self.policy.is_internal(&request.url) { &self.internal } else { &self.public };
        let mut builder = client.request(request.method.clone(), request.url.clone()).headers(request.headers.clone());
        builder = builder.header(header::ACCEPT_ENCODING, "gzip");
        if let Some(body) = &request.body {
            builder = builder.body(body.clone());
        }
        // Until it is known that no connection was made, the request may be on its way.
        let before = wrote.fetch_or(request.is_write(), Ordering::Relaxed);
        builder.send().await.map_err(|error| {
            if error.is_connect() || error.is_builder() {
                wrote.store(before, Ordering::Relaxed);
            }
            unreachable(&request.url, &error)
        })
    }

    async fn read(&self, url: Url, mut response: Response) -> Result<Answer, NetError> {
        let host = url.host_str().unwrap_or_default().to_owned();
        let limit = self.limits.max_bytes;
        let refuse = |fault: BodyFault| match fault {
            BodyFault::TooLarge => NetError::TooLarge { host: host.clone(), limit },
            BodyFault::Broken(fault) => NetError::Body { host: host.clone(), fault },
        };
        if response.content_length().is_some_and(|length| length > limit as u64) {
            return Err(refuse(BodyFault::TooLarge));
        }
        let (status, headers) = (response.status(), response.headers().clone());
        let mut bytes = Vec::new();
        // What has no body (an answer to HEAD, say) may still name an encoding.
        let mut reader = None;
        while let Some(piece) = response.chunk().await.map_err(|error| unreachable(&url, &error))? {
            let reader = match &mut reader {
                Some(reader) => reader,
                None => reader.insert(BodyReader::new(encoding(&headers), limit).map_err(refuse)?),
            };
            reader.push(&piece).map_err(refuse)?;
        }
        if let Some(reader) = reader {
            bytes = reader.finish().map_err(refuse)?;
        }
        Ok(Answer { status, headers, url, body: bytes.into() })
    }
}

fn build(resolver: GuardedResolver) -> Result<Client, NetError> {
    Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .referer(false)
        .connect_timeout(CONNECT)
        .user_agent(concat!("daybook/", env!("CARGO_PKG_VERSION")))
        .dns_resolver(Arc::new(resolver))
        .build()
        .map_err(|error| NetError::Setting(format!("the HTTP client cannot be set up: {}", error.without_url())))
}

fn encoding(headers: &HeaderMap) -> &str {
    headers.get(header::CONTENT_ENCODING).map_or("", |value| value.to_str().unwrap_or("?"))
}

/// Where the answer leads, when it is a redirect.
fn target(from: &Url, response: &Response) -> Result<Option<Url>, NetError> {
    if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
        return Ok(None);
    }
    let Some(location) = response.headers().get(header::LOCATION) else { return Ok(None) };
    let next = std::str::from_utf8(location.as_bytes()).ok().and_then(|location| from.join(location).ok());
    let fault = || NetError::Refused(format!("{} redirects to what is no address", shown(from)));
    next.map(Some).ok_or_else(fault)
}

/// Whether a request that is redirected with this status keeps its method, as with browsers.
fn keeps_method(method: &Method, status: StatusCode) -> bool {
    match status.as_u16() {
        303 => *method == Method::HEAD,
        301 | 302 => *method != Method::POST,
        _ => true,
    }
}

/// Turns the request into the one for `next`, as browsers do; more carefully where that is another origin.
///
/// # Errors
/// [`NetError::Refused`] for what may change something there.
fn redirect(request: &mut Request, keeps_method: bool, mut next: Url) -> Result<(), NetError> {
    if !keeps_method {
        request.method = Method::GET;
        request.body = None;
        for name in ["content-type", "content-encoding", "content-language", "idempotency-key"] {
            request.headers.remove(name);
        }
    }
    if next.origin() != request.url.origin() {
        // The body of a write may be as secret as its headers, and was not meant for that host.
        if !matches!(request.method, Method::GET | Method::HEAD) {
            let from = shown(&request.url);
            return Err(NetError::Refused(format!(
                "{from} redirects a {} to another origin; call that address itself",
                request.method
            )));
        }
        // Any other header may be a credential, whoever gave it.
        let harmless = [header::ACCEPT, header::ACCEPT_LANGUAGE].into_iter();
        let kept = harmless.filter_map(|name| Some((name.clone(), request.headers.get(name)?.clone()))).collect();
        request.headers = kept;
    }
    next.set_fragment(None);
    request.url = next;
    Ok(())
}

/// A header value that is never shown.
///
/// # Errors
/// [`NetError::Setting`] naming `what` when the secret has characters that no header may have.
pub(crate) fn secret_header(what: &str, secret: &str) -> Result<HeaderValue, NetError> {
    let mut value = HeaderValue::from_str(secret)
        .map_err(|_| NetError::Setting(format!("{what} has characters that no header may have, such as line ends")))?;
    value.set_sensitive(true);
    Ok(value)
}

fn unreachable(url: &Url, error: &reqwest::Error) -> NetError {
    let host = url.host_str().unwrap_or_default().to_owned();
    let mut faults = Vec::new();
    let mut cause = error.source();
    while let Some(inner) = cause {
        if inner.is::<NoPublicAddress>() {
            return NetError::private(&host);
        }
        faults.push(inner.to_string());
        cause = inner.source();
    }
    // The outermost message holds the whole address, and so maybe a secret; the innermost ones say what happened.
    let fault = match faults.last() {
        Some(_) => faults.join(": "),
        None if error.is_builder() => "the request cannot be built".to_owned(),
        None => "the connection broke".to_owned(),
    };
    NetError::Unreachable { host, fault: clip(&fault, 300) }
}
