//! Reads a tree as a type with serde. Serde ends at the first mistake, so what is wrong is noted, set aside, and the
//! rest read again, until nothing wrong is left.

use std::collections::HashSet;
use std::fmt;

use serde::de::value::{MapAccessDeserializer, StrDeserializer};
use serde::de::{
    self, DeserializeOwned, DeserializeSeed, Deserializer, Expected, IntoDeserializer, MapAccess, SeqAccess,
    Unexpected, Visitor,
};
use serde::forward_to_deserialize_any;

use super::Mistake;
use super::place::{SPANNED, SPANNED_FIELDS};
use super::tree::{Entry, Node, Shape};

/// After so many mistakes the file is another kind of file.
const MOST_MISTAKES: usize = 100;

/// Reads `root`, except for the nodes in `skip`. What does not fit is added to `skip` and told in `mistakes`.
/// `None` when nothing of it fits.
pub(super) fn decode<T: DeserializeOwned>(
    root: &Node,
    skip: &mut HashSet<usize>,
    mistakes: &mut Vec<Mistake>,
) -> Option<T> {
    loop {
        let fault = match T::deserialize(Reader { node: root, key: None, skip }) {
            Ok(value) => return Some(value),
            Err(fault) => fault.at(root, None),
        };
        let (node, mistake) = fault.place.zip(Some(fault.message))?;
        let told = fault.follows || mistakes.len() >= MOST_MISTAKES;
        if !told {
            mistakes.push(Mistake::at(node.1, mistake));
        }
        // What cannot be set aside would come again for ever.
        if node.0 == root.id || !skip.insert(node.0) {
            return None;
        }
    }
}

/// What does not fit, and the node to set aside for it.
#[derive(Debug)]
pub(super) struct Fault {
    message: String,
    /// Without the key, which is known further up.
    bare: bool,
    missing: Option<&'static str>,
    /// Whether it only follows from another mistake.
    follows: bool,
    place: Option<(usize, super::place::Location)>,
}

impl Fault {
    fn new(message: String) -> Self {
        Self { message, bare: true, missing: None, follows: false, place: None }
    }

    /// The fault of this node, unless it is known to be that of one inside.
    fn at(mut self, node: &Node, key: Option<&str>) -> Self {
        if self.place.is_none() {
            self.place = Some((node.id, node.at));
            if let (true, Some(key)) = (self.bare, key) {
                self.message = format!("{key}: {}", self.message);
            }
        }
        self
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Fault {}

// Values are left out of all messages: they may be secrets.
impl de::Error for Fault {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::new(message.to_string())
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        let nothing = if matches!(found, Unexpected::Unit) { ", found nothing" } else { "" };
        Self::new(format!("expected {}{nothing}", plain(&expected.to_string())))
    }

    fn invalid_value(_: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::new(format!("expected {}", plain(&expected.to_string())))
    }

    fn unknown_variant(_: &str, expected: &'static [&'static str]) -> Self {
        Self::new(format!("expected one of {}", expected.join(", ")))
    }

    fn unknown_field(field: &str, expected: &'static [&'static str]) -> Self {
        let message = format!("unknown field `{field}`, expected one of {}", expected.join(", "));
        Self { bare: false, ..Self::new(message) }
    }

    fn missing_field(field: &'static str) -> Self {
        let message = format!("missing field `{field}`");
        Self { bare: false, missing: Some(field), ..Self::new(message) }
    }
}

/// What serde expects, in words for people who do not know Rust's types.
fn plain(expected: &str) -> String {
    if let Some(number) = expected.strip_prefix("a nonzero ") {
        return format!("{}, at least 1", plain(number).trim_end_matches(", 0 or more"));
    }
    if expected.starts_with("struct ") {
        return LINES.to_owned();
    }
    match expected {
        "u8" => "a whole number from 0 to 255",
        "u16" => "a whole number from 0 to 65535",
        "u32" | "u64" | "usize" => "a whole number, 0 or more",
        "i8" | "i16" | "i32" | "i64" | "isize" => "a whole number",
        "f32" | "f64" => "a number",
        "a boolean" => "true or false",
        "a string" | "path string" => "a text",
        "a sequence" => LIST,
        "a map" => LINES,
        other => other,
    }
    .to_owned()
}

