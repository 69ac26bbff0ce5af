//! The command line.

use std::io::Write as _;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use secrecy::SecretString;

use crate::agent::built_in_tools;
use crate::builder::Builder;
use crate::config::{ConfigError, DEFAULT_FILE, Layer, LogFormat, Settings, unknown_names};
use crate::database::Database;
use crate::definitions::Definitions;
use crate::error::Error;
use crate::reload::{Source, definitions};
use crate::server::{Daybook, Running, Signals, is_open_to_others};
use crate::{demo, doctor, graph, init, logging, sources};

/// Shown below the options: what people want to do first.
const EXAMPLES: &str = "\
Examples:
  daybook demo                              try it: built-in agents, its own database, no key needed
  daybook init                              write a daybook.yaml to begin with
  daybook check                             what is wrong in daybook.yaml, and what it would serve
  daybook graph my-team                     what a component is made of, as a Mermaid flowchart
  daybook doctor                            what is set up, what is wrong, how to mend it
  daybook serve                             serve the agents of daybook.yaml on http://127.0.0.1:8000
  daybook serve --port 9000 --config my.yaml
  DATABASE_URL=postgres://me:secret@db/daybook DAYBOOK_MASTER_KEY=... daybook serve

Settings come from defaults, then daybook.yaml, then the environment, then these options.";

const SERVE_EXAMPLES: &str = "\
Examples:
  daybook serve
  daybook serve --port 0 --data-dir /var/lib/my-daybook      a free port, another place for its data
  daybook serve --log-level info,daybook_engine=debug --log-format json
  daybook serve --host 0.0.0.0 --insecure                     only where something else guards it

The environment: DAYBOOK_HOST, DAYBOOK_PORT or PORT, DATABASE_URL, DAYBOOK_DATA_DIR, DAYBOOK_CONFIG,
DAYBOOK_MASTER_KEY, DAYBOOK_LOG_LEVEL or RUST_LOG, DAYBOOK_LOG_FORMAT, DAYBOOK_INSECURE, DAYBOOK_NAME, DAYBOOK_ID,
DAYBOOK_POSTGRES_BIN_DIR, and OPENAI_API_KEY, OPENAI_BASE_URL, OPENAI_MODEL where daybook.yaml defines no model.";

const DOCTOR_HELP: &str = "\
It looks at the definitions, the address, open files, free room, PostgreSQL (rights, migrations, clock), the master key,
the models' servers, the views and the nodes; beside a running server too. A private PostgreSQL that does not run is not
started, so what is in it is looked at only while a server runs. No key and no password is shown.

Ends with 0 when there is no problem, with 1 when there is one.";

