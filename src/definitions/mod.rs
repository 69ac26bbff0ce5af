//! `daybook.yaml`: the models, the sources of tools, the agents, teams and workflows, and the server's settings, read so
//! that every mistake has a line.

mod agent;
mod circle;
mod decode;
mod file;
mod mistakes;
mod model;
mod place;
mod policy;
mod schema;
mod server;
mod step;
mod team;
mod tools;
mod tree;
mod variables;
mod workflow;

use std::collections::{HashMap, HashSet};
use std::path::Path;

use daybook_models::Models;
use daybook_tools::ToolSet;

use crate::agent::AgentDefinition;
use crate::config::Layer;
use crate::models::ModelDefinition;
use crate::sources::SourceDefinition;
use crate::team::TeamDefinition;
use crate::workflow::WorkflowDefinition;
use file::{File, Names};
use tree::{Node, Tree};

pub use mistakes::{DefinitionsError, Mistake};
pub use schema::schema;
pub(crate) use server::Places;

/// What a definitions file says.
#[derive(Debug, Default)]
pub struct Definitions {
    /// The server's settings.
    pub server: Layer,
    /// The models, by name.
    pub(crate) models: Vec<(String, ModelDefinition)>,
    /// The sources of tools.
    pub(crate) sources: Vec<SourceDefinition>,
    /// The agents, in the order of the file.
    pub agents: Vec<AgentDefinition>,
    /// The teams, likewise.
    pub teams: Vec<TeamDefinition>,
    /// The workflows, likewise.
    pub workflows: Vec<WorkflowDefinition>,
    /// Where the server's settings are written.
    pub(crate) places: Places,
}

impl Definitions {
    /// Reads the text of the file `path` (named in messages only). `${NAME}` in values is looked up in `environment`,
    /// except in single quotes and blocks; `tools` are those that the server has by itself, such as
    /// [`built_in_tools`](crate::built_in_tools).
    ///
    /// # Errors
    /// [`DefinitionsError`] holds every mistake found, each with its line and column. What is not YAML is reported up to
    /// its first mistake; agents and models with a value of the wrong kind are not looked at more closely.
    pub fn parse(
        path: &Path,
        text: &str,
        environment: &HashMap<String, String>,
        tools: &ToolSet,
    ) -> Result<Self, DefinitionsError> {
        let wrong = |mistakes| DefinitionsError { path: path.to_owned(), mistakes };
        let Tree { root, mut mistakes, broken, taken } =
            tree::read(text, environment).map_err(|mistake| wrong(vec![mistake]))?;
        let mut skip: HashSet<usize> = broken.into_iter().collect();
        let mut file: Option<File> = decode::decode(&root, &mut skip, &mut mistakes);
        if !mistakes.is_empty() {
            skip_halves(&root, &mut skip);
            file = decode::decode(&root, &mut skip, &mut Vec::new());
        }
        let keys = |part: &str| -> Vec<String> {
            let entries = root.get(part).map(|part| part.entries()).unwrap_or_default();
            entries.iter().map(|entry| entry.key.clone()).collect()
        };
        let ids = |part: &str| -> Vec<String> {
            let entries = root.get(part).into_iter().flat_map(|part| part.children());
            entries.filter_map(|entry| entry.get("id")?.text().map(str::to_owned)).collect()
        };
        let names = Names {
            models: keys("models"),
            tools,
            sources: keys("tools"),
            agents: ids("agents"),
            teams: ids("teams"),
            workflows: ids("workflows"),
        };
        let definitions = file.map(|file| file.check(names, Places::of(path, &root), environment, &mut mistakes));
        match definitions {
            Some(definitions) if mistakes.is_empty() => Ok(definitions),
            _ => {
                mistakes.sort_by_key(|mistake| (mistake.line, mistake.column));
                taken
                    .iter()
                    .for_each(|(value, from)| mistakes.iter_mut().for_each(|mistake| mistake.hide(value, from)));
                Err(wrong(mistakes))
            }
        }
    }

    /// Whether nothing in it can be run.
    pub(crate) fn is_idle(&self) -> bool {
        self.agents.is_empty() && self.teams.is_empty() && self.workflows.is_empty()
    }

    /// The ids of what can be run: agents, teams, workflows.
    pub(crate) fn ids(&self) -> Vec<&str> {
        let agents = self.agents.iter().map(|agent| agent.id.as_str());
        let teams = self.teams.iter().map(TeamDefinition::id);
        agents.chain(teams).chain(self.workflows.iter().map(|workflow| workflow.id.as_str())).collect()
    }

    /// The models, ready to be called.
    ///
    /// # Errors
    /// [`crate::Error::Model`] when one cannot be set up.
    pub fn build_models(&self) -> Result<Models, crate::Error> {
        self.models.iter().map(|(name, model)| Ok((name.clone(), model.build(name)?))).collect()
    }
}

/// Adds agents, models, sources and settings with a wrong part to `skip`: what such a one means as a whole cannot be judged.
fn skip_halves(root: &Node, skip: &mut HashSet<usize>) {
    fn holds(node: &Node, skip: &HashSet<usize>) -> bool {
        skip.contains(&node.id) || node.children().any(|child| holds(child, skip))
    }
    let parts = root.entries().iter().flat_map(|entry| entry.value.children());
    let halves: Vec<usize> = parts.filter(|part| holds(part, skip)).map(|part| part.id).collect();
    skip.extend(halves);
}

#[cfg(test)]
mod tests;
