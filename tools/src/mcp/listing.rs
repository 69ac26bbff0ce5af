//! The tools that a server has.

use std::collections::HashSet;

use daybook_domain::tool::{Effect, ToolSpec};
use rmcp::model::{ServerResult, Tool, ToolAnnotations};
use serde_json::{Value, json};

use super::connection::Connection;
use super::fault::{Fault, Means};
use super::names;
use super::words::shortened;

/// The most tools a server may have.
const MAX_TOOLS: usize = 10_000;

/// The most pages they may come on.
const MAX_PAGES: usize = 1000;

/// The most that all descriptions and schemas may have, in bytes of JSON.
const MAX_BYTES: usize = 32 * 1024 * 1024;

/// The longest description and name, in characters; what is longer is cut, and left out.
const MAX_DESCRIPTION: usize = 64 * 1024;
const MAX_NAME: usize = 1024;

/// JSON-RPC's code for a method that there is not.
const NO_SUCH_METHOD: &str = "ethod not found";

/// A tool, and what the server calls it.
pub(super) struct Listed {
    pub(super) original: String,
    pub(super) spec: ToolSpec,
}

/// All tools of the server that can be used, by name. Others are left out with a line in the log.
///
/// # Errors
/// What the server says, or that it has too much.
pub(super) async fn list(connection: &Connection, source: &str, call_timeout: u64) -> Result<Vec<Listed>, Fault> {
    let mut listing = Listing { source, tools: Vec::new(), seen: HashSet::new(), bytes: 0 };
    let mut cursor = None;
    for _ in 0..MAX_PAGES {
        let page = match connection.page(cursor).await {
            Ok(page) => page,
            // It said that it has none, and means it.
            Err(fault) if is_without_tools(connection, &fault) => return Ok(Vec::new()),
            Err(fault) => return Err(fault),
        };
        cursor = listing.add(page)?;
        if cursor.is_none() {
            return Ok(listing.finish(call_timeout));
        }
    }
    Err(Fault::answered(format!("the server lists its tools on more than {MAX_PAGES} pages")))
}

fn is_without_tools(connection: &Connection, fault: &Fault) -> bool {
    fault.means == Means::Answered && !connection.has_tools() && fault.words.contains(NO_SUCH_METHOD)
}

struct Listing<'a> {
    source: &'a str,
    tools: Vec<Tool>,
    seen: HashSet<String>,
    bytes: usize,
}

impl Listing<'_> {
    /// Takes the tools of a page, and says where the next is.
    fn add(&mut self, page: ServerResult) -> Result<Option<String>, Fault> {
        let (tools, next) = match page {
            ServerResult::ListToolsResult(page) => {
                (page.tools.into_iter().map(Ok).collect::<Vec<_>>(), page.next_cursor)
            }
            // One tool that is none must not take the others along.
            ServerResult::CustomResult(page) => {
                let Some(Value::Array(tools)) = page.0.get("tools").cloned() else { return Err(no_list()) };
                let next = page.0.get("nextCursor").and_then(Value::as_str).map(str::to_owned);
                (tools.into_iter().map(serde_json::from_value::<Tool>).collect(), next)
            }
            _ => return Err(no_list()),
        };
        for tool in tools {
            match tool {
                Ok(tool) => self.take(tool)?,
                Err(fault) => self.leave_out("?", &shortened(&fault.to_string(), 200)),
            }
        }
        Ok(next.filter(|cursor| !cursor.is_empty()))
    }

    fn take(&mut self, tool: Tool) -> Result<(), Fault> {
        self.bytes += serde_json::to_vec(&*tool.input_schema).map(|schema| schema.len()).unwrap_or_default();
        self.bytes += tool.name.len() + tool.description.as_ref().map_or(0, |words| words.len());
        if self.bytes > MAX_BYTES || self.tools.len() >= MAX_TOOLS {
            return Err(Fault::answered(format!(
                "the server has more than {MAX_TOOLS} tools, or more than {} MiB of schemas: give it less to offer",
                MAX_BYTES / 1024 / 1024
            )));
        }
        let kind = tool.input_schema.get("type");
        if kind.is_some_and(|kind| kind != "object") {
            self.leave_out(&tool.name, "its inputSchema is not of type object");
        } else if tool.name.is_empty() || tool.name.chars().nth(MAX_NAME).is_some() {
            self.leave_out(&tool.name, "its name is empty or too long");
        } else if self.seen.insert(tool.name.to_string()) {
            self.tools.push(tool);
        } else {
            self.leave_out(&tool.name, "another has its name");
        }
        Ok(())
    }

    fn leave_out(&self, tool: &str, why: &str) {
        tracing::warn!(source = self.source, tool = shortened(tool, 100), "a tool of the server is left out: {why}");
    }

    fn finish(mut self, call_timeout: u64) -> Vec<Listed> {
        // By original, so that which of two alike names is kept does not depend on the server's order.
        self.tools.sort_by(|a, b| a.name.cmp(&b.name));
        let originals: Vec<String> = self.tools.iter().map(|tool| tool.name.to_string()).collect();
        let names = names::for_models(&originals);
        let listed = names
            .into_iter()
            .zip(self.tools)
            .map(|(name, tool)| Listed { original: tool.name.to_string(), spec: spec(name, &tool, call_timeout) });
        let mut listed: Vec<Listed> = listed.collect();
        listed.sort_by(|a, b| a.spec.name.cmp(&b.spec.name));
        listed
    }
}

