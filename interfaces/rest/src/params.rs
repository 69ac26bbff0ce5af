//! Query parameters that are documented with their type but read by us, so that errors name them as clients expect.

use std::borrow::Cow;
use std::marker::PhantomData;

use daybook_domain::ids::IdError;
use daybook_domain::run::RunStatus;
use poem_openapi::Enum;
use poem_openapi::registry::{MetaSchemaRef, Registry};
use poem_openapi::types::{ParseFromParameter, ParseResult, Type};
use serde_json::Value;

use crate::errors::{ApiError, At};

/// A parameter's text, documented as a `T`.
pub(crate) struct Raw<T>(pub String, PhantomData<fn() -> T>);

/// As [`Raw`], for a parameter that must be there: its absence is ours to report.
pub(crate) struct Required<T>(Option<String>, PhantomData<fn() -> T>);

macro_rules! documented_as {
    ($name:ident) => {
        impl<T: Type> Type for $name<T> {
            const IS_REQUIRED: bool = true;
            type RawValueType = Self;
            type RawElementValueType = Self;

            fn name() -> Cow<'static, str> {
                T::name()
            }
            fn schema_ref() -> MetaSchemaRef {
                T::schema_ref()
            }
            fn register(registry: &mut Registry) {
                T::register(registry);
            }
            fn as_raw_value(&self) -> Option<&Self> {
                None
            }
            fn raw_element_iter<'a>(&'a self) -> Box<dyn Iterator<Item = &'a Self> + 'a> {
                Box::new(std::iter::empty())
            }
        }
    };
}
documented_as!(Raw);
documented_as!(Required);

impl<T: Type> ParseFromParameter for Raw<T> {
    fn parse_from_parameter(value: &str) -> ParseResult<Self> {
        Ok(Self(value.to_owned(), PhantomData))
    }
}

impl<T: Type> ParseFromParameter for Required<T> {
    fn parse_from_parameter(value: &str) -> ParseResult<Self> {
        Ok(Self(Some(value.to_owned()), PhantomData))
    }

    fn parse_from_parameters<I: IntoIterator<Item = A>, A: AsRef<str>>(iter: I) -> ParseResult<Self> {
        Ok(Self(iter.into_iter().next().map(|value| value.as_ref().to_owned()), PhantomData))
    }
}

impl<T> Required<T> {
    /// The text.
    ///
    /// # Errors
    /// 422 when the parameter is missing.
    pub fn text(&self, at: At) -> Result<&str, ApiError> {
        self.0.as_deref().ok_or_else(|| at.missing())
    }
}

/// The text of an optional parameter; an empty one counts as absent.
pub(crate) fn text<T>(raw: &Option<Raw<T>>) -> Option<&str> {
    raw.as_ref().map(|raw| raw.0.as_str()).filter(|text| !text.is_empty())
}

/// The kinds of sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
#[oai(rename_all = "lowercase")]
pub(crate) enum SessionType {
    /// With an agent.
    Agent,
    /// With a team.
    Team,
    /// With a workflow.
    Workflow,
}

/// Which end of a list comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
#[oai(rename_all = "lowercase")]
pub(crate) enum SortOrder {
    /// Smallest first.
    Asc,
    /// Largest first.
    Desc,
}

/// Reads a session type.
///
/// # Errors
/// 422 for another word.
pub(crate) fn session_type(raw: &Option<Raw<SessionType>>) -> Result<Option<SessionType>, ApiError> {
    match text(raw) {
        None => Ok(None),
        Some("agent") => Ok(Some(SessionType::Agent)),
        Some("team") => Ok(Some(SessionType::Team)),
        Some("workflow") => Ok(Some(SessionType::Workflow)),
        Some(other) => Err(At("query", "type").no_word(other, "'agent', 'team' or 'workflow'")),
    }
}

/// Reads a sort order, largest first unless asked otherwise.
///
/// # Errors
/// 422 for another word.
pub(crate) fn sort_order(raw: &Option<Raw<SortOrder>>) -> Result<SortOrder, ApiError> {
    match text(raw) {
        None | Some("desc") => Ok(SortOrder::Desc),
        Some("asc") => Ok(SortOrder::Asc),
        Some(other) => Err(At("query", "sort_order").no_word(other, "'asc' or 'desc'")),
    }
}

