//! Reads an answer's body up to a limit, which counts what it is decompressed to.

use std::io::{self, Write};

use flate2::write::MultiGzDecoder;

/// Bytes up to a limit; writing more fails.
pub(super) struct Bounded {
    bytes: Vec<u8>,
    limit: usize,
}

impl Write for Bounded {
    fn write(&mut self, more: &[u8]) -> io::Result<usize> {
        if self.bytes.len() + more.len() > self.limit {
            return Err(io::Error::from(io::ErrorKind::FileTooLarge));
        }
        self.bytes.extend_from_slice(more);
        Ok(more.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What is wrong with a body.
#[derive(Debug)]
pub(super) enum BodyFault {
    TooLarge,
    Broken(String),
}

/// A body being read.
pub(super) enum BodyReader {
    Plain(Bounded),
    Gzip(Box<MultiGzDecoder<Bounded>>, usize),
}

impl BodyReader {
    /// For a body in this `Content-Encoding`, of at most `limit` bytes before and after decompression.
    pub fn new(encoding: &str, limit: usize) -> Result<Self, BodyFault> {
        let bytes = Bounded { bytes: Vec::new(), limit };
        match encoding.trim().to_ascii_lowercase().as_str() {
            "" | "identity" => Ok(Self::Plain(bytes)),
            "gzip" | "x-gzip" => Ok(Self::Gzip(Box::new(MultiGzDecoder::new(bytes)), limit)),
            other => Err(BodyFault::Broken(format!("it is compressed as {:?}", crate::text::clip(other, 40)))),
        }
    }

    /// Takes the next piece.
    pub fn push(&mut self, piece: &[u8]) -> Result<(), BodyFault> {
        match self {
            Self::Plain(bytes) => bytes.write_all(piece),
            Self::Gzip(decoder, left) => {
                // Empty gzip members decompress to nothing: what comes in is counted as well.
                *left = left.checked_sub(piece.len()).ok_or(BodyFault::TooLarge)?;
                decoder.write_all(piece)
            }
        }
        .map_err(fault)
    }

    /// All of it.
    pub fn finish(self) -> Result<Vec<u8>, BodyFault> {
        match self {
            Self::Plain(bytes) => Ok(bytes.bytes),
            Self::Gzip(decoder, _) => Ok(decoder.finish().map_err(fault)?.bytes),
        }
    }
}

fn fault(error: io::Error) -> BodyFault {
    if error.kind() == io::ErrorKind::FileTooLarge {
        BodyFault::TooLarge
    } else {
        BodyFault::Broken(format!("its compression is broken ({error})"))
    }
}
