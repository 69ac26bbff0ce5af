//! What processes take: CPU time and memory, read from /proc (Linux only; see proc(5)).

use std::fs;

use nix::sys::resource::{UsageWho, getrusage};

/// Ticks of CPU time in a second. Linux shows user space 100 on every platform it runs on (`USER_HZ`).
const TICKS: f64 = 100.0;

/// What this process took so far.
pub fn own_cpu_seconds() -> f64 {
    let seconds = |time: nix::sys::time::TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
    getrusage(UsageWho::RUSAGE_SELF).map_or(0.0, |usage| seconds(usage.user_time()) + seconds(usage.system_time()))
}

/// A process as /proc/PID/stat shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stat {
    pid: u32,
    parent: u32,
    /// Its own and that of its children that ended.
    ticks: u64,
}

/// CPU seconds of a process, of all that came from it and live, and of all of theirs that ended.
pub fn tree_cpu_seconds(root: u32) -> f64 {
    let ticks: u64 = tree(root, &all()).map(|stat| stat.ticks).sum();
    ticks as f64 / TICKS
}

/// Resident bytes of a process and all that came from it. Pages that several share count for each.
pub fn tree_rss_bytes(root: u32) -> u64 {
    tree(root, &all()).filter_map(|stat| rss_bytes(stat.pid)).sum()
}

fn rss_bytes(pid: u32) -> Option<u64> {
    parse_rss(&fs::read_to_string(format!("/proc/{pid}/status")).ok()?)
}

fn all() -> Vec<Stat> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter_map(|pid| parse_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)).collect()
}

fn tree(root: u32, all: &[Stat]) -> impl Iterator<Item = Stat> {
    let mut found: Vec<Stat> = all.iter().filter(|stat| stat.pid == root).copied().collect();
    let mut at = 0;
    while let Some(parent) = found.get(at).map(|stat| stat.pid) {
        found.extend(all.iter().filter(|stat| stat.parent == parent && stat.pid != parent));
        at += 1;
    }
    found.into_iter()
}

/// `pid (name) state ppid ...`; the name may hold anything, also spaces and parentheses.
fn parse_stat(text: &str) -> Option<Stat> {
    let (pid, _) = text.split_once(' ')?;
    let (_, rest) = text.rsplit_once(") ")?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    // Fields 14 to 17 of the line; `rest` begins with field 3.
    let ticks = fields.get(11..15)?.iter().filter_map(|field| field.parse::<u64>().ok()).sum();
    Some(Stat { pid: pid.parse().ok()?, parent: fields.get(1)?.parse().ok()?, ticks })
}

fn parse_rss(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.split_ascii_whitespace().next()?.parse::<u64>().ok()? * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stat(pid: u32, parent: u32) -> Stat {
        Stat { pid, parent, ticks: u64::from(pid) }
    }

    #[test]
    fn a_line_of_stat_is_read_whatever_the_name_is() {
        let line = "42 (a ) b) S 7 42 42 0 -1 4194560 1 2 3 4 10 20 30 40 20 0 5 0 100";
        assert_eq!(parse_stat(line), Some(Stat { pid: 42, parent: 7, ticks: 100 }));
        assert_eq!(parse_stat("42 (cut"), None);
    }

    #[test]
    fn a_tree_holds_what_came_from_its_root() {
        let all = [stat(1, 0), stat(5, 1), stat(9, 5), stat(6, 1), stat(7, 9)];
        let pids: Vec<u32> = tree(5, &all).map(|stat| stat.pid).collect();
        assert_eq!(pids, [5, 9, 7]);
        assert_eq!(tree(8, &all).count(), 0);
    }

    #[test]
    fn resident_memory_is_in_bytes() {
        assert_eq!(parse_rss("Name:\tx\nVmRSS:\t   2048 kB\n"), Some(2 << 20));
        assert_eq!(parse_rss("Name:\tx\n"), None);
    }

    #[test]
    fn this_process_takes_something() {
        assert!(tree_rss_bytes(std::process::id()) > 0);
        assert!(own_cpu_seconds() >= 0.0);
    }
}
