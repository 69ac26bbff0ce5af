//! YAML as a tree whose nodes know their places. All that is wrong with its form is found in one reading.

use std::collections::HashMap;
use std::rc::Rc;

use granit_parser::{Event, Parser, ScalarStyle, Span, Tag};

use super::Mistake;
use super::place::Location;
use super::variables::expand;

/// A definitions file is written by people; more than this is a mistake of its own.
const MAX_BYTES: usize = 4_000_000;
/// The most values, with those that aliases repeat.
const MAX_NODES: usize = 200_000;
/// The deepest nesting. A definitions file needs about six levels.
const MAX_DEPTH: usize = 64;

/// A value in the file.
#[derive(Debug)]
pub(super) struct Node {
    /// Stands for this node in a set of nodes.
    pub id: usize,
    pub at: Location,
    pub shape: Shape,
    /// How many nodes it stands for, with those that aliases repeat.
    size: usize,
    /// How many levels it has, likewise.
    depth: usize,
}

#[derive(Debug)]
pub(super) enum Shape {
    /// A text; `plain` when it may also stand for a number, a truth value or nothing.
    Scalar {
        text: String,
        plain: bool,
    },
    List(Vec<Rc<Node>>),
    Map(Vec<Entry>),
}

/// One `key: value`.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub key: String,
    pub key_at: Location,
    pub value: Rc<Node>,
}

/// A file as it was read.
#[derive(Debug)]
pub(super) struct Tree {
    pub root: Rc<Node>,
    /// What is wrong with its form.
    pub mistakes: Vec<Mistake>,
    /// Nodes whose value is not known, because of such a mistake.
    pub broken: Vec<usize>,
    /// What came from the environment and must not be shown.
    pub taken: Vec<(String, String)>,
}

impl Node {
    /// The entries of a mapping; none of anything else.
    pub fn entries(&self) -> &[Entry] {
        match &self.shape {
            Shape::Map(entries) => entries,
            _ => &[],
        }
    }

    /// The value of a mapping's key.
    pub fn get(&self, key: &str) -> Option<&Rc<Self>> {
        self.entries().iter().find(|entry| entry.key == key).map(|entry| &entry.value)
    }

    /// The text of a scalar.
    pub fn text(&self) -> Option<&str> {
        match &self.shape {
            Shape::Scalar { text, .. } => Some(text),
            _ => None,
        }
    }

    /// The values directly below it.
    pub fn children(&self) -> impl Iterator<Item = &Rc<Self>> {
        let items = match &self.shape {
            Shape::List(items) => items.as_slice(),
            _ => &[],
        };
        items.iter().chain(self.entries().iter().map(|entry| &entry.value))
    }

    /// Whether there is nothing where a value could be.
    pub fn is_nothing(&self) -> bool {
        matches!(&self.shape, Shape::Scalar { text, plain: true } if matches!(text.as_str(), "" | "~" | "null" | "Null" | "NULL"))
    }
}

/// Reads a text; references in it are looked up in `environment`.
///
/// # Errors
/// The mistake after which nothing more can be told.
pub(super) fn read(text: &str, environment: &HashMap<String, String>) -> Result<Tree, Mistake> {
    if text.len() > MAX_BYTES {
        let message = format!("the file has {} bytes; {MAX_BYTES} are the most", text.len());
        return Err(Mistake { line: 1, column: 1, message });
    }
    let mut composer = Composer::new(environment);
    let options = granit_parser::options! { flow_nesting_limit: MAX_DEPTH, block_nesting_limit: MAX_DEPTH };
    for event in Parser::new_from_str_with_options(text, options) {
        let (event, span) = event
            .map_err(|error| Mistake::at(location(*error.marker()), format!("this is not YAML: {}", error.info())))?;
        composer.take(event, span)?;
    }
    let root = match composer.root.take() {
        Some(root) => root,
        None => composer.node(Location::new(1, 1), Shape::Scalar { text: String::new(), plain: true }),
    };
    Ok(Tree { root, mistakes: composer.mistakes, broken: composer.broken, taken: composer.taken })
}

