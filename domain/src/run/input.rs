//! The arguments of a tool as a person is shown them and fills them in, read from the tool's JSON Schema.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::requirement::AnswerError;

/// How many references and alternatives within each other are followed; what is deeper may be anything.
const MAX_STEPS: usize = 16;

/// The kind of an argument that may be anything.
const ANY: &str = "any";

/// Between the kinds of an argument that may be of several.
const OR: &str = " | ";

/// An argument of a tool, as a person is shown it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct InputField {
    /// Its name.
    pub name: String,
    /// Its JSON Schema types but `null`, with ` | ` between them; `any` where the schema does not say.
    pub kind: String,
    /// What it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Whether a call must have it.
    pub required: bool,
    /// Whether it may be null: then a call that must have it gets null where a person says nothing.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub nullable: bool,
    /// Whether a person fills it in.
    pub asked: bool,
    /// The values it may have but null, where they are limited.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub choices: Vec<Value>,
}

impl InputField {
    /// Its JSON Schema types.
    pub fn kinds(&self) -> impl Iterator<Item = &str> {
        self.kind.split(OR)
    }

    /// Whether the value is of its types and among its choices. What else its schema says is for who has the schema.
    pub(crate) fn check(&self, value: &Value) -> Result<(), AnswerError> {
        if !self.kinds().any(|kind| is_of(value, kind)) {
            return Err(AnswerError::Unfit(format!("the field {:?} must be of type {}", self.name, self.kind)));
        }
        if !self.choices.is_empty() && !self.choices.contains(value) {
            let choices: Vec<String> = self.choices.iter().map(ToString::to_string).collect();
            return Err(AnswerError::Unfit(format!("the field {:?} must be one of {}", self.name, choices.join(", "))));
        }
        Ok(())
    }
}

fn is_of(value: &Value, kind: &str) -> bool {
    match kind {
        "string" => value.is_string(),
        // To JSON Schema 2.0 is an integer.
        "integer" => value.as_f64().is_some_and(|number| number.fract() == 0.0),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        _ => true,
    }
}

/// All arguments of a schema, those in `asked` (all when empty) to be filled in by a person.
pub(super) fn input_fields(schema: &Value, asked: &[String]) -> Vec<InputField> {
    let required = schema["required"].as_array().map(Vec::as_slice).unwrap_or_default();
    let properties = schema["properties"].as_object().into_iter().flatten();
    properties
        .map(|(name, property)| {
            let shape = Shape::of(schema, property, MAX_STEPS);
            let null_is_chosen = shape.choices.as_ref().is_some_and(|choices| choices.contains(&Value::Null));
            let (nulls, kinds): (Vec<&str>, Vec<&str>) =
                shape.kinds.unwrap_or_default().into_iter().partition(|kind| *kind == "null");
            InputField {
                kind: if kinds.is_empty() { ANY.to_owned() } else { kinds.join(OR) },
                description: property["description"].as_str().map(str::to_owned),
                required: required.iter().any(|other| other.as_str() == Some(name)),
                nullable: null_is_chosen || !nulls.is_empty(),
                asked: asked.is_empty() || asked.contains(name),
                choices: shape.choices.unwrap_or_default().into_iter().filter(|choice| !choice.is_null()).collect(),
                name: name.clone(),
            }
        })
        .collect()
}

/// What a schema says of a value, as far as people are shown it.
#[derive(Debug, Default)]
struct Shape<'a> {
    /// Its types; `None` when it may be of any.
    kinds: Option<Vec<&'a str>>,
    /// Its values; `None` when they are not limited.
    choices: Option<Vec<Value>>,
}

impl<'a> Shape<'a> {
    /// What `schema`, a part of `root`, says: itself, or else what it refers to, or its alternatives.
    fn of(root: &'a Value, schema: &'a Value, steps: usize) -> Self {
        let own = Self::own(schema);
        let Some(steps) = steps.checked_sub(1).filter(|_| own.kinds.is_none()) else { return own };
        // References to elsewhere are not followed.
        if let Some(place) = schema["$ref"].as_str().and_then(|reference| reference.strip_prefix('#')) {
            return root.pointer(place).map(|target| Self::of(root, target, steps)).unwrap_or_default();
        }
        if let Some(alternatives) = schema["anyOf"].as_array().or_else(|| schema["oneOf"].as_array()) {
            return Self::either(alternatives.iter().map(|alternative| Self::of(root, alternative, steps)));
        }
        let parts = schema["allOf"].as_array().into_iter().flatten();
        parts.map(|part| Self::of(root, part, steps)).find(|part| part.kinds.is_some()).unwrap_or_default()
    }

