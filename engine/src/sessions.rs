//! The sessions this node works with: their folds, kept up to date from the log, one writer at a time.

use std::sync::Arc;

use daybook_domain::event::DomainEvent;
use daybook_domain::ids::{LogId, SessionId, StreamId};
use daybook_domain::session::{SessionEvent, SessionState};
use daybook_store::{Store, StoreError, Subject};
use moka::future::Cache;
use moka::policy::EvictionPolicy;
use tokio::sync::{Mutex, OwnedMutexGuard};

/// The shape of [`SessionState`] in snapshots; a change of the fold counts it up and old snapshots are ignored.
const FOLD_VERSION: u32 = 2;

/// A snapshot is taken when a session has this many events more than the last one.
const SNAPSHOT_EVERY: u64 = 500;

/// A session's fold as far as this node has read.
#[derive(Debug, Clone, Default)]
pub(crate) struct Known {
    pub state: SessionState,
    pub version: u64,
    snapshot_version: u64,
    /// The store's count of erasures when it was read.
    erasures: u64,
}

impl Known {
    /// Takes events this node appended itself; `version` is the stream's after them. When others appended in between,
    /// the fold stays where it is and the next refresh reads them all.
    pub fn appended<'a>(&mut self, events: impl ExactSizeIterator<Item = &'a SessionEvent>, version: u64) {
        if version == self.version + events.len() as u64 {
            events.for_each(|event| self.state.evolve(event));
            self.version = version;
        }
    }
}

/// The sessions of this node.
pub(crate) struct Sessions {
    store: Store,
    known: Cache<(LogId, SessionId), Arc<Mutex<Known>>>,
}

impl Sessions {
    pub fn new(store: Store) -> Self {
        // A session that just began is needed again in a moment: what was used last stays.
        let known = Cache::builder().eviction_policy(EvictionPolicy::lru()).max_capacity(20_000).build();
        Self { store, known }
    }

    /// The session's fold, as far as known, for this task alone until it lets go.
    pub async fn lock(&self, log: LogId, session: &SessionId) -> OwnedMutexGuard<Known> {
        let erasures = self.store.erasures();
        let new = async { Arc::new(Mutex::new(Known { erasures, ..Known::default() })) };
        let entry = self.known.get_with((log, session.clone()), new).await;
        let mut known = entry.lock_owned().await;
        if known.version == 0 {
            known.erasures = erasures;
        }
        if known.erasures != erasures {
            // What it holds may be erased by now. While the log does not answer, nothing is told to anybody.
            let mut fresh = Known { erasures, ..Known::default() };
            match self.refresh(log, session, &mut fresh).await {
                Ok(()) => *known = fresh,
                Err(error) => tracing::debug!(%session, %error, "a session is read anew the next time"),
            }
        }
        known
    }

    /// Reads what others appended since.
    pub async fn refresh(&self, log: LogId, session: &SessionId, known: &mut Known) -> Result<(), StoreError> {
        let stream = StreamId::session(session);
        let mut position = 0;
        if known.version == 0
            && let Some((version, at, json)) = self.store.load_snapshot(log, &stream, FOLD_VERSION).await?
            && let Ok(state) = serde_json::from_str(&json)
        {
            *known = Known { state, version, snapshot_version: version, erasures: known.erasures };
            position = at;
        }
        for recorded in self.store.read_stream_from(log, &stream, known.version, position).await? {
            if let DomainEvent::Session(event) = &recorded.event {
                known.state.evolve(event);
            }
            known.version = recorded.version;
            position = recorded.position;
        }
        self.snapshot(log, &stream, known, position).await
    }

    async fn snapshot(
        &self,
        log: LogId,
        stream: &StreamId,
        known: &mut Known,
        position: u64,
    ) -> Result<(), StoreError> {
        let due = known.version >= known.snapshot_version + SNAPSHOT_EVERY && position > 0;
        let (true, Some(session)) = (due, known.state.session_id.clone()) else { return Ok(()) };
        let subject = Subject { session, user: known.state.user_id.clone() };
        if let Ok(json) = serde_json::to_string(&known.state) {
            self.store.save_snapshot(log, stream, known.version, position, FOLD_VERSION, &json, &subject).await?;
            known.snapshot_version = known.version;
        }
        Ok(())
    }
}
