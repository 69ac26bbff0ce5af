//! Personal content: kept apart from an event's payload so that it can be encrypted and, later, erased.
//!
//! A field typed [`Personal<T>`] serialises in place for people and views. Between [`split`] and [`join`] it leaves a
//! number in the payload and its value in a side list, which the store encrypts.

use std::cell::RefCell;

use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

/// A value that belongs to a person. Without the person's key it reads as [`Personal::Erased`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Personal<T> {
    /// The value, readable.
    Known(T),
    /// The key that protected the value is gone.
    Erased,
}

impl<T> Personal<T> {
    /// The value, unless it was erased.
    pub fn get(&self) -> Option<&T> {
        match self {
            Self::Known(value) => Some(value),
            Self::Erased => None,
        }
    }

    /// Takes the value out, unless it was erased.
    pub fn into_inner(self) -> Option<T> {
        match self {
            Self::Known(value) => Some(value),
            Self::Erased => None,
        }
    }
}

impl<T> Personal<Option<T>> {
    /// Whether there is nothing to keep: for fields that came later, which older events do not have.
    pub fn is_absent(&self) -> bool {
        matches!(self, Self::Known(None))
    }
}

impl<T> From<T> for Personal<T> {
    fn from(value: T) -> Self {
        Self::Known(value)
    }
}

impl<T: Default> Default for Personal<T> {
    fn default() -> Self {
        Self::Known(T::default())
    }
}

enum Aside {
    Writing(Vec<Box<RawValue>>),
    Reading(Vec<Box<RawValue>>),
    Erased,
}

thread_local! {
    // Set only inside `split` and `join`, which do not yield: serde runs to its end on one thread.
    static ASIDE: RefCell<Option<Aside>> = const { RefCell::new(None) };
}

/// Clears the side list even when serde unwinds.
struct Scope;

impl Scope {
    fn enter(aside: Aside) -> Self {
        ASIDE.with(|cell| *cell.borrow_mut() = Some(aside));
        Scope
    }

    fn take(&self) -> Option<Aside> {
        ASIDE.with(|cell| cell.borrow_mut().take())
    }
}

impl Drop for Scope {
    fn drop(&mut self) {
        self.take();
    }
}

/// Serialises `value` into its payload and, when it has personal fields, the JSON list of their values.
///
/// # Errors
/// When serde_json cannot write the value.
pub fn split<T: Serialize>(value: &T) -> serde_json::Result<(String, Option<String>)> {
    let scope = Scope::enter(Aside::Writing(Vec::new()));
    let payload = serde_json::to_string(value)?;
    match scope.take() {
        Some(Aside::Writing(values)) if !values.is_empty() => Ok((payload, Some(serde_json::to_string(&values)?))),
        _ => Ok((payload, None)),
    }
}

/// Reads back what [`split`] made; `personal` is `None` when its key is gone.
///
/// # Errors
/// When payload or side list are not what [`split`] made for this type.
pub fn join<T: DeserializeOwned>(payload: &str, personal: Option<&str>) -> serde_json::Result<T> {
    let aside = match personal {
        Some(text) => Aside::Reading(serde_json::from_str(text)?),
        None => Aside::Erased,
    };
    let _scope = Scope::enter(aside);
    serde_json::from_str(payload)
}

enum Mode {
    Plain,
    Aside,
    Erased,
}

impl<T: Serialize> Serialize for Personal<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let writing = ASIDE.with(|cell| matches!(*cell.borrow(), Some(Aside::Writing(_))));
        match self {
            // An option keeps `Erased` apart from every value, also from a null one.
            Self::Erased => serializer.serialize_none(),
            Self::Known(value) if writing => {
                let raw = serde_json::value::to_raw_value(value).map_err(serde::ser::Error::custom)?;
                let at = ASIDE.with(|cell| match cell.borrow_mut().as_mut() {
                    Some(Aside::Writing(values)) => {
                        values.push(raw);
                        values.len() - 1
                    }
                    _ => 0,
                });
                serializer.serialize_u64(at as u64)
            }
            Self::Known(value) => (value,).serialize(serializer),
        }
    }
}

impl<'de, T: DeserializeOwned> Deserialize<'de> for Personal<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mode = ASIDE.with(|cell| match &*cell.borrow() {
            None | Some(Aside::Writing(_)) => Mode::Plain,
            Some(Aside::Erased) => Mode::Erased,
            Some(Aside::Reading(_)) => Mode::Aside,
        });
        match mode {
            Mode::Erased => IgnoredAny::deserialize(deserializer).map(|_| Self::Erased),
            Mode::Plain => {
                let value = Option::<(T,)>::deserialize(deserializer)?;
                Ok(value.map_or(Self::Erased, |(value,)| Self::Known(value)))
            }
            Mode::Aside => match Option::<usize>::deserialize(deserializer)? {
                Some(at) => aside(at).map(Self::Known).map_err(serde::de::Error::custom),
                None => Ok(Self::Erased),
            },
        }
    }
}

/// The value of this number in the side list.
fn aside<T: DeserializeOwned>(at: usize) -> Result<T, String> {
    let text = ASIDE.with(|cell| match &*cell.borrow() {
        Some(Aside::Reading(values)) => values.get(at).map(|value| value.get().to_owned()),
        _ => None,
    });
    let text = text.ok_or("a personal value is missing")?;
    serde_json::from_str(&text).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Note {
        id: u32,
        text: Personal<String>,
        tags: Vec<Personal<Option<u8>>>,
    }

    fn note() -> Note {
        Note {
            id: 7,
            text: "a\u{0}secret".to_owned().into(),
            tags: vec![Some(1).into(), None.into(), Personal::Erased],
        }
    }

    #[test]
    fn personal_values_leave_the_payload_and_come_back() {
        let (payload, aside) = split(&note()).unwrap();
        assert!(!payload.contains("secret"));
        assert_eq!(join::<Note>(&payload, aside.as_deref()).unwrap(), note());
    }

    #[test]
    fn without_the_side_list_everything_personal_is_erased() {
        let (payload, _) = split(&note()).unwrap();
        let read: Note = join(&payload, None).unwrap();
        assert_eq!(read, Note { id: 7, text: Personal::Erased, tags: vec![Personal::Erased; 3] });
    }

    #[test]
    fn outside_the_log_it_serialises_in_place() {
        let text = serde_json::to_string(&note()).unwrap();
        assert!(text.contains("secret"));
        assert_eq!(serde_json::from_str::<Note>(&text).unwrap(), note());
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(tag = "t")]
    enum Shown {
        Note(Note),
    }

    #[test]
    fn personal_values_are_read_inside_tagged_shapes() {
        let shown = Shown::Note(note());
        let text = serde_json::to_string(&shown).unwrap();
        assert_eq!(serde_json::from_str::<Shown>(&text).unwrap(), shown);
        assert_eq!(serde_json::from_value::<Shown>(serde_json::to_value(&shown).unwrap()).unwrap(), shown);
        let (payload, aside) = split(&shown).unwrap();
        assert_eq!(join::<Shown>(&payload, aside.as_deref()).unwrap(), shown);
    }
}
