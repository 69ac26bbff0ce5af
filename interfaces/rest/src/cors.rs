//! Cross-origin calls from browsers, answered as clients of the AgentOS API expect: a foreign origin is served, but
//! not allowed.

use std::sync::Arc;

use poem::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use poem::{Endpoint, IntoResponse, Middleware, Request, Response, Result};

const METHODS: &str = "DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT, QUERY";

/// Whether pages of `origin` may call a server that allows `origins`; `*` among them allows every one.
pub(crate) fn allows(origins: &[String], origin: &HeaderValue) -> bool {
    origins.iter().any(|allowed| allowed == "*" || allowed.as_bytes() == origin.as_bytes())
}

/// The middleware.
pub(crate) struct Cors {
    origins: Arc<[String]>,
}

impl Cors {
    /// Allows `origins`; `*` allows every one.
    pub fn new(origins: &[String]) -> Self {
        Self { origins: origins.into() }
    }
}

impl<E: Endpoint> Middleware<E> for Cors {
    type Output = CorsEndpoint<E>;

    fn transform(&self, inner: E) -> Self::Output {
        CorsEndpoint { inner, origins: self.origins.clone() }
    }
}

/// The endpoint of [`Cors`].
pub(crate) struct CorsEndpoint<E> {
    inner: E,
    origins: Arc<[String]>,
}

impl<E: Endpoint> Endpoint for CorsEndpoint<E> {
    type Output = Response;

    async fn call(&self, request: Request) -> Result<Response> {
        let Some(origin) = request.headers().get(header::ORIGIN).cloned() else {
            return Ok(self.inner.call(request).await?.into_response());
        };
        let allowed = Some(origin).filter(|origin| allows(&self.origins, origin));
        let asks = request.headers().contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
        if request.method() == Method::OPTIONS && asks {
            return Ok(preflight(request.headers(), allowed));
        }
        let result = self.inner.call(request).await;
        let mut response = result.map_or_else(poem::Error::into_response, IntoResponse::into_response);
        let headers = response.headers_mut();
        headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static("*"));
        allow(headers, allowed);
        Ok(response)
    }
}

fn preflight(asked: &HeaderMap, allowed: Option<HeaderValue>) -> Response {
    let (status, text) = match &allowed {
        Some(_) => (StatusCode::OK, "OK"),
        None => (StatusCode::BAD_REQUEST, "Disallowed CORS origin"),
    };
    let mut response = Response::builder().status(status).content_type("text/plain; charset=utf-8").body(text);
    let headers = response.headers_mut();
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static(METHODS));
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
    if let Some(wanted) = asked.get(header::ACCESS_CONTROL_REQUEST_HEADERS) {
        headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, wanted.clone());
    }
    allow(headers, allowed);
    response
}

fn allow(headers: &mut HeaderMap, allowed: Option<HeaderValue>) {
    headers.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
    headers.append(header::VARY, HeaderValue::from_static("Origin"));
    if let Some(origin) = allowed {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    }
}

#[cfg(test)]
mod tests {
    use poem::test::TestClient;
    use poem::{EndpointExt, Route, handler};

    use super::*;

    #[handler]
    fn index() -> &'static str {
        "hi"
    }

    fn client() -> TestClient<impl Endpoint> {
        TestClient::new(Route::new().at("/x", index).with(Cors::new(&["http://localhost:3000".to_owned()])))
    }

    #[tokio::test]
    async fn a_known_origin_is_allowed_and_a_foreign_one_only_served() {
        let answer = client().get("/x").header("Origin", "http://localhost:3000").send().await;
        answer.assert_status_is_ok();
        answer.assert_header("access-control-allow-origin", "http://localhost:3000");
        answer.assert_header("access-control-allow-credentials", "true");
        let answer = client().get("/x").header("Origin", "http://evil.example").send().await;
        answer.assert_status_is_ok();
        answer.assert_header_is_not_exist("access-control-allow-origin");
        client().get("/x").send().await.assert_header_is_not_exist("access-control-allow-credentials");
    }

    #[tokio::test]
    async fn a_preflight_is_answered_as_recorded() {
        let client = client();
        let ask = |origin: &'static str| {
            let request = client.options("/x").header("Origin", origin);
            request.header("Access-Control-Request-Method", "GET").header("Access-Control-Request-Headers", "x-a")
        };
        let answer = ask("http://localhost:3000").send().await;
        answer.assert_status_is_ok();
        answer.assert_header("access-control-allow-headers", "x-a");
        answer.assert_header("access-control-allow-methods", METHODS);
        answer.assert_text("OK").await;
        ask("http://evil.example").send().await.assert_status(StatusCode::BAD_REQUEST);
    }
}
