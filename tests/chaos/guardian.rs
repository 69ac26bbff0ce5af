//! Ends what the tests started, however they end: also when they are killed, which nothing inside this process survives.
//! Another process is told of everything started and reads on until this one is gone.

use std::fmt::Display;
use std::io::Write;
use std::path::Path;
use std::process::{ChildStdin, Command, Stdio};
use std::sync::{LazyLock, Mutex, PoisonError};

/// A process is its number and when it began: numbers are given again.
const WATCH: &str = r#"
trap '' INT TERM HUP
began() { cut -d ' ' -f 22 "/proc/$1/stat" 2>/dev/null; }
lives() { kill -0 "${1%%:*}" && [ "$(began "${1%%:*}")" = "${1#*:}" ]; }
pids="" mounts="" dirs=""
while read -r what name; do
  case $what in
    started) pids="$pids $name:$(began "$name")" ;;
    ended) left=""; for pid in $pids; do [ "${pid%%:*}" = "$name" ] || left="$left $pid"; done; pids=$left ;;
    mounted) mounts="$mounts $name" ;;
    made) dirs="$dirs $name" ;;
  esac
done
for pid in $pids; do lives "$pid" && kill -9 "${pid%%:*}"; done
for pid in $pids; do while lives "$pid"; do sleep 0.1; done; done
for dir in $mounts; do umount -l "$dir"; done
for dir in $dirs; do rm -rf "$dir"; done
"#;

static GUARDIAN: LazyLock<Mutex<ChildStdin>> = LazyLock::new(|| {
    let mut watching = Command::new("sh");
    watching.args(["-c", WATCH]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    Mutex::new(watching.spawn().unwrap().stdin.take().unwrap())
});

fn tell(what: &str, name: impl Display) {
    let mut guardian = GUARDIAN.lock().unwrap_or_else(PoisonError::into_inner);
    writeln!(guardian, "{what} {name}").unwrap();
}

/// A process runs.
pub fn started(pid: impl Display) {
    tell("started", pid);
}

/// A process has ended and was waited for: its number may be another's by now.
pub fn ended(pid: impl Display) {
    tell("ended", pid);
}

/// A file system was mounted.
pub fn mounted(dir: &Path) {
    tell("mounted", dir.display());
}

/// A directory was made. Its name has no spaces.
pub fn made(dir: &Path) {
    tell("made", dir.display());
}
