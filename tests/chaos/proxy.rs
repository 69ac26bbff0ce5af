//! Between a node and PostgreSQL: it passes everything on, knows the appends to the log among it, and can hold one before
//! the database has it, or its answer after the commit. So a node can be killed at every commit boundary, and Daybook
//! itself has no code for it.

use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;

use crate::wire::{Message, Statements};

/// Where an append is caught.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The database does not have it yet.
    Before,
    /// It is committed, and the node does not know.
    After,
    /// Not an append: the node has a transaction open, and does not know that its last statement is done.
    InTransaction,
}

/// An append, or the answer to one, that does not go on until it is let go.
pub struct Caught {
    /// The types of the events that it brings.
    pub events: Vec<&'static str>,
    go: oneshot::Sender<()>,
}

impl Caught {
    /// Lets it go on. Dropped instead, its connection is cut.
    pub fn let_go(self) {
        // Its connection may be gone.
        let _ = self.go.send(());
    }
}

struct Trap {
    side: Side,
    /// How many pass before it closes.
    passing: usize,
    caught: oneshot::Sender<Caught>,
}

/// What became of an append.
#[derive(Debug, Clone)]
pub struct Append {
    /// The types of the events that it brought.
    pub events: Vec<&'static str>,
    /// The outcome of each of its requests, as the database told it.
    pub outcomes: Vec<i16>,
    /// From its arrival here until its commit.
    pub took: Duration,
}

#[derive(Default)]
struct Shared {
    trap: Option<Trap>,
    appends: Vec<Append>,
    longest: Duration,
    count: usize,
    /// Since when an append is under way; a node has one at a time.
    waiting: Option<Instant>,
}

/// The way of one node to its database.
pub struct Proxy {
    /// Its address: host and port.
    pub address: String,
    shared: Arc<Mutex<Shared>>,
    open: watch::Sender<bool>,
    _serving: JoinSet<()>,
}

impl Proxy {
    /// A way to the PostgreSQL at this socket.
    pub async fn start(socket: PathBuf) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let shared = Arc::<Mutex<Shared>>::default();
        let (open, opened) = watch::channel(true);
        let mut serving = JoinSet::new();
        serving.spawn(serve(listener, socket, shared.clone(), opened));
        Self { address, shared, open, _serving: serving }
    }

    fn shared(&self) -> MutexGuard<'_, Shared> {
        lock(&self.shared)
    }

    /// Catches one append, or its answer, after so many have passed from now on.
    pub fn catch(&self, side: Side, passing: usize) -> oneshot::Receiver<Caught> {
        let (caught, receiver) = oneshot::channel();
        self.shared().trap = Some(Trap { side, passing, caught });
        receiver
    }

    /// Catches nothing any more.
    pub fn pass(&self) {
        self.shared().trap = None;
    }

    /// Cuts all connections and takes no new ones, until [`Proxy::come_back`].
    pub fn go_away(&self) {
        self.open.send_replace(false);
    }

    /// After [`Proxy::go_away`].
    pub fn come_back(&self) {
        self.open.send_replace(true);
    }

    /// The appends since the last call.
    pub fn take_appends(&self) -> Vec<Append> {
        std::mem::take(&mut self.shared().appends)
    }

    /// How many appends there were, and the longest time one took or takes, since the last call.
    pub fn take_longest(&self) -> (usize, Duration) {
        let mut shared = self.shared();
        let waiting = shared.waiting.map_or(Duration::ZERO, |since| since.elapsed());
        (std::mem::take(&mut shared.count), std::mem::take(&mut shared.longest).max(waiting))
    }

    /// How many appends there were since the count was taken.
    pub fn count(&self) -> usize {
        self.shared().count
    }
}

