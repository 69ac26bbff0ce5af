//! Reading the log back, raw and decoded.

use chrono::{DateTime, Utc};
use daybook_domain::{DomainEvent, LogId, StreamId};
use sqlx::postgres::PgRow;
use sqlx::{PgPool, Row};
use uuid::Uuid;

use crate::error::StoreError;
use crate::kept;
use crate::keys::{DataKey, Keyring};
use crate::prepare::{SPILLED, event_place};
use crate::store::Store;
use crate::types::{CommandKey, Entry, RawEntry, RawRecorded, Recorded, StreamInfo};

// The same columns in the same order in each statement: `raw` takes them by number.
const AFTER: &str = "SELECT log_id, position, stream_id, version, event_id, type, schema_version, payload::text, \
     personal, key_id, leaf_hash, principal, interface, correlation_id, causation_id, occurred_at, recorded_at \
     FROM events WHERE log_id = $1 AND position > $2 AND position <= $3 ORDER BY position";

// Of the types asked for, and of those the asker does not know. `raw_entry` takes the columns by number.
const ENTRIES: &str = "SELECT position, stream_id, version, event_id, type, schema_version, payload::text, personal, \
     key_id FROM events WHERE log_id = $1 AND position > $2 AND position <= $3 \
     AND (type = ANY ($4) OR type <> ALL ($5)) ORDER BY position";

// By its own index whatever the statistics say, and only in the partitions the stream has a part in.
const STREAM: &str = "SELECT log_id, position, stream_id, version, event_id, type, schema_version, payload::text, \
     personal, key_id, leaf_hash, principal, interface, correlation_id, causation_id, occurred_at, recorded_at \
     FROM read_stream($1, $2, $3, $4) ORDER BY version";

// An index entry of each partition, whatever the length of the stream.
const ONE: &str = "SELECT log_id, position, stream_id, version, event_id, type, schema_version, payload::text, \
     personal, key_id, leaf_hash, principal, interface, correlation_id, causation_id, occurred_at, recorded_at \
     FROM events WHERE log_id = $1 AND stream_id = $2 AND version = $3";

impl Store {
    /// One event of a stream; `None` when the stream has none of this version.
    ///
    /// # Errors
    /// As [`Store::read_stream`].
    pub async fn read_event(
        &self,
        log: LogId,
        stream: &StreamId,
        version: u64,
    ) -> Result<Option<Recorded>, StoreError> {
        let version = i64::try_from(version).unwrap_or(i64::MAX);
        let query = sqlx::query(ONE).bind(log.0).bind(stream.as_str()).bind(version);
        let Some(row) = query.fetch_optional(self.pool()).await? else { return Ok(None) };
        self.decode(raw(&row)?).await.map(Some)
    }

    /// As [`Store::read_stream`], for who knows the position of the event of `after_version`, or of one before it: older
    /// parts of the log are not looked at.
    ///
    /// # Errors
    /// As [`Store::read_stream`].
    pub async fn read_stream_from(
        &self,
        log: LogId,
        stream: &StreamId,
        after_version: u64,
        after_position: u64,
    ) -> Result<Vec<Recorded>, StoreError> {
        let raws = raw_stream_from(self.pool(), log, stream, after_version, after_position).await?;
        self.decode_all(raws).await?.into_iter().collect()
    }

    /// What a command's key stands for: whether it was executed with the same body, and the resource it made; `None` when the
    /// key is new.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn executed(&self, log: LogId, command: &CommandKey) -> Result<Option<(bool, String)>, StoreError> {
        let found: Option<(Vec<u8>, String)> = sqlx::query_as(
            "SELECT body_hash, resource FROM commands WHERE log_id = $1 AND principal = $2 AND route = $3 AND key = $4",
        )
        .bind(log.0)
        .bind(&command.principal)
        .bind(&command.route)
        .bind(&command.key)
        .fetch_optional(self.pool())
        .await?;
        Ok(found.map(|(hash, resource)| (hash == command.body_hash, resource)))
    }

    /// What a view takes of the events after position `from` up to `to`: those of the types it `wants`, and those whose
    /// types are not among the `known`, of which it must decide what to do. In order, undecoded, without provenance.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn read_entries(
        &self,
        log: LogId,
        (from, to): (u64, u64),
        wants: &[&str],
        known: &[&str],
    ) -> Result<Vec<RawEntry>, StoreError> {
        let [from, to] = [from, to].map(|position| i64::try_from(position).unwrap_or(i64::MAX));
        let query = sqlx::query(ENTRIES).bind(log.0).bind(from).bind(to).bind(wants).bind(known);
        let rows = query.fetch_all(self.pool()).await?;
        rows.iter().map(|row| raw_entry(row).map_err(StoreError::from)).collect()
    }

    /// Decodes entries, one result each in the same order, looking their keys up at once.
    ///
    /// # Errors
    /// [`StoreError`] when the keys cannot be looked up.
    pub async fn decode_entries(
        &self,
        log: LogId,
        raws: Vec<RawEntry>,
    ) -> Result<Vec<Result<Entry, StoreError>>, StoreError> {
        let ids: Vec<Uuid> = raws.iter().filter_map(|raw| raw.key_id).collect();
        let keys = self.keyring().by_ids(log, ids).await?;
        let mut each = Vec::with_capacity(raws.len());
        for raw in raws {
            let key = raw.key_id.and_then(|id| keys.get(&id)).and_then(Option::as_deref);
            let event = Stored::from((log, &raw)).decode(self.pool(), self.keyring(), key).await;
            let RawEntry { position, stream, version, .. } = raw;
            each.push(event.map(|event| Entry { position, stream, version, event }));
        }
        Ok(each)
    }
}

