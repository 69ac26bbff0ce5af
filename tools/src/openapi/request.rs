//! Writes the request of a call.

use reqwest::header::{self, HeaderMap, HeaderName, HeaderValue};
use serde_json::{Map, Value};
use url::Url;
use uuid::Uuid;

use super::operation::{Body, BodyKind, Layout, Operation, Parameter, Place, Style};
use crate::ToolError;
use crate::net::Request;
use crate::text::clip;

/// The request that calls `operation` below `base`, without credentials.
///
/// # Errors
/// [`ToolError::Arguments`] naming an argument that has no place in a path or a header.
pub(super) fn request(operation: &Operation, base: &str, arguments: &Map<String, Value>) -> Result<Request, ToolError> {
    let mut path = operation.path.clone();
    let mut query = Vec::new();
    let mut headers = HeaderMap::new();
    for parameter in &operation.parameters {
        let value = arguments.get(&parameter.argument);
        match (parameter.place, value) {
            (Place::Path, value) => {
                let text = simple(parameter, value.unwrap_or(&Value::Null), &percent);
                path = path.replace(&format!("{{{}}}", parameter.name), &path_part(parameter, text)?);
            }
            (_, None | Some(Value::Null)) => {}
            (Place::Query, Some(value)) => query.extend(query_parts(parameter, value)),
            (Place::Header, Some(value)) => {
                let text = simple(parameter, value, &str::to_owned);
                let refuse =
                    || ToolError::Arguments(format!("the argument {:?} cannot stand in a header", parameter.argument));
                let name = HeaderName::from_bytes(parameter.name.as_bytes()).map_err(|_| refuse())?;
                headers.insert(name, HeaderValue::from_str(&text).map_err(|_| refuse())?);
            }
        }
    }
    let mut url = Url::parse(&format!("{}/{}", base.trim_end_matches('/'), path.trim_start_matches('/')))
        .map_err(|error| ToolError::failed(format!("the address of {} cannot be made: {error}", operation.path)))?;
    if !query.is_empty() {
        url.set_query(Some(&query.join("&")));
    }
    let body = match &operation.body {
        Some(body) => write_body(body, arguments, &mut headers)?,
        None => None,
    };
    headers.entry(header::ACCEPT).or_insert(HeaderValue::from_static("application/json, */*;q=0.8"));
    Ok(Request { method: operation.method.clone(), url, headers, body: body.map(Into::into) })
}

/// A value in a path stays in its part of it: empty ones and dots, which would lead elsewhere, are refused.
fn path_part(parameter: &Parameter, text: String) -> Result<String, ToolError> {
    if text.is_empty() || text.chars().all(|c| c == '.') {
        let fault = format!("the argument {:?} is {text:?}, which has no place in a path", parameter.argument);
        return Err(ToolError::Arguments(fault));
    }
    Ok(text)
}

