//! Runs one command, and sees to it that nothing of it is left.

use std::io;
use std::path::PathBuf;
use std::pin::pin;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep_until, timeout};

use super::USUAL_PATH;
use super::kept::Kept;
use crate::family::Family;
use crate::{ToolError, ToolOutput};

/// How long the outputs may take to close, and the process to go, once everything was killed.
const LAST: Duration = Duration::from_secs(1);
/// The longest command, in bytes: what Linux takes as one argument.
const MAX_COMMAND: usize = 100_000;
const SHELL: &str = "/bin/sh";

/// A program that may be run.
pub(super) struct Program {
    /// What it is called by.
    pub(super) name: String,
    /// Where it is.
    pub(super) place: PathBuf,
}

/// Where commands run, and what they get.
pub(super) struct Machine {
    pub(super) directory: PathBuf,
    /// Those that may be run; none takes any command, by a shell.
    pub(super) programs: Option<Vec<Program>>,
    pub(super) timeout: Duration,
    pub(super) max_output: usize,
    pub(super) environment: Vec<String>,
}

impl Machine {
    /// Whether it is a command, and one that may be run.
    pub(super) fn check(&self, text: &str) -> Result<(), ToolError> {
        if text.trim().is_empty() || text.contains('\0') || text.len() > MAX_COMMAND {
            let message = format!("a command is a text without U+0000, not empty, of at most {MAX_COMMAND} bytes");
            return Err(ToolError::Arguments(message));
        }
        self.programs.as_ref().map_or(Ok(()), |programs| chosen(programs, text).map(|_| ()))
    }

    pub(super) async fn run(&self, text: &str) -> Result<ToolOutput, ToolError> {
        self.check(text)?;
        let mut command = self.command(text)?;
        let failed = |error: io::Error| ToolError::failed(format!("the command could not be started: {error}"));
        let (mut child, family) = Family::start(&mut command, Duration::ZERO).map_err(failed)?;
        let (mut out, mut err) = (Kept::new(self.max_output), Kept::new(self.max_output));
        let status = self.wait(&mut child, family, &mut out, &mut err).await.map_err(failed)?;
        let told = format!("stdout:\n{}\nstderr:\n{}", out.text(), err.text());
        match status {
            Some(status) => Ok(format!("{}\n{told}", ending(status)).into()),
            None => {
                let seconds = self.timeout.as_secs();
                Err(ToolError::failed(format!("it was killed because it ran for more than {seconds} seconds\n{told}")))
            }
        }
    }

    fn command(&self, text: &str) -> Result<Command, ToolError> {
        let mut command = match &self.programs {
            None => {
                let mut command = Command::new(SHELL);
                command.arg("-c").arg(text);
                command
            }
            Some(programs) => {
                let (program, arguments) = chosen(programs, text)?;
                let mut command = Command::new(&program.place);
                command.arg0(&program.name).args(arguments);
                command
            }
        };
        command.current_dir(&self.directory);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.env_clear().env("PATH", USUAL_PATH);
        for name in &self.environment {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        Ok(command)
    }

    /// Until the process ends, or its time does; gives how it ended. Then everything it started is killed.
    async fn wait(
        &self,
        child: &mut Child,
        mut family: Family,
        out: &mut Kept,
        err: &mut Kept,
    ) -> io::Result<Option<ExitStatus>> {
        let missing = || io::Error::other("it has no outputs");
        let (stdout, stderr) = (child.stdout.take().ok_or_else(missing)?, child.stderr.take().ok_or_else(missing)?);
        let mut reading = pin!(async { tokio::join!(out.read(stdout), err.read(stderr)) });
        let deadline = Instant::now() + self.timeout;
        let mut closed = false;
        let status = loop {
            tokio::select! {
                status = child.wait() => break Some(status?),
                _ = &mut reading, if !closed => closed = true,
                () = sleep_until(deadline) => break None,
            }
        };
        family.end().await;
        if !closed {
            // What is in the pipes. One that escaped may hold them open.
            let _ = timeout(LAST, reading).await;
        }
        if status.is_none() {
            let _ = timeout(LAST, child.wait()).await;
        }
        Ok(status)
    }
}

/// The program that is called, and its arguments.
fn chosen<'a>(programs: &'a [Program], text: &str) -> Result<(&'a Program, Vec<String>), ToolError> {
    let Some(mut words) = shlex::split(text).filter(|words| !words.is_empty()) else {
        let message = "the command cannot be split into words: a quote or a backslash is open, or it is a comment";
        return Err(ToolError::Arguments(message.to_owned()));
    };
    let name = words.remove(0);
    match programs.iter().find(|program| program.name == name) {
        Some(program) => Ok((program, words)),
        None => {
            let known: Vec<&str> = programs.iter().map(|program| program.name.as_str()).collect();
            let message = format!("{name:?} may not be run; the programs are {}", known.join(", "));
            Err(ToolError::Arguments(message))
        }
    }
}

fn ending(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt as _;
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code: {code}"),
        (None, Some(signal)) => format!("ended by signal {signal}"),
        (None, None) => status.to_string(),
    }
}