pub(crate) async fn raw_after(
    pool: &PgPool,
    log: LogId,
    position: u64,
    limit: usize,
) -> Result<Vec<RawRecorded>, StoreError> {
    let from = i64::try_from(position).unwrap_or(i64::MAX);
    let to = from.saturating_add(i64::try_from(limit).unwrap_or(i64::MAX));
    let rows = sqlx::query(AFTER).bind(log.0).bind(from).bind(to).fetch_all(pool).await?;
    rows.iter().map(|row| raw(row).map_err(StoreError::from)).collect()
}

pub(crate) async fn raw_stream(
    pool: &PgPool,
    log: LogId,
    stream: &StreamId,
    after_version: u64,
) -> Result<Vec<RawRecorded>, StoreError> {
    raw_stream_from(pool, log, stream, after_version, 0).await
}

async fn raw_stream_from(
    pool: &PgPool,
    log: LogId,
    stream: &StreamId,
    after_version: u64,
    after_position: u64,
) -> Result<Vec<RawRecorded>, StoreError> {
    let [version, position] = [after_version, after_position].map(|n| i64::try_from(n).unwrap_or(i64::MAX));
    let query = sqlx::query(STREAM).bind(log.0).bind(stream.as_str()).bind(version).bind(position);
    let rows = query.fetch_all(pool).await?;
    rows.iter().map(|row| raw(row).map_err(StoreError::from)).collect()
}

pub(crate) async fn stream_info(
    pool: &PgPool,
    log: LogId,
    stream: &StreamId,
) -> Result<Option<StreamInfo>, StoreError> {
    let row: Option<(i64, i64, i64)> = sqlx::query_as(
        "SELECT version, first_position, last_position FROM streams WHERE log_id = $1 AND stream_id = $2",
    )
    .bind(log.0)
    .bind(stream.as_str())
    .fetch_optional(pool)
    .await?;
    Ok(row.map(|(version, first, last)| StreamInfo {
        version: version as u64,
        first_position: first as u64,
        last_position: last as u64,
    }))
}

pub(crate) async fn head(pool: &PgPool, log: LogId) -> Result<u64, StoreError> {
    let head: Option<i64> =
        sqlx::query_scalar("SELECT position FROM log_head WHERE log_id = $1").bind(log.0).fetch_optional(pool).await?;
    Ok(head.unwrap_or(0) as u64)
}

fn raw(row: &PgRow) -> Result<RawRecorded, sqlx::Error> {
    let positive = |at: usize| row.try_get::<i64, _>(at).map(|number| number as u64);
    let occurred: DateTime<Utc> = row.try_get(15)?;
    let recorded: DateTime<Utc> = row.try_get(16)?;
    Ok(RawRecorded {
        log_id: LogId(row.try_get(0)?),
        position: positive(1)?,
        stream: StreamId::from_log(row.try_get(2)?),
        version: positive(3)?,
        event_id: row.try_get(4)?,
        kind: row.try_get(5)?,
        schema_version: row.try_get::<i16, _>(6)? as u16,
        payload: row.try_get(7)?,
        personal: row.try_get(8)?,
        key_id: row.try_get(9)?,
        leaf_hash: row.try_get(10)?,
        principal: row.try_get(11)?,
        interface: row.try_get(12)?,
        correlation_id: row.try_get(13)?,
        causation_id: row.try_get(14)?,
        occurred_at_ms: occurred.timestamp_millis(),
        recorded_at_us: recorded.timestamp_micros(),
    })
}

