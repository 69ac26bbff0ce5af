//! Writes frames to the table in the background, many runs in one statement, for watchers who come back.

use std::sync::Arc;
use std::time::Duration;

use daybook_domain::ids::LogId;
use daybook_store::{Durability, FrameChunk, Store, Subject};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::frame::{Frame, StoredFrame};
use crate::live::LiveRun;

/// How long text pieces are gathered before they are written.
const GATHER: Duration = Duration::from_millis(60);

/// How many runs may wait to be written before a run has to wait itself.
const QUEUE: usize = 4096;

/// A run whose frames are to be written now, and who waits for the last index that was.
type Waiting = (Arc<LiveRun>, oneshot::Sender<Option<u64>>);

enum Request {
    /// Within [`GATHER`].
    Soon(Arc<LiveRun>),
    /// Now: an event follows.
    Now(Waiting),
}

/// The handle of the writing task.
pub(crate) struct FrameWriter {
    requests: mpsc::Sender<Request>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl FrameWriter {
    /// Starts the task.
    pub fn start(store: Store) -> Self {
        let (requests, queue) = mpsc::channel(QUEUE);
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        tasks.spawn(write(store, queue, stop.clone()));
        Self { requests, stop, tasks }
    }

    /// Writes what is there and ends the task.
    pub async fn stop(&self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Asks for `run`'s frames to be written soon; when the queue is full they go with a later piece.
    pub fn soon(&self, run: &Arc<LiveRun>) {
        if run.hub.is_kept() && run.mark_dirty() && self.requests.try_send(Request::Soon(run.clone())).is_err() {
            run.clear_dirty();
        }
    }

    /// Writes all frames of `run` ahead of an event; gives the last index written. They are safe, and may be called
    /// flushed, once that event is in the log: only then has the disk seen them.
    pub async fn flush(&self, run: &Arc<LiveRun>) -> Option<u64> {
        if !run.hub.is_kept() || run.hub.take_unflushed().is_empty() {
            return None;
        }
        let (done, written) = oneshot::channel();
        // An error means that the task is gone, and with it the frames' table.
        self.requests.send(Request::Now((run.clone(), done))).await.ok()?;
        written.await.ok().flatten()
    }
}

async fn write(store: Store, mut queue: mpsc::Receiver<Request>, stop: CancellationToken) {
    let mut soon: Vec<Arc<LiveRun>> = Vec::new();
    let mut now: Vec<Waiting> = Vec::new();
    let mut due = tokio::time::interval(GATHER);
    due.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let mut open = true;
        tokio::select! {
            request = queue.recv() => match request {
                Some(request) => take(request, &mut soon, &mut now),
                None => open = false,
            },
            () = stop.cancelled() => open = false,
            _ = due.tick(), if !soon.is_empty() => put_soon(&store, &mut soon).await,
        }
        while let Ok(request) = queue.try_recv() {
            take(request, &mut soon, &mut now);
        }
        put_now(&store, &mut now).await;
        if !open {
            return put_soon(&store, &mut soon).await;
        }
    }
}

fn take(request: Request, soon: &mut Vec<Arc<LiveRun>>, now: &mut Vec<Waiting>) {
    match request {
        Request::Soon(run) => soon.push(run),
        Request::Now(waiting) => now.push(waiting),
    }
}

async fn put_soon(store: &Store, runs: &mut Vec<Arc<LiveRun>>) {
    let mut written = Vec::new();
    let mut chunks = Vec::new();
    for run in runs.drain(..) {
        run.clear_dirty();
        if let Some(chunk) = unflushed(&run) {
            written.push((run, chunk.last_index));
            chunks.push(chunk);
        }
    }
    if put(store, chunks, Durability::Now).await {
        written.into_iter().for_each(|(run, last)| run.hub.flushed(last));
    }
}

async fn put_now(store: &Store, waiting: &mut Vec<Waiting>) {
    if waiting.is_empty() {
        return;
    }
    let chunks: Vec<Option<FrameChunk>> = waiting.iter().map(|(run, _)| unflushed(run)).collect();
    let lasts: Vec<Option<u64>> = chunks.iter().map(|chunk| chunk.as_ref().map(|chunk| chunk.last_index)).collect();
    let put = put(store, chunks.into_iter().flatten().collect(), Durability::WithNextEvent).await;
    for ((_, done), last) in waiting.drain(..).zip(lasts) {
        // The run that waited may be gone.
        let _ = done.send(last.filter(|_| put));
    }
}

async fn put(store: &Store, chunks: Vec<FrameChunk>, durability: Durability) -> bool {
    let put = store.frames().put(chunks, durability).await;
    if let Err(error) = &put {
        tracing::warn!(%error, "frames were not written; they go with the next");
    }
    put.is_ok()
}

fn unflushed(run: &Arc<LiveRun>) -> Option<FrameChunk> {
    chunk(run.log, &run.hub.take_unflushed(), &run.subject())
}

/// One row for the table; `None` when there is nothing to write.
pub(crate) fn chunk(log: LogId, frames: &[Arc<Frame>], subject: &Subject) -> Option<FrameChunk> {
    let (first, last) = (frames.first()?, frames.last()?);
    let stored: Vec<StoredFrame> = frames
        .iter()
        .map(|frame| StoredFrame { v: 1, i: frame.index, at: frame.at, body: frame.body.clone() })
        .collect();
    Some(FrameChunk {
        log,
        tree: first.run.run_id.clone(),
        subject: subject.clone(),
        first_index: first.index,
        last_index: last.index,
        count: u32::try_from(stored.len()).unwrap_or(u32::MAX),
        body: serde_json::to_vec(&stored).ok()?,
    })
}
