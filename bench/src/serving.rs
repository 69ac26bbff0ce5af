//! What the servers here have in common: the line that says where they listen, and how they are asked to end.

use std::net::SocketAddr;

use tokio::io::AsyncReadExt as _;
use tokio::signal::unix::{SignalKind, signal};

use crate::error::Error;

/// Before the address in the line that says where a server listens.
pub const LISTENS: &str = "listening on ";

/// Says where it listens.
pub fn announce(address: SocketAddr) -> Result<(), Error> {
    crate::say(&format!("{LISTENS}{address}"))
}

/// Ends at SIGTERM or SIGINT.
pub async fn asked_to_end() -> Result<(), Error> {
    let listen = |kind| signal(kind).map_err(Error::io("listen to signals"));
    let (mut terminate, mut interrupt) = (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?);
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

/// Ends when whoever started this process closes its input, or ends.
pub async fn input_closed() -> Result<(), Error> {
    let mut input = tokio::io::stdin();
    let mut ignored = [0; 64];
    while input.read(&mut ignored).await.map_err(Error::io("read standard input"))? > 0 {}
    Ok(())
}
