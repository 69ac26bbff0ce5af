//! HTTP requests to the hosts an operator named.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use daybook_domain::tool::{Effect, ToolSpec};
use reqwest::Method;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use schemars::JsonSchema;
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Map, Value, json};
use url::Url;

use crate::content::{Content, content, describe_binary};
use crate::net::{Answer, GuardedClient, HostPattern, Limits, NetError, Request, is_reserved_header, secret_header};
use crate::secrets::Secrets;
use crate::text::clip;
use crate::{ArgumentCheck, Tool, ToolContext, ToolError, ToolOutput};

/// The methods an operator may allow.
const METHODS: [&str; 7] = ["GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"];

/// Which requests a model may make.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HttpOptions {
    /// The hosts that may be asked: `api.example.com`, all below a domain as `*.example.com`, either with a port as
    /// `api.example.com:8443`. At least one.
    pub hosts: Vec<String>,
    /// The methods that may be used: GET, HEAD, OPTIONS, POST, PUT, PATCH, DELETE. GET and HEAD unless said.
    #[serde(default = "default_methods")]
    pub methods: Vec<String>,
    /// Hosts that may be asked although their addresses are not public: host names, `host:port`, addresses or ranges
    /// such as `10.0.0.0/8`. They must be among `hosts` too.
    #[serde(default)]
    pub allow_private: Vec<String>,
    /// The longest answer, in bytes after decompression; 1 MiB unless said.
    #[serde(default = "default_bytes")]
    pub max_response_bytes: usize,
    /// The longest a request may take with its redirects, in seconds; 30 unless said.
    #[serde(default = "default_seconds")]
    pub timeout_seconds: u64,
    /// Headers that every request to any of the hosts has, such as `Authorization`. The model neither sees nor changes
    /// them, and a redirect to another origin goes without them. They are sent by https only, but for hosts that
    /// `allow_private` names. Where an answer repeats their values, the model reads `[redacted]`, unless they have fewer
    /// than 6 bytes or only say what is understood (`Accept`, `Accept-Language`, `Content-Type`, `User-Agent`).
    #[serde(default)]
    #[schemars(with = "BTreeMap<String, String>")]
    pub headers: BTreeMap<String, SecretString>,
}

fn default_methods() -> Vec<String> {
    ["GET", "HEAD"].map(str::to_owned).to_vec()
}

pub(crate) fn default_bytes() -> usize {
    1 << 20
}

pub(crate) fn default_seconds() -> u64 {
    30
}

/// `http_get(url, headers)`, and `http_request(method, url, headers, body)` when methods beyond GET and HEAD are allowed.
///
/// The first changes nothing; the second may do harm when called twice, and sends the call's `Idempotency-Key` with
/// every write. Both give JSON with `status`, `content_type` and `body`, also for error statuses; pictures come as media.
/// The error of a write that was sent, and has no whole answer, says that it may have been done.
///
/// # Errors
/// [`NetError::Setting`] that names the option and how to mend it.
pub fn http_tools(options: &HttpOptions) -> Result<Vec<Arc<dyn Tool>>, NetError> {
    let shared = Arc::new(Shared::new(options)?);
    let (reads, others): (Vec<_>, Vec<_>) = shared.methods.iter().cloned().partition(Method::is_safe_read);
    let mut tools: Vec<Arc<dyn Tool>> = Vec::new();
    if !reads.is_empty() {
        tools.push(Arc::new(HttpTool::get(&shared, options, &reads)));
    }
    if !others.is_empty() {
        tools.push(Arc::new(HttpTool::request(&shared, options)));
    }
    Ok(tools)
}

trait SafeRead {
    fn is_safe_read(&self) -> bool;
}

impl SafeRead for Method {
    fn is_safe_read(&self) -> bool {
        matches!(*self, Method::GET | Method::HEAD)
    }
}

/// What the tools of one configuration have in common.
struct Shared {
    client: GuardedClient,
    methods: Vec<Method>,
    headers: HeaderMap,
    secrets: Secrets,
}

/// Headers that no server is let in by.
const OPEN_HEADERS: [&str; 4] = ["accept", "accept-language", "content-type", "user-agent"];

