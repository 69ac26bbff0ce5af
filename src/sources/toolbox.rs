//! The tools that agents may name: single ones, and those of sources, all of them or one by one.

use std::collections::BTreeMap;
use std::sync::Arc;

use daybook_tools::{Tool, ToolSet};

use super::OpenSource;
use super::kind::SourceKind;
use crate::agent::unknown_tool;

/// All tools of a server by the names that agents use.
pub(crate) struct Toolbox {
    own: ToolSet,
    sources: BTreeMap<String, Listed>,
    /// Every tool, by the name that models use.
    all: ToolSet,
}

/// The tools of one source.
struct Listed {
    prefix: String,
    /// None while the source does not answer and need not.
    tools: Option<Vec<Arc<dyn Tool>>>,
}

impl Toolbox {
    /// The server's own tools and those of its sources.
    ///
    /// # Errors
    /// Two things of one name: what a run calls after a restart is found by its name alone.
    pub(crate) fn new(own: ToolSet, sources: &[OpenSource]) -> Result<Self, String> {
        let mut all = own.clone();
        // Whose code is behind the names of tools: a source's, or the server's own.
        let mut makers: BTreeMap<String, (Option<&str>, String)> =
            own.keys().map(|name| (name.clone(), (None, name.clone()))).collect();
        let mut listed = BTreeMap::new();
        for OpenSource { definition, tools, .. } in sources {
            let name = &definition.name;
            let at = |fault: String| match &definition.place {
                Some(place) => format!("{place}: {fault}"),
                None => fault,
            };
            if own.contains_key(name) {
                return Err(at(format!("the source {name:?} has the name of a tool: give it another")));
            }
            let prefix = definition.choice.prefix.clone().unwrap_or_default();
            // Under other rules, a tool is still the same code.
            let maker = (!matches!(definition.kind, SourceKind::BuiltIn(_))).then_some(name.as_str());
            for tool in tools.iter().flatten() {
                let tool_name = &tool.spec().name;
                let code = (maker, short(&prefix, tool));
                let known = makers.entry(tool_name.clone()).or_insert_with(|| code.clone());
                if *known != code {
                    return Err(at(twice(tool_name, known.0, name)));
                }
                all.entry(tool_name.clone()).or_insert_with(|| Arc::clone(tool));
            }
            if listed.insert(name.clone(), Listed { prefix, tools: tools.clone() }).is_some() {
                return Err(at(format!("two sources have the name {name:?}: give one of them another")));
            }
        }
        Ok(Self { own, sources: listed, all })
    }

    /// What an agent gets that names `name`: a tool, all tools of a source, or `source.tool` one of them, by its name there.
    pub(crate) fn named(&self, name: &str) -> Result<Vec<Arc<dyn Tool>>, String> {
        if let Some(tool) = self.own.get(name) {
            return Ok(vec![Arc::clone(tool)]);
        }
        if let Some(source) = self.sources.get(name) {
            return Ok(source.tools.clone().unwrap_or_default());
        }
        let part = name.split_once('.').and_then(|(source, tool)| Some((source, self.sources.get(source)?, tool)));
        let Some((source, Listed { prefix, tools }, tool)) = part else {
            return Err(unknown_tool(name, self.own.keys().chain(self.sources.keys())));
        };
        let Some(tools) = tools else { return Ok(Vec::new()) };
        match tools.iter().find(|known| short(prefix, known) == tool) {
            Some(tool) => Ok(vec![Arc::clone(tool)]),
            None => {
                let known: Vec<String> = tools.iter().map(|tool| short(prefix, tool)).collect();
                Err(format!("the source {source:?} has no tool {tool:?}; it has: {}", known.join(", ")))
            }
        }
    }

    /// Every tool, by the name that models use.
    pub(crate) fn all(&self) -> &ToolSet {
        &self.all
    }
}

/// A tool's name in its source.
fn short(prefix: &str, tool: &Arc<dyn Tool>) -> String {
    let whole = &tool.spec().name;
    whole.strip_prefix(prefix).unwrap_or(whole).to_owned()
}

fn twice(tool: &str, first: Option<&str>, second: &str) -> String {
    let first = first.map_or_else(|| "the server itself".to_owned(), |source| format!("the source {source:?}"));
    format!("{first} and the source {second:?} both have a tool {tool:?}: give the source a `prefix`")
}