/// An agent server that records everything in one append-only log.
#[derive(Debug, Parser)]
#[command(name = "daybook", version, after_help = EXAMPLES, max_term_width = 110)]
pub struct Cli {
    #[command(subcommand)]
    command: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Serve the agents of daybook.yaml.
    #[command(after_help = SERVE_EXAMPLES)]
    Serve(ServeOptions),
    /// Try it: serve built-in agents on a scripted model, and show what to do with them.
    #[command(after_help = "With OPENAI_API_KEY (and OPENAI_BASE_URL, OPENAI_MODEL) set, a real model answers.")]
    Demo(Options),
    /// Write a daybook.yaml to begin with: commented, and working as it is.
    Init {
        /// Where to write it
        #[arg(value_name = "FILE", default_value = DEFAULT_FILE)]
        file: PathBuf,
        /// Write over a file that is there
        #[arg(long)]
        force: bool,
    },
    /// Tell everything that is wrong in the definitions, and what they would serve.
    #[command(after_help = "Ends with 0 when the file is right, with 2 when it is not.")]
    Check {
        /// The definitions [default: daybook.yaml, or DAYBOOK_CONFIG]
        #[arg(value_name = "FILE")]
        file: Option<PathBuf>,
        /// The same, as other commands have it
        #[arg(long, value_name = "FILE", conflicts_with = "file")]
        config: Option<PathBuf>,
    },
    /// Print what a component of daybook.yaml is made of, as a Mermaid flowchart.
    Graph {
        /// Its id, or agent:ID, team:ID, workflow:ID where several have it [default: all, and who uses whom]
        component: Option<String>,
        /// The definitions [default: daybook.yaml, or DAYBOOK_CONFIG]
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
    /// Tell what is set up, what is wrong and how to mend it. Changes and starts nothing.
    #[command(after_help = DOCTOR_HELP)]
    Doctor {
        #[command(flatten)]
        options: ServeOptions,
        /// Print it as JSON
        #[arg(long)]
        json: bool,
    },
    /// Print the JSON Schema of daybook.yaml, for editors and other tools.
    Schema,
    /// Bring the database to this program's version, and end. `serve` does it too, at its start.
    Migrate(ServeOptions),
    /// Print the versions of the program and of the API it serves.
    Version,
}

#[derive(Debug, Args)]
struct ServeOptions {
    #[command(flatten)]
    options: Options,
    /// The definitions: models, agents, settings [default: daybook.yaml, where there is one]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct Options {
    /// The address to listen on [default: 127.0.0.1]
    #[arg(long)]
    host: Option<String>,
    /// The port; 0 takes a free one [default: 8000]
    #[arg(long, short)]
    port: Option<u16>,
    /// The PostgreSQL to use [default: a private one in the data directory]
    #[arg(long, value_name = "URL")]
    database_url: Option<String>,
    /// Where the private PostgreSQL and the generated master key are [default: .daybook]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Where PostgreSQL's programs are [default: looked for in the usual places]
    #[arg(long, value_name = "DIR")]
    postgres_bin_dir: Option<PathBuf>,
    /// Allow an address that other machines can reach, although nobody is asked who they are
    #[arg(long)]
    insecure: bool,
    /// How log lines look [default: text]
    #[arg(long, value_enum)]
    log_format: Option<LogFormat>,
    /// What is logged: error, warn, info, debug, trace, or a filter such as info,daybook_store=debug [default: info]
    #[arg(long, value_name = "LEVEL")]
    log_level: Option<String>,
}

impl From<Options> for Layer {
    fn from(options: Options) -> Self {
        Self {
            host: options.host,
            port: options.port,
            database_url: options.database_url.map(SecretString::from),
            data_dir: options.data_dir,
            postgres_bin_dir: options.postgres_bin_dir,
            insecure: options.insecure.then_some(true),
            log_format: options.log_format,
            log_level: options.log_level,
            ..Self::default()
        }
    }
}

/// Does what the command line says.
///
/// # Errors
/// [`Error`], in one sentence for standard error; its exit code is [`Error::exit_code`].
pub async fn run(cli: Cli) -> Result<(), Error> {
    match cli.command {
        Verb::Version => say(&format!("daybook {}\nAgentOS API 3.1.10\n", env!("CARGO_PKG_VERSION"))),
        Verb::Serve(options) => Box::pin(serve(options)).await,
        Verb::Demo(options) => Box::pin(serve_demo(options)).await,
        Verb::Migrate(options) => Box::pin(migrate(options)).await,
        Verb::Init { file, force } => say(&init::write(&file, force)?),
        Verb::Check { file, config } => check(file.or(config)).await,
        Verb::Graph { component, config } => print_graph(config, component.as_deref()),
        Verb::Doctor { options, json } => Box::pin(doctor(options, json)).await,
        Verb::Schema => say(&format!("{:#}\n", crate::schema())),
    }
}

async fn check(file: Option<PathBuf>) -> Result<(), Error> {
    let (path, definitions) = definitions(named(file).as_ref())?.ok_or(ConfigError::NoFile)?;
    let settings = Settings::from_layers([definitions.server.clone(), environment()?])?;
    if is_open_to_others(&settings) {
        return Err(definitions.places.blame(Error::Public(settings.host)));
    }
    sources::check_local(&definitions.sources, &built_in_tools()).await?;
    say(&init::summary(&path, &definitions, &settings)?)
}

fn print_graph(file: Option<PathBuf>, component: Option<&str>) -> Result<(), Error> {
    let (_, definitions) = definitions(named(file).as_ref())?.ok_or(ConfigError::NoFile)?;
    say(&graph::mermaid(&definitions, component).map_err(Error::Graph)?)
}

async fn doctor(options: ServeOptions, json: bool) -> Result<(), Error> {
    let report = doctor::examine(named(options.config), Layer::from(options.options), variable).await;
    say(&if json { report.json() } else { report.to_string() })?;
    if report.has_problems() { Err(Error::Unwell) } else { Ok(()) }
}

async fn serve(options: ServeOptions) -> Result<(), Error> {
    let Loaded { settings, mut definitions, source } = load(options)?;
    let places = std::mem::take(&mut definitions.places);
    let idle = definitions.is_idle();
    let builder = Daybook::builder().settings(settings).definitions(definitions)?;
    let signals = Signals::listen()?.and_hangups()?;
    let started = start(builder, signals).await.map_err(|error| places.blame(error))?;
    let Some((running, signals)) = started else { return Ok(()) };
    if idle {
        tracing::warn!(
            "no agents, teams or workflows are defined: write daybook.yaml (see docs/definitions.md), or try `daybook demo`"
        );
    }
    let address = running.address();
    say(&format!("Daybook is ready at http://{address} (API: http://{address}/docs)\n"))?;
    running.until(signals, async |running| source.reload(running).await).await
}

async fn serve_demo(options: Options) -> Result<(), Error> {
    let settings = Settings::from_layers([environment()?, options.into()])?;
    logging::start(&settings)?;
    let builder = demo::agents(Daybook::builder().settings(settings));
    let Some((running, signals)) = start(builder, Signals::listen()?).await? else { return Ok(()) };
    say(&demo::what_to_try(running.address(), std::process::id()))?;
    running.until(signals, async |_| ()).await
}

async fn migrate(options: ServeOptions) -> Result<(), Error> {
    let Loaded { settings, definitions, .. } = load(options)?;
    let work = Box::pin(async {
        let database = Database::open(&settings, None).await?;
        let outcome = database.store.migrate(None).await;
        database.close().await?;
        Ok(outcome?)
    });
    Signals::listen()?.finish(work).await.map_err(|error| definitions.places.blame(error))?;
    say("The database is at this program's version.\n")
}

/// Starts the server; `None` when a signal came first, and then all that was opened is closed again.
async fn start(builder: Builder, mut signals: Signals) -> Result<Option<(Running, Signals)>, Error> {
    let (daybook, stopped) = signals.finish(Box::pin(builder.build())).await?;
    if !stopped {
        return Ok(Some((daybook.start(), signals)));
    }
    tokio::select! {
        closed = daybook.close() => closed?,
        _ = signals.next() => return Err(Error::Forced),
    }
    tracing::info!("stopped before it served");
    Ok(None)
}

/// What all sources together say.
struct Loaded {
    settings: Settings,
    definitions: Definitions,
    source: Source,
}

/// The settings and definitions of all sources; starts logging, so that what follows can tell.
fn load(options: ServeOptions) -> Result<Loaded, Error> {
    let named = named(options.config);
    let mut definitions = definitions(named.as_ref())?.map(|(_, definitions)| definitions).unwrap_or_default();
    let (environment, flags) = (environment()?, Layer::from(options.options));
    definitions.places.forget(&environment);
    definitions.places.forget(&flags);
    let overridden = [environment.names(), flags.names()].concat();
    let source = Source { named, started_with: definitions.server.clone(), overridden };
    let settings = Settings::from_layers([definitions.server.clone(), environment, flags])?;
    logging::start(&settings)?;
    let names = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    for name in unknown_names(names) {
        tracing::warn!(name, "this variable of the environment means nothing to Daybook; is it misspelt?");
    }
    Ok(Loaded { settings, definitions, source })
}

/// The file that is named by an option or the environment.
fn named(option: Option<PathBuf>) -> Option<PathBuf> {
    option.or_else(|| variable("DAYBOOK_CONFIG").map(PathBuf::from))
}

fn environment() -> Result<Layer, Error> {
    Ok(Layer::from_environment(variable)?)
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.trim().is_empty())
}

