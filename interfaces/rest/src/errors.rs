//! Errors as clients see them: `{"detail": ...}` with a text, or a list that names fields.

use daybook_domain::approval::ApprovalError;
use daybook_domain::run::AnswerError;
use daybook_domain::session::SessionError;
use daybook_engine::{ExecuteError, QueryError};
use daybook_store::{MigrateError, StoreError};
use poem_openapi::payload::Json;
use poem_openapi::{ApiResponse, Object};
use serde_json::{Value, json};

/// Seconds after which a client may try again.
const RETRY_SECONDS: u32 = 1;

/// What went wrong.
#[derive(Debug, Object)]
pub(crate) struct Problem {
    /// For people.
    pub detail: String,
}

/// Which fields are wrong and why; a text when no single field is.
#[derive(Debug, Object)]
pub(crate) struct InvalidRequest {
    /// A list of `{type, loc, msg, input, ctx?}`, or a text.
    pub detail: Value,
}

/// Every way a request can fail.
#[derive(Debug, ApiResponse)]
pub(crate) enum ApiError {
    /// The request cannot be served as it is.
    #[oai(status = 400)]
    Bad(Json<Problem>),
    /// The caller may not do this.
    #[oai(status = 403)]
    Forbidden(Json<Problem>),
    /// There is no such thing, or not for this caller.
    #[oai(status = 404)]
    NotFound(Json<Problem>),
    /// It does not fit what is there.
    #[oai(status = 409)]
    Conflict(Json<Problem>),
    /// The body is larger than this server takes.
    #[oai(status = 413)]
    TooLarge(Json<Problem>),
    /// A field is wrong.
    #[oai(status = 422)]
    Invalid(Json<InvalidRequest>),
    /// More is asked than the server takes; try again later.
    #[oai(status = 429)]
    TooMany(
        Json<Problem>,
        /// Seconds to wait.
        #[oai(header = "Retry-After")]
        u32,
    ),
    /// The server failed; its log says how, under the request's id.
    #[oai(status = 500)]
    Internal(Json<Problem>),
    /// The server cannot answer at the moment; try again.
    #[oai(status = 503)]
    Unavailable(
        Json<Problem>,
        /// Seconds to wait.
        #[oai(header = "Retry-After")]
        u32,
    ),
}

fn problem(detail: impl Into<String>) -> Json<Problem> {
    Json(Problem { detail: detail.into() })
}

impl ApiError {
    /// 400.
    pub fn bad(detail: impl Into<String>) -> Self {
        Self::Bad(problem(detail))
    }

    /// 403.
    pub fn forbidden(detail: impl Into<String>) -> Self {
        Self::Forbidden(problem(detail))
    }

    /// 404.
    pub fn not_found(detail: impl Into<String>) -> Self {
        Self::NotFound(problem(detail))
    }

    /// 409.
    pub fn conflict(detail: impl Into<String>) -> Self {
        Self::Conflict(problem(detail))
    }

    /// 413; a body may have at most `most` bytes.
    pub fn too_large(most: usize) -> Self {
        Self::TooLarge(problem(format!("The body exceeds the maximum size of {most} bytes")))
    }

    /// 422 about the request as a whole.
    pub fn unprocessable(detail: impl Into<String>) -> Self {
        Self::Invalid(Json(InvalidRequest { detail: Value::String(detail.into()) }))
    }

    /// 500; the cause goes to the log, not to the client.
    pub fn internal(error: &dyn std::error::Error) -> Self {
        tracing::error!(error = %error, source = ?error.source(), "a request failed");
        Self::Internal(problem("Internal server error"))
    }

    /// 503: what is asked for may be among the events that the view lacks.
    pub fn behind(lag: u64) -> Self {
        Self::Unavailable(problem(format!("The view is {lag} events behind the log: try again")), RETRY_SECONDS)
    }

    fn unavailable(error: &dyn std::error::Error) -> Self {
        Self::Unavailable(problem(error.to_string()), RETRY_SECONDS)
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        match &error {
            StoreError::Unavailable(_) => {
                // The address of the database is the operator's business, not the caller's.
                tracing::error!(%error, "the database is away");
                Self::Unavailable(problem("The database cannot be reached: try again in a moment"), RETRY_SECONDS)
            }
            StoreError::Overloaded | StoreError::Closed => Self::unavailable(&error),
            StoreError::Invalid(_) => Self::unprocessable(error.to_string()),
            _ => Self::internal(&error),
        }
    }
}

