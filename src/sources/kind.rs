//! A source of tools as it is described, and the source itself.

use std::collections::BTreeMap;
use std::sync::Arc;

use daybook_tools::{
    Choice, FilesOptions, FixedSource, HttpOptions, McpOptions, McpSource, OpenApiOptions, OpenApiSource, ShellOptions,
    SourceError, SqlOptions, SqlSource, Tool, ToolRule, ToolSet, ToolSource, choose, files, http_tools, shell,
    sql_lazily,
};

use crate::agent::unknown_tool;

/// Where the tools come from.
#[derive(Clone)]
pub(crate) enum SourceKind {
    Mcp(Box<McpOptions>),
    OpenApi(Box<OpenApiOptions>),
    Http(HttpOptions),
    Sql(SqlOptions),
    Files(FilesOptions),
    Shell(ShellOptions),
    /// Tools that the server has by itself, under other rules.
    BuiltIn(Vec<String>),
    /// One that the program made.
    Given(Arc<dyn ToolSource>),
}

/// A source, and what its owner says of its tools.
#[derive(Clone)]
pub(crate) struct SourceDefinition {
    pub(crate) name: String,
    /// Where the definitions describe it: file, line and column, with colons between.
    pub(crate) place: Option<String>,
    pub(crate) kind: SourceKind,
    pub(crate) choice: Choice,
    /// Whether the server serves without its tools while it does not answer.
    pub(crate) optional: bool,
}

impl std::fmt::Debug for SourceDefinition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { name, place, kind, choice, optional } = self;
        f.debug_struct("SourceDefinition")
            .field("name", name)
            .field("place", place)
            .field("kind", &kind.word())
            .field("choice", choice)
            .field("optional", optional)
            .finish()
    }
}

impl SourceKind {
    /// Its name in the definitions.
    pub(crate) fn word(&self) -> &'static str {
        match self {
            Self::Mcp(_) => "mcp",
            Self::OpenApi(_) => "openapi",
            Self::Http(_) => "http",
            Self::Sql(_) => "sql",
            Self::Files(_) => "files",
            Self::Shell(_) => "shell",
            Self::BuiltIn(_) => "built_in",
            Self::Given(_) => "given in code",
        }
    }

    /// The source. Nothing is asked over the network, and nothing is started yet.
    fn open(&self, name: &str, own: &ToolSet) -> Result<Arc<dyn ToolSource>, String> {
        let fixed = |tools| Arc::new(FixedSource::new(name, tools)) as Arc<dyn ToolSource>;
        Ok(match self {
            Self::Mcp(options) => Arc::new(McpSource::new(name, (**options).clone()).map_err(|error| error.fault)?),
            Self::OpenApi(options) => {
                Arc::new(OpenApiSource::new(name, (**options).clone()).map_err(|error| error.fault)?)
            }
            Self::Http(options) => fixed(http_tools(options).map_err(|error| error.to_string())?),
            Self::Files(options) => fixed(files(options).map_err(|error| error.to_string())?),
            Self::Shell(options) => fixed(shell(options).map_err(|error| error.to_string())?),
            Self::Sql(options) => Arc::new(SqlSource::new(name, options.clone()).map_err(|error| error.fault)?),
            Self::BuiltIn(names) => {
                let tool = |name: &String| own.get(name).cloned().ok_or_else(|| unknown_tool(name, own.keys()));
                fixed(names.iter().map(tool).collect::<Result<_, _>>()?)
            }
            Self::Given(source) => Arc::clone(source),
        })
    }

    /// The tools, where they are known without asking another machine or starting a program.
    fn known(&self, own: &ToolSet) -> Option<Vec<Arc<dyn Tool>>> {
        match self {
            Self::Http(options) => http_tools(options).ok(),
            Self::Files(options) => files(options).ok(),
            Self::Shell(options) => shell(options).ok(),
            Self::Sql(options) => sql_lazily(options).ok(),
            Self::BuiltIn(names) => names.iter().map(|name| own.get(name).cloned()).collect(),
            Self::Mcp(_) | Self::OpenApi(_) | Self::Given(_) => None,
        }
    }
}

impl SourceDefinition {
    /// What can be found wrong with where it comes from on this machine: options, directories, programs, documents.
    pub(crate) fn check(&self) -> Result<(), String> {
        match &self.kind {
            SourceKind::BuiltIn(_) => return Ok(()),
            // What is optional may come later.
            SourceKind::Mcp(options) if !self.optional => options.check_program()?,
            SourceKind::OpenApi(options) if !self.optional => options.check_file()?,
            _ => {}
        }
        self.kind.open(&self.name, &ToolSet::new()).map(drop)
    }

    /// What is wrong with what is chosen of tools that are known: the rule's tool, where it is about one, and the fault.
    pub(crate) fn wrong_rules(&self, own: &ToolSet) -> Vec<(Option<String>, String)> {
        let Some(tools) = self.kind.known(own) else { return Vec::new() };
        let wrong = |choice: &Choice| choose(&self.name, tools.clone(), choice).err().map(|error| error.fault);
        let alone = |(tool, rule): (&String, &ToolRule)| {
            let rules = [(tool.clone(), rule.clone())].into();
            wrong(&Choice { rules, ..Choice::default() }).map(|fault| (Some(tool.clone()), fault))
        };
        let rest = Choice { rules: BTreeMap::new(), ..self.choice.clone() };
        self.choice.rules.iter().filter_map(alone).chain(wrong(&rest).map(|fault| (None, fault))).collect()
    }

    /// Whether its tools can be had without another machine and without starting a program.
    pub(super) fn is_local(&self) -> bool {
        match &self.kind {
            SourceKind::OpenApi(options) => options.is_file(),
            SourceKind::Mcp(_) | SourceKind::Sql(_) | SourceKind::Given(_) => false,
            SourceKind::Http(_) | SourceKind::Files(_) | SourceKind::Shell(_) | SourceKind::BuiltIn(_) => true,
        }
    }

    /// The source, or `earlier`'s when that is the same: a program that runs is not started twice.
    pub(super) fn source(
        &self,
        earlier: Option<&super::OpenSource>,
        own: &ToolSet,
    ) -> Result<Arc<dyn ToolSource>, SourceError> {
        let same = |earlier: &&super::OpenSource| match (&earlier.definition.kind, &self.kind) {
            (SourceKind::Mcp(one), SourceKind::Mcp(other)) => one == other,
            _ => false,
        };
        match earlier.filter(same) {
            Some(earlier) => Ok(Arc::clone(&earlier.source)),
            None => self.kind.open(&self.name, own).map_err(|fault| self.fault(fault)),
        }
    }

    pub(super) fn fault(&self, fault: String) -> SourceError {
        SourceError { source_name: self.name.clone(), fault }
    }
}
