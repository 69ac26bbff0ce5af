//! Reads a document's operations: how each is called, and where each argument goes.

use std::collections::BTreeSet;

use daybook_domain::tool::Effect;
use reqwest::Method;
use serde_json::{Map, Value, json};

use super::schema::{Schemas, resolve};
use crate::content::is_json;
use crate::net::is_reserved_header;
use crate::text::clip;

/// Where a parameter stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Path,
    Query,
    Header,
}

/// How lists and objects are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Style {
    Simple,
    Form,
    /// Like `Form`, with this between the parts when not exploded: an encoded space, or a bar.
    Delimited(&'static str),
    DeepObject,
    /// As JSON text.
    Json,
}

/// One parameter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Parameter {
    /// The argument that holds it.
    pub argument: String,
    /// Its name in the request.
    pub name: String,
    pub place: Place,
    pub style: Style,
    pub explode: bool,
}

/// How a body is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum BodyKind {
    Json,
    Urlencoded,
    Multipart,
    Text,
}

/// Which arguments make the body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Layout {
    /// This one is the body.
    Argument(String),
    /// These are its fields.
    Fields(Vec<String>),
}

/// The body of an operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Body {
    pub kind: BodyKind,
    pub content_type: String,
    pub required: bool,
    pub layout: Layout,
}

/// One operation.
#[derive(Debug, Clone)]
pub(super) struct Operation {
    /// Its `operationId`, when it has one.
    pub id: Option<String>,
    pub tags: Vec<String>,
    pub method: Method,
    /// Its path, with `{name}` where parameters go.
    pub path: String,
    /// The address before the path that the operation or its path name; the document's own otherwise.
    pub server: Option<Value>,
    pub description: String,
    /// JSON Schema of all arguments, one object.
    pub schema: Value,
    pub parameters: Vec<Parameter>,
    pub body: Option<Body>,
}

impl Operation {
    /// What a second call does, as far as HTTP promises it.
    pub fn effect(&self) -> Effect {
        match self.method {
            Method::GET | Method::HEAD => Effect::Pure,
            Method::PUT | Method::DELETE => Effect::Idempotent,
            _ => Effect::Unsafe,
        }
    }

    /// The name it would have as a tool, were it the only one.
    pub fn name(&self) -> String {
        let made = || format!("{}_{}", self.method.as_str().to_lowercase(), self.path);
        sanitised(&self.id.clone().unwrap_or_else(made))
    }
}

/// A name that every model takes: letters, digits, `_` and `-`, at most 64 of them.
pub(super) fn sanitised(name: &str) -> String {
    let kept = |c: char| if c.is_ascii_alphanumeric() || c == '-' || c == '_' { c } else { '_' };
    let text: String = name.chars().map(kept).collect();
    let text: String = text.trim_matches('_').chars().take(64).collect();
    if text.is_empty() { "operation".to_owned() } else { text }
}

/// The name, or the name with a number, that is not taken yet; takes it.
pub(super) fn unique(name: &str, taken: &mut BTreeSet<String>) -> String {
    let mut free = name.to_owned();
    let mut number = 2;
    while !taken.insert(free.clone()) {
        let end = format!("_{number}");
        free = name.chars().take(64 - end.len()).chain(end.chars()).collect();
        number += 1;
    }
    free
}

/// All operations that can be called, in the document's order. `hidden` tells the parameters that the operator fills in.
pub(super) fn operations(document: &Value, hidden: &dyn Fn(Place, &str) -> bool) -> Vec<Operation> {
    const METHODS: [Method; 6] = [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::PATCH, Method::DELETE];
    let mut found = Vec::new();
    for (path, item) in document.get("paths").and_then(Value::as_object).into_iter().flatten() {
        let item = resolve(document, item);
        for method in METHODS {
            let Some(operation) = item.get(method.as_str().to_lowercase()) else { continue };
            found.extend(Reader::new(document, hidden).read(path, item, &method, operation));
        }
    }
    found
}

struct Reader<'a> {
    document: &'a Value,
    hidden: &'a dyn Fn(Place, &str) -> bool,
    schemas: Schemas<'a>,
    taken: BTreeSet<String>,
    properties: Map<String, Value>,
    required: Vec<String>,
}