fn location(marker: granit_parser::Marker) -> Location {
    let number = |n: usize| u64::try_from(n).unwrap_or_default();
    Location::new(number(marker.line()), number(marker.col() + 1))
}

/// A collection whose end has not come yet.
enum Open {
    List { at: Location, anchor: usize, items: Vec<Rc<Node>> },
    Map { at: Location, anchor: usize, entries: Vec<Entry>, merged: Vec<Rc<Node>>, key: Option<Key> },
}

/// A key whose value has not come yet.
enum Key {
    /// Its value counts.
    Text(String, Location),
    /// `<<`: its value's entries count where there are no own ones.
    Merge,
    /// A mistake: its value is skipped.
    Wrong,
}

struct Composer<'a> {
    environment: &'a HashMap<String, String>,
    open: Vec<Open>,
    anchors: HashMap<usize, Rc<Node>>,
    root: Option<Rc<Node>>,
    next_id: usize,
    mistakes: Vec<Mistake>,
    broken: Vec<usize>,
    taken: Vec<(String, String)>,
}

impl<'a> Composer<'a> {
    fn new(environment: &'a HashMap<String, String>) -> Self {
        Self {
            environment,
            open: Vec::new(),
            anchors: HashMap::new(),
            root: None,
            next_id: 0,
            mistakes: Vec::new(),
            broken: Vec::new(),
            taken: Vec::new(),
        }
    }

    fn node(&mut self, at: Location, shape: Shape) -> Rc<Node> {
        self.next_id += 1;
        let mut node = Node { id: self.next_id, at, shape, size: 1, depth: 1 };
        node.size += node.children().map(|child| child.size).sum::<usize>();
        node.depth += node.children().map(|child| child.depth).max().unwrap_or_default();
        Rc::new(node)
    }

