//! The program `daybook`: see `daybook --help`.

use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser as _;
use daybook::cli::{Cli, run};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    hide_from_neighbours();
    // Before anything can speak TLS: two providers are linked, so one must be named.
    daybook::install_crypto();
    let cli = Cli::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&format!("the runtime cannot be started: {error}"), 1),
    };
    let ended = runtime.block_on(run(cli));
    // Nothing is waited for here: what had to end well has ended.
    runtime.shutdown_timeout(Duration::from_millis(100));
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error.to_string(), error.exit_code()),
    }
}

/// Keeps the environment and the memory, where keys are, from other processes of the same user: commands that agents run
/// and MCP programs are such. Those of root, and of who may trace any process, read them all the same. It also means that
/// a crash writes no core file.
fn hide_from_neighbours() {
    #[cfg(target_os = "linux")]
    if let Err(error) = nix::sys::prctl::set_dumpable(false) {
        let words = "programs of the same user can read this server's environment, because it could not be hidden";
        let _ = writeln!(std::io::stderr(), "daybook: {words}: {error}");
    }
}

fn fail(message: &str, code: u8) -> ExitCode {
    // There is nobody left to tell when standard error is closed.
    let _ = writeln!(std::io::stderr(), "daybook: {message}");
    ExitCode::from(code)
}
