//! Posts one projection of one log: leads by an advisory lock, reads batches behind its checkpoint, and applies each in
//! one transaction with the checkpoint's move. Its own connection holds the lock and runs the transactions, so whoever
//! lost the lock cannot commit.

use std::collections::{HashMap, HashSet};
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use daybook_domain::event::DecodeError;
use daybook_domain::{LogId, StreamId};
use daybook_store::{RawRecorded, Recorded, Store, StoreError};
use sqlx::{Connection, PgConnection, Postgres, Transaction};
use tokio::sync::watch;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::error::{ApplyError, PostError};
use crate::kinds;
use crate::lead::{self, lock_key};
use crate::parked::{self, Parked};
use crate::progress::{Progress, Served};
use crate::projection::{Projection, Scope};

/// The most events applied in one transaction.
const BATCH: usize = 1000;
/// How long new events may gather before they are applied, unless a reader waits for them.
const LINGER: Duration = Duration::from_millis(10);

/// Views can be posted again: a crash of the database may lose the last moments of them. It loses their checkpoints
/// alike. And rows are looked up by their keys, whatever is known or not yet known of the tables.
pub(crate) const SETTINGS: &str = "SET synchronous_commit = off; SET enable_seqscan = off; \
     SET plan_cache_mode = force_generic_plan; SET jit = off";

/// Posts the projection `P` of one log.
pub(crate) struct Poster<P> {
    pub store: Store,
    pub log: LogId,
    pub progress: Arc<Progress>,
    pub stop: CancellationToken,
    /// How long a leader may be silent before others take the lead from it.
    pub silence: Duration,
    /// What is being tried again; nothing when all is well.
    pub trouble: watch::Sender<Option<String>>,
    pub projection: PhantomData<P>,
}

/// Where the view stands.
struct Place {
    db: PgConnection,
    position: u64,
    ready: bool,
    parked: HashSet<StreamId>,
}

/// A batch as it is to be applied.
struct Batch {
    /// The wanted events that can be read, of streams that are not parked.
    events: Vec<Recorded>,
    /// Streams that cannot be read on.
    faults: Vec<Parked>,
    /// The position the batch reaches.
    until: u64,
    /// Why the projection stops there.
    stops: Option<PostError>,
}

/// Says that this node leads, until dropped.
struct Leading<'a>(&'a Progress);

impl<'a> Leading<'a> {
    fn begin(progress: &'a Progress) -> Self {
        progress.set_leading(true);
        Self(progress)
    }
}

impl Drop for Leading<'_> {
    fn drop(&mut self) {
        self.0.set_leading(false);
    }
}

impl<P: Projection> Poster<P> {
    fn scope(&self) -> Scope {
        Scope { log: self.log, version: P::VERSION }
    }

    /// Waits for the lead and posts until asked to stop.
    pub(crate) async fn lead(&self) -> Result<(), PostError> {
        let mut head = self.store.watch_head(self.log);
        let options = self.store.pool().connect_options();
        let mut db = PgConnection::connect_with(&options).await?;
        sqlx::raw_sql(SETTINGS).execute(&mut db).await?;
        if !lead::take(&mut db, &lock_key(P::NAME, self.scope()), self.silence, &self.stop).await? {
            return Ok(());
        }
        let _leading = Leading::begin(&self.progress);
        let mut place = self.open(db).await?;
        tracing::info!(projection = P::NAME, log = %self.log, position = place.position, "posting");
        self.retry_parked(&mut place).await?;
        while !self.stop.is_cancelled() {
            let raws = self.store.read_raw_after(self.log, place.position, BATCH).await?;
            let caught_up = raws.len() < BATCH;
            if let Some(last) = raws.last().map(|raw| raw.position) {
                self.post(&mut place, raws, last).await?;
            }
            if caught_up {
                self.ready(&mut place).await?;
                self.trouble.send_replace(None);
                self.wait(&mut head, &mut place).await?;
            }
        }
        Ok(())
    }

