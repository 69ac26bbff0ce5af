//! One client's WebSocket: messages within bounds, and an end when the client is no longer there.

use std::sync::Arc;
use std::time::Duration;

use futures::{FutureExt, SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message, Utf8Bytes};

use super::pulse::{Pulse, Watched};

/// The most bytes of a message that is looked at, as of a form's text field.
pub(super) const MAX_MESSAGE: usize = 1 << 20;

/// The most bytes of a message that is read at all, so that its sender can be told that it is too long.
const MAX_READ: usize = 4 << 20;

/// What is kept for reading and writing while a connection is quiet, in bytes.
const BUFFER: usize = 4 << 10;

/// What clients are held to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rules {
    /// How often a client is asked whether it is there.
    pub ping: Duration,
    /// How long it may neither send nor take anything.
    pub silence: Duration,
    /// How long it may take to say goodbye.
    pub goodbye: Duration,
}

/// Pings every 20 s, and a minute's patience.
pub(super) const RULES: Rules =
    Rules { ping: Duration::from_secs(20), silence: Duration::from_secs(60), goodbye: Duration::from_secs(2) };

/// What a client said.
#[derive(Debug, PartialEq)]
pub(super) enum Said {
    /// A text.
    Text(Utf8Bytes),
    /// A message with so many bytes, which is more than [`MAX_MESSAGE`].
    TooLong(usize),
    /// A message that is no text.
    Binary,
}

