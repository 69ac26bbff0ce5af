//! The rules of compaction: which runs are seen word for word, which are summarised, and when a summary still fits.
//! Sizes are estimated tokens, of the runs without a summary, oldest first.

use uuid::Uuid;

use super::event::SessionCompacted;
use super::state::{REMEMBERED_RUNS, SessionState};
use crate::ids::{RunId, SessionId};

/// Why a summary is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CompactError {
    /// Another one was recorded since it was asked for.
    #[error("the session was compacted meanwhile")]
    Compacted,
    /// A run in it is no longer part of the conversation.
    #[error("a run that was summarised is no longer part of the conversation")]
    Replaced,
}

impl SessionState {
    /// The ended runs that no summary stands for, oldest first.
    pub fn unsummarised(&self) -> impl ExactSizeIterator<Item = &RunId> {
        self.recent.iter().skip(self.summarised.map_or(0, |summarised| summarised.runs))
    }

    /// Whether the session should be compacted by itself: its runs without a summary are larger than `after_tokens`, or
    /// the next one would push the oldest of them out of memory. Not while there are no more than `keep`.
    pub fn is_compaction_due(&self, sizes: &[u64], keep: usize, after_tokens: u64) -> bool {
        let total = sizes.iter().copied().fold(0, u64::saturating_add);
        sizes.len() > keep && (total > after_tokens || sizes.len() >= REMEMBERED_RUNS)
    }

    /// Whether a summary fits the session as it stands: it follows the summary in force, and takes in the oldest runs that
    /// have none.
    ///
    /// # Errors
    /// [`CompactError`] says what happened since it was asked for.
    pub fn check_summary(&self, summary: &SessionCompacted) -> Result<(), CompactError> {
        if self.summarised.map(|summarised| summarised.version) != summary.previous {
            return Err(CompactError::Compacted);
        }
        let oldest = self.unsummarised().take(summary.runs.len());
        if oldest.eq(&summary.runs) { Ok(()) } else { Err(CompactError::Replaced) }
    }

    /// The id of the message that tells a model the summary of this version: the same for every reader.
    pub fn summary_id(session: &SessionId, version: u64) -> String {
        Uuid::new_v5(&Uuid::NAMESPACE_OID, format!("daybook {session} summary {version}").as_bytes()).to_string()
    }
}

/// How many of the newest runs have at most `budget` tokens together; `least` of them at least, where there are so many.
pub fn newest_within(sizes: &[u64], least: usize, budget: u64) -> usize {
    within(sizes.iter().rev(), budget).max(least.min(sizes.len()))
}

/// How many of the oldest runs to summarise at once: all but the newest `keep`, as far as they have at most `budget` tokens
/// together; one, however large it is.
pub fn oldest_within(sizes: &[u64], keep: usize, budget: u64) -> usize {
    let most = sizes.len().saturating_sub(keep);
    within(sizes[..most].iter(), budget).max(most.min(1))
}

fn within<'a>(sizes: impl Iterator<Item = &'a u64>, budget: u64) -> usize {
    let mut total = 0_u64;
    let sums = sizes.map(|size| {
        total = total.saturating_add(*size);
        total
    });
    sums.take_while(|sum| *sum <= budget).count()
}
