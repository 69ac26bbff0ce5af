//! Bounds what a request may send, and how slowly. A refusal is answered at once; the connection then reads on for a
//! while, so that a client which is still sending hears why.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt};
use poem::http::{HeaderValue, StatusCode, header};
use poem::{Body, Endpoint, IntoResponse, Middleware, Request, Response, Result};
use tokio::time::Instant;

use crate::activity::Activity;
use crate::app::problem;
use crate::errors::ApiError;

/// How much of a body that nobody looks at is read, and for how long.
const DRAIN: (usize, Duration) = (64 << 20, Duration::from_secs(5));

/// How slow a client that owes us its body may be.
#[derive(Debug, Clone, Copy)]
struct Pace {
    /// The longest silence, and how long a body may take at any rate.
    patience: Duration,
    /// The least bytes per second, on average, of one that takes longer.
    rate: u128,
}

const PACE: Pace = Pace { patience: Duration::from_secs(30), rate: 1024 };

/// The middleware.
pub(crate) struct Limits {
    max: usize,
    pace: Pace,
}

impl Limits {
    /// A body may have `max` bytes at most.
    pub fn new(max: usize) -> Self {
        Self { max, pace: PACE }
    }
}

impl<E: Endpoint> Middleware<E> for Limits {
    type Output = LimitsEndpoint<E>;

    fn transform(&self, inner: E) -> Self::Output {
        LimitsEndpoint { inner, max: self.max, pace: self.pace }
    }
}

/// The endpoint of [`Limits`].
pub(crate) struct LimitsEndpoint<E> {
    inner: E,
    max: usize,
    pace: Pace,
}

/// What became of a body, beyond what its reader can tell.
#[derive(Clone)]
struct Fate {
    became: Arc<AtomicU8>,
    activity: Option<Arc<Activity>>,
}

const READ: u8 = 1;
const TOO_LARGE: u8 = 2;
const TOO_SLOW: u8 = 3;
const CUT: u8 = 4;

impl Fate {
    fn set(&self, became: u8) {
        self.became.store(became, Ordering::Release);
        if let Some(activity) = self.activity.as_ref().filter(|_| became == CUT) {
            activity.broke();
        }
    }

    fn leave_unread(&self) {
        if let Some(activity) = &self.activity {
            activity.leave_unread();
        }
    }
}

impl<E: Endpoint> Endpoint for LimitsEndpoint<E> {
    type Output = Response;

    async fn call(&self, mut request: Request) -> Result<Response> {
        let fate = Fate { became: Arc::default(), activity: request.data::<Arc<Activity>>().cloned() };
        if request.header(header::CONTENT_ENCODING).is_some_and(|coding| !coding.eq_ignore_ascii_case("identity")) {
            fate.leave_unread();
            let detail = "Compressed request bodies are not supported: send the body as it is";
            return Ok(closing(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail));
        }
        let length = request.header(header::CONTENT_LENGTH).and_then(|length| length.parse::<usize>().ok());
        if length.is_some_and(|length| length > self.max) {
            fate.leave_unread();
            return Ok(self.too_large());
        }
        let body = request.take_body();
        if body.is_empty() {
            return self.inner.call(request).await.map(IntoResponse::into_response);
        }
        let stream = limited(body.into_bytes_stream().boxed(), self.max, self.pace, fate.clone());
        request.set_body(Body::from_bytes_stream(stream));
        let result = self.inner.call(request).await;
        let became = fate.became.load(Ordering::Acquire);
        if became != READ {
            fate.leave_unread();
        }
        match became {
            TOO_LARGE => Ok(self.too_large()),
            TOO_SLOW => Ok(closing(StatusCode::REQUEST_TIMEOUT, "The request's body did not arrive in time")),
            CUT => Ok(closing(StatusCode::BAD_REQUEST, "The request's body ended too early")),
            _ => result.map(IntoResponse::into_response),
        }
    }
}

impl<E> LimitsEndpoint<E> {
    fn too_large(&self) -> Response {
        let mut response = ApiError::too_large(self.max).into_response();
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        response
    }
}

fn closing(status: StatusCode, detail: &str) -> Response {
    let mut response = problem(status, detail);
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}

type Chunks = BoxStream<'static, io::Result<Bytes>>;

