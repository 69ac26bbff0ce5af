//! JSON Schemas as providers want them for structured output.

use serde_json::{Map, Value, json};

/// `schema` with `additionalProperties: false` on every object that does not say, as OpenAI and Anthropic want it.
/// Source: the structured output guides of both.
pub(crate) fn closed(schema: &Map<String, Value>) -> Map<String, Value> {
    let mut schema = schema.clone();
    close(&mut schema);
    schema
}

fn close(schema: &mut Map<String, Value>) {
    if schema.get("type").and_then(Value::as_str) == Some("object") && !schema.contains_key("additionalProperties") {
        schema.insert("additionalProperties".to_owned(), json!(false));
    }
    for inner in inner_mut(schema) {
        close(inner);
    }
}

/// Whether OpenAI can hold an answer to `schema` strictly: every property of every object is required, and no others
/// are allowed. Source: the structured output guide, "All fields must be required".
pub(crate) fn fits_strict(schema: &Map<String, Value>) -> bool {
    let object = schema.get("type").and_then(Value::as_str) == Some("object");
    if object {
        let required: Vec<&str> = schema
            .get("required")
            .and_then(Value::as_array)
            .map_or_else(Vec::new, |names| names.iter().filter_map(Value::as_str).collect());
        let properties = schema.get("properties").and_then(Value::as_object);
        let all = properties.is_none_or(|all| all.keys().all(|name| required.contains(&name.as_str())));
        if !all || schema.get("additionalProperties") != Some(&json!(false)) {
            return false;
        }
    }
    inner(schema).all(fits_strict)
}

/// A name as OpenAI takes it: letters, digits, `_` and `-`, at most 64.
pub(crate) fn name(name: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' };
    let name: String = name.chars().map(plain).take(64).collect();
    if name.is_empty() { "answer".to_owned() } else { name }
}

const MAPS: [&str; 3] = ["properties", "$defs", "definitions"];
const LISTS: [&str; 4] = ["anyOf", "oneOf", "allOf", "prefixItems"];

fn inner(schema: &Map<String, Value>) -> impl Iterator<Item = &Map<String, Value>> {
    let maps = MAPS.iter().filter_map(|key| schema.get(*key)?.as_object()).flat_map(Map::values);
    let lists = LISTS.iter().filter_map(|key| schema.get(*key)?.as_array()).flatten();
    maps.chain(lists).chain(schema.get("items")).filter_map(Value::as_object)
}

fn inner_mut(schema: &mut Map<String, Value>) -> impl Iterator<Item = &mut Map<String, Value>> {
    schema
        .iter_mut()
        .flat_map(|(key, value)| -> Vec<&mut Value> {
            if key == "items" {
                return vec![value];
            }
            match value {
                Value::Object(map) if MAPS.contains(&key.as_str()) => map.values_mut().collect(),
                Value::Array(list) if LISTS.contains(&key.as_str()) => list.iter_mut().collect(),
                _ => Vec::new(),
            }
        })
        .filter_map(Value::as_object_mut)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(value: &Value) -> Map<String, Value> {
        value.as_object().cloned().unwrap()
    }

    #[test]
    fn objects_are_closed_at_any_depth_unless_they_say_otherwise() {
        let person = json!({"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]});
        let schema = map(&json!({"type": "object", "required": ["all", "map"], "properties": {
            "all": {"type": "array", "items": {"$ref": "#/$defs/person"}},
            "map": {"type": "object", "additionalProperties": {"type": "string"}}}, "$defs": {"person": person}}));
        let closed = Value::Object(closed(&schema));
        assert_eq!(closed["additionalProperties"], json!(false));
        assert_eq!(closed["$defs"]["person"]["additionalProperties"], json!(false));
        assert_eq!(closed["properties"]["map"]["additionalProperties"], json!({"type": "string"}));
        assert!(!fits_strict(&map(&closed)), "a map has no fixed properties");
    }

    #[test]
    fn strict_is_only_for_schemas_whose_properties_are_all_required() {
        let schema = |required: Value| {
            closed(&map(&json!({"type": "object", "required": required, "properties": {
                "a": {"type": "string"}, "b": {"anyOf": [{"type": "object", "properties": {}}, {"type": "null"}]}}})))
        };
        assert!(fits_strict(&schema(json!(["a", "b"]))));
        assert!(!fits_strict(&schema(json!(["a"]))));
    }

    #[test]
    fn names_are_made_plain() {
        assert_eq!((name("Ein Film!").as_str(), name("").as_str()), ("Ein_Film_", "answer"));
        assert_eq!(name(&"ä".repeat(100)), "_".repeat(64));
    }
}
