//! The next events of the log as a projection takes them: read, decoded, and sorted out from those that cannot be.

use std::collections::{HashMap, HashSet};

use daybook_domain::event::DecodeError;
use daybook_domain::{LogId, StreamId};
use daybook_store::{Entry, RawEntry, Store, StoreError};

use crate::error::PostError;
use crate::kinds;
use crate::parked::Parked;

/// The most positions of one batch, which is one transaction.
const BATCH: u64 = 1000;

/// A batch as it is to be applied.
pub(crate) struct Batch {
    /// The wanted events that can be read.
    pub events: Vec<Entry>,
    /// Streams that cannot be read on.
    pub faults: Vec<Parked>,
    /// The position the batch reaches.
    pub until: u64,
    /// Why the projection stops there.
    pub stops: Option<PostError>,
}

impl Batch {
    /// Leaves out streams that are parked already.
    pub fn leave_out(&mut self, parked: &HashSet<StreamId>) {
        if !parked.is_empty() {
            self.events.retain(|event| !parked.contains(&event.stream));
            self.faults.retain(|fault| !parked.contains(&fault.stream));
        }
    }
}

/// Reads the batches of one projection.
pub(crate) struct Reader<'a> {
    store: &'a Store,
    log: LogId,
    wants: Vec<&'static str>,
    known: Vec<&'static str>,
}

impl<'a> Reader<'a> {
    /// Of the types that `wants` says yes to.
    pub fn new(store: &'a Store, log: LogId, wants: fn(&str) -> bool) -> Self {
        let known: Vec<&'static str> = kinds::known().collect();
        let wants = known.iter().copied().filter(|kind| wants(kind)).collect();
        Self { store, log, wants, known }
    }

    /// The batch after position `from`, of events up to `head`; `None` when there are none. A stream that cannot be read
    /// on is a fault; an unknown type ends the batch before it.
    pub async fn read(&self, from: u64, head: u64) -> Result<Option<Batch>, PostError> {
        let until = head.min(from + BATCH);
        if until <= from {
            return Ok(None);
        }
        let raws = self.store.read_entries(self.log, (from, until), &self.wants, &self.known).await?;
        Ok(Some(self.sort_out(raws, until).await?))
    }

    async fn sort_out(&self, mut raws: Vec<RawEntry>, until: u64) -> Result<Batch, PostError> {
        let mut batch = Batch { events: Vec::with_capacity(raws.len()), faults: Vec::new(), until, stops: None };
        if let Some(at) = raws.iter().position(|raw| !kinds::is_known(&raw.kind)) {
            let (kind, position) = (raws[at].kind.clone(), raws[at].position);
            batch.until = position - 1;
            batch.stops = Some(PostError::UnknownType { kind, position });
            raws.truncate(at);
        }
        let places: Vec<_> = raws.iter().map(|raw| (raw.stream.clone(), raw.version, raw.position)).collect();
        let decoded = match self.store.decode_entries(self.log, raws).await {
            // A damaged key spoils the common look-up: ask one by one, so that only its own events suffer.
            Err(error) if is_unreadable(&error) => self.decode_apart(&places).await?,
            decoded => decoded?,
        };
        let mut faulty = HashSet::new();
        for ((stream, version, position), decoded) in places.into_iter().zip(decoded) {
            match decoded {
                _ if faulty.contains(&stream) => {}
                Ok(entry) => batch.events.push(entry),
                Err(error) if is_unreadable(&error) => {
                    faulty.insert(stream.clone());
                    batch.faults.push(Parked { stream, version, position, error: error.to_string() });
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(batch)
    }

    /// Reads the events at these places again and decodes each by itself.
    async fn decode_apart(&self, places: &[(StreamId, u64, u64)]) -> Result<Vec<Result<Entry, StoreError>>, PostError> {
        let mut decoded = Vec::with_capacity(places.len());
        for (_, _, position) in places {
            for raw in self.store.read_raw_after(self.log, position - 1, 1).await? {
                decoded.push(self.store.decode(raw).await.map(Entry::from));
            }
        }
        Ok(decoded)
    }
}

/// Whether the stored event itself is at fault.
pub(crate) fn is_unreadable(error: &StoreError) -> bool {
    match error {
        StoreError::Decode { source, .. } => !matches!(source, DecodeError::UnknownType(_)),
        StoreError::Tampered(_) | StoreError::Invalid(_) => true,
        _ => false,
    }
}

/// One fault per stream, the earliest.
pub(crate) fn earliest(faults: impl Iterator<Item = Parked>) -> Vec<Parked> {
    let mut by_stream: HashMap<StreamId, Parked> = HashMap::new();
    for fault in faults {
        match by_stream.get(&fault.stream) {
            Some(known) if known.position <= fault.position => {}
            _ => {
                by_stream.insert(fault.stream.clone(), fault);
            }
        }
    }
    by_stream.into_values().collect()
}
