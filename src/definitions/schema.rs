//! The JSON Schema of daybook.yaml, made from the types that read it.

use schemars::Schema;
use schemars::generate::SchemaSettings;
use schemars::transform::{Transform, transform_subschemas};
use serde_json::{Value, json};

use super::file::File;

/// A reference to the environment, which may stand for a value of any kind.
const REFERENCE: &str = r"\$\{[A-Za-z_][A-Za-z0-9_]*(:-.*)?\}";

/// The JSON Schema (draft 7, which editors know best) of a definitions file. What only the whole file shows, such as a
/// model that is named and not defined, is beyond it.
pub fn schema() -> Value {
    let settings = SchemaSettings::draft07().with(|settings| settings.transforms.push(Box::new(Adapted)));
    let mut schema = settings.into_generator().into_root_schema_for::<File>();
    schema.insert("title".to_owned(), json!("daybook.yaml"));
    if let Some(parts) = schema.get_mut("properties").and_then(Value::as_object_mut) {
        for part in parts.values_mut() {
            // A part whose lines are all commented out says nothing.
            let said = part.take();
            *part = json!({"anyOf": [said, {"type": "null"}]});
        }
    }
    schema.to_value()
}

#[derive(Debug, Clone)]
struct Adapted;

impl Transform for Adapted {
    fn transform(&mut self, schema: &mut Schema) {
        // From the inside out: what is added needs no adapting.
        transform_subschemas(self, schema);
        adapt(schema);
    }
}

/// Lets references stand for numbers, truth values and words, and takes off what is noise to an editor.
fn adapt(schema: &mut Schema) {
    let noise = schema
        .get("format")
        .and_then(Value::as_str)
        .is_some_and(|format| ["uint", "int", "float", "double"].iter().any(|kind| format.starts_with(kind)));
    if noise {
        schema.remove("format");
    }
    if schema.get("default").is_some() {
        schema.remove("default");
    }
    let kinds = match schema.get("type") {
        Some(Value::String(kind)) => vec![kind.clone()],
        Some(Value::Array(kinds)) => kinds.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        _ => Vec::new(),
    };
    let is = |kind: &str| kinds.iter().any(|known| known == kind);
    if schema.get("enum").is_some() {
        let words = std::mem::take(schema.ensure_object());
        schema.insert("anyOf".to_owned(), json!([words, {"type": "string", "pattern": REFERENCE}]));
    } else if is("integer") || is("number") || is("boolean") {
        schema.insert("type".to_owned(), json!([kinds.clone(), vec!["string".to_owned()]].concat()));
        // Says nothing about what is no text.
        schema.insert("pattern".to_owned(), json!(REFERENCE));
    } else if is("array") && !is("null") {
        schema.insert("type".to_owned(), json!(["array", "null"]));
    }
}
