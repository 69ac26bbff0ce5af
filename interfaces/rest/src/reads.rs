//! Answers from views: how far behind the log they are goes into a header.

use daybook_projections::{Read, ViewError};
use poem_openapi::payload::{Json, Response};
use poem_openapi::types::ToJSON;

use crate::errors::ApiError;

/// How many events the answer's view still lacked; absent when none.
const LAG: &str = "x-daybook-lag";

/// An answer from a view.
pub(crate) type Answer<T> = Response<Json<T>>;

/// `value`, read with this lag.
pub(crate) fn answer<T: ToJSON>(value: T, lag: u64) -> Answer<T> {
    let response = Response::new(Json(value));
    if lag == 0 { response } else { response.header(LAG, lag) }
}

/// The row and its lag, or `missing`.
///
/// # Errors
/// `missing` when there is no row; where the view is behind, nobody knows yet whether there is one: 503.
pub(crate) fn found<T>(read: Read<Option<T>>, missing: impl FnOnce() -> ApiError) -> Result<(T, u64), ApiError> {
    match read.value {
        Some(value) => Ok((value, read.lag)),
        None if read.lag > 0 => Err(ApiError::behind(read.lag)),
        None => Err(missing()),
    }
}

impl From<ViewError> for ApiError {
    fn from(error: ViewError) -> Self {
        match error {
            ViewError::Store(error) => error.into(),
            ViewError::Unreadable { .. } => Self::internal(&error),
        }
    }
}
