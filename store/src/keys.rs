//! Data keys: one per session, wrapped by its user's key, which is wrapped by the master key. No row means erased.
//!
//! A new session's key travels with its first append, so that it costs no commit of its own; the database keeps the
//! first that arrives and refuses requests that used another.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::Hash;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use daybook_domain::{LogId, SessionId, UserId};
use moka::future::Cache;
use moka::policy::EvictionPolicy;
use sqlx::PgPool;
use uuid::Uuid;

use crate::crypto::{MasterKey, Sealer, key_from, random_key};
use crate::error::StoreError;
use crate::types::Subject;
use secrecy::ExposeSecret;

const CACHED_SESSIONS: u64 = 20_000;
const CACHED_USERS: u64 = 5_000;
/// Erasures are announced to every node; this bounds what a node that missed the word remembers.
const REMEMBERED: Duration = Duration::from_secs(300);
const ATTEMPTS: usize = 3;

/// A session's key, ready for use.
pub(crate) struct DataKey {
    pub id: Uuid,
    pub subject: Subject,
    pub owner: String,
    pub owner_key: Uuid,
    pub wrapped: Vec<u8>,
    pub sealer: Sealer,
    stored: AtomicBool,
}

impl DataKey {
    /// Whether its row is known to be in the database.
    pub(crate) fn is_stored(&self) -> bool {
        self.stored.load(Ordering::Acquire)
    }

    pub(crate) fn set_stored(&self) {
        self.stored.store(true, Ordering::Release);
    }
}

struct UserKey {
    id: Uuid,
    sealer: Sealer,
}

/// What was used last stays: a session that just began is needed again in a moment, and moka's usual policy would rather
/// keep what was used often.
fn cache<K: Hash + Eq + Send + Sync + 'static, V: Clone + Send + Sync + 'static>(most: u64) -> Cache<K, V> {
    Cache::builder().eviction_policy(EvictionPolicy::lru()).max_capacity(most).time_to_live(REMEMBERED).build()
}

/// Finds, makes and forgets keys.
pub(crate) struct Keyring {
    pool: PgPool,
    master: Sealer,
    users: Cache<(LogId, String), Arc<UserKey>>,
    sessions: Cache<(LogId, SessionId), Arc<DataKey>>,
    // `None`: erased, which is for ever.
    ids: Cache<(LogId, Uuid), Option<Arc<DataKey>>>,
    /// How often something was forgotten because a key was, or may have been, erased.
    erasures: AtomicU64,
}

#[derive(sqlx::FromRow)]
struct KeyRow {
    key_id: Uuid,
    name: String,
    owner: String,
    wrapped: Vec<u8>,
    owner_key: Uuid,
    owner_wrapped: Vec<u8>,
}

/// What a database remembers, sealed with its master key.
const CHECK: &[u8] = b"the master key of this database";

/// Whether `check` was sealed with this key.
pub(crate) fn fits(master: &MasterKey, check: &[u8]) -> Result<bool, StoreError> {
    Ok(master.sealer()?.open("master-check", check).as_deref() == Some(CHECK))
}

impl Keyring {
    /// Checks the master key against the database, which remembers the first it was opened with.
    pub(crate) async fn open(pool: PgPool, master: &MasterKey) -> Result<Self, StoreError> {
        let master = master.sealer()?;
        sqlx::query("INSERT INTO store_meta (name, value) VALUES ('master_check', $1) ON CONFLICT DO NOTHING")
            .bind(master.seal("master-check", CHECK)?)
            .execute(&pool)
            .await?;
        let check: Vec<u8> =
            sqlx::query_scalar("SELECT value FROM store_meta WHERE name = 'master_check'").fetch_one(&pool).await?;
        if master.open("master-check", &check).as_deref() != Some(CHECK) {
            return Err(StoreError::WrongMasterKey);
        }
        let (users, sessions, ids) = (cache(CACHED_USERS), cache(CACHED_SESSIONS), cache(CACHED_SESSIONS));
        Ok(Self { pool, master, users, sessions, ids, erasures: AtomicU64::new(0) })
    }

