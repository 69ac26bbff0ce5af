//! What a session is created with: documented by a type, read by us, so that errors name fields as clients expect.

use daybook_domain::command::CreateSession;
use daybook_domain::component::{ComponentKind, ComponentRef};
use daybook_domain::ids::{ComponentId, IdError};
use poem::{Request, RequestBody};
use poem_openapi::registry::{MetaMediaType, MetaRequest, Registry};
use poem_openapi::types::Type;
use poem_openapi::{ApiExtractor, ApiExtractorType, ExtractParamOptions, Object};
use serde_json::{Map, Value, json};

use crate::errors::{ApiError, At, InvalidRequest};
use crate::params;

/// The most bytes of a body.
const MAX_BODY: usize = 1 << 20;

/// The longest name, in characters.
const MAX_NAME: usize = 1000;

/// The members that name a component, and its kind.
const COMPONENTS: [(&str, ComponentKind); 3] =
    [("agent_id", ComponentKind::Agent), ("team_id", ComponentKind::Team), ("workflow_id", ComponentKind::Workflow)];

/// What a session is created with. Members that are null or empty count as absent; unknown ones are accepted.
#[derive(Debug, Object)]
#[oai(rename = "CreateSessionRequest")]
pub(super) struct CreateSessionRequest {
    /// Its id; a new one when absent.
    session_id: Option<String>,
    /// Its name, of at most 1000 characters. One without is shown under its first message.
    #[oai(validator(max_length = 1000))]
    session_name: Option<String>,
    /// What its state begins with (a JSON object). What the component starts sessions with comes in beside it.
    session_state: Option<Value>,
    /// Kept with it (a JSON object).
    metadata: Option<Value>,
    /// Whom it belongs to; to anybody when absent.
    user_id: Option<String>,
    /// The agent it is with, where `type` is `agent`. May be absent: it is then with no agent in particular.
    agent_id: Option<String>,
    /// The team it is with; must be there where `type` is `team`.
    team_id: Option<String>,
    /// The workflow it is with; must be there where `type` is `workflow`.
    workflow_id: Option<String>,
}

/// A body as it was sent.
#[derive(Debug)]
pub(super) struct Wanted(Map<String, Value>);

impl<'a> ApiExtractor<'a> for Wanted {
    const TYPES: &'static [ApiExtractorType] = &[ApiExtractorType::RequestObject];
    type ParamType = ();
    type ParamRawType = ();

    fn register(registry: &mut Registry) {
        CreateSessionRequest::register(registry);
    }

    fn request_meta() -> Option<MetaRequest> {
        let content = MetaMediaType { content_type: "application/json", schema: CreateSessionRequest::schema_ref() };
        Some(MetaRequest { description: None, content: vec![content], required: false })
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
        Ok(Self::read(&bytes)?)
    }
}

impl Wanted {
    /// Reads a body; none at all wants nothing in particular.
    fn read(bytes: &[u8]) -> Result<Self, ApiError> {
        if bytes.is_empty() {
            return Ok(Self(Map::new()));
        }
        let start = || String::from_utf8_lossy(&bytes[..bytes.len().min(400)]).into_owned();
        let no_json = |error| At("body", "session_id").no_json(&start(), &error);
        match serde_json::from_slice(bytes).map_err(no_json)? {
            Value::Object(members) => Ok(Self(members)),
            other => Err(no_object(other)),
        }
    }

    /// The command that creates a session of this kind.
    ///
    /// # Errors
    /// 422 for the first member that is wrong.
    pub fn into_command(mut self, kind: ComponentKind) -> Result<CreateSession, ApiError> {
        Ok(CreateSession {
            component: self.component(kind)?,
            session_id: self.id("session_id")?,
            user_id: self.id("user_id")?,
            name: self.name()?,
            state: self.object("session_state")?.unwrap_or_default(),
            metadata: self.object("metadata")?,
        })
    }

    /// The component that a session of this kind is with.
    fn component(&mut self, kind: ComponentKind) -> Result<Option<ComponentRef>, ApiError> {
        let mut component = None;
        for (member, of) in COMPONENTS {
            let Some(id) = self.id::<ComponentId>(member)? else { continue };
            if of != kind {
                let msg = format!("a session of type {} has no {member}: say type={}", kind.as_str(), of.as_str());
                return Err(At("body", member).wrong(msg, Value::String(id.to_string())));
            }
            component = Some(ComponentRef { kind, id });
        }
        match (kind, component) {
            // The kind is known by the component only; a session with none is shown as an agent's.
            (ComponentKind::Team, None) => Err(At("body", "team_id").missing()),
            (ComponentKind::Workflow, None) => Err(At("body", "workflow_id").missing()),
            (_, component) => Ok(component),
        }
    }