/// Why a connection ends.
#[derive(Debug, PartialEq)]
pub(super) enum End {
    /// The client has gone, or does nothing any more.
    Gone,
    /// The client is told why.
    Told(CloseCode, &'static str),
}

impl From<Error> for End {
    fn from(error: Error) -> Self {
        match error {
            Error::Capacity(_) => Self::Told(CloseCode::Size, "The message is far too long"),
            Error::Utf8(_) => Self::Told(CloseCode::Invalid, "A text message is UTF-8"),
            Error::Protocol(_) => Self::Told(CloseCode::Protocol, "This is not the WebSocket protocol"),
            _ => Self::Gone,
        }
    }
}

/// A client's WebSocket.
pub(super) struct Peer<S> {
    socket: WebSocketStream<Watched<S>>,
    pulse: Arc<Pulse>,
    rules: Rules,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Peer<S> {
    /// Takes over a connection that was upgraded.
    pub async fn new(socket: S, rules: Rules) -> Self {
        let (socket, pulse) = Watched::new(socket);
        let config = WebSocketConfig::default()
            .read_buffer_size(BUFFER)
            .write_buffer_size(BUFFER)
            .max_message_size(Some(MAX_READ))
            .max_frame_size(Some(MAX_READ));
        let socket = WebSocketStream::from_raw_socket(socket, Role::Server, Some(config)).await;
        Self { socket, pulse, rules }
    }

    /// The next message. Nothing is lost when this is dropped before it is ready.
    ///
    /// # Errors
    /// [`End`] when there is none, also when the client has neither sent nor taken anything for too long.
    pub async fn next(&mut self) -> Result<Said, End> {
        loop {
            let message = tokio::select! {
                message = self.socket.next() => message.ok_or(End::Gone)??,
                () = self.pulse.lost(self.rules.silence) => return Err(End::Gone),
            };
            match message {
                Message::Text(text) if text.len() > MAX_MESSAGE => return Ok(Said::TooLong(text.len())),
                Message::Text(text) => return Ok(Said::Text(text)),
                Message::Binary(bytes) if bytes.len() > MAX_MESSAGE => return Ok(Said::TooLong(bytes.len())),
                Message::Binary(_) => return Ok(Said::Binary),
                // Pings and goodbyes are answered by the library.
                Message::Ping(_) | Message::Pong(_) | Message::Close(_) | Message::Frame(_) => {}
            }
        }
    }

    /// Hands a text to the socket once that takes it; [`Peer::flush`] sends it.
    ///
    /// # Errors
    /// [`End`] when the client takes nothing for too long.
    pub async fn feed(&mut self, text: String) -> Result<(), End> {
        within(&self.pulse, self.rules, self.socket.feed(Message::text(text))).await
    }

    /// Sends what was handed over.
    ///
    /// # Errors
    /// As [`Peer::feed`].
    pub async fn flush(&mut self) -> Result<(), End> {
        within(&self.pulse, self.rules, self.socket.flush()).await
    }

    /// Asks the client whether it is there.
    ///
    /// # Errors
    /// As [`Peer::feed`].
    pub async fn ping(&mut self) -> Result<(), End> {
        within(&self.pulse, self.rules, self.socket.send(Message::Ping(Vec::new().into()))).await
    }

    /// The client was not listened to: its silence does not count.
    pub fn excuse(&self) {
        self.pulse.touch();
    }

    /// Ends the connection, and tells the client why if it is still there.
    pub async fn close(mut self, end: End) {
        if let End::Told(code, reason) = end {
            let goodbye = async {
                let frame = CloseFrame { code, reason: reason.into() };
                self.socket.send(Message::Close(Some(frame))).await?;
                while self.socket.next().await.is_some_and(|said| said.is_ok()) {}
                Ok::<_, Error>(())
            };
            // Whoever does not answer hears it or does not.
            let _ = timeout(self.rules.goodbye, goodbye).await;
        }
        // What the client still sends is read for a moment by the connection itself.
        let _ = timeout(self.rules.silence, self.socket.get_mut().shutdown()).await;
    }
}

/// Does `work` unless the client takes nothing for too long.
async fn within(pulse: &Pulse, rules: Rules, work: impl Future<Output = Result<(), Error>>) -> Result<(), End> {
    let mut work = std::pin::pin!(work);
    // Mostly there is room, and then no timer is needed.
    if let Some(done) = work.as_mut().now_or_never() {
        return Ok(done?);
    }
    tokio::select! {
        done = work => Ok(done?),
        () = pulse.lost(rules.silence) => Err(End::Gone),
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::DuplexStream;
    use tokio::time::Instant;

    use super::*;

    type Client = WebSocketStream<DuplexStream>;

    /// A client and the server's end, with `room` bytes on the way.
    async fn pair(room: usize) -> (Client, Peer<DuplexStream>) {
        let (here, there) = tokio::io::duplex(room);
        let client = WebSocketStream::from_raw_socket(there, Role::Client, None).await;
        (client, Peer::new(here, RULES).await)
    }

    #[tokio::test]
    async fn a_message_that_is_too_long_is_told_apart_and_the_next_one_is_heard() {
        let (mut client, mut peer) = pair(8 << 20).await;
        client.send(Message::text("x".repeat(MAX_MESSAGE))).await.unwrap();
        client.send(Message::text("x".repeat(MAX_MESSAGE + 1))).await.unwrap();
        client.send(Message::binary(vec![0; MAX_MESSAGE + 1])).await.unwrap();
        client.send(Message::binary(vec![0])).await.unwrap();
        client.send(Message::text("after")).await.unwrap();
        assert!(matches!(peer.next().await, Ok(Said::Text(text)) if text.len() == MAX_MESSAGE));
        assert_eq!(peer.next().await, Ok(Said::TooLong(MAX_MESSAGE + 1)));
        assert_eq!(peer.next().await, Ok(Said::TooLong(MAX_MESSAGE + 1)));
        assert_eq!(peer.next().await, Ok(Said::Binary));
        assert_eq!(peer.next().await, Ok(Said::Text("after".into())));
    }

    #[tokio::test]
    async fn a_message_without_measure_ends_the_connection_with_a_reason() {
        let (mut client, mut peer) = pair(16 << 20).await;
        client.send(Message::text("x".repeat(MAX_READ + 1))).await.unwrap();
        let end = peer.next().await.unwrap_err();
        assert!(matches!(end, End::Told(CloseCode::Size, _)), "{end:?}");
        let (told, ()) = tokio::join!(client.next(), peer.close(end));
        let Some(Ok(Message::Close(Some(frame)))) = told else { panic!("{told:?}") };
        assert_eq!(u16::from(frame.code), 1009);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_takes_nothing_is_given_up_after_a_minute() {
        let (_client, mut peer) = pair(64).await;
        let begun = Instant::now();
        let told = async {
            loop {
                if let Err(end) = peer.feed("x".repeat(1000)).await {
                    return end;
                }
            }
        };
        assert_eq!(told.await, End::Gone);
        assert_eq!(begun.elapsed(), RULES.silence);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_takes_a_little_from_time_to_time_is_served() {
        let (mut client, mut peer) = pair(64).await;
        let begun = Instant::now();
        let long = "x".repeat(1000);
        let told = async {
            peer.feed(long.clone()).await.unwrap();
            peer.flush().await.unwrap();
            peer
        };
        let slowly = async {
            let mut bytes = [0; 60];
            for _ in 0..1000 / 60 {
                tokio::time::sleep(RULES.silence / 2).await;
                tokio::io::AsyncReadExt::read_exact(client.get_mut(), &mut bytes).await.unwrap();
            }
            client
        };
        let (_peer, _client) = tokio::join!(told, slowly);
        assert!(begun.elapsed() > RULES.silence * 5);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_answers_pings_lives_and_one_that_does_not_is_lost() {
        let (mut client, mut peer) = pair(1 << 10).await;
        for _ in 0..10 {
            tokio::time::sleep(RULES.ping).await;
            peer.ping().await.unwrap();
            assert!(matches!(client.next().await, Some(Ok(Message::Ping(_)))));
            // The answer leaves with the next read.
            assert!(client.next().now_or_never().is_none());
            assert!(peer.next().now_or_never().is_none());
        }
        let begun = Instant::now();
        assert_eq!(peer.next().await, Err(End::Gone));
        assert_eq!(begun.elapsed(), RULES.silence);
    }
}
