//! What goes into the log and what comes out of it.

use daybook_domain::{DomainEvent, LogId, RunId, SessionId, StreamId, UserId};
use uuid::Uuid;

use crate::error::StoreError;

/// One request to append: all of it is written, or nothing.
#[derive(Debug, Clone)]
pub struct Append {
    /// The log.
    pub log_id: LogId,
    /// What is written to which streams; each stream at most once. May be empty when only the lease changes.
    pub writes: Vec<StreamWrite>,
    /// The command this executes, so that the same key is executed once.
    pub command: Option<CommandKey>,
    /// What happens to the run tree's lease, checked in the same transaction.
    pub lease: LeaseOp,
    /// What is recorded with every event of the request.
    pub meta: Meta,
}

/// What is recorded with an event about where it came from.
#[derive(Debug, Clone)]
pub struct Meta {
    /// Who caused it.
    pub principal: String,
    /// The interface it came by.
    pub interface: String,
    /// Ties together what one request caused.
    pub correlation_id: Option<String>,
    /// The event or command that caused it.
    pub causation_id: Option<String>,
    /// When it happened, in unix milliseconds, by the writer's clock.
    pub occurred_at_ms: i64,
}

/// Events for one stream.
#[derive(Debug, Clone)]
pub struct StreamWrite {
    /// The stream.
    pub stream: StreamId,
    /// What the writer knows of it.
    pub expected: Expected,
    /// Whose key protects the personal values; `None` only when there are none.
    pub subject: Option<Subject>,
    /// The events, in order.
    pub events: Vec<DomainEvent>,
}

/// The version a writer expects a stream to have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    /// Whatever it is.
    Any,
    /// Exactly this many events; 0 when the stream must not exist.
    Version(u64),
}

/// Whose key protects personal values: a session's, itself protected by its user's.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Subject {
    /// The session.
    pub session: SessionId,
    /// Its user; `None` for an anonymous one. Matters only when the session's key is made.
    pub user: Option<UserId>,
}

/// Names a command, unique per (log, principal, route, key).
#[derive(Debug, Clone)]
pub struct CommandKey {
    /// Who asked.
    pub principal: String,
    /// For what kind of thing, such as `POST /agents/{id}/runs`.
    pub route: String,
    /// The caller's key.
    pub key: String,
    /// SHA-256 over the command's parsed fields.
    pub body_hash: [u8; 32],
    /// What the command makes or touches; a duplicate is told this.
    pub resource: String,
}

/// What an append does with a run tree's lease.
#[derive(Debug, Clone)]
pub enum LeaseOp {
    /// Nothing.
    None,
    /// Takes a new one. Lost when the tree has one already.
    Take {
        /// The root run.
        tree: RunId,
        /// The node that will run it; a name that no node has leaves it to whoever claims it first.
        node: String,
        /// 1 for a new run; for one that goes on after a pause, the epoch it had then.
        epoch: u64,
        /// The component, for nodes that may take it over.
        component: String,
        /// The tools it needs, likewise.
        tools: Vec<String>,
    },
    /// Checks that the node still holds it.
    Hold {
        /// The root run.
        tree: RunId,
        /// The node.
        node: String,
        /// The epoch it claimed or took.
        epoch: u64,
    },
    /// Checks, then gives it up for good.
    Release {
        /// The root run.
        tree: RunId,
        /// The node.
        node: String,
        /// The epoch it claimed or took.
        epoch: u64,
    },
}

/// What an append did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Appended {
    /// The position of its last event; the head when it had none.
    pub last_position: u64,
    /// For each write, the stream's version after it.
    pub versions: Vec<u64>,
    /// The database's time, in unix milliseconds, never before an earlier position's.
    pub recorded_at_ms: i64,
}

/// An event of the log, decoded.
#[derive(Debug, Clone, PartialEq)]
pub struct Recorded {
    /// Its log.
    pub log_id: LogId,
    /// Its place in the log: 1, 2, 3, ... without gaps, in commit order.
    pub position: u64,
    /// Its stream.
    pub stream: StreamId,
    /// Its place in the stream: 1, 2, 3, ...
    pub version: u64,
    /// Names it everywhere.
    pub event_id: Uuid,
    /// What happened.
    pub event: DomainEvent,
    /// Who caused it.
    pub principal: String,
    /// The interface it came by.
    pub interface: String,
    /// Ties together what one request caused.
    pub correlation_id: Option<String>,
    /// What caused it.
    pub causation_id: Option<String>,
    /// When it happened, unix milliseconds, by the writer's clock.
    pub occurred_at_ms: i64,
    /// When it was recorded, unix milliseconds, by the database's clock.
    pub recorded_at_ms: i64,
    /// Its leaf of the log's Merkle tree.
    pub leaf_hash: [u8; 32],
}

