//! Heads that can be watched: moved by this node's appends at once, by other nodes' through NOTIFY, and by a poll,
//! because a notification is only a hint.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use daybook_domain::{LogId, RunId};
use sqlx::PgPool;
use sqlx::postgres::PgListener;
use tokio::sync::{Notify, broadcast, watch};
use tokio::time::MissedTickBehavior;
use tracing::{debug, warn};

use crate::error::StoreError;
use crate::keys::Keyring;

const POLL: Duration = Duration::from_millis(200);
const AFTER_ERROR: Duration = Duration::from_millis(500);

/// Requests that wait for a slow listener; older ones are dropped, and asked again.
const ASKED: usize = 1024;

/// The heads someone watches.
#[derive(Clone, Default)]
pub(crate) struct Heads(Arc<Inner>);

struct Inner {
    watched: Mutex<HashMap<LogId, watch::Sender<u64>>>,
    added: Notify,
    asked: broadcast::Sender<(LogId, RunId)>,
}

impl Default for Inner {
    fn default() -> Self {
        Self { watched: Mutex::default(), added: Notify::default(), asked: broadcast::channel(ASKED).0 }
    }
}

impl Heads {
    pub(crate) fn watch(&self, log: LogId) -> watch::Receiver<u64> {
        let mut watched = self.0.watched.lock().unwrap_or_else(PoisonError::into_inner);
        let receiver = watched.entry(log).or_insert_with(|| watch::channel(0).0).subscribe();
        drop(watched);
        self.0.added.notify_one();
        receiver
    }

    /// Runs whose frames other nodes ask this one to keep.
    pub(crate) fn asked(&self) -> broadcast::Receiver<(LogId, RunId)> {
        self.0.asked.subscribe()
    }

    /// Tells the watchers, if this is news.
    pub(crate) fn moved(&self, log: LogId, position: u64) {
        let watched = self.0.watched.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(head) = watched.get(&log) {
            head.send_if_modified(|head| {
                let news = position > *head;
                *head = (*head).max(position);
                news
            });
        }
    }

    fn logs(&self) -> Vec<i64> {
        self.0.watched.lock().unwrap_or_else(PoisonError::into_inner).keys().map(|log| log.0).collect()
    }

    async fn refresh(&self, pool: &PgPool) -> Result<(), StoreError> {
        let logs = self.logs();
        if logs.is_empty() {
            return Ok(());
        }
        let heads: Vec<(i64, i64)> = sqlx::query_as("SELECT log_id, position FROM log_head WHERE log_id = ANY ($1)")
            .bind(logs)
            .fetch_all(pool)
            .await?;
        heads.into_iter().for_each(|(log, position)| self.moved(LogId(log), position as u64));
        Ok(())
    }

    /// Asks for the heads, five times a second and whenever a log is newly watched. Runs for ever.
    pub(crate) async fn poll(self, pool: PgPool) {
        let mut ticks = tokio::time::interval(POLL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = self.0.added.notified() => {}
            }
            if let Err(error) = self.refresh(&pool).await {
                debug!(%error, "the head cannot be asked for");
                tokio::time::sleep(AFTER_ERROR).await;
            }
        }
    }

    /// Listens to other nodes: heads that moved, keys that were erased. Runs for ever.
    pub(crate) async fn listen(self, pool: PgPool, keyring: Arc<Keyring>) {
        loop {
            if let Err(error) = self.listen_once(&pool, &keyring).await {
                warn!(%error, "listening for other nodes' news failed; trying again");
            }
            // News may have been missed: forget what they could have been about.
            keyring.forget_all();
            tokio::time::sleep(AFTER_ERROR).await;
        }
    }

    async fn listen_once(&self, pool: &PgPool, keyring: &Keyring) -> Result<(), StoreError> {
        let mut listener = PgListener::connect_with(pool).await?;
        listener.listen_all(["daybook_log", "daybook_keys", "daybook_watch"]).await?;
        // `None`: the connection was lost and made anew.
        while let Some(news) = listener.try_recv().await? {
            match news.channel() {
                "daybook_keys" => keyring.forget_all(),
                "daybook_watch" => {
                    if let Some(asked) = parse_run(news.payload()) {
                        // Nobody listens on a node without an engine.
                        let _ = self.0.asked.send(asked);
                    }
                }
                _ => {
                    if let Some((log, position)) = parse(news.payload()) {
                        self.moved(log, position);
                    }
                }
            }
        }
        Ok(())
    }
}

fn parse_run(payload: &str) -> Option<(LogId, RunId)> {
    let (log, run) = payload.split_once(' ')?;
    Some((LogId(log.parse().ok()?), RunId::parse(run).ok()?))
}

fn parse(payload: &str) -> Option<(LogId, u64)> {
    let (log, position) = payload.split_once(' ')?;
    Some((LogId(log.parse().ok()?), position.parse().ok()?))
}
