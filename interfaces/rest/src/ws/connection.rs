//! One connection: what the client asks for is done one after the other, and the runs it watches are told as it takes
//! them. Nothing is kept for a client that does not read: its watches wait, and take up where they were.

use std::sync::Arc;

use daybook_domain::ids::RunId;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, interval_at};
use tokio_stream::StreamMap;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_util::sync::CancellationToken;

use super::act::{Actor, Done, Shown};
use super::action::{self, Action, Asked};
use super::encoding::Encoding;
use super::peer::{End, MAX_MESSAGE, Peer, RULES, Said};
use super::words;
use crate::activity::Activity;

/// How many runs a connection may watch at the same time.
const MAX_WATCHES: usize = 32;

/// How many messages are handed to the socket before the client is listened to again.
const AT_ONCE: usize = 64;

/// A client's connection.
pub(super) struct Connection<S> {
    actor: Actor,
    peer: Peer<S>,
    watches: StreamMap<RunId, Shown>,
    /// The action that is being done, if any.
    doing: FuturesUnordered<BoxFuture<'static, Done>>,
    /// What the client asked for meanwhile; it is not listened to while there is something.
    waiting: Option<Asked>,
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Connection<S> {
    /// Takes over a socket that was upgraded.
    pub async fn new(actor: Actor, socket: S) -> Self {
        let peer = Peer::new(socket, RULES).await;
        Self { actor, peer, watches: StreamMap::new(), doing: FuturesUnordered::new(), waiting: None }
    }

    /// Serves the client until it goes or the server stops.
    pub async fn serve(mut self, stopping: CancellationToken, activity: Option<Arc<Activity>>) {
        let end = tokio::select! {
            end = self.talk() => end,
            () = stopping.cancelled() => {
                End::Told(CloseCode::Away, "The server is stopping: reconnect after the last event you have seen")
            }
        };
        // The runs go on.
        let Self { peer, .. } = self;
        if let (End::Told(..), Some(activity)) = (&end, activity) {
            activity.leave_unread();
        }
        peer.close(end).await;
    }

    /// Ends when the connection does.
    async fn talk(&mut self) -> End {
        let told = self.tell(words::connected()).await;
        if let Err(end) = told {
            return end;
        }
        let mut beats = interval_at(Instant::now() + RULES.ping, RULES.ping);
        loop {
            if let Err(end) = self.step(&mut beats).await {
                return end;
            }
        }
    }

    /// Whatever comes next.
    async fn step(&mut self, beats: &mut tokio::time::Interval) -> Result<(), End> {
        let listens = self.waiting.is_none();
        tokio::select! {
            said = self.peer.next(), if listens => self.heard(said?).await,
            Some(done) = self.doing.next(), if !self.doing.is_empty() => self.did(done).await,
            Some((_, message)) = self.watches.next(), if !self.watches.is_empty() => self.pass_on(message).await,
            _ = beats.tick() => {
                if !listens {
                    self.peer.excuse();
                }
                self.peer.ping().await
            }
        }
    }

    async fn heard(&mut self, said: Said) -> Result<(), End> {
        let why = match said {
            Said::Text(text) => match action::read(self.actor.kind, &text) {
                Ok(asked) => return self.asked(asked).await,
                Err(refused) => {
                    let told = words::answering(words::error(&refused.why), refused.request_id.as_deref());
                    return self.tell(told).await;
                }
            },
            Said::TooLong(size) => {
                format!("The message has {size} bytes, and {MAX_MESSAGE} at most are taken: send less at once")
            }
            Said::Binary => "Binary messages are not understood: send JSON as text".to_owned(),
        };
        self.tell(words::error(&why)).await
    }

    async fn asked(&mut self, asked: Asked) -> Result<(), End> {
        if !self.doing.is_empty() {
            self.waiting = Some(asked);
            return Ok(());
        }
        let watches = !matches!(asked.action, Action::Authenticate | Action::Ping | Action::Cancel { .. });
        let known = matches!(&asked.action, Action::Reconnect(which) if self.watches.contains_key(&which.run));
        if watches && !known && self.watches.len() >= MAX_WATCHES {
            let why = format!(
                "This connection watches {MAX_WATCHES} runs, as many as it may: wait until one has ended, or open \
                 another connection"
            );
            return self.tell(words::answering(words::error(&why), asked.request_id.as_deref())).await;
        }
        self.doing.push(self.actor.clone().act(asked).boxed());
        Ok(())
    }

    async fn did(&mut self, done: Done) -> Result<(), End> {
        match done {
            // Who comes back to a run that is watched already watches it once.
            Done::Watching(run, shown) => drop(self.watches.insert(run, shown)),
            Done::Told(told) => self.tell(told).await?,
        }
        match self.waiting.take() {
            Some(asked) => self.asked(asked).await,
            None => Ok(()),
        }
    }

    /// Sends a message of a watch, and those that are there already.
    async fn pass_on(&mut self, first: String) -> Result<(), End> {
        self.peer.feed(first).await?;
        for _ in 1..AT_ONCE {
            match self.watches.next().now_or_never() {
                Some(Some((_, message))) => self.peer.feed(message).await?,
                _ => break,
            }
        }
        self.peer.flush().await
    }

    /// Says something that is no event of a run.
    async fn tell(&mut self, told: serde_json::Value) -> Result<(), End> {
        let encoding = self.actor.encoding.unwrap_or(Encoding::Json);
        self.peer.feed(encoding.control(&told)).await?;
        self.peer.flush().await
    }
}
