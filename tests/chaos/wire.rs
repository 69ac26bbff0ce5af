//! As much of PostgreSQL's protocol as a bystander needs: where messages begin and end, and which statement is executed.

use std::collections::HashMap;
use std::io;

use tokio::io::{AsyncRead, AsyncReadExt};

/// The most bytes of one message.
const MAX: usize = 64 << 20;

/// What Daybook's log is written with.
const APPEND: &[u8] = b"append_batch(";

/// The events of runs and of decisions about them, as their types are called in the log.
const EVENTS: [&str; 18] = [
    "RunAccepted",
    "RunTakenOver",
    "RunModelCallRequested",
    "RunModelCallCompleted",
    "RunModelCallFailed",
    "RunToolCallRequested",
    "RunToolCallCompleted",
    "RunToolCallFailed",
    "RunToolOutcomeUnknown",
    "RunPaused",
    "RunRequirementResolved",
    "RunContinued",
    "RunCancelRequested",
    "RunSucceeded",
    "RunFailed",
    "RunCancelled",
    "SessionRunEnded",
    "ApprovalResolved",
];

/// One message, as it was sent.
pub struct Message {
    /// What kind; 0 for the first of a client, which has no kind.
    pub tag: u8,
    /// All of it, tag and length included.
    pub bytes: Vec<u8>,
}

impl Message {
    /// The next message; `None` at the end of the connection.
    pub async fn read(from: &mut (impl AsyncRead + Unpin), tagged: bool) -> io::Result<Option<Self>> {
        let head = if tagged { 5 } else { 4 };
        let mut bytes = vec![0; head];
        match from.read_exact(&mut bytes).await {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            read => read?,
        };
        let mut length = [0; 4];
        length.copy_from_slice(&bytes[head - 4..]);
        let length = u32::from_be_bytes(length) as usize;
        if !(4..=MAX).contains(&length) {
            return Err(io::Error::other(format!("a message of {length} bytes")));
        }
        bytes.resize(head + length - 4, 0);
        from.read_exact(&mut bytes[head..]).await?;
        Ok(Some(Self { tag: if tagged { bytes[0] } else { 0 }, bytes }))
    }

    fn body(&self) -> &[u8] {
        self.bytes.get(5..).unwrap_or_default()
    }

    /// Whether the server says with this that it is done, and nothing is left open.
    pub fn is_ready(&self) -> bool {
        self.tag == b'Z'
    }

    /// Whether the server says that it is done and a transaction is open.
    pub fn is_ready_in_transaction(&self) -> bool {
        self.is_ready() && self.body() == b"T"
    }

    /// The outcomes of an append's requests; 4 is a lost lease.
    pub fn outcomes(&self) -> Option<Vec<i16>> {
        if self.tag != b'D' {
            return None;
        }
        // Columns, the first one's length, then an array: dimensions, flags, type, count, lower bound, elements.
        let body = self.body();
        let number = |at: usize| Some(i32::from_be_bytes(body.get(at..at + 4)?.try_into().ok()?));
        let count = usize::try_from(number(18)?).ok()?;
        let element = |n: usize| Some(i16::from_be_bytes(body.get(30 + n * 6..32 + n * 6)?.try_into().ok()?));
        (0..count).map(element).collect()
    }
}

/// The statements a connection has prepared.
#[derive(Default)]
pub struct Statements {
    by_name: HashMap<Vec<u8>, Vec<u8>>,
}

impl Statements {
    /// Takes notice of a client's message.
    pub fn note(&mut self, message: &Message) {
        if message.tag == b'P'
            && let Some((name, rest)) = text(message.body())
            && let Some((sql, _)) = text(rest)
        {
            self.by_name.insert(name.to_vec(), sql.to_vec());
        }
    }

    /// The events a message brings to the log; `None` when it is no append.
    pub fn append(&self, message: &Message) -> Option<Vec<&'static str>> {
        if message.tag != b'B' {
            return None;
        }
        let (_portal, rest) = text(message.body())?;
        let (name, arguments) = text(rest)?;
        let sql = self.by_name.get(name)?;
        sql.windows(APPEND.len()).any(|window| window == APPEND).then(|| events(arguments))
    }
}

/// A text up to its end, and what follows.
fn text(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = bytes.iter().position(|byte| *byte == 0)?;
    Some((&bytes[..end], &bytes[end + 1..]))
}

/// The types of events among a statement's arguments, in order: texts with their lengths before them.
fn events(arguments: &[u8]) -> Vec<&'static str> {
    let mut found = Vec::new();
    for name in EVENTS {
        let mut sought = u32::try_from(name.len()).unwrap().to_be_bytes().to_vec();
        sought.extend(name.bytes());
        let places = arguments.windows(sought.len()).enumerate().filter(|(_, window)| *window == sought);
        found.extend(places.map(|(at, _)| (at, name)));
    }
    found.sort_unstable();
    found.into_iter().map(|(_, name)| name).collect()
}
