//! Server-sent events, as a client reads them.

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use serde_json::Value;
use tokio::time::timeout;

use super::PATIENCE;

/// One frame of a stream.
#[derive(Debug, Clone, PartialEq)]
pub struct Frame {
    /// `id:`, if it had one.
    pub id: Option<u64>,
    /// `event:`.
    pub event: String,
    /// `data:`.
    pub data: Value,
}

/// A stream being read.
pub struct Stream {
    bytes: BoxStream<'static, reqwest::Result<Bytes>>,
    buffer: Vec<u8>,
    /// The frames read so far.
    pub seen: Vec<Frame>,
}

impl Stream {
    /// The stream in this answer.
    pub fn new(response: reqwest::Response) -> Self {
        let kind = response.headers()["content-type"].to_str().unwrap().to_owned();
        assert!(response.status() == 200 && kind.starts_with("text/event-stream"), "{} {kind}", response.status());
        Self { bytes: response.bytes_stream().boxed(), buffer: Vec::new(), seen: Vec::new() }
    }

    /// The next frame; `None` when the stream has ended or its server is gone.
    pub async fn next(&mut self) -> Option<Frame> {
        loop {
            while let Some(end) = self.buffer.windows(2).position(|two| two == b"\n\n") {
                let block: Vec<u8> = self.buffer.drain(..end + 2).collect();
                if let Some(frame) = frame(std::str::from_utf8(&block).unwrap()) {
                    self.seen.push(frame.clone());
                    return Some(frame);
                }
            }
            match timeout(PATIENCE, self.bytes.next()).await.expect("a silent stream") {
                Some(Ok(more)) => self.buffer.extend_from_slice(&more),
                Some(Err(_)) | None => return None,
            }
        }
    }

    /// Reads up to the first frame of this kind.
    pub async fn until(&mut self, event: &str) -> Frame {
        while let Some(frame) = self.next().await {
            if frame.event == event {
                return frame;
            }
        }
        panic!("no {event} in {:?}", self.events());
    }

    /// Reads until this much text was said.
    pub async fn until_said(&mut self, text: &str) {
        while !said(&self.seen).contains(text) {
            assert!(self.next().await.is_some(), "{text:?} was never said: {:?}", self.events());
        }
    }

    /// Reads to the end; all frames since the beginning.
    pub async fn rest(mut self) -> Vec<Frame> {
        while self.next().await.is_some() {}
        self.seen
    }

    /// The names of the frames so far.
    pub fn events(&self) -> Vec<&str> {
        self.seen.iter().map(|frame| frame.event.as_str()).collect()
    }

    /// The highest index so far.
    pub fn last_index(&self) -> Option<u64> {
        self.seen.iter().filter_map(index).max()
    }
}

fn frame(block: &str) -> Option<Frame> {
    let (mut id, mut event, mut data) = (None, None, None);
    for line in block.lines() {
        if let Some(value) = line.strip_prefix("id: ") {
            id = Some(value.parse().expect("a number as id"));
        } else if let Some(value) = line.strip_prefix("event: ") {
            event = Some(value.to_owned());
        } else if let Some(value) = line.strip_prefix("data: ") {
            assert!(data.is_none(), "more than one line of data: {block}");
            data = Some(serde_json::from_str(value).expect("JSON as data"));
        } else {
            assert!(line.is_empty() || line.starts_with(':'), "{line:?} is no line of a frame");
        }
    }
    Some(Frame { id, event: event?, data: data? })
}

/// A frame's index, which it has twice.
pub fn index(frame: &Frame) -> Option<u64> {
    let index = frame.data["event_index"].as_u64();
    assert_eq!(frame.id, index, "{frame:?}");
    index
}

/// Asserts that the indexes of one watcher's frames, over all its connections, strictly increase.
pub fn check_order(frames: &[Frame]) {
    let indexes: Vec<u64> = frames.iter().filter_map(index).collect();
    assert!(indexes.is_sorted_by(|one, next| one < next), "{indexes:?}");
}

/// The text of these frames since the last restart.
pub fn said(frames: &[Frame]) -> String {
    let since = frames.iter().rposition(|frame| frame.event == "RunRestarted").unwrap_or(0);
    let texts = frames[since..].iter().filter(|frame| frame.event == "RunContent");
    texts.filter_map(|frame| frame.data["content"].as_str()).collect()
}