fn raw_entry(row: &PgRow) -> Result<RawEntry, sqlx::Error> {
    Ok(RawEntry {
        position: row.try_get::<i64, _>(0)? as u64,
        stream: StreamId::from_log(row.try_get(1)?),
        version: row.try_get::<i64, _>(2)? as u64,
        event_id: row.try_get(3)?,
        kind: row.try_get(4)?,
        schema_version: row.try_get::<i16, _>(5)? as u16,
        payload: row.try_get(6)?,
        personal: row.try_get(7)?,
        key_id: row.try_get(8)?,
    })
}

/// Decodes each, looking up the keys of all at once.
pub(crate) async fn decode_all(
    pool: &PgPool,
    keyring: &Keyring,
    raws: Vec<RawRecorded>,
) -> Result<Vec<Result<Recorded, StoreError>>, StoreError> {
    let Some(log) = raws.first().map(|raw| raw.log_id) else { return Ok(Vec::new()) };
    if raws.iter().any(|raw| raw.log_id != log) {
        return Err(StoreError::Invalid("events of several logs are not decoded together".to_owned()));
    }
    let ids: Vec<Uuid> = raws.iter().filter_map(|raw| raw.key_id).collect();
    let keys = keyring.by_ids(log, ids).await?;
    let mut each = Vec::with_capacity(raws.len());
    for raw in raws {
        let key = raw.key_id.and_then(|id| keys.get(&id).cloned().flatten());
        each.push(decode(pool, keyring, raw, key.as_deref()).await);
    }
    Ok(each)
}

/// Decodes with the key the event names, or as erased.
pub(crate) async fn decode(
    pool: &PgPool,
    keyring: &Keyring,
    raw: RawRecorded,
    key: Option<&DataKey>,
) -> Result<Recorded, StoreError> {
    let event = Stored::from(&raw).decode(pool, keyring, key).await?;
    Ok(Recorded {
        log_id: raw.log_id,
        position: raw.position,
        stream: raw.stream,
        version: raw.version,
        event_id: raw.event_id,
        event,
        principal: raw.principal,
        interface: raw.interface,
        correlation_id: raw.correlation_id,
        causation_id: raw.causation_id,
        occurred_at_ms: raw.occurred_at_ms,
        recorded_at_ms: raw.recorded_at_us.div_euclid(1000),
        leaf_hash: raw.leaf_hash,
    })
}

/// What decoding needs of a stored event.
struct Stored<'a> {
    log: LogId,
    position: u64,
    stream: &'a StreamId,
    event_id: Uuid,
    kind: &'a str,
    schema_version: u16,
    payload: &'a str,
    personal: Option<&'a [u8]>,
}

impl<'a> From<&'a RawRecorded> for Stored<'a> {
    fn from(raw: &'a RawRecorded) -> Self {
        Self {
            log: raw.log_id,
            position: raw.position,
            stream: &raw.stream,
            event_id: raw.event_id,
            kind: &raw.kind,
            schema_version: raw.schema_version,
            payload: &raw.payload,
            personal: raw.personal.as_deref(),
        }
    }
}

impl<'a> From<(LogId, &'a RawEntry)> for Stored<'a> {
    fn from((log, raw): (LogId, &'a RawEntry)) -> Self {
        Self {
            log,
            position: raw.position,
            stream: &raw.stream,
            event_id: raw.event_id,
            kind: &raw.kind,
            schema_version: raw.schema_version,
            payload: &raw.payload,
            personal: raw.personal.as_deref(),
        }
    }
}

impl Stored<'_> {
    async fn decode(&self, pool: &PgPool, keyring: &Keyring, key: Option<&DataKey>) -> Result<DomainEvent, StoreError> {
        let personal = match (self.personal, key) {
            (Some(sealed), Some(key)) => {
                let place = event_place(self.log, self.stream, self.event_id);
                let text = self.text(key.sealer.open(&place, sealed))?;
                match text.strip_prefix(SPILLED) {
                    None => Some(text),
                    Some(hash) => self.spilled(pool, keyring, key, hash).await?,
                }
            }
            _ => None,
        };
        DomainEvent::decode(self.kind, self.schema_version, self.payload, personal.as_deref())
            .map_err(|source| StoreError::Decode { position: self.position, source })
    }

    /// Large personal values, which stand in a blob; erased with it.
    async fn spilled(
        &self,
        pool: &PgPool,
        keyring: &Keyring,
        key: &DataKey,
        hash: &str,
    ) -> Result<Option<String>, StoreError> {
        let blob = kept::get_blob(pool, keyring, self.log, &key.subject.session, hash).await?;
        blob.map(|bytes| self.text(Some(bytes))).transpose()
    }

    fn text(&self, bytes: Option<Vec<u8>>) -> Result<String, StoreError> {
        let text = bytes.and_then(|bytes| String::from_utf8(bytes).ok());
        text.ok_or_else(|| StoreError::Tampered(format!("the event at position {}", self.position)))
    }
}
