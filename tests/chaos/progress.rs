//! What happens now, for whoever waits for it.

use std::io::Write;
use std::sync::LazyLock;
use std::time::Instant;

static BEGAN: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Prints a line with the time since the first.
pub fn say(what: &str) {
    let since = BEGAN.elapsed().as_secs();
    // A test's output is kept for when it fails; `make chaos` shows it at once.
    println!("[{:>3}:{:02}] {what}", since / 60, since % 60);
    std::io::stdout().flush().ok();
}
