//! Workflows: their steps, run as their fold says, and what watchers see of them.

mod answers;
mod code;
mod frames;
mod plan;
mod steps;
mod values;

pub(crate) use answers::{StepAnswers, step_answers};
pub(crate) use code::FlowCode;
pub use code::{Asked, Fault, Functions, Rule, StepFunction, StepInput, StepSaid};
pub use frames::{StepAsked, StepTag};
pub(crate) use frames::{go_on_frames, pause_frames, step_frames};
pub(crate) use plan::StepStart;
pub(crate) use steps::StepDone;
pub(crate) use values::input_fault;
