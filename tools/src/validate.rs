//! Checks what a model wrote against a schema: a tool's arguments before the tool runs, an answer before it counts.

use std::fmt;
use std::io;

use daybook_domain::message::MOST_ARGUMENTS;
use daybook_domain::tool::{Gate, ToolSpec};
use jsonschema::{ValidationError, Validator};
use serde_json::{Map, Value};

use crate::ToolError;
use crate::text::clip;

/// How deep arguments may be nested.
const MAX_DEPTH: usize = 64;

/// How many faults are told at once.
const MAX_FAULTS: usize = 5;

/// Arguments longer than this are told their first fault only: each item of a long list may have one, and all of them
/// together would take a hundred times the memory of the list.
const MANY_FAULTS: usize = 16 << 10;

/// Checks values against one schema, compiled once.
///
/// A schema that is no JSON Schema, or that refers to what is not in it, is not used: then everything fits.
pub struct SchemaCheck(Option<Validator>);

impl SchemaCheck {
    /// Compiles the schema.
    pub fn new(schema: &Value) -> Self {
        // A very deep schema would exhaust the stack.
        let usable = !is_deeper(schema, MAX_DEPTH * 2);
        Self(usable.then(|| jsonschema::validator_for(schema).ok()).flatten())
    }

    /// Checks a value.
    ///
    /// # Errors
    /// What is wrong and where, in at most about 1,600 characters, without the value itself.
    pub fn check(&self, value: &Value) -> Result<(), String> {
        if is_deeper(value, MAX_DEPTH) {
            return Err(format!("it is nested more than {MAX_DEPTH} levels deep"));
        }
        let Some(validator) = self.0.as_ref().filter(|validator| !validator.is_valid(value)) else { return Ok(()) };
        if is_longer(value, MANY_FAULTS) {
            return validator.validate(value).map_err(|error| tell(&error));
        }
        let mut errors = validator.iter_errors(value);
        let mut faults: Vec<String> = errors.by_ref().take(MAX_FAULTS).map(|error| tell(&error)).collect();
        let more = errors.count();
        if more > 0 {
            faults.push(format!("and {more} more faults"));
        }
        Err(faults.join("; "))
    }
}

/// Checks arguments against one tool's schema, compiled once. Where [`SchemaCheck`] does not use the schema, only size and
/// depth are checked.
pub struct ArgumentCheck {
    tool: String,
    known: Vec<String>,
    schema: SchemaCheck,
    /// What a person is asked for, and the schema of the rest.
    input: Option<(Vec<String>, SchemaCheck)>,
}

impl fmt::Debug for ArgumentCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ArgumentCheck")
            .field("tool", &self.tool)
            .field("checks_schema", &self.checks_schema())
            .finish_non_exhaustive()
    }
}

impl ArgumentCheck {
    /// Compiles the schema of the tool's arguments.
    pub fn new(spec: &ToolSpec) -> Self {
        let known = spec.parameters.get("properties").and_then(Value::as_object);
        Self {
            tool: spec.name.clone(),
            known: known.map(|known| known.keys().cloned().collect()).unwrap_or_default(),
            schema: SchemaCheck::new(&spec.parameters),
            input: match &spec.gate {
                Gate::UserInput { fields } => Some(rest_of(&spec.parameters, fields)),
                _ => None,
            },
        }
    }

    /// Whether arguments are checked against the schema, and not only for their size and depth.
    pub fn checks_schema(&self) -> bool {
        self.schema.0.is_some()
    }

    /// Checks the arguments of a call.
    ///
    /// # Errors
    /// [`ToolError::Arguments`], in at most about 2,000 characters that name what is wrong and what is expected.
    pub fn check(&self, arguments: &Map<String, Value>) -> Result<(), ToolError> {
        self.fault(arguments).map_err(|fault| self.refuse(&fault))
    }

