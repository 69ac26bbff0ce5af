//! Commands of a run: what the engine and callers may do to it, and why it refuses.

use serde::{Deserialize, Serialize};

use super::event::RunEvent;

/// How the caller waits for the run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunMode {
    /// For the whole answer.
    #[default]
    Plain,
    /// Watching frames.
    Streaming,
    /// Not at all; it asks later.
    Background,
    /// Watching frames, of a run that was asked for in the background.
    BackgroundStreaming,
}

impl RunMode {
    /// Whether its frames are kept from the start, for watchers who come back.
    pub fn keeps_frames(self) -> bool {
        matches!(self, Self::Streaming | Self::BackgroundStreaming)
    }
}

/// What a new run does when its session is busy.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnBusy {
    /// It waits its turn.
    #[default]
    Enqueue,
    /// It is refused.
    Reject,
    /// It goes next, and the run that holds the session is cancelled.
    Interrupt,
    /// It runs beside the others.
    Parallel,
}

impl std::str::FromStr for OnBusy {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "enqueue" => Ok(Self::Enqueue),
            "reject" => Ok(Self::Reject),
            "interrupt" => Ok(Self::Interrupt),
            "parallel" => Ok(Self::Parallel),
            _ => Err("Input should be 'enqueue', 'reject', 'interrupt' or 'parallel'".to_owned()),
        }
    }
}

/// Record that this happened, if the run's state allows it.
#[derive(Debug, Clone)]
pub struct RunCommand(pub RunEvent);

/// Why a run refuses an event.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RunError {
    /// The stream already holds a run.
    #[error("a run with this id exists already")]
    Exists,
    /// The stream holds no run.
    #[error("there is no such run")]
    Unknown,
    /// The run has ended.
    #[error("the run has ended")]
    Ended,
    /// After a cancel request no call starts and no success is recorded.
    #[error("the run is being cancelled")]
    Cancelling,
    /// It waits for nobody.
    #[error("the run is not paused")]
    NotPaused,
    /// Not everything that was asked was answered.
    #[error("the run waits for further answers")]
    Unanswered,
    /// Only a run that ended well can be replaced.
    #[error("the run has not ended well")]
    NotCompleted,
    /// The call is not one of this run's, or not in the state the event needs.
    #[error("call {0:?} is not waiting for this")]
    NoSuchCall(String),
    /// The step is not one of this run's, or not in the state the event needs.
    #[error("step {0:?} is not waiting for this")]
    NoSuchStep(String),
}
