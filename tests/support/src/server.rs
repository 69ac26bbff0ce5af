//! Servers as processes of their own, so that they can be killed.

use std::collections::HashMap;
use std::fs::{File, OpenOptions, Permissions};
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use super::{Api, Database, Model, PATIENCE, eventually};

/// A directory that the user PostgreSQL runs as may enter.
pub fn open_dir() -> TempDir {
    tempfile::Builder::new().prefix("daybook-e2e-").permissions(Permissions::from_mode(0o755)).tempdir().unwrap()
}

/// A program built with the tests, by its path in cargo's directory.
fn built(program: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let path = test.parent().and_then(Path::parent).unwrap().join(program);
    assert!(path.exists(), "{} is missing: run `cargo build --bins --examples`", path.display());
    path
}

/// The program.
pub fn daybook() -> Command {
    let mut command = Command::new(built("daybook"));
    clean(&mut command);
    command
}

/// What a server logged, from the beginning; bounded, because a test may let it log to a device.
fn written(log: &Path) -> String {
    let mut text = Vec::new();
    if let Ok(file) = File::open(log) {
        file.take(16 << 20).read_to_end(&mut text).ok();
    }
    String::from_utf8_lossy(&text).into_owned()
}

/// What this machine's environment says must not decide a test.
pub fn clean(command: &mut Command) {
    for (name, _) in std::env::vars() {
        if name.starts_with("DAYBOOK_") || name.starts_with("OPENAI_") {
            command.env_remove(name);
        }
    }
    for name in ["PORT", "DATABASE_URL", "DATA_DIR", "MODEL_URL", "CALLS_FILE"] {
        command.env_remove(name);
    }
    command.env("RUST_LOG", "info").kill_on_drop(true);
}

/// A database, a model and a directory: everything around servers that is still there when they are killed.
pub struct World {
    /// What the agents talk to.
    pub model: Model,
    /// None: its servers run PostgreSQL themselves.
    pub database: Option<Database>,
    /// For everything that is kept in files.
    pub dir: TempDir,
}

impl World {
    /// With a database.
    pub async fn new() -> Self {
        daybook::install_crypto();
        Self { database: Some(Database::create().await), ..Self::with_private_database().await }
    }

    /// Its servers run PostgreSQL themselves.
    pub async fn with_private_database() -> Self {
        daybook::install_crypto();
        Self { model: Model::start().await, database: None, dir: open_dir() }
    }

    /// Its database.
    pub fn database(&self) -> &Database {
        self.database.as_ref().expect("a shared database")
    }

