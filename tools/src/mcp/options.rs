//! What a person writes about an MCP server, and what becomes of it.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use schemars::JsonSchema;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use url::Url;

use crate::secrets::Secrets;

/// The longest time that may be asked for, in seconds.
const MAX_SECONDS: u64 = 86_400;

/// Headers that the protocol itself sets.
const RESERVED: [&str; 6] =
    ["accept", "content-type", "content-length", "mcp-session-id", "mcp-protocol-version", "last-event-id"];

/// An MCP server: either a program to start (`command`) or an address (`url`).
#[derive(Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct McpOptions {
    /// The program and its arguments, for a server that is spoken to by standard input and output.
    #[serde(default)]
    pub command: Option<Vec<String>>,
    /// Environment variables of the program. It gets these and PATH, HOME, LANG and the like; no others of Daybook's.
    #[serde(default)]
    #[schemars(with = "BTreeMap<String, String>")]
    pub env: BTreeMap<String, SecretString>,
    /// The directory the program starts in; Daybook's own when left out.
    #[serde(default)]
    pub directory: Option<PathBuf>,
    /// The address of a server that is spoken to by streamable HTTP.
    #[serde(default)]
    pub url: Option<String>,
    /// Headers of every request to the address, such as Authorization.
    #[serde(default)]
    #[schemars(with = "BTreeMap<String, String>")]
    pub headers: BTreeMap<String, SecretString>,
    /// Seconds within which the server must have answered the greeting, and later each listing of its tools.
    #[serde(default = "thirty")]
    pub connect_timeout_seconds: u64,
    /// The longest one call of a tool may take, in seconds.
    #[serde(default = "sixty")]
    pub call_timeout_seconds: u64,
}

fn thirty() -> u64 {
    30
}

fn sixty() -> u64 {
    60
}

impl McpOptions {
    /// A server that is started as a program: its name or path, and its arguments.
    pub fn command<I>(command: I) -> Self
    where
        I: IntoIterator,
        I::Item: Into<String>,
    {
        Self { command: Some(command.into_iter().map(Into::into).collect()), ..Self::empty() }
    }

    /// A server at an address.
    pub fn url(url: impl Into<String>) -> Self {
        Self { url: Some(url.into()), ..Self::empty() }
    }

    fn empty() -> Self {
        Self {
            command: None,
            env: BTreeMap::new(),
            directory: None,
            url: None,
            headers: BTreeMap::new(),
            connect_timeout_seconds: thirty(),
            call_timeout_seconds: sixty(),
        }
    }

    /// Looks at what was written, without connecting.
    ///
    /// # Errors
    /// What is wrong and how to mend it, in words that hold no values of `env` or `headers`.
    pub fn check(&self) -> Result<(), String> {
        self.endpoint().map(drop)
    }

    /// Whether the program, if it is one, and its directory are on this machine now.
    ///
    /// # Errors
    /// What is missing and how to mend it.
    pub fn check_program(&self) -> Result<(), String> {
        let Some(program) = self.command.as_ref().and_then(|command| command.first()) else { return Ok(()) };
        if let Some(directory) = self.directory.as_ref().filter(|directory| !directory.is_dir()) {
            return Err(format!("directory: {} is not a directory: create it, or name another", directory.display()));
        }
        let places: Vec<PathBuf> = if program.contains('/') {
            // As the system finds it: from the directory it starts in.
            vec![self.directory.clone().unwrap_or_default().join(program)]
        } else {
            let path = std::env::var_os("PATH").unwrap_or_default();
            std::env::split_paths(&path).map(|directory| directory.join(program)).collect()
        };
        match places.iter().any(|place| place.is_file()) {
            true => Ok(()),
            false => Err(super::child::no_program(program)),
        }
    }

    pub(super) fn connect_timeout(&self) -> Duration {
        Duration::from_secs(self.connect_timeout_seconds)
    }

    /// What the values are that must not be shown.
    pub(super) fn secrets(&self) -> Secrets {
        Secrets::new(self.env.values().chain(self.headers.values()).map(ExposeSecret::expose_secret))
    }

