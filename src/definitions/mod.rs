//! `daybook.yaml`: the models, the agents and the server's settings, read so that every mistake has a line.

mod file;
mod mistakes;
mod server;

use std::collections::HashMap;
use std::path::Path;

use daybook_models::Models;

use crate::agent::AgentDefinition;
use crate::config::Layer;
use crate::models::ModelDefinition;

pub use mistakes::{DefinitionsError, Mistake};
pub(crate) use server::Places;

/// What a definitions file says.
#[derive(Debug, Default)]
pub struct Definitions {
    /// The server's settings.
    pub server: Layer,
    /// The models, by name.
    pub(crate) models: Vec<(String, ModelDefinition)>,
    /// The agents, in the order of the file.
    pub agents: Vec<AgentDefinition>,
    /// Where the server's settings are written.
    pub(crate) places: Places,
}

impl Definitions {
    /// Reads the text of the file `path` (named in messages only). `${NAME}` in unquoted values is looked up in
    /// `environment`; tools may be named that are in `tools`.
    ///
    /// # Errors
    /// [`DefinitionsError`] holds every mistake found, each with its line and column. A text that is not of the right
    /// shape is reported up to its first mistake; only names that lead nowhere are all found at once.
    pub fn parse<'a>(
        path: &Path,
        text: &str,
        environment: HashMap<String, String>,
        tools: impl Iterator<Item = &'a String>,
    ) -> Result<Self, DefinitionsError> {
        let mistakes = |mistakes| DefinitionsError { path: path.to_owned(), mistakes };
        let file = file::read(text, environment).map_err(|mistake| mistakes(vec![mistake]))?;
        let tools: Vec<String> = tools.cloned().collect();
        file.check(&tools, Places::of(path, text)).map_err(mistakes)
    }

    /// The models, ready to be called.
    ///
    /// # Errors
    /// [`crate::Error::Model`] when one cannot be set up.
    pub fn build_models(&self) -> Result<Models, crate::Error> {
        self.models.iter().map(|(name, model)| Ok((name.clone(), model.build(name)?))).collect()
    }
}

#[cfg(test)]
mod tests;
