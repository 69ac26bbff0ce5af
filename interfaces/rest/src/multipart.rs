//! Multipart bodies, read in time that grows with their size alone. The parser looks at all it was given again for each
//! chunk that comes while it seeks a part's head, so it is given no more than a head may have.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt};

use crate::limits::drain;

/// The most bytes that are looked through for the first boundary, and for the end of a part's headers.
const MAX_HEAD: usize = 16 << 10;

/// The longest boundary; the standard allows 70 bytes.
const MAX_BOUNDARY: usize = 256;

/// A multipart body.
pub(crate) struct Multipart {
    parser: multer::Multipart<'static>,
    source: Source,
}

impl Multipart {
    /// Of a body with this content type; `None` when that names no boundary.
    pub fn new(content_type: &str, body: poem::Body) -> Option<Self> {
        let boundary = multer::parse_boundary(content_type).ok().filter(|boundary| boundary.len() <= MAX_BOUNDARY)?;
        // The parser may look again after the end.
        let chunks = body.into_bytes_stream().fuse().boxed();
        let source = Source(Arc::new(Mutex::new(Feed { chunks, seeking: false, seen: 0, last: 0, pause: false })));
        Some(Self { parser: multer::Multipart::new(source.clone(), boundary), source })
    }

    /// The next part's head. The part before must have been read to its end.
    ///
    /// # Errors
    /// When the body breaks off, is no multipart body, or a head is too large.
    pub async fn next(&mut self) -> multer::Result<Option<multer::Field<'static>>> {
        self.source.ask(true);
        self.parser.next_field().await
    }

    /// The next bytes of a part; `None` at its end.
    ///
    /// # Errors
    /// When the body breaks off.
    pub async fn chunk(&self, part: &mut multer::Field<'static>) -> multer::Result<Option<Bytes>> {
        self.source.ask(false);
        part.chunk().await
    }

    /// Reads what is left without looking at it, within bounds, so that the connection can go on.
    pub async fn finish(self) {
        self.source.ask(false);
        drain(self.source.boxed()).await;
    }
}

/// The body, shared by the parser and whoever reads on when that is done.
#[derive(Clone)]
struct Source(Arc<Mutex<Feed>>);

struct Feed {
    chunks: BoxStream<'static, io::Result<Bytes>>,
    /// Whether a part's head is sought, which bounds what is given.
    seeking: bool,
    /// How much was given before the last chunk, which the parser may not have looked at yet.
    seen: usize,
    last: usize,
    /// Whether to give nothing once: the parser takes all it can get, before it looks at what it has.
    pause: bool,
}

impl Source {
    /// Begins a question to the parser.
    fn ask(&self, seeking: bool) {
        let mut feed = self.feed();
        (feed.seeking, feed.seen, feed.last, feed.pause) = (seeking, 0, 0, true);
    }

    fn feed(&self) -> MutexGuard<'_, Feed> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Stream for Source {
    type Item = io::Result<Bytes>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let mut feed = self.feed();
        if feed.pause {
            feed.pause = false;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        if feed.seeking && feed.seen > MAX_HEAD {
            return Poll::Ready(Some(Err(io::Error::other("a part's head is too large"))));
        }
        let chunk = ready!(feed.chunks.poll_next_unpin(cx));
        if let Some(Ok(bytes)) = &chunk {
            feed.seen += feed.last;
            (feed.last, feed.pause) = (bytes.len(), true);
        }
        Poll::Ready(chunk)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A body of `count` chunks, and how many of them were taken.
    fn chunks(chunk: Vec<u8>, count: usize) -> (poem::Body, Arc<Mutex<usize>>) {
        let taken = Arc::new(Mutex::new(0));
        let (seen, bytes) = (Arc::clone(&taken), Bytes::from(chunk));
        let stream = futures::stream::iter((0..count).map(move |_| {
            *seen.lock().unwrap() += 1;
            Ok::<_, io::Error>(bytes.clone())
        }));
        (poem::Body::from_bytes_stream(stream), taken)
    }

    #[tokio::test]
    async fn a_boundary_that_does_not_come_is_not_sought_for_ever() {
        let (body, taken) = chunks(vec![b'a'; 1000], 4000);
        let mut parts = Multipart::new("multipart/form-data; boundary=x", body).unwrap();
        assert!(parts.next().await.is_err());
        assert!(*taken.lock().unwrap() < 30);
        parts.finish().await;
        assert_eq!(*taken.lock().unwrap(), 4000);
    }

    #[tokio::test]
    async fn headers_that_do_not_end_are_not_read_for_ever() {
        let (endless, taken) = chunks(b"a: aaaaaaaaaaaaaaaaa\r\n".repeat(50), 4000);
        let start = futures::stream::iter([Ok::<_, io::Error>(Bytes::from_static(b"--x\r\n"))]);
        let body = poem::Body::from_bytes_stream(start.chain(endless.into_bytes_stream()));
        let mut parts = Multipart::new("multipart/form-data; boundary=x", body).unwrap();
        assert!(parts.next().await.is_err());
        assert!(*taken.lock().unwrap() < 30);
    }

    #[tokio::test]
    async fn parts_may_be_cut_anywhere() {
        let text = "--x\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\none\r\n-\r\n--x\r\n\
                    Content-Disposition: form-data; name=\"b\"\r\n\r\n\r\n--x--\r\nthe end";
        for size in 1..text.len() {
            let pieces: Vec<_> = text.as_bytes().chunks(size).map(|piece| Ok::<_, io::Error>(piece.to_vec())).collect();
            let body = poem::Body::from_bytes_stream(futures::stream::iter(pieces));
            let mut parts = Multipart::new("multipart/form-data; boundary=x", body).unwrap();
            let mut read = Vec::new();
            while let Some(mut part) = parts.next().await.unwrap() {
                let mut bytes = Vec::new();
                while let Some(chunk) = parts.chunk(&mut part).await.unwrap() {
                    bytes.extend_from_slice(&chunk);
                }
                read.push((part.name().unwrap().to_owned(), bytes));
            }
            let expected = [("a".to_owned(), b"one\r\n-".to_vec()), ("b".to_owned(), Vec::new())];
            assert_eq!(read, expected, "in pieces of {size}");
            parts.finish().await;
        }
    }
}