    pub(super) fn endpoint(&self) -> Result<Endpoint, String> {
        let times = [
            ("connect_timeout_seconds", self.connect_timeout_seconds),
            ("call_timeout_seconds", self.call_timeout_seconds),
        ];
        for (name, seconds) in times {
            if !(1..=MAX_SECONDS).contains(&seconds) {
                return Err(format!("{name} is {seconds}: give 1 to {MAX_SECONDS}"));
            }
        }
        match (&self.command, &self.url) {
            (Some(_), Some(_)) => {
                Err("both command and url are given: keep the one by which the server is reached".into())
            }
            (None, None) => Err("neither command nor url is given: a server is reached by one of them, as in \
                                 command: [npx, -y, some-server] or url: https://example.com/mcp"
                .into()),
            (Some(command), None) => self.program(command),
            (None, Some(url)) => self.address(url),
        }
    }

    fn program(&self, command: &[String]) -> Result<Endpoint, String> {
        if !self.headers.is_empty() {
            return Err("headers go with url: give a program its keys in env".into());
        }
        let Some((program, arguments)) = command.split_first().filter(|(program, _)| !program.is_empty()) else {
            return Err("command is empty: give the program and its arguments, as in [npx, -y, some-server]".into());
        };
        if command.iter().any(|word| word.contains('\0')) {
            return Err("command has a word with a zero byte: leave it out".into());
        }
        for (name, value) in &self.env {
            if name.is_empty() || name.contains(['=', '\0']) || value.expose_secret().contains('\0') {
                return Err(format!("env has {name:?}, which is no environment variable: rename or remove it"));
            }
        }
        Ok(Endpoint::Program(Launch {
            program: program.clone(),
            arguments: arguments.to_vec(),
            env: self.env.clone(),
            directory: self.directory.clone(),
        }))
    }

    fn address(&self, url: &str) -> Result<Endpoint, String> {
        if !self.env.is_empty() || self.directory.is_some() {
            return Err("env and directory go with command: give a server at an address its keys in headers".into());
        }
        // The address may hold a key, so that it is not repeated here.
        let url =
            Url::parse(url).map_err(|fault| format!("url is no address ({fault}): write http://… or https://…"))?;
        if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
            return Err("url has no http:// or https:// and host: write it as https://example.com/mcp".into());
        }
        let mut headers = HeaderMap::new();
        for (name, value) in &self.headers {
            if RESERVED.contains(&name.to_ascii_lowercase().as_str()) {
                return Err(format!("headers has {name}, which the protocol sets itself: remove it"));
            }
            let key =
                HeaderName::try_from(name).map_err(|_| format!("headers has {name:?}, which is no header name"))?;
            let mut value = HeaderValue::try_from(value.expose_secret())
                .map_err(|_| format!("the value of the header {name} has characters that no header may have"))?;
            value.set_sensitive(true);
            headers.insert(key, value);
        }
        Ok(Endpoint::Address(Remote { url, headers }))
    }
}

/// Without arguments, values and queries: any of them may be a key.
impl fmt::Debug for McpOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("McpOptions")
            .field("command", &self.command.as_ref().and_then(|command| command.first()))
            .field("env", &self.env.keys())
            .field("directory", &self.directory)
            .field("url", &self.url.as_deref().and_then(|url| Url::parse(url).ok()).map(|url| origin(&url)))
            .field("headers", &self.headers.keys())
            .field("connect_timeout_seconds", &self.connect_timeout_seconds)
            .field("call_timeout_seconds", &self.call_timeout_seconds)
            .finish()
    }
}

/// Whether the same is written.
impl PartialEq for McpOptions {
    fn eq(&self, other: &Self) -> bool {
        fn shown(values: &BTreeMap<String, SecretString>) -> impl Iterator<Item = (&String, &str)> {
            values.iter().map(|(name, value)| (name, value.expose_secret()))
        }
        let plain = |options: &Self| {
            let times = (options.connect_timeout_seconds, options.call_timeout_seconds);
            (options.command.clone(), options.directory.clone(), options.url.clone(), times)
        };
        plain(self) == plain(other)
            && shown(&self.env).eq(shown(&other.env))
            && shown(&self.headers).eq(shown(&other.headers))
    }
}