    /// As [`ArgumentCheck::check`], in words for somebody who is not the caller.
    ///
    /// # Errors
    /// What is wrong and where, in at most about 1,600 characters, without the values.
    pub fn fault(&self, arguments: &Map<String, Value>) -> Result<(), String> {
        held(&self.schema, arguments)
    }

    /// Checks the arguments of a call before a person is asked for some of them: the others, as far as the schema says
    /// something of them alone.
    ///
    /// # Errors
    /// As [`ArgumentCheck::check`].
    pub fn check_before_input(&self, arguments: &Map<String, Value>) -> Result<(), ToolError> {
        let Some((asked, rest)) = &self.input else { return self.check(arguments) };
        // What the model wrote there is dropped.
        let others = arguments.iter().filter(|(name, _)| !asked.contains(name));
        let others = others.map(|(name, value)| (name.clone(), value.clone())).collect();
        held(rest, &others).map_err(|fault| self.refuse(&fault))
    }

    fn refuse(&self, fault: &str) -> ToolError {
        let known = if self.known.is_empty() { "none".to_owned() } else { clip(&self.known.join(", "), 400) };
        ToolError::Arguments(format!("{} was not called: {fault}. Its arguments: {known}.", clip(&self.tool, 64)))
    }
}

/// What a person is asked for, by name, and the schema of the other arguments. Rules about several arguments at once are
/// left out of it: they are for the whole call.
fn rest_of(schema: &Value, asked: &[String]) -> (Vec<String>, SchemaCheck) {
    let known = schema.get("properties").and_then(Value::as_object);
    let all = || known.into_iter().flat_map(Map::keys).cloned().collect();
    let asked = if asked.is_empty() { all() } else { asked.to_vec() };
    let alone = ["$schema", "$defs", "definitions", "type", "properties", "patternProperties", "additionalProperties"];
    let mut rest: Map<String, Value> = schema
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(word, _)| alone.contains(&word.as_str()))
        .map(|(word, said)| (word.clone(), said.clone()))
        .collect();
    let required = schema.get("required").and_then(Value::as_array).into_iter().flatten();
    let others = required.filter(|name| !name.as_str().is_some_and(|name| asked.iter().any(|asked| asked == name)));
    rest.insert("required".to_owned(), others.cloned().collect());
    (asked, SchemaCheck::new(&Value::Object(rest)))
}

fn held(schema: &SchemaCheck, arguments: &Map<String, Value>) -> Result<(), String> {
    if arguments.values().any(|value| is_deeper(value, MAX_DEPTH - 1)) {
        return Err(format!("the arguments are nested more than {MAX_DEPTH} levels deep"));
    }
    if is_longer(arguments, MOST_ARGUMENTS) {
        return Err(format!("the arguments are longer than {MOST_ARGUMENTS} bytes"));
    }
    schema.check(&Value::Object(arguments.clone()))
}

/// One fault and its place, without the value, which may be long.
fn tell(error: &ValidationError<'_>) -> String {
    let path = error.instance_path().to_string();
    let place = if path.is_empty() { String::new() } else { format!("at {}: ", clip(&path, 100)) };
    clip(&format!("{place}{}", error.masked_with("the value")), 300)
}

/// Whether the value has more than `levels` levels of arrays and objects. Does not recurse: its depth is what is asked.
fn is_deeper(value: &Value, levels: usize) -> bool {
    let mut open = vec![(value, 1)];
    while let Some((value, level)) = open.pop() {
        let inner: Vec<&Value> = match value {
            Value::Array(items) => items.iter().collect(),
            Value::Object(fields) => fields.values().collect(),
            _ => continue,
        };
        if level > levels {
            return true;
        }
        open.extend(inner.into_iter().map(|value| (value, level + 1)));
    }
    false
}

