//! The frames of one run tree on the node that runs it: a bounded ring that watchers read at their own pace.
//! A watcher who falls behind the ring reads the table instead, so a slow reader costs bounded memory.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::frame::{Frame, FrameBody, RunMeta};

/// How many frames a run keeps in memory once they are in the table or need not be.
const RING: usize = 256;

/// How many it keeps when the table does not take them: older ones are given up, they are a cache.
const RING_UNFLUSHED: usize = 10_000;

/// What the ring has for a reader.
pub(crate) enum Piece {
    /// Frames after the asked index.
    Frames(Vec<Arc<Frame>>),
    /// Frames after the asked index have left the ring: read the table up to here.
    Behind,
    /// Nothing yet: wait for a change.
    Wait,
    /// Nothing more on this node.
    Closed,
}

/// Text of a run while frames of another one's events wait for the log: it comes after them.
type Held = (i64, Arc<RunMeta>, FrameBody);

struct Ring {
    frames: VecDeque<Arc<Frame>>,
    /// Pieces that wait; `None` while nothing is being appended.
    held: Option<VecDeque<Held>>,
    next_index: u64,
    /// Frames from this index on are not in the table.
    unflushed: u64,
    /// The index after the last one that was dropped from the ring.
    dropped_below: u64,
    keep: bool,
    closed: bool,
}

/// The frames of a run and of all runs under it, numbered together.
pub(crate) struct Hub {
    /// Of the run at the top.
    pub meta: Arc<RunMeta>,
    ring: Mutex<Ring>,
    changed: watch::Sender<u64>,
}

impl Hub {
    /// A hub whose first frame will be `next_index`; `keep` when its frames go to the table from the start.
    pub fn new(meta: Arc<RunMeta>, next_index: u64, keep: bool) -> Self {
        let ring = Ring {
            frames: VecDeque::new(),
            held: None,
            next_index,
            unflushed: next_index,
            dropped_below: next_index,
            keep,
            closed: false,
        };
        Self { meta, ring: Mutex::new(ring), changed: watch::Sender::new(next_index) }
    }

    fn ring(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The index the next frame gets.
    pub fn next_index(&self) -> u64 {
        self.ring().next_index
    }

    /// Keeps the next indexes for frames of events that are being appended: what others show comes after them. Whoever calls it is the only one, and calls [`Hub::release`].
    pub fn hold(&self) {
        self.ring().held.get_or_insert_default();
    }

    /// What was shown meanwhile is numbered now.
    pub fn release(&self) {
        let mut ring = self.ring();
        for (at, run, body) in ring.held.take().into_iter().flatten() {
            ring.add(at, run, body);
        }
        self.tell(ring);
    }

    /// Shows frames of `run`'s events, ahead of all that is held back.
    pub fn push(&self, at: i64, run: &Arc<RunMeta>, bodies: impl IntoIterator<Item = FrameBody>) {
        let mut ring = self.ring();
        bodies.into_iter().for_each(|body| ring.add(at, run.clone(), body));
        self.tell(ring);
    }

    /// Shows a piece that no event is about.
    pub fn push_piece(&self, at: i64, run: &Arc<RunMeta>, body: FrameBody) {
        let mut ring = self.ring();
        match &mut ring.held {
            // They are a cache: during a long outage the oldest are given up.
            Some(held) => {
                held.push_back((at, run.clone(), body));
                if held.len() > RING_UNFLUSHED {
                    held.pop_front();
                }
            }
            None => {
                ring.add(at, run.clone(), body);
                self.tell(ring);
            }
        }
    }

    fn tell(&self, mut ring: MutexGuard<'_, Ring>) {
        ring.trim();
        let next = ring.next_index;
        drop(ring);
        self.changed.send_replace(next);
    }

    /// Keeps the frames for watchers who come back, from the oldest in the ring on.
    pub fn keep(&self) {
        let mut ring = self.ring();
        if !ring.keep {
            ring.keep = true;
            ring.unflushed = ring.frames.front().map_or(ring.next_index, |frame| frame.index);
        }
    }

    /// Whether frames go to the table.
    pub fn is_kept(&self) -> bool {
        self.ring().keep
    }

    /// Frames that are not in the table yet.
    pub fn take_unflushed(&self) -> Vec<Arc<Frame>> {
        let ring = self.ring();
        if !ring.keep {
            return Vec::new();
        }
        ring.frames.iter().filter(|frame| frame.index >= ring.unflushed).cloned().collect()
    }

    /// The table has frames up to `last`.
    pub fn flushed(&self, last: u64) {
        let mut ring = self.ring();
        ring.unflushed = ring.unflushed.max(last + 1);
        ring.trim();
    }

    /// No more frames come on this node; watchers go elsewhere or end.
    pub fn close(&self) {
        self.ring().closed = true;
        self.changed.send_modify(|_| ());
    }

    /// What a reader who has seen everything up to `after` may have now.
    pub fn read(&self, after: Option<u64>, limit: usize) -> Piece {
        let ring = self.ring();
        let wanted = after.map_or(0, |index| index + 1);
        if wanted < ring.dropped_below {
            return Piece::Behind;
        }
        let from = ring.frames.partition_point(|frame| frame.index < wanted);
        let frames: Vec<_> = ring.frames.iter().skip(from).take(limit).cloned().collect();
        match (frames.is_empty(), ring.closed) {
            (false, _) => Piece::Frames(frames),
            (true, true) => Piece::Closed,
            (true, false) => Piece::Wait,
        }
    }

    /// Tells when something changed.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// The first index this hub could still show, and how many frames it ever made.
    pub fn bounds(&self) -> (u64, u64) {
        let ring = self.ring();
        (ring.dropped_below, ring.next_index)
    }
}

impl Ring {
    fn add(&mut self, at: i64, run: Arc<RunMeta>, body: FrameBody) {
        self.frames.push_back(Arc::new(Frame::new(self.next_index, at, run, body)));
        self.next_index += 1;
    }