impl From<ExecuteError> for ApiError {
    fn from(error: ExecuteError) -> Self {
        match error {
            ExecuteError::UnknownComponent(_)
            | ExecuteError::UnknownRun(_)
            | ExecuteError::UnknownSession
            | ExecuteError::Approval(ApprovalError::Unknown)
            | ExecuteError::Session(SessionError::Foreign) => Self::not_found(error.to_string()),
            ExecuteError::Answer(AnswerError::NeedsApproval)
            | ExecuteError::Approval(ApprovalError::OwnRequest(_) | ApprovalError::NoRequester) => {
                Self::Forbidden(problem(error.to_string()))
            }
            ExecuteError::Approval(ApprovalError::Nameless) => Self::bad(error.to_string()),
            ExecuteError::Answer(AnswerError::Answered(_) | AnswerError::StepAnswered(_) | AnswerError::Ended(_))
            | ExecuteError::GoesOn
            | ExecuteError::Approval(_) => Self::Conflict(problem(error.to_string())),
            ExecuteError::Answer(_) | ExecuteError::Unanswered(_) | ExecuteError::CannotContinue(_) => {
                Self::bad(error.to_string())
            }
            ExecuteError::Contended => Self::TooMany(problem(error.to_string()), RETRY_SECONDS),
            ExecuteError::Session(SessionError::Busy(_) | SessionError::Exists(_))
            | ExecuteError::RunExists(_)
            | ExecuteError::KeyReused => Self::Conflict(problem(error.to_string())),
            ExecuteError::Session(SessionError::QueueFull(_)) | ExecuteError::TooManyRuns(_) => {
                Self::TooMany(problem(error.to_string()), RETRY_SECONDS)
            }
            ExecuteError::Stopping | ExecuteError::NobodyCan(_) | ExecuteError::NoSummary { may_pass: true, .. } => {
                Self::unavailable(&error)
            }
            ExecuteError::Input(_) => Self::unprocessable(error.to_string()),
            ExecuteError::NoSummary { may_pass: false, .. } => Self::Internal(problem(error.to_string())),
            ExecuteError::Store(error) => error.into(),
            ExecuteError::Json(_) => Self::internal(&error),
        }
    }
}

/// The answer to a command that was refused, for routes of the program that embeds Daybook.
pub fn refused(error: ExecuteError) -> poem::Error {
    ApiError::from(error).into()
}

/// The answer to a query that has none, likewise.
pub fn unanswered(error: QueryError) -> poem::Error {
    ApiError::from(error).into()
}

impl From<QueryError> for ApiError {
    fn from(error: QueryError) -> Self {
        match error {
            QueryError::Store(error) => error.into(),
            QueryError::MissingConfig(_) => Self::internal(&error),
        }
    }
}

impl From<MigrateError> for ApiError {
    fn from(error: MigrateError) -> Self {
        match error {
            MigrateError::BadVersion(_) => Self::unprocessable(error.to_string()),
            MigrateError::Incompatible { .. } => Self::Conflict(problem(error.to_string())),
            MigrateError::Store(error) => error.into(),
        }
    }
}

/// Where a field of a request is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct At<'a>(pub &'static str, pub &'a str);