impl Shared {
    fn new(options: &HttpOptions) -> Result<Self, NetError> {
        if options.hosts.is_empty() {
            return Err(NetError::Setting("hosts is empty: name the hosts that may be asked".to_owned()));
        }
        if options.methods.is_empty() {
            return Err(NetError::Setting("methods is empty: name at least one, such as GET".to_owned()));
        }
        let hosts = options.hosts.iter().map(|host| HostPattern::parse(host)).collect::<Result<_, _>>()?;
        let limits =
            Limits { timeout: Duration::from_secs(options.timeout_seconds), max_bytes: options.max_response_bytes };
        let mut methods = Vec::new();
        for name in &options.methods {
            let upper = name.to_ascii_uppercase();
            let known = METHODS.contains(&upper.as_str()).then(|| Method::from_bytes(upper.as_bytes()).ok()).flatten();
            let method = known
                .ok_or_else(|| NetError::Setting(format!("methods: {name:?} is none of {}", METHODS.join(", "))))?;
            if !methods.contains(&method) {
                methods.push(method);
            }
        }
        let mut headers = HeaderMap::new();
        for (name, secret) in &options.headers {
            let known = HeaderName::from_bytes(name.as_bytes()).ok().filter(|name| !is_reserved_header(name.as_str()));
            let header = known.ok_or_else(|| NetError::Setting(format!("headers: {name:?} cannot be set")))?;
            headers.insert(header, secret_header(&format!("the header {name}"), secret.expose_secret())?);
        }
        let closed =
            options.headers.iter().filter(|(name, _)| !OPEN_HEADERS.iter().any(|open| name.eq_ignore_ascii_case(open)));
        let secrets = Secrets::new(closed.map(|(_, value)| value.expose_secret()));
        let client = GuardedClient::new(Some(hosts), &options.allow_private, limits)?;
        Ok(Self { client, methods, headers, secrets })
    }
}

/// One of the two tools.
struct HttpTool {
    spec: ToolSpec,
    check: ArgumentCheck,
    shared: Arc<Shared>,
}

impl HttpTool {
    fn get(shared: &Arc<Shared>, options: &HttpOptions, reads: &[Method]) -> Self {
        let names: Vec<_> = reads.iter().map(Method::as_str).collect();
        let parameters = json!({
            "type": "object",
            "properties": {
                "url": {"type": "string", "description": "The address, with http:// or https://."},
                "headers": headers_schema(),
                "method": {"type": "string", "enum": names, "description": "Unless said, the first of them."},
            },
            "required": ["url"],
            "additionalProperties": false,
        });
        let description = format!("Reads an address by HTTP. Hosts that may be asked: {}.", options.hosts.join(", "));
        Self::new("http_get", &description, parameters, Effect::Pure, shared, options)
    }

    fn request(shared: &Arc<Shared>, options: &HttpOptions) -> Self {
        let names: Vec<_> = shared.methods.iter().map(Method::as_str).collect();
        let parameters = json!({
            "type": "object",
            "properties": {
                "method": {"type": "string", "enum": names},
                "url": {"type": "string", "description": "The address, with http:// or https://."},
                "headers": headers_schema(),
                "body": {
                    "description": "Text is sent as it is; an object or a list is sent as JSON.",
                    "type": ["string", "object", "array"],
                },
            },
            "required": ["method", "url"],
            "additionalProperties": false,
        });
        let description = format!("Makes an HTTP request. Hosts that may be asked: {}.", options.hosts.join(", "));
        Self::new("http_request", &description, parameters, Effect::Unsafe, shared, options)
    }

    fn new(
        name: &str,
        description: &str,
        parameters: Value,
        effect: Effect,
        shared: &Arc<Shared>,
        options: &HttpOptions,
    ) -> Self {
        let mut spec = ToolSpec::new(name, description, parameters).effect(effect);
        // Later than the client's own limit, whose message says more.
        spec.timeout_seconds = options.timeout_seconds.saturating_add(5);
        Self { check: ArgumentCheck::new(&spec), spec, shared: Arc::clone(shared) }
    }

