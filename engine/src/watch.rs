//! Watching a run: what was missed, then what comes; from memory on the run's own node, from the table anywhere.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use daybook_domain::event::DomainEvent;
use daybook_domain::ids::{LogId, RunId, StreamId};
use daybook_domain::run::{RunEvent, RunState, RunStatus};
use daybook_store::{Durability, FrameChunk};

use crate::detail::RunDetail;
use crate::drive::{Driver, Exit};
use crate::engine::{Engine, Inner};
use crate::error::QueryError;
use crate::frame::{Frame, RunMeta, StoredFrame, frames_of};
use crate::frame_writer::chunk;
use crate::hub::Piece;
use crate::live::LiveRun;

/// How often a run on another node is looked at.
const POLL: Duration = Duration::from_millis(100);

/// How often the run's node is asked to keep its frames.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// How many frames are taken from memory at once, and chunks from the table.
const AT_ONCE: usize = 64;

/// What a watcher gets.
#[derive(Debug)]
pub enum WatchItem {
    /// A frame.
    Frame(Arc<Frame>),
    /// All frames that were there when the watch began have been given; live ones follow.
    CaughtUp,
}

enum Source {
    /// The run is on this node.
    Here(Arc<LiveRun>),
    /// The run is on another node, or nowhere.
    Table,
    /// The run has ended; what the table lacks is made from the log.
    Ended,
    /// Nothing more comes.
    Done,
}

/// A watch over one run. Frames come in order, each once.
pub struct Watch {
    engine: Engine,
    log: LogId,
    run: RunId,
    /// The run itself; one of another component or session is not the one a caller asked for.
    pub meta: Arc<RunMeta>,
    /// The runs under it whose frames have come.
    below: HashMap<RunId, Arc<RunMeta>>,
    /// Where the run stood when the watch began.
    pub status: RunStatus,
    /// Whether frames are still to come.
    pub live: bool,
    last: Option<u64>,
    /// Frames below this index were there when the watch began.
    begun_at: u64,
    caught_up: bool,
    source: Source,
    queue: VecDeque<Arc<Frame>>,
    asked: Option<Instant>,
}

impl Watch {
    pub(crate) async fn open(
        engine: Engine,
        log: LogId,
        run: RunId,
        after: Option<u64>,
    ) -> Result<Option<Self>, QueryError> {
        if let Some(live) = engine.inner.live(log, &run)
            && engine.inner.keep_frames(&live).await?
        {
            let (_, begun_at) = live.hub.bounds();
            let (meta, status, source) = (live.hub.meta.clone(), live.status(), Source::Here(live));
            return Ok(Some(Self::new(engine, log, run, meta, status, after, begun_at, source)));
        }
        let Some(state) = engine.run(log, &run).await? else { return Ok(None) };
        let Some(accepted) = &state.accepted else { return Ok(None) };
        let config = engine.config(log, &accepted.config_hash).await?;
        let Some(meta) = RunMeta::of(&state, &config).map(Arc::new) else { return Ok(None) };
        let ended = over(state.status);
        let source = if ended { Source::Ended } else { Source::Table };
        let begun_at = if ended { u64::MAX } else { last_index(&engine.inner, log, &run).await? };
        Ok(Some(Self::new(engine, log, run, meta, state.status, after, begun_at, source)))
    }

    #[expect(clippy::too_many_arguments, reason = "private, and each is one field")]
    fn new(
        engine: Engine,
        log: LogId,
        run: RunId,
        meta: Arc<RunMeta>,
        status: RunStatus,
        after: Option<u64>,
        begun_at: u64,
        source: Source,
    ) -> Self {
        let live = !matches!(source, Source::Ended);
        let queue = VecDeque::new();
        let (last, caught_up, asked) = (after, false, None);
        let below = HashMap::new();
        Self { engine, log, run, meta, below, status, live, last, begun_at, caught_up, source, queue, asked }
    }

    /// How many frames there were when the watch began: after the one it was opened at, and in all.
    ///
    /// # Errors
    /// [`QueryError`] when the log does not answer.
    pub async fn counts(&self) -> Result<(u64, u64), QueryError> {
        if let Source::Here(live) = &self.source {
            // While the database is away, reading it says so better.
            let _ = self.engine.inner.frames.flush(live).await;
        }
        let (mut spans, mut after) = (Vec::new(), None);
        for (first, last) in self.engine.inner.store.frames().spans(self.log, &self.run).await? {
            // Chunks may overlap; what an earlier one held is not counted again.
            spans.push(after.map_or(first, |after: u64| first.max(after + 1))..last + 1);
            after = after.max(Some(last));
        }
        if matches!(self.source, Source::Ended) && (!spans.is_empty() || self.was_streamed().await?) {
            let rest = event_frames(&self.engine.inner, self.log, &self.run, after).await?;
            spans.extend(rest.iter().map(|frame| frame.index..frame.index + 1));
        }
        // What came since is shown as it comes: it was not missed.
        let count = |from: u64| {
            let counts = spans.iter().map(|span| span.end.min(self.begun_at).saturating_sub(span.start.max(from)));
            counts.sum()
        };
        Ok((count(self.last.map_or(0, |last| last + 1)), count(0)))
    }

