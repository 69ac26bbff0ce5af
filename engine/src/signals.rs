//! Hears what other nodes wrote that concerns runs here: requests to cancel them, and sessions that became free.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use daybook_domain::ids::{LogId, SessionId};

use crate::engine::Inner;
use crate::live::LiveRun;

/// Looks are at least this far apart, so that a busy log does not cost a query for every batch.
const APART: Duration = Duration::from_millis(25);

/// A look without a hint, should one be lost.
const ANYWAY: Duration = Duration::from_secs(1);

const KINDS: &[&str] = &["RunCancelRequested", "SessionRunEnded"];

/// Listens until the node stops, from `position` on.
pub(crate) async fn listen(inner: Arc<Inner>, log: LogId, mut position: u64) {
    let mut head = inner.store.watch_head(log);
    let mut asked = inner.store.asked_to_keep();
    loop {
        tokio::select! {
            run = asked.recv() => {
                // A request that was lost, or overtaken by others, comes again.
                if let Some(live) = run.ok().and_then(|(log, run)| inner.live(log, &run))
                    && inner.keep_frames(&live).await.unwrap_or(false)
                {
                    inner.frames.soon(&live);
                }
                continue;
            }
            _ = head.changed() => {}
            () = tokio::time::sleep(ANYWAY) => {}
            () = inner.stopping.cancelled() => return,
        }
        match inner.store.signals(log, position, KINDS).await {
            Ok((upto, signals)) => {
                position = upto;
                let mut freed = HashSet::new();
                for (kind, stream) in signals {
                    match (kind.as_str(), stream.as_run(), stream.as_session()) {
                        ("RunCancelRequested", Some(run), _) => {
                            inner.live(log, &run).iter().for_each(cancel);
                            inner.stops().get(&(log, run)).iter().for_each(|stop| stop.cancel());
                        }
                        ("SessionRunEnded", _, Some(session)) => drop(freed.insert(session)),
                        _ => {}
                    }
                }
                ring(&inner, log, freed).await;
            }
            Err(error) => tracing::debug!(%error, "other nodes were not heard"),
        }
        tokio::time::sleep(APART).await;
    }
}

fn cancel(live: &Arc<LiveRun>) {
    live.set_closing(true);
    live.cancelled.cancel();
}

/// Rings up the runs here whose turn it is; the others are not woken for every run that goes before them.
async fn ring(inner: &Inner, log: LogId, freed: HashSet<SessionId>) {
    if freed.is_empty() {
        return;
    }
    let mut waiting: HashMap<SessionId, Vec<Arc<LiveRun>>> = HashMap::new();
    for live in inner.runs.lock().unwrap_or_else(PoisonError::into_inner).values() {
        if live.is_waiting() && freed.contains(&live.hub.meta.session_id) {
            waiting.entry(live.hub.meta.session_id.clone()).or_default().push(live.clone());
        }
    }
    for (session, runs) in waiting {
        let mut known = inner.sessions.lock(log, &session).await;
        if let Err(error) = inner.sessions.refresh(log, &session, &mut known).await {
            tracing::debug!(%session, %error, "a session was not read; its next run looks for itself");
        }
        runs.iter().filter(|live| known.state.may_run(&live.run_id)).for_each(|live| live.turn.notify_one());
    }
}
