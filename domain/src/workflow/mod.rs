//! Workflows: steps that run agents, teams, tools and functions, in order, beside each other, again and again, or as a
//! test or a person decides.

mod ask;
mod check;
mod config;
mod event;
mod facts;
mod fold;
mod next;
mod output;
mod place;
mod policy;
mod state;
#[cfg(test)]
mod tests;

pub use ask::{Ask, Before, StepAnswer, StepGiven, StepRequirement, chosen_badly};
pub use check::{MAX_DEPTH, Mistake};
pub use config::{
    ComponentStep, ConditionStep, Expression, FunctionStep, GroupStep, LoopStep, ParallelStep, RouterStep, Selector,
    Step, StepKind, ToolStep, WorkflowConfig,
};
pub use event::{AfterError, BlockDecided, BlockEnded, Decision, StepAnswered, StepEnded, StepStarted};
pub use facts::Facts;
pub use fold::{skipped, step_failed};
pub use next::{About, FlowEnd, Frontier, Move, Now, Question, Start, next, routes};
pub use output::{Executor, ExecutorKind, StepOutput, StepType, as_text};
pub use place::Place;
pub use policy::{
    Confirmation, HumanReview, InputReview, OnError, OnReject, OutputReview, Policies, Retries, UserInput,
};
pub use state::{Block, Failure, FlowState, KEPT_ITERATIONS, Rejected, StepRecord, Work};