impl<'a> Reader<'a> {
    fn new(document: &'a Value, hidden: &'a dyn Fn(Place, &str) -> bool) -> Self {
        let (schemas, taken) = (Schemas::new(document), BTreeSet::new());
        Self { document, hidden, schemas, taken, properties: Map::new(), required: Vec::new() }
    }

    /// The operation; `None` when it needs what cannot be sent.
    fn read(mut self, path: &str, item: &'a Value, method: &Method, operation: &'a Value) -> Option<Operation> {
        let parameters = self.parameters(item, operation)?;
        let body = match operation.get("requestBody") {
            Some(body) => self.body(resolve(self.document, body))?,
            None => None,
        };
        let text = |name: &str| operation.get(name).and_then(Value::as_str).map(str::trim).unwrap_or_default();
        let words: Vec<_> =
            [text("summary"), text("description")].into_iter().filter(|words| !words.is_empty()).collect();
        let words = if words.is_empty() { format!("{method} {path}") } else { words.join("\n") };
        let server = |from: &Value| from.get("servers").and_then(|servers| servers.get(0)).cloned();
        let tags = operation.get("tags").and_then(Value::as_array).into_iter().flatten();
        Some(Operation {
            id: operation.get("operationId").and_then(Value::as_str).map(str::to_owned),
            tags: tags.filter_map(Value::as_str).map(str::to_owned).collect(),
            method: method.clone(),
            path: path.to_owned(),
            server: server(operation).or_else(|| server(item)),
            description: clip(&words, 1024),
            schema: json!({
                "type": "object",
                "properties": self.properties,
                "required": self.required,
                "additionalProperties": false,
            }),
            parameters,
            body,
        })
    }

    fn parameters(&mut self, item: &'a Value, operation: &'a Value) -> Option<Vec<Parameter>> {
        // The operation's own stand for those of its path with the same name and place.
        let mut all: Vec<&'a Value> = Vec::new();
        for list in [item, operation] {
            for parameter in list.get("parameters").and_then(Value::as_array).into_iter().flatten() {
                let parameter = resolve(self.document, parameter);
                all.retain(|other| other["name"] != parameter["name"] || other["in"] != parameter["in"]);
                all.push(parameter);
            }
        }
        let mut read = Vec::new();
        for parameter in all {
            let required = parameter["required"] == true;
            let place = match parameter["in"].as_str() {
                Some("path") => Place::Path,
                Some("query") => Place::Query,
                Some("header") => Place::Header,
                // Cookies are not sent.
                _ if required => return None,
                _ => continue,
            };
            let Some(name) = parameter["name"].as_str() else { continue };
            if !self.is_hidden(place, name) {
                read.push(self.parameter(parameter, place, name, required || place == Place::Path));
            }
        }
        Some(read)
    }

    fn is_hidden(&self, place: Place, name: &str) -> bool {
        // The standard has these said elsewhere; the last is the call's own.
        const ELSEWHERE: [&str; 4] = ["accept", "content-type", "authorization", "idempotency-key"];
        let lower = name.to_ascii_lowercase();
        (self.hidden)(place, name)
            || place == Place::Header && (ELSEWHERE.contains(&lower.as_str()) || is_reserved_header(&lower))
    }

    fn parameter(&mut self, parameter: &'a Value, place: Place, name: &str, required: bool) -> Parameter {
        let as_json = parameter.get("content").and_then(Value::as_object).and_then(|content| content.values().next());
        let style = match (parameter["style"].as_str(), place) {
            _ if as_json.is_some() => Style::Json,
            (Some("deepObject"), Place::Query) => Style::DeepObject,
            (Some("spaceDelimited"), Place::Query) => Style::Delimited("%20"),
            (Some("pipeDelimited"), Place::Query) => Style::Delimited("|"),
            (_, Place::Query) => Style::Form,
            _ => Style::Simple,
        };
        let explode = parameter["explode"].as_bool().unwrap_or(style == Style::Form);
        let argument = self.argument(name, place);
        let mut schema = self.schemas.plain(as_json.map_or(&parameter["schema"], |media| &media["schema"]));
        if let (Some(words), Some(schema)) = (parameter["description"].as_str(), schema.as_object_mut()) {
            schema.insert("description".to_owned(), json!(clip(words, 500)));
        }
        self.properties.insert(argument.clone(), schema);
        if required {
            self.required.push(argument.clone());
        }
        Parameter { argument, name: name.to_owned(), place, style, explode }
    }

