//! Workflows: their steps, run as their fold says, and what watchers see of them.

mod frames;

pub use frames::{StepAsked, StepTag};
pub(crate) use frames::{go_on_frames, pause_frames, step_frames};
