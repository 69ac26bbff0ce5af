//! Runs under a run: accepted under the tree's lease, driven beside their parent, and found again after a crash.

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use daybook_domain::ids::{LogId, RunId};
use daybook_domain::media::Media;
use daybook_domain::run::{MemberAsk, OnBusy, Parent, RunAccepted, RunContinued, RunEvent, RunState, RunStatus};
use daybook_domain::session::Admission;
use daybook_domain::workflow::StepRequirement;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use serde_json::{Map, Value};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::detail::RunDetail;
use crate::drive::{Driver, Exit};
use crate::engine::{Inner, fold_run};
use crate::error::QueryError;
use crate::frame::RunMeta;
use crate::live::LiveRun;
use crate::plan::Action;

/// How often a child run that met an error of our own tries to go on before its whole tree is given up here.
const MAX_STUMBLES: u32 = 10;

/// The most runs that may be above one.
pub(crate) const MAX_DEPTH: u32 = 16;

/// A child run to go on with, or to begin.
pub(crate) struct ChildStart {
    pub run_id: RunId,
    /// The configuration it runs with.
    pub config_hash: String,
    pub parent: Parent,
    pub message: String,
    pub media: Vec<Media>,
    /// How many of the session's earlier runs it sees.
    pub sees: u32,
    /// Whether it cannot have been accepted before.
    pub fresh: bool,
    /// How many runs beside it go on at once.
    pub places: Arc<Semaphore>,
    /// Fires when it is to stop.
    pub cancelled: CancellationToken,
    pub dependencies: Option<Map<String, Value>>,
    pub metadata: Option<Map<String, Value>>,
}

/// What a child run asks, and the runs under it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Asks {
    /// About calls.
    pub members: Vec<MemberAsk>,
    /// About its own steps, where it is a workflow.
    pub steps: Vec<StepRequirement>,
}

/// How a child run left.
pub(crate) enum ChildEnd {
    /// It ended, well or not.
    Ended(Box<RunDetail>),
    /// It waits for a person, or a run under it does.
    Paused(Asks),
    /// It was to stop before it began.
    NotBegun,
    /// Its tree goes on elsewhere.
    Moved,
}

/// Begins the run or takes it up where its fold stands, and drives it until it ends or waits for a person.
pub(crate) fn run_child(engine: Arc<Inner>, live: Arc<LiveRun>, start: ChildStart) -> BoxFuture<'static, ChildEnd> {
    Box::pin(async move {
        let Ok(_place) = start.places.clone().acquire_owned().await else { return ChildEnd::Moved };
        if start.fresh && start.cancelled.is_cancelled() {
            return ChildEnd::NotBegun;
        }
        let key = (live.log, start.run_id.clone());
        engine.stops().insert(key.clone(), start.cancelled.clone());
        let driven = AssertUnwindSafe(drive(&engine, &live, start)).catch_unwind().await;
        engine.stops().remove(&key);
        match driven {
            Ok(end) => end,
            Err(_) => give_up(&engine, &live, &key.1, "its driver panicked").await,
        }
    })
}

/// The whole tree is given up here, to be taken up anew; when that happens too often, it is ended.
async fn give_up(engine: &Inner, live: &LiveRun, run: &RunId, why: &str) -> ChildEnd {
    tracing::error!(%run, root = %live.run_id, why, "a child run cannot go on; its tree is given up, to be taken up anew");
    engine.broke_down(live).await;
    live.lost.cancel();
    ChildEnd::Moved
}

async fn drive(engine: &Arc<Inner>, live: &Arc<LiveRun>, start: ChildStart) -> ChildEnd {
    let mut stumbles = 0;
    loop {
        match Box::pin(attempt(engine, live, &start)).await {
            Ok(end) => return end,
            Err(Exit::Moved) => return ChildEnd::Moved,
            Err(error) => {
                stumbles += u32::from(!error.is_temporary());
                tracing::error!(run = %start.run_id, %error, stumbles, "a child run stumbled");
                let pause = tokio::time::timeout(Duration::from_secs(1), engine.stopping.cancelled());
                if pause.await.is_ok() {
                    return ChildEnd::Moved;
                }
                if stumbles >= MAX_STUMBLES {
                    return give_up(engine, live, &start.run_id, "it stumbled again and again").await;
                }
            }
        }
    }
}

