//! Evaluates an expression, and counts what it looks up.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use cel::common::value::{CowVal, Val};
use cel::context::VariableResolver;
use cel::objects::{Key, Map as CelMap};
use cel::{Context, ExecutionError, Value as CelValue};
use serde_json::{Map, Value};

use crate::compile::{Expression, LANGUAGE};

/// The most that an expression sees, in bytes: the parts of its variables that it uses, together.
pub const MAX_SEEN: usize = 256 * 1024;

/// The most bytes that it looks up, counting each time.
const MAX_LOOKED_UP: usize = 64 * 1024 * 1024;

/// The largest value that may come out, in bytes.
const MAX_VALUE: usize = 1024 * 1024;

/// What an expression sees.
#[derive(Debug, Clone, Default)]
pub struct Variables<'a> {
    /// What the workflow was told: a text, or an object where the workflow says which.
    pub input: Value,
    /// What was said last; null before anything was.
    pub previous: Value,
    /// What the steps said that ended, by their names. Those that [`Expression::outputs`] does not have need not be here.
    pub outputs: BTreeMap<String, Value>,
    /// The session state.
    pub state: Option<&'a Map<String, Value>>,
    /// The iteration of the innermost loop, from 1; 0 outside of one.
    pub iteration: u32,
}

/// Why an expression has no value, or not one that fits.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EvaluateError {
    /// Something in it has no value.
    #[error("the expression {text:?} has no value: {reason}")]
    Failed {
        /// The expression.
        text: String,
        /// What went wrong.
        reason: String,
    },
    /// It sees too much.
    #[error("the expression {0:?} would look at more than {MAX_SEEN} bytes: let it look at less")]
    TooMuch(String),
    /// It takes too long.
    #[error("the expression {0:?} takes too much work: let it look at less, or less often")]
    TooLong(String),
    /// What came out is too large.
    #[error("the expression {0:?} came to more than {MAX_VALUE} bytes")]
    TooLarge(String),
    /// What came out is of the wrong kind.
    #[error("the expression {text:?} must say {wanted}, and says {found}")]
    WrongKind {
        /// The expression.
        text: String,
        /// What it must say.
        wanted: &'static str,
        /// What it said, shortened.
        found: String,
    },
}

impl Expression {
    /// What it says, as JSON.
    ///
    /// # Errors
    /// [`EvaluateError`]
    pub fn value(&self, variables: &Variables<'_>) -> Result<Value, EvaluateError> {
        let seen = self.seen(variables)?;
        let mut context = Context::with_env(LANGUAGE.clone());
        context.set_variable_resolver(&seen);
        let value = self.program.execute(&context);
        if seen.looked_up.load(Ordering::Relaxed) > MAX_LOOKED_UP {
            return Err(EvaluateError::TooLong(self.text().to_owned()));
        }
        let value = value.map_err(|error| self.failed(&error))?;
        if cel_size(&value, MAX_VALUE) > MAX_VALUE {
            return Err(EvaluateError::TooLarge(self.text().to_owned()));
        }
        let json = value.json();
        json.map_err(|error| EvaluateError::Failed { text: self.text().to_owned(), reason: short(&error.to_string()) })
    }

    /// Whether it holds.
    ///
    /// # Errors
    /// [`EvaluateError`], also when it says something else than true or false.
    pub fn test(&self, variables: &Variables<'_>) -> Result<bool, EvaluateError> {
        let value = self.value(variables)?;
        value.as_bool().ok_or_else(|| self.wrong("true or false", &value))
    }

    /// The name or the names it says.
    ///
    /// # Errors
    /// [`EvaluateError`], also when it says something else than a text or a list of texts.
    pub fn names(&self, variables: &Variables<'_>) -> Result<Vec<String>, EvaluateError> {
        let value = self.value(variables)?;
        let names = match &value {
            Value::String(name) => Some(vec![name.clone()]),
            Value::Array(names) => names.iter().map(|name| name.as_str().map(str::to_owned)).collect(),
            _ => None,
        };
        names.ok_or_else(|| self.wrong("a text or a list of texts", &value))
    }

    /// The text it says; other values as JSON, and nothing as an empty text.
    ///
    /// # Errors
    /// [`EvaluateError`]
    pub fn string(&self, variables: &Variables<'_>) -> Result<String, EvaluateError> {
        Ok(match self.value(variables)? {
            Value::String(text) => text,
            Value::Null => String::new(),
            other => other.to_string(),
        })
    }

    fn failed(&self, error: &ExecutionError) -> EvaluateError {
        EvaluateError::Failed { text: self.text().to_owned(), reason: short(&reason(error)) }
    }

    fn wrong(&self, wanted: &'static str, found: &Value) -> EvaluateError {
        EvaluateError::WrongKind { text: self.text().to_owned(), wanted, found: short(&found.to_string()) }
    }

