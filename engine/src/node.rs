//! This node among others: it announces itself, takes over what dead nodes left, and hands over what it has.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use daybook_domain::component::{ComponentState, Configure};
use daybook_domain::event::DomainEvent;
use daybook_domain::ids::{LogId, RunId, StreamId};
use daybook_domain::run::{RunEvent, RunState, RunTakenOver};
use daybook_store::{Abilities, Append, AppendError, Expected, Lease, LeaseOp, NodeInfo, StoreError, StreamWrite};

use crate::drive::{Driver, Exit};
use crate::engine::{Engine, Inner, fold_run};
use crate::error::ExecuteError;
use crate::frame::{FrameBody, RunMeta};
use crate::hub::Hub;
use crate::live::LiveRun;
use crate::registry::Registry;
use crate::signals::listen;
use crate::stranded::look_for_stranded;

/// How often the node shows that it lives and looks for runs that nobody has.
const TICK: Duration = Duration::from_secs(1);

/// After so long without a heartbeat other nodes take the runs over.
pub const SILENCE: Duration = Duration::from_secs(6);

/// A node looks at its own leases, and at those that nobody can take, each time it has shown so often that it lives.
const LOOK_FOR_LOST: u32 = 3;

/// The most runs taken over at once; the rest follow a second later.
const CLAIM_LIMIT: i64 = 200;

/// Frames of a lease's n-th epoch start at (n - 1) times this.
const EPOCH_FRAMES: u64 = 1_000_000;

/// When the database last heard that this node lives.
pub(crate) struct Pulse {
    started: Instant,
    last_ms: AtomicU64,
}

impl Pulse {
    pub fn start() -> Self {
        Self { started: Instant::now(), last_ms: AtomicU64::new(0) }
    }

    fn beat(&self) {
        let ms = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last_ms.store(ms, Ordering::Relaxed);
    }

    pub fn age(&self) -> Duration {
        self.started.elapsed().saturating_sub(Duration::from_millis(self.last_ms.load(Ordering::Relaxed)))
    }
}

/// Announces the node, records the configurations, and starts heartbeat and claims.
pub(crate) async fn join(engine: &Engine) -> Result<(), ExecuteError> {
    let inner = &engine.inner;
    announce(inner, &inner.registry()).await?;
    record_configs(inner, &inner.registry()).await?;
    let position = inner.store.head(LogId::DEFAULT).await?;
    claim(inner).await;
    inner.spawn(listen(inner.clone(), LogId::DEFAULT, position));
    inner.spawn(live(inner.clone()));
    Ok(())
}

/// Stops: runs that can be interrupted are left for others, running tools get their grace, the leases are given up.
pub(crate) async fn leave(engine: &Engine) {
    let inner = &engine.inner;
    inner.stopping.cancel();
    inner.tasks.close();
    let limit = inner.options.grace + Duration::from_secs(5);
    if tokio::time::timeout(limit, inner.tasks.wait()).await.is_err() {
        tracing::warn!(runs = engine.run_count(), "some runs did not stop in time; another node takes them over");
    }
    inner.frames.stop().await;
    if let Err(error) = inner.store.leave_node(&inner.node_id).await {
        tracing::warn!(%error, "the node's leases were not given up; others take its runs over after 6 s");
    }
}

/// Records the configurations of all components, each once.
pub(crate) async fn record_configs(inner: &Arc<Inner>, registry: &Registry) -> Result<(), ExecuteError> {
    for component in registry.all() {
        let configure = Configure { config: (*component.config).clone() };
        let Ok(events) = ComponentState::default().decide(configure) else { continue };
        let write = StreamWrite {
            stream: StreamId::config(&component.hash),
            expected: Expected::Version(0),
            subject: None,
            events: events.into_iter().map(DomainEvent::from).collect(),
        };
        let (log_id, meta) = (LogId::DEFAULT, inner.meta());
        let request = Append { log_id, writes: vec![write], command: None, lease: LeaseOp::None, meta };
        match inner.store.append(request).await {
            // A conflict says that it is recorded already: the stream is named by its content.
            Ok(_) | Err(AppendError::Conflict { .. }) => {}
            Err(AppendError::Store(error)) => return Err(error.into()),
            Err(other) => {
                let component = component.config.component();
                tracing::warn!(%component, error = %other, "a configuration was not recorded");
            }
        }
    }
    Ok(())
}

/// Shows that the node lives, and only then looks for runs of those that do not: after an outage of the database the
/// node's own runs must not look abandoned to itself.
async fn live(inner: Arc<Inner>) {
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut lost = Lost::default();
    for beat in 1_u32.. {
        tokio::select! {
            _ = tick.tick() => {}
            () = inner.stopping.cancelled() => return,
        }
        match inner.store.heartbeat(&inner.node_id).await {
            Ok(true) => {
                inner.pulse.beat();
                let look = beat.is_multiple_of(LOOK_FOR_LOST);
                if look && let Err(error) = let_go_of_lost(&inner, &mut lost).await {
                    tracing::warn!(%error, "this node's leases were not looked at");
                }
                claim(&inner).await;
                if look && let Err(error) = look_for_stranded(&inner).await {
                    tracing::warn!(%error, "it was not seen which runs no server can go on with");
                }
            }
            // Others thought us dead: say again that we are here. Runs they took are theirs, the epochs see to that.
            Ok(false) => rejoin(&inner).await,
            Err(error) => tracing::warn!(%error, "no heartbeat; after 6 s of silence other nodes take over"),
        }
    }
}