async fn attempt(engine: &Arc<Inner>, live: &Arc<LiveRun>, start: &ChildStart) -> Result<ChildEnd, Exit> {
    let config = engine.config(live.log, &start.config_hash).await?;
    let component = engine.registry().pinned(config, &start.config_hash);
    let accepted = accepted(engine, live, start, component.config.component());
    let meta = Arc::new(RunMeta::accepted(&accepted, &component.config));
    let state = RunState::default();
    let mut driver = Driver::new(engine.clone(), live.clone(), component, state, 0, live.epoch);
    driver.meta = meta;
    driver.cancelled = start.cancelled.clone();
    driver.below = start.cancelled.child_token();
    driver.sees = Some(start.sees);
    driver.opened = true;
    let Some(action) = driver.begin(accepted, start.fresh).await? else {
        return driver.came_to().await;
    };
    driver.go(Some(action)).await?;
    driver.came_to().await
}

fn accepted(
    engine: &Inner,
    live: &LiveRun,
    start: &ChildStart,
    component: daybook_domain::component::ComponentRef,
) -> RunAccepted {
    let root = &live.hub.meta;
    RunAccepted {
        run_id: start.run_id.clone(),
        session_id: root.session_id.clone(),
        user_id: root.user_id.clone(),
        component,
        config_hash: start.config_hash.clone(),
        mode: Default::default(),
        on_busy: OnBusy::Parallel,
        admission: Admission::Parallel,
        cancel_on_disconnect: false,
        message: start.message.clone().into(),
        media: start.media.clone().into(),
        dependencies: start.dependencies.clone().into(),
        metadata: start.metadata.clone().into(),
        output_schema: None.into(),
        forked: None,
        base: None.into(),
        copied_from: None,
        parent: Some(Box::new(start.parent.clone())),
        frame: 0,
        at_ms: engine.now_ms(),
    }
}

impl Driver {
    /// What comes first for a child run; nothing when it ended before, or still waits for a person.
    async fn begin(&mut self, accepted: RunAccepted, fresh: bool) -> Result<Option<Action>, Exit> {
        if !fresh {
            self.catch_up().await?;
        }
        if self.state.accepted.is_none() {
            return self.advance(vec![RunEvent::Accepted(Box::new(accepted))], Vec::new()).await.map(Some);
        }
        if self.state.status.is_end() {
            return Ok(None);
        }
        if self.state.status == RunStatus::Paused && !self.is_to_end(&self.state) && self.state.cancel.is_none() {
            if self.state.is_asking() || self.engine.is_asked_below(self.live.log, &self.state).await? {
                return Ok(None);
            }
            self.take_on().await?;
        } else if self.state.epoch < self.epoch {
            self.open_epoch().await?;
        }
        self.advance(Vec::new(), Vec::new()).await.map(Some)
    }

    /// All that was asked was answered: the run goes on.
    async fn take_on(&mut self) -> Result<(), Exit> {
        while self.state.status == RunStatus::Paused {
            let (mode, admission) = (self.state.mode(), Admission::Parallel);
            let steps = self.state.flow.as_ref().map(|flow| flow.paused.clone()).unwrap_or_default();
            let continued = RunContinued { mode, admission, steps, frame: 0, at_ms: self.engine.now_ms() };
            if !self.record(RunEvent::Continued(continued)).await? {
                self.catch_up().await?;
            }
        }
        Ok(())
    }

    /// How the run left.
    async fn came_to(mut self) -> Result<ChildEnd, Exit> {
        if self.state.status.is_end() {
            let state = self.state.clone();
            self.gather_children(&state).await?;
            let children = self.children_of(&state);
            let config = self.component.config.clone();
            return Ok(ChildEnd::Ended(Box::new(RunDetail { state, config, history: Vec::new(), children })));
        }
        if self.state.status != RunStatus::Paused {
            return Ok(ChildEnd::Moved);
        }
        let mut members = asks_of(&self.state, self.component.config.name());
        members.extend(self.engine.asks_below(self.live.log, &self.state).await?);
        let steps = self.state.flow.as_ref().map(|flow| flow.asks()).unwrap_or_default();
        Ok(ChildEnd::Paused(Asks { members, steps }))
    }

