//! Where something stands in the file.

use std::marker::PhantomData;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::{self, Deserialize, Deserializer, MapAccess, Visitor};

/// A line and a column, both from 1; zeros where there is none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Location {
    line: u64,
    column: u64,
}

impl Location {
    /// No place.
    pub(super) const UNKNOWN: Self = Self { line: 0, column: 0 };

    pub(super) fn new(line: u64, column: u64) -> Self {
        Self { line, column }
    }

    /// The line, from 1.
    pub(crate) fn line(self) -> u64 {
        self.line
    }

    /// The column, from 1.
    pub(crate) fn column(self) -> u64 {
        self.column
    }
}

/// A value with its place. To the schema it is the value.
#[derive(Debug, Clone)]
pub(super) struct Spanned<T> {
    pub value: T,
    pub referenced: Location,
}

/// What [`Spanned`] asks a deserializer for, and [`super::decode`] answers.
pub(super) const SPANNED: &str = "$daybook::Spanned";
/// The fields it asks for, in this order.
pub(super) const SPANNED_FIELDS: [&str; 3] = ["line", "column", "value"];

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Spanned<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Parts<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Parts<T> {
            type Value = Spanned<T>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a value with its place")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut parts: A) -> Result<Self::Value, A::Error> {
                let absent = || de::Error::custom("a place can only be read from a definitions file");
                let (_, line) = parts.next_entry::<String, u64>()?.ok_or_else(absent)?;
                let (_, column) = parts.next_entry::<String, u64>()?.ok_or_else(absent)?;
                let (_, value) = parts.next_entry::<String, T>()?.ok_or_else(absent)?;
                Ok(Spanned { value, referenced: Location::new(line, column) })
            }
        }

        deserializer.deserialize_struct(SPANNED, &SPANNED_FIELDS, Parts(PhantomData))
    }
}

impl<T: JsonSchema> JsonSchema for Spanned<T> {
    fn inline_schema() -> bool {
        T::inline_schema()
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        T::schema_name()
    }

    fn schema_id() -> std::borrow::Cow<'static, str> {
        T::schema_id()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        T::json_schema(generator)
    }
}
