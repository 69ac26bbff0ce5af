//! One tool of a server.

use std::sync::Arc;

use async_trait::async_trait;
use daybook_domain::tool::ToolSpec;
use rmcp::model::{CallToolRequestParams, RequestMetaObject};
use serde_json::{Map, Value};

use super::fault::Means;
use super::keeper::Shared;
use super::listing::Listed;
use super::result;
use crate::{Tool, ToolContext, ToolError, ToolOutput};

/// A tool of a server. It outlives connections: each call takes the one there is.
pub(super) struct McpTool {
    original: String,
    spec: ToolSpec,
    shared: Arc<Shared>,
}

impl McpTool {
    pub(super) fn new(listed: Listed, shared: Arc<Shared>) -> Self {
        Self { original: listed.original, spec: listed.spec, shared }
    }

    async fn result(&self, context: ToolContext, arguments: Map<String, Value>) -> Result<ToolOutput, ToolError> {
        let mut tries = 2;
        loop {
            let connection = self.shared.connection().await.map_err(ToolError::Failed)?;
            let request = CallToolRequestParams::new(self.original.clone()).with_arguments(arguments.clone());
            let answer = Box::pin(connection.call(&self.spec.name, request, meta(&context), &context)).await;
            tries -= 1;
            match answer {
                Ok(answer) => return result::output(answer),
                // Only what the server did not begin is asked of it again.
                Err(fault) if fault.means == Means::Forgotten && tries > 0 => {}
                Err(fault) => return Err(ToolError::Failed(fault.words)),
            }
        }
    }
}

/// What the server is told about the call beside its arguments.
fn meta(context: &ToolContext) -> RequestMetaObject {
    let mut meta = RequestMetaObject::new();
    let told = [
        ("daybook/idempotency_key", context.idempotency_key.clone()),
        ("daybook/run_id", context.run_id.to_string()),
        ("daybook/session_id", context.session_id.to_string()),
        ("daybook/call_id", context.call_id.clone()),
    ];
    meta.0.0.extend(told.map(|(key, value)| (key.to_owned(), Value::String(value))));
    meta
}

#[async_trait]
impl Tool for McpTool {
    fn spec(&self) -> &ToolSpec {
        &self.spec
    }

    async fn call(&self, context: ToolContext, arguments: Map<String, Value>) -> Result<ToolOutput, ToolError> {
        let outcome = Box::pin(self.result(context, arguments)).await;
        outcome.map_err(|fault| match fault {
            ToolError::Failed(words) => ToolError::Failed(self.shared.secrets.hide(&words)),
            ToolError::Arguments(words) => ToolError::Arguments(self.shared.secrets.hide(&words)),
        })
    }
}
