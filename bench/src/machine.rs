//! What the figures were measured on.

use std::fs;
use std::path::Path;
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::process::Command;

use crate::child;

/// Files that 10,000 streams need on both sides of a server, and room.
const WANTED_FILES: u64 = 32_768;

/// Lines that say what a reader must know to compare.
pub async fn describe(daybook: &Path, postgres_bin: &Path) -> Vec<String> {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let (cpu, memory) = (read("/proc/cpuinfo"), read("/proc/meminfo"));
    let mut lines = vec![
        format!("machine: {cores} cores, {}, {}", value(&cpu, "model name"), value(&memory, "MemTotal")),
        format!("kernel: {}", read("/proc/sys/kernel/osrelease").trim()),
        format!("load before the start (1, 5, 15 minutes): {}", first_words(&read("/proc/loadavg"), 3)),
    ];
    for (program, argument) in [(postgres_bin.join("postgres"), "--version"), (daybook.to_owned(), "--version")] {
        let mut command = Command::new(&program);
        command.arg(argument);
        let name = program.display().to_string();
        let version = child::output(&name, command, Duration::from_secs(20)).await;
        lines.push(version.map_or_else(|error| error.to_string(), |text| text.trim().to_owned()));
    }
    lines.push(format!("date: {}", chrono::Utc::now().format("%Y-%m-%d %H:%M UTC")));
    lines
}

/// The value of the first `name : value`.
fn value<'a>(text: &'a str, name: &str) -> &'a str {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|rest| rest.split_once(':')).map_or("unknown", |(_, value)| value.trim())
}

fn first_words(text: &str, count: usize) -> String {
    text.split_ascii_whitespace().take(count).collect::<Vec<_>>().join(" ")
}

/// Lets this process, and what it starts, open as many files as it may; gives that number.
pub fn raise_file_limit() -> u64 {
    let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return 1024 };
    // Only root may go beyond the hard limit.
    let wanted = hard.max(WANTED_FILES);
    if setrlimit(Resource::RLIMIT_NOFILE, wanted, wanted).is_ok() {
        return wanted;
    }
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).ok();
    getrlimit(Resource::RLIMIT_NOFILE).map_or(1024, |(soft, _)| soft)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_found_by_their_names() {
        let text = "processor\t: 0\nmodel name\t: Fast CPU\nmodel name\t: Other\n";
        assert_eq!((value(text, "model name"), value(text, "nothing")), ("Fast CPU", "unknown"));
        assert_eq!(first_words("0.1 0.2 0.3 1/2 3\n", 3), "0.1 0.2 0.3");
    }
}