fn no_list() -> Fault {
    Fault::answered("the server's list of tools is none: it does not keep to the Model Context Protocol")
}

fn spec(name: String, tool: &Tool, call_timeout: u64) -> ToolSpec {
    let mut schema = tool.input_schema.as_ref().clone();
    schema.entry("type").or_insert_with(|| json!("object"));
    let words = tool.description.as_deref().or(tool.title.as_deref()).unwrap_or_default();
    let description: String = words.chars().take(MAX_DESCRIPTION).collect();
    let mut spec = ToolSpec::new(name, description, Value::Object(schema)).effect(effect(tool.annotations.as_ref()));
    spec.timeout_seconds = call_timeout;
    spec
}

/// What the server says a second call does; unsafe when it says nothing.
fn effect(hints: Option<&ToolAnnotations>) -> Effect {
    match hints {
        Some(hints) if hints.read_only_hint == Some(true) => Effect::Pure,
        Some(hints) if hints.idempotent_hint == Some(true) => Effect::Idempotent,
        _ => Effect::Unsafe,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listing() -> Listing<'static> {
        Listing { source: "test", tools: Vec::new(), seen: HashSet::new(), bytes: 0 }
    }

    fn page(value: Value) -> ServerResult {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn tools_that_are_none_are_left_out_and_the_others_stay() {
        let mut listing = listing();
        let next = listing.add(page(json!({"tools": [
            {"name": "b", "inputSchema": {"properties": {}}, "annotations": {"readOnlyHint": true}},
            {"name": "wrong", "inputSchema": "none"},
            {"name": "string", "inputSchema": {"type": "string"}},
            {"inputSchema": {"type": "object"}},
            {"name": "a.b", "description": "Does.", "inputSchema": {"type": "object"}, "annotations": {"idempotentHint": true}},
            {"name": "b", "inputSchema": {"type": "object"}},
        ], "nextCursor": "more"})));
        assert_eq!(next.unwrap().as_deref(), Some("more"));
        assert_eq!(listing.add(page(json!({"tools": [{"name": "c", "inputSchema": {}}]}))).unwrap(), None);
        let listed = listing.finish(7);
        let names: Vec<_> = listed.iter().map(|tool| (tool.spec.name.as_str(), tool.original.as_str())).collect();
        assert_eq!(names, [("a_b", "a.b"), ("b", "b"), ("c", "c")]);
        let effects: Vec<_> = listed.iter().map(|tool| tool.spec.effect).collect();
        assert_eq!(effects, [Effect::Idempotent, Effect::Pure, Effect::Unsafe]);
        assert_eq!(listed[1].spec.parameters, json!({"properties": {}, "type": "object"}));
        assert_eq!((listed[0].spec.description.as_str(), listed[0].spec.timeout_seconds), ("Does.", 7));
    }

    #[test]
    fn what_is_no_list_or_too_long_is_refused() {
        assert!(listing().add(page(json!({"tools": 5}))).is_err());
        assert!(listing().add(page(json!("nonsense"))).is_err());
        let tool = |number: usize| json!({"name": format!("t{number}"), "inputSchema": {"type": "object"}});
        let many: Vec<_> = (0..MAX_TOOLS).map(tool).collect();
        let mut listing = listing();
        listing.add(page(json!({"tools": many}))).unwrap();
        let fault = listing.add(page(json!({"tools": [tool(MAX_TOOLS)]}))).unwrap_err();
        assert!(fault.words.contains("more than 10000 tools"), "{}", fault.words);
    }
}