    fn argument(&mut self, name: &str, place: Place) -> String {
        let plain = sanitised(name);
        if !self.taken.contains(&plain) {
            return unique(&plain, &mut self.taken);
        }
        unique(&sanitised(&format!("{}_{plain}", format!("{place:?}").to_lowercase())), &mut self.taken)
    }

    /// The body; the outer `None` when it is required and cannot be written.
    fn body(&mut self, body: &'a Value) -> Option<Option<Body>> {
        let required = body["required"] == true;
        let content = body.get("content").and_then(Value::as_object);
        let kinds = content.into_iter().flatten().filter_map(|(content_type, media)| {
            let kind = kind_of(content_type)?;
            Some((kind, content_type, media))
        });
        // The first of the best kind.
        let best = kinds.min_by_key(|(kind, ..)| {
            [BodyKind::Json, BodyKind::Urlencoded, BodyKind::Multipart].iter().position(|k| k == kind).unwrap_or(3)
        });
        let Some((kind, content_type, media)) = best else { return (!required).then_some(None) };
        let mut schema = self.schemas.plain(media.get("schema").unwrap_or(&Value::Null));
        if kind == BodyKind::Text {
            schema = json!({"type": "string", "description": format!("The body, as {}.", clip(content_type, 60))});
        }
        let layout = match self.fields(&schema, required) {
            Some(fields) => Layout::Fields(fields),
            None => {
                close(&mut schema);
                let argument = unique("body", &mut self.taken);
                if required {
                    self.required.push(argument.clone());
                }
                self.properties.insert(argument.clone(), schema);
                Layout::Argument(argument)
            }
        };
        Some(Some(Body { kind, content_type: content_type.clone(), required, layout }))
    }

    /// The body's fields as arguments of their own, when the body is an object of known fields whose names are free.
    fn fields(&mut self, schema: &Value, required: bool) -> Option<Vec<String>> {
        let fields = schema.get("properties").and_then(Value::as_object).filter(|fields| !fields.is_empty())?;
        let needed: Vec<_> = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let plain = schema.get("type").is_none_or(|kind| kind == "object")
            && MIXED.iter().chain(&["minProperties", "maxProperties"]).all(|key| schema.get(key).is_none())
            && schema.get("additionalProperties").is_none_or(|more| *more == Value::Bool(false))
            && fields.keys().all(|name| sanitised(name) == *name && !self.taken.contains(name))
            && needed.iter().all(|name| fields.contains_key(*name));
        // Fields that are needed only if there is a body at all cannot be told in one flat object.
        if !plain || !required && !needed.is_empty() {
            return None;
        }
        self.required.extend(needed.into_iter().map(str::to_owned));
        self.taken.extend(fields.keys().cloned());
        self.properties.extend(fields.clone());
        Some(fields.keys().cloned().collect())
    }
}

/// Keywords beside which `properties` may not tell all.
const MIXED: [&str; 4] = ["allOf", "anyOf", "oneOf", "not"];

/// A body in one argument takes the fields that the document tells and no others, like one whose fields are arguments:
/// a server seldom says that it left a misspelt field out. What the document calls open stays open.
fn close(schema: &mut Value) {
    let Some(schema) = schema.as_object_mut() else { return };
    let told = schema.get("properties").and_then(Value::as_object).is_some_and(|fields| !fields.is_empty());
    if told && !schema.contains_key("additionalProperties") && MIXED.iter().all(|key| !schema.contains_key(*key)) {
        schema.insert("additionalProperties".to_owned(), Value::Bool(false));
    }
}

fn kind_of(content_type: &str) -> Option<BodyKind> {
    let kind = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    match kind.as_str() {
        "*/*" | "application/*" => Some(BodyKind::Json),
        "application/x-www-form-urlencoded" => Some(BodyKind::Urlencoded),
        "multipart/form-data" => Some(BodyKind::Multipart),
        "application/xml" => Some(BodyKind::Text),
        kind if is_json(kind) => Some(BodyKind::Json),
        kind if kind.starts_with("text/") || kind.ends_with("+xml") => Some(BodyKind::Text),
        _ => None,
    }
}
