//! Gives every request an id, the caller's if it sent a good one, for the log, the answer and what the request causes.

use std::time::Instant;

use poem::http::HeaderValue;
use poem::{Endpoint, IntoResponse, Middleware, Request, Response, Result};
use tracing::Instrument;
use uuid::Uuid;

/// The header it comes and goes in.
const HEADER: &str = "x-request-id";

/// The longest id taken from a caller.
const MAX_LEN: usize = 128;

/// The id of a request.
#[derive(Debug, Clone)]
pub(crate) struct RequestId(pub String);

/// The middleware.
pub(crate) struct RequestIds;

impl<E: Endpoint> Middleware<E> for RequestIds {
    type Output = RequestIdEndpoint<E>;

    fn transform(&self, inner: E) -> Self::Output {
        RequestIdEndpoint { inner }
    }
}

/// The endpoint of [`RequestIds`].
pub(crate) struct RequestIdEndpoint<E> {
    inner: E,
}

impl<E: Endpoint> Endpoint for RequestIdEndpoint<E> {
    type Output = Response;

    async fn call(&self, mut request: Request) -> Result<Response> {
        let id = request.header(HEADER).filter(|id| good(id)).map(str::to_owned);
        let id = id.unwrap_or_else(|| Uuid::now_v7().to_string());
        let span = tracing::info_span!("request", id, method = %request.method(), path = request.uri().path());
        let header = HeaderValue::from_str(&id).ok();
        request.set_data(RequestId(id));
        let begun = Instant::now();
        let answered = async {
            let result = self.inner.call(request).await;
            let response = result.map_or_else(poem::Error::into_response, IntoResponse::into_response);
            let (status, took_ms) = (response.status().as_u16(), begun.elapsed().as_millis());
            tracing::debug!(status, took_ms, "answered");
            response
        };
        let mut response = answered.instrument(span).await;
        if let Some(value) = header {
            response.headers_mut().insert(HEADER, value);
        }
        Ok(response)
    }
}

fn good(id: &str) -> bool {
    (1..=MAX_LEN).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use poem::test::TestClient;
    use poem::{EndpointExt, Route};

    use super::*;

    #[tokio::test]
    async fn a_good_id_is_kept_and_a_bad_one_replaced() {
        let client = TestClient::new(Route::new().with(RequestIds));
        client.get("/").header(HEADER, "abc-1").send().await.assert_header(HEADER, "abc-1");
        for bad in ["a b", &"x".repeat(MAX_LEN + 1)] {
            let answer = client.get("/").header(HEADER, bad).send().await;
            let given = answer.0.headers().get(HEADER).unwrap().to_str().unwrap();
            assert!(Uuid::parse_str(given).is_ok(), "{given}");
        }
    }
}