    fn id<T: TryFrom<String, Error = IdError>>(&mut self, member: &str) -> Result<Option<T>, ApiError> {
        self.text(member)?.map(|text| params::id(At("body", member), &text)).transpose()
    }

    fn name(&mut self) -> Result<Option<String>, ApiError> {
        let name = self.text("session_name")?;
        if name.as_ref().is_some_and(|name| name.chars().count() > MAX_NAME) {
            let msg = format!("a session's name has at most {MAX_NAME} characters");
            return Err(At("body", "session_name").wrong(msg, Value::Null));
        }
        Ok(name)
    }

    fn text(&mut self, member: &str) -> Result<Option<String>, ApiError> {
        match self.0.remove(member) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text).filter(|text| !text.is_empty())),
            Some(_) => Err(At("body", member).wrong("expected a text", Value::Null)),
        }
    }

    fn object(&mut self, member: &str) -> Result<Option<Map<String, Value>>, ApiError> {
        match self.0.remove(member) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Object(object)) => Ok(Some(object)),
            Some(_) => Err(At("body", member).wrong("expected a JSON object", Value::Null)),
        }
    }
}

/// The body is JSON, but no object; told as recorded.
fn no_object(input: Value) -> ApiError {
    let msg = "Input should be a valid dictionary or object to extract fields from";
    let error = json!({"type": "model_attributes_type", "loc": ["body"], "msg": msg, "input": input});
    ApiError::Invalid(poem_openapi::payload::Json(InvalidRequest { detail: json!([error]) }))
}

#[cfg(test)]
mod tests {
    use poem::IntoResponse;

    use super::*;

    fn wanted(body: &str, kind: ComponentKind) -> Result<CreateSession, ApiError> {
        Wanted::read(body.as_bytes())?.into_command(kind)
    }

    #[test]
    fn what_a_session_is_created_with_is_read() {
        let body = r#"{"session_id": "s", "session_name": "Mine", "user_id": "u", "team_id": "t", "agent_id": null,
            "session_state": {"a": 1}, "metadata": {"m": 2}, "more": true}"#;
        let command = wanted(body, ComponentKind::Team).unwrap();
        assert_eq!(command.component.unwrap().to_string(), "team:t");
        assert_eq!((command.session_id.unwrap().as_str(), command.name.as_deref()), ("s", Some("Mine")));
        assert_eq!(command.user_id.unwrap().as_str(), "u");
        assert_eq!((&command.state["a"], &command.metadata.unwrap()["m"]), (&json!(1), &json!(2)));
        for little in ["", "{}", r#"{"session_id": "", "session_name": "", "agent_id": "", "session_state": null}"#] {
            let command = wanted(little, ComponentKind::Agent).unwrap();
            assert!(command.component.is_none() && command.session_id.is_none() && command.name.is_none(), "{little}");
            assert!(command.state.is_empty() && command.metadata.is_none(), "{little}");
        }
    }

    #[tokio::test]
    async fn what_is_wrong_is_named() {
        let long = json!({"session_name": "x".repeat(MAX_NAME + 1)}).to_string();
        let cases = [
            ("{", ComponentKind::Agent, "session_id"),
            (r#"{"session_id": 5}"#, ComponentKind::Agent, "session_id"),
            (r#"{"session_id": "a\u0000b"}"#, ComponentKind::Agent, "session_id"),
            (r#"{"user_id": []}"#, ComponentKind::Agent, "user_id"),
            (&long, ComponentKind::Agent, "session_name"),
            (r#"{"session_state": [1]}"#, ComponentKind::Agent, "session_state"),
            (r#"{"metadata": "m"}"#, ComponentKind::Agent, "metadata"),
            (r#"{"team_id": "t"}"#, ComponentKind::Agent, "team_id"),
            (r#"{"team_id": "t", "agent_id": "a"}"#, ComponentKind::Team, "agent_id"),
            ("{}", ComponentKind::Team, "team_id"),
            ("{}", ComponentKind::Workflow, "workflow_id"),
        ];
        for (body, kind, member) in cases {
            let response = wanted(body, kind).unwrap_err().into_response();
            assert_eq!(response.status(), 422, "{body}");
            let told: Value = response.into_body().into_json().await.unwrap();
            assert_eq!(told["detail"][0]["loc"], json!(["body", member]), "{body}: {told}");
        }
        let told: Value =
            wanted("[1]", ComponentKind::Agent).unwrap_err().into_response().into_body().into_json().await.unwrap();
        let msg = "Input should be a valid dictionary or object to extract fields from";
        let expected = json!({"type": "model_attributes_type", "loc": ["body"], "msg": msg, "input": [1]});
        assert_eq!(told, json!({"detail": [expected]}));
    }
}
