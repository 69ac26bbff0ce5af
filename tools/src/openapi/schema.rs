//! OpenAPI's schemas as plain JSON Schema, with references put in place.

use serde_json::{Map, Value, json};

/// How deep references and schemas are put into each other; what is deeper may be anything.
const MAX_DEPTH: usize = 16;

/// How many schemas one operation may have after references are put in place; what is beyond may be anything. Documents
/// whose schemas refer to each other widely would grow without end otherwise.
const MAX_SCHEMAS: usize = 4000;

/// Keywords whose value is one schema.
const ONE: [&str; 3] = ["items", "additionalProperties", "not"];

/// Keywords whose value is a list of schemas.
const LIST: [&str; 4] = ["allOf", "anyOf", "oneOf", "prefixItems"];

/// Keywords that are taken over as they are. Others (examples, `xml`, `discriminator`, extensions) say nothing to a model.
const PLAIN: [&str; 21] = [
    "type",
    "title",
    "description",
    "enum",
    "const",
    "default",
    "format",
    "pattern",
    "minimum",
    "maximum",
    "exclusiveMinimum",
    "exclusiveMaximum",
    "multipleOf",
    "minLength",
    "maxLength",
    "minItems",
    "maxItems",
    "uniqueItems",
    "minProperties",
    "maxProperties",
    "deprecated",
];

/// Turns schemas of one document into schemas that stand alone.
pub(super) struct Schemas<'a> {
    document: &'a Value,
    left: usize,
}

impl<'a> Schemas<'a> {
    pub fn new(document: &'a Value) -> Self {
        Self { document, left: MAX_SCHEMAS }
    }

    /// The schema as JSON Schema, for values that are sent: what is read-only is left out.
    pub fn plain(&mut self, schema: &Value) -> Value {
        self.convert(schema, &mut Vec::new(), 0)
    }

    fn convert(&mut self, schema: &Value, within: &mut Vec<String>, depth: usize) -> Value {
        let Value::Object(fields) = schema else {
            return if schema.is_boolean() { schema.clone() } else { json!({}) };
        };
        let Some(left) = self.left.checked_sub(1).filter(|_| depth < MAX_DEPTH) else { return json!({}) };
        self.left = left;
        if let Some(target) = fields.get("$ref").and_then(Value::as_str) {
            return self.referred(target, fields, within, depth);
        }
        let mut out = Map::new();
        for (key, value) in fields {
            let key_text = key.as_str();
            if PLAIN.contains(&key_text) {
                out.insert(key.clone(), value.clone());
            } else if ONE.contains(&key_text) {
                out.insert(key.clone(), self.convert(value, within, depth + 1));
            } else if LIST.contains(&key_text) {
                let schemas = value.as_array().into_iter().flatten();
                out.insert(key.clone(), schemas.map(|one| self.convert(one, within, depth + 1)).collect());
            } else if key_text == "properties" {
                self.properties(fields, &mut out, within, depth);
            }
        }
        if !fields.contains_key("properties")
            && let Some(required) = fields.get("required").filter(|list| list.is_array())
        {
            out.insert("required".to_owned(), required.clone());
        }
        if fields.contains_key("patternProperties") {
            // What these let through is not told, and so it is open.
            out.insert("additionalProperties".to_owned(), Value::Bool(true));
        }
        nullable(fields, &mut out);
        exclusive(&mut out);
        Value::Object(out)
    }

    /// What the reference means, with the description that stands beside it. One that leads into itself may be anything.
    fn referred(&mut self, target: &str, beside: &Map<String, Value>, within: &mut Vec<String>, depth: usize) -> Value {
        if within.iter().any(|outer| outer == target) {
            return json!({});
        }
        let Some(found) = pointed(self.document, target) else { return json!({}) };
        within.push(target.to_owned());
        let mut out = self.convert(found, within, depth + 1);
        within.pop();
        if let (Some(words), Some(out)) = (beside.get("description"), out.as_object_mut()) {
            out.insert("description".to_owned(), words.clone());
        }
        out
    }

    fn properties(
        &mut self,
        fields: &Map<String, Value>,
        out: &mut Map<String, Value>,
        within: &mut Vec<String>,
        depth: usize,
    ) {
        let all = fields.get("properties").and_then(Value::as_object);
        let mut kept = Map::new();
        for (name, schema) in all.into_iter().flatten() {
            if !resolve(self.document, schema).get("readOnly").is_some_and(|flag| *flag == Value::Bool(true)) {
                kept.insert(name.clone(), self.convert(schema, within, depth + 1));
            }
        }
        let required = fields.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
        // A property that is required but not described is still required; one that is read-only is not.
        let hidden = |name: &str| all.is_some_and(|all| all.contains_key(name)) && !kept.contains_key(name);
        let required: Vec<&str> = required.filter(|name| !hidden(name)).collect();
        if !required.is_empty() {
            out.insert("required".to_owned(), json!(required));
        }
        out.insert("properties".to_owned(), Value::Object(kept));
    }
}

