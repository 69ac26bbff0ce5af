//! Mistakes in a definitions file: where they are, what was found, what was expected. Values are never shown.

use std::fmt;
use std::path::PathBuf;

use serde_saphyr::{Error as YamlError, Location, UserMessageFormatter};

/// One mistake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// Its line, from 1; 0 when it has none.
    pub line: u64,
    /// Its column, from 1.
    pub column: u64,
    /// What is wrong and what was expected.
    pub message: String,
}

/// The mistakes of one file.
#[derive(Debug)]
pub struct DefinitionsError {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it, in its order.
    pub mistakes: Vec<Mistake>,
}

impl fmt::Display for DefinitionsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, mistake) in self.mistakes.iter().enumerate() {
            let Mistake { line, column, message } = mistake;
            let end = if at + 1 == self.mistakes.len() { "" } else { "\n" };
            write!(f, "{}:{line}:{column}: {message}{end}", self.path.display())?;
        }
        Ok(())
    }
}

impl std::error::Error for DefinitionsError {}

impl Mistake {
    pub(super) fn at(location: Location, message: impl Into<String>) -> Self {
        Self { line: location.line(), column: location.column(), message: message.into() }
    }

    /// What the parser found in `text`, in words for people who do not know Rust's types.
    pub(super) fn from_yaml(error: &YamlError, text: &str) -> Self {
        let location = error.location().unwrap_or(Location::UNKNOWN);
        let key = usize::try_from(location.line())
            .ok()
            .and_then(|line| text.lines().nth(line.checked_sub(1)?))
            .and_then(key_of)
            .map_or_else(String::new, |key| format!("{key}: "));
        let message = match error.without_snippet() {
            YamlError::InvalidScalar { ty, .. } => format!("{key}expected {}", plain_type(ty)),
            YamlError::Unexpected { expected, .. } => format!("{key}expected {}", plain_shape(expected)),
            YamlError::SerdeInvalidValue { expected, .. } if expected.starts_with("a nonzero") => {
                format!("{key}expected a number of at least 1")
            }
            YamlError::NullIntoString { .. } => format!("{key}expected a text, found nothing"),
            YamlError::UnresolvedProperty { name, .. } => {
                format!("{key}the environment has no variable {name}; set it, or write ${{{name}:-default}}")
            }
            _ => {
                let whole = error.without_snippet().render_with_formatter(&UserMessageFormatter);
                let place = format!(" at line {}, column {}", location.line(), location.column());
                whole.trim_end().trim_end_matches(&place).to_owned()
            }
        };
        Self::at(location, message)
    }
}

/// The key of a line `  - key: value`. The value is left out: it may be a secret.
fn key_of(line: &str) -> Option<&str> {
    let key = line.trim_start_matches([' ', '-']).split_once(':')?.0;
    key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-').then_some(key)
}

fn plain_type(ty: &str) -> &str {
    match ty {
        "u8" | "u16" | "u32" | "u64" | "usize" => "a whole number, 0 or more",
        "i8" | "i16" | "i32" | "i64" => "a whole number",
        "f32" | "f64" | "floating point" => "a number",
        "bool" | "boolean" => "true or false",
        other => other,
    }
}

fn plain_shape(expected: &str) -> &str {
    match expected {
        "sequence start" => "a list, each item on a line of its own after `- `",
        "mapping start" => "`key: value` lines, indented below",
        "string scalar" | "scalar" => "a single value",
        other => other,
    }
}
