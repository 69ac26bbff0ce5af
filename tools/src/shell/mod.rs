//! `run_command`: programs on the server's machine, and only after a person said yes to each call.
//! It is no sandbox. What runs has the rights of the server's user: it can read what that user reads, reach the network, and
//! a program that can start others (an interpreter, `env`, `find`, `git`, ...) can start anything. The list of programs
//! keeps a model to its task; the person who confirms is what protects the machine.

mod kept;
mod run;
#[cfg(test)]
mod tests;

use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use daybook_domain::tool::{Effect, ToolSpec};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value};

use self::run::{Machine, Program};
use crate::{FunctionTool, Tool, ToolContext, ToolError, ToolOutput};

const LONGEST_SECONDS: u32 = 3600;
const MOST_BYTES: u32 = 16 << 20;
/// Where programs are looked for, unless the server's own PATH is passed on.
const USUAL_PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// What may be run, where, and for how long.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ShellOptions {
    /// The directory that commands start in. It keeps them in nothing: they can go elsewhere.
    pub directory: PathBuf,
    /// The programs that may be run, by name (found in PATH when the server starts) or absolute path. A command is split
    /// into words and run without a shell: no pipes, variables or redirections.
    #[serde(default)]
    pub allow: Vec<String>,
    /// Whether commands go through `sh -c`, so that they can be anything. Instead of `allow`.
    #[serde(default)]
    pub shell: bool,
    /// The longest a command may take, in seconds; 60 unless said, at most 3600. Then it and all it started are killed.
    #[serde(default = "timeout_seconds")]
    pub timeout_seconds: NonZeroU32,
    /// The most bytes kept of each of its two outputs, half from the beginning and half from the end; 32,768 unless said,
    /// at most 16,777,216.
    #[serde(default = "max_output_bytes")]
    pub max_output_bytes: NonZeroU32,
    /// The names of the server's environment variables that commands see. They see nothing else of it, except a PATH of
    /// `/usr/local/bin:/usr/bin:/bin` when PATH is not named.
    #[serde(default)]
    pub environment: Vec<String>,
}

impl ShellOptions {
    /// Runs nothing yet, in this directory, with the usual limits.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self {
            directory: directory.into(),
            allow: Vec::new(),
            shell: false,
            timeout_seconds: timeout_seconds(),
            max_output_bytes: max_output_bytes(),
            environment: Vec::new(),
        }
    }
}

fn timeout_seconds() -> NonZeroU32 {
    NonZeroU32::MIN.saturating_add(59)
}

fn max_output_bytes() -> NonZeroU32 {
    NonZeroU32::MIN.saturating_add((32 << 10) - 1)
}

/// Why commands cannot be run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ShellError {
    /// There is no such directory.
    #[error("{0:?} is not a directory; create it, or name another as `directory`")]
    Directory(PathBuf),
    /// Nothing may be run.
    #[error("nothing may be run; list programs as `allow`, or set `shell: true` to take any command")]
    Nothing,
    /// Both a list of programs and a shell.
    #[error("`allow` and `shell: true` exclude each other, because a shell runs any program; take out one of them")]
    Both,
    /// A program is not on this machine.
    #[error(
        "the program {program:?} was not found in {path}; install it, give its absolute path, or take it out of `allow`"
    )]
    Program {
        /// As it was given.
        program: String,
        /// Where it was looked for.
        path: String,
    },
    /// A name that no variable has.
    #[error("{0:?} is not the name of an environment variable; `environment` has names only, without values")]
    Variable(String),
    /// A limit is beyond what makes sense.
    #[error("`{option}` is {given}; the most is {most}")]
    Limit {
        /// Which option.
        option: &'static str,
        /// What it is.
        given: u32,
        /// What it may be.
        most: u32,
    },
}

