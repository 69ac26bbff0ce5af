//! Answers of a given shape.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The shape an answer must have.
///
/// A schema is recorded and sent as it was given; how a provider wants it written is up to its own code.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OutputSchema {
    /// What the shape is called: by providers, and as the content's type on the wire.
    pub name: String,
    /// The JSON Schema of an object.
    pub schema: Map<String, Value>,
    /// Whether the provider must hold the answer to the schema, where it can. Providers then take a part of JSON
    /// Schema only: every property required, no others allowed.
    pub strict: bool,
}

impl OutputSchema {
    /// What a schema without a title is called.
    pub const UNTITLED: &'static str = "DynamicModel";

    /// The shape `schema` describes, called by its title.
    ///
    /// # Errors
    /// A sentence, when the schema is not one of an object.
    pub fn new(mut schema: Map<String, Value>, strict: bool) -> Result<Self, String> {
        // It says which JSON Schema it is, which providers do not want to know.
        schema.shift_remove("$schema");
        if schema.get("type").and_then(Value::as_str) != Some("object") {
            return Err("root must declare \"type\": \"object\"".to_owned());
        }
        check(&schema)?;
        let name = match schema.get("title") {
            None => Self::UNTITLED.to_owned(),
            Some(Value::String(title)) if !title.trim().is_empty() => title.trim().to_owned(),
            Some(_) => return Err("title must be a text".to_owned()),
        };
        if name.chars().count() > 200 || name.chars().any(char::is_control) {
            return Err("title must be a line of at most 200 characters".to_owned());
        }
        Ok(Self { name, schema, strict })
    }

    /// The answer `text` holds: its JSON object, also when the model put a code fence around it.
    pub fn read(text: &str) -> Option<Value> {
        Self::parse(text).ok()
    }

    /// As [`OutputSchema::read`].
    ///
    /// # Errors
    /// Why it holds none, fit for the model to read.
    pub fn parse(text: &str) -> Result<Value, String> {
        let text = text.trim();
        if text.is_empty() {
            return Err("it is empty".to_owned());
        }
        let fenced = text.strip_prefix("```").and_then(|rest| rest.strip_suffix("```"));
        let bare = fenced.map_or(text, |inner| inner.strip_prefix("json").unwrap_or(inner).trim());
        if !bare.starts_with('{') {
            return Err("it is no JSON object: it does not begin with {".to_owned());
        }
        let read = serde_json::from_str::<Map<String, Value>>(bare).map(Value::Object);
        read.map_err(|error| format!("it is no JSON object: {error}"))
    }

    /// What the model is told when its answer misses the shape for this reason.
    pub fn told(fault: &str) -> String {
        let fault = if fault.len() > MOST_TOLD {
            format!("{}…", &fault[..fault.floor_char_boundary(MOST_TOLD)])
        } else {
            fault.to_owned()
        };
        format!(
            "Your answer does not have the shape it must have: {fault}. Answer again, with one JSON object that fits the \
             schema and nothing else."
        )
    }
}

/// The most that is told of what is wrong with an answer, in bytes.
const MOST_TOLD: usize = 2000;

/// The mistakes in a schema that no provider could make sense of.
fn check(schema: &Map<String, Value>) -> Result<(), String> {
    if let Some(required) = schema.get("required")
        && !required.as_array().is_some_and(|names| names.iter().all(Value::is_string))
    {
        return Err("required must be a list of texts".to_owned());
    }
    for key in ["properties", "$defs", "definitions"] {
        let Some(given) = schema.get(key) else { continue };
        let Value::Object(all) = given else { return Err(format!("{key} must be an object")) };
        for (name, inner) in all {
            check_inner(&format!("{key}.{name}"), inner)?;
        }
    }
    for key in ["items", "additionalProperties"] {
        schema.get(key).map_or(Ok(()), |inner| check_inner(key, inner))?;
    }
    for key in ["anyOf", "oneOf", "allOf"] {
        let Some(given) = schema.get(key) else { continue };
        let Value::Array(all) = given else { return Err(format!("{key} must be a list")) };
        all.iter().try_for_each(|inner| check_inner(key, inner))?;
    }
    Ok(())
}

fn check_inner(place: &str, schema: &Value) -> Result<(), String> {
    match schema {
        Value::Bool(_) => Ok(()),
        Value::Object(map) => check(map),
        _ => Err(format!("{place} must be a schema")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn schema(value: &Value) -> Result<OutputSchema, String> {
        OutputSchema::new(value.as_object().cloned().unwrap_or_default(), true)
    }

    #[test]
    fn a_shape_is_called_by_its_title() {
        assert_eq!(schema(&json!({"type": "object", "title": " Movie "})).unwrap().name, "Movie");
        assert_eq!(schema(&json!({"type": "object"})).unwrap().name, OutputSchema::UNTITLED);
        for wrong in [json!({}), json!({"type": "array"}), json!({"type": "object", "title": 5})] {
            assert!(schema(&wrong).is_err(), "{wrong}");
        }
        assert!(schema(&json!({"type": "object", "title": "a\nb"})).is_err());
        for (key, wrong) in
            [("properties", json!(5)), ("properties", json!({"a": 5})), ("required", json!("a")), ("anyOf", json!([1]))]
        {
            let fault = schema(&json!({"type": "object", key: wrong})).unwrap_err();
            assert!(fault.starts_with(key), "{fault}");
        }
    }

    #[test]
    fn objects_are_read_with_and_without_a_fence() {
        let object = Some(json!({"a": 1}));
        assert_eq!(OutputSchema::read(" {\"a\": 1}\n"), object);
        assert_eq!(OutputSchema::read("```json\n{\"a\": 1}\n```"), object);
        assert_eq!(OutputSchema::read("```\n{\"a\": 1}```"), object);
        for (other, why) in [
            ("", "it is empty"),
            ("hello", "does not begin with {"),
            ("[1]", "does not begin with {"),
            ("{\"a\": 1} and more", "trailing characters at line 1 column 10"),
            ("{\"a\": ", "EOF"),
        ] {
            assert_eq!(OutputSchema::read(other), None, "{other}");
            let fault = OutputSchema::parse(other).unwrap_err();
            assert!(fault.contains(why), "{fault}");
        }
    }

    #[test]
    fn what_is_told_is_bounded() {
        let told = OutputSchema::told("at /year: it is no number");
        assert!(
            told.starts_with("Your answer does not have the shape it must have: at /year: it is no number. "),
            "{told}"
        );
        assert!(OutputSchema::told(&"ö".repeat(100_000)).len() < 2200);
    }
}