/// The text of one value.
fn scalar(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

/// Style `simple`, each text written by `encode`.
fn simple(parameter: &Parameter, value: &Value, encode: &dyn Fn(&str) -> String) -> String {
    match value {
        _ if parameter.style == Style::Json => encode(&value.to_string()),
        Value::Array(items) => items.iter().map(|item| encode(&scalar(item))).collect::<Vec<_>>().join(","),
        Value::Object(fields) => {
            let between = if parameter.explode { "=" } else { "," };
            let parts = fields.iter().map(|(name, item)| format!("{}{between}{}", encode(name), encode(&scalar(item))));
            parts.collect::<Vec<_>>().join(",")
        }
        one => encode(&scalar(one)),
    }
}

/// The `name=value` parts of a parameter in the query.
fn query_parts(parameter: &Parameter, value: &Value) -> Vec<String> {
    let name = percent(&parameter.name);
    let delimiter = if let Style::Delimited(delimiter) = parameter.style { delimiter } else { "," };
    let part = |name: &str, value: &Value| format!("{name}={}", percent(&scalar(value)));
    match value {
        _ if parameter.style == Style::Json => vec![format!("{name}={}", percent(&value.to_string()))],
        Value::Array(items) if parameter.explode => items.iter().map(|item| part(&name, item)).collect(),
        Value::Array(items) => {
            let items: Vec<_> = items.iter().map(|item| percent(&scalar(item))).collect();
            vec![format!("{name}={}", items.join(delimiter))]
        }
        Value::Object(fields) if parameter.style == Style::DeepObject => {
            let mut parts = Vec::new();
            deep(&name, fields, &mut parts);
            parts
        }
        Value::Object(fields) if parameter.explode => {
            fields.iter().map(|(key, item)| part(&percent(key), item)).collect()
        }
        Value::Object(fields) => {
            let pairs: Vec<_> = fields.iter().flat_map(|(key, item)| [percent(key), percent(&scalar(item))]).collect();
            vec![format!("{name}={}", pairs.join(delimiter))]
        }
        one => vec![part(&name, one)],
    }
}

/// `name[key]=value`, and so on inwards; how deep arguments go was checked.
fn deep(name: &str, fields: &Map<String, Value>, parts: &mut Vec<String>) {
    for (key, value) in fields {
        let name = format!("{name}%5B{}%5D", percent(key));
        match value {
            Value::Object(inner) => deep(&name, inner, parts),
            Value::Array(items) => parts.extend(items.iter().map(|item| format!("{name}={}", percent(&scalar(item))))),
            one => parts.push(format!("{name}={}", percent(&scalar(one)))),
        }
    }
}

/// The text with all but unreserved characters percent-encoded.
pub(super) fn percent(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

fn write_body(
    body: &Body,
    arguments: &Map<String, Value>,
    headers: &mut HeaderMap,
) -> Result<Option<String>, ToolError> {
    let value = match &body.layout {
        Layout::Argument(name) => arguments.get(name).cloned(),
        Layout::Fields(names) => {
            let given = names.iter().filter_map(|name| Some((name.clone(), arguments.get(name)?.clone())));
            let fields: Map<_, _> = given.collect();
            (body.required || !fields.is_empty()).then_some(Value::Object(fields))
        }
    };
    let Some(value) = value else { return Ok(None) };
    let (text, content_type) = match body.kind {
        BodyKind::Json => {
            (value.to_string(), if body.content_type.contains('*') { "application/json" } else { &body.content_type })
        }
        BodyKind::Text => (scalar(&value), body.content_type.as_str()),
        BodyKind::Urlencoded => (urlencoded(&value)?, body.content_type.as_str()),
        BodyKind::Multipart => {
            let boundary = Uuid::now_v7().simple().to_string();
            headers.insert(header::CONTENT_TYPE, typed(&format!("multipart/form-data; boundary={boundary}"))?);
            return Ok(Some(multipart(&value, &boundary)?));
        }
    };
    headers.insert(header::CONTENT_TYPE, typed(content_type)?);
    Ok(Some(text))
}

fn typed(content_type: &str) -> Result<HeaderValue, ToolError> {
    HeaderValue::from_str(content_type).map_err(|_| {
        ToolError::failed(format!("the document's media type {:?} cannot be sent", clip(content_type, 60)))
    })
}

/// The fields of a form: one for each item of a list; objects as JSON.
fn form_fields(value: &Value) -> Result<Vec<(&str, String)>, ToolError> {
    let fields = value.as_object();
    let fields =
        fields.ok_or_else(|| ToolError::Arguments("the body is a form: give an object of fields".to_owned()))?;
    let mut all = Vec::new();
    for (name, value) in fields {
        match value {
            Value::Null => {}
            Value::Array(items) => all.extend(items.iter().map(|item| (name.as_str(), scalar(item)))),
            one => all.push((name.as_str(), scalar(one))),
        }
    }
    Ok(all)
}

fn urlencoded(value: &Value) -> Result<String, ToolError> {
    serde_urlencoded::to_string(form_fields(value)?).map_err(ToolError::failed)
}

fn multipart(value: &Value, boundary: &str) -> Result<String, ToolError> {
    let mut out = String::new();
    for (name, text) in form_fields(value)? {
        let name = name.replace('"', "%22").replace('\r', "%0D").replace('\n', "%0A");
        out.push_str(&format!("--{boundary}\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{text}\r\n"));
    }
    out.push_str(&format!("--{boundary}--\r\n"));
    Ok(out)
}
