//! Workflows: steps that run agents, teams, tools and functions, in order, beside each other, again and again, or as a
//! test or a person decides.

mod config;
mod policy;

pub use config::{
    ComponentStep, ConditionStep, Expression, FunctionStep, GroupStep, LoopStep, ParallelStep, RouterStep, Selector,
    Step, StepKind, ToolStep, WorkflowConfig,
};
pub use policy::{
    Confirmation, HumanReview, InputReview, OnError, OnReject, OutputReview, Policies, Retries, UserInput,
};
