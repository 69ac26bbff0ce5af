//! A run tree on the node that holds its lease: its frames, the gate that cancelling closes, and its end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use daybook_domain::ids::{LogId, RunId};
use daybook_domain::run::{RunState, RunStatus};
use daybook_store::Subject;
use tokio::sync::{Mutex, MutexGuard, Notify, watch};
use tokio_util::sync::CancellationToken;

use crate::hub::Hub;

/// How the run left this node.
#[derive(Debug, Clone)]
pub(crate) enum Left {
    /// It ended, or waits for a person.
    Finished(Arc<RunState>),
    /// Its lease went elsewhere, or this node is stopping.
    Moved,
}

/// The right to append to a tree: nobody else numbers frames meanwhile.
pub(crate) struct Turn<'a> {
    hub: &'a Hub,
    _alone: MutexGuard<'a, ()>,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.hub.release();
    }
}

/// A run on this node, with the runs under it.
pub(crate) struct LiveRun {
    pub log: LogId,
    /// The run at the top.
    pub run_id: RunId,
    pub hub: Hub,
    /// The lease it is worked on under.
    pub epoch: u64,
    /// Fires when the lease is found to be another's: a run that waits appends nothing, and would not notice.
    pub lost: CancellationToken,
    /// Fires when a request to cancel is in the log.
    pub cancelled: CancellationToken,
    /// Held while one of the tree's runs appends: frames are numbered in the order of the events.
    order: Mutex<()>,
    /// Rung when the session may have become free.
    pub turn: Notify,
    /// True from the moment a cancel is being recorded: no call starts any more, unless it cannot be recorded.
    closing: watch::Sender<bool>,
    left: watch::Sender<Option<Left>>,
    dirty: AtomicBool,
    waiting: AtomicBool,
    released: AtomicBool,
}

impl LiveRun {
    /// A run that was just accepted or taken over.
    pub fn new(log: LogId, epoch: u64, hub: Hub) -> Arc<Self> {
        Arc::new(Self {
            log,
            run_id: hub.meta.run_id.clone(),
            hub,
            epoch,
            lost: CancellationToken::new(),
            cancelled: CancellationToken::new(),
            order: Mutex::default(),
            turn: Notify::new(),
            closing: watch::Sender::new(false),
            left: watch::Sender::new(None),
            dirty: AtomicBool::new(false),
            waiting: AtomicBool::new(false),
            released: AtomicBool::new(false),
        })
    }

    /// Waits until none of the tree's runs appends.
    pub async fn turn_to_append(&self) -> Turn<'_> {
        let alone = self.order.lock().await;
        self.hub.hold();
        Turn { hub: &self.hub, _alone: alone }
    }

    /// Whose keys protect the run's frames.
    pub fn subject(&self) -> Subject {
        Subject { session: self.hub.meta.session_id.clone(), user: self.hub.meta.user_id.clone() }
    }

    /// Calls `start` unless the run is being cancelled: what has not started then never does.
    pub fn start_unless_closing<T>(&self, start: impl FnOnce() -> T) -> Option<T> {
        // Nobody closes the gate while it is borrowed.
        let closing = self.closing.borrow();
        (!*closing).then(start)
    }

    /// Waits until calls may start. Where the cancel that prevents them is recorded, its token fires instead.
    pub async fn may_start(&self) {
        // The sender is `self`: it cannot be gone.
        let _ = self.closing.subscribe().wait_for(|closing| !closing).await;
    }

    /// Closes the gate, or opens it again when the cancel could not be recorded.
    pub fn set_closing(&self, closing: bool) {
        self.closing.send_replace(closing);
    }

    /// The run is no longer on this node.
    pub fn leave(&self, left: Left) {
        self.hub.close();
        self.left.send_replace(Some(left));
    }

    /// Waits until the run has left this node; its fold if it finished here.
    pub async fn finished(&self) -> Option<RunState> {
        let mut left = self.left.subscribe();
        match left.wait_for(Option::is_some).await.ok()?.as_ref() {
            Some(Left::Finished(state)) => Some(RunState::clone(state)),
            _ => None,
        }
    }

    /// Its lease was given up with its last event: what is left to do here is no other node's.
    pub fn set_released(&self) {
        self.released.store(true, Ordering::Release);
    }

    /// See [`LiveRun::set_released`].
    pub fn is_released(&self) -> bool {
        self.released.load(Ordering::Acquire)
    }

    /// Notes whether it waits for its session.
    pub fn set_waiting(&self, waiting: bool) {
        self.waiting.store(waiting, Ordering::Release);
    }

    /// Whether it waits for its session.
    pub fn is_waiting(&self) -> bool {
        self.waiting.load(Ordering::Acquire)
    }

    /// Where the run stands, as far as its node can tell without reading the log.
    pub fn status(&self) -> RunStatus {
        if self.is_waiting() { RunStatus::Pending } else { RunStatus::Running }
    }

    /// True when the run was not yet waiting to be written.
    pub fn mark_dirty(&self) -> bool {
        !self.dirty.swap(true, Ordering::AcqRel)
    }

    /// Its frames were gathered; later ones need a new request.
    pub fn clear_dirty(&self) {
        self.dirty.store(false, Ordering::Release);
    }
}
