//! Runs everything, prints the table and writes it as JSON.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use daybook_store::MasterKey;
use daybook_store::embedded::{Embedded, EmbeddedOptions};
use indicatif::{ProgressBar, ProgressStyle};
use tempfile::TempDir;
use tokio::time::{Instant, timeout_at};

use crate::error::Error;
use crate::machine;
use crate::pace::Pace;
use crate::report::Report;
use crate::rows::Group;
use crate::serving;
use crate::world::World;

/// The options of `daybook-bench table`.
#[derive(Debug, Args)]
pub struct Options {
    /// Short measurements: whether things work, and about where they are
    #[arg(long)]
    quick: bool,
    /// Only these groups of rows
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Group>,
    /// The program to measure [default: beside this one]
    #[arg(long, value_name = "FILE")]
    daybook: Option<PathBuf>,
    /// The repository, for agno's server and its Python environment
    #[arg(long, value_name = "DIR", default_value = ".")]
    root: PathBuf,
    /// Where the table is written as JSON
    #[arg(long, value_name = "FILE", default_value = "target/bench.json")]
    json: PathBuf,
}

/// Measures within the time limit, and prints what was measured, also after a signal.
pub async fn run(options: Options) -> Result<(), Error> {
    let daybook = program(&options)?;
    let root = std::path::absolute(&options.root).map_err(Error::io("find the repository"))?;
    let pace = if options.quick { Pace::QUICK } else { Pace::FULL };
    let deadline = Instant::now() + Duration::from_secs(pace.limit);
    let files = machine::raise_file_limit();
    let dir = open_dir()?;
    let embedded = EmbeddedOptions { dir: dir.path().to_path_buf(), bin_dir: None };
    // A drop of what is starting asks it to end.
    let postgres = tokio::select! {
        started = Embedded::start(embedded) => started?,
        asked = serving::asked_to_end() => return asked.and(Err(Error::Stopped)),
    };
    let mut report = Report::default();
    let world = World {
        dir: dir.path(),
        postgres: &postgres,
        postgres_bin: bin_of(postgres.postmaster_pid())?,
        daybook,
        root,
        pace,
        files,
        bar: bar(),
        key: MasterKey::generate()?,
    };
    let groups = if options.only.is_empty() { Group::ALL.to_vec() } else { options.only };
    let ended = tokio::select! {
        () = measure(&world, &groups, deadline, &mut report) => Ok(()),
        asked = serving::asked_to_end() => asked.and(Err(Error::Stopped)),
    };
    world.bar.finish_and_clear();
    drop(world);
    postgres.stop().await?;
    crate::say(&report.markdown())?;
    let json = serde_json::to_string_pretty(&report)?;
    std::fs::write(&options.json, json).map_err(Error::io(format!("write {}", options.json.display())))?;
    match report.gaps.len() {
        0 => ended,
        gaps => ended.and(Err(Error::Missing(format!("{gaps} of the groups could not be measured, see above")))),
    }
}

async fn measure(world: &World<'_>, groups: &[Group], deadline: Instant, report: &mut Report) {
    report.setting = machine::describe(&world.daybook, &world.postgres_bin).await;
    let (seconds, repeats, warm_up) = (world.pace.seconds, world.pace.repeats, world.pace.warm_up);
    report.setting.push(format!(
        "each figure: median (smallest..largest) of {repeats} times {seconds} s, each after {warm_up} s of warm-up"
    ));
    for group in groups {
        let why = match timeout_at(deadline, group.measure(world, &mut report.rows)).await {
            Ok(Ok(())) => continue,
            Ok(Err(error)) => error.to_string(),
            Err(_) => "no time was left".to_owned(),
        };
        world.say(format!("{}: {why}", group.name()));
        report.gaps.push(format!("{}: {why}", group.name()));
    }
}

fn program(options: &Options) -> Result<PathBuf, Error> {
    let beside = || std::env::current_exe().map(|own| own.with_file_name("daybook"));
    let path = options.daybook.clone().map_or_else(beside, Ok).map_err(Error::io("find this program"))?;
    let path = std::path::absolute(path).map_err(Error::io("find the program to measure"))?;
    if path.is_file() {
        return Ok(path);
    }
    Err(Error::Missing(format!("{} is not there: build it, or name another with --daybook", path.display())))
}

/// PostgreSQL's user must be able to enter it.
fn open_dir() -> Result<TempDir, Error> {
    use std::os::unix::fs::PermissionsExt as _;
    let permissions = std::fs::Permissions::from_mode(0o711);
    let dir = tempfile::Builder::new().prefix("daybook-bench-").permissions(permissions).tempdir();
    dir.map_err(Error::io("create a temporary directory"))
}

/// Where the running server's program is; its other programs are beside it.
fn bin_of(postmaster: u32) -> Result<PathBuf, Error> {
    let link = format!("/proc/{postmaster}/exe");
    let program = std::fs::read_link(&link).map_err(Error::io(format!("read {link}")))?;
    Ok(program.parent().map(Path::to_path_buf).unwrap_or_default())
}

fn bar() -> ProgressBar {
    let bar = ProgressBar::new_spinner();
    if let Ok(style) = ProgressStyle::with_template("{elapsed:>5} {spinner} {msg}") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}
