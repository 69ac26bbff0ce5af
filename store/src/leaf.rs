//! The evidence in each row: an RFC 6962 leaf over the event's stored bytes and its place.
//!
//! The content hash is taken here, when the request is prepared; the database adds the place, which only it knows.

use aws_lc_rs::digest::{Context, SHA256};
use uuid::Uuid;

use crate::types::RawRecorded;

/// What an event's content hash covers.
pub(crate) struct Content<'a> {
    pub stream: &'a str,
    pub event_id: Uuid,
    pub kind: &'a str,
    pub schema_version: u16,
    pub payload: &'a str,
    pub personal: Option<&'a [u8]>,
    pub key_id: Option<Uuid>,
    pub principal: &'a str,
    pub interface: &'a str,
    pub correlation: Option<&'a str>,
    pub causation: Option<&'a str>,
    pub occurred_at_ms: i64,
}

impl Content<'_> {
    /// SHA-256 over every field with its length (eight bytes, big-endian; all ones when absent) in front.
    pub(crate) fn hash(&self) -> [u8; 32] {
        let mut context = Context::new(&SHA256);
        let mut field = |bytes: Option<&[u8]>| {
            context.update(&bytes.map_or(u64::MAX, |bytes| bytes.len() as u64).to_be_bytes());
            context.update(bytes.unwrap_or_default());
        };
        field(Some(self.stream.as_bytes()));
        field(Some(self.event_id.as_bytes()));
        field(Some(self.kind.as_bytes()));
        field(Some(&self.schema_version.to_be_bytes()));
        field(Some(self.payload.as_bytes()));
        field(self.personal);
        field(self.key_id.as_ref().map(|id| id.as_bytes().as_slice()));
        field(Some(self.principal.as_bytes()));
        field(Some(self.interface.as_bytes()));
        field(self.correlation.map(str::as_bytes));
        field(self.causation.map(str::as_bytes));
        field(Some(&self.occurred_at_ms.to_be_bytes()));
        finish(context)
    }
}

/// Whether a stored event is byte for byte what was recorded at its place.
pub fn verify_leaf(raw: &RawRecorded) -> bool {
    let content = Content {
        stream: raw.stream.as_str(),
        event_id: raw.event_id,
        kind: &raw.kind,
        schema_version: raw.schema_version,
        payload: &raw.payload,
        personal: raw.personal.as_deref(),
        key_id: raw.key_id,
        principal: &raw.principal,
        interface: &raw.interface,
        correlation: raw.correlation_id.as_deref(),
        causation: raw.causation_id.as_deref(),
        occurred_at_ms: raw.occurred_at_ms,
    };
    let mut context = Context::new(&SHA256);
    context.update(&[0]);
    context.update(&raw.log_id.0.to_be_bytes());
    context.update(&raw.position.to_be_bytes());
    context.update(&raw.version.to_be_bytes());
    context.update(&raw.recorded_at_us.to_be_bytes());
    context.update(&content.hash());
    finish(context) == raw.leaf_hash
}

fn finish(context: Context) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(context.finish().as_ref());
    hash
}

/// SHA-256 of `bytes`.
pub(crate) fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut context = Context::new(&SHA256);
    context.update(bytes);
    finish(context)
}
