//! Child processes: each in a group of its own, so that a Ctrl-C reaches only this process, which then ends them.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{ChildStdin, ChildStdout, Command};
use tokio::time::timeout;

use crate::error::Error;
use crate::process;

/// How long a server may take to end in good order.
const END_WITHIN: Duration = Duration::from_secs(30);

/// How much of its log is shown when a child fails.
const SHOWN_LINES: usize = 12;

/// A running child. Dropped, it and all that it started are killed.
pub struct Child {
    name: String,
    pid: u32,
    process: tokio::process::Child,
    lines: Lines<BufReader<ChildStdout>>,
    log: PathBuf,
    /// Open as long as this is.
    _input: Option<ChildStdin>,
}

impl Child {
    /// Starts `command`; what it writes on standard error goes to a file in `dir`.
    pub fn start(name: &str, mut command: Command, dir: &Path) -> Result<Self, Error> {
        let log = dir.join(format!("{name}.log"));
        let errors = File::create(&log).map_err(Error::io(format!("create {}", log.display())))?;
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(errors).kill_on_drop(true).process_group(0);
        let mut process = command.spawn().map_err(Error::io(format!("start {name}")))?;
        let (Some(pid), Some(out)) = (process.id(), process.stdout.take()) else {
            return Err(Error::Missing(format!("{name} has no process")));
        };
        let input = process.stdin.take();
        Ok(Self { name: name.to_owned(), pid, process, lines: BufReader::new(out).lines(), log, _input: input })
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// CPU seconds that it and its children took so far.
    pub fn cpu_seconds(&self) -> f64 {
        process::tree_cpu_seconds(self.pid)
    }

    /// Resident bytes of it and its children.
    pub fn rss_bytes(&self) -> u64 {
        process::tree_rss_bytes(self.pid)
    }

    /// Whether it has not ended.
    pub fn lives(&mut self) -> bool {
        matches!(self.process.try_wait(), Ok(None))
    }

    /// Waits for the next line on its standard output.
    pub async fn line(&mut self, within: Duration) -> Result<String, Error> {
        match timeout(within, self.lines.next_line()).await {
            Ok(Ok(Some(line))) => Ok(line),
            Ok(Ok(None)) => Err(self.failed("ended without saying what it should")),
            Ok(Err(source)) => Err(Error::Io { doing: format!("read from {}", self.name), source }),
            Err(_) => Err(self.failed(format!("said nothing for {} s", within.as_secs()))),
        }
    }

    /// Asks it to end and waits; what does not end in time is killed by the drop.
    pub async fn stop(mut self) {
        if self.lives() {
            // It has not been waited for, so its number is still its own.
            kill(self.of_nix(), Signal::SIGTERM).ok();
            timeout(END_WITHIN, self.process.wait()).await.ok();
        }
    }

    /// An error with the end of its log.
    pub fn failed(&self, what: impl Into<String>) -> Error {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        Error::Child { name: self.name.clone(), what: what.into(), log: last_lines(&log) }
    }

    fn of_nix(&self) -> Pid {
        Pid::from_raw(self.pid.cast_signed())
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if self.lives() {
            // The group is the child's own: nobody else is in it.
            killpg(self.of_nix(), Signal::SIGKILL).ok();
        }
    }
}

/// Runs a program to its end and gives what it printed. Cut off, it and all that it started are killed.
pub async fn output(name: &str, mut command: Command, within: Duration) -> Result<String, Error> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true).process_group(0);
    let process = command.spawn().map_err(Error::io(format!("run {name}")))?;
    let mut group = Group(process.id());
    let Ok(output) = timeout(within, process.wait_with_output()).await else {
        return Err(Error::Child { name: name.to_owned(), what: "took too long".to_owned(), log: String::new() });
    };
    group.0 = None;
    let output = output.map_err(Error::io(format!("run {name}")))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let what = format!("failed ({})", output.status);
    Err(Error::Child { name: name.to_owned(), what, log: last_lines(&String::from_utf8_lossy(&output.stderr)) })
}

/// A process group that is killed when this is dropped, unless its leader was waited for.
struct Group(Option<u32>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(leader) = self.0 {
            // The group is the child's own: nobody else is in it.
            killpg(Pid::from_raw(leader.cast_signed()), Signal::SIGKILL).ok();
        }
    }
}

fn last_lines(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(SHOWN_LINES)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[tokio::test]
    async fn a_child_is_heard_stopped_and_blamed() {
        let dir = tempfile::tempdir().unwrap();
        let within = Duration::from_secs(60);
        let mut child = Child::start("sleeper", shell("echo hello; exec sleep 1000"), dir.path()).unwrap();
        assert_eq!(child.line(within).await.unwrap(), "hello");
        assert!(child.lives());
        child.stop().await;

        let mut failing = Child::start("failing", shell("echo why >&2; exit 3"), dir.path()).unwrap();
        let error = failing.line(within).await.unwrap_err().to_string();
        assert!(error.contains("failing ended") && error.ends_with("why"), "{error}");
    }

    #[tokio::test]
    async fn what_a_dropped_child_started_ends_with_it() {
        let dir = tempfile::tempdir().unwrap();
        let mut child = Child::start("parent", shell("sleep 1000 & echo $!; wait"), dir.path()).unwrap();
        let grandchild = child.line(Duration::from_secs(60)).await.unwrap();
        drop(child);
        // Killed at once; whoever reaps it may take a moment.
        let gone = async {
            while fs::read_to_string(format!("/proc/{grandchild}/stat")).is_ok_and(|stat| !stat.contains(") Z ")) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(Duration::from_secs(60), gone).await.unwrap();
    }

    #[tokio::test]
    async fn output_is_given_or_the_reason_is() {
        let within = Duration::from_secs(60);
        assert_eq!(output("echo", shell("echo out"), within).await.unwrap(), "out\n");
        let error = output("bad", shell("echo no >&2; exit 1"), within).await.unwrap_err().to_string();
        assert!(error.starts_with("bad failed") && error.ends_with("no"), "{error}");
    }
}
