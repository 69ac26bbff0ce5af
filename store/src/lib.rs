//! How it is kept: the log on PostgreSQL with group commit, keys, leases, snapshots, blobs and frames.

mod batch;
mod crypto;
pub mod embedded;
mod error;
mod frames;
mod heads;
mod housekeeping;
mod inspect;
mod kept;
mod keys;
mod leaf;
mod migrate;
mod nodes;
mod prepare;
mod read;
mod signals;
mod store;
mod types;
mod writer;

pub use crypto::MasterKey;
pub use error::{AppendError, StoreError};
pub use frames::{Durability, FrameStore};
pub use inspect::{Inspection, NodeSeen, connect_to_look, inspect};
pub use leaf::verify_leaf;
pub use migrate::Applied;
pub use store::{Store, StoreOptions};
pub use types::{
    Abilities, Append, Appended, CommandKey, Entry, Expected, FrameChunk, Lease, LeaseOp, Meta, MigrateError,
    MigrateOutcome, NodeInfo, RawEntry, RawRecorded, Recorded, StrandedLease, StreamInfo, StreamWrite, Subject,
};
