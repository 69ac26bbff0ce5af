//! Workflows carried out step by step, without an engine.

mod blocks;
mod crashes;
mod mistakes;
mod policies;
mod sim;
