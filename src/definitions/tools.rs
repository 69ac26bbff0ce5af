//! The sources of tools in the file, and what can be found wrong with them on this machine.

use std::collections::BTreeMap;
use std::path::Path;

use daybook_tools::{
    Choice, FilesOptions, HttpOptions, McpOptions, OpenApiOptions, ShellOptions, SqlOptions, ToolRule, ToolSet,
};
use schemars::JsonSchema;
use serde::Deserialize;

use super::Mistake;
use super::place::{Location, Spanned};
use crate::agent::{check_id, unknown_tool};
use crate::sources::{SourceDefinition, SourceKind};

// One shape for all kinds: a tagged enum would lose the places of what is inside it.
/// Where tools come from, by exactly one of `mcp`, `openapi`, `http`, `sql`, `files`, `shell` and `built_in`, and which of
/// them are taken under which rules.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Source {
    /// An MCP server: a program to start, or an address.
    #[serde(default)]
    mcp: Option<Spanned<McpOptions>>,
    /// An OpenAPI document, whose operations are the tools.
    #[serde(default)]
    openapi: Option<Spanned<OpenApiOptions>>,
    /// HTTP requests to some hosts: http_get, and http_request where more than reading is allowed.
    #[serde(default)]
    http: Option<Spanned<HttpOptions>>,
    /// A PostgreSQL to read: query_database and describe_database.
    #[serde(default)]
    sql: Option<Spanned<SqlOptions>>,
    /// The files of one directory.
    #[serde(default)]
    files: Option<Spanned<FilesOptions>>,
    /// Commands of this machine: run_command, which always asks a person first.
    #[serde(default)]
    shell: Option<Spanned<ShellOptions>>,
    /// Tools that the server has by itself, to be given other rules.
    #[serde(default)]
    built_in: Option<Spanned<Vec<Spanned<String>>>>,
    /// Put before the name of every tool, such as `github_`: letters, digits, - and _.
    #[serde(default)]
    prefix: Option<String>,
    /// The only tools that are taken, by their names in the source; all unless said.
    #[serde(default)]
    allow: Option<Vec<String>>,
    /// Tools that are not taken, likewise.
    #[serde(default)]
    deny: Vec<String>,
    /// What is said of single tools otherwise than the source does, by their names in the source.
    #[serde(default)]
    rules: BTreeMap<String, Spanned<ToolRule>>,
    /// Whether the server starts without these tools when they cannot be had, and asks for them again; no unless said.
    #[serde(default)]
    optional: bool,
}

impl Source {
    /// The source, when nothing can be found wrong with its entry, which stands at `place` of the file `path`.
    pub(super) fn check(
        self,
        name: &str,
        place: Location,
        path: &Path,
        built_in: &ToolSet,
    ) -> Result<SourceDefinition, Vec<Mistake>> {
        let at_source = |fault: String| vec![Mistake::at(place, fault)];
        check_id(name).map_err(at_source)?;
        if name.contains('.') {
            return Err(at_source(format!("{name:?}: the name of a source has no dot")));
        }
        if built_in.contains_key(name) {
            return Err(at_source(format!("{name:?} is the name of a tool: give the source another")));
        }
        let rules = self.rules.iter().map(|(tool, rule)| (tool.clone(), rule.value.clone())).collect();
        let choice = Choice { prefix: self.prefix.clone(), allow: self.allow.clone(), deny: self.deny.clone(), rules };
        let (optional, places) = (self.optional, self.places());
        let (at, kind) = self.kind(name, place, built_in).map_err(|mistake| vec![mistake])?;
        let definition = SourceDefinition {
            name: name.to_owned(),
            place: Some(format!("{}:{}:{}", path.display(), place.line(), place.column())),
            kind,
            choice,
            optional,
        };
        definition.check().map_err(|fault| vec![Mistake::at(at, format!("{name}: {fault}"))])?;
        let wrong = definition.wrong_rules(built_in);
        let at = |rule: Option<String>| rule.and_then(|rule| places.get(&rule).copied()).unwrap_or(at);
        let mistakes = wrong.into_iter().map(|(rule, fault)| Mistake::at(at(rule), format!("{name}: {fault}")));
        let mistakes: Vec<Mistake> = mistakes.collect();
        if mistakes.is_empty() { Ok(definition) } else { Err(mistakes) }
    }

    fn places(&self) -> BTreeMap<String, Location> {
        self.rules.iter().map(|(tool, rule)| (tool.clone(), rule.referenced)).collect()
    }

    /// Where the tools come from, and where that stands.
    fn kind(self, name: &str, place: Location, built_in: &ToolSet) -> Result<(Location, SourceKind), Mistake> {
        let kinds = [
            self.mcp.map(|given| (given.referenced, SourceKind::Mcp(Box::new(given.value)))),
            self.openapi.map(|given| (given.referenced, SourceKind::OpenApi(Box::new(given.value)))),
            self.http.map(|given| (given.referenced, SourceKind::Http(given.value))),
            self.sql.map(|given| (given.referenced, SourceKind::Sql(given.value))),
            self.files.map(|given| (given.referenced, SourceKind::Files(given.value))),
            self.shell.map(|given| (given.referenced, SourceKind::Shell(given.value))),
            self.built_in.map(|given| own(given, built_in)).transpose()?,
        ];
        let mut kinds = kinds.into_iter().flatten();
        match (kinds.next(), kinds.next()) {
            (Some(only), None) => Ok(only),
            (None, _) => {
                let fault = "where its tools come from is missing: expected one of mcp, openapi, http, sql, files, \
                             shell, built_in";
                Err(Mistake::at(place, format!("{name}: {fault}")))
            }
            (Some((_, one)), Some((at, other))) => {
                let fault = format!("{name}: {} and {} exclude each other: make two sources", one.word(), other.word());
                Err(Mistake::at(at, fault))
            }
        }
    }
}

fn own(given: Spanned<Vec<Spanned<String>>>, known: &ToolSet) -> Result<(Location, SourceKind), Mistake> {
    if let Some(unknown) = given.value.iter().find(|name| !known.contains_key(&name.value)) {
        return Err(Mistake::at(unknown.referenced, unknown_tool(&unknown.value, known.keys())));
    }
    let names = given.value.into_iter().map(|name| name.value).collect();
    Ok((given.referenced, SourceKind::BuiltIn(names)))
}
