//! The settings and where they come from: defaults, then `daybook.yaml`, then the environment, then the command line.

use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::ValueEnum;
use figment::Figment;
use figment::providers::Serialized;
use schemars::JsonSchema;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize, Serializer};

/// The file read when none is named.
pub const DEFAULT_FILE: &str = "daybook.yaml";

/// Where `DAYBOOK_MASTER_KEY` is the key for everything personal, as base64.
pub const MASTER_KEY: &str = "DAYBOOK_MASTER_KEY";

/// The names of the environment that mean something, beside `PORT`, `DATABASE_URL`, `RUST_LOG` and the model's.
const NAMES: [&str; 12] = [
    "DAYBOOK_HOST",
    "DAYBOOK_PORT",
    "DAYBOOK_DATABASE_URL",
    "DAYBOOK_DATA_DIR",
    "DAYBOOK_POSTGRES_BIN_DIR",
    "DAYBOOK_CONFIG",
    "DAYBOOK_INSECURE",
    "DAYBOOK_LOG_FORMAT",
    "DAYBOOK_LOG_LEVEL",
    "DAYBOOK_NAME",
    "DAYBOOK_ID",
    MASTER_KEY,
];

/// How a log line looks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// How a server behaves.
#[derive(Debug, Clone, Deserialize)]
#[serde(default)]
pub struct Settings {
    /// The address it listens on.
    pub host: String,
    /// The port; 0 takes a free one.
    pub port: u16,
    /// The PostgreSQL it uses; none runs a private one in `data_dir`.
    pub database_url: Option<SecretString>,
    /// Where the private PostgreSQL and the generated master key are.
    pub data_dir: PathBuf,
    /// The directory with PostgreSQL's programs; none looks in the usual places.
    pub postgres_bin_dir: Option<PathBuf>,
    /// Whether others may reach it although nobody is asked who they are.
    pub insecure: bool,
    /// How log lines look.
    pub log_format: LogFormat,
    /// Which are written, in the form of `RUST_LOG`; none asks `RUST_LOG`, then takes `info`.
    pub log_level: Option<String>,
    /// The server's id.
    pub id: String,
    /// Its name for people.
    pub name: String,
    /// What it is.
    pub description: Option<String>,
    /// The version of what it serves, as its owner counts.
    pub version: String,
    /// The id its database has on the wire.
    pub db_id: String,
    /// The web origins whose scripts may call it.
    pub cors_origins: Vec<String>,
    /// Names, beside the built-in ones, whose values never enter the log.
    pub redact: Vec<String>,
    /// The most it takes on.
    pub limits: Limits,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            host: "127.0.0.1".to_owned(),
            port: 8000,
            database_url: None,
            data_dir: PathBuf::from(".daybook"),
            postgres_bin_dir: None,
            insecure: false,
            log_format: LogFormat::Text,
            log_level: None,
            id: "daybook".to_owned(),
            name: "Daybook".to_owned(),
            description: None,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            db_id: "main-db".to_owned(),
            cors_origins: daybook_rest::DEFAULT_CORS_ORIGINS.iter().map(|origin| (*origin).to_owned()).collect(),
            redact: Vec::new(),
            limits: Limits::default(),
        }
    }
}

/// The most a server takes on.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Limits {
    /// The largest request body, in megabytes (of 1,048,576 bytes).
    pub max_body_mb: NonZeroU32,
    /// The most runs held at once, waiting ones included.
    pub max_runs: NonZeroU32,
    /// How long running tools and open requests may finish when the server stops, in seconds.
    pub shutdown_seconds: u32,
    /// The most connections to the database.
    pub database_connections: NonZeroU32,
}

impl Default for Limits {
    fn default() -> Self {
        const fn some(n: u32) -> NonZeroU32 {
            match NonZeroU32::new(n) {
                Some(n) => n,
                None => NonZeroU32::MIN,
            }
        }
        Self { max_body_mb: some(100), max_runs: some(10_000), shutdown_seconds: 10, database_connections: some(16) }
    }
}

impl Limits {
    /// The largest request body, in bytes.
    pub fn max_body_bytes(&self) -> usize {
        usize::try_from(self.max_body_mb.get()).unwrap_or(usize::MAX).saturating_mul(1 << 20)
    }

