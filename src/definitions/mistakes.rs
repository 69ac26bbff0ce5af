//! Mistakes in a definitions file: where they are and what was expected. What came from the environment is not shown.

use std::fmt;
use std::path::PathBuf;

use super::place::Location;

/// Shorter values hide nothing, and stand in too many words.
const SHORTEST_SECRET: usize = 6;

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

    /// Shows the reference instead of a value that it stands for.
    pub(super) fn hide(&mut self, value: &str, reference: &str) {
        if value.len() < SHORTEST_SECRET {
            return;
        }
        let quoted = format!("{value:?}");
        for form in [value, quoted.trim_matches('"')] {
            self.message = self.message.replace(form, reference);
        }
    }
}