    fn build(&self, context: &ToolContext, arguments: &Map<String, Value>) -> Result<Request, ToolError> {
        let text = |name: &str| arguments.get(name).and_then(Value::as_str);
        let url = text("url").unwrap_or_default();
        let url = Url::parse(url).map_err(|error| {
            ToolError::Arguments(format!(
                "{:?} is not an address: {error}; give one such as https://example.com/",
                clip(url, 100)
            ))
        })?;
        // The model chooses the scheme; it must not choose to show the operator's headers to everybody on the way.
        if url.scheme() == "http" && !self.shared.headers.is_empty() && !self.shared.client.is_opened(&url) {
            return Err(ToolError::Arguments("use https: requests to this host carry credentials".to_owned()));
        }
        // The schema's `enum` has let through only methods that are allowed.
        let method = text("method").and_then(|name| self.shared.methods.iter().find(|method| method.as_str() == name));
        let method = method.or_else(|| self.shared.methods.iter().find(|method| method.is_safe_read()));
        let method = method.cloned().ok_or_else(|| ToolError::Arguments("no such method is allowed".to_owned()))?;
        let mut headers = self.model_headers(arguments.get("headers"))?;
        let body = match arguments.get("body") {
            None | Some(Value::Null) => None,
            Some(Value::String(text)) => Some(text.clone()),
            Some(json) => {
                headers.entry(reqwest::header::CONTENT_TYPE).or_insert(HeaderValue::from_static("application/json"));
                Some(json.to_string())
            }
        };
        headers.extend(self.shared.headers.clone());
        let mut request = Request { method, url, headers, body: body.map(Into::into) };
        if request.is_write()
            && let Ok(key) = HeaderValue::from_str(&context.idempotency_key)
        {
            request.headers.insert("idempotency-key", key);
        }
        Ok(request)
    }

    fn model_headers(&self, given: Option<&Value>) -> Result<HeaderMap, ToolError> {
        let mut headers = HeaderMap::new();
        for (name, value) in given.and_then(Value::as_object).into_iter().flatten() {
            let refuse = |why: &str| ToolError::Arguments(format!("the header {:?} {why}", clip(name, 60)));
            let header = HeaderName::from_bytes(name.as_bytes()).map_err(|_| refuse("has no possible name"))?;
            if is_reserved_header(name) || header == "idempotency-key" || self.shared.headers.contains_key(&header) {
                return Err(refuse("is set by the server; leave it out"));
            }
            let value = value.as_str().and_then(|value| HeaderValue::from_str(value).ok());
            headers.insert(header, value.ok_or_else(|| refuse("has a value with characters that no header may have"))?);
        }
        Ok(headers)
    }
}

fn headers_schema() -> Value {
    json!({
        "type": "object",
        "additionalProperties": {"type": "string"},
        "description": "Request headers, such as Accept. Those for signing in are set by the server.",
    })
}

#[async_trait]
impl Tool for HttpTool {
    fn spec(&self) -> &ToolSpec {
        &self.spec
    }

    async fn call(&self, context: ToolContext, arguments: Map<String, Value>) -> Result<ToolOutput, ToolError> {
        self.check.check(&arguments)?;
        let request = self.build(&context, &arguments)?;
        let secrets = &self.shared.secrets;
        let answer = self.shared.client.send(request).await.map_err(|error| match error {
            // Another address may do better.
            NetError::Refused(fault) => ToolError::Arguments(secrets.hide(&fault)),
            other => ToolError::Failed(secrets.hide(&other.to_string())),
        })?;
        output(&answer, secrets)
    }
}

#[derive(Serialize)]
struct Told {
    status: u16,
    content_type: String,
    body: Box<RawValue>,
}

