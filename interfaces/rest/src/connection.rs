//! A connection that sends small frames at once, that ends when its client has gone or asks for nothing, and that lets
//! a client which is still sending hear its answer.
//! poem polls a connection on after its client closed it, so that a request nobody waits for would run to its end;
//! failing the next write makes it let go.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep};

use crate::activity::Entered;

/// How much of an unread body is read after the answer: closing earlier would take the answer away from a client that
/// is still sending.
const LINGER: usize = 64 << 20;

/// A client's connection.
pub(crate) struct Connection {
    socket: TcpStream,
    entered: Entered,
    /// How long it may be without a request.
    idle: Duration,
    /// How long an unread body is read after the answer.
    linger: Duration,
    check: Pin<Box<Sleep>>,
    /// The client sends no more.
    ended: bool,
    expired: bool,
    lingering: Option<(usize, Pin<Box<Sleep>>)>,
}

impl Connection {
    /// Takes over an accepted socket, which is closed after being without a request for `idle`; a client that is still
    /// sending when it is answered is heard for `linger`.
    pub fn new(socket: TcpStream, entered: Entered, idle: Duration, linger: Duration) -> Self {
        if let Err(error) = socket.set_nodelay(true) {
            tracing::debug!(%error, "a connection stays slow");
        }
        let check = Box::pin(sleep(idle));
        Self { socket, entered, idle, linger, check, ended: false, expired: false, lingering: None }
    }

    /// The socket, while there is somebody to write to.
    fn writable(&mut self) -> io::Result<Pin<&mut TcpStream>> {
        let gone = self.expired || (self.ended && !self.entered.activity.may_listen());
        if gone { Err(io::ErrorKind::BrokenPipe.into()) } else { Ok(Pin::new(&mut self.socket)) }
    }

    /// Ready when there was no request for too long.
    fn poll_idle(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while !self.expired {
            ready!(self.check.as_mut().poll(cx));
            let now = Instant::now();
            let end = self.entered.activity.idle_since().unwrap_or(now) + self.idle;
            self.expired = end <= now;
            self.check.as_mut().reset(end);
        }
        Poll::Ready(())
    }

    /// Reads and forgets what the client still sends, within bounds.
    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let linger = self.linger;
        let (left, end) = self.lingering.get_or_insert_with(|| (LINGER, Box::pin(sleep(linger))));
        let mut room = [0; 16 << 10];
        while *left > 0 && end.as_mut().poll(cx).is_pending() {
            let mut buf = ReadBuf::new(&mut room);
            match ready!(Pin::new(&mut self.socket).poll_read(cx, &mut buf)) {
                Ok(()) if !buf.filled().is_empty() => *left = left.saturating_sub(buf.filled().len()),
                _ => break,
            }
        }
        *left = 0;
        Poll::Ready(())
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let (had, room) = (buf.filled().len(), buf.remaining());
        let read = Pin::new(&mut self.socket).poll_read(cx, buf);
        if read.is_pending() {
            ready!(self.poll_idle(cx));
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        if matches!(read, Poll::Ready(Ok(()))) && room > 0 && buf.filled().len() == had {
            self.ended = true;
        }
        read
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.writable()?.poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.writable()?.poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut = ready!(Pin::new(&mut self.socket).poll_shutdown(cx));
        if shut.is_ok() && !self.ended && self.entered.activity.is_unread() {
            ready!(self.poll_linger(cx));
        }
        Poll::Ready(shut)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.writable()?.poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }
}