    fn own(schema: &'a Value) -> Self {
        let choices = match (schema.get("const"), schema["enum"].as_array()) {
            (Some(only), _) => Some(vec![only.clone()]),
            (None, choices) => choices.cloned(),
        };
        let kinds = match &schema["type"] {
            Value::String(kind) => Some(vec![kind.as_str()]),
            Value::Array(kinds) => Some(kinds.iter().filter_map(Value::as_str).collect()),
            _ => choices.as_ref().map(|choices| unique(choices.iter().map(kind_of))),
        };
        Self { kinds, choices }
    }

    fn either(alternatives: impl Iterator<Item = Self>) -> Self {
        let (mut kinds, mut choices) = (Some(Vec::new()), Some(Vec::new()));
        for alternative in alternatives {
            let is_null = alternative.kinds.as_ref().is_some_and(|kinds| kinds.iter().all(|kind| *kind == "null"));
            kinds = kinds.zip(alternative.kinds).map(|(all, more)| [all, more].concat());
            // That it may be null says nothing of its other values.
            if !is_null {
                choices = choices.zip(alternative.choices).map(|(all, more)| [all, more].concat());
            }
        }
        Self { kinds: kinds.map(|kinds| unique(kinds.into_iter())), choices }
    }
}

fn unique<'a>(kinds: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    kinds.fold(Vec::new(), |mut all, kind| {
        if !all.contains(&kind) {
            all.push(kind);
        }
        all
    })
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// As pydantic and others write optional arguments, enumerations and unions.
    fn schema() -> Value {
        json!({
            "$defs": {"Color": {"enum": ["red", "green"], "type": "string"}, "Loop": {"$ref": "#/$defs/Loop"},
                "Bare": {"enum": [1, "two", null]}},
            "required": ["nights", "color"],
            "properties": {
                "nights": {"anyOf": [{"type": "integer"}, {"type": "null"}], "description": "How many"},
                "color": {"$ref": "#/$defs/Color"},
                "maybe": {"anyOf": [{"$ref": "#/$defs/Color"}, {"type": "null"}]},
                "old": {"allOf": [{"$ref": "#/$defs/Color"}], "default": "red"},
                "mixed": {"$ref": "#/$defs/Bare"},
                "either": {"oneOf": [{"type": "string", "enum": ["auto"]}, {"type": "integer"}]},
                "list": {"type": ["array", "string", "null"]},
                "fixed": {"const": 5},
                "free": {"description": "no type"},
                "loop": {"$ref": "#/$defs/Loop"},
                "away": {"$ref": "http://127.0.0.1:1/x.json"},
            },
        })
    }

    #[test]
    fn references_and_alternatives_are_followed() {
        let shown = |name: &str| {
            let fields = input_fields(&schema(), &[]);
            let field = fields.into_iter().find(|field| field.name == name).unwrap();
            (field.kind, field.nullable, Value::from(field.choices))
        };
        let field = |kind: &str, nullable, choices| (kind.to_owned(), nullable, choices);
        assert_eq!(shown("nights"), field("integer", true, json!([])));
        assert_eq!(shown("color"), field("string", false, json!(["red", "green"])));
        assert_eq!(shown("maybe"), field("string", true, json!(["red", "green"])));
        assert_eq!(shown("old"), field("string", false, json!(["red", "green"])));
        assert_eq!(shown("mixed"), field("integer | string", true, json!([1, "two"])));
        assert_eq!(shown("either"), field("string | integer", false, json!([])));
        assert_eq!(shown("list"), field("array | string", true, json!([])));
        assert_eq!(shown("fixed"), field("integer", false, json!([5])));
        for anything in ["free", "loop", "away"] {
            assert_eq!(shown(anything), field("any", false, json!([])), "{anything}");
        }
    }

    #[test]
    fn a_value_fits_what_is_shown_of_its_field() {
        let fits = |name: &str, value: Value| {
            let fields = input_fields(&schema(), &[]);
            fields.iter().find(|field| field.name == name).unwrap().check(&value).is_ok()
        };
        for (name, value) in [
            ("nights", json!(3)),
            ("nights", json!(3.0)),
            ("color", json!("red")),
            ("maybe", json!("green")),
            ("mixed", json!(1)),
            ("mixed", json!("two")),
            ("either", json!(7)),
            ("list", json!(["a"])),
            ("free", json!({"a": 1})),
            ("loop", json!(true)),
        ] {
            assert!(fits(name, value.clone()), "{name}: {value}");
        }
        for (name, value) in [
            ("nights", json!("3")),
            ("nights", json!(3.5)),
            ("color", json!("blue")),
            ("maybe", json!(1)),
            ("mixed", json!(2)),
            ("either", json!(true)),
            ("list", json!({})),
            ("fixed", json!(6)),
        ] {
            assert!(!fits(name, value.clone()), "{name}: {value}");
        }
    }
}
