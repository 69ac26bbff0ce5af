//! Turns a request into what the database stores: serialised, encrypted, hashed, and checked before it is queued.

use std::collections::HashSet;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use daybook_domain::redact::Redactor;
use daybook_domain::{DomainEvent, LogId, StoredForm, StreamId};
use sqlx::PgPool;
use uuid::Uuid;

use crate::error::StoreError;
use crate::kept;
use crate::keys::{DataKey, Keyring};
use crate::leaf::Content;
use crate::types::{Append, Expected, LeaseOp, StreamWrite, Subject};

/// Far above any sensible request, far below what the database takes.
const MAX_REQUEST_BYTES: usize = 64 * 1024 * 1024;

/// Personal values above this many bytes go to the blobs.
const MAX_INLINE_BYTES: usize = 64 * 1024;

/// Stands before a blob's name where an event's personal values would stand; those are a JSON list.
pub(crate) const SPILLED: &str = "blob:";

pub(crate) struct PreparedEvent {
    pub id: Uuid,
    pub kind: &'static str,
    pub schema_version: i16,
    pub payload: String,
    pub personal: Option<Vec<u8>>,
    pub key_id: Option<Uuid>,
    pub content: [u8; 32],
}

/// A request ready for a batch.
pub(crate) struct Prepared {
    pub request: Arc<Append>,
    pub occurred_at: DateTime<Utc>,
    /// As many as the request has writes.
    pub writes: Vec<Vec<PreparedEvent>>,
    pub keys: Vec<Arc<DataKey>>,
    pub bytes: usize,
}

/// What an event's personal values are bound to: moved elsewhere, they do not open.
pub(crate) fn event_place(log: LogId, stream: &StreamId, event_id: Uuid) -> String {
    format!("event|{log}|{stream}|{event_id}")
}

/// Checks and prepares `request`.
pub(crate) async fn prepare(
    request: Arc<Append>,
    pool: &PgPool,
    keyring: &Keyring,
    redactor: Option<&Redactor>,
) -> Result<Prepared, StoreError> {
    let occurred_at = check(&request)?;
    let mut prepared =
        Prepared { request: request.clone(), occurred_at, writes: Vec::new(), keys: Vec::new(), bytes: 0 };
    for write in &request.writes {
        let mut events = Vec::with_capacity(write.events.len());
        for event in &write.events {
            let mut stored = store_form(event, redactor)?;
            let key = match (&stored.personal, &write.subject) {
                (None, _) => None,
                (Some(_), Some(subject)) => Some(key_of(&request, subject, keyring, &mut prepared.keys).await?),
                (Some(_), None) => {
                    let kind = stored.kind;
                    return Err(invalid(format!("{kind} has personal values, but its write names no subject")));
                }
            };
            if let (Some(personal), Some(subject)) = (&mut stored.personal, &write.subject) {
                spill(&request, pool, keyring, subject, personal).await?;
            }
            let event = seal(&request, write, stored, key.as_deref())?;
            prepared.bytes += event.payload.len() + event.personal.as_ref().map_or(0, Vec::len) + 256;
            events.push(event);
        }
        prepared.writes.push(events);
    }
    if prepared.bytes > MAX_REQUEST_BYTES {
        return Err(invalid(format!("the request has {} bytes, more than {MAX_REQUEST_BYTES}", prepared.bytes)));
    }
    Ok(prepared)
}

/// Moves large personal values into a blob and leaves its name, so that events stay small.
async fn spill(
    request: &Append,
    pool: &PgPool,
    keyring: &Keyring,
    subject: &Subject,
    personal: &mut String,
) -> Result<(), StoreError> {
    if personal.len() > MAX_INLINE_BYTES {
        let hash = kept::put_blob(pool, keyring, request.log_id, subject, personal.as_bytes()).await?;
        *personal = format!("{SPILLED}{hash}");
    }
    Ok(())
}

fn invalid(why: impl Into<String>) -> StoreError {
    StoreError::Invalid(why.into())
}

