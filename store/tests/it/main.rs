//! The store on a real PostgreSQL.
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests fail as tests do")]

mod appending;
mod evidence;
mod keeping;
mod leases;
mod losses;
mod opening;
mod server;