/// `nullable: true` of OpenAPI 3.0 as JSON Schema says it.
fn nullable(fields: &Map<String, Value>, out: &mut Map<String, Value>) {
    if fields.get("nullable") != Some(&Value::Bool(true)) {
        return;
    }
    if let Some(Value::String(kind)) = out.get("type").cloned() {
        out.insert("type".to_owned(), json!([kind, "null"]));
        if let Some(Value::Array(values)) = out.get_mut("enum")
            && !values.contains(&Value::Null)
        {
            values.push(Value::Null);
        }
        return;
    }
    let description = out.remove("description");
    let inner = std::mem::take(out);
    out.insert("anyOf".to_owned(), json!([inner, {"type": "null"}]));
    out.extend(description.map(|words| ("description".to_owned(), words)));
}

/// `exclusiveMinimum: true` of OpenAPI 3.0 as JSON Schema says it.
fn exclusive(out: &mut Map<String, Value>) {
    for (flag, bound) in [("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")] {
        let Some(exclusive) = out.get(flag).and_then(Value::as_bool) else { continue };
        out.remove(flag);
        if exclusive && let Some(limit) = out.remove(bound) {
            out.insert(flag.to_owned(), limit);
        }
    }
}

/// What a reference within the document points at.
fn pointed<'a>(document: &'a Value, target: &str) -> Option<&'a Value> {
    let pointer = target.strip_prefix('#')?;
    let decoded = percent_decoded(pointer);
    document.pointer(&decoded)
}

fn percent_decoded(text: &str) -> String {
    if !text.contains('%') {
        return text.to_owned();
    }
    // A form's value is decoded alike, but for the plus sign.
    let form = format!("x={}", text.replace('+', "%2B").replace('&', "%26"));
    let pairs: Vec<(String, String)> = serde_urlencoded::from_str(&form).unwrap_or_default();
    pairs.into_iter().next().map_or_else(|| text.to_owned(), |(_, value)| value)
}

/// The value, or what it refers to, through at most [`MAX_DEPTH`] references; null when that is not in the document.
pub(super) fn resolve<'a>(document: &'a Value, value: &'a Value) -> &'a Value {
    let mut value = value;
    for _ in 0..MAX_DEPTH {
        let Some(target) = value.get("$ref").and_then(Value::as_str) else { return value };
        match pointed(document, target) {
            Some(found) => value = found,
            None => break,
        }
    }
    &Value::Null
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(document: Value) -> Value {
        Schemas::new(&document).plain(&document["s"])
    }

    #[test]
    fn old_words_are_translated() {
        let schema = plain(
            json!({"s": {"type": "integer", "minimum": 0, "exclusiveMinimum": true, "nullable": true, "xml": {}}}),
        );
        assert_eq!(schema, json!({"type": ["integer", "null"], "exclusiveMinimum": 0}));
        assert_eq!(
            plain(json!({"s": {"type": "string", "enum": ["a"], "nullable": true}}))["enum"],
            json!(["a", null])
        );
        let reference = json!({"s": {"nullable": true, "allOf": [{"$ref": "#/t"}]}, "t": {"type": "string"}});
        assert_eq!(plain(reference), json!({"anyOf": [{"allOf": [{"type": "string"}]}, {"type": "null"}]}));
    }

    #[test]
    fn references_are_put_in_place_and_end() {
        let tree = json!({
            "s": {"$ref": "#/defs/a~1b%20c", "description": "Mine."},
            "defs": {"a/b c": {"type": "object", "required": ["id", "child"], "properties": {
                "id": {"type": "integer", "readOnly": true},
                "child": {"$ref": "#/defs/a~1b%20c"},
            }}},
        });
        let expected =
            json!({"type": "object", "required": ["child"], "properties": {"child": {}}, "description": "Mine."});
        assert_eq!(plain(tree), expected);
        assert_eq!(plain(json!({"s": {"$ref": "#/s"}})), json!({}));
        assert_eq!(plain(json!({"s": {"$ref": "http://elsewhere/#/x"}})), json!({}));
        assert_eq!(plain(json!({"s": 5})), json!({}));
        let looped = json!({"a": {"$ref": "#/b"}, "b": {"$ref": "#/a"}});
        assert_eq!(resolve(&looped, &looped["a"]), &Value::Null);
    }

    #[test]
    fn wide_documents_stay_small() {
        // Each of the 12 refers to all others: put in place without bound, that is 12! schemas.
        let names: Vec<String> = (0..12).map(|n| format!("s{n}")).collect();
        let node: Map<_, _> =
            names.iter().map(|name| (name.clone(), json!({"$ref": format!("#/defs/{name}")}))).collect();
        let defs: Map<_, _> = names.iter().map(|name| (name.clone(), json!({"properties": node}))).collect();
        let schema = plain(json!({"s": {"$ref": "#/defs/s0"}, "defs": defs}));
        assert!(schema.to_string().len() < 200_000, "{}", schema.to_string().len());
    }
}