    /// The parts of the variables that it uses.
    fn seen(&self, variables: &Variables<'_>) -> Result<Seen, EvaluateError> {
        let mut seen = Seen::default();
        let mut left = MAX_SEEN;
        let mut add = |name: &'static str, value: CelValue| {
            let size = cel_size(&value, left);
            left = left.checked_sub(size).ok_or(())?;
            // Every CEL value is one that can be looked up.
            let value: Box<dyn Val> = value.try_into().map_err(drop)?;
            seen.values.insert(name, (value, size));
            Ok::<(), ()>(())
        };
        let mut all = || {
            for (name, value) in [("input", &variables.input), ("previous", &variables.previous)] {
                if self.uses(name) {
                    add(name, of_json(value))?;
                }
            }
            if self.uses("iteration") {
                add("iteration", CelValue::Int(i64::from(variables.iteration)))?;
            }
            if self.uses("outputs") {
                let outputs = variables.outputs.iter().filter(|(name, _)| self.outputs().has(name));
                add("outputs", of_map(outputs))?;
            }
            if self.uses("state") {
                let state = variables.state.iter().flat_map(|state| state.iter());
                add("state", of_map(state.filter(|(name, _)| self.state().has(name))))?;
            }
            Ok::<(), ()>(())
        };
        all().map_err(|()| EvaluateError::TooMuch(self.text().to_owned()))?;
        Ok(seen)
    }
}

/// What an expression may look up, and how much it did.
#[derive(Default)]
struct Seen {
    values: BTreeMap<&'static str, (Box<dyn Val>, usize)>,
    looked_up: AtomicUsize,
}

impl VariableResolver for Seen {
    fn resolve<'b>(&'b self, variable: &str) -> Option<CowVal<'b, 'b>> {
        let (value, size) = self.values.get(variable.trim_start_matches('.'))?;
        let before = self.looked_up.fetch_add(size + 1, Ordering::Relaxed);
        // From there on nothing has a value, so that it comes to its end.
        (before <= MAX_LOOKED_UP).then(|| CowVal::Borrowed(value.as_ref()))
    }
}

fn of_json(value: &Value) -> CelValue {
    match value {
        Value::Null => CelValue::Null,
        Value::Bool(is) => CelValue::Bool(*is),
        Value::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(whole), _) => CelValue::Int(whole),
            (None, Some(whole)) => CelValue::UInt(whole),
            (None, None) => CelValue::Float(number.as_f64().unwrap_or(f64::NAN)),
        },
        Value::String(text) => CelValue::String(text.clone().into()),
        Value::Array(items) => CelValue::List(items.iter().map(of_json).collect::<Vec<_>>().into()),
        Value::Object(map) => of_map(map.iter()),
    }
}

fn of_map<'a>(entries: impl Iterator<Item = (&'a String, &'a Value)>) -> CelValue {
    let entries = entries.map(|(key, value)| (Key::String(key.clone().into()), of_json(value)));
    CelValue::Map(CelMap { map: std::sync::Arc::new(entries.collect()) })
}

/// About how many bytes a value takes; it stops counting above `most`.
fn cel_size(value: &CelValue, most: usize) -> usize {
    let (mut size, mut open) = (0, vec![value]);
    while let Some(next) = open.pop() {
        size += match next {
            CelValue::String(text) => text.len() + 2,
            CelValue::Bytes(bytes) => bytes.len() + 2,
            CelValue::List(items) => {
                open.extend(items.iter());
                2
            }
            CelValue::Map(map) => {
                open.extend(map.map.values());
                map.map.keys().map(|key| if let Key::String(text) = key { text.len() + 4 } else { 12 }).sum::<usize>()
                    + 2
            }
            _ => 4,
        };
        if size > most {
            return size;
        }
    }
    size
}

/// What went wrong, in words that do not repeat the values.
fn reason(error: &ExecutionError) -> String {
    match error {
        ExecutionError::NoSuchKey(key) => format!("there is no key {key:?}"),
        ExecutionError::IndexOutOfBounds(_) => "an index is out of bounds".to_owned(),
        ExecutionError::DivisionByZero(_) | ExecutionError::RemainderByZero(_) => "it divides by zero".to_owned(),
        ExecutionError::Overflow(..) => "a number is too large".to_owned(),
        ExecutionError::ValuesNotComparable(..) => "it compares values of kinds that cannot be compared".to_owned(),
        ExecutionError::UnsupportedBinaryOperator(operator, ..) => {
            format!("the operator {operator} does not take values of these kinds")
        }
        ExecutionError::NoSuchOverload(overload) => overload.to_string(),
        ExecutionError::UnexpectedType { got, want } => format!("it needs a value of kind {want}, and got {got}"),
        ExecutionError::UnsupportedIndex(..) => "it looks for a key in something that has none".to_owned(),
        ExecutionError::FunctionError { function, message } => format!("{function}: {message}"),
        other => {
            let name = format!("{other:?}");
            format!("it cannot be evaluated ({})", name.split(['(', ' ', '{']).next().unwrap_or_default())
        }
    }
}

fn short(text: &str) -> String {
    let mut text = text.to_owned();
    if text.len() > 200 {
        text.truncate(text.floor_char_boundary(200));
        text.push('…');
    }
    text
}