const LIST: &str = "a list, each item on a line of its own after `- `";
const LINES: &str = "`key: value` lines, indented below";

/// One node, read as whatever is asked for.
struct Reader<'a> {
    node: &'a Node,
    /// The key it is the value of.
    key: Option<&'a str>,
    skip: &'a HashSet<usize>,
}

/// What a scalar stands for, by YAML's core schema.
enum Scalar<'a> {
    Nothing,
    Bool(bool),
    Unsigned(u64),
    Signed(i64),
    Float(f64),
    Text(&'a str),
}

fn scalar(text: &str, plain: bool) -> Scalar<'_> {
    if !plain {
        return Scalar::Text(text);
    }
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Scalar::Nothing,
        "true" | "True" | "TRUE" => return Scalar::Bool(true),
        "false" | "False" | "FALSE" => return Scalar::Bool(false),
        ".nan" | ".NaN" | ".NAN" => return Scalar::Float(f64::NAN),
        ".inf" | ".Inf" | ".INF" | "+.inf" => return Scalar::Float(f64::INFINITY),
        "-.inf" | "-.Inf" | "-.INF" => return Scalar::Float(f64::NEG_INFINITY),
        _ => {}
    }
    // Rust reads `infinity` and `nan` as numbers, YAML does not.
    if !text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '.')) || text.contains(['n', 'N']) {
        return Scalar::Text(text);
    }
    if let Ok(number) = text.parse() {
        return Scalar::Unsigned(number);
    }
    if let Ok(number) = text.parse() {
        return Scalar::Signed(number);
    }
    let based = |prefix, base| text.strip_prefix(prefix).and_then(|digits| u64::from_str_radix(digits, base).ok());
    if let Some(number) = based("0x", 16).or_else(|| based("0o", 8)) {
        return Scalar::Unsigned(number);
    }
    text.parse().map_or(Scalar::Text(text), Scalar::Float)
}

impl<'a> Reader<'a> {
    fn wrong(&self, expected: &str) -> Fault {
        Fault::new(format!("expected {expected}")).at(self.node, self.key)
    }

    fn list<'de, V: Visitor<'de>>(&self, items: &'a [std::rc::Rc<Node>], visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_seq(Items { items: items.iter(), key: self.key, skip: self.skip })
    }

    fn map<'de, V: Visitor<'de>>(&self, entries: &'a [Entry], visitor: V) -> Result<V::Value, Fault> {
        let read = visitor.visit_map(Entries { entries: entries.iter(), value: None, skip: self.skip });
        read.map_err(|mut fault| {
            let aside = |name| entries.iter().any(|entry| entry.key == name && self.skip.contains(&entry.value.id));
            fault.follows |= fault.place.is_none() && fault.missing.is_some_and(aside);
            fault.at(self.node, self.key)
        })
    }
}

