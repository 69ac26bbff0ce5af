//! Measures Daybook against its budgets: a model server that is never the limit, a load generator, anchors, and the
//! table that puts them side by side. See docs/performance.md.

mod anchors;
mod budget;
mod child;
mod echo;
mod error;
mod http;
mod load;
mod log;
mod machine;
mod mock;
mod pace;
mod process;
mod report;
mod rows;
mod seen;
mod serve;
mod serving;
mod sockets;
mod sse;
mod stats;
mod streams;
mod table;
mod world;

use std::io::Write as _;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::error::Error;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Measures Daybook against its budgets.
#[derive(Debug, Parser)]
#[command(name = "daybook-bench", version, max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Serve a model that speaks OpenAI's chat completions and costs next to nothing.
    MockModel(mock::Options),
    /// Serve the same POST as an agent's runs, doing nothing: what poem alone can do.
    Echo(echo::Options),
    /// Serve Daybook with the teams and workflows that are measured, on the log of DATABASE_URL.
    Serve(serve::Options),
    /// Ask for one run after the other over many connections, and print how fast they were.
    Load(load::Options),
    /// Open many streaming runs and hold them.
    Streams(streams::Options),
    /// Open many WebSockets, each of which runs and watches a run of its own.
    Sockets(sockets::Options),
    /// Append to the log of DATABASE_URL as fast as it goes.
    Append(log::AppendOptions),
    /// Read the log of DATABASE_URL from its beginning.
    Read(log::ReadOptions),
    /// Post the views of the log of DATABASE_URL.
    Post(log::PostOptions),
    /// Run everything and print the table of budgets.
    Table(table::Options),
}

fn main() -> ExitCode {
    // Two providers may be linked, so one must be named.
    rustls::crypto::aws_lc_rs::default_provider().install_default().ok();
    let ended = match Cli::parse().verb {
        // One thread: what measures takes as little as possible from what is measured.
        Verb::MockModel(options) => on_one_thread(mock::run(options)),
        Verb::Load(options) => on_one_thread(load::run(options)),
        Verb::Streams(options) => on_one_thread(streams::run(options)),
        Verb::Sockets(options) => on_one_thread(sockets::run(options)),
        Verb::Serve(options) => on_all_threads(serve::run(options)),
        Verb::Echo(options) => on_all_threads(echo::run(options)),
        Verb::Append(options) => on_all_threads(log::append(options)),
        Verb::Read(options) => on_all_threads(log::read(options)),
        Verb::Post(options) => on_all_threads(log::post(options)),
        Verb::Table(options) => on_all_threads(table::run(options)),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // There is nobody left to tell when standard error is closed.
            let _ = writeln!(std::io::stderr(), "daybook-bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn on_one_thread(work: impl Future<Output = Result<(), Error>>) -> Result<(), Error> {
    run_on(&mut tokio::runtime::Builder::new_current_thread(), work)
}

fn on_all_threads(work: impl Future<Output = Result<(), Error>>) -> Result<(), Error> {
    run_on(&mut tokio::runtime::Builder::new_multi_thread(), work)
}

fn run_on(builder: &mut tokio::runtime::Builder, work: impl Future<Output = Result<(), Error>>) -> Result<(), Error> {
    let runtime = builder.enable_all().build().map_err(Error::io("start the runtime"))?;
    runtime.block_on(work)
}

/// Prints one line on standard output, at once.
fn say(line: &str) -> Result<(), Error> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).map_err(Error::io("write to standard output"))
}
