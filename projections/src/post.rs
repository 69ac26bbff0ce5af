//! Posts one projection of one log: leads by an advisory lock, reads batches behind its checkpoint, and applies each in
//! one transaction with the checkpoint's move. Its own connection holds the lock and runs the transactions, so whoever
//! lost the lock cannot commit.

use std::collections::{HashMap, HashSet};
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use daybook_domain::{LogId, StreamId};
use daybook_store::{Entry, Store, StoreError};
use sqlx::{Connection, PgConnection, Postgres, Transaction};
use tokio::sync::watch;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::batch::{Batch, Reader, earliest, is_unreadable};
use crate::error::{ApplyError, PostError};
use crate::kinds;
use crate::lead::{self, lock_key};
use crate::parked::{self, Parked};
use crate::progress::{Progress, Served};
use crate::projection::{Projection, Scope};

/// How long new events may gather before they are applied, unless a reader waits for them.
const LINGER: Duration = Duration::from_millis(40);

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
        // Whatever it was, it is over for a node that stands by; one that leads finds out when it posts.
        self.trouble.send_replace(None);
        if !lead::take(&mut db, &lock_key(P::NAME, self.scope()), self.silence, &self.stop).await? {
            return Ok(());
        }
        let _leading = Leading::begin(&self.progress);
        let mut place = self.open(db).await?;
        tracing::info!(projection = P::NAME, log = %self.log, position = place.position, "posting");
        self.retry_parked(&mut place).await?;
        let reader = Reader::new(&self.store, self.log, P::wants);
        while !self.stop.is_cancelled() {
            let known = self.store.head(self.log).await?;
            self.post_until(&reader, &mut place, known).await?;
            if place.position >= known {
                self.ready(&mut place).await?;
                self.trouble.send_replace(None);
                self.wait(&mut head, &mut place).await?;
            }
        }
        Ok(())
    }

    /// Posts up to `head`. While one batch is applied the next one is read: one takes the database's time, the other
    /// this program's.
    async fn post_until(&self, reader: &Reader<'_>, place: &mut Place, head: u64) -> Result<(), PostError> {
        let mut next = reader.read(place.position, head).await?;
        while let Some(batch) = next.take() {
            let until = batch.until;
            let (posted, read) = tokio::join!(self.post(place, batch), reader.read(until, head));
            posted?;
            if self.stop.is_cancelled() {
                break;
            }
            next = read?;
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
    async fn post(&self, place: &mut Place, mut batch: Batch) -> Result<(), PostError> {
        batch.leave_out(&place.parked);
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

    /// Applies stream by stream, so that the ones at fault hurt no other.
    async fn apply_apart(
        &self,
        tx: &mut Transaction<'_, Postgres>,
        events: Vec<Entry>,
    ) -> Result<Vec<Parked>, PostError> {
        let mut streams: Vec<Vec<Entry>> = Vec::new();
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
    async fn apply_one(&self, tx: &mut Transaction<'_, Postgres>, events: &[Entry]) -> Result<(), ApplyError> {
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
        let read = match self.store.read_stream(self.log, stream, version.saturating_sub(1)).await {
            Ok(read) => read,
            Err(error) if is_unreadable(&error) => return Ok(false),
            Err(error) => return Err(error.into()),
        };
        let mut events: Vec<Entry> = read.into_iter().map(Entry::from).collect();
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
