//! A server that is a program: how it is started, and how it and what it started are ended.
//!
//! It is the head of a [`Family`], which ends as a whole. What holds when:
//! - `close`: its input ends, so a well-behaved server goes by itself; after [`GOES_ITSELF`] the group gets SIGTERM, and
//!   after [`HEEDS_TERM`] more SIGKILL.
//! - the source or the runtime is dropped: the family gets SIGKILL.
//! - Daybook itself is killed (SIGKILL, out of memory): the server's input ends, which is what the protocol asks servers to
//!   leave at; after [`GOES_ITSELF`] the family gets SIGKILL.

use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nix::sys::signal::Signal;
use secrecy::ExposeSecret as _;
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::lines::{Line, Lines};
use super::options::Launch;
use super::words::shortened;
use crate::family::Family;
use crate::secrets::Secrets;

/// How long a server has to end after its input did.
const GOES_ITSELF: Duration = Duration::from_secs(2);

/// And then after SIGTERM.
const HEEDS_TERM: Duration = Duration::from_secs(1);

/// What a server gets of Daybook's environment: how programs are found and how they speak, and no keys.
const INHERITED: [&str; 14] = [
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "SHELL",
    "LANG",
    "LC_ALL",
    "LC_CTYPE",
    "TZ",
    "TMPDIR",
    "TEMP",
    "TMP",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
];

/// The longest line of its standard error that is logged, in bytes; the rest of the line is left out.
const MAX_LOGGED: usize = 2048;

/// How many lines are logged at once; more only at one a second.
const LOGGED_AT_ONCE: u32 = 200;

/// A running program.
pub(super) struct Program {
    child: Child,
    family: Family,
    last_words: Arc<Mutex<Option<String>>>,
    /// Reads standard error; ends with this.
    _log: JoinSet<()>,
}

/// Both ends of the conversation.
pub(super) struct Pipes {
    pub(super) input: ChildStdin,
    pub(super) output: ChildStdout,
}

impl Program {
    /// Starts it.
    ///
    /// # Errors
    /// Why it could not be started, and how to mend it.
    pub(super) fn start(launch: &Launch, name: &str, secrets: &Arc<Secrets>) -> Result<(Self, Pipes), String> {
        let mut command = Command::new(&launch.program);
        command.args(&launch.arguments).env_clear();
        command.envs(INHERITED.iter().filter_map(|name| Some((name, std::env::var_os(name)?))));
        command.envs(launch.env.iter().map(|(name, value)| (name, value.expose_secret())));
        if let Some(directory) = &launch.directory {
            command.current_dir(directory);
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let (mut child, family) =
            Family::start(&mut command, GOES_ITSELF).map_err(|fault| cannot_start(launch, &fault))?;
        let (Some(input), Some(output), Some(errors)) = (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            return Err(format!("{} was started without pipes", launch.program));
        };
        let last_words = Arc::default();
        let mut log = JoinSet::new();
        log.spawn(log_errors(errors, name.to_owned(), Arc::clone(secrets), Arc::clone(&last_words)));
        Ok((Self { child, family, last_words, _log: log }, Pipes { input, output }))
    }

    /// Returns when it ended, and kills what it left behind. A dropped future loses nothing.
    pub(super) async fn ended(&mut self) {
        // An error means that there is no such child: it ended.
        let _ = self.child.wait().await;
        self.family.end().await;
    }

    /// Ends it, in [`GOES_ITSELF`] and [`HEEDS_TERM`] and a moment.
    pub(super) async fn end(&mut self) {
        if timeout(GOES_ITSELF, self.child.wait()).await.is_err() {
            self.family.signal(Signal::SIGTERM);
            let _ = timeout(HEEDS_TERM, self.child.wait()).await;
        }
        self.family.signal(Signal::SIGKILL);
        let _ = timeout(HEEDS_TERM, self.child.kill()).await;
        self.family.end().await;
    }

    /// How it ended, as far as is known, with the last line it wrote on standard error.
    pub(super) async fn obituary(&mut self) -> String {
        // The output of a program that dies ends a little before the program.
        let status = match timeout(Duration::from_millis(500), self.child.wait()).await {
            Ok(Ok(status)) => format!("the server ended ({status})"),
            _ => "the server closed its end of the connection".to_owned(),
        };
        // Its last line may still be on the way to the log.
        tokio::time::sleep(Duration::from_millis(20)).await;
        match self.last_words.lock().unwrap_or_else(PoisonError::into_inner).as_deref() {
            Some(words) => format!("{status}; its last words: {words}"),
            None => status,
        }
    }
}

/// What is told of a program that is not on this machine.
pub(super) fn no_program(program: &str) -> String {
    format!("there is no program {program}: install it, or give its path as the first word of `command`")
}

fn cannot_start(launch: &Launch, fault: &std::io::Error) -> String {
    let program = &launch.program;
    if launch.directory.as_ref().is_some_and(|directory| !directory.is_dir()) {
        return format!("{program} was not started: its directory is none; correct `directory`");
    }
    match fault.kind() {
        std::io::ErrorKind::NotFound => no_program(program),
        std::io::ErrorKind::PermissionDenied => format!("{program} may not be executed: check its permissions"),
        _ => format!("{program} could not be started: {fault}"),
    }
}

/// Logs what the program writes on standard error.
async fn log_errors(errors: ChildStderr, name: String, secrets: Arc<Secrets>, last_words: Arc<Mutex<Option<String>>>) {
    let mut lines = Lines::new(errors, MAX_LOGGED);
    let (mut allowance, mut since) = (LOGGED_AT_ONCE, tokio::time::Instant::now());
    loop {
        let line = match lines.next().await {
            Ok(Line::Whole(line)) => line,
            Ok(Line::TooLong { start, .. }) => start,
            Ok(Line::End) | Err(_) => return,
        };
        let text = shortened(&secrets.hide(&String::from_utf8_lossy(&line)), MAX_LOGGED);
        if text.is_empty() {
            continue;
        }
        let earned = u32::try_from(since.elapsed().as_secs()).unwrap_or(u32::MAX);
        if earned > 0 {
            (allowance, since) = (allowance.saturating_add(earned).min(LOGGED_AT_ONCE), tokio::time::Instant::now());
        }
        if allowance > 0 {
            allowance -= 1;
            tracing::info!(source = name, "{text}");
        }
        *last_words.lock().unwrap_or_else(PoisonError::into_inner) = Some(shortened(&text, 300));
    }
}