fn say(text: &str) -> Result<(), Error> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        // Whoever closed the pipe does not want to know.
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Error::Io { doing: "standard output cannot be written", source: error })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    fn layer(arguments: &[&str]) -> Layer {
        match Cli::try_parse_from(arguments).unwrap().command {
            Verb::Serve(options) => options.options.into(),
            Verb::Demo(options) => options.into(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_command_line_is_well_formed_and_teaches() {
        Cli::command().debug_assert();
        let help = Cli::try_parse_from(["daybook", "--help"]).unwrap_err().to_string();
        for word in ["serve", "demo", "migrate", "version", "DATABASE_URL", "daybook.yaml"] {
            assert!(help.contains(word), "{word} is not in:\n{help}");
        }
        let help = Cli::try_parse_from(["daybook", "serve", "--help"]).unwrap_err().to_string();
        for word in ["--insecure", "--data-dir", "PORT", "DAYBOOK_MASTER_KEY", "RUST_LOG"] {
            assert!(help.contains(word), "{word} is not in:\n{help}");
        }
    }

    #[test]
    fn options_become_settings_and_what_is_not_said_stays_open() {
        let flags = layer(&["daybook", "serve", "--port", "9", "--insecure", "--log-format", "json"]);
        let file = Layer { host: Some("localhost".to_owned()), port: Some(1), ..Layer::default() };
        let settings = Settings::from_layers([file.clone(), flags]).unwrap();
        assert_eq!((settings.port, settings.insecure, settings.log_format), (9, true, LogFormat::Json));
        assert_eq!(settings.host, "localhost");
        let insecure = Layer { insecure: Some(true), ..file };
        let settings = Settings::from_layers([insecure, layer(&["daybook", "demo"])]).unwrap();
        assert!(settings.insecure, "an absent flag takes nothing back");
    }

    #[test]
    fn wrong_options_are_told() {
        for (arguments, word) in [
            (&["daybook", "serve", "--port", "99999"][..], "--port"),
            (&["daybook", "serve", "--log-format", "xml"], "json"),
            (&["daybook", "demo", "--config", "x"], "--config"),
            (&["daybook", "surf"], "surf"),
        ] {
            let error = Cli::try_parse_from(arguments).unwrap_err();
            assert!(error.to_string().contains(word), "{error}");
            assert_eq!(error.exit_code(), 2);
        }
    }

    #[test]
    fn a_named_file_that_is_absent_or_wrong_ends_the_start() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("my.yaml");
        let options = || match Cli::try_parse_from(["daybook", "serve", "--config", path.to_str().unwrap()]) {
            Ok(Cli { command: Verb::Serve(options) }) => options,
            other => panic!("{other:?}"),
        };
        let absent = load(options()).map(|_| ()).unwrap_err();
        assert!(absent.to_string().contains("my.yaml"), "{absent}");
        std::fs::write(&path, "agents:\n  - id: a\n    modle: x\n").unwrap();
        let wrong = load(options()).map(|_| ()).unwrap_err();
        assert!(wrong.to_string().contains("my.yaml:3:5: unknown field `modle`"), "{wrong}");
        assert_eq!((absent.exit_code(), wrong.exit_code()), (2, 2));
    }
}