    /// Reads the checkpoint, or makes one with empty tables.
    async fn open(&self, mut db: PgConnection) -> Result<Place, PostError> {
        let scope = self.scope();
        let mut tx = db.begin().await?;
        let found: Option<(i64, bool)> = sqlx::query_as(
            "SELECT position, ready FROM projection_checkpoints \
             WHERE log_id = $1 AND projection = $2 AND version = $3",
        )
        .bind(scope.log.0)
        .bind(P::NAME)
        .bind(scope.version)
        .fetch_optional(&mut *tx)
        .await?;
        let (position, ready) = match found {
            Some((position, ready)) => (position.unsigned_abs(), ready),
            None => {
                self.begin_anew(&mut tx).await?;
                (0, false)
            }
        };
        if ready {
            self.drop_older(&mut tx).await?;
        }
        let streams = parked::all(&mut tx, P::NAME, scope).await?;
        tx.commit().await?;
        if ready {
            self.progress.publish(Served { version: P::VERSION, position });
        }
        Ok(Place { db, position, ready, parked: streams.into_iter().map(|(stream, _)| stream).collect() })
    }

    async fn begin_anew(&self, tx: &mut PgConnection) -> Result<(), sqlx::Error> {
        let scope = self.scope();
        P::clear(&mut *tx, scope).await?;
        sqlx::query("DELETE FROM projection_parked WHERE log_id = $1 AND projection = $2 AND version = $3")
            .bind(scope.log.0)
            .bind(P::NAME)
            .bind(scope.version)
            .execute(&mut *tx)
            .await?;
        sqlx::query(
            "INSERT INTO projection_checkpoints (log_id, projection, version, position, ready) \
             VALUES ($1, $2, $3, 0, false)",
        )
        .bind(scope.log.0)
        .bind(P::NAME)
        .bind(scope.version)
        .execute(&mut *tx)
        .await?;
        Ok(())
    }

    /// Drops the views of older versions that nobody posts any more.
    async fn drop_older(&self, tx: &mut PgConnection) -> Result<(), sqlx::Error> {
        let versions: Vec<i32> = sqlx::query_scalar(
            "SELECT version FROM projection_checkpoints WHERE log_id = $1 AND projection = $2 AND version < $3",
        )
        .bind(self.log.0)
        .bind(P::NAME)
        .bind(P::VERSION)
        .fetch_all(&mut *tx)
        .await?;
        for version in versions {
            let old = Scope { log: self.log, version };
            let free: bool = sqlx::query_scalar("SELECT pg_try_advisory_xact_lock(hashtextextended($1, 0))")
                .bind(lock_key(P::NAME, old))
                .fetch_one(&mut *tx)
                .await?;
            if !free {
                continue;
            }
            P::clear(&mut *tx, old).await?;
            for delete in [
                "DELETE FROM projection_checkpoints WHERE log_id = $1 AND projection = $2 AND version = $3",
                "DELETE FROM projection_parked WHERE log_id = $1 AND projection = $2 AND version = $3",
            ] {
                sqlx::query(delete).bind(self.log.0).bind(P::NAME).bind(version).execute(&mut *tx).await?;
            }
        }
        Ok(())
    }

    /// From now on reads use these rows.
    async fn ready(&self, place: &mut Place) -> Result<(), PostError> {
        if place.ready {
            return Ok(());
        }
        sqlx::query(
            "UPDATE projection_checkpoints SET ready = true WHERE log_id = $1 AND projection = $2 AND version = $3",
        )
        .bind(self.log.0)
        .bind(P::NAME)
        .bind(P::VERSION)
        .execute(&mut place.db)
        .await?;
        place.ready = true;
        self.progress.publish(Served { version: P::VERSION, position: place.position });
        Ok(())
    }

