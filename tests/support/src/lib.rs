//! What the tests stand on: one PostgreSQL with a database for each test, the servers as processes of their own,
//! a scripted model, and an HTTP client that knows runs.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test's helpers fail the test")]
#![expect(clippy::print_stderr, reason = "a failed test shows what its server said")]

mod api;
mod database;
mod model;
mod server;
mod socket;
mod sse;

use std::time::Duration;

use tokio::time::{Instant, sleep};

pub use api::{Api, answer, ids_of, text};
pub use database::Database;
pub use model::{Fault, Model, Script, long_pieces};
pub use server::{Server, World, clean, daybook, open_dir};
pub use socket::{Socket, Told};
pub use sse::{Frame, Stream, check_order, said};

/// After this long something that was to happen counts as never happening.
pub const PATIENCE: Duration = Duration::from_secs(180);

/// Looks again and again until `look` finds what it looks for.
pub async fn eventually<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < deadline, "never happened: {what}");
        sleep(Duration::from_millis(20)).await;
    }
}