    fn trim(&mut self) {
        while self.frames.len() > RING {
            let flushed = !self.keep || self.frames.front().is_none_or(|frame| frame.index < self.unflushed);
            if !flushed && self.frames.len() <= RING_UNFLUSHED {
                break;
            }
            if let Some(frame) = self.frames.pop_front() {
                self.dropped_below = frame.index + 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use daybook_domain::component::ComponentRef;
    use daybook_domain::ids::{ComponentId, RunId, SessionId};

    use super::*;

    fn hub(keep: bool) -> Hub {
        let meta = RunMeta {
            run_id: RunId::parse("r").unwrap(),
            session_id: SessionId::parse("s").unwrap(),
            user_id: None,
            component: ComponentRef::agent(ComponentId::parse("a").unwrap()),
            name: "A".into(),
            model: "m".into(),
            provider: "p".into(),
            output: None,
            parent: None,
        };
        Hub::new(Arc::new(meta), 0, keep)
    }

    fn text(text: &str) -> FrameBody {
        FrameBody::Content { text: Some(text.into()), reasoning: None, provider_data: None }
    }

    #[test]
    fn a_reader_gets_each_frame_once_and_waits_in_between() {
        let hub = hub(true);
        hub.push(0, &hub.meta, [text("a"), text("b")]);
        let Piece::Frames(frames) = hub.read(None, 10) else { panic!("frames expected") };
        assert_eq!(frames.iter().map(|frame| frame.index).collect::<Vec<_>>(), [0, 1]);
        assert!(matches!(hub.read(Some(1), 10), Piece::Wait));
        hub.close();
        assert!(matches!(hub.read(Some(1), 10), Piece::Closed));
    }

    #[test]
    fn pieces_that_come_while_an_event_is_appended_follow_it() {
        let hub = hub(true);
        hub.push_piece(0, &hub.meta, text("a"));
        hub.hold();
        hub.push_piece(0, &hub.meta, text("b"));
        assert_eq!(hub.next_index(), 1, "nobody sees it yet");
        hub.push(0, &hub.meta, [FrameBody::ContentCompleted]);
        hub.release();
        let Piece::Frames(frames) = hub.read(None, 10) else { panic!("frames expected") };
        let seen: Vec<_> = frames.iter().map(|frame| (frame.index, frame.body.clone())).collect();
        assert_eq!(seen, [(0, text("a")), (1, FrameBody::ContentCompleted), (2, text("b"))]);
    }

    #[test]
    fn flushed_frames_leave_the_ring_and_a_slow_reader_is_sent_to_the_table() {
        let hub = hub(true);
        hub.push(0, &hub.meta, (0..1000).map(|n| text(&n.to_string())));
        assert!(matches!(hub.read(None, 10), Piece::Frames(_)), "nothing is dropped before the table has it");
        hub.flushed(999);
        assert!(matches!(hub.read(None, 10), Piece::Behind));
        let Piece::Frames(frames) = hub.read(Some(900), 1000) else { panic!("frames expected") };
        assert_eq!((frames[0].index, frames.len()), (901, 99));
    }

    #[test]
    fn a_table_that_takes_nothing_does_not_fill_the_memory() {
        let hub = hub(true);
        hub.push(0, &hub.meta, (0..RING_UNFLUSHED as u64 * 2).map(|n| text(&n.to_string())));
        assert!(hub.take_unflushed().len() <= RING_UNFLUSHED);
    }
}