    /// Whether it must stop though nobody asked it itself: its parent stops.
    pub fn is_to_end(&self, state: &RunState) -> bool {
        let open = state.accepted.is_some() && state.cancel.is_none() && !state.status.is_end();
        open && !self.is_root() && self.cancelled.is_cancelled()
    }

    /// Makes sure that the runs under it are known, before it ends: what it tells last tells of them.
    pub async fn gather_children(&mut self, after: &RunState) -> Result<(), Exit> {
        if !after.status.is_end() {
            return Ok(());
        }
        for child in after.children() {
            if !self.ended.contains_key(&child.run_id)
                && let Some(detail) = self.engine.child(self.live.log, &child.run_id).await?
            {
                self.ended.insert(child.run_id.clone(), detail);
            }
        }
        Ok(())
    }

    /// The runs under it that are known, in order.
    pub fn children_of(&self, state: &RunState) -> Vec<RunDetail> {
        state.children().filter_map(|child| self.ended.get(&child.run_id)).cloned().collect()
    }
}

/// What a run asks itself.
fn asks_of(state: &RunState, name: &str) -> Vec<MemberAsk> {
    let Some(accepted) = &state.accepted else { return Vec::new() };
    let ask = |(requirement, tool): (&daybook_domain::run::Requirement, &daybook_domain::run::ToolRecord)| MemberAsk {
        run_id: accepted.run_id.clone(),
        component: accepted.component.clone(),
        name: name.to_owned(),
        requirement: requirement.clone(),
        tool: tool.clone(),
    };
    state.open_requirements().map(ask).collect()
}

impl Inner {
    /// What the runs under a run ask, at any depth, and nobody has answered. One that is to be cancelled asks nothing.
    pub async fn asks_below(&self, log: LogId, state: &RunState) -> Result<Vec<MemberAsk>, QueryError> {
        let mut asks = Vec::new();
        for (run, _) in self.open_below(log, state).await? {
            let hash = run.accepted.as_ref().map(|accepted| accepted.config_hash.clone()).unwrap_or_default();
            if run.status == RunStatus::Paused && run.cancel.is_none() {
                asks.extend(asks_of(&run, self.config(log, &hash).await?.name()));
            }
        }
        Ok(asks)
    }

    /// Whether something is asked by the runs under a run, at any depth, that nobody has answered.
    pub async fn is_asked_below(&self, log: LogId, state: &RunState) -> Result<bool, QueryError> {
        let open = self.open_below(log, state).await?;
        Ok(open.iter().any(|(run, _)| run.status == RunStatus::Paused && run.cancel.is_none() && run.is_asking()))
    }

    /// Whether one of these runs, or of those under them, asks something that nobody has answered.
    pub async fn is_asked_in(&self, log: LogId, runs: &[RunId]) -> Result<bool, QueryError> {
        for run in runs {
            let (state, _) = fold_run(&self.store, log, run).await?;
            let asking = state.status == RunStatus::Paused && state.cancel.is_none() && state.is_asking();
            if asking || self.is_asked_below(log, &state).await? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The runs under a run that have not ended, at any depth, parents first, with the versions of their streams.
    pub async fn open_below(&self, log: LogId, state: &RunState) -> Result<Vec<(RunState, u64)>, QueryError> {
        let mut open: Vec<RunId> = state.open_children().map(|child| child.run_id.clone()).collect();
        let mut found = Vec::new();
        while let Some(run) = open.pop() {
            let (child, version) = fold_run(&self.store, log, &run).await?;
            if child.accepted.is_none() || child.status.is_end() {
                continue;
            }
            open.extend(child.open_children().map(|child| child.run_id.clone()));
            found.push((child, version));
        }
        Ok(found)
    }

    /// What stops the child runs that go on here.
    pub fn stops(&self) -> std::sync::MutexGuard<'_, std::collections::HashMap<(LogId, RunId), CancellationToken>> {
        self.stops.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
