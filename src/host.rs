//! This machine among others: its name in the log, and which of its earlier servers are gone.

use daybook_store::Store;
use nix::errno::Errno;
use nix::sys::signal::kill;
use nix::unistd::{Pid, gethostname};

use crate::error::Error;

/// Names this machine so that a process id means the same thing wherever the name is the same: the host's name, the
/// boot (ids start anew) and the process-id namespace (containers of one host may share a name).
pub(crate) fn name() -> String {
    let host = gethostname().ok().and_then(|name| name.into_string().ok()).unwrap_or_else(|| "localhost".to_owned());
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let space = std::fs::read_link("/proc/self/ns/pid").unwrap_or_default();
    format!("{host}/{}/{}", boot.trim(), space.display())
}

/// Tells the log which servers of this machine are gone, so that their runs go on at once and not after 6 s. A process
/// id that another program has by now counts as alive: then the 6 s decide.
pub(crate) async fn bury_dead(store: &Store, host: &str) -> Result<(), Error> {
    for (node, pid) in store.dead_neighbours(host).await? {
        if is_gone(pid) {
            tracing::info!(node, pid, "an earlier server on this machine is gone; its runs are taken over");
            store.declare_dead(&node).await?;
        }
    }
    Ok(())
}

/// Whether no process has this id, or only this one, which has not joined yet: then the earlier one is gone.
fn is_gone(pid: u32) -> bool {
    if pid == std::process::id() {
        return true;
    }
    i32::try_from(pid).is_ok_and(|pid| kill(Pid::from_raw(pid), None) == Err(Errno::ESRCH))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_gone_when_it_has_ended() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        assert!(!is_gone(child.id()));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(is_gone(child.id()));
        assert!(is_gone(std::process::id()), "an earlier server with our id has ended, or we could not have it");
        assert!(!is_gone(1), "others' processes count too");
        assert!(!is_gone(u32::MAX), "what is no process id proves nothing");
    }

    #[test]
    fn the_name_stays_the_same_while_the_machine_is_up() {
        assert_eq!(name(), name());
        assert!(name().len() > 5);
    }
}