/// How the server is reached.
pub(super) enum Endpoint {
    Program(Launch),
    Address(Remote),
}

/// A program to start.
pub(super) struct Launch {
    pub(super) program: String,
    pub(super) arguments: Vec<String>,
    pub(super) env: BTreeMap<String, SecretString>,
    pub(super) directory: Option<PathBuf>,
}

/// An address to post to.
pub(super) struct Remote {
    pub(super) url: Url,
    pub(super) headers: HeaderMap,
}

/// An address without what may be secret in it.
pub(super) fn origin(url: &Url) -> String {
    format!("{}{}", url.origin().ascii_serialization(), url.path())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: serde_json::Value) -> Result<McpOptions, serde_json::Error> {
        serde_json::from_value(text)
    }

    #[test]
    fn exactly_one_way_to_the_server_is_taken() {
        let neither = read(serde_json::json!({})).unwrap();
        assert_eq!((neither.connect_timeout_seconds, neither.call_timeout_seconds), (30, 60));
        assert!(neither.check().unwrap_err().contains("neither command nor url is given"));
        let both = McpOptions { url: Some("http://localhost/mcp".into()), ..McpOptions::command(["a"]) };
        assert!(both.check().unwrap_err().contains("both command and url"));
        McpOptions::command(["a", "b"]).check().unwrap();
        McpOptions::url("https://example.com/mcp?key=1").check().unwrap();
    }

    #[test]
    fn what_cannot_work_is_told_before_anything_is_started() {
        let faults = [
            (serde_json::json!({"command": []}), "command is empty"),
            (serde_json::json!({"command": [""]}), "command is empty"),
            (serde_json::json!({"command": ["a"], "headers": {"A": "b"}}), "headers go with url"),
            (serde_json::json!({"command": ["a"], "env": {"A=B": "b"}}), "no environment variable"),
            (serde_json::json!({"url": "ftp://example.com"}), "http:// or https://"),
            (serde_json::json!({"url": "nothing"}), "no address"),
            (serde_json::json!({"url": "http://a", "directory": "/"}), "go with command"),
            (serde_json::json!({"url": "http://a", "headers": {"Mcp-Session-Id": "b"}}), "the protocol sets itself"),
            (serde_json::json!({"url": "http://a", "headers": {"a b": "b"}}), "no header name"),
            (serde_json::json!({"url": "http://a", "headers": {"a": "se\ncret"}}), "characters that no header"),
            (serde_json::json!({"command": ["a"], "call_timeout_seconds": 0}), "call_timeout_seconds is 0"),
        ];
        for (written, expected) in faults {
            let fault = read(written).unwrap().check().unwrap_err();
            assert!(fault.contains(expected) && !fault.contains("cret"), "{fault}");
        }
        assert!(read(serde_json::json!({"comand": ["a"]})).unwrap_err().to_string().contains("comand"));
    }

    #[test]
    fn equal_options_are_equal_with_their_secrets() {
        let with = |key: &str| {
            let mut options = McpOptions::command(["a"]);
            options.env.insert("KEY".into(), key.into());
            options
        };
        assert!(with("a") == with("a") && with("a") != with("b"));
        assert!(McpOptions::url("http://a") != McpOptions::url("http://b"));
        assert!(McpOptions { call_timeout_seconds: 1, ..with("a") } != with("a"));
    }

    #[test]
    fn nothing_secret_is_shown() {
        let mut options = McpOptions::url("https://user:hunter2@example.com/mcp?key=hunter2");
        options.headers.insert("Authorization".into(), "Bearer hunter2".into());
        options.env.insert("KEY".into(), "hunter2".into());
        options.command = Some(vec!["server".into(), "--key=hunter2".into()]);
        let shown = format!("{options:?} {:#?}", options);
        assert!(!shown.contains("hunter2") && shown.contains("https://example.com/mcp"), "{shown}");
        let schema = serde_json::to_string(&schemars::schema_for!(McpOptions)).unwrap();
        assert!(
            schema.contains("\"additionalProperties\":false") && schema.contains("call_timeout_seconds"),
            "{schema}"
        );
    }
}