    async fn was_streamed(&self) -> Result<bool, QueryError> {
        Ok(self.engine.run(self.log, &self.run).await?.is_some_and(|state| state.keeps_frames()))
    }

    /// The next frame; `None` after the run's last frame on any node, or when this node stops.
    ///
    /// # Errors
    /// [`QueryError`] when the log does not answer; the watcher may come back with the last index it saw.
    pub async fn next(&mut self) -> Result<Option<WatchItem>, QueryError> {
        loop {
            if let Some(frame) = self.queue.pop_front() {
                if self.live && !self.caught_up && frame.index >= self.begun_at {
                    self.caught_up = true;
                    self.queue.push_front(frame);
                    return Ok(Some(WatchItem::CaughtUp));
                }
                self.last = Some(frame.index);
                return Ok(Some(WatchItem::Frame(frame)));
            }
            let nothing_missed = self.begun_at == 0 || self.last.is_some_and(|last| last + 1 >= self.begun_at);
            if self.live && !self.caught_up && nothing_missed {
                self.caught_up = true;
                return Ok(Some(WatchItem::CaughtUp));
            }
            match &self.source {
                Source::Here(live) => self.read_here(live.clone()).await?,
                Source::Table => self.read_table().await?,
                Source::Ended => self.read_ended().await?,
                Source::Done => return Ok(None),
            }
        }
    }

    async fn read_here(&mut self, live: Arc<LiveRun>) -> Result<(), QueryError> {
        let mut changes = live.hub.changes();
        match live.hub.read(self.last, AT_ONCE) {
            Piece::Frames(frames) => self.queue.extend(frames),
            Piece::Behind => {
                let (kept_from, _) = live.hub.bounds();
                if !self.take_chunks().await? {
                    // The table never had them, or has dropped them: go on with what there is.
                    self.last = kept_from.checked_sub(1);
                }
            }
            Piece::Wait if self.engine.inner.stopping.is_cancelled() => self.source = Source::Done,
            Piece::Wait => {
                tokio::select! {
                    _ = changes.changed() => {}
                    () = self.engine.inner.stopping.cancelled() => self.source = Source::Done,
                }
            }
            Piece::Closed => {
                let finished = live.finished().await.is_some();
                let stopping = self.engine.inner.stopping.is_cancelled();
                self.source = if finished || stopping { Source::Done } else { Source::Table };
            }
        }
        Ok(())
    }

