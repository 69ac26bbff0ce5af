//! One PostgreSQL server process: creating its data, starting it, adopting one left behind, ending it.

use std::{
    fs::{self, File},
    io::{Read, Seek, SeekFrom, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use nix::{
    fcntl::OFlag,
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use sqlx::{Connection, PgConnection, postgres::PgConnectOptions};
use tokio::{
    process::Child,
    time::{Instant, sleep, timeout},
};

use super::{EmbeddedError, binaries::Binaries, site::Site};

/// The socket's name carries it; the socket directory is private, so it can always be the same.
pub(super) const PORT: u16 = 5432;
/// Crash recovery may take minutes on a slow disk; the process is watched all the while.
const START_WITHIN: Duration = Duration::from_secs(300);
/// For one left behind: it is up, or in recovery, or not worth waiting for.
const ADOPT_WITHIN: Duration = Duration::from_secs(30);
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(25);
/// What a fast shutdown (which writes a checkpoint), an immediate one and a kill get.
const STOPS: [(Signal, Duration); 3] = [
    (Signal::SIGINT, Duration::from_secs(30)),
    (Signal::SIGQUIT, Duration::from_secs(10)),
    (Signal::SIGKILL, Duration::from_secs(5)),
];
/// Appended to `postgresql.conf` when the data is created; `ALTER SYSTEM` or an edit changes them.
/// `fsync` and `synchronous_commit` stay on: an acknowledged event is on the disk.
const TUNING: &str = "
# Daybook
shared_buffers = 256MB
max_connections = 100
wal_compression = on
max_wal_size = 2GB
fsync = on
synchronous_commit = on
jit = off
timezone = 'UTC'
log_timezone = 'UTC'
log_line_prefix = '%m [%p] '
";

/// A running server.
#[derive(Debug)]
pub(super) struct Postmaster {
    pid: u32,
    /// `None` for one that another Daybook started.
    child: Option<Child>,
    data: PathBuf,
    /// Set until it has answered: a start that is given up leaves no process.
    starting: bool,
}

impl Drop for Postmaster {
    fn drop(&mut self) {
        // A process that was not waited for keeps its number, so this reaches nobody else.
        if self.starting && self.child.as_ref().is_some_and(|child| child.id().is_some()) {
            send(self.pid, Signal::SIGINT);
        }
    }
}

/// Removes what a killed start left of its [`init`]. What cannot be removed is in nobody's way.
pub(super) fn clear_unfinished(site: &Site) {
    for path in site.unfinished() {
        // Its initdb may still be at work.
        for pid in processes_of(&path) {
            send(pid, Signal::SIGKILL);
        }
        let is_dir = fs::symlink_metadata(&path).is_ok_and(|meta| meta.is_dir());
        let removed = if is_dir { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        match removed {
            Ok(()) => tracing::info!(path = %path.display(), "removed what a start that was cut off left"),
            Err(error) => tracing::warn!(path = %path.display(), %error, "what a cut off start left stays for now"),
        }
    }
}

/// Creates the data, all or nothing: it gets its name when it is complete.
pub(super) async fn init(site: &Site, binaries: &Binaries) -> Result<(), EmbeddedError> {
    let fresh = site.fresh();
    site.private_dir(&fresh)?;
    let program = binaries.initdb();
    let mut command = site.command(&program);
    command.arg("-D").arg(&fresh).args(["--username=daybook", "--encoding=UTF8", "--locale=C", "--data-checksums"]);
    command.args(["--auth-local=peer", "--auth-host=reject"]).kill_on_drop(true);
    let output = command.output().await.map_err(EmbeddedError::io("run", &program))?;
    if !output.status.success() {
        let output = last_lines(&String::from_utf8_lossy(&output.stderr));
        return Err(EmbeddedError::Init { data: site.data.clone(), output });
    }
    let conf = fresh.join("postgresql.conf");
    let append = || open_existing(&conf)?.write_all(TUNING.as_bytes());
    append().map_err(EmbeddedError::io("write", &conf))?;
    fs::rename(&fresh, &site.data).map_err(EmbeddedError::io("rename", &fresh))
}

impl Postmaster {
    /// Takes over the server that an ended Daybook left behind, when there is one that answers on our socket.
    /// One that does not answer is shut down.
    pub(super) async fn adopt(site: &Site) -> Result<Option<Self>, EmbeddedError> {
        let Some(pid) = recorded_pid(&site.data).filter(|pid| serves(*pid, &site.data)) else { return Ok(None) };
        let mut left = Self { pid, child: None, data: site.data.clone(), starting: false };
        match left.wait_until_it_answers(site, ADOPT_WITHIN).await {
            Ok(()) => Ok(Some(left)),
            Err(why) => {
                tracing::warn!(pid, why, "a PostgreSQL left behind does not answer; it is shut down");
                left.stop().await?;
                Ok(None)
            }
        }
    }

    /// Starts the process. No live server may be on this data: the caller holds the lock and has tried [`Self::adopt`].
    pub(super) fn spawn(site: &Site, binaries: &Binaries) -> Result<Self, EmbeddedError> {
        sweep(site)?;
        let log = site.open_log()?;
        let errors = log.try_clone().map_err(EmbeddedError::io("write", &site.log))?;
        let program = binaries.postgres();
        let setting = |name: &str, value: &Path| {
            let mut setting = std::ffi::OsString::from(format!("{name}="));
            setting.push(value);
            setting
        };
        let mut command = site.command(&program);
        command.arg("-D").arg(&site.data).args(["-p", &PORT.to_string()]).stdout(log).stderr(errors);
        command.args(["-c", "listen_addresses=", "-c", "logging_collector=off", "-c", "unix_socket_permissions=0700"]);
        command.arg("-c").arg(setting("unix_socket_directories", &site.socket_dir));
        command.arg("-c").arg(setting("hba_file", &site.hba)).arg("-c").arg(setting("ident_file", &site.ident));
        let child = command.spawn().map_err(EmbeddedError::io("run", &program))?;
        let pid = child.id().unwrap_or_default();
        Ok(Self { pid, child: Some(child), data: site.data.clone(), starting: true })
    }

    /// Waits until it answers; `log_start` is the length of the log before it was started.
    pub(super) async fn ready(&mut self, site: &Site, log_start: u64) -> Result<(), EmbeddedError> {
        self.wait_until_it_answers(site, START_WITHIN).await.map_err(|why| EmbeddedError::NotStarted {
            why,
            log: site.log.clone(),
            tail: log_tail(site, log_start),
        })?;
        self.starting = false;
        Ok(())
    }

    pub(super) fn pid(&self) -> u32 {
        self.pid
    }

    /// Resolves when the process has ended; can be dropped and called again.
    pub(super) async fn ended(&mut self) -> String {
        if let Some(child) = &mut self.child {
            return child.wait().await.map_or_else(|error| error.to_string(), |status| status.to_string());
        }
        while serves(self.pid, &self.data) {
            sleep(Duration::from_millis(250)).await;
        }
        "end of the adopted process".to_owned()
    }

    /// Fast shutdown, then an immediate one, then a kill; each gets a bounded time.
    pub(super) async fn stop(&mut self) -> Result<(), EmbeddedError> {
        for (signal, patience) in STOPS {
            self.signal(signal);
            if timeout(patience, self.ended()).await.is_ok() {
                return Ok(());
            }
            tracing::warn!(pid = self.pid, %signal, "PostgreSQL did not stop in time");
        }
        Err(EmbeddedError::NotStopped { pid: self.pid })
    }

    fn signal(&self, signal: Signal) {
        let is_ours = match &self.child {
            Some(child) => child.id().is_some(),
            None => serves(self.pid, &self.data),
        };
        if is_ours {
            send(self.pid, signal);
        }
    }

    async fn wait_until_it_answers(&mut self, site: &Site, patience: Duration) -> Result<(), String> {
        let began = Instant::now();
        let mut told = began;
        loop {
            // Asked before it is watched: an answer counts even when the process is about to go.
            match timeout(ANSWER_WITHIN, answers(site)).await {
                Ok(Answer::Yes) => return Ok(()),
                Ok(Answer::Refused(why)) => return Err(why),
                Ok(Answer::NotYet) | Err(_) => {}
            }
            if let Ok(how) = timeout(POLL, self.ended()).await {
                return Err(format!("it ended with {how}"));
            }
            if began.elapsed() > patience {
                return Err(format!("no answer after {} seconds", patience.as_secs()));
            }
            if told.elapsed() > Duration::from_secs(10) {
                told = Instant::now();
                tracing::info!(pid = self.pid, "waiting for PostgreSQL to answer");
            }
        }
    }
}

enum Answer {
    Yes,
    NotYet,
    Refused(String),
}

/// Whether the server of this very data answers on our socket.
async fn answers(site: &Site) -> Answer {
    const DATA_DIRECTORY: &str = "SELECT current_setting('data_directory')";
    const CANNOT_CONNECT_NOW: &str = "57P03";
    let ask = async {
        let mut connection = PgConnection::connect_with(&connect_options(site, "postgres")).await?;
        let data: String = sqlx::query_scalar(DATA_DIRECTORY).fetch_one(&mut connection).await?;
        connection.close().await?;
        Ok::<_, sqlx::Error>(data)
    };
    match ask.await {
        Ok(data) if Path::new(&data) == site.data => Answer::Yes,
        Ok(data) => Answer::Refused(format!("the socket belongs to the server of {data}")),
        Err(sqlx::Error::Database(error)) if error.code().as_deref() != Some(CANNOT_CONNECT_NOW) => {
            Answer::Refused(error.message().to_owned())
        }
        Err(_) => Answer::NotYet,
    }
}

pub(super) fn connect_options(site: &Site, database: &str) -> PgConnectOptions {
    let options = PgConnectOptions::new_without_pgpass().socket(&site.socket_dir).port(PORT);
    options.username("daybook").database(database).ssl_mode(sqlx::postgres::PgSslMode::Disable)
}

/// Creates the database `daybook` where it is missing.
pub(super) async fn create_database(site: &Site) -> Result<(), EmbeddedError> {
    const EXISTS: &str = "SELECT EXISTS (SELECT FROM pg_database WHERE datname = 'daybook')";
    let mut connection = PgConnection::connect_with(&connect_options(site, "postgres")).await?;
    if !sqlx::query_scalar::<_, bool>(EXISTS).fetch_one(&mut connection).await? {
        sqlx::query("CREATE DATABASE daybook").execute(&mut connection).await?;
    }
    connection.close().await?;
    Ok(())
}

/// Asks a server to shut down fast, without waiting for it.
pub(super) fn interrupt(pid: u32, data: &Path) {
    if serves(pid, data) {
        send(pid, Signal::SIGINT);
    }
}

/// Removes what a killed server left and what would keep a new one from starting.
fn sweep(site: &Site) -> Result<(), EmbeddedError> {
    // Backends outlive a killed postmaster until they notice, and hold the shared memory that long.
    for pid in processes_of(&site.data) {
        send(pid, Signal::SIGKILL);
    }
    if let Some(pid) = recorded_pid(&site.data)
        && kill(Pid::from_raw(pid.cast_signed()), None).is_ok()
        && !serves(pid, &site.data)
    {
        // The number was given to another process since, and PostgreSQL would take that for a live server. It never
        // does so for its own parent. The rest of the file stays: PostgreSQL checks the shared memory named there.
        rename_recorded_pid(&pid_file(&site.data), std::process::id())
            .map_err(EmbeddedError::io("write", pid_file(&site.data)))?;
    }
    for name in [format!(".s.PGSQL.{PORT}"), format!(".s.PGSQL.{PORT}.lock")] {
        let path = site.socket_dir.join(name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(EmbeddedError::io("remove", path)(error));
            }
            _ => {}
        }
    }
    Ok(())
}

fn pid_file(data: &Path) -> PathBuf {
    data.join("postmaster.pid")
}

fn recorded_pid(data: &Path) -> Option<u32> {
    fs::read_to_string(pid_file(data)).ok()?.lines().next()?.trim().parse().ok().filter(|pid| *pid > 1)
}

fn rename_recorded_pid(path: &Path, pid: u32) -> std::io::Result<()> {
    let text = fs::read_to_string(path)?;
    let rest = text.split_once('\n').map_or("", |(_, rest)| rest);
    let file = open_existing(path)?;
    file.set_len(0)?;
    (&file).write_all(format!("{pid}\n{rest}").as_bytes())
}

/// For appending; follows no link, since root may be opening in a directory of another user.
fn open_existing(path: &Path) -> std::io::Result<File> {
    fs::OpenOptions::new().append(true).custom_flags(OFlag::O_NOFOLLOW.bits()).open(path)
}

fn send(pid: u32, signal: Signal) {
    if let Err(errno) = kill(Pid::from_raw(pid.cast_signed()), signal) {
        tracing::debug!(pid, %signal, %errno, "signal not delivered");
    }
}

/// Whether this process is a PostgreSQL on this data: its numbers are reused, so being alive is not enough.
#[cfg(target_os = "linux")]
fn serves(pid: u32, data: &Path) -> bool {
    // Every process of a server works in its data directory. A dead one not yet reaped has none.
    let process = Path::new("/proc").join(pid.to_string());
    fs::read_link(process.join("cwd")).is_ok_and(|cwd| cwd == data)
        && fs::read_to_string(process.join("comm")).is_ok_and(|name| name.starts_with("postgres"))
}

/// Whether this process is a PostgreSQL on this data: its numbers are reused, so being alive is not enough.
#[cfg(not(target_os = "linux"))]
fn serves(pid: u32, data: &Path) -> bool {
    let output =
        std::process::Command::new("ps").args(["-ww", "-o", "stat=,command=", "-p", &pid.to_string()]).output();
    output.is_ok_and(|output| {
        let line = String::from_utf8_lossy(&output.stdout);
        !line.trim_start().starts_with('Z') && line.contains("postgres") && line.contains(&*data.to_string_lossy())
    })
}

#[cfg(target_os = "linux")]
pub(super) fn processes_of(data: &Path) -> Vec<u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid| serves(*pid, data)).collect()
}

/// Elsewhere the backends end by themselves when they notice; until then PostgreSQL refuses to start, and is tried again.
#[cfg(not(target_os = "linux"))]
pub(super) fn processes_of(_: &Path) -> Vec<u32> {
    Vec::new()
}

/// The telling lines the server wrote since it was started.
fn log_tail(site: &Site, start: u64) -> String {
    let mut text = Vec::new();
    let mut read = || {
        let mut file = site.open_log()?;
        let length = file.metadata().map_err(EmbeddedError::io("read", &site.log))?.len();
        file.seek(SeekFrom::Start(start.max(length.saturating_sub(8192))))
            .map_err(EmbeddedError::io("read", &site.log))?;
        file.take(8192).read_to_end(&mut text).map_err(EmbeddedError::io("read", &site.log))
    };
    match read() {
        Ok(_) => {
            let text = String::from_utf8_lossy(&text);
            let telling =
                |line: &&str| ["FATAL", "PANIC", "ERROR", "HINT", "DETAIL"].iter().any(|word| line.contains(word));
            let lines: Vec<_> = text.lines().filter(telling).collect();
            if lines.is_empty() { last_lines(&text) } else { last_lines(&lines.join("\n")) }
        }
        Err(error) => error.to_string(),
    }
}

fn last_lines(text: &str) -> String {
    let lines: Vec<_> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    lines[lines.len().saturating_sub(4)..].join(" / ")
}