    /// How long running tools and open requests may finish when the server stops.
    pub fn grace(&self) -> Duration {
        Duration::from_secs(u64::from(self.shutdown_seconds))
    }
}

/// Settings as one source gives them: what is absent leaves the earlier source's value.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Layer {
    /// The address to listen on; 127.0.0.1 unless said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) host: Option<String>,
    /// The port; 8000 unless said, and 0 takes a free one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) port: Option<u16>,
    /// The PostgreSQL to use, such as postgres://user:password@host:5432/database; a private one unless said.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "exposed")]
    #[schemars(with = "Option<String>")]
    pub(crate) database_url: Option<SecretString>,
    /// Where the private PostgreSQL and the generated master key are; .daybook unless said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) data_dir: Option<PathBuf>,
    /// Where PostgreSQL's programs are; looked for in the usual places unless said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) postgres_bin_dir: Option<PathBuf>,
    /// Allow an address that other machines can reach, although nobody is asked who they are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) insecure: Option<bool>,
    /// How log lines look; text unless said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) log_format: Option<LogFormat>,
    /// What is logged: error, warn, info, debug, trace, or a filter such as info,daybook_store=debug.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) log_level: Option<String>,
    /// The server's id; daybook unless said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) id: Option<String>,
    /// Its name for people; Daybook unless said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) name: Option<String>,
    /// What it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) description: Option<String>,
    /// The version of what it serves, as you count.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) version: Option<String>,
    /// The name clients know the database by; main-db unless said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) db_id: Option<String>,
    /// The web pages that may call it, such as https://example.com, or "*" for all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cors_origins: Option<Vec<String>>,
    /// Names whose values never enter the log, beside the usual ones.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) redact: Option<Vec<String>>,
    /// The most it takes on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) limits: Option<LimitsLayer>,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct LimitsLayer {
    /// The largest request, in MB of 1,048,576 bytes; 100 unless said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) max_body_mb: Option<NonZeroU32>,
    /// The most runs this node holds at once, waiting ones included; 10000 unless said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) max_runs: Option<NonZeroU32>,
    /// How long running tools and open requests may finish at a stop; 10 unless said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) shutdown_seconds: Option<u32>,
    /// The most connections to the database; 16 unless said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) database_connections: Option<NonZeroU32>,
}

/// Only ever into the next layer, in memory.
#[expect(clippy::ref_option, reason = "serde calls it with a reference to the field")]
fn exposed<S: Serializer>(secret: &Option<SecretString>, serializer: S) -> Result<S::Ok, S::Error> {
    secret.as_ref().map(ExposeSecret::expose_secret).serialize(serializer)
}

/// Why the settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A variable of the environment.
    #[error("the environment's {name} is {value:?}, but must be {expected}")]
    Environment {
        /// Its name.
        name: &'static str,
        /// What it holds.
        value: String,
        /// What it should hold.
        expected: &'static str,
    },
    /// The layers do not fit together.
    #[error("the settings cannot be used: {0}")]
    Layers(#[source] Box<figment::Error>),
    /// The definitions cannot be read.
    #[error("{} cannot be read ({source}); name another file with --config, or as the argument of check", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// There are no definitions.
    #[error("there is no {DEFAULT_FILE} here: write one with `daybook init`, or name another file")]
    NoFile,
    /// What would be written over.
    #[error("{} is there already; --force writes over it", .0.display())]
    Exists(PathBuf),
    /// A file cannot be written.
    #[error("{} cannot be written ({source}); name another place", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The definitions are no text.
    #[error("{}:{line}:{column}: the file is not UTF-8 text from here on; save it as UTF-8", path.display())]
    NotText {
        /// The file.
        path: PathBuf,
        /// Where it stops being text: the line, from 1.
        line: usize,
        /// The column, from 1.
        column: usize,
    },
    /// The log level.
    #[error("{0:?} is not a log level; use error, warn, info, debug or trace, or a filter like info,daybook=debug")]
    LogLevel(String),
}

impl Layer {
    /// The names of the settings it gives.
    pub(crate) fn names(&self) -> Vec<String> {
        match serde_json::to_value(self) {
            Ok(serde_json::Value::Object(settings)) => settings.into_iter().map(|(name, _)| name).collect(),
            _ => Vec::new(),
        }
    }

