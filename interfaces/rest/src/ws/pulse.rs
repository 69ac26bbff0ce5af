//! Whether a client is still there: it is while it sends something, and while it takes what it was slow to take.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, sleep_until};

/// Stands for a socket that takes all it is given.
const FREE: u64 = u64::MAX;

/// When a client was last seen to live, in milliseconds after the beginning.
#[derive(Debug)]
pub(super) struct Pulse {
    begun: Instant,
    alive: AtomicU64,
    /// Since when the socket takes nothing more.
    stuck: AtomicU64,
}

impl Pulse {
    fn new() -> Self {
        Self { begun: Instant::now(), alive: AtomicU64::new(0), stuck: AtomicU64::new(FREE) }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(FREE - 1)
    }

    /// The client lives, or cannot show it because nobody listens to it at the moment.
    pub fn touch(&self) {
        self.alive.store(self.now(), Ordering::Release);
    }

    fn wrote(&self, some: bool) {
        if !some {
            let _ = self.stuck.compare_exchange(FREE, self.now(), Ordering::AcqRel, Ordering::Acquire);
        } else if self.stuck.swap(FREE, Ordering::AcqRel) != FREE {
            // What the system buffers says nothing about the client, but it made room.
            self.touch();
        }
    }

    /// When the client counts as gone if nothing happens until then.
    fn end(&self, silence: Duration) -> Instant {
        let (alive, stuck) = (self.alive.load(Ordering::Acquire), self.stuck.load(Ordering::Acquire));
        self.begun + Duration::from_millis(alive.min(stuck)) + silence
    }

    /// Ends when the client has neither sent nor taken anything for `silence`.
    pub async fn lost(&self, silence: Duration) {
        while self.end(silence) > Instant::now() {
            sleep_until(self.end(silence)).await;
        }
    }
}

/// A socket with a pulse.
pub(super) struct Watched<S> {
    socket: S,
    pulse: Arc<Pulse>,
}

impl<S> Watched<S> {
    /// Watches `socket`.
    pub fn new(socket: S) -> (Self, Arc<Pulse>) {
        let pulse = Arc::new(Pulse::new());
        (Self { socket, pulse: Arc::clone(&pulse) }, pulse)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let had = buf.filled().len();
        let read = Pin::new(&mut self.socket).poll_read(cx, buf);
        if buf.filled().len() > had {
            self.pulse.touch();
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.socket).poll_write(cx, bytes);
        self.pulse.wrote(written.is_ready());
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}
