//! A private PostgreSQL for those who bring none: found, created, started, watched and stopped by Daybook.
//! It listens on a Unix socket only. It is started again when it dies; when Daybook is killed it lives on, and the next
//! Daybook on the same directory adopts it. A lock lets one Daybook at a time use a directory.

mod binaries;
mod error;
mod look;
mod postmaster;
mod site;
#[cfg(test)]
mod tests;

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use backon::{BackoffBuilder, ExponentialBuilder};
use secrecy::SecretString;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;

use self::{
    binaries::{Binaries, Search},
    postmaster::{PORT, Postmaster},
    site::{Lock, Site},
};

pub use self::error::EmbeddedError;
pub use self::look::{Look, look};

/// Tries of the first start: backends of a killed server may need a moment to let go of its memory.
const FIRST_TRIES: u32 = 3;
/// A server that ran this long was healthy: the next restart is quick again.
const HEALTHY_AFTER: Duration = Duration::from_secs(60);

/// Where the embedded server is kept and which binaries it uses.
#[derive(Debug, Clone)]
pub struct EmbeddedOptions {
    /// Daybook's directory (`.daybook`); created where missing. The data goes to `postgres` in it. As root, when the
    /// user that runs PostgreSQL may not enter it, the data goes to `/var/lib/daybook` and `postgres.location` says so.
    pub dir: PathBuf,
    /// The directory that holds `initdb` and `postgres`; `None` looks on PATH, asks `pg_config`, and tries the usual places.
    pub bin_dir: Option<PathBuf>,
}

/// A running private PostgreSQL with a database `daybook`. [`Embedded::stop`] ends it in good order; a drop only asks it to end.
pub struct Embedded {
    site: Site,
    pid: Arc<AtomicU32>,
    ending: CancellationToken,
    watch: JoinSet<Result<(), EmbeddedError>>,
    /// Let go after everything else.
    _lock: Lock,
}

impl Embedded {
    /// Starts the server, or adopts the one a killed Daybook left; returns when it answers and has its database. Dropped
    /// before that, it asks what it has started to end.
    ///
    /// # Errors
    /// Another Daybook holds the directory, no fitting binaries are installed, or the server could not be created or
    /// started; each error says what to do.
    pub async fn start(options: EmbeddedOptions) -> Result<Self, EmbeddedError> {
        Self::start_with(&options.dir, &Search::usual(options.bin_dir)).await
    }

    async fn start_with(dir: &Path, search: &Search) -> Result<Self, EmbeddedError> {
        let (site, lock) = Site::prepare(dir)?;
        postmaster::clear_unfinished(&site);
        let version = site.data_version();
        let binaries = search.find(&site.data, version).await?;
        if version.is_none() {
            tracing::info!(data = %site.data.display(), "creating the embedded database");
            postmaster::init(&site, &binaries).await?;
            site::note_base(&site)?;
        }
        let postmaster = match Postmaster::adopt(&site).await? {
            Some(adopted) => {
                tracing::info!(pid = adopted.pid(), "found PostgreSQL still running from before; using it");
                adopted
            }
            None => launch(&site, &binaries).await?,
        };
        let pid = Arc::new(AtomicU32::new(postmaster.pid()));
        let ending = CancellationToken::new();
        let mut watch = JoinSet::new();
        let supervisor = Supervisor { site: site.clone(), binaries, pid: pid.clone(), ending: ending.clone() };
        watch.spawn(supervisor.run(postmaster));
        let embedded = Self { site, pid, ending, watch, _lock: lock };
        postmaster::create_database(&embedded.site).await?;
        Ok(embedded)
    }

    /// Where to connect, in the form sqlx and libpq accept: `postgres://daybook@localhost/daybook?host=%2F...`.
    /// It stays the same over restarts. It holds no password: the kernel vouches for the user that connects.
    #[must_use]
    pub fn url(&self) -> SecretString {
        url(&self.site.socket_dir.to_string_lossy(), &PORT.to_string())
    }

    /// PostgreSQL's data directory.
    #[must_use]
    pub fn data_dir(&self) -> &Path {
        &self.site.data
    }

    /// The process id of the server; 0 while it is being started again.
    #[must_use]
    pub fn postmaster_pid(&self) -> u32 {
        self.pid.load(Ordering::Acquire)
    }

