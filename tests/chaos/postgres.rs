//! A PostgreSQL that a test owns: it can be killed, stopped and started again.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use daybook_store::MasterKey;
use daybook_store::embedded::{Embedded, EmbeddedOptions};
use daybook_test_support::{Database, open_dir};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use secrecy::ExposeSecret;
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

use crate::guardian;

/// Crash recovery on a slow machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// A PostgreSQL as Daybook would set it up, but started and ended by the test.
pub struct Postgres {
    data: PathBuf,
    log: PathBuf,
    /// The program and its arguments.
    command: Vec<String>,
    /// The address without the database's name.
    url: String,
    child: Option<Child>,
}

impl Postgres {
    /// A fresh one.
    pub async fn start() -> Self {
        let dir = open_dir().keep();
        guardian::made(&dir);
        Self::start_in(&dir).await
    }

    /// A fresh one whose data lies in `dir`.
    pub async fn start_in(dir: &Path) -> Self {
        let embedded = Embedded::start(EmbeddedOptions { dir: dir.to_owned(), bin_dir: None }).await.unwrap();
        let (data, url) = (embedded.data_dir().to_owned(), embedded.url().expose_secret().to_owned());
        guardian::made(data.parent().unwrap());
        let options = fs::read_to_string(data.join("postmaster.opts")).unwrap();
        embedded.stop().await.unwrap();
        let mut command: Vec<String> =
            options.split_whitespace().map(|word| word.trim_matches('"').to_owned()).collect();
        // The machine does not fail, only processes do: what was written is there, whether the disk has it or not.
        command.extend(["-c", "fsync=off", "-c", "max_connections=200"].map(str::to_owned));
        let mut postgres = Self { log: dir.join("postgres.log"), data, command, url, child: None };
        postgres.start_again().await;
        postgres
    }

    /// Where its socket is.
    pub fn socket(&self) -> PathBuf {
        let setting = self.command.iter().find_map(|word| word.strip_prefix("unix_socket_directories=")).unwrap();
        Path::new(setting).join(".s.PGSQL.5432")
    }

    /// A new, empty database in it.
    pub async fn create_database(&self) -> Database {
        let name = format!("t{}", uuid::Uuid::now_v7().simple());
        let mut admin = PgConnection::connect(&self.url).await.unwrap();
        sqlx::query(AssertSqlSafe(format!("CREATE DATABASE {name}"))).execute(&mut admin).await.unwrap();
        admin.close().await.unwrap();
        let url = self.url.replace("localhost/daybook?", &format!("localhost/{name}?"));
        Database::at(url, MasterKey::generate().unwrap().to_base64().expose_secret().to_owned())
    }

    /// Starts it after [`Postgres::kill`] or [`Postgres::stop`]; returns when it answers.
    pub async fn start_again(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            // A killed server's processes hold its memory until they notice, and no other starts until then.
            let child = self.spawn();
            if self.answers(child).await {
                return;
            }
            let log = fs::read_to_string(&self.log).unwrap_or_default();
            assert!(Instant::now() < deadline, "PostgreSQL does not start: {}", log.lines().last().unwrap_or_default());
            sleep(Duration::from_millis(100)).await;
        }
    }

    /// Starts it again if it has ended by itself.
    pub async fn start_unless_it_runs(&mut self) {
        let ended = match &mut self.child {
            Some(child) => {
                let pid = child.id();
                let ended = child.try_wait().unwrap().is_some();
                pid.filter(|_| ended).into_iter().for_each(guardian::ended);
                ended
            }
            None => true,
        };
        if ended {
            self.start_again().await;
        }
    }

    fn spawn(&self) -> Child {
        let owner = fs::metadata(&self.data).unwrap();
        let log = OpenOptions::new().create(true).append(true).open(&self.log).unwrap();
        let mut command = Command::new(&self.command[0]);
        command.args(&self.command[1..]).env_clear().env("LC_ALL", "C").current_dir("/").process_group(0);
        if nix::unistd::geteuid().is_root() {
            command.uid(owner.uid()).gid(owner.gid());
        }
        let errors = log.try_clone().unwrap();
        let child = command.stdin(Stdio::null()).stdout(log).stderr(errors).spawn().unwrap();
        guardian::started(child.id().unwrap());
        child
    }

    async fn answers(&mut self, mut child: Child) -> bool {
        let pid = child.id().unwrap();
        loop {
            if child.try_wait().unwrap().is_some() {
                guardian::ended(pid);
                return false;
            }
            if let Ok(Ok(connection)) = timeout(Duration::from_secs(5), PgConnection::connect(&self.url)).await {
                connection.close().await.ok();
                self.child = Some(child);
                return true;
            }
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// kill -9.
    pub async fn kill(&mut self) {
        self.end(Signal::SIGKILL).await;
    }

    /// A fast shutdown.
    pub async fn stop(&mut self) {
        self.end(Signal::SIGINT).await;
    }

    async fn end(&mut self, signal: Signal) {
        let Some(mut child) = self.child.take() else { return };
        let pid = child.id().unwrap();
        kill(Pid::from_raw(pid.cast_signed()), signal).unwrap();
        timeout(PATIENCE, child.wait()).await.expect("PostgreSQL ends").unwrap();
        guardian::ended(pid);
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        let Some(pid) = child.id() else { return };
        let _ = kill(Pid::from_raw(pid.cast_signed()), Signal::SIGQUIT);
        // It needs a moment; should it need more, the guardian ends it.
        for _ in 0..100 {
            if matches!(child.try_wait(), Ok(Some(_))) {
                return guardian::ended(pid);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}
