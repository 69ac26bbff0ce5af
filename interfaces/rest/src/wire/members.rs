//! Builds JSON objects whose absent members are left out.

use serde_json::{Map, Value};

/// A JSON object in the making.
#[derive(Debug, Default)]
pub(crate) struct Members(Map<String, Value>);

impl Members {
    /// With this member.
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.0.insert(name.to_owned(), value.into());
        self
    }

    /// With this member, if there is a value.
    pub fn maybe(self, name: &str, value: Option<impl Into<Value>>) -> Self {
        match value {
            Some(value) => self.with(name, value),
            None => self,
        }
    }

    /// With this member, if the list holds anything.
    pub fn list(self, name: &str, items: Vec<Value>) -> Self {
        if items.is_empty() { self } else { self.with(name, items) }
    }

    /// With this count, unless it is zero.
    pub fn count(self, name: &str, n: u64) -> Self {
        if n == 0 { self } else { self.with(name, n) }
    }

    /// The object.
    pub fn done(self) -> Value {
        Value::Object(self.0)
    }
}
