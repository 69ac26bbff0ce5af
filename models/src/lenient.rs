//! Reading JSON into types of our own without insisting: servers that claim to speak a protocol differ in what they
//! leave out, set to null or write as another type, and none of that may cost an answer. What has another type than
//! expected counts as absent, what is unknown is skipped, and of two equal names the later counts.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

/// What can be made of one or more kinds of JSON.
pub(crate) trait Lenient<'de>: Sized {
    /// Of a string.
    fn text(_text: Cow<'de, str>) -> Option<Self> {
        None
    }

    /// Of a whole number.
    fn number(_number: u64) -> Option<Self> {
        None
    }

    /// Of an array. Reads all of it.
    fn array<A: SeqAccess<'de>>(mut array: A) -> Result<Option<Self>, A::Error> {
        while array.next_element::<IgnoredAny>()?.is_some() {}
        Ok(None)
    }

    /// Of an object. Reads all of it.
    fn object<A: MapAccess<'de>>(mut object: A) -> Result<Option<Self>, A::Error> {
        while object.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(None)
    }
}

/// A `T`, if the JSON is of a kind that makes one.
pub(crate) struct Maybe<T>(pub(crate) Option<T>);

impl<'de, T: Lenient<'de>> Deserialize<'de> for Maybe<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Reader(PhantomData)).map(Self)
    }
}

struct Reader<T>(PhantomData<T>);

impl<'de, T: Lenient<'de>> Visitor<'de> for Reader<T> {
    type Value = Option<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_u64<E>(self, number: u64) -> Result<Self::Value, E> {
        Ok(T::number(number))
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(T::text(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(T::text(Cow::Owned(text.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, array: A) -> Result<Self::Value, A::Error> {
        T::array(array)
    }

    fn visit_map<A: MapAccess<'de>>(self, object: A) -> Result<Self::Value, A::Error> {
        T::object(object)
    }
}

impl<'de> Lenient<'de> for Cow<'de, str> {
    fn text(text: Self) -> Option<Self> {
        Some(text)
    }
}

impl Lenient<'_> for u64 {
    fn number(number: u64) -> Option<Self> {
        Some(number)
    }
}

impl<'de, T: Lenient<'de>> Lenient<'de> for Vec<T> {
    fn array<A: SeqAccess<'de>>(mut array: A) -> Result<Option<Self>, A::Error> {
        let mut all = Self::new();
        while let Some(Maybe(item)) = array.next_element()? {
            all.extend(item);
        }
        Ok(Some(all))
    }
}

/// A text, or other JSON as the text it would be.
pub(crate) struct Words<'de>(pub(crate) Cow<'de, str>);

impl<'de> Lenient<'de> for Words<'de> {
    fn text(text: Cow<'de, str>) -> Option<Self> {
        Some(Self(text))
    }

    fn number(number: u64) -> Option<Self> {
        Some(Self(Cow::Owned(number.to_string())))
    }

    fn array<A: SeqAccess<'de>>(array: A) -> Result<Option<Self>, A::Error> {
        let value = Value::deserialize(SeqAccessDeserializer::new(array))?;
        Ok(Some(Self(Cow::Owned(value.to_string()))))
    }

    fn object<A: MapAccess<'de>>(object: A) -> Result<Option<Self>, A::Error> {
        let value = Value::deserialize(MapAccessDeserializer::new(object))?;
        Ok(Some(Self(Cow::Owned(value.to_string()))))
    }
}

/// The object in `json`; none when it is JSON of another kind.
///
/// # Errors
/// When it is no JSON.
pub(crate) fn read<'de, T: Lenient<'de>>(json: &'de str) -> Result<Option<T>, serde_json::Error> {
    serde_json::from_str::<Maybe<T>>(json).map(|read| read.0)
}

/// Declares objects: each field is optional and names the key it is read from.
macro_rules! objects {
    ($($(#[$about:meta])* $name:ident $(<$life:lifetime>)? { $($(#[$note:meta])* $field:ident: $type:ty = $key:literal,)* })*) => {$(
        $(#[$about])*
        #[derive(Default)]
        pub(super) struct $name $(<$life>)? {
            $($(#[$note])* pub(super) $field: Option<$type>,)*
        }

        impl<'de> $crate::lenient::Lenient<'de> for $name $(<$life>)? {
            fn object<A: serde::de::MapAccess<'de>>(mut object: A) -> Result<Option<Self>, A::Error> {
                let mut read = Self::default();
                while let Some(key) = object.next_key::<$crate::lenient::Maybe<std::borrow::Cow<'de, str>>>()? {
                    match key.0.as_deref() {
                        $(Some($key) => read.$field = object.next_value::<$crate::lenient::Maybe<$type>>()?.0,)*
                        _ => drop(object.next_value::<serde::de::IgnoredAny>()?),
                    }
                }
                Ok(Some(read))
            }
        }
    )*};
}
pub(crate) use objects;
