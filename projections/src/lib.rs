//! The views posted from the log, their queries, and the one runner that posts them. A view holds nothing that the log
//! does not: it can be dropped and posted again. Reads wait for the view to reach the log's head; writes never wait.
//! Beside them a follower tells the world outside what happens to approvals.

mod approvals;
mod batch;
mod error;
mod follower;
mod kinds;
mod lead;
mod parked;
mod post;
mod progress;
mod projection;
mod runner;
mod runs;
mod sessions;
mod stand;
mod text;
mod views;

#[cfg(test)]
mod tests;

pub use approvals::{ApprovalFilter, ApprovalPage, ApprovalRow};
pub use error::ViewError;
pub use follower::Follower;
pub use runner::{ProjectionStatus, Runner};
pub use runs::{RunFilter, RunRow};
pub use sessions::{SessionFilter, SessionPage, SessionRow, SessionSort};
pub use stand::{ViewStand, views_stand};
pub use views::{Read, Views};
