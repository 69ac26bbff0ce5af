//! One operation as a tool.

use std::sync::Arc;

use async_trait::async_trait;
use daybook_domain::tool::{Effect, ToolSpec};
use reqwest::header::HeaderValue;
use serde_json::{Map, Value};

use super::auth::Credentials;
use super::operation::Operation;
use super::request::request;
use crate::content::{Content, content, describe_binary};
use crate::net::{Answer, GuardedClient};
use crate::secrets::Secrets;
use crate::text::clip;
use crate::{ArgumentCheck, Tool, ToolContext, ToolError, ToolOutput};

/// How much of an error's body the model reads, in bytes.
const MAX_ERROR: usize = 4000;

/// What the tools of one document have in common.
pub(super) struct Api {
    pub client: GuardedClient,
    pub credentials: Option<Credentials>,
    pub secrets: Secrets,
}

/// An operation of an API.
pub(super) struct OperationTool {
    spec: ToolSpec,
    check: ArgumentCheck,
    operation: Operation,
    base: String,
    api: Arc<Api>,
}

impl OperationTool {
    pub fn new(name: String, operation: Operation, base: String, api: Arc<Api>, timeout_seconds: u64) -> Self {
        let mut spec = ToolSpec::new(name, &operation.description, operation.schema.clone()).effect(operation.effect());
        // Later than the client's own limit, whose message says more.
        spec.timeout_seconds = timeout_seconds.saturating_add(5);
        Self { check: ArgumentCheck::new(&spec), spec, operation, base, api }
    }
}

#[async_trait]
impl Tool for OperationTool {
    fn spec(&self) -> &ToolSpec {
        &self.spec
    }

    async fn call(&self, context: ToolContext, arguments: Map<String, Value>) -> Result<ToolOutput, ToolError> {
        self.check.check(&arguments)?;
        let mut request = request(&self.operation, &self.base, &arguments)?;
        if let Some(credentials) = &self.api.credentials {
            credentials.add(&mut request);
        }
        if self.spec.effect != Effect::Pure
            && let Ok(key) = HeaderValue::from_str(&context.idempotency_key)
        {
            request.headers.insert("idempotency-key", key);
        }
        let secrets = &self.api.secrets;
        let answer = self.api.client.send(request).await;
        let answer = answer.map_err(|error| ToolError::Failed(secrets.hide(&error.to_string())))?;
        let what = format!("{} {}", self.operation.method, clip(&self.operation.path, 200));
        output(&what, &answer, secrets)
    }
}

fn output(what: &str, answer: &Answer, secrets: &Secrets) -> Result<ToolOutput, ToolError> {
    let mut media = Vec::new();
    let body = match secrets.hide_in(content(answer)) {
        Content::Empty => None,
        Content::Json(json) => Some(json.get().to_owned()),
        Content::Text(text) => Some(text),
        Content::Binary => Some(secrets.hide(&describe_binary(answer))),
        Content::Image(image) => {
            media.push(*image);
            Some(format!("A picture of {} bytes, which comes with this result.", answer.body.len()))
        }
    };
    if answer.status.is_success() {
        let text = body.unwrap_or_else(|| format!("{} without a body", answer.status));
        return Ok(ToolOutput { text, media });
    }
    let body = body.map(|body| format!(": {}", clip(&body, MAX_ERROR))).unwrap_or_default();
    Err(ToolError::failed(format!("{what} answered {}{body}", answer.status)))
}