/// `inner`, up to `max` bytes that come at `pace`.
fn limited(inner: Chunks, max: usize, pace: Pace, fate: Fate) -> impl Stream<Item = io::Result<Bytes>> + Send {
    let begun = Instant::now();
    futures::stream::unfold(Some((inner, 0, fate)), move |state| async move {
        let (mut inner, had, fate) = state?;
        let awaited = fate.activity.as_ref().map(Activity::body);
        let next = tokio::time::timeout(pace.patience, inner.next()).await;
        let (became, error) = match next {
            Ok(None) => {
                fate.set(READ);
                return None;
            }
            Ok(Some(Ok(chunk))) => {
                let had: usize = chunk.len().saturating_add(had);
                if had > max {
                    (TOO_LARGE, io::Error::other("the body is too large"))
                } else if pace.is_missed(begun.elapsed(), had) {
                    (TOO_SLOW, io::ErrorKind::TimedOut.into())
                } else {
                    return Some((Ok(chunk), Some((inner, had, fate))));
                }
            }
            Ok(Some(Err(error))) => (CUT, error),
            Err(_) => (TOO_SLOW, io::ErrorKind::TimedOut.into()),
        };
        // Told before the wait is over, which is when the connection looks.
        fate.set(became);
        drop(awaited);
        Some((Err(error), None))
    })
    // Parsers look again after the end.
    .fuse()
}

impl Pace {
    fn is_missed(self, took: Duration, bytes: usize) -> bool {
        took > self.patience && (bytes as u128) * 1000 < took.as_millis() * self.rate
    }
}

/// Reads and forgets, within bounds.
pub(crate) async fn drain(mut chunks: Chunks) {
    let (mut left, time) = DRAIN;
    let reading = async {
        while let Some(Ok(chunk)) = chunks.next().await {
            left = left.saturating_sub(chunk.len());
            if left == 0 {
                break;
            }
        }
    };
    // Out of time means the connection closes with the answer, which is all that is left to do.
    let _ = tokio::time::timeout(time, reading).await;
}

#[cfg(test)]
mod tests {
    use poem::test::TestClient;
    use poem::{EndpointExt, Route, handler};

    use super::*;

    #[handler]
    async fn count(body: Body) -> Result<String> {
        Ok(body.into_bytes().await?.len().to_string())
    }

    fn client() -> TestClient<impl Endpoint> {
        TestClient::new(Route::new().at("/", poem::post(count)).with(Limits::new(10)))
    }

    #[tokio::test]
    async fn a_body_may_be_as_large_as_allowed_and_no_larger() {
        client().post("/").body("0123456789").send().await.assert_text("10").await;
        let told = client().post("/").header("content-length", 11).body("0123456789a").send().await;
        told.assert_status(StatusCode::PAYLOAD_TOO_LARGE);
        told.assert_header("connection", "close");
        // A chunked body says no length beforehand.
        let pieces = futures::stream::iter(vec![Ok::<_, io::Error>("012345"), Ok("678901")]);
        let told = client().post("/").body(Body::from_bytes_stream(pieces)).send().await;
        told.assert_status(StatusCode::PAYLOAD_TOO_LARGE);
    }

    #[tokio::test]
    async fn a_body_that_trickles_is_refused() {
        let pace = Pace { patience: Duration::from_millis(300), rate: 1024 };
        let trickle = futures::stream::unfold((), |()| async {
            tokio::time::sleep(Duration::from_millis(10)).await;
            Some((Ok::<_, io::Error>("x"), ()))
        });
        let app = Route::new().at("/", poem::post(count)).with(Limits { max: 1 << 20, pace });
        let told = TestClient::new(app).post("/").body(Body::from_bytes_stream(trickle)).send().await;
        told.assert_status(StatusCode::REQUEST_TIMEOUT);
    }

    #[test]
    fn a_slow_body_that_keeps_its_pace_is_taken() {
        assert!(!PACE.is_missed(Duration::from_secs(29), 1));
        assert!(!PACE.is_missed(Duration::from_secs(60), 60 << 10));
        assert!(PACE.is_missed(Duration::from_secs(60), (60 << 10) - 1));
    }

    #[tokio::test]
    async fn compressed_bodies_are_refused() {
        let told = client().post("/").header("content-encoding", "gzip").body("x").send().await;
        told.assert_status(StatusCode::UNSUPPORTED_MEDIA_TYPE);
    }
}
