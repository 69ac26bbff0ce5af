//! Lines of a pipe, of a bounded length.

use tokio::io::{AsyncBufReadExt as _, AsyncRead, BufReader};

/// How much of a line that is too long is kept from either end.
const KEPT: usize = 512;

/// A buffer larger than this is given back after its line.
const SPARE: usize = 256 * 1024;

/// What was read.
#[derive(Debug, PartialEq)]
pub(super) enum Line {
    /// A line, without its end.
    Whole(Vec<u8>),
    /// The start and the end of a line that was too long; what is between is gone.
    TooLong {
        /// Its first bytes.
        start: Vec<u8>,
        /// Its last bytes.
        end: Vec<u8>,
    },
    /// There is no more.
    End,
}

/// Reads lines of at most `limit` bytes.
pub(super) struct Lines<R> {
    pipe: BufReader<R>,
    limit: usize,
    line: Vec<u8>,
    /// Of a line that is too long already: its last bytes so far.
    tail: Option<Vec<u8>>,
}

impl<R: AsyncRead + Unpin> Lines<R> {
    pub(super) fn new(pipe: R, limit: usize) -> Self {
        Self { pipe: BufReader::new(pipe), limit, line: Vec::new(), tail: None }
    }

    /// The next line. A dropped future loses nothing: what was read is kept here.
    ///
    /// # Errors
    /// What reading gives.
    pub(super) async fn next(&mut self) -> std::io::Result<Line> {
        loop {
            let available = self.pipe.fill_buf().await?;
            if available.is_empty() {
                return Ok(if self.line.is_empty() { Line::End } else { self.take() });
            }
            let end = available.iter().position(|byte| *byte == b'\n');
            let part = available.get(..end.unwrap_or(available.len())).unwrap_or_default();
            let used = end.map_or(part.len(), |end| end + 1);
            if let Some(tail) = &mut self.tail {
                tail.extend_from_slice(part);
                tail.drain(..tail.len().saturating_sub(KEPT));
            } else if self.line.len() + part.len() > self.limit {
                let mut tail = self.line.split_off(self.line.len().saturating_sub(KEPT));
                tail.extend_from_slice(part);
                tail.drain(..tail.len().saturating_sub(KEPT));
                self.line.truncate(KEPT);
                self.line.shrink_to_fit();
                self.tail = Some(tail);
            } else {
                self.line.extend_from_slice(part);
            }
            self.pipe.consume(used);
            if end.is_some() {
                return Ok(self.take());
            }
        }
    }

    fn take(&mut self) -> Line {
        let fresh = Vec::with_capacity(self.line.capacity().min(SPARE));
        let line = std::mem::replace(&mut self.line, fresh);
        match self.tail.take() {
            Some(end) => Line::TooLong { start: line, end },
            None => Line::Whole(line),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read(text: &str, limit: usize) -> Vec<Line> {
        let mut lines = Lines::new(text.as_bytes(), limit);
        let mut read = Vec::new();
        loop {
            match lines.next().await.unwrap() {
                Line::End => return read,
                line => read.push(line),
            }
        }
    }

    #[tokio::test]
    async fn lines_come_whole_and_the_last_needs_no_end() {
        let whole = |text: &str| Line::Whole(text.into());
        assert_eq!(read("one\n\ntwo", 10).await, [whole("one"), whole(""), whole("two")]);
    }

    #[tokio::test]
    async fn of_a_long_line_both_ends_are_kept_and_the_next_is_read() {
        let long = format!("start{}end\nnext\n", "x".repeat(100_000));
        let lines = read(&long, 1000).await;
        let Line::TooLong { start, end } = &lines[0] else { panic!("{lines:?}") };
        assert!(start.starts_with(b"start") || start.is_empty(), "{start:?}");
        assert!(end.ends_with(b"end") && end.len() <= KEPT, "{end:?}");
        assert_eq!(lines[1], Line::Whole("next".into()));
    }
}