    /// The names of the settings that are not the same in `other`, in alphabetical order.
    pub(crate) fn names_that_differ(&self, other: &Self) -> Vec<String> {
        let values = |layer: &Self| serde_json::to_value(layer).unwrap_or_default();
        let (ours, theirs) = (values(self), values(other));
        let mut names = self.names();
        names.extend(other.names());
        names.retain(|name| ours.get(name) != theirs.get(name));
        names.sort();
        names.dedup();
        names
    }

    /// The settings that the environment gives; `get` looks a variable up. Empty ones count as absent.
    ///
    /// # Errors
    /// [`ConfigError::Environment`] names the variable and what it should hold.
    pub fn from_environment(get: impl Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        let text = |name: &str| get(name).filter(|value| !value.trim().is_empty());
        Ok(Self {
            host: text("DAYBOOK_HOST"),
            port: match parsed("DAYBOOK_PORT", &text, "a port from 0 to 65535")? {
                None => parsed("PORT", &text, "a port from 0 to 65535")?,
                port => port,
            },
            database_url: text("DAYBOOK_DATABASE_URL").or_else(|| text("DATABASE_URL")).map(SecretString::from),
            data_dir: text("DAYBOOK_DATA_DIR").map(PathBuf::from),
            postgres_bin_dir: text("DAYBOOK_POSTGRES_BIN_DIR").map(PathBuf::from),
            insecure: parsed("DAYBOOK_INSECURE", &text, "true or false")?,
            log_format: text("DAYBOOK_LOG_FORMAT").map(log_format).transpose()?,
            log_level: text("DAYBOOK_LOG_LEVEL"),
            id: text("DAYBOOK_ID"),
            name: text("DAYBOOK_NAME"),
            ..Self::default()
        })
    }
}

fn parsed<T: std::str::FromStr>(
    name: &'static str,
    get: &impl Fn(&str) -> Option<String>,
    expected: &'static str,
) -> Result<Option<T>, ConfigError> {
    let Some(value) = get(name) else { return Ok(None) };
    value.trim().parse().map(Some).map_err(|_| ConfigError::Environment { name, value, expected })
}

fn log_format(value: String) -> Result<LogFormat, ConfigError> {
    LogFormat::from_str(value.trim(), true).map_err(|_| ConfigError::Environment {
        name: "DAYBOOK_LOG_FORMAT",
        value,
        expected: "text or json",
    })
}

impl Settings {
    /// The defaults, overridden by each layer in turn.
    ///
    /// # Errors
    /// [`ConfigError::Layers`] when they do not fit together.
    pub fn from_layers(layers: impl IntoIterator<Item = Layer>) -> Result<Self, ConfigError> {
        let figment = layers.into_iter().fold(Figment::new(), |all, layer| all.merge(Serialized::defaults(layer)));
        figment.extract().map_err(|error| ConfigError::Layers(Box::new(error)))
    }
}

/// The variables named like Daybook's that mean nothing to it: misspelt, most likely.
pub fn unknown_names(names: impl Iterator<Item = String>) -> Vec<String> {
    names.filter(|name| name.starts_with("DAYBOOK_") && !NAMES.contains(&name.as_str())).collect()
}

/// The text of the definitions: of `named`, or of [`DEFAULT_FILE`] when it is there.
///
/// # Errors
/// [`ConfigError::File`] when the file cannot be read, or is named and absent, [`ConfigError::NotText`] when it is none.
pub fn read_definitions(named: Option<&Path>) -> Result<Option<(PathBuf, String)>, ConfigError> {
    let path = named.unwrap_or(Path::new(DEFAULT_FILE));
    match std::fs::read(path) {
        Ok(bytes) => Ok(Some((path.to_owned(), text_of(bytes, path)?))),
        Err(error) if named.is_none() && error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(ConfigError::File { path: path.to_owned(), source }),
    }
}