impl<'de> Deserializer<'de> for Reader<'_> {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match &self.node.shape {
            Shape::List(items) => self.list(items, visitor),
            Shape::Map(entries) => self.map(entries, visitor),
            Shape::Scalar { text, plain } => match scalar(text, *plain) {
                Scalar::Nothing => visitor.visit_unit(),
                Scalar::Bool(value) => visitor.visit_bool(value),
                Scalar::Unsigned(value) => visitor.visit_u64(value),
                Scalar::Signed(value) => visitor.visit_i64(value),
                Scalar::Float(value) => visitor.visit_f64(value),
                Scalar::Text(text) => visitor.visit_str(text),
            },
        }
    }

    /// Texts need no quotes, whatever else they might stand for; nothing is no text.
    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match &self.node.shape {
            Shape::Scalar { text, .. } if !self.node.is_nothing() => visitor.visit_str(text),
            Shape::Scalar { .. } => Err(self.wrong("a text, found nothing")),
            _ => Err(self.wrong("a text")),
        }
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        if self.node.is_nothing() { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    /// A key whose lines are all commented out has none.
    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match &self.node.shape {
            Shape::List(items) => self.list(items, visitor),
            _ if self.node.is_nothing() => self.list(&[], visitor),
            _ => Err(self.wrong(LIST)),
        }
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match &self.node.shape {
            Shape::Map(entries) => self.map(entries, visitor),
            _ if self.node.is_nothing() => self.map(&[], visitor),
            _ => Err(self.wrong(LINES)),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        if name == SPANNED {
            return visitor.visit_map(Place { reader: Some(self), next: 0 });
        }
        self.deserialize_map(visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        match &self.node.shape {
            Shape::Scalar { text, .. } => visitor.visit_enum(StrDeserializer::<Fault>::new(text)),
            // A word with settings below it.
            Shape::Map(entries) if entries.len() == 1 => {
                let entries = Entries { entries: entries.iter(), value: None, skip: self.skip };
                visitor.visit_enum(MapAccessDeserializer::new(entries))
            }
            _ => Err(self.wrong(&format!("one of {}", variants.join(", ")))),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_unit()
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char bytes byte_buf unit unit_struct tuple tuple_struct
        identifier
    }
}

struct Items<'a> {
    items: std::slice::Iter<'a, std::rc::Rc<Node>>,
    key: Option<&'a str>,
    skip: &'a HashSet<usize>,
}

impl<'de> SeqAccess<'de> for Items<'_> {
    type Error = Fault;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Fault> {
        let Some(node) = self.items.find(|item| !self.skip.contains(&item.id)) else { return Ok(None) };
        let reader = Reader { node, key: self.key, skip: self.skip };
        seed.deserialize(reader).map(Some).map_err(|fault| fault.at(node, self.key))
    }
}

struct Entries<'a> {
    entries: std::slice::Iter<'a, Entry>,
    value: Option<&'a Entry>,
    skip: &'a HashSet<usize>,
}

impl<'de> MapAccess<'de> for Entries<'_> {
    type Error = Fault;

    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Fault> {
        let Some(entry) = self.entries.find(|entry| !self.skip.contains(&entry.value.id)) else { return Ok(None) };
        self.value = Some(entry);
        let read = seed.deserialize(StrDeserializer::<Fault>::new(&entry.key)).map(Some);
        // The value goes aside with its key.
        read.map_err(|fault| Fault { place: Some((entry.value.id, entry.key_at)), ..fault })
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Fault> {
        let entry = self.value.take().ok_or_else(|| Fault::new("a value comes after its key".to_owned()))?;
        let (node, key) = (&*entry.value, Some(entry.key.as_str()));
        seed.deserialize(Reader { node, key, skip: self.skip }).map_err(|fault| fault.at(node, key))
    }
}

/// The line, the column and the value that [`super::place::Spanned`] asks for.
struct Place<'a> {
    reader: Option<Reader<'a>>,
    next: usize,
}

impl<'de> MapAccess<'de> for Place<'_> {
    type Error = Fault;

    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Fault> {
        SPANNED_FIELDS.get(self.next).map(|name| seed.deserialize(StrDeserializer::<Fault>::new(name))).transpose()
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Fault> {
        let reader = self.reader.take().ok_or_else(|| Fault::new("a place has one value".to_owned()))?;
        let at = reader.node.at;
        let number: u64 = match self.next {
            0 => at.line(),
            1 => at.column(),
            _ => return seed.deserialize(reader),
        };
        (self.reader, self.next) = (Some(reader), self.next + 1);
        seed.deserialize(number.into_deserializer())
    }
}
