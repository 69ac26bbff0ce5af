//! The whole engine without a network: a scripted model, counted tools, a manual clock, and a real log.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test says what it expects")]

mod again;
mod asked;
mod compaction;
mod flow_world;
mod long_results;
mod nodes;
mod pauses;
mod repairs;
mod runs;
mod stranded;
mod team_trouble;
mod teams;
mod workflow_crashes;
mod workflow_pauses;
mod workflow_trouble;
mod workflows;
mod world;