fn text_of(bytes: Vec<u8>, path: &Path) -> Result<String, ConfigError> {
    String::from_utf8(bytes).map_err(|error| {
        let (before, _) = error.as_bytes().split_at(error.utf8_error().valid_up_to());
        let before = String::from_utf8_lossy(before);
        let column = before.rsplit('\n').next().map_or(0, |line| line.chars().count()) + 1;
        ConfigError::NotText { path: path.to_owned(), line: before.matches('\n').count() + 1, column }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(pairs: &[(&str, &str)]) -> Result<Layer, ConfigError> {
        let pairs: Vec<_> = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Layer::from_environment(|name| pairs.iter().find(|pair| pair.0 == name).map(|pair| pair.1.clone()))
    }

    #[test]
    fn later_layers_override_earlier_ones_setting_by_setting() {
        let limits = LimitsLayer { max_runs: NonZeroU32::new(7), ..LimitsLayer::default() };
        let file = Layer {
            host: Some("file".to_owned()),
            port: Some(1),
            name: Some("Mine".to_owned()),
            limits: Some(limits),
            ..Layer::default()
        };
        let environment = environment(&[("DAYBOOK_PORT", "2"), ("DATABASE_URL", "postgres://u:p@h/d")]).unwrap();
        let flags = Layer { port: Some(3), ..Layer::default() };
        let settings = Settings::from_layers([file, environment, flags]).unwrap();
        assert_eq!((settings.host.as_str(), settings.port, settings.name.as_str()), ("file", 3, "Mine"));
        assert_eq!(settings.database_url.unwrap().expose_secret(), "postgres://u:p@h/d");
        assert_eq!(settings.limits.max_runs.get(), 7);
        assert_eq!(settings.limits.max_body_bytes(), 100 << 20);
        assert_eq!(settings.data_dir, PathBuf::from(".daybook"));
    }

    #[test]
    fn the_environment_is_read_by_name_and_texts_stay_texts() {
        let layer = environment(&[
            ("PORT", "9000"),
            ("DAYBOOK_NAME", "123"),
            ("DAYBOOK_INSECURE", "true"),
            ("DAYBOOK_LOG_FORMAT", "JSON"),
            ("DAYBOOK_HOST", ""),
        ]);
        let settings = Settings::from_layers([layer.unwrap()]).unwrap();
        assert_eq!((settings.port, settings.name.as_str(), settings.insecure), (9000, "123", true));
        assert_eq!((settings.log_format, settings.host.as_str()), (LogFormat::Json, "127.0.0.1"));
        let own = environment(&[("PORT", "9000"), ("DAYBOOK_PORT", "9001")]).unwrap();
        assert_eq!(own.port, Some(9001), "the name of its own wins");
    }

    #[test]
    fn a_wrong_variable_is_named_with_what_it_should_hold() {
        let error = environment(&[("PORT", "many")]).unwrap_err().to_string();
        assert_eq!(error, "the environment's PORT is \"many\", but must be a port from 0 to 65535");
        let error = environment(&[("DAYBOOK_LOG_FORMAT", "xml")]).unwrap_err().to_string();
        assert!(error.contains("DAYBOOK_LOG_FORMAT") && error.contains("text or json"), "{error}");
    }

    #[test]
    fn misspelt_names_are_found_and_secrets_are_not_shown() {
        let names = ["DAYBOOK_PROT", "DAYBOOK_PORT", "HOME", "DAYBOOK_MASTER_KEY"].map(str::to_owned);
        assert_eq!(unknown_names(names.into_iter()), ["DAYBOOK_PROT"]);
        let layer = environment(&[("DATABASE_URL", "postgres://u:hush@h/d")]).unwrap();
        assert!(!format!("{layer:?}").contains("hush"));
        assert!(!format!("{:?}", Settings::from_layers([layer]).unwrap()).contains("hush"));
    }

    #[test]
    fn a_named_file_must_be_there() {
        let error = read_definitions(Some(Path::new("no/such/file.yaml"))).unwrap_err().to_string();
        assert!(error.contains("no/such/file.yaml") && error.contains("--config"), "{error}");
    }

    #[test]
    fn a_file_that_is_no_text_has_a_place() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), b"server:\n  name: \xc3\xbc\xff\n").unwrap();
        let error = read_definitions(Some(file.path())).unwrap_err().to_string();
        assert!(error.starts_with(&format!("{}:2:10: the file is not UTF-8", file.path().display())), "{error}");
    }
}
