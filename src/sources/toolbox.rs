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
        let mut from: BTreeMap<String, String> = BTreeMap::new();
        let mut all = own.clone();
        let mut listed = BTreeMap::new();
        for source in sources {
            let (name, kind) = (&source.definition.name, &source.definition.kind);
            if own.contains_key(name) {
                return Err(format!("the source {name:?} has the name of a tool: give it another"));
            }
            for tool in source.tools.iter().flatten() {
                let tool_name = &tool.spec().name;
                let taken = from.insert(tool_name.clone(), name.clone());
                // Under other rules, a tool is still the same code.
                let again = matches!(kind, SourceKind::BuiltIn(_)) && taken.is_none();
                match taken {
                    Some(other) => return Err(twice(tool_name, &format!("the source {other:?}"), name)),
                    None if own.contains_key(tool_name) && !again => {
                        return Err(twice(tool_name, "the server itself", name));
                    }
                    None => {}
                }
                all.entry(tool_name.clone()).or_insert_with(|| Arc::clone(tool));
            }
            let prefix = source.definition.choice.prefix.clone().unwrap_or_default();
            if listed.insert(name.clone(), Listed { prefix, tools: source.tools.clone() }).is_some() {
                return Err(format!("two sources have the name {name:?}: give one of them another"));
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
        let short = |tool: &Arc<dyn Tool>| {
            let whole = &tool.spec().name;
            whole.strip_prefix(prefix.as_str()).unwrap_or(whole).to_owned()
        };
        match tools.iter().find(|known| short(known) == tool) {
            Some(tool) => Ok(vec![Arc::clone(tool)]),
            None => {
                let known: Vec<String> = tools.iter().map(short).collect();
                Err(format!("the source {source:?} has no tool {tool:?}; it has: {}", known.join(", ")))
            }
        }
    }

    /// Every tool, by the name that models use.
    pub(crate) fn all(&self) -> &ToolSet {
        &self.all
    }
}

fn twice(tool: &str, one: &str, other: &str) -> String {
    format!("{one} and the source {other:?} both have a tool {tool:?}: give the source a `prefix`")
}
