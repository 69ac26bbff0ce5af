//! Tools from an OpenAPI document (3.0 or 3.1): one for each operation.

mod auth;
mod document;
mod operation;
mod request;
mod schema;
#[cfg(test)]
mod tests;
mod tool;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;
use url::Url;

use auth::Credentials;
pub use auth::OpenApiAuth;
use document::{load, parse, servers};
use operation::{Operation, operations, unique};
use tool::{Api, OperationTool};

use crate::http::{default_bytes, default_seconds};
use crate::net::{GuardedClient, HostPattern, Limits, NetError};
use crate::{SourceError, Tool, ToolSource};

/// The most tools of one document: more would drown a model.
const MAX_TOOLS: usize = 512;

/// Which API is offered, and how it is reached.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OpenApiOptions {
    /// The document, in JSON or YAML: the path of a file, or an address that begins with http:// or https://.
    pub document: String,
    /// What stands before the paths, such as `https://api.example.com/v1`. The document's first server unless said. When
    /// said, every operation goes there, and so do the credentials, whatever the document says.
    #[serde(default)]
    pub base_url: Option<String>,
    /// The operations that are offered: by `operationId`, by tool name, or as `GET /path`. With `tags`, those that either
    /// names; all of them when both are empty.
    #[serde(default)]
    pub operations: Vec<String>,
    /// The tags whose operations are offered.
    #[serde(default)]
    pub tags: Vec<String>,
    /// The credentials that every call has. The model neither sees nor sets them; where an answer repeats them, it reads
    /// `[redacted]`, unless they have fewer than 6 bytes.
    #[serde(default)]
    pub auth: Option<OpenApiAuth>,
    /// Hosts that may be asked although their addresses are not public: host names, `host:port`, addresses or ranges
    /// such as `10.0.0.0/8`.
    #[serde(default)]
    pub allow_private: Vec<String>,
    /// The longest a call may take, in seconds; 30 unless said.
    #[serde(default = "default_seconds")]
    pub timeout_seconds: u64,
    /// The longest answer, in bytes after decompression; 1 MiB unless said.
    #[serde(default = "default_bytes")]
    pub max_response_bytes: usize,
}

impl OpenApiOptions {
    /// Whether the document is a file, and not an address.
    pub fn is_file(&self) -> bool {
        !document::is_address(&self.document)
    }

    /// Whether the document, if it is a file, is on this machine now.
    ///
    /// # Errors
    /// That it cannot be opened, and why.
    pub fn check_file(&self) -> Result<(), String> {
        match self.is_file().then(|| std::fs::File::open(&self.document)) {
            Some(Err(error)) => Err(format!("document: {} cannot be read: {error}", self.document)),
            _ => Ok(()),
        }
    }
}

/// Why a document gives no tools.
#[derive(Debug, thiserror::Error)]
enum Fault {
    #[error("{0}")]
    Document(String),
    #[error(transparent)]
    Net(#[from] NetError),
}

/// The operations of one document as tools. The document is read anew whenever the tools are asked for.
#[derive(Debug, Clone)]
pub struct OpenApiSource {
    name: String,
    options: OpenApiOptions,
    credentials: Option<Credentials>,
}

impl OpenApiSource {
    /// A source of this name.
    ///
    /// # Errors
    /// [`SourceError`] when an option cannot be used; the document is not read yet.
    pub fn new(name: impl Into<String>, options: OpenApiOptions) -> Result<Self, SourceError> {
        let name = name.into();
        let check = || -> Result<_, Fault> {
            if let Some(base) = &options.base_url {
                document::base(base)?;
            }
            GuardedClient::new(None, &options.allow_private, limits(&options))?;
            Ok(options.auth.as_ref().map(Credentials::new).transpose()?)
        };
        let credentials =
            check().map_err(|fault| SourceError { source_name: name.clone(), fault: fault.to_string() })?;
        Ok(Self { name, options, credentials })
    }

    async fn read(&self) -> Result<Vec<Arc<dyn Tool>>, Fault> {
        let (text, from) = load(&self.options.document, &self.options.allow_private).await?;
        let source = self.clone();
        // A large document takes a second or more of computing.
        tokio::task::spawn_blocking(move || source.build(&text, from.as_ref()))
            .await
            .map_err(|_| Fault::Document("the document cannot be read".to_owned()))?
    }

