//! An output, bounded while it is read: its beginning and its end, where programs say what went wrong.

use std::collections::VecDeque;

use tokio::io::{AsyncRead, AsyncReadExt as _};

/// What is kept of an output.
#[derive(Debug)]
pub(super) struct Kept {
    head: Vec<u8>,
    tail: VecDeque<u8>,
    /// The most bytes of each part.
    half: usize,
    total: u64,
}

impl Kept {
    /// Keeps at most so many bytes.
    pub(super) fn new(max: usize) -> Self {
        Self { head: Vec::new(), tail: VecDeque::new(), half: max.div_ceil(2), total: 0 }
    }

    /// Reads to the end. What is not kept is read too, so that the program does not wait for a reader.
    pub(super) async fn read(&mut self, mut from: impl AsyncRead + Unpin) {
        let mut piece = vec![0; 16 << 10];
        // An output that fails has ended.
        while let Ok(length @ 1..) = from.read(&mut piece).await {
            self.add(&piece[..length]);
        }
    }

    fn add(&mut self, piece: &[u8]) {
        self.total += piece.len() as u64;
        let (first, rest) = piece.split_at(piece.len().min(self.half - self.head.len()));
        self.head.extend_from_slice(first);
        self.tail.extend(&rest[rest.len().saturating_sub(self.half)..]);
        self.tail.drain(..self.tail.len().saturating_sub(self.half));
    }

    /// As text, with a word about what is missing.
    pub(super) fn text(&self) -> String {
        let left_out = self.total - (self.head.len() + self.tail.len()) as u64;
        let tail: Vec<u8> = self.tail.iter().copied().collect();
        if left_out == 0 {
            return String::from_utf8_lossy(&[self.head.as_slice(), &tail].concat()).into_owned();
        }
        let (head, tail) = (String::from_utf8_lossy(&self.head), String::from_utf8_lossy(&tail));
        format!("{head}\n[{left_out} bytes left out]\n{tail}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn kept(max: usize, output: &[u8]) -> String {
        let mut kept = Kept::new(max);
        kept.read(output).await;
        kept.text()
    }

    #[tokio::test]
    async fn the_beginning_and_the_end_are_kept() {
        assert_eq!(kept(10, b"").await, "");
        assert_eq!(kept(10, b"0123456789").await, "0123456789");
        assert_eq!(kept(10, b"0123456789a").await, "01234\n[1 bytes left out]\n6789a");
        assert_eq!(kept(10, "åäöåä".as_bytes()).await, "åäöåä", "a character is not cut where nothing is left out");
        assert_eq!(kept(1, b"abc").await, "a\n[1 bytes left out]\nc");
        let long = kept(1000, &vec![b'x'; 1 << 20]).await;
        assert_eq!(long.matches('x').count(), 1000);
    }
}
