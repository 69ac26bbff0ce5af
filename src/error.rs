//! What can go wrong between the command line and a serving server, told so that a person can mend it.

use std::net::SocketAddr;
use std::time::Duration;

use daybook_engine::{ExecuteError, RegistryError};
use daybook_models::SetupError;
use daybook_rest::RoutesError;
use daybook_store::embedded::EmbeddedError;
use daybook_store::{MigrateError, StoreError};

use crate::config::ConfigError;
use crate::definitions::DefinitionsError;
use crate::sources::SourcesError;

/// Why Daybook did not start, or did not end well.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A setting is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The definitions are wrong.
    #[error(transparent)]
    Definitions(#[from] DefinitionsError),
    /// An agent, given in code, is wrong.
    #[error("agent {agent:?}: {fault}")]
    Agent {
        /// The agent's id.
        agent: String,
        /// What is wrong with it.
        fault: String,
    },
    /// A team, given in code, is wrong.
    #[error("team {team:?}: {fault}")]
    Team {
        /// The team's id.
        team: String,
        /// What is wrong with it.
        fault: String,
    },
    /// A workflow, given in code, is wrong.
    #[error("workflow {workflow:?}: {fault}")]
    Workflow {
        /// The workflow's id.
        workflow: String,
        /// What is wrong with it.
        fault: String,
    },
    /// There is no such component to be drawn.
    #[error("{0}")]
    Graph(String),
    /// Tools do not fit together.
    #[error("{0}")]
    Tools(String),
    /// The tools of sources are not there.
    #[error(transparent)]
    Sources(#[from] SourcesError),
    /// The agents do not fit together.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// A model cannot be set up.
    #[error("model {name:?}: {source}")]
    Model {
        /// The model's name in the definitions.
        name: String,
        /// What is wrong with it.
        source: SetupError,
    },
    /// The address is one that others can reach, and nobody would be asked who they are.
    #[error(
        "{0} can be reached from other machines, and this server asks nobody who they are; \
         keep --host 127.0.0.1, or say --insecure if something else guards it"
    )]
    Public(String),
    /// The address is not one of this machine.
    #[error("{host:?} is not an address to listen on ({source}); try --host 127.0.0.1")]
    Host {
        /// What was given.
        host: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// The port is taken, or not allowed.
    #[error("cannot listen on {address} ({source}); stop what uses it or choose another port with --port")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// A database of somebody's own, and no key for what is personal in it.
    #[error(
        "DATABASE_URL is set but no master key: make one with `openssl rand -base64 32`, keep it safe, and give it to \
         every node as DAYBOOK_MASTER_KEY (without it nothing personal in the log can ever be read again)"
    )]
    NoMasterKey,
    /// The embedded PostgreSQL.
    #[error(transparent)]
    Embedded(#[from] EmbeddedError),
    /// The log.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The database answered, and does not let this program in.
    #[error("the database refused: {0}; check that DATABASE_URL names the right user, password and database")]
    Refused(String),
    /// An error that a setting of the definitions file leads to.
    #[error("{place}: {source}")]
    Placed {
        /// The setting's file, line and column, with colons between.
        place: String,
        /// The error.
        source: Box<Self>,
    },
    /// A migration that was asked for.
    #[error(transparent)]
    Migrate(#[from] MigrateError),
    /// The engine.
    #[error("the engine did not start: {0}")]
    Engine(#[from] ExecuteError),
    /// Routes of the program do not fit beside Daybook's.
    #[error(transparent)]
    Routes(#[from] RoutesError),
    /// What the program wanted done at the start was not.
    #[error("on_start: {0}")]
    Hook(String),
    /// Something keeps the server from working; told already.
    #[error("there are problems: see above how to mend them")]
    Unwell,
    /// The server did not stop in time.
    #[error(
        "the server did not stop within {0:?} and was cut off; the log is whole, and running work goes on elsewhere \
             or at the next start"
    )]
    Slow(Duration),
    /// The network, or a system call.
    #[error("{doing}: {source}")]
    Io {
        /// What was tried.
        doing: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
    /// A second signal came while the server was stopping.
    #[error("stopped at once by a second signal; the log is whole, and running work continues at the next start")]
    Forced,
}

impl Error {
    /// The process's exit code: 2 when something given to it is wrong, 1 when the world is.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Config(_)
            | Self::Definitions(_)
            | Self::Agent { .. }
            | Self::Team { .. }
            | Self::Workflow { .. }
            | Self::Graph(_)
            | Self::Tools(_)
            | Self::Registry(_)
            | Self::Routes(_)
            | Self::Model { .. }
            | Self::Public(_)
            | Self::Host { .. }
            | Self::NoMasterKey
            | Self::Refused(_)
            | Self::Embedded(EmbeddedError::BadBinDir { .. } | EmbeddedError::BadDir { .. })
            | Self::Store(StoreError::WrongMasterKey | StoreError::BadMasterKey(_) | StoreError::BadUrl(_)) => 2,
            Self::Placed { source, .. } => source.exit_code(),
            Self::Sources(error) if error.is_of_definitions() => 2,
            _ => 1,
        }
    }

    /// The setting that leads to it, by its name in the definitions file.
    pub(crate) fn setting(&self) -> Option<&'static str> {
        match self {
            Self::Host { .. } | Self::Public(_) => Some("host"),
            Self::Config(ConfigError::LogLevel(_)) => Some("log_level"),
            Self::Embedded(EmbeddedError::BadBinDir { .. }) => Some("postgres_bin_dir"),
            Self::Embedded(EmbeddedError::BadDir { .. }) => Some("data_dir"),
            Self::Refused(_) | Self::Store(StoreError::BadUrl(_)) => Some("database_url"),
            _ => None,
        }
    }

    /// For `map_err`: names what was tried.
    pub(crate) fn io(doing: &'static str) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::Io { doing, source }
    }
}