    fn build(&self, text: &str, from: Option<&Url>) -> Result<Vec<Arc<dyn Tool>>, Fault> {
        let document = parse(text)?;
        let hidden = |place, name: &str| self.credentials.as_ref().is_some_and(|known| known.fills(place, name));
        let all = operations(&document, &hidden);
        let chosen = self.choose(all)?;
        let bases = self.bases(&document, from, &chosen)?;
        let own = servers(&document, from);
        let hosts = bases.iter().chain(&own).map(host);
        let client = GuardedClient::new(
            Some(hosts.collect::<Result<_, _>>()?),
            &self.options.allow_private,
            limits(&self.options),
        )?;
        let secrets = self.options.auth.as_ref().map(OpenApiAuth::secrets).unwrap_or_default();
        let api = Arc::new(Api { client, credentials: self.credentials.clone(), secrets });
        let mut taken = BTreeSet::new();
        let tools = chosen.into_iter().zip(bases).map(|(operation, base)| -> Arc<dyn Tool> {
            let name = unique(&operation.name(), &mut taken);
            Arc::new(OperationTool::new(
                name,
                operation,
                base.to_string(),
                Arc::clone(&api),
                self.options.timeout_seconds,
            ))
        });
        Ok(tools.collect())
    }

    fn choose(&self, all: Vec<Operation>) -> Result<Vec<Operation>, Fault> {
        let (names, tags) = (&self.options.operations, &self.options.tags);
        let named = |operation: &Operation, name: &String| {
            operation.id.as_ref() == Some(name)
                || operation.name() == *name
                || format!("{} {}", operation.method, operation.path) == *name
        };
        if let Some(name) = names.iter().find(|name| !all.iter().any(|operation| named(operation, name))) {
            return Err(Fault::Document(format!(
                "operations: the document has no {name:?} that can be called; name it by its operationId or as GET /path"
            )));
        }
        if let Some(tag) = tags.iter().find(|tag| !all.iter().any(|operation| operation.tags.contains(tag))) {
            return Err(Fault::Document(format!("tags: no operation of the document has the tag {tag:?}")));
        }
        let everything = names.is_empty() && tags.is_empty();
        let wanted = |operation: &Operation| {
            everything
                || names.iter().any(|name| named(operation, name))
                || operation.tags.iter().any(|tag| tags.contains(tag))
        };
        let chosen: Vec<_> = all.into_iter().filter(wanted).collect();
        if chosen.len() > MAX_TOOLS {
            return Err(Fault::Document(format!(
                "the document has {} operations and {MAX_TOOLS} are the most; choose some by operations or tags",
                chosen.len()
            )));
        }
        Ok(chosen)
    }

    /// What stands before each operation's path.
    fn bases(&self, document: &Value, from: Option<&Url>, chosen: &[Operation]) -> Result<Vec<Url>, Fault> {
        if let Some(base) = &self.options.base_url {
            return Ok(vec![document::base(base)?; chosen.len()]);
        }
        let first = servers(document, from).into_iter().next();
        let base = |operation: &Operation| {
            let own = operation.server.as_ref().and_then(|server| document::server(server, from));
            own.or_else(|| first.clone()).ok_or_else(|| {
                Fault::Document("the document names no server with a whole address; set base_url".to_owned())
            })
        };
        chosen.iter().map(base).collect()
    }
}

#[async_trait]
impl ToolSource for OpenApiSource {
    fn name(&self) -> &str {
        &self.name
    }

    async fn tools(&self) -> Result<Vec<Arc<dyn Tool>>, SourceError> {
        Box::pin(self.read())
            .await
            .map_err(|fault| SourceError { source_name: self.name.clone(), fault: fault.to_string() })
    }
}

fn limits(options: &OpenApiOptions) -> Limits {
    Limits { timeout: Duration::from_secs(options.timeout_seconds), max_bytes: options.max_response_bytes }
}

/// The host and port of an address, as a pattern.
fn host(url: &Url) -> Result<HostPattern, NetError> {
    let port = url.port_or_known_default().unwrap_or(443);
    HostPattern::parse(&format!("{}:{port}", url.host_str().unwrap_or_default()))
}
