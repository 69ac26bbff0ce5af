//! Reads a document, and the servers it names.

use std::time::Duration;

use serde_json::Value;
use tokio::io::AsyncReadExt as _;
use url::Url;

use super::Fault;
use crate::net::{GuardedClient, Limits, Request, shown};
use crate::text::clip;

/// The longest document, in bytes.
const MAX_DOCUMENT: usize = 16 << 20;

/// The longest a document may take to come.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Whether a document is fetched, and not read from a file.
pub(super) fn is_address(place: &str) -> bool {
    ["http://", "https://"].iter().any(|scheme| place.to_ascii_lowercase().starts_with(scheme))
}

/// Gets the text of the document from a file or an address, and tells the address.
pub(super) async fn load(place: &str, allow_private: &[String]) -> Result<(String, Option<Url>), Fault> {
    let (bytes, from) = if is_address(place) {
        let url =
            Url::parse(place).map_err(|error| Fault::Document(format!("document: this is no address: {error}")))?;
        (fetch(&url, allow_private).await?, Some(url))
    } else {
        (read_file(place).await?, None)
    };
    let text = String::from_utf8(bytes).map_err(|_| Fault::Document("the document is not UTF-8 text".to_owned()))?;
    Ok((text, from))
}

async fn fetch(url: &Url, allow_private: &[String]) -> Result<Vec<u8>, Fault> {
    let limits = Limits { timeout: TIMEOUT, max_bytes: MAX_DOCUMENT };
    let answer = GuardedClient::new(None, allow_private, limits)?.send(Request::get(url.clone())).await?;
    if !answer.status.is_success() {
        let status = answer.status.as_u16();
        return Err(Fault::Document(format!("{} answers {status} instead of the document", shown(url))));
    }
    Ok(answer.body.into())
}

async fn read_file(path: &str) -> Result<Vec<u8>, Fault> {
    let fault = |error: std::io::Error| Fault::Document(format!("document: {path} cannot be read: {error}"));
    let file = tokio::fs::File::open(path).await.map_err(fault)?;
    let mut bytes = Vec::new();
    file.take(MAX_DOCUMENT as u64 + 1).read_to_end(&mut bytes).await.map_err(fault)?;
    if bytes.len() > MAX_DOCUMENT {
        return Err(Fault::Document(format!("document: {path} is longer than {MAX_DOCUMENT} bytes")));
    }
    Ok(bytes)
}

/// Reads JSON or YAML, and checks that it is OpenAPI.
pub(super) fn parse(text: &str) -> Result<Value, Fault> {
    let text = text.trim_start_matches('\u{feff}');
    let document: Value = if text.trim_start().starts_with('{') {
        // A YAML document may begin so too.
        serde_json::from_str(text)
            .or_else(|json| yaml(text).map_err(|_| Fault::Document(format!("the document is no valid JSON: {json}"))))?
    } else {
        yaml(text).map_err(|error| {
            Fault::Document(format!("the document is no valid YAML: {}", clip(&error.to_string(), 500)))
        })?
    };
    let version = document.get("openapi").and_then(Value::as_str).unwrap_or_default();
    if !version.starts_with("3.0") && !version.starts_with("3.1") {
        let found = if document.get("swagger").is_some() { "Swagger 2" } else { "something else" };
        return Err(Fault::Document(format!("the document is {found}, not OpenAPI 3.0 or 3.1; convert it first")));
    }
    if !document.get("paths").is_some_and(Value::is_object) {
        return Err(Fault::Document("the document has no paths".to_owned()));
    }
    Ok(document)
}

/// YAML 1.2, as OpenAPI has it: the country `NO` is a text and no boolean, and `1_000` is no number.
fn yaml(text: &str) -> Result<Value, serde_saphyr::Error> {
    let options = serde_saphyr::options! { strict_booleans: true, underscored_numbers_as_strings: true };
    serde_saphyr::from_str_with_options(text, options)
}

/// An address given by an operator as the one before all paths.
pub(super) fn base(text: &str) -> Result<Url, Fault> {
    let fault = |why: &str| Fault::Document(format!("base_url {why}; give one such as https://api.example.com/v1"));
    let url = Url::parse(text).map_err(|_| fault("is no address"))?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none_or(str::is_empty) {
        return Err(fault("is not http or https"));
    }
    if !url.username().is_empty() || url.password().is_some() || url.query().is_some() || url.fragment().is_some() {
        return Err(fault("has a user name, a password, a query or a fragment, which belong elsewhere"));
    }
    Ok(url)
}

/// The document's own servers that have a whole address.
pub(super) fn servers(document: &Value, from: Option<&Url>) -> Vec<Url> {
    let listed = document.get("servers").and_then(Value::as_array).filter(|list| !list.is_empty());
    match listed {
        Some(list) => list.iter().filter_map(|one| server(one, from)).collect(),
        // What the standard says of a document without servers.
        None => from.and_then(|from| from.join("/").ok()).into_iter().collect(),
    }
}

/// A server's address, with its variables' defaults, relative to where the document comes from.
pub(super) fn server(server: &Value, from: Option<&Url>) -> Option<Url> {
    let mut text = server.get("url")?.as_str()?.to_owned();
    for (name, variable) in server.get("variables").and_then(Value::as_object).into_iter().flatten() {
        text = text.replace(&format!("{{{name}}}"), variable.get("default").and_then(Value::as_str)?);
    }
    let mut url = match from {
        Some(from) => from.join(&text).ok()?,
        None => Url::parse(&text).ok()?,
    };
    url.set_query(None);
    url.set_fragment(None);
    base(url.as_str()).ok()
}