fn output(answer: &Answer, secrets: &Secrets) -> Result<ToolOutput, ToolError> {
    let mut media = Vec::new();
    let text = |text: &str| to_raw_value(text).map_err(ToolError::failed);
    let body = match secrets.hide_in(content(answer)) {
        Content::Json(json) => json,
        Content::Text(words) => text(&words)?,
        Content::Empty => text("")?,
        Content::Binary => text(&secrets.hide(&describe_binary(answer)))?,
        Content::Image(image) => {
            media.push(*image);
            text(&format!("a picture of {} bytes, which comes with this result", answer.body.len()))?
        }
    };
    let content_type = clip(&secrets.hide(&answer.media_type()), 200);
    let told = Told { status: answer.status.as_u16(), content_type, body };
    Ok(ToolOutput { text: serde_json::to_string(&told).map_err(ToolError::failed)?, media })
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::prelude::BASE64_STANDARD;
    use daybook_domain::media::{MediaContent, MediaKind};

    use super::*;
    use crate::testing::{Server, answer, context};

    fn options(server: &Server, more: Value) -> HttpOptions {
        let mut all = json!({"hosts": ["127.0.0.1"], "allow_private": [server.address.to_string()]});
        all.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap());
        serde_json::from_value(all).unwrap()
    }

    async fn call(tool: &Arc<dyn Tool>, arguments: Value) -> Result<ToolOutput, ToolError> {
        tool.call(context(), arguments.as_object().cloned().unwrap()).await
    }

    #[tokio::test]
    async fn answers_are_told_by_kind() {
        let server = Server::new(|request| match request.split(' ').nth(1) {
            Some("/json") => answer("200 OK", &["Content-Type: application/json"], r#"{"n":12345678901234567890123}"#),
            Some("/latin") => answer("200 OK", &["Content-Type: text/plain; charset=ISO-8859-1"], b"caf\xe9"),
            Some("/png") => answer("200 OK", &["Content-Type: image/png"], b"\x89PNG"),
            Some("/zip") => answer("200 OK", &["Content-Type: application/zip"], b"PK\0\0"),
            Some("/odd") => answer("200 OK", &[], b"\0\x01"),
            _ => answer("404 Not Found", &["Content-Type: text/plain"], "nothing here"),
        })
        .await;
        let tools = http_tools(&options(&server, json!({}))).unwrap();
        assert_eq!(tools.len(), 1);
        assert_eq!((tools[0].spec().name.as_str(), tools[0].spec().effect), ("http_get", Effect::Pure));
        let get = async |path: &str| call(&tools[0], json!({"url": server.url(path)})).await.unwrap();
        let told = r#"{"status":200,"content_type":"application/json","body":{"n":12345678901234567890123}}"#;
        assert_eq!(get("/json").await.text, told);
        assert!(get("/latin").await.text.contains("café"));
        assert!(get("/zip").await.text.contains("4 bytes of application/zip"));
        assert!(get("/odd").await.text.contains("2 bytes of unknown type"));
        let missing = get("/none").await.text;
        assert_eq!(missing, r#"{"status":404,"content_type":"text/plain","body":"nothing here"}"#);
        let picture = get("/png").await.media.remove(0);
        assert_eq!((picture.kind, picture.mime_type.as_deref()), (MediaKind::Image, Some("image/png")));
        assert_eq!(picture.content, MediaContent::Base64("iVBORw==".to_owned()));
        let head = call(&tools[0], json!({"url": server.url("/json"), "method": "HEAD"})).await.unwrap();
        assert!(head.text.contains(r#""body":"""#), "{}", head.text);
    }

    #[tokio::test]
    async fn writes_carry_key_and_secret() {
        let server = Server::new(|_| answer("201 Created", &[], "")).await;
        let more = json!({"methods": ["get", "POST"], "headers": {"Authorization": "Bearer hunter2"}});
        let options = options(&server, more);
        assert!(!format!("{options:?}").contains("hunter2"));
        let tools = http_tools(&options).unwrap();
        assert_eq!((tools[1].spec().name.as_str(), tools[1].spec().effect), ("http_request", Effect::Unsafe));
        let arguments = json!({"method": "POST", "url": server.url("/x"), "headers": {"X-A": "b"}, "body": {"a": 1}});
        call(&tools[1], arguments).await.unwrap();
        let request = server.requests().pop().unwrap().to_ascii_lowercase();
        for part in ["idempotency-key: key-1", "bearer hunter2", "x-a: b", "application/json", "{\"a\":1}"] {
            assert!(request.contains(part), "{part}: {request}");
        }
        call(&tools[0], json!({"url": server.url("/x")})).await.unwrap();
        assert!(!server.requests().pop().unwrap().to_ascii_lowercase().contains("idempotency-key"));
    }

    #[tokio::test]
    async fn a_secret_that_comes_back_is_hidden() {
        let server = Server::new(|request| {
            let sent = request.lines().find_map(|line| line.strip_prefix("x-key: ")).unwrap_or_default();
            match request.split(' ').nth(1) {
                Some("/json") => {
                    answer("200 OK", &["Content-Type: application/json"], json!({"sent": sent}).to_string())
                }
                Some("/type") => answer("200 OK", &[&format!("Content-Type: x/{sent}")], b"\0"),
                Some("/away") => answer("302 Found", &[&format!("Location: ftp://{sent}/")], ""),
                Some("/base64") => answer("200 OK", &[], BASE64_STANDARD.encode(request)),
                _ => answer("403 Forbidden", &["Content-Type: text/plain"], format!("{sent} may not, says en-GB")),
            }
        })
        .await;
        let headers = json!({"X-Key": "hunter22/x", "Accept-Language": "en-GB,en"});
        let tools = http_tools(&options(&server, json!({"headers": headers}))).unwrap();
        let get = async |path: &str| match call(&tools[0], json!({"url": server.url(path)})).await {
            Ok(output) => output.text,
            Err(error) => error.to_string(),
        };
        assert!(get("/json").await.ends_with(r#""body":{"sent":"[redacted]"}}"#));
        assert!(get("/text").await.contains("[redacted] may not, says en-GB"));
        for path in ["/type", "/away", "/base64"] {
            let told = get(path).await;
            assert!(told.contains("[redacted]") && !told.contains("hunter"), "{path}: {told}");
            assert!(!told.contains(&BASE64_STANDARD.encode("hunter22/x")[..8]), "{path}: {told}");
        }
    }

    #[tokio::test]
    async fn the_model_is_told_of_a_write_that_may_have_been_done() {
        let server = Server::new(|_| b"garbage".to_vec()).await;
        let tools = http_tools(&options(&server, json!({"methods": ["GET", "POST"]}))).unwrap();
        let wrote = call(&tools[1], json!({"method": "POST", "url": server.url("/x")})).await.unwrap_err();
        assert!(matches!(&wrote, ToolError::Failed(fault) if fault.contains("The POST may have been done")), "{wrote}");
        let read = call(&tools[0], json!({"url": server.url("/x")})).await.unwrap_err();
        assert!(!read.to_string().contains("may have been done"), "{read}");
    }

    #[tokio::test]
    async fn what_is_not_allowed_is_refused() {
        let server = Server::new(|_| answer("200 OK", &[], "x")).await;
        let tools = http_tools(&options(&server, json!({"headers": {"X-Key": "hunter2"}}))).unwrap();
        let url = server.url("/");
        for arguments in [
            json!({}),
            json!({"url": "no address"}),
            json!({"url": url, "method": "POST"}),
            json!({"url": url, "headers": {"Host": "other"}}),
            json!({"url": url, "headers": {"X-HTTP-Method-Override": "DELETE"}}),
            json!({"url": url, "headers": {"x-forwarded-for": "10.0.0.1"}}),
            json!({"url": url, "headers": {"x-key": "mine"}}),
            json!({"url": url, "headers": {"a": "b\r\nc: d"}}),
            json!({"url": "http://localhost/"}),
            json!({"url": "http://127.0.0.1:2/"}),
            json!({"url": "http://127.0.0.1:1/"}),
            json!({"url": "file:///etc/passwd"}),
        ] {
            let error = call(&tools[0], arguments.clone()).await.unwrap_err();
            assert!(matches!(error, ToolError::Arguments(_)), "{arguments}: {error}");
            assert!(!error.to_string().contains("hunter2"));
        }
        assert!(server.requests().is_empty());
    }

    #[test]
    fn settings_are_checked() {
        let fault = |options: Value| {
            let options = serde_json::from_value::<HttpOptions>(options).map_err(|error| error.to_string());
            options.and_then(|options| http_tools(&options).map_err(|error| error.to_string())).err().unwrap()
        };
        assert!(fault(json!({})).contains("hosts"));
        assert!(fault(json!({"hosts": []})).contains("hosts"));
        assert!(fault(json!({"hosts": ["a"], "methods": ["BREW"]})).contains("BREW"));
        assert!(fault(json!({"hosts": ["a"], "nope": 1})).contains("nope"));
        assert!(fault(json!({"hosts": ["a"], "allow_private": ["10.0.0.0/99"]})).contains("10.0.0.0/99"));
        let secret = fault(json!({"hosts": ["a"], "headers": {"X-Key": "hunter2\n"}}));
        assert!(secret.contains("X-Key") && !secret.contains("hunter2"), "{secret}");
        assert!(fault(json!({"hosts": ["a"], "headers": {"Host": "b"}})).contains("Host"));
        let schema = schemars::schema_for!(HttpOptions);
        assert_eq!(schema.as_value()["required"], json!(["hosts"]));
    }
}