fn is_longer(value: &impl serde::Serialize, most: usize) -> bool {
    struct Left(usize);
    impl io::Write for Left {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 = self.0.checked_sub(bytes.len()).ok_or_else(|| io::Error::from(io::ErrorKind::FileTooLarge))?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    serde_json::to_writer(Left(most), value).is_err()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(schema: Value, arguments: &Value) -> Result<(), String> {
        let check = ArgumentCheck::new(&ToolSpec::new("book", "", schema));
        check.check(arguments.as_object().unwrap()).map_err(|error| {
            assert!(matches!(error, ToolError::Arguments(_)));
            let text = error.to_string();
            assert!(text.len() < 2500, "{}", text.len());
            text
        })
    }

    fn booking() -> Value {
        json!({
            "type": "object",
            "properties": {"city": {"type": "string", "maxLength": 20}, "nights": {"type": "integer"}},
            "required": ["city"],
            "additionalProperties": false,
        })
    }

    #[test]
    fn faults_are_told_by_name() {
        assert_eq!(check(booking(), &json!({"city": "Oslo", "nights": 2})), Ok(()));
        let missing = check(booking(), &json!({"nights": 2})).unwrap_err();
        assert!(missing.contains("\"city\" is a required property") && missing.contains("city, nights"), "{missing}");
        let wrong = check(booking(), &json!({"city": "Oslo", "nights": "two"})).unwrap_err();
        assert!(wrong.contains("at /nights") && wrong.contains("integer"), "{wrong}");
        let unknown = check(booking(), &json!({"city": "Oslo", "nope": 2})).unwrap_err();
        assert!(unknown.contains("nope"), "{unknown}");
        let long = check(booking(), &json!({"city": "x".repeat(100_000)})).unwrap_err();
        assert!(long.len() < 500 && long.contains("at /city"), "{long}");
        let many: Map<_, _> = (0..1000).map(|n| (format!("{n}{}", "y".repeat(400)), json!(1))).collect();
        check(booking(), &Value::Object(many)).unwrap_err();
        let list = json!({"properties": {"l": {"items": {"type": "string"}}}});
        let faults = check(list, &json!({"l": vec![1; 100]})).unwrap_err();
        assert!(faults.contains("and 95 more"), "{faults}");
        let list = json!({"properties": {"l": {"items": {"type": "string"}}}});
        let first = check(list, &json!({"l": vec![1; 100_000]})).unwrap_err();
        assert!(first.contains("at /l/0") && !first.contains("/l/1"), "{first}");
    }

    #[test]
    fn before_a_person_fills_some_in_the_others_are_held_against_the_schema() {
        let with = |fields: &[&str], parameters: Value| {
            let fields = fields.iter().map(|field| (*field).to_owned()).collect();
            ArgumentCheck::new(&ToolSpec { gate: Gate::UserInput { fields }, ..ToolSpec::new("book", "", parameters) })
        };
        let before = |check: &ArgumentCheck, arguments: Value| {
            check.check_before_input(arguments.as_object().unwrap()).map_err(|error| error.to_string())
        };
        let city = with(&["city"], booking());
        for right in [json!({}), json!({"nights": 2}), json!({"city": 5, "nights": 2})] {
            assert_eq!(before(&city, right.clone()), Ok(()), "{right}");
        }
        assert!(before(&city, json!({"nights": "two"})).unwrap_err().contains("at /nights"));
        assert!(before(&city, json!({"nope": 1})).unwrap_err().contains("nope"));
        assert!(before(&with(&["nights"], booking()), json!({})).unwrap_err().contains("\"city\" is a required"));
        assert_eq!(before(&with(&[], booking()), json!({"city": 5})), Ok(()), "all of them are asked for");
        assert!(before(&with(&[], booking()), json!({"nope": 1})).unwrap_err().contains("nope"));
        // Whether the whole fits is not known yet.
        let mut either = booking();
        either["anyOf"] = json!([{"required": ["nights"]}, {"minProperties": 3}]);
        let either = with(&["nights"], either);
        assert_eq!(before(&either, json!({"city": "Oslo"})), Ok(()));
        assert!(either.check(json!({"city": "Oslo"}).as_object().unwrap()).is_err());
    }

    #[test]
    fn an_answer_is_told_its_faults_without_itself() {
        let check = SchemaCheck::new(&booking());
        assert_eq!(check.check(&json!({"city": "Oslo", "nights": 2})), Ok(()));
        let fault = check.check(&json!({"nights": "two hundred"})).unwrap_err();
        assert!(fault.contains("\"city\" is a required property") && fault.contains("at /nights: "), "{fault}");
        assert!(!fault.contains("hundred"), "{fault}");
        let nested = (0..MAX_DEPTH).fold(json!(1), |inner, _| json!({"a": inner}));
        assert_eq!(SchemaCheck::new(&json!({})).check(&nested), Ok(()));
        assert!(SchemaCheck::new(&json!({})).check(&json!([nested])).unwrap_err().contains("64 levels"));
        assert_eq!(SchemaCheck::new(&json!({"type": "nonsense"})).check(&json!(5)), Ok(()));
    }

    #[test]
    fn depth_and_size_are_limited_whatever_the_schema() {
        let nested = |levels: usize| (1..levels).fold(json!({}), |inner, _| json!({"a": inner}));
        for schema in [json!({}), json!({"type": 5}), json!("no schema"), booking()["properties"].clone()] {
            assert_eq!(check(schema.clone(), &nested(64)), Ok(()));
            assert!(check(schema.clone(), &nested(65)).unwrap_err().contains("64 levels"));
            assert!(
                check(schema.clone(), &json!({"a": "x".repeat(MOST_ARGUMENTS)})).unwrap_err().contains("longer than")
            );
        }
        let deep = (0..100_000).fold(json!(1), |inner, _| Value::Array(vec![inner]));
        let arguments = Value::Object(Map::from_iter([("a".to_owned(), deep)]));
        check(json!({}), &arguments).unwrap_err();
        // Dropping a value this deep would itself exhaust the stack.
        std::mem::forget(arguments);
    }

    #[test]
    fn a_schema_that_cannot_be_used_does_no_harm() {
        let bad = [
            json!({"type": "nonsense"}),
            json!({"$ref": "#/nowhere"}),
            json!({"$ref": "http://127.0.0.1:1/schema.json"}),
            json!({"$ref": "file:///etc/passwd"}),
            json!({"properties": {"a": {"pattern": "("}}}),
            json!({"$ref": "#"}),
            json!({"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}}),
            json!({"allOf": [{"$ref": "#"}]}),
            json!({"$defs": {"a": {"anyOf": [{"$ref": "#/$defs/a"}]}}, "properties": {"a": {"$ref": "#/$defs/a"}}}),
            json!([]),
            Value::Null,
        ];
        for elsewhere in ["http://127.0.0.1:1/schema.json", "file:///etc/passwd"] {
            let spec = ToolSpec::new("t", "", json!({"properties": {"a": {"$ref": elsewhere}}}));
            assert!(!ArgumentCheck::new(&spec).checks_schema(), "{elsewhere} was read");
        }
        for schema in bad {
            check(schema, &json!({"a": 1})).ok();
        }
        let deep = (0..200).fold(json!({}), |inner, _| json!({"properties": {"a": inner}}));
        assert_eq!(check(deep, &json!({"a": 1})), Ok(()));
        let slow = json!({"properties": {"a": {"type": "string", "pattern": "^(a+)+$"}}});
        check(slow, &json!({"a": "a".repeat(40) + "!"})).ok();
    }

    #[test]
    fn schemas_may_refer_to_themselves_through_values() {
        let tree = json!({
            "$defs": {"node": {"type": "object", "properties": {"child": {"$ref": "#/$defs/node"}}, "additionalProperties": false}},
            "type": "object",
            "properties": {"top": {"$ref": "#/$defs/node"}},
        });
        assert_eq!(check(tree.clone(), &json!({"top": {"child": {"child": {}}}})), Ok(()));
        let wrong = check(tree, &json!({"top": {"child": {"chld": {}}}})).unwrap_err();
        assert!(wrong.contains("/top/child"), "{wrong}");
    }
}