    /// Waits for new events, and a moment longer for more of them unless somebody reads.
    async fn wait(&self, head: &mut watch::Receiver<u64>, place: &mut Place) -> Result<(), PostError> {
        loop {
            let moved = async { head.wait_for(|head| *head > place.position).await.map(drop) };
            tokio::select! {
                () = self.stop.cancelled() => return Ok(()),
                moved = moved => {
                    moved.map_err(|_| StoreError::Closed)?;
                    break;
                }
                () = sleep(self.silence / 4) => {}
            }
            lead::show_life(&mut place.db).await?;
        }
        tokio::select! {
            () = self.stop.cancelled() => {}
            () = self.progress.wanted.notified() => {}
            () = sleep(LINGER) => {}
        }
        Ok(())
    }

    /// Applies a batch and moves the checkpoint, all or nothing.
    async fn post(&self, place: &mut Place, raws: Vec<RawRecorded>, last: u64) -> Result<(), PostError> {
        let mut batch = self.sort_out(&place.parked, raws, last).await?;
        if batch.until > place.position {
            let mut tx = self.begin(place, batch.until).await?;
            match P::apply(&mut tx, self.scope(), &batch.events).await {
                Ok(()) => {}
                Err(error) if error.is_about_data() => {
                    tx.rollback().await?;
                    tx = self.begin(place, batch.until).await?;
                    let faults = self.apply_apart(&mut tx, std::mem::take(&mut batch.events)).await?;
                    batch.faults = earliest(faults.into_iter().chain(batch.faults));
                }
                Err(error) => return Err(error.into()),
            }
            for fault in &batch.faults {
                parked::park(&mut tx, P::NAME, self.scope(), fault).await?;
            }
            tx.commit().await?;
            self.moved(place, batch.until, batch.faults);
        }
        batch.stops.map_or(Ok(()), Err)
    }

    fn moved(&self, place: &mut Place, position: u64, faults: Vec<Parked>) {
        for fault in faults {
            let (projection, position) = (P::NAME, fault.position);
            tracing::error!(projection, stream = %fault.stream, position, error = fault.error, "stream parked");
            place.parked.insert(fault.stream);
        }
        place.position = position;
        if place.ready {
            self.progress.publish(Served { version: P::VERSION, position });
        }
    }

