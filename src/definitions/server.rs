//! The server's settings in the file: where each is written, and the checks that need nothing but the file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use secrecy::ExposeSecret as _;
use url::Url;

use super::Mistake;
use super::place::Location;
use super::tree::Node;
use crate::agent::{check_line, check_text};
use crate::config::Layer;
use crate::error::Error;
use crate::{database, logging};

/// Where the settings are written, by their names.
#[derive(Debug, Default)]
pub(crate) struct Places {
    path: PathBuf,
    of: BTreeMap<String, Location>,
}

impl Places {
    /// The places in a file.
    pub(super) fn of(path: &Path, root: &Node) -> Self {
        let server = root.get("server").map(|server| server.entries()).unwrap_or_default();
        let of = server.iter().map(|entry| (entry.key.clone(), entry.value.at)).collect();
        Self { path: path.to_owned(), of }
    }

    /// The file.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Forgets the settings that a later source overrides.
    pub(crate) fn forget(&mut self, later: &Layer) {
        for name in later.names() {
            self.of.remove(&name);
        }
    }

    /// The error, with the place of the setting that led to it, where it is one of the file.
    pub(crate) fn blame(&self, error: Error) -> Error {
        match error.setting().and_then(|name| self.of.get(name)) {
            None => error,
            Some(at) => {
                let place = format!("{}:{}:{}", self.path.display(), at.line(), at.column());
                Error::Placed { place, source: Box::new(error) }
            }
        }
    }

    fn mistake(&self, name: &str, fault: String) -> Mistake {
        Mistake::at(self.of.get(name).copied().unwrap_or(Location::UNKNOWN), fault)
    }
}

/// What is wrong with the settings, whatever machine they are for.
pub(super) fn check(server: &Layer, places: &Places) -> Vec<Mistake> {
    let mut mistakes = Vec::new();
    let mut tell = |name: &str, checked: Result<(), String>| {
        mistakes.extend(checked.err().map(|fault| places.mistake(name, fault)));
    };
    let lines = [
        ("host", &server.host),
        ("id", &server.id),
        ("name", &server.name),
        ("version", &server.version),
        ("db_id", &server.db_id),
    ];
    for (name, line) in lines {
        tell(name, line.as_deref().map_or(Ok(()), |line| check_line(name, line)));
    }
    tell("description", server.description.as_deref().map_or(Ok(()), |text| check_text("description", text)));
    if let Some(level) = &server.log_level {
        tell("log_level", logging::parse(level).map(drop).map_err(|error| format!("log_level: {error}")));
    }
    if let Some(url) = &server.database_url {
        let checked = database::check_url(url.expose_secret());
        tell(
            "database_url",
            checked.map_err(|fault| format!("database_url: {fault}; expected {}", database::LOOKS_LIKE)),
        );
    }
    for origin in server.cors_origins.iter().flatten() {
        tell("cors_origins", check_origin(origin).map_err(|fault| format!("cors_origins: {fault}")));
    }
    mistakes
}

/// An origin as browsers send it, or `*`. Anything else would never match one.
fn check_origin(origin: &str) -> Result<(), String> {
    if origin == "*" {
        return Ok(());
    }
    let wrong = || format!("{origin:?} is not an origin; expected one like https://example.com, or \"*\" for all");
    let url = Url::parse(origin).map_err(|_| wrong())?;
    let sent = match url.scheme() {
        "http" | "https" => url.origin().ascii_serialization(),
        // Of browsers' extensions and apps.
        scheme => format!("{scheme}://{}", url.host_str().filter(|host| !host.is_empty()).ok_or_else(wrong)?),
    };
    if sent == origin {
        Ok(())
    } else {
        Err(format!("{origin:?} is not an origin as browsers send it; expected {sent}"))
    }
}
