//! Daybook from outside: real servers on a real PostgreSQL, a scripted model, and everything that may go wrong.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test's helpers fail the test")]

mod approvals;
mod backup;
mod bad_input;
mod busy;
mod cancel;
mod compaction;
mod cost;
mod crash;
mod definitions;
mod doctor;
mod embedding;
mod idempotency;
mod long_results;
mod migrations;
mod model_faults;
mod nodes;
mod operating;
mod privacy;
mod private_database;
mod reload;
mod repairs;
mod runs;
mod sessions;
mod sources;
mod stranded;
mod teams;
mod watching;
mod websocket;
mod websocket_many;
mod workflows;

use daybook_test_support as support;