/// Tells the others that this node lives, and what it can run.
pub(crate) async fn announce(inner: &Inner, registry: &Registry) -> Result<(), StoreError> {
    let (id, host, pid) = (inner.node_id.clone(), inner.options.host.clone(), std::process::id());
    inner.store.join_node(&NodeInfo { id, host, pid, abilities: registry.abilities() }).await
}

async fn rejoin(inner: &Arc<Inner>) {
    // What is told last must be what this node has.
    let _alone = inner.replacing.lock().await;
    if let Err(error) = announce(inner, &inner.registry()).await {
        tracing::warn!(%error, "the node was not announced again");
    }
}

/// Takes over runs that no living node has, as far as this one can run them.
async fn claim(inner: &Arc<Inner>) {
    let Abilities { components, tools, .. } = inner.registry().abilities();
    let log = LogId::DEFAULT;
    let leases = match inner.store.claim_leases(log, &inner.node_id, &components, &tools, CLAIM_LIMIT).await {
        Ok(leases) => leases,
        Err(error) => {
            tracing::warn!(%error, "runs that nobody has were not looked for");
            return;
        }
    };
    for lease in leases {
        let run = lease.tree.clone();
        if let Err(error) = take_over(inner, log, lease).await {
            tracing::error!(%run, %error, "a run was not taken over");
        }
    }
}

pub(crate) async fn take_over(inner: &Arc<Inner>, log: LogId, lease: Lease) -> Result<(), Exit> {
    let (state, version) = fold_run(&inner.store, log, &lease.tree).await?;
    let Some(accepted) = state.accepted.as_ref().filter(|_| !state.status.is_end()) else { return Ok(()) };
    let config = inner.config(log, &accepted.config_hash).await?;
    let Some(meta) = RunMeta::of(&state, &config) else { return Ok(()) };
    tracing::info!(run = %lease.tree, epoch = lease.epoch, "took a run over");
    let kept = state.keeps_frames() || !inner.store.frames().spans(log, &lease.tree).await?.is_empty();
    let hub = Hub::new(Arc::new(meta), (lease.epoch - 1) * EPOCH_FRAMES, kept);
    let live = LiveRun::new(log, lease.epoch, hub);
    if state.cancel.is_some() {
        // The runs under it are to end as well.
        live.set_closing(true);
        live.cancelled.cancel();
    }
    let key = (log, lease.tree.clone());
    let before = inner.runs.lock().unwrap_or_else(PoisonError::into_inner).insert(key, live.clone());
    // Of an earlier lease, which this node had lost without knowing it.
    before.iter().for_each(|before| before.lost.cancel());
    let component = inner.registry().pinned(config, &accepted.config_hash);
    let driver = Driver::new(inner.clone(), live, component, state, version, lease.epoch);
    inner.spawn(driver.drive_on());
    Ok(())
}

/// What stood askew at the last look. What was accepted or ended a moment ago does so only once.
#[derive(Default)]
struct Lost {
    /// Leases of this node without a run.
    leases: HashSet<(RunId, u64)>,
    /// Runs of this node without their lease.
    runs: HashSet<(RunId, u64)>,
}

/// Gives up leases that this node holds and does not work on, for the next claim: it never heard that it has them, because
/// the database's answer was lost, or could not read the run when it did. And lets runs go whose lease another node took
/// while this one stood still.
async fn let_go_of_lost(inner: &Arc<Inner>, seen: &mut Lost) -> Result<(), StoreError> {
    let log = LogId::DEFAULT;
    // Taken before the leases are read: what is accepted in between has its lease by then, or is not among these.
    let live: Vec<Arc<LiveRun>> = inner.runs.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect();
    let held: HashSet<_> = inner.store.leases_of(log, &inner.node_id).await?.into_iter().collect();
    let leases: HashSet<_> = held.iter().filter(|(run, _)| inner.live(log, run).is_none()).cloned().collect();
    for (run, epoch) in leases.intersection(&seen.leases) {
        tracing::warn!(%run, epoch, "this node holds a run that it does not work on; it is taken over anew");
        inner.store.give_up_lease(log, &inner.node_id, run, *epoch).await?;
    }
    let name = |live: &LiveRun| (live.run_id.clone(), live.epoch);
    let (mut runs, mut still) = (HashSet::new(), live);
    still.retain(|live| !held.contains(&name(live)) && !live.is_released());
    for live in still {
        if seen.runs.contains(&name(&live)) {
            tracing::warn!(run = %live.run_id, epoch = live.epoch, "another node took a run over; it is let go here");
            live.lost.cancel();
        }
        runs.insert(name(&live));
    }
    *seen = Lost { leases, runs };
    Ok(())
}

impl Driver {
    /// Says that the run was taken over, and repeats what was said so far.
    pub(crate) async fn open_epoch(&mut self) -> Result<(), Exit> {
        self.repair_frames().await?;
        while self.state.epoch < self.epoch {
            let taken = RunTakenOver {
                node: self.engine.node_id.clone(),
                epoch: self.epoch,
                frame: 0,
                at_ms: self.engine.now_ms(),
            };
            if !self.record(RunEvent::TakenOver(taken)).await? {
                self.catch_up().await?;
            }
        }
        let (text, reasoning) = said(&self.state);
        if text.is_some() || reasoning.is_some() {
            // What was streamed before is void; from the restart frame on, the text is whole again.
            self.show_piece(FrameBody::Content { text, reasoning, provider_data: self.state.provider_data.clone() });
        }
        self.opened = true;
        Ok(())
    }
}

fn said(state: &RunState) -> (Option<String>, Option<String>) {
    let some = |text: String| Some(text).filter(|text| !text.is_empty());
    (some(state.content()), some(state.reasoning()))
}