fn check(request: &Append) -> Result<DateTime<Utc>, StoreError> {
    let mut streams = HashSet::new();
    for write in &request.writes {
        if !streams.insert(&write.stream) {
            return Err(invalid(format!("stream {} is written twice in one request", write.stream)));
        }
        match write.expected {
            Expected::Any if write.events.is_empty() => {
                return Err(invalid(format!("the write to {} has no events and expects nothing", write.stream)));
            }
            Expected::Version(version) if i64::try_from(version).is_err() => {
                return Err(invalid(format!("version {version} is out of range")));
            }
            _ => {}
        }
    }
    let meta = &request.meta;
    let mut texts = vec![meta.principal.as_str(), meta.interface.as_str()];
    texts.extend(meta.correlation_id.as_deref());
    texts.extend(meta.causation_id.as_deref());
    texts.extend(request.writes.iter().map(|write| write.stream.as_str()));
    if let Some(command) = &request.command {
        texts.extend([&command.principal, &command.route, &command.key, &command.resource].map(String::as_str));
    }
    match &request.lease {
        LeaseOp::None => {}
        LeaseOp::Take { node, component, tools, .. } => {
            texts.extend([node.as_str(), component.as_str()]);
            texts.extend(tools.iter().map(String::as_str));
        }
        LeaseOp::Hold { node, .. } | LeaseOp::Release { node, .. } => texts.push(node),
    }
    if texts.iter().any(|text| text.contains('\0')) {
        return Err(invalid("a name, key or id contains the character U+0000, which PostgreSQL cannot store"));
    }
    DateTime::from_timestamp_millis(meta.occurred_at_ms)
        .ok_or_else(|| invalid(format!("{} is not a time in unix milliseconds", meta.occurred_at_ms)))
}

async fn key_of(
    request: &Append,
    subject: &Subject,
    keyring: &Keyring,
    used: &mut Vec<Arc<DataKey>>,
) -> Result<Arc<DataKey>, StoreError> {
    if let Some(key) = used.iter().find(|key| key.subject.session == subject.session) {
        return Ok(key.clone());
    }
    let session = StreamId::session(&subject.session);
    let fresh = request.writes.iter().any(|w| w.expected == Expected::Version(0) && w.stream == session);
    let key = keyring.of(request.log_id, subject, fresh).await?;
    used.push(key.clone());
    Ok(key)
}

fn store_form(event: &DomainEvent, redactor: Option<&Redactor>) -> Result<StoredForm, StoreError> {
    let mut stored = event.store().map_err(|error| invalid(format!("an event cannot be written as JSON: {error}")))?;
    if let Some(redactor) = redactor {
        redact(redactor, &mut stored.payload)?;
        if let Some(personal) = &mut stored.personal {
            redact(redactor, personal)?;
        }
    }
    Ok(stored)
}

/// Writes `json` anew only when it held a secret, so that all else stays as it was.
fn redact(redactor: &Redactor, json: &mut String) -> Result<(), StoreError> {
    if !redactor.may_change(json) {
        return Ok(());
    }
    let unreadable = |error| invalid(format!("an event cannot be redacted: {error}"));
    let before: serde_json::Value = serde_json::from_str(json).map_err(unreadable)?;
    let mut after = before.clone();
    redactor.value(&mut after);
    if after != before {
        *json = serde_json::to_string(&after).map_err(unreadable)?;
    }
    Ok(())
}

fn seal(
    request: &Append,
    write: &StreamWrite,
    stored: StoredForm,
    key: Option<&DataKey>,
) -> Result<PreparedEvent, StoreError> {
    let id = Uuid::now_v7();
    let personal = match (&stored.personal, key) {
        (Some(personal), Some(key)) => {
            Some(key.sealer.seal(&event_place(request.log_id, &write.stream, id), personal.as_bytes())?)
        }
        _ => None,
    };
    let key_id = key.map(|key| key.id);
    let meta = &request.meta;
    let content = Content {
        stream: write.stream.as_str(),
        event_id: id,
        kind: stored.kind,
        schema_version: stored.schema_version,
        payload: &stored.payload,
        personal: personal.as_deref(),
        key_id,
        principal: &meta.principal,
        interface: &meta.interface,
        correlation: meta.correlation_id.as_deref(),
        causation: meta.causation_id.as_deref(),
        occurred_at_ms: meta.occurred_at_ms,
    }
    .hash();
    let schema_version = i16::try_from(stored.schema_version)
        .map_err(|_| invalid(format!("schema version {} is out of range", stored.schema_version)))?;
    Ok(PreparedEvent { id, kind: stored.kind, schema_version, payload: stored.payload, personal, key_id, content })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_holds_a_secret_is_written_anew() {
        let redactor = Redactor::built_in();
        let mut kept = r#"{ "a" : 1.50 }"#.to_owned();
        redact(redactor, &mut kept).unwrap();
        assert_eq!(kept, r#"{ "a" : 1.50 }"#);
        let mut changed = r#"{"headers": {"authorization": "abc"}}"#.to_owned();
        redact(redactor, &mut changed).unwrap();
        assert_eq!(changed, r#"{"headers":{"authorization":"[redacted]"}}"#);
    }
}
