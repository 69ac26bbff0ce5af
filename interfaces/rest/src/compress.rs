//! Compresses answers worth it. Streams go out as they are: a compressor would hold their frames back.

use poem::http::header;
use poem::web::{Compress, CompressionAlgo};
use poem::{Body, Endpoint, IntoResponse, Middleware, Request, Response, Result};

/// Smaller answers cost more to compress than to send.
const WORTH_IT: usize = 1400;

/// The middleware.
pub(crate) struct Compressed;

impl<E: Endpoint> Middleware<E> for Compressed {
    type Output = CompressedEndpoint<E>;

    fn transform(&self, inner: E) -> Self::Output {
        CompressedEndpoint { inner }
    }
}

/// The endpoint of [`Compressed`].
pub(crate) struct CompressedEndpoint<E> {
    inner: E,
}

impl<E: Endpoint> Endpoint for CompressedEndpoint<E> {
    type Output = Response;

    async fn call(&self, request: Request) -> Result<Response> {
        let accepted = request.header(header::ACCEPT_ENCODING).and_then(best);
        let response = self.inner.call(request).await?.into_response();
        let streams = response.content_type().is_some_and(|kind| kind.starts_with("text/event-stream"));
        let Some(algo) = accepted.filter(|_| !streams) else { return Ok(response) };
        // Everything but streams is in memory already.
        let (parts, body) = response.into_parts();
        let bytes = body.into_bytes().await?;
        let large = bytes.len() >= WORTH_IT;
        let mut response = Response::from_parts(parts, Body::from_bytes(bytes));
        response.headers_mut().append(header::VARY, header::HeaderValue::from_static("Accept-Encoding"));
        Ok(if large { Compress::new(response, algo).into_response() } else { response })
    }
}

/// The best coding a client accepts.
fn best(accepted: &str) -> Option<CompressionAlgo> {
    let refused = |weight: &str| weight.trim().trim_start_matches("q=").parse::<f32>().is_ok_and(|q| q <= 0.0);
    let mut codings = accepted.split(',').filter_map(|item| {
        let (coding, weight) = item.split_once(';').unwrap_or((item, ""));
        (!refused(weight)).then(|| coding.trim().to_ascii_lowercase())
    });
    let names: Vec<String> = codings.by_ref().collect();
    let order = [("zstd", CompressionAlgo::ZSTD), ("br", CompressionAlgo::BR), ("gzip", CompressionAlgo::GZIP)];
    order.into_iter().find(|(name, _)| names.iter().any(|coding| coding == name)).map(|(_, algo)| algo)
}

#[cfg(test)]
mod tests {
    use poem::test::TestClient;
    use poem::{EndpointExt, Route, handler};

    use super::*;

    #[handler]
    fn large() -> String {
        "x".repeat(5000)
    }

    #[handler]
    fn small() -> &'static str {
        "x"
    }

    #[handler]
    fn stream() -> Response {
        Response::builder().content_type("text/event-stream; charset=utf-8").body("x".repeat(5000))
    }

    #[tokio::test]
    async fn only_large_answers_that_are_no_streams_are_compressed() {
        let app = Route::new().at("/large", large).at("/small", small).at("/stream", stream).with(Compressed);
        let client = TestClient::new(app);
        let ask = |path: &'static str| client.get(path).header("Accept-Encoding", "gzip, deflate").send();
        ask("/large").await.assert_header("content-encoding", "gzip");
        ask("/small").await.assert_header_is_not_exist("content-encoding");
        ask("/stream").await.assert_header_is_not_exist("content-encoding");
        client.get("/large").send().await.assert_header_is_not_exist("content-encoding");
    }

    #[test]
    fn a_refused_coding_is_not_used() {
        assert_eq!(best("gzip;q=0, br;q=0.5"), Some(CompressionAlgo::BR));
        assert_eq!(best("identity"), None);
    }
}