    /// Where servers keep what is theirs.
    pub fn data_dir(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// The process id of the private PostgreSQL; none while it is down.
    pub fn postgres(&self) -> Option<Pid> {
        let beside = self.data_dir().join("postgres.location");
        let data =
            std::fs::read_to_string(beside).map_or_else(|_| self.data_dir().join("postgres"), |at| at.trim().into());
        let file = std::fs::read_to_string(data.join("postmaster.pid")).ok()?;
        let pid = file.lines().next()?.trim().parse().ok()?;
        Some(Pid::from_raw(pid)).filter(|pid| kill(*pid, None).is_ok())
    }

    fn calls_file(&self) -> PathBuf {
        self.dir.path().join("calls")
    }

    fn hold_file(&self) -> PathBuf {
        self.dir.path().join("calls.hold")
    }

    /// The counting tools wait in their calls until [`World::let_tools_go`].
    pub fn hold_tools(&self) {
        std::fs::write(self.hold_file(), "").unwrap();
    }

    /// After [`World::hold_tools`].
    pub fn let_tools_go(&self) {
        std::fs::remove_file(self.hold_file()).unwrap();
    }

    /// The calls of the counting tools so far: tool, call id, idempotency key.
    pub fn calls(&self) -> Vec<(String, String, String)> {
        let written = std::fs::read_to_string(self.calls_file()).unwrap_or_default();
        // A last line may be half written.
        let lines = written.rsplit_once('\n').map_or("", |(whole, _)| whole);
        let call = |line: &str| {
            let mut words = line.split(' ').map(str::to_owned);
            Some((words.next()?, words.next()?, words.next()?))
        };
        lines.lines().map(|line| call(line).expect("three words a line")).collect()
    }

    /// The calls by call id: the keys they came with.
    pub fn calls_by_id(&self) -> HashMap<(String, String), Vec<String>> {
        let mut by_id: HashMap<_, Vec<String>> = HashMap::new();
        for (tool, id, key) in self.calls() {
            by_id.entry((tool, id)).or_default().push(key);
        }
        by_id
    }

    /// Waits until the counting tools were called `count` times.
    pub async fn called(&self, count: usize) {
        let what = format!("{count} tool calls");
        eventually(&what, async || (self.calls().len() >= count).then_some(())).await;
    }

    /// A server with the reference agents.
    pub async fn server(&self) -> Server {
        let command = self.command();
        Server::start(command, &self.dir.path().join(format!("{}.log", uuid::Uuid::now_v7()))).await
    }

    /// `daybook serve` with these definitions.
    pub async fn serve(&self, config: &Path) -> Server {
        let log = self.dir.path().join(format!("{}.log", uuid::Uuid::now_v7()));
        Server::start(self.serving(config), &log).await
    }

    /// How `daybook serve` is started with these definitions.
    pub fn serving(&self, config: &Path) -> Command {
        let mut command = daybook();
        command.args(["serve", "--port", "0", "--config"]).arg(config).arg("--data-dir").arg(self.data_dir());
        if let Some(database) = &self.database {
            command.env("DATABASE_URL", &database.url).env("DAYBOOK_MASTER_KEY", &database.key);
        }
        command
    }

    /// How a server is started.
    pub fn command(&self) -> Command {
        let mut command = Command::new(built("examples/reference_os"));
        clean(&mut command);
        command
            .env("PORT", "0")
            .env("MODEL_URL", &self.model.url)
            .env("DATA_DIR", self.data_dir())
            .env("CALLS_FILE", self.calls_file());
        if let Some(database) = &self.database {
            command.env("DATABASE_URL", &database.url).env("DAYBOOK_MASTER_KEY", &database.key);
        }
        command
    }
}

/// A server that serves. Killed when dropped.
pub struct Server {
    /// Its interface.
    pub api: Api,
    child: Child,
    log: PathBuf,
}

impl Server {
    /// Starts it and waits until it says where it serves.
    pub async fn start(command: Command, log: &Path) -> Self {
        let started = Self::try_start(command, log).await;
        started.unwrap_or_else(|said| panic!("the server did not start: {said}"))
    }

    /// The same; `Err` with what it said when it does not start.
    pub async fn try_start(mut command: Command, log: &Path) -> Result<Self, String> {
        let errors = OpenOptions::new().create(true).append(true).open(log).unwrap();
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(errors).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let address = async {
            while let Some(line) = lines.next_line().await.unwrap() {
                if let Some((_, address)) = line.split_once("http://") {
                    return address.split_whitespace().next().map(str::to_owned);
                }
            }
            None
        };
        let Ok(Some(address)) = timeout(PATIENCE, address).await else {
            return Err(written(log));
        };
        Ok(Self { api: Api::at(&format!("http://{address}")), child, log: log.to_owned() })
    }

    /// Where it logs.
    pub fn log_file(&self) -> PathBuf {
        self.log.clone()
    }

    /// What it has logged so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    /// Waits until it has logged `words`.
    pub async fn logged(&self, words: &str) {
        eventually(&format!("the log says {words}"), async || self.log().contains(words).then_some(())).await;
    }

    /// Ends it at once and without its knowledge.
    pub async fn kill(mut self) {
        self.child.kill().await.unwrap();
    }

    /// Asks it to end, and waits until it has.
    pub async fn terminate(mut self) -> ExitStatus {
        self.signal(Signal::SIGTERM);
        timeout(PATIENCE, self.child.wait()).await.expect("it ends after SIGTERM").unwrap()
    }

    /// Its process.
    pub fn pid(&self) -> i32 {
        self.child.id().and_then(|pid| i32::try_from(pid).ok()).expect("it runs")
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid()), signal).unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = written(&self.log);
            let last: Vec<&str> = log.lines().rev().take(40).collect();
            eprintln!("--- the server's last words");
            last.iter().rev().for_each(|line| eprintln!("{line}"));
        }
    }
}
