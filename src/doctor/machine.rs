//! What this machine gives: an address, files, room on the disk.

use std::net::SocketAddr;
use std::path::Path;

use nix::sys::resource::{Resource, getrlimit};
use nix::sys::statvfs::statvfs;

use super::Finding;
use crate::config::Settings;
use crate::error::Error;
use crate::server::listen;

/// With fewer files, connections are turned away early.
const FILES: u64 = 4096;
/// With fewer, hardly anything can be served.
const FEWEST_FILES: u64 = 256;
/// Below this much free room, PostgreSQL soon stops.
const ROOM: u64 = 1 << 30;
/// Below this much, it may stop now.
const LEAST_ROOM: u64 = 100 << 20;

pub(super) async fn look(settings: &Settings) -> Vec<Finding> {
    let mut findings = vec![address(settings).await];
    findings.extend(files());
    if settings.database_url.is_none() {
        findings.extend(room(&settings.data_dir));
    }
    findings
}

async fn address(settings: &Settings) -> Finding {
    let (host, port) = (&settings.host, settings.port);
    match listen(settings).await {
        Ok(_) if port == 0 => Finding::ok("address", format!("a free port of {host} will be taken")),
        Ok(_) => Finding::ok("address", format!("{host}:{port} is free")),
        Err(Error::Bind { address, source }) if source.kind() == std::io::ErrorKind::AddrInUse => {
            if answers(address).await {
                Finding::ok("address", format!("a Daybook serves at {address}"))
            } else {
                let says = format!("another program uses {address}");
                Finding::problem("address", says, "stop it, or choose another port with --port or server.port")
            }
        }
        Err(error) => Finding::error("address", &error),
    }
}

/// Whether a Daybook is what uses the address.
async fn answers(address: SocketAddr) -> bool {
    let Ok(client) = super::models::client() else { return false };
    match client.get(format!("http://{address}/health")).send().await {
        Ok(answer) => answer.text().await.is_ok_and(|body| body.contains("instantiated_at")),
        Err(_) => false,
    }
}

fn files() -> Option<Finding> {
    let (files, _) = getrlimit(Resource::RLIMIT_NOFILE).ok()?;
    let says = format!("{files} files may be open at once");
    let mend = "raise it with `ulimit -n 65536`, or LimitNOFILE= in a systemd unit";
    Some(match files {
        ..FEWEST_FILES => Finding::problem("files", says, mend),
        FEWEST_FILES..FILES => Finding::warning("files", says + ", of which connections get three quarters", mend),
        _ => Finding::ok("files", says),
    })
}

/// The room where the data is, or will be.
fn room(dir: &Path) -> Option<Finding> {
    let absolute = std::path::absolute(dir).ok()?;
    let there = absolute.ancestors().find(|dir| dir.exists())?;
    let disk = statvfs(there).ok()?;
    #[expect(clippy::useless_conversion, reason = "it is smaller on other systems")]
    let free = u64::from(disk.blocks_available()).saturating_mul(disk.fragment_size());
    let says = format!("{} MiB are free for {}", free >> 20, dir.display());
    let mend = "make room, or move it with --data-dir";
    Some(match free {
        ..LEAST_ROOM => Finding::problem("disk", says, mend),
        LEAST_ROOM..ROOM => Finding::warning("disk", says, mend),
        _ => Finding::ok("disk", says),
    })
}