    /// The subject's key; a new one, not stored yet, when there is none. `fresh`: the caller believes the session to
    /// be new, so there is nothing to look for; the database has the last word when the key arrives.
    pub(crate) async fn of(&self, log: LogId, subject: &Subject, fresh: bool) -> Result<Arc<DataKey>, StoreError> {
        let at = (log, subject.session.clone());
        if let Some(key) = self.sessions.get(&at).await {
            return Ok(key);
        }
        let found = if fresh { None } else { self.find(log, &subject.session).await? };
        let key = match found {
            Some(key) => key,
            None => Arc::new(self.make(log, subject).await?),
        };
        // The first of several at once wins, so that they all use the same.
        let key = self.sessions.entry(at).or_insert(key).await.into_value();
        self.ids.insert((log, key.id), Some(key.clone())).await;
        Ok(key)
    }

    /// As [`Keyring::of`], with its row in the database.
    pub(crate) async fn stored(&self, log: LogId, subject: &Subject) -> Result<Arc<DataKey>, StoreError> {
        for _ in 0..ATTEMPTS {
            let key = self.of(log, subject, false).await?;
            if key.is_stored() {
                return Ok(key);
            }
            let kept: Option<Uuid> = sqlx::query_scalar(
                "WITH put AS (INSERT INTO keys (log_id, kind, name, owner, key_id, wrapped) \
                     SELECT $1, 'session', $2, $3, $4, $6 FROM keys \
                     WHERE log_id = $1 AND kind = 'user' AND name = $3 AND key_id = $5 \
                     ON CONFLICT DO NOTHING RETURNING key_id) \
                 SELECT key_id FROM put \
                 UNION ALL SELECT key_id FROM keys WHERE log_id = $1 AND kind = 'session' AND name = $2",
            )
            .bind(log.0)
            .bind(key.subject.session.as_str())
            .bind(&key.owner)
            .bind(key.id)
            .bind(key.owner_key)
            .bind(&key.wrapped)
            .fetch_optional(&self.pool)
            .await?;
            if kept == Some(key.id) {
                key.set_stored();
                return Ok(key);
            }
            self.forget(log, &key).await;
        }
        Err(StoreError::Invalid("the session's key changes again and again; is the session being erased?".to_owned()))
    }

    /// The key an event names; `None` when it was erased.
    pub(crate) async fn by_id(&self, log: LogId, id: Uuid) -> Result<Option<Arc<DataKey>>, StoreError> {
        if let Some(known) = self.ids.get(&(log, id)).await {
            return Ok(known);
        }
        Ok(self.by_ids(log, vec![id]).await?.remove(&id).flatten())
    }

