//! The bytes of an answer as frames: server-sent events, lines, or the whole body when it was not streamed.
//! Thousands of answers are open at once, so nothing is kept here but what is unread.

use std::num::NonZeroUsize;

use bytes::{Bytes, BytesMut};
use sse_core::{SseDecoder, SseEvent};
use tokio_util::codec::{AnyDelimiterCodec, Decoder};

use crate::http::MAX_ANSWER_BYTES;

/// Splits one answer.
pub(crate) enum Frames {
    /// By the grammar of `text/event-stream`: the data of each event.
    Events { decoder: Box<SseDecoder>, unread: Bytes },
    /// At line ends.
    Lines { decoder: Box<AnyDelimiterCodec>, unread: BytesMut },
    /// Not at all. Holds the media type too, for the error when it is not understood.
    Whole { kind: String, body: Vec<u8> },
}

impl Frames {
    /// Of an event stream.
    pub(crate) fn events() -> Self {
        // The whole answer is bounded, and an event is no longer than that.
        let limit = NonZeroUsize::new(MAX_ANSWER_BYTES).unwrap_or(NonZeroUsize::MAX);
        Self::Events { decoder: Box::new(SseDecoder::with_limit(limit)), unread: Bytes::new() }
    }

    /// Of lines.
    pub(crate) fn lines() -> Self {
        Self::Lines { decoder: Box::new(AnyDelimiterCodec::new(vec![b'\n'], Vec::new())), unread: BytesMut::new() }
    }

    /// Of a body of the media type `kind` that is one frame.
    pub(crate) fn whole(kind: String) -> Self {
        Self::Whole { kind, body: Vec::new() }
    }

    /// Takes more bytes, once [`Frames::next`] has given all frames of those before.
    pub(crate) fn push(&mut self, bytes: Bytes) {
        match self {
            Self::Events { unread, .. } => *unread = bytes,
            Self::Lines { unread, .. } => unread.extend_from_slice(&bytes),
            Self::Whole { body, .. } => body.extend_from_slice(&bytes),
        }
    }

    /// The next frame of the bytes so far. Bytes that are no UTF-8 are replaced.
    pub(crate) fn next(&mut self) -> Option<String> {
        match self {
            Self::Events { decoder, unread } => {
                while let Some(event) = decoder.next(unread) {
                    if let Ok(SseEvent::Message(message)) = event {
                        return Some(message.data);
                    }
                }
                // What is read through still holds the connection's buffer.
                *unread = Bytes::new();
                None
            }
            Self::Lines { decoder, unread } => decoder.decode(unread).ok().flatten().map(|line| text(&line)),
            Self::Whole { .. } => None,
        }
    }

    /// What the end of the body makes a frame. An event without its blank line is none.
    pub(crate) fn end(&mut self) -> Option<String> {
        match self {
            Self::Events { .. } => None,
            Self::Lines { decoder, unread } => decoder.decode_eof(unread).ok().flatten().map(|line| text(&line)),
            Self::Whole { body, .. } => Some(text(&std::mem::take(body))),
        }
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The frames of `pieces`.
    fn read<'a>(mut frames: Frames, pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<String> {
        let mut read = Vec::new();
        for piece in pieces {
            frames.push(Bytes::copy_from_slice(piece));
            read.extend(std::iter::from_fn(|| frames.next()));
        }
        read.extend(frames.end());
        read.retain(|frame| !frame.trim().is_empty());
        read
    }

    fn events(bytes: &[u8]) -> Vec<String> {
        read(Frames::events(), [bytes])
    }

    #[test]
    fn events_are_read_by_their_grammar() {
        assert_eq!(events(b"data: a\n\ndata:b\r\n\r\ndata: c\r\rdata: d\n\n"), ["a", "b", "c", "d"]);
        assert_eq!(events(b"\xef\xbb\xbfdata: a\n\n"), ["a"], "a byte order mark is no part of it");
        assert_eq!(events(b"data: a\ndata:\ndata:  b\n\n"), ["a\n\n b"], "lines of one event belong together");
        let beside = b": still here\n\nevent: ping\nid: 7\nretry: 10\nnothing\ndata: a\n: so\ndata: b\n\n";
        assert_eq!(events(beside), ["a\nb"]);
        assert_eq!(events(b"event: ping\n\ndata\n\ndata: a\n\n"), ["a"]);
        assert_eq!(events(b"data: a\n\ndata: half\n"), ["a"], "an event ends with a blank line");
        assert_eq!(events(b"data: \xff\n\n"), ["\u{fffd}"]);
    }

    #[test]
    fn lines_are_read_with_and_without_an_end() {
        let lines = |bytes: &[u8]| read(Frames::lines(), [bytes]);
        assert_eq!(lines(b"{\"a\": 1}\n\n{\"b\": 2}\r\n{\"c\": 3}"), ["{\"a\": 1}", "{\"b\": 2}\r", "{\"c\": 3}"]);
        assert_eq!(lines(b"\xff\n"), ["\u{fffd}"]);
        assert_eq!(lines(b""), Vec::<String>::new());
    }

    #[test]
    fn what_is_not_streamed_is_one_frame() {
        let whole = || Frames::whole("application/json".to_owned());
        assert_eq!(read(whole(), [&b"{\n\n"[..], &b"}\n"[..]]), ["{\n\n}\n"]);
        assert_eq!(read(whole(), []), Vec::<String>::new());
    }

    /// Bytes in which line ends, fields, marks and parts of characters meet often.
    fn bytes() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop::sample::select(vec![
            &b"data"[..],
            b"data: ",
            b"data:",
            b"event: x",
            b"id: 1",
            b":",
            b" ",
            b"\n",
            b"\n\n",
            b"\r",
            b"\r\n",
            b"{\"a\": 1}",
            "Älice 日本".as_bytes(),
            b"\xef\xbb\xbf",
            b"\xef\xbb",
            b"\xe6",
            b"\xff",
            b"x",
        ]);
        prop::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn frames_do_not_depend_on_how_bytes_are_split(bytes in bytes(), cuts in prop::collection::vec(0_usize..200, 0..30)) {
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(bytes.len())).chain([0, bytes.len()]).collect();
            cuts.sort_unstable();
            let pieces = || cuts.windows(2).map(|pair| &bytes[pair[0]..pair[1]]);
            prop_assert_eq!(read(Frames::events(), pieces()), events(&bytes));
            prop_assert_eq!(read(Frames::lines(), pieces()), read(Frames::lines(), [&bytes[..]]));
        }
    }
}
