//! Writes frames to the table in the background, many runs in one statement, for watchers who come back.

use std::sync::Arc;
use std::time::Duration;

use backon::{ExponentialBuilder, Retryable};
use daybook_domain::ids::{LogId, RunId};
use daybook_store::{Durability, FrameChunk, Store, StoreError, Subject};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::frame::{Frame, StoredFrame};
use crate::live::LiveRun;

/// How long text pieces are gathered before they are written.
const GATHER: Duration = Duration::from_millis(60);

/// How many runs may wait to be written before a run has to wait itself.
const QUEUE: usize = 4096;

/// The database is away: frames stay in memory until it is back.
#[derive(Debug)]
pub(crate) struct Away;

/// The last index that was written, if any was.
type Written = Result<Option<u64>, Away>;

/// A run whose frames are to be written now, and who waits for it.
type Waiting = (Arc<LiveRun>, oneshot::Sender<Written>);

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

    /// Writes all frames of `run` ahead of an event. They are safe, and may be called flushed, once that event is in
    /// the log: only then has the disk seen them.
    ///
    /// # Errors
    /// [`Away`]: an event that is appended nevertheless says that a text is complete of which watchers who come back
    /// would miss a piece. What the table refuses for good is given up instead: it is a cache.
    pub async fn flush(&self, run: &Arc<LiveRun>) -> Written {
        if !run.hub.is_kept() || run.hub.take_unflushed().is_empty() {
            return Ok(None);
        }
        let (done, written) = oneshot::channel();
        // An error means that the task is gone, and with it the frames' table.
        match self.requests.send(Request::Now((run.clone(), done))).await {
            Ok(()) => written.await.unwrap_or(Ok(None)),
            Err(_) => Ok(None),
        }
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
    if put(store, &chunks, Durability::Now).await.is_ok() {
        written.into_iter().for_each(|(run, last)| run.hub.flushed(last));
    }
}

async fn put_now(store: &Store, waiting: &mut Vec<Waiting>) {
    if waiting.is_empty() {
        return;
    }
    let chunks: Vec<Option<FrameChunk>> = waiting.iter().map(|(run, _)| unflushed(run)).collect();
    let lasts: Vec<Option<u64>> = chunks.iter().map(|chunk| chunk.as_ref().map(|chunk| chunk.last_index)).collect();
    let chunks: Vec<FrameChunk> = chunks.into_iter().flatten().collect();
    let put = put(store, &chunks, Durability::WithNextEvent).await;
    for ((_, done), last) in waiting.drain(..).zip(lasts) {
        // The run that waited may be gone.
        let _ = done.send(match &put {
            Ok(()) => Ok(last),
            Err(error) if error.is_temporary() => Err(Away),
            Err(_) => Ok(None),
        });
    }
}

/// After a restart of the database, the pool still holds connections that are broken: one try is not enough.
async fn put(store: &Store, chunks: &[FrameChunk], durability: Durability) -> Result<(), StoreError> {
    let tries = ExponentialBuilder::default().with_min_delay(Duration::from_millis(10)).with_jitter();
    let frames = store.frames();
    let put = (|| frames.put(chunks, durability)).retry(tries).when(StoreError::is_temporary).await;
    put.inspect_err(|error| tracing::warn!(%error, "frames were not written; they go with the next"))
}

fn unflushed(run: &Arc<LiveRun>) -> Option<FrameChunk> {
    chunk(run.log, &run.run_id, &run.hub.take_unflushed(), &run.subject())
}

/// One row for the table; `None` when there is nothing to write.
pub(crate) fn chunk(log: LogId, tree: &RunId, frames: &[Arc<Frame>], subject: &Subject) -> Option<FrameChunk> {
    let (first, last) = (frames.first()?, frames.last()?);
    let stored: Vec<StoredFrame> = frames
        .iter()
        .map(|frame| StoredFrame {
            v: 1,
            i: frame.index,
            at: frame.at,
            body: frame.body.clone(),
            r: Some(&frame.run.run_id).filter(|run| *run != tree).cloned(),
        })
        .collect();
    Some(FrameChunk {
        log,
        tree: tree.clone(),
        subject: subject.clone(),
        first_index: first.index,
        last_index: last.index,
        count: u32::try_from(stored.len()).unwrap_or(u32::MAX),
        body: serde_json::to_vec(&stored).ok()?,
    })
}