    /// Begins a transaction in which the checkpoint moves from where this poster left it.
    async fn begin<'a>(&self, place: &'a mut Place, to: u64) -> Result<Transaction<'a, Postgres>, PostError> {
        let mut tx = place.db.begin().await?;
        let moved = sqlx::query(
            "UPDATE projection_checkpoints SET position = $5 \
             WHERE log_id = $1 AND projection = $2 AND version = $3 AND position = $4",
        )
        .bind(self.log.0)
        .bind(P::NAME)
        .bind(P::VERSION)
        .bind(place.position.cast_signed())
        .bind(to.cast_signed())
        .execute(&mut *tx)
        .await?;
        if moved.rows_affected() == 1 { Ok(tx) } else { Err(PostError::Overtaken) }
    }

    /// Reads the wanted events. A stream that cannot be read on is a fault; an unknown type ends the batch before it.
    async fn sort_out(
        &self,
        parked: &HashSet<StreamId>,
        mut raws: Vec<RawRecorded>,
        last: u64,
    ) -> Result<Batch, PostError> {
        let mut batch = Batch { events: Vec::new(), faults: Vec::new(), until: last, stops: None };
        if let Some(at) = raws.iter().position(|raw| !kinds::is_known(&raw.kind)) {
            let (kind, position) = (raws[at].kind.clone(), raws[at].position);
            batch.until = position - 1;
            batch.stops = Some(PostError::UnknownType { kind, position });
            raws.truncate(at);
        }
        raws.retain(|raw| P::wants(&raw.kind) && !parked.contains(&raw.stream));
        let places: Vec<_> = raws.iter().map(|raw| (raw.stream.clone(), raw.version, raw.position)).collect();
        let decoded = match self.store.decode_all(raws).await {
            // A damaged key spoils the common look-up: ask one by one, so that only its own events suffer.
            Err(error) if is_unreadable(&error) => self.decode_apart(&places).await?,
            decoded => decoded?,
        };
        let mut faulty = HashSet::new();
        for ((stream, version, position), decoded) in places.into_iter().zip(decoded) {
            match decoded {
                _ if faulty.contains(&stream) => {}
                Ok(recorded) => batch.events.push(recorded),
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
    async fn decode_apart(
        &self,
        places: &[(StreamId, u64, u64)],
    ) -> Result<Vec<Result<Recorded, StoreError>>, PostError> {
        let mut decoded = Vec::with_capacity(places.len());
        for (_, _, position) in places {
            for raw in self.store.read_raw_after(self.log, position - 1, 1).await? {
                decoded.push(self.store.decode(raw).await);
            }
        }
        Ok(decoded)
    }

    /// Applies stream by stream, so that the ones at fault hurt no other.
    async fn apply_apart(
        &self,
        tx: &mut Transaction<'_, Postgres>,
        events: Vec<Recorded>,
    ) -> Result<Vec<Parked>, PostError> {
        let mut streams: Vec<Vec<Recorded>> = Vec::new();
        let mut place: HashMap<StreamId, usize> = HashMap::new();
        for event in events {
            let at = *place.entry(event.stream.clone()).or_insert(streams.len());
            if at == streams.len() {
                streams.push(Vec::new());
            }
            streams[at].push(event);
        }
        let mut faults = Vec::new();
        for events in streams {
            match self.apply_one(tx, &events).await {
                Ok(()) => {}
                Err(error) if error.is_about_data() => {
                    let Some(first) = events.first() else { continue };
                    let (stream, version, position) = (first.stream.clone(), first.version, first.position);
                    faults.push(Parked { stream, version, position, error: error.to_string() });
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(faults)
    }

    /// Applies the events, or nothing of them.
    async fn apply_one(&self, tx: &mut Transaction<'_, Postgres>, events: &[Recorded]) -> Result<(), ApplyError> {
        let mut savepoint = tx.begin().await?;
        match P::apply(&mut savepoint, self.scope(), events).await {
            Ok(()) => Ok(savepoint.commit().await?),
            Err(error) => {
                savepoint.rollback().await?;
                Err(error)
            }
        }
    }

    /// Tries the parked streams again: the program may read them now, or somebody mended them.
    async fn retry_parked(&self, place: &mut Place) -> Result<(), PostError> {
        let waiting = parked::all(&mut place.db, P::NAME, self.scope()).await?;
        for (stream, version) in waiting {
            if self.retry_stream(place, &stream, version).await? {
                tracing::info!(projection = P::NAME, %stream, "parked stream taken up again");
                place.parked.remove(&stream);
            }
        }
        Ok(())
    }

    async fn retry_stream(&self, place: &mut Place, stream: &StreamId, version: u64) -> Result<bool, PostError> {
        let mut events = match self.store.read_stream(self.log, stream, version.saturating_sub(1)).await {
            Ok(events) => events,
            Err(error) if is_unreadable(&error) => return Ok(false),
            Err(error) => return Err(error.into()),
        };
        // What lies behind the checkpoint comes with its batch.
        events.retain(|event| event.position <= place.position && P::wants(kinds::of(&event.event)));
        let position = place.position;
        let mut tx = self.begin(place, position).await?;
        match self.apply_one(&mut tx, &events).await {
            Ok(()) => {}
            Err(error) if error.is_about_data() => return Ok(false),
            Err(error) => return Err(error.into()),
        }
        parked::unpark(&mut tx, P::NAME, self.scope(), stream).await?;
        tx.commit().await?;
        Ok(true)
    }
}

/// Whether the stored event itself is at fault.
fn is_unreadable(error: &StoreError) -> bool {
    match error {
        StoreError::Decode { source, .. } => !matches!(source, DecodeError::UnknownType(_)),
        StoreError::Tampered(_) | StoreError::Invalid(_) => true,
        _ => false,
    }
}

/// One fault per stream, the earliest.
fn earliest(faults: impl Iterator<Item = Parked>) -> Vec<Parked> {
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
