//! Where log lines go: standard error, as text or as JSON.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;

use crate::config::{ConfigError, LogFormat, Settings};

/// What is written when nobody says otherwise.
const USUAL: &str = "info,sqlx=warn,poem=warn,rmcp=warn";

/// Starts logging. A program that embeds Daybook and logs already keeps its own.
///
/// # Errors
/// [`ConfigError::LogLevel`] when the level is none.
pub(crate) fn start(settings: &Settings) -> Result<(), ConfigError> {
    let from_environment = std::env::var(EnvFilter::DEFAULT_ENV).ok().filter(|level| !level.is_empty());
    let level = settings.log_level.clone().or(from_environment).unwrap_or_else(|| USUAL.to_owned());
    let filter = parse(&level)?;
    // A line that cannot be written (the disk is full, its reader gone) is lost, and nothing else: telling of it on standard
    // error too would panic in whatever was going on.
    let lines =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).log_internal_errors(false);
    let _ = match settings.log_format {
        LogFormat::Text => lines.with_ansi(std::io::stderr().is_terminal()).try_init(),
        LogFormat::Json => lines.json().flatten_event(true).try_init(),
    };
    Ok(())
}

/// The filter that a level or a text like `RUST_LOG` stands for.
pub(crate) fn parse(level: &str) -> Result<EnvFilter, ConfigError> {
    // A lone word that is no level would be taken for the name of a module, and silence everything.
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    let lone = !level.contains(['=', ',', '[']);
    if lone && !LEVELS.contains(&level.to_lowercase().as_str()) {
        return Err(ConfigError::LogLevel(level.to_owned()));
    }
    EnvFilter::try_new(level).map_err(|_| ConfigError::LogLevel(level.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_and_filters_pass_and_other_words_do_not() {
        for level in ["info", "WARN", "off", USUAL, "info,daybook=debug", "sqlx=trace"] {
            parse(level).unwrap();
        }
        for level in ["loud", "", "info,daybook=loud"] {
            let error = parse(level).unwrap_err().to_string();
            assert!(error.contains(level) && error.contains("warn"), "{error}");
        }
    }
}
