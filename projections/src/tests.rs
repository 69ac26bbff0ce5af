//! The views on a real PostgreSQL.

mod approvals;
mod follow;
mod follower;
mod lead;
mod mend;
mod plans;
mod touched;
mod world;