impl At<'_> {
    fn error(self, kind: &str, msg: impl Into<String>, input: Value, ctx: Option<Value>) -> ApiError {
        let mut error = json!({"type": kind, "loc": [self.0, self.1], "msg": msg.into(), "input": input});
        if let (Some(ctx), Some(error)) = (ctx, error.as_object_mut()) {
            error.insert("ctx".to_owned(), ctx);
        }
        ApiError::Invalid(Json(InvalidRequest { detail: Value::Array(vec![error]) }))
    }

    /// The field is not there.
    pub fn missing(self) -> ApiError {
        self.error("missing", "Field required", Value::Null, None)
    }

    /// The field is not in this body.
    pub fn missing_from(self, body: Value) -> ApiError {
        self.error("missing", "Field required", body, None)
    }

    /// The field is no boolean.
    pub fn no_bool(self, input: &str) -> ApiError {
        self.error("bool_parsing", "Input should be a valid boolean, unable to interpret input", input.into(), None)
    }

    /// The field is no whole number.
    pub fn no_int(self, input: &str) -> ApiError {
        let msg = "Input should be a valid integer, unable to parse string as an integer";
        self.error("int_parsing", msg, input.into(), None)
    }

    /// The number is below `least`.
    pub fn too_small(self, input: &str, least: i64) -> ApiError {
        let msg = format!("Input should be greater than or equal to {least}");
        self.error("greater_than_equal", msg, input.into(), Some(json!({"ge": least})))
    }

    /// The number is above `most`.
    pub fn too_large(self, input: &str, most: i64) -> ApiError {
        let msg = format!("Input should be less than or equal to {most}");
        self.error("less_than_equal", msg, input.into(), Some(json!({"le": most})))
    }

    /// The text is none of the words that `expected` lists.
    pub fn no_word(self, input: &str, expected: &str) -> ApiError {
        let msg = format!("Input should be {expected}");
        self.error("enum", msg, input.into(), Some(json!({"expected": expected})))
    }

    /// The text is none of the words that `expected` lists, said as clients of literal fields know it.
    pub fn no_literal(self, input: &str, expected: &str) -> ApiError {
        self.error(
            "literal_error",
            format!("Input should be {expected}"),
            input.into(),
            Some(json!({"expected": expected})),
        )
    }

    /// The text does not match `pattern`.
    pub fn no_match(self, input: &str, pattern: &str) -> ApiError {
        let (msg, ctx) = (format!("String should match pattern '{pattern}'"), json!({"pattern": pattern}));
        self.error("string_pattern_mismatch", msg, input.into(), Some(ctx))
    }

    /// The text is not JSON.
    pub fn no_json(self, input: &str, error: &serde_json::Error) -> ApiError {
        let start: String = input.chars().take(100).collect();
        self.error("json_invalid", format!("Invalid JSON: {error}"), start.into(), None)
    }

    /// Anything else that is wrong with the field.
    pub fn wrong(self, msg: impl std::fmt::Display, input: Value) -> ApiError {
        self.error("value_error", format!("Value error, {msg}"), input, None)
    }
}

#[cfg(test)]
mod tests {
    use daybook_domain::component::ComponentKind;
    use daybook_domain::ids::SessionId;
    use poem::IntoResponse;
    use poem::http::StatusCode;

    use super::*;

    async fn told(error: ApiError) -> (StatusCode, Value) {
        let response = error.into_response();
        let status = response.status();
        (status, response.into_body().into_json().await.unwrap())
    }

    #[tokio::test]
    async fn fields_are_named_as_recorded() {
        let (status, body) = told(At("body", "stream").no_bool("maybe")).await;
        assert_eq!(status, 422);
        let msg = "Input should be a valid boolean, unable to interpret input";
        let expected = json!([{"type": "bool_parsing", "loc": ["body", "stream"], "msg": msg, "input": "maybe"}]);
        assert_eq!(body, json!({"detail": expected}));
        let (_, body) = told(At("query", "limit").too_small("0", 1)).await;
        assert_eq!(body["detail"][0]["ctx"], json!({"ge": 1}));
        let (_, body) = told(At("body", "message").missing()).await;
        let missing = json!({"type": "missing", "loc": ["body", "message"], "msg": "Field required", "input": null});
        assert_eq!(body["detail"][0], missing);
    }

    #[tokio::test]
    async fn what_the_engine_refuses_has_a_status_that_says_what_to_do() {
        let cases = [
            (ExecuteError::UnknownComponent(ComponentKind::Team), 404),
            (ExecuteError::Session(SessionError::Foreign), 404),
            (ExecuteError::KeyReused, 409),
            (ExecuteError::RunExists("x".to_owned()), 409),
            (ExecuteError::Session(SessionError::Exists(SessionId::parse("s").unwrap())), 409),
            (ExecuteError::Session(SessionError::QueueFull(256)), 429),
            (ExecuteError::TooManyRuns(10), 429),
            (ExecuteError::Stopping, 503),
            (ExecuteError::NobodyCan("the tool \"deploy\"".to_owned()), 503),
            (ExecuteError::NoSummary { fault: "slow".to_owned(), may_pass: true }, 503),
            (ExecuteError::NoSummary { fault: "no such model".to_owned(), may_pass: false }, 500),
            (ExecuteError::Store(StoreError::Unavailable("gone".to_owned())), 503),
        ];
        for (error, expected) in cases {
            let response = ApiError::from(error).into_response();
            assert_eq!(response.status().as_u16(), expected);
            assert_eq!(response.headers().contains_key("retry-after"), matches!(expected, 429 | 503));
        }
    }

    #[tokio::test]
    async fn what_went_wrong_inside_stays_inside() {
        let error = StoreError::Tampered("event 7".to_owned());
        let (status, body) = told(ApiError::from(error)).await;
        assert_eq!((status.as_u16(), body), (500, json!({"detail": "Internal server error"})));
    }
}
