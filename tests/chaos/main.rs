//! Daybook under fire: real processes, real signals, a real PostgreSQL, and a checker outside that reads what clients read
//! and the tools' own files. A short part runs with every test; `make chaos` runs all of it. `SEED` repeats a schedule.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test's helpers fail the test")]
#![expect(clippy::print_stdout, reason = "a long test says what happens now")]

mod away;
mod boundaries;
mod client;
mod counts;
mod decided;
mod guardian;
mod ledger;
mod load;
mod lost_cancel;
mod mixed;
mod node;
mod parked;
mod postgres;
mod progress;
mod proxy;
mod sigstop;
mod slow_readers;
mod stale_node;
mod wire;
