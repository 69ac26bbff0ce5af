//! The body of a decision: documented by a type, read by us, so that errors name fields as clients expect.

use daybook_domain::approval::Verdict;
use poem::{Request, RequestBody};
use poem_openapi::registry::{MetaMediaType, MetaRequest, Registry};
use poem_openapi::types::Type;
use poem_openapi::{ApiExtractor, ApiExtractorType, ExtractParamOptions, Object};
use serde_json::{Map, Value};

use crate::errors::{ApiError, At};

/// The longest name of who decides, in characters.
const MAX_NAME: usize = 255;

/// The most bytes of what is kept with a decision.
const MAX_BODY: usize = 256 << 10;

/// What is decided.
#[derive(Debug, Object)]
#[oai(rename = "ApprovalResolve")]
pub(super) struct ApprovalResolve {
    /// `approved` or `rejected`.
    #[oai(validator(pattern = "^(approved|rejected)$"))]
    status: String,
    /// Who decides. Where the caller is known, the caller counts.
    #[oai(validator(max_length = 255))]
    resolved_by: Option<String>,
    /// Kept with the decision. A text `note` in it is told to the model when the call is rejected.
    resolution_data: Option<Value>,
}

/// A decision as it was sent.
pub(super) struct Decided {
    pub verdict: Verdict,
    pub resolved_by: Option<String>,
    pub data: Option<Map<String, Value>>,
}

impl<'a> ApiExtractor<'a> for Decided {
    const TYPES: &'static [ApiExtractorType] = &[ApiExtractorType::RequestObject];
    type ParamType = ();
    type ParamRawType = ();

    fn register(registry: &mut Registry) {
        ApprovalResolve::register(registry);
    }

    fn request_meta() -> Option<MetaRequest> {
        let content = MetaMediaType { content_type: "application/json", schema: ApprovalResolve::schema_ref() };
        Some(MetaRequest { description: None, content: vec![content], required: true })
    }

    async fn from_request(
        _request: &'a Request,
        body: &mut RequestBody,
        _options: ExtractParamOptions<()>,
    ) -> poem::Result<Self> {
        let bytes = body.take()?.into_bytes().await?;
        if bytes.len() > MAX_BODY {
            return Err(ApiError::too_large(MAX_BODY).into());
        }
        Ok(read(&bytes)?)
    }
}

fn read(bytes: &[u8]) -> Result<Decided, ApiError> {
    if bytes.is_empty() {
        return Err(At("body", "status").missing_from(Value::Null));
    }
    let body: Value = serde_json::from_slice(bytes)
        .map_err(|error| At("body", "status").no_json(&String::from_utf8_lossy(bytes), &error))?;
    let Value::Object(body) = body else {
        return Err(ApiError::unprocessable("The body must be a JSON object with the member status"));
    };
    let pattern = "^(approved|rejected)$";
    let verdict = match body.get("status") {
        None => return Err(At("body", "status").missing_from(Value::Object(body))),
        Some(Value::String(word)) if word == "approved" => Verdict::Approved,
        Some(Value::String(word)) if word == "rejected" => Verdict::Rejected,
        Some(Value::String(word)) => return Err(At("body", "status").no_match(word, pattern)),
        Some(other) => return Err(At("body", "status").wrong("Input should be a valid string", other.clone())),
    };
    let resolved_by = match body.get("resolved_by") {
        None | Some(Value::Null) => None,
        Some(Value::String(name)) if name.chars().count() <= MAX_NAME => {
            Some(name.clone()).filter(|name| !name.is_empty())
        }
        Some(_) => {
            let msg = format!("resolved_by is a text of at most {MAX_NAME} characters");
            return Err(At("body", "resolved_by").wrong(msg, Value::Null));
        }
    };
    let data = match body.get("resolution_data") {
        None | Some(Value::Null) => None,
        Some(Value::Object(data)) => Some(data.clone()),
        Some(_) => return Err(At("body", "resolution_data").wrong("expected a JSON object", Value::Null)),
    };
    Ok(Decided { verdict, resolved_by, data })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decisions_are_read_and_what_is_none_is_refused() {
        let whole = br#"{"status": "rejected", "resolved_by": "boss", "resolution_data": {"note": "no"}}"#;
        let decided = read(whole).unwrap();
        assert_eq!((decided.verdict, decided.resolved_by.as_deref()), (Verdict::Rejected, Some("boss")));
        assert_eq!(decided.data.unwrap()["note"], "no");
        for wrong in [
            "",
            "{",
            "[]",
            "{}",
            "{\"status\": \"maybe\"}",
            "{\"status\": 1}",
            "{\"status\": \"approved\", \"resolved_by\": 5}",
            "{\"status\": \"approved\", \"resolution_data\": []}",
        ] {
            assert!(matches!(read(wrong.as_bytes()), Err(ApiError::Invalid(_))), "{wrong}");
        }
    }
}
