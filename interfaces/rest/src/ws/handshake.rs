//! Turning a request into a WebSocket. Browsers let every page open one and say in `Origin` whose page it is: what CORS
//! would keep from a page is kept from it here too, or it could drive a server that only its user can reach.

use std::net::IpAddr;

use base64::Engine as _;
use poem::http::{HeaderMap, HeaderValue, header};
use poem::{OnUpgrade, Request};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use crate::cors;
use crate::errors::ApiError;

/// A request that becomes a WebSocket.
pub(super) struct Handshake {
    /// Gives the socket once the answer is sent.
    pub upgrade: OnUpgrade,
    /// The answer to the client's key.
    pub accept: String,
}

impl Handshake {
    /// Checks the request.
    ///
    /// # Errors
    /// 400 when it does not ask for a WebSocket, 403 when a page asks that may not.
    pub fn read(request: &Request, origins: &[String]) -> Result<Self, ApiError> {
        let headers = request.headers();
        check_origin(headers, origins)?;
        let accept = accept(headers)?;
        let upgrade = request.take_upgrade().map_err(|_| no_websocket("the connection cannot be upgraded"))?;
        Ok(Self { upgrade, accept })
    }
}

fn no_websocket(why: &str) -> ApiError {
    ApiError::bad(format!("This address is a WebSocket, and {why}: open it with a WebSocket client"))
}

/// The answer to the client's key.
fn accept(headers: &HeaderMap) -> Result<String, ApiError> {
    if !has(headers, header::CONNECTION, "upgrade") || !has(headers, header::UPGRADE, "websocket") {
        return Err(no_websocket("the request does not ask for an upgrade"));
    }
    if !has(headers, header::SEC_WEBSOCKET_VERSION, "13") {
        return Err(no_websocket("the request does not ask for version 13 of the protocol"));
    }
    let key = headers.get(header::SEC_WEBSOCKET_KEY).map(HeaderValue::as_bytes).unwrap_or_default();
    match base64::engine::general_purpose::STANDARD.decode(key) {
        Ok(bytes) if bytes.len() == 16 => Ok(derive_accept_key(key)),
        _ => Err(no_websocket("the Sec-WebSocket-Key is not 16 bytes in base64")),
    }
}

/// Whether one of the words in this header is `word`.
fn has(headers: &HeaderMap, name: header::HeaderName, word: &str) -> bool {
    let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|given| given.trim().eq_ignore_ascii_case(word))
}

/// Programs say no origin; pages always do.
fn check_origin(headers: &HeaderMap, origins: &[String]) -> Result<(), ApiError> {
    let mut said = headers.get_all(header::ORIGIN).into_iter();
    if said.all(|origin| cors::allows(origins, origin) || is_own(headers, origin)) {
        return Ok(());
    }
    Err(ApiError::forbidden("Pages of this origin may not connect: name it in the server's cors_origins to allow it"))
}

/// Whether the page came from this server, as far as that can be told: a name could have been pointed here by anybody,
/// an address could not.
fn is_own(headers: &HeaderMap, origin: &HeaderValue) -> bool {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let origin = origin.to_str().ok().and_then(|origin| origin.split_once("://"));
    let (Some(host), Some((_, origin))) = (host, origin) else { return false };
    origin.eq_ignore_ascii_case(host) && is_address(host)
}

fn is_address(host: &str) -> bool {
    let authority = host.parse::<poem::http::uri::Authority>();
    authority.is_ok_and(|authority| {
        let name = authority.host().trim_start_matches('[').trim_end_matches(']');
        name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

    #[test]
    fn a_handshake_is_answered_as_the_protocol_says() {
        let good = [
            ("connection", "keep-alive, Upgrade"),
            ("upgrade", "WebSocket"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", KEY),
        ];
        assert_eq!(accept(&headers(&good)).unwrap(), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        let wrong = [("connection", "close"), ("upgrade", "h2c"), ("sec-websocket-version", "8")];
        for (at, wrong) in wrong.into_iter().chain([("sec-websocket-key", "abc")]).enumerate() {
            let mut pairs = good;
            pairs[at] = wrong;
            assert!(matches!(accept(&headers(&pairs)), Err(ApiError::Bad(_))), "{wrong:?}");
        }
    }

    #[test]
    fn pages_of_foreign_origins_are_turned_away() {
        let origins = ["http://localhost:3000".to_owned()];
        let asks = |pairs: &[(&'static str, &str)], origins: &[String]| check_origin(&headers(pairs), origins).is_ok();
        let host = ("host", "127.0.0.1:8000");
        assert!(asks(&[host], &origins), "a program");
        assert!(asks(&[host, ("origin", "http://localhost:3000")], &origins));
        assert!(asks(&[host, ("origin", "http://127.0.0.1:8000")], &origins), "its own page");
        assert!(asks(&[("host", "[::1]:8000"), ("origin", "http://[::1]:8000")], &origins));
        assert!(asks(&[("host", "localhost"), ("origin", "http://localhost")], &origins));
        for foreign in
            ["http://evil.example", "null", "http://127.0.0.1:8001", "http://127.0.0.1:8000.evil.example", ""]
        {
            assert!(!asks(&[host, ("origin", foreign)], &origins), "{foreign}");
        }
        // A name that was pointed at this machine.
        assert!(!asks(&[("host", "evil.example:8000"), ("origin", "http://evil.example:8000")], &origins));
        assert!(!asks(&[host, ("origin", "http://localhost:3000"), ("origin", "http://evil.example")], &origins));
        assert!(asks(&[host, ("origin", "http://evil.example")], &["*".to_owned()]));
    }
}
