//! A program that Daybook starts, and all that it starts in turn, so that it ends as a whole. Two things hold a family
//! together, and a process is found by either:
//! - it leads a process group of its own, which children stay in unless they leave it (`setsid`);
//! - a variable of its environment, [`MARK`], has a value that no other family's has, and children inherit it.
//!
//! The family is killed when it is dropped, and when Daybook ends without dropping anything (SIGKILL, out of memory). The
//! kernel could be asked to do the latter, but only between fork and exec, where safe Rust has no place. So a process
//! waits for it: its input closes when Daybook is gone. Out of reach is a process that left the group and was started with
//! an environment without the mark (`env -i setsid`), and one that another user runs as (`sudo`).

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use tokio::process::{Child, ChildStdin, Command};

/// The name of the variable that marks a family.
pub(crate) const MARK: &str = "DAYBOOK_FAMILY";

/// How often the processes of this machine are looked through, at most: one may be born while the others are killed.
const ROUNDS: u32 = 50;

/// What waits for the end of Daybook: `$0` is the group, `$1` the mark, `$2` how many seconds the family has to go by
/// itself. `grep` has the mark among its arguments only, not in its environment.
const WATCHER: &str = r#"read -r end; sleep "$2"; kill -KILL "-$0"
for round in 1 2 3; do
  for found in $(grep -lsF -- "$1" /proc/[0-9]*/environ); do found=${found#/proc/}; kill -KILL "${found%/environ}"; done
done"#;

/// A started program with what it started. Killed as a whole when it is dropped.
#[derive(Debug)]
pub(crate) struct Family {
    /// None once it was killed: another process may get the number.
    group: Option<Pid>,
    mark: String,
    watcher: Option<(Child, Option<ChildStdin>)>,
    /// Whether those that left the group were killed too.
    swept: bool,
}

impl Family {
    /// Starts the command as the head of a family. If Daybook is killed, the family has `grace` (whole seconds) to end by
    /// itself.
    ///
    /// # Errors
    /// When the command, or what watches over it, cannot be started.
    pub(crate) fn start(command: &mut Command, grace: Duration) -> io::Result<(Child, Self)> {
        let mark = uuid::Uuid::now_v7().to_string();
        let child = command.env(MARK, &mark).process_group(0).kill_on_drop(true).spawn()?;
        let id = child.id().and_then(|id| i32::try_from(id).ok()).filter(|id| *id > 1);
        let id = id.ok_or_else(|| io::Error::other("it has no process id"))?;
        let group = Pid::from_raw(id);
        let mut family = Self { group: Some(group), mark, watcher: None, swept: false };
        family.watch(group, grace)?;
        Ok((child, family))
    }

    fn watch(&mut self, group: Pid, grace: Duration) -> io::Result<()> {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", WATCHER]).arg(group.to_string());
        command.arg(self.entry()).arg(grace.as_secs().to_string());
        // In a group of its own, and with nothing of ours, so that it holds nothing and nothing ends it.
        command.env_clear().env("PATH", "/usr/local/bin:/usr/bin:/bin");
        command.current_dir("/").process_group(0).kill_on_drop(true);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut watcher = command.spawn()?;
        let input = watcher.stdin.take();
        self.watcher = Some((watcher, input));
        Ok(())
    }

    /// The mark as it stands in an environment.
    fn entry(&self) -> String {
        format!("{MARK}={}", self.mark)
    }

    /// Signals the group. Those that left it are not told.
    pub(crate) fn signal(&self, signal: Signal) {
        if let Some(group) = self.group {
            // It fails when nothing is left of the group, which is what is wanted.
            let _ = killpg(group, signal);
        }
    }

    /// Kills what is left of it. Reads the environment of each process of this machine: some milliseconds, which no other
    /// call waits for. A dropped future loses nothing: the rest is done when this is dropped.
    pub(crate) async fn end(&mut self) {
        self.end_group();
        if !self.swept {
            let entry = self.entry();
            self.swept = tokio::task::spawn_blocking(move || kill_marked(&entry)).await.is_ok();
        }
    }

    fn end_group(&mut self) {
        self.signal(Signal::SIGKILL);
        self.group = None;
        if let Some((watcher, _input)) = &mut self.watcher {
            // Before its input closes: it must not kill whoever gets this number next.
            let _ = watcher.start_kill();
        }
    }
}

impl Drop for Family {
    fn drop(&mut self) {
        self.end_group();
        if !self.swept {
            kill_marked(&self.entry());
        }
    }
}

/// Kills every process that has this in its environment, until no more are found.
fn kill_marked(entry: &str) {
    let mut killed = BTreeSet::new();
    for _ in 0..ROUNDS {
        let mut more = false;
        for pid in processes().filter(|pid| is_marked(*pid, entry)) {
            more |= killed.insert(pid);
            // It fails when it has just ended.
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        if !more {
            return;
        }
    }
}

fn processes() -> impl Iterator<Item = i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// Others' environments cannot be read, and an ended process has none.
fn is_marked(pid: i32, entry: &str) -> bool {
    let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    environment.split(|byte| *byte == 0).any(|found| found == entry.as_bytes())
}