async fn serve(listener: TcpListener, socket: PathBuf, shared: Arc<Mutex<Shared>>, open: watch::Receiver<bool>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((client, _)) = accepted else { continue };
                let (socket, shared, mut open) = (socket.clone(), shared.clone(), open.clone());
                connections.spawn(async move {
                    if !*open.borrow() {
                        return;
                    }
                    tokio::select! {
                        // How a connection ends is the business of the two that it connects.
                        _ = carry(client, socket, shared) => {}
                        _ = open.wait_for(|open| !open) => {}
                    }
                });
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A request under way: what the next "ready" of the server answers.
enum Asked {
    /// An append that came at this time.
    Append(Vec<&'static str>, Instant),
    Other,
}

async fn carry(client: TcpStream, socket: PathBuf, shared: Arc<Mutex<Shared>>) -> io::Result<()> {
    let server = UnixStream::connect(socket).await?;
    client.set_nodelay(true)?;
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let (asked, asking) = mpsc::unbounded_channel();
    let forth = Forth { shared: shared.clone(), asked };
    let back = Back { shared: shared.clone(), asking };
    // The end of one direction is the end of the connection.
    let ended = tokio::select! {
        ended = forth.run(from_client, to_server) => ended,
        ended = back.run(from_server, to_client) => ended,
    };
    lock(&shared).waiting = None;
    ended
}

/// From the node to the server.
struct Forth {
    shared: Arc<Mutex<Shared>>,
    asked: mpsc::UnboundedSender<Asked>,
}

impl Forth {
    async fn run(self, mut from: impl AsyncReadExt + Unpin, mut to: impl AsyncWriteExt + Unpin) -> io::Result<()> {
        let mut from = tokio::io::BufReader::with_capacity(64 * 1024, &mut from);
        let mut statements = Statements::default();
        let mut append = None;
        let mut tagged = false;
        while let Some(message) = Message::read(&mut from, tagged).await? {
            statements.note(&message);
            if let Some(events) = statements.append(&message) {
                let arrived = Instant::now();
                catch(&self.shared, Side::Before, &events).await?;
                lock(&self.shared).waiting = Some(arrived);
                append = Some((events, arrived));
            }
            // The start of a connection, a simple query, and the end of an extended one are answered by a "ready".
            if !tagged || matches!(message.tag, b'Q' | b'S') {
                let asked = append.take().map_or(Asked::Other, |(events, arrived)| Asked::Append(events, arrived));
                // The other direction may have ended.
                let _ = self.asked.send(asked);
            }
            tagged = true;
            to.write_all(&message.bytes).await?;
            if from.buffer().is_empty() {
                to.flush().await?;
            }
        }
        Ok(())
    }
}

/// From the server to the node.
struct Back {
    shared: Arc<Mutex<Shared>>,
    asking: mpsc::UnboundedReceiver<Asked>,
}

impl Back {
    async fn run(mut self, mut from: impl AsyncReadExt + Unpin, mut to: impl AsyncWriteExt + Unpin) -> io::Result<()> {
        let mut from = tokio::io::BufReader::with_capacity(64 * 1024, &mut from);
        let mut under_way = VecDeque::new();
        let mut held: Vec<u8> = Vec::new();
        let mut outcomes = Vec::new();
        while let Some(message) = Message::read(&mut from, true).await? {
            while let Ok(asked) = self.asking.try_recv() {
                under_way.push_back(asked);
            }
            held.extend_from_slice(&message.bytes);
            let is_append = matches!(under_way.front(), Some(Asked::Append(..)));
            if is_append && let Some(told) = message.outcomes() {
                outcomes = told;
            }
            if message.is_ready() {
                if let Some(Asked::Append(events, arrived)) = under_way.pop_front() {
                    self.note(Append {
                        events: events.clone(),
                        outcomes: std::mem::take(&mut outcomes),
                        took: arrived.elapsed(),
                    });
                    catch(&self.shared, Side::After, &events).await?;
                }
                if message.is_ready_in_transaction() {
                    catch(&self.shared, Side::InTransaction, &[]).await?;
                }
            }
            // What belongs to an append is passed on as a whole, after its commit.
            if !is_append || message.is_ready() {
                to.write_all(&held).await?;
                held.clear();
                if from.buffer().is_empty() {
                    to.flush().await?;
                }
            }
        }
        Ok(())
    }

    fn note(&self, append: Append) {
        let mut shared = lock(&self.shared);
        shared.waiting = None;
        shared.count += 1;
        shared.longest = shared.longest.max(append.took);
        if shared.appends.len() < 10_000 {
            shared.appends.push(append);
        }
    }
}

/// Holds it here when it is the one that is waited for.
async fn catch(shared: &Mutex<Shared>, side: Side, events: &[&'static str]) -> io::Result<()> {
    let (go, gone) = oneshot::channel();
    {
        let mut shared = lock(shared);
        let Some(mut trap) = shared.trap.take_if(|trap| trap.side == side) else { return Ok(()) };
        if trap.passing > 0 {
            trap.passing -= 1;
            shared.trap = Some(trap);
            return Ok(());
        }
        let Ok(()) = trap.caught.send(Caught { events: events.to_vec(), go }) else { return Ok(()) };
    }
    gone.await.map_err(|_| io::Error::other("cut"))
}