/// An event of the log without where it came from: what a view is posted from.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// Its place in the log.
    pub position: u64,
    /// Its stream.
    pub stream: StreamId,
    /// Its place in the stream.
    pub version: u64,
    /// What happened.
    pub event: DomainEvent,
}

impl From<Recorded> for Entry {
    fn from(recorded: Recorded) -> Self {
        let Recorded { position, stream, version, event, .. } = recorded;
        Self { position, stream, version, event }
    }
}

/// An [`Entry`] as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawEntry {
    /// Its place in the log.
    pub position: u64,
    /// Its stream.
    pub stream: StreamId,
    /// Its place in the stream.
    pub version: u64,
    /// Names it everywhere.
    pub event_id: Uuid,
    /// Its type.
    pub kind: String,
    /// The version of its payload's shape.
    pub schema_version: u16,
    /// JSON without personal values.
    pub payload: String,
    /// The personal values, encrypted.
    pub personal: Option<Vec<u8>>,
    /// The data key they are encrypted with.
    pub key_id: Option<Uuid>,
}

/// An event as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawRecorded {
    /// Its log.
    pub log_id: LogId,
    /// Its place in the log.
    pub position: u64,
    /// Its stream.
    pub stream: StreamId,
    /// Its place in the stream.
    pub version: u64,
    /// Names it everywhere.
    pub event_id: Uuid,
    /// Its type.
    pub kind: String,
    /// The version of its payload's shape.
    pub schema_version: u16,
    /// JSON without personal values, byte for byte as written.
    pub payload: String,
    /// The personal values, encrypted.
    pub personal: Option<Vec<u8>>,
    /// The data key they are encrypted with.
    pub key_id: Option<Uuid>,
    /// Who caused it.
    pub principal: String,
    /// The interface it came by.
    pub interface: String,
    /// Ties together what one request caused.
    pub correlation_id: Option<String>,
    /// What caused it.
    pub causation_id: Option<String>,
    /// When it happened, unix milliseconds, by the writer's clock.
    pub occurred_at_ms: i64,
    /// When it was recorded, unix microseconds, by the database's clock.
    pub recorded_at_us: i64,
    /// Its leaf of the log's Merkle tree; see [`crate::verify_leaf`].
    pub leaf_hash: [u8; 32],
}

/// Where a stream stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamInfo {
    /// How many events it has.
    pub version: u64,
    /// Where its first is.
    pub first_position: u64,
    /// Where its last is.
    pub last_position: u64,
}

/// A running server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeInfo {
    /// Names this start of it.
    pub id: String,
    /// The machine, so that neighbours can see whether the process is gone.
    pub host: String,
    /// The process.
    pub pid: u32,
    /// What it can run.
    pub abilities: Abilities,
}

/// What a node can run: runs of these components, as far as it has their models and all their tools.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Abilities {
    /// Components, by the names that leases carry.
    pub components: Vec<String>,
    /// Models, by the keys that configurations carry.
    pub models: Vec<String>,
    /// Tools, by name.
    pub tools: Vec<String>,
}

/// The lease of a run tree that no living node holds, and none could take: each lacks the component or a tool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StrandedLease {
    /// The root run.
    pub tree: RunId,
    /// The component it needs.
    pub component: String,
    /// The tools it needs.
    pub tools: Vec<String>,
}

/// A claimed run tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// The root run.
    pub tree: RunId,
    /// The epoch every append for it must carry.
    pub epoch: u64,
    /// The component it runs.
    pub component: String,
}

/// Consecutive frames of a run tree, coalesced and encoded by the engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FrameChunk {
    /// The log.
    pub log: LogId,
    /// The root run.
    pub tree: RunId,
    /// Whose key protects them.
    pub subject: Subject,
    /// The index of the first.
    pub first_index: u64,
    /// The index of the last.
    pub last_index: u64,
    /// How many.
    pub count: u32,
    /// The frames, as the engine encodes them.
    pub body: Vec<u8>,
}

/// What [`crate::Store::migrate`] found or did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MigrateOutcome {
    /// The target asked for, or `latest`.
    pub target: String,
    /// Whether a migration ran; otherwise the database was there already.
    pub changed: bool,
}

/// Why a database cannot be brought to a version.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    /// Not a version.
    #[error("{0:?} is not a version; give one like 2.5.0, or none for the latest")]
    BadVersion(String),
    /// This program cannot serve that version.
    #[error("version {target} is not served by this program, which serves {oldest} to {newest}")]
    Incompatible {
        /// What was asked for.
        target: String,
        /// The oldest version served.
        oldest: &'static str,
        /// The newest version served.
        newest: &'static str,
    },
    /// The migration failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}