/// The status of this name.
pub(crate) fn run_status(word: &str) -> Option<RunStatus> {
    use RunStatus as S;
    let all = [S::Pending, S::Running, S::Paused, S::Completed, S::Error, S::Cancelled, S::Regenerated];
    all.into_iter().find(|status| status.as_str() == word)
}

/// Reads a whole number as lenient clients write it.
///
/// # Errors
/// 422 when it is none.
pub(crate) fn int(at: At, text: &str) -> Result<i64, ApiError> {
    text.trim().parse().map_err(|_| at.no_int(text))
}

/// Reads an optional whole number of the query between `least` and `most`.
///
/// # Errors
/// 422 when it is none, or out of bounds.
pub(crate) fn int_between<T>(raw: &Option<Raw<T>>, name: &str, least: i64, most: i64) -> Result<Option<i64>, ApiError> {
    let Some(raw) = raw else { return Ok(None) };
    let at = At("query", name);
    match int(at, &raw.0)? {
        n if n < least => Err(at.too_small(&raw.0, least)),
        n if n > most => Err(at.too_large(&raw.0, most)),
        n => Ok(Some(n)),
    }
}

/// Reads a boolean as lenient clients write it.
///
/// # Errors
/// 422 when it is none.
pub(crate) fn boolean(at: At, text: &str) -> Result<bool, ApiError> {
    match text.trim().to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" | "y" | "on" | "t" => Ok(true),
        "false" | "0" | "no" | "n" | "off" | "f" => Ok(false),
        _ => Err(at.no_bool(text)),
    }
}

/// Reads an id.
///
/// # Errors
/// 422 when the text is empty, too long or holds control characters.
pub(crate) fn id<T: TryFrom<String, Error = IdError>>(at: At, text: &str) -> Result<T, ApiError> {
    T::try_from(text.to_owned()).map_err(|error| at.wrong(error, Value::String(text.chars().take(300).collect())))
}

/// Reads an optional id of the query.
///
/// # Errors
/// As [`id`].
pub(crate) fn query_id<T, R>(raw: &Option<Raw<R>>, name: &str) -> Result<Option<T>, ApiError>
where
    T: TryFrom<String, Error = IdError>,
{
    text(raw).map(|text| id(At("query", name), text)).transpose()
}

#[cfg(test)]
mod tests {
    use daybook_domain::ids::RunId;

    use super::*;

    #[test]
    fn booleans_are_read_as_clients_write_them() {
        for yes in ["true", "True", "TRUE", "1", "yes", "Y", "on", "t"] {
            assert!(boolean(At("body", "x"), yes).unwrap(), "{yes}");
        }
        for no in ["false", "False", "0", "no", "N", "OFF", "f"] {
            assert!(!boolean(At("body", "x"), no).unwrap(), "{no}");
        }
        for neither in ["maybe", "2", "", "truee"] {
            assert!(boolean(At("body", "x"), neither).is_err(), "{neither}");
        }
    }

    #[test]
    fn numbers_stay_in_bounds() {
        let raw = |text: &str| Some(Raw::<i64>(text.to_owned(), PhantomData));
        assert_eq!(int_between(&raw("7"), "limit", 1, 10).unwrap(), Some(7));
        assert_eq!(int_between::<i64>(&None, "limit", 1, 10).unwrap(), None);
        for wrong in ["0", "11", "abc", "", "1.5", "99999999999999999999999"] {
            assert!(int_between(&raw(wrong), "limit", 1, 10).is_err(), "{wrong}");
        }
    }

    #[test]
    fn ids_with_control_characters_are_refused() {
        assert!(id::<RunId>(At("body", "run_id"), "a\u{0}b").is_err());
        assert!(id::<RunId>(At("body", "run_id"), &"x".repeat(256)).is_err());
        assert_eq!(id::<RunId>(At("body", "run_id"), "r-1").unwrap().as_str(), "r-1");
    }
}