    /// Many at once, with one question to the database for those not cached.
    pub(crate) async fn by_ids(
        &self,
        log: LogId,
        mut ids: Vec<Uuid>,
    ) -> Result<HashMap<Uuid, Option<Arc<DataKey>>>, StoreError> {
        ids.sort_unstable();
        ids.dedup();
        let mut keys = HashMap::with_capacity(ids.len());
        let mut missing = Vec::new();
        for id in ids {
            match self.ids.get(&(log, id)).await {
                Some(known) => {
                    keys.insert(id, known);
                }
                None => missing.push(id),
            }
        }
        if missing.is_empty() {
            return Ok(keys);
        }
        let rows: Vec<KeyRow> = sqlx::query_as(
            // One look-up by its whole key for each, whatever is known of the table: as a join, or with another condition,
            // it may become a walk over all keys of the log.
            "SELECT s.key_id, s.name, s.owner, s.wrapped, u.key_id AS owner_key, u.wrapped AS owner_wrapped \
             FROM unnest($2) AS wanted (id), \
                 LATERAL (SELECT k.* FROM keys k WHERE k.log_id = $1 AND k.key_id = wanted.id OFFSET 0) AS s, \
                 LATERAL (SELECT o.* FROM keys o \
                     WHERE o.log_id = $1 AND o.kind = 'user' AND o.name = s.owner OFFSET 0) AS u \
             WHERE s.kind = 'session'",
        )
        .bind(log.0)
        .bind(&missing)
        .fetch_all(&self.pool)
        .await?;
        let mut owners: HashMap<Uuid, Sealer> = HashMap::new();
        for row in rows {
            let owner = match owners.entry(row.owner_key) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(new) => {
                    new.insert(self.unwrap_user(log, &row.owner, row.owner_key, &row.owner_wrapped)?)
                }
            };
            let key = Arc::new(unwrap_row(log, row, owner)?);
            keys.insert(key.id, Some(key));
        }
        for id in missing {
            let known = keys.entry(id).or_insert(None).clone();
            self.ids.insert((log, id), known).await;
        }
        Ok(keys)
    }

    /// Drops what is cached of a key that the database refused.
    pub(crate) async fn forget(&self, log: LogId, key: &DataKey) {
        self.sessions.invalidate(&(log, key.subject.session.clone())).await;
        self.users.invalidate(&(log, key.owner.clone())).await;
    }

    /// Drops everything cached: a key was erased somewhere.
    pub(crate) fn forget_all(&self) {
        self.erasures.fetch_add(1, Ordering::AcqRel);
        self.sessions.invalidate_all();
        self.users.invalidate_all();
        self.ids.invalidate_all();
    }

    /// Changes whenever a key was, or may have been, erased.
    pub(crate) fn erasures(&self) -> u64 {
        self.erasures.load(Ordering::Acquire)
    }

    /// Deletes a session's key and blobs; what it protected reads as erased from now on, on every node.
    pub(crate) async fn erase_session(&self, log: LogId, session: &SessionId) -> Result<bool, StoreError> {
        let erased: i64 = sqlx::query_scalar(
            "WITH gone AS (DELETE FROM keys WHERE log_id = $1 AND kind = 'session' AND name = $2 RETURNING 1), \
                 blob AS (DELETE FROM blobs WHERE log_id = $1 AND session_id = $2), \
                 told AS (SELECT pg_notify('daybook_keys', '') FROM gone) \
             SELECT (SELECT count(*) FROM gone) + 0 * (SELECT count(*) FROM told)",
        )
        .bind(log.0)
        .bind(session.as_str())
        .fetch_one(&self.pool)
        .await?;
        self.forget_all();
        Ok(erased > 0)
    }

    /// Deletes a user's key and those of all the user's sessions, and their blobs.
    pub(crate) async fn erase_user(&self, log: LogId, user: &UserId) -> Result<bool, StoreError> {
        let erased: i64 = sqlx::query_scalar(
            "WITH gone AS (DELETE FROM keys WHERE log_id = $1 AND owner || '' = $2 RETURNING kind, name), \
                 blob AS (DELETE FROM blobs b USING gone \
                     WHERE b.log_id = $1 AND gone.kind = 'session' AND b.session_id = gone.name), \
                 told AS (SELECT pg_notify('daybook_keys', '')) \
             SELECT (SELECT count(*) FROM gone) + 0 * (SELECT count(*) FROM told)",
        )
        .bind(log.0)
        .bind(user.as_str())
        .fetch_one(&self.pool)
        .await?;
        self.forget_all();
        Ok(erased > 0)
    }

    async fn find(&self, log: LogId, session: &SessionId) -> Result<Option<Arc<DataKey>>, StoreError> {
        let row: Option<KeyRow> = sqlx::query_as(
            "SELECT s.key_id, s.name, s.owner, s.wrapped, u.key_id AS owner_key, u.wrapped AS owner_wrapped \
             FROM keys s JOIN keys u ON u.log_id = s.log_id AND u.kind = 'user' AND u.name = s.owner \
             WHERE s.log_id = $1 AND s.kind = 'session' AND s.name = $2",
        )
        .bind(log.0)
        .bind(session.as_str())
        .fetch_optional(&self.pool)
        .await?;
        let Some(row) = row else { return Ok(None) };
        let owner = self.unwrap_user(log, &row.owner, row.owner_key, &row.owner_wrapped)?;
        unwrap_row(log, row, &owner).map(|key| Some(Arc::new(key)))
    }

    async fn make(&self, log: LogId, subject: &Subject) -> Result<DataKey, StoreError> {
        let owner = subject.user.as_ref().map_or("", UserId::as_str);
        let user = self.user_key(log, owner).await?;
        let bytes = random_key()?;
        let id = Uuid::now_v7();
        let wrapped = user.sealer.seal(&session_place(log, &subject.session, id), bytes.expose_secret())?;
        Ok(DataKey {
            id,
            subject: subject.clone(),
            owner: owner.to_owned(),
            owner_key: user.id,
            wrapped,
            sealer: Sealer::new(&bytes)?,
            stored: AtomicBool::new(false),
        })
    }

    async fn user_key(&self, log: LogId, owner: &str) -> Result<Arc<UserKey>, StoreError> {
        let at = (log, owner.to_owned());
        if let Some(key) = self.users.get(&at).await {
            return Ok(key);
        }
        for _ in 0..ATTEMPTS {
            let row: Option<(Uuid, Vec<u8>)> =
                sqlx::query_as("SELECT key_id, wrapped FROM keys WHERE log_id = $1 AND kind = 'user' AND name = $2")
                    .bind(log.0)
                    .bind(owner)
                    .fetch_optional(&self.pool)
                    .await?;
            if let Some((id, wrapped)) = row {
                let key = Arc::new(UserKey { id, sealer: self.unwrap_user(log, owner, id, &wrapped)? });
                self.users.insert(at, key.clone()).await;
                return Ok(key);
            }
            let (id, bytes) = (Uuid::now_v7(), random_key()?);
            sqlx::query(
                "INSERT INTO keys (log_id, kind, name, owner, key_id, wrapped) \
                 VALUES ($1, 'user', $2, $2, $3, $4) ON CONFLICT DO NOTHING",
            )
            .bind(log.0)
            .bind(owner)
            .bind(id)
            .bind(self.master.seal(&user_place(log, owner, id), bytes.expose_secret())?)
            .execute(&self.pool)
            .await?;
        }
        Err(StoreError::Invalid("the user's key vanishes again and again; is the user being erased?".to_owned()))
    }

    fn unwrap_user(&self, log: LogId, owner: &str, id: Uuid, wrapped: &[u8]) -> Result<Sealer, StoreError> {
        open_key(&self.master, &user_place(log, owner, id), wrapped)?
            .ok_or_else(|| StoreError::Tampered(format!("the key of user {owner:?}")))
    }
}