    async fn read_table(&mut self) -> Result<(), QueryError> {
        if self.take_chunks().await? {
            return Ok(());
        }
        if self.engine.inner.stopping.is_cancelled() {
            self.source = Source::Done;
        } else if let Some(live) = self.engine.inner.live(self.log, &self.run)
            && self.engine.inner.keep_frames(&live).await?
        {
            self.source = Source::Here(live);
        } else if self.engine.run(self.log, &self.run).await?.is_none_or(|state| over(state.status)) {
            self.source = Source::Ended;
        } else {
            self.caught_up_if_live();
            self.ask().await?;
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }

    /// The run's node keeps frames only of runs that somebody watches: tell it, again from time to time.
    async fn ask(&mut self) -> Result<(), QueryError> {
        if self.asked.is_none_or(|asked| asked.elapsed() >= ASK_AGAIN) {
            self.asked = Some(Instant::now());
            self.engine.inner.store.ask_to_keep(self.log, &self.run).await?;
        }
        Ok(())
    }

    fn caught_up_if_live(&mut self) {
        // The table holds nothing more of what was there at the beginning.
        if !self.caught_up {
            self.begun_at = 0;
        }
    }

    async fn read_ended(&mut self) -> Result<(), QueryError> {
        if self.take_chunks().await? {
            return Ok(());
        }
        self.source = Source::Done;
        // Who watched while it ran sees its end, also when its node kept nothing.
        let any = self.live || self.last.is_some() || !self.table_is_empty().await?;
        if any || self.was_streamed().await? {
            let rest = event_frames(&self.engine.inner, self.log, &self.run, self.last).await?;
            self.queue.extend(rest);
        }
        Ok(())
    }

    async fn table_is_empty(&self) -> Result<bool, QueryError> {
        Ok(self.engine.inner.store.frames().spans(self.log, &self.run).await?.is_empty())
    }

    /// Takes the next chunks from the table; false when there are none.
    async fn take_chunks(&mut self) -> Result<bool, QueryError> {
        let chunks = self.engine.inner.store.frames().read(self.log, &self.run, self.last, AT_ONCE).await?;
        // Chunks may overlap: what was written, but perhaps not safely, is written again.
        let mut last = self.last;
        for stored in chunks.iter().flat_map(stored_in) {
            if last.is_none_or(|last| stored.i > last) {
                last = Some(stored.i);
                let run = self.meta_of(stored.r.as_ref()).await?;
                self.queue.push_back(Arc::new(Frame::new(stored.i, stored.at, run, stored.body)));
            }
        }
        Ok(!self.queue.is_empty())
    }

    /// The run a stored frame is of.
    async fn meta_of(&mut self, run: Option<&RunId>) -> Result<Arc<RunMeta>, QueryError> {
        let Some(run) = run else { return Ok(self.meta.clone()) };
        if let Some(known) = self.below.get(run) {
            return Ok(known.clone());
        }
        let Some(meta) = self.engine.inner.meta_of(self.log, run).await? else { return Ok(self.meta.clone()) };
        self.below.insert(run.clone(), meta.clone());
        Ok(meta)
    }
}

/// Whether no node works on a run of this status.
fn over(status: RunStatus) -> bool {
    status.is_end() || status == RunStatus::Paused
}

/// The index after the last one in the table.
async fn last_index(engine: &Inner, log: LogId, run: &RunId) -> Result<u64, QueryError> {
    let spans = engine.store.frames().spans(log, run).await?;
    Ok(spans.into_iter().map(|(_, last)| last + 1).max().unwrap_or(0))
}

fn stored_in(chunk: &FrameChunk) -> Vec<StoredFrame> {
    // A shape this program does not know was written by a newer one: the log still has what matters.
    serde_json::from_slice(&chunk.body).unwrap_or_default()
}

impl Inner {
    /// What all frames of a run have in common; `None` when it was never accepted.
    async fn meta_of(&self, log: LogId, run: &RunId) -> Result<Option<Arc<RunMeta>>, QueryError> {
        let first = self.store.read_event(log, &StreamId::run(run), 1).await?;
        let Some(DomainEvent::Run(RunEvent::Accepted(accepted))) = first.map(|recorded| recorded.event) else {
            return Ok(None);
        };
        let config = self.config(log, &accepted.config_hash).await?;
        Ok(Some(Arc::new(RunMeta::accepted(&accepted, &config))))
    }
}

/// The frames made of events of a run tree whose index is above `after`: the same as were shown when the events happened.
async fn event_frames(
    engine: &Inner,
    log: LogId,
    root: &RunId,
    after: Option<u64>,
) -> Result<Vec<Arc<Frame>>, QueryError> {
    let mut frames = Vec::new();
    frames_of_run(engine, log, root, after, &mut frames).await?;
    frames.sort_by_key(|frame| frame.index);
    Ok(frames)
}

/// Adds the frames of a run and of those under it; gives the run, as its parent's last frame tells of it.
async fn frames_of_run(
    engine: &Inner,
    log: LogId,
    run: &RunId,
    after: Option<u64>,
    frames: &mut Vec<Arc<Frame>>,
) -> Result<Option<RunDetail>, QueryError> {
    let recorded = engine.store.read_stream(log, &StreamId::run(run), 0).await?;
    let events: Vec<&RunEvent> = recorded
        .iter()
        .filter_map(|recorded| match &recorded.event {
            DomainEvent::Run(event) => Some(event),
            _ => None,
        })
        .collect();
    let Some(RunEvent::Accepted(accepted)) = events.first() else { return Ok(None) };
    let config = engine.config(log, &accepted.config_hash).await?;
    let meta = Arc::new(RunMeta::accepted(accepted, &config));
    let (mut state, mut below, mut seen) = (RunState::default(), HashMap::new(), HashSet::new());
    for event in events {
        state.evolve(event);
        let new: Vec<RunId> =
            state.children().map(|child| child.run_id.clone()).filter(|id| seen.insert(id.clone())).collect();
        for child in new {
            let detail = Box::pin(frames_of_run(engine, log, &child, after, frames)).await?;
            below.extend(detail.map(|detail| (child, detail)));
        }
        let children = || state.children().filter_map(|child| below.get(&child.run_id)).cloned().collect();
        let (first, bodies) = frames_of(event, &state);
        for (index, mut body) in (first..).zip(bodies) {
            body.with_children(children);
            if after.is_none_or(|after| index > after) {
                frames.push(Arc::new(Frame::new(index, state.updated_ms / 1000, meta.clone(), body)));
            }
        }
    }
    let children = state.children().filter_map(|child| below.get(&child.run_id)).cloned().collect();
    Ok(Some(RunDetail { state, config, history: Vec::new(), children }))
}

impl Driver {
    /// Puts into the table what a dead node committed but had not written there, so that watchers miss no event. Done for
    /// the whole tree, by the run at the top.
    pub(crate) async fn repair_frames(&self) -> Result<(), Exit> {
        if !self.live.hub.is_kept() || !self.is_root() {
            return Ok(());
        }
        let (log, root) = (self.live.log, &self.live.run_id);
        let written = last_index(&self.engine, log, root).await?.checked_sub(1);
        let missing = event_frames(&self.engine, log, root, written).await?;
        // Each alone: between them lay text that nobody has any more.
        let chunks = missing.chunks(1).filter_map(|frame| chunk(log, root, frame, &self.live.subject()));
        let chunks: Vec<FrameChunk> = chunks.collect();
        self.engine.store.frames().put(&chunks, Durability::Now).await?;
        Ok(())
    }
}
