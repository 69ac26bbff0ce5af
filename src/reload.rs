//! SIGHUP: the definitions are read again, for the runs that start from then on.

use std::collections::HashMap;
use std::path::PathBuf;

use crate::agent::built_in_tools;
use crate::config::{ConfigError, Layer, read_definitions};
use crate::definitions::Definitions;
use crate::error::Error;
use crate::server::Running;

/// The definitions of the file that is named, or of the one there is, with its path.
pub(crate) fn definitions(named: Option<&PathBuf>) -> Result<Option<(PathBuf, Definitions)>, Error> {
    let Some((path, text)) = read_definitions(named.map(PathBuf::as_path))? else { return Ok(None) };
    let readable = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
        Some((name.into_string().ok()?, value.into_string().ok()?))
    };
    let environment: HashMap<_, _> = std::env::vars_os().filter_map(readable).collect();
    let definitions = Definitions::parse(&path, &text, &environment, &built_in_tools())?;
    Ok(Some((path, definitions)))
}

/// Where a server's definitions come from.
pub(crate) struct Source {
    /// The file, when one was named.
    pub(crate) named: Option<PathBuf>,
    /// The server settings of the file that the server was started with.
    pub(crate) started_with: Layer,
    /// The settings that a later source gives.
    pub(crate) overridden: Vec<String>,
}

impl Source {
    /// Reads the file again. When it is wrong, everything stays as it is.
    pub(crate) async fn reload(&self, running: &Running) {
        match self.read_again(running).await {
            Ok((path, components)) => {
                tracing::info!(file = %path.display(), components, "the definitions were read again; new runs use them");
            }
            Err(error) => {
                for line in error.to_string().lines() {
                    tracing::error!("{line}");
                }
                tracing::error!("the definitions were not read again: everything stays as it was");
            }
        }
    }

    async fn read_again(&self, running: &Running) -> Result<(PathBuf, usize), Error> {
        let (path, definitions) = definitions(self.named.as_ref())?.ok_or(ConfigError::NoFile)?;
        let (components, changed) = (definitions.ids().len(), self.changed(&definitions.server));
        running.reload(definitions).await?;
        if !changed.is_empty() {
            tracing::warn!(settings = changed.join(", "), "these settings of the server changed; they need a restart");
        }
        Ok((path, components))
    }

    /// The server settings that would be others after a restart.
    fn changed(&self, now: &Layer) -> Vec<String> {
        let names = self.started_with.names_that_differ(now).into_iter();
        names.filter(|name| !self.overridden.contains(name)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_that_need_a_restart_are_named_unless_they_come_from_elsewhere() {
        let layer = |port, name: Option<&str>, url: &str| Layer {
            port: Some(port),
            name: name.map(str::to_owned),
            database_url: Some(url.to_owned().into()),
            ..Layer::default()
        };
        let source = Source {
            named: None,
            started_with: layer(1, Some("Mine"), "postgres://a"),
            overridden: vec!["port".to_owned()],
        };
        assert!(source.changed(&source.started_with).is_empty());
        assert_eq!(source.changed(&layer(2, None, "postgres://b")), ["database_url", "name"]);
    }
}