/// `run_command`. It asks a person before each call, whatever rules say, and counts as unsafe.
///
/// What a command started is killed with it: when it ends, takes too long, its run is cancelled, or the server ends,
/// however that ends. A daemon too, which makes a session of its own: on Linux it is known by the variable `DAYBOOK_FAMILY`
/// that every command has. What escapes is a process that takes off both, the group and the variable (`env -i setsid`), or
/// runs as another user.
///
/// # Errors
/// [`ShellError`] of an option that does not fit this machine or another option.
pub fn shell(options: &ShellOptions) -> Result<Vec<Arc<dyn Tool>>, ShellError> {
    let machine = Arc::new(machine(options)?);
    let timeout = machine.timeout + Duration::from_secs(5);
    let description = describe(options);
    let runs = Arc::clone(&machine);
    let run = FunctionTool::new("run_command", description, Effect::Unsafe, move |_: ToolContext, asked: Arguments| {
        let machine = Arc::clone(&runs);
        async move { machine.run(&asked.command).await }
    });
    Ok(vec![Arc::new(RunCommand { machine, run: run.timeout(timeout).confirm() })])
}

#[derive(Deserialize, JsonSchema)]
struct Arguments {
    /// The command with its arguments.
    command: String,
}

fn describe(options: &ShellOptions) -> String {
    let seconds = options.timeout_seconds;
    if options.shell {
        return format!(
            "Runs a command by sh -c, without input, for at most {seconds} seconds, after a person agreed. Gives its exit \
             code and what it wrote. What it started ends with it, also in the background."
        );
    }
    format!(
        "Runs one program, without input, for at most {seconds} seconds, after a person agreed. Gives its exit code and \
         what it wrote. There is no shell: quotes hold words together, and pipes, variables, patterns and redirections do \
         not work. The programs: {}.",
        options.allow.join(", ")
    )
}

fn machine(options: &ShellOptions) -> Result<Machine, ShellError> {
    if !options.directory.is_dir() {
        return Err(ShellError::Directory(options.directory.clone()));
    }
    let named = |name: &&String| name.is_empty() || name.contains(['=', '\0']);
    if let Some(name) = options.environment.iter().find(named) {
        return Err(ShellError::Variable(name.clone()));
    }
    let timeout = at_most("timeout_seconds", options.timeout_seconds.get(), LONGEST_SECONDS)?;
    let max_output = at_most("max_output_bytes", options.max_output_bytes.get(), MOST_BYTES)?;
    let programs = match (options.shell, options.allow.is_empty()) {
        (true, true) => None,
        (false, false) => Some(programs(options)?),
        (true, false) => return Err(ShellError::Both),
        (false, true) => return Err(ShellError::Nothing),
    };
    Ok(Machine {
        directory: options.directory.clone(),
        programs,
        timeout: Duration::from_secs(u64::from(timeout)),
        max_output: usize::try_from(max_output).unwrap_or(usize::MAX),
        environment: options.environment.clone(),
    })
}

fn at_most(option: &'static str, given: u32, most: u32) -> Result<u32, ShellError> {
    if given > most { Err(ShellError::Limit { option, given, most }) } else { Ok(given) }
}

/// The programs with their places: what is called later is what was there at the start.
fn programs(options: &ShellOptions) -> Result<Vec<Program>, ShellError> {
    let own = options.environment.iter().any(|name| name == "PATH").then(|| std::env::var("PATH").ok()).flatten();
    let path = own.unwrap_or_else(|| USUAL_PATH.to_owned());
    let found = options.allow.iter().map(|name| {
        let place = if name.contains('/') {
            Some(PathBuf::from(name)).filter(|place| place.is_absolute() && is_program(place))
        } else {
            std::env::split_paths(&path)
                .map(|dir| dir.join(name))
                .find(|place| place.is_absolute() && is_program(place))
        };
        match place.filter(|_| !name.is_empty()) {
            Some(place) => Ok(Program { name: name.clone(), place }),
            None => Err(ShellError::Program { program: name.clone(), path: path.clone() }),
        }
    });
    found.collect()
}

fn is_program(place: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    place.metadata().is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

/// The tool, which must ask.
struct RunCommand {
    machine: Arc<Machine>,
    run: FunctionTool,
}

#[async_trait]
impl Tool for RunCommand {
    fn spec(&self) -> &ToolSpec {
        self.run.spec()
    }

    fn must_ask(&self) -> bool {
        true
    }

    fn check(&self, arguments: &Map<String, Value>) -> Result<(), ToolError> {
        // Nobody is asked about a command that cannot run.
        arguments.get("command").and_then(Value::as_str).map_or(Ok(()), |command| self.machine.check(command))
    }

    async fn call(&self, context: ToolContext, arguments: Map<String, Value>) -> Result<ToolOutput, ToolError> {
        self.run.call(context, arguments).await
    }
}