/// A session's key under its user's.
fn unwrap_row(log: LogId, row: KeyRow, owner: &Sealer) -> Result<DataKey, StoreError> {
    let damaged = || StoreError::Tampered(format!("the key of session {:?}", row.name));
    let session = SessionId::parse(row.name.clone()).map_err(|_| damaged())?;
    let place = session_place(log, &session, row.key_id);
    let sealer = open_key(owner, &place, &row.wrapped)?.ok_or_else(damaged)?;
    Ok(DataKey {
        id: row.key_id,
        subject: Subject { session, user: UserId::parse(row.owner.clone()).ok() },
        owner: row.owner,
        owner_key: row.owner_key,
        wrapped: row.wrapped,
        sealer,
        stored: AtomicBool::new(true),
    })
}

fn open_key(under: &Sealer, place: &str, wrapped: &[u8]) -> Result<Option<Sealer>, StoreError> {
    let Some(bytes) = under.open(place, wrapped) else { return Ok(None) };
    let bytes = secrecy::zeroize::Zeroizing::new(bytes);
    key_from(&bytes).map(|key| Sealer::new(&key)).transpose()
}

fn user_place(log: LogId, owner: &str, id: Uuid) -> String {
    format!("user-key|{log}|{owner}|{id}")
}

fn session_place(log: LogId, session: &SessionId, id: Uuid) -> String {
    format!("session-key|{log}|{session}|{id}")
}