    /// Stops the server: connections are closed and a checkpoint is written (up to 30 s), then by force. Returns when
    /// it has ended; the lock is let go after that.
    ///
    /// # Errors
    /// The process did not end, not even when killed.
    pub async fn stop(mut self) -> Result<(), EmbeddedError> {
        self.ending.cancel();
        match self.watch.join_next().await {
            Some(Ok(ended)) => ended,
            // The task panicked or was dropped with its runtime: the drop of `self` asks the process to end.
            Some(Err(_)) | None => Err(EmbeddedError::NotStopped { pid: self.postmaster_pid() }),
        }
    }

    /// As after kill -9 of Daybook: the server lives on, nobody watches it, the lock is free.
    #[cfg(test)]
    async fn abandon(mut self) -> u32 {
        self.watch.shutdown().await;
        self.pid.swap(0, Ordering::AcqRel)
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        self.ending.cancel();
        let pid = self.pid.swap(0, Ordering::AcqRel);
        if pid != 0 {
            postmaster::interrupt(pid, &self.site.data);
        }
    }
}

impl fmt::Debug for Embedded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Embedded").field("site", &self.site).field("pid", &self.pid).finish_non_exhaustive()
    }
}

/// The address of a server that listens in `socket_dir`.
fn url(socket_dir: &str, port: &str) -> SecretString {
    let query = [("host", socket_dir), ("port", port), ("sslmode", "disable")];
    // libpq reads `+` as itself.
    let query = serde_urlencoded::to_string(query).unwrap_or_default().replace('+', "%20");
    SecretString::from(format!("postgres://daybook@localhost/daybook?{query}"))
}

/// Keeps the server running until Daybook ends, then stops it.
struct Supervisor {
    site: Site,
    binaries: Binaries,
    pid: Arc<AtomicU32>,
    ending: CancellationToken,
}

impl Supervisor {
    async fn run(self, mut postmaster: Postmaster) -> Result<(), EmbeddedError> {
        let mut delays = restart_delays();
        loop {
            let began = Instant::now();
            let how = tokio::select! {
                biased;
                () = self.ending.cancelled() => break,
                how = postmaster.ended() => how,
            };
            self.pid.store(0, Ordering::Release);
            tracing::error!(how, "PostgreSQL ended unexpectedly; starting it again");
            if began.elapsed() > HEALTHY_AFTER {
                delays = restart_delays();
            }
            match self.restart(&mut delays).await {
                Some(restarted) => postmaster = restarted,
                None => return Ok(()),
            }
        }
        let stopped = postmaster.stop().await;
        self.pid.store(0, Ordering::Release);
        stopped
    }

    /// Tries until it answers; `None` when Daybook ends first, with no process left.
    async fn restart(&self, delays: &mut impl Iterator<Item = Duration>) -> Option<Postmaster> {
        loop {
            let delay = delays.next().unwrap_or(LONGEST_DELAY);
            tokio::select! {
                biased;
                () = self.ending.cancelled() => return None,
                () = sleep(delay) => {}
            }
            match self.restart_once().await {
                Ok(restarted) => return restarted,
                Err(error) => tracing::error!(%error, "PostgreSQL could not be started again"),
            }
        }
    }

    async fn restart_once(&self) -> Result<Option<Postmaster>, EmbeddedError> {
        let log_start = self.site.log_length();
        let mut started = Postmaster::spawn(&self.site, &self.binaries)?;
        let answered = tokio::select! {
            biased;
            () = self.ending.cancelled() => None,
            answered = started.ready(&self.site, log_start) => Some(answered),
        };
        if !matches!(answered, Some(Ok(()))) {
            started.stop().await?;
        }
        let Some(answered) = answered else { return Ok(None) };
        answered?;
        self.pid.store(started.pid(), Ordering::Release);
        tracing::info!(pid = started.pid(), "PostgreSQL runs again");
        Ok(Some(started))
    }
}

const LONGEST_DELAY: Duration = Duration::from_secs(10);

fn restart_delays() -> impl Iterator<Item = Duration> {
    let shortest = Duration::from_millis(100);
    ExponentialBuilder::new().with_min_delay(shortest).with_max_delay(LONGEST_DELAY).without_max_times().build()
}

/// The first start: a failure is told after a few tries.
async fn launch(site: &Site, binaries: &Binaries) -> Result<Postmaster, EmbeddedError> {
    let mut tries = 1;
    loop {
        let log_start = site.log_length();
        let mut started = Postmaster::spawn(site, binaries)?;
        match started.ready(site, log_start).await {
            Ok(()) => return Ok(started),
            Err(error) => {
                started.stop().await?;
                if tries == FIRST_TRIES {
                    return Err(error);
                }
            }
        }
        tries += 1;
        sleep(Duration::from_secs(1)).await;
    }
}