    fn take(&mut self, event: Event<'_>, span: Span) -> Result<(), Mistake> {
        let at = location(span.start);
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let as_text = self.tag(tag.as_deref(), at);
                let node = self.scalar(&text, style, as_text, at);
                self.value(node, anchor, Some(style))
            }
            Event::SequenceStart(_, anchor, tag) => {
                self.tag(tag.as_deref(), at);
                self.open.push(Open::List { at, anchor, items: Vec::new() });
                Ok(())
            }
            Event::MappingStart(_, anchor, tag) => {
                self.tag(tag.as_deref(), at);
                self.open.push(Open::Map { at, anchor, entries: Vec::new(), merged: Vec::new(), key: None });
                Ok(())
            }
            Event::SequenceEnd | Event::MappingEnd => self.close(),
            Event::Alias(anchor) => match self.anchors.get(&anchor).cloned() {
                Some(node) => self.value(node, 0, None),
                None => Err(Mistake::at(at, "an alias cannot be inside of what it stands for")),
            },
            Event::DocumentStart(..) if self.root.is_some() => {
                Err(Mistake::at(at, "a second document begins here: expected one only"))
            }
            _ => Ok(()),
        }
    }

    /// Whether a tag says that this is a text. Others mean nothing here.
    fn tag(&mut self, tag: Option<&Tag>, at: Location) -> bool {
        let Some(tag) = tag else { return false };
        let text = tag.core_suffix() == Some("str");
        if !text {
            self.mistakes.push(Mistake::at(at, format!("the tag {} means nothing here: remove it", tag.original())));
        }
        text
    }

    fn scalar(&mut self, text: &str, style: ScalarStyle, as_text: bool, at: Location) -> Rc<Node> {
        // Quotes mean what they mean to a shell.
        let expands = matches!(style, ScalarStyle::Plain | ScalarStyle::DoubleQuoted) && !self.at_key();
        let mut plain = style == ScalarStyle::Plain && !as_text;
        let expanded = if expands { expand(text, self.environment) } else { Ok(None) };
        let (text, fault) = match expanded {
            Ok(None) => (text.to_owned(), None),
            Ok(Some(expanded)) => {
                // A reference alone is what the variable is, with quotes or without.
                plain |= !as_text && text.starts_with("${") && text.ends_with('}');
                self.taken.extend(expanded.taken.into_iter().map(|value| (value, text.to_owned())));
                (expanded.text, None)
            }
            Err(fault) => (String::new(), Some(fault)),
        };
        let node = self.node(at, Shape::Scalar { text, plain });
        if let Some(fault) = fault {
            let key = self.key().map_or_else(String::new, |key| format!("{key}: "));
            self.mistakes.push(Mistake::at(at, format!("{key}{fault}")));
            self.broken.push(node.id);
        }
        node
    }

    /// Whether a key comes next.
    fn at_key(&self) -> bool {
        matches!(self.open.last(), Some(Open::Map { key: None, .. }))
    }

    /// The key that what comes next is the value of, also as an item of its list.
    fn key(&self) -> Option<&str> {
        self.open.iter().rev().find_map(|open| match open {
            Open::Map { key: Some(Key::Text(key, _)), .. } => Some(Some(key.as_str())),
            Open::Map { .. } => Some(None),
            Open::List { .. } => None,
        })?
    }

    fn close(&mut self) -> Result<(), Mistake> {
        match self.open.pop() {
            Some(Open::List { at, anchor, items }) => {
                let node = self.node(at, Shape::List(items));
                self.value(node, anchor, None)
            }
            Some(Open::Map { at, anchor, mut entries, merged, .. }) => {
                for entry in merged.iter().flat_map(|from| from.entries()) {
                    if !entries.iter().any(|own| own.key == entry.key) {
                        entries.push(entry.clone());
                    }
                }
                let node = self.node(at, Shape::Map(entries));
                self.value(node, anchor, None)
            }
            None => Ok(()),
        }
    }

    /// Puts a finished node where it belongs: into a list, at a key, or as a key.
    fn value(&mut self, node: Rc<Node>, anchor: usize, style: Option<ScalarStyle>) -> Result<(), Mistake> {
        // Aliases can make much of little.
        if node.size > MAX_NODES || node.depth > MAX_DEPTH {
            let message = format!("too much: {MAX_NODES} values and {MAX_DEPTH} levels are the most, with aliases");
            return Err(Mistake::at(node.at, message));
        }
        if anchor > 0 {
            self.anchors.insert(anchor, Rc::clone(&node));
        }
        match self.open.last_mut() {
            None => self.root = Some(node),
            Some(Open::List { items, .. }) => items.push(node),
            Some(Open::Map { key: slot @ None, entries, .. }) => {
                let (key, mistake) = key_of(&node, style, entries);
                *slot = Some(key);
                self.mistakes.extend(mistake);
            }
            Some(Open::Map { key: slot, entries, merged, .. }) => match slot.take() {
                Some(Key::Text(key, key_at)) => entries.push(Entry { key, key_at, value: node }),
                Some(Key::Merge) => match &node.shape {
                    Shape::Map(_) => merged.push(node),
                    Shape::List(items) if items.iter().all(|item| matches!(item.shape, Shape::Map(_))) => {
                        merged.extend(items.iter().cloned());
                    }
                    _ => self.mistakes.push(Mistake::at(node.at, "<<: expected an alias of `key: value` lines")),
                },
                Some(Key::Wrong) | None => {}
            },
        }
        Ok(())
    }
}

/// What a node means as a key, and what is wrong with it.
fn key_of(node: &Node, style: Option<ScalarStyle>, known: &[Entry]) -> (Key, Option<Mistake>) {
    let Shape::Scalar { text, .. } = &node.shape else {
        return (Key::Wrong, Some(Mistake::at(node.at, "expected a key, a single word")));
    };
    if text == "<<" && style == Some(ScalarStyle::Plain) {
        return (Key::Merge, None);
    }
    match known.iter().find(|entry| entry.key == *text) {
        Some(first) => {
            let message = format!("duplicate key `{text}`: it is there already, on line {}", first.key_at.line());
            (Key::Wrong, Some(Mistake::at(node.at, message)))
        }
        None => (Key::Text(text.clone(), node.at), None),
    }
}
