//! What a run is asked for with: the form's fields and what they mean.

use std::str::FromStr;

use daybook_domain::command::StartRun;
use daybook_domain::component::ComponentRef;
use daybook_domain::ids::{RunId, SessionId, UserId};
use daybook_domain::media::{Media, MediaKind};
use daybook_domain::output::OutputSchema;
use daybook_domain::run::{OnBusy, RunMode};
use poem_openapi::Object;
use serde_json::{Map, Value};

use super::media;
use crate::errors::{ApiError, At};
use crate::forms::Fields;

/// The fields of a run. JSON fields are objects or lists as text. Unknown fields are accepted.
#[derive(Debug, Object)]
pub(super) struct CreateRunForm {
    /// What is said.
    pub message: String,
    /// Whether the answer comes in pieces, as events.
    #[oai(default = "yes")]
    pub stream: bool,
    /// Whether a stream holds all events, or only pieces of text and errors.
    #[oai(default = "yes")]
    pub stream_events: bool,
    /// The conversation; a new one when absent.
    pub session_id: Option<String>,
    /// Whom the run is for.
    pub user_id: Option<String>,
    /// The run's id; a new one when absent.
    pub run_id: Option<String>,
    /// Whether the run goes on without the caller.
    #[oai(default)]
    pub background: bool,
    /// The component's version; kept with the run where the component has none.
    pub version: Option<i64>,
    /// What a component's factory is given (JSON). Components of this server have none.
    pub factory_input: Option<String>,
    /// Accepted, because clients of teams send it; it changes nothing.
    #[oai(default = "yes")]
    pub monitor: bool,
    /// Images, audio, videos and documents.
    pub files: Option<Vec<FilePart>>,
    /// What is kept with the files (JSON list, by position).
    pub files_metadata: Option<String>,
    /// Merged into the session's state before the run (JSON object).
    pub session_state: Option<String>,
    /// For the tools of this run (JSON object).
    pub dependencies: Option<String>,
    /// Kept with the run (JSON object).
    pub metadata: Option<String>,
    /// Narrows what is looked up (JSON object or list).
    pub knowledge_filters: Option<String>,
    /// The shape of the answer (JSON Schema of an object), instead of the agent's or team's own. The run's content is then an object.
    /// Workflows have none.
    pub output_schema: Option<String>,
    /// Whether the content's type is `dict` instead of the schema's title; then the schema may also be wrapped as
    /// providers take it, `{"type": "json_schema", "json_schema": {"schema": ...}}`.
    #[oai(default)]
    pub use_json_schema: bool,
    /// Images (JSON list of `{url | content, mime_type, format, id}`).
    pub images: Option<String>,
    /// Audio, likewise.
    pub audio: Option<String>,
    /// Videos, likewise.
    pub videos: Option<String>,
    /// Documents, likewise, with `filename`.
    pub input_files: Option<String>,
    /// What to do when the session is busy: `enqueue` (the default), `reject`, `interrupt` or `parallel`.
    pub on_busy: Option<String>,
    /// What to do when the client goes away: `continue` (the default) or `cancel`.
    pub on_disconnect: Option<String>,
}

/// Bytes of a file, for the documentation.
#[derive(Debug, poem_openapi::NewType)]
#[oai(to_header = false, from_parameter = false, from_multipart = false)]
pub(super) struct FilePart(String);

fn yes() -> bool {
    true
}

/// What a run is asked for with.
pub(crate) struct RunRequest {
    /// Whether the answer comes in pieces.
    pub stream: bool,
    /// Whether only pieces of text and errors are wanted.
    pub only_content: bool,
    /// Whether the run goes on without its caller.
    pub background: bool,
    /// Whether the run is cancelled when its client goes away.
    pub cancel_on_disconnect: bool,
    message: String,
    run_id: Option<RunId>,
    session_id: Option<SessionId>,
    user_id: Option<UserId>,
    on_busy: OnBusy,
    media: Vec<Media>,
    session_state: Option<Map<String, Value>>,
    dependencies: Option<Map<String, Value>>,
    metadata: Option<Map<String, Value>>,
    output_schema: Option<OutputSchema>,
}

impl RunRequest {
    /// Reads the fields.
    ///
    /// # Errors
    /// 422 or 400 for the first field that is wrong.
    pub fn read(mut form: Fields) -> Result<Self, ApiError> {
        let message = form.take("message").ok_or_else(|| At("body", "message").missing())?;
        Self::saying(message, form)
    }

    /// Reads all other fields of a run that says `message`, which may be empty.
    ///
    /// # Errors
    /// As [`RunRequest::read`].
    pub fn saying(message: String, mut form: Fields) -> Result<Self, ApiError> {
        let stream = form.boolean("stream", true)?;
        let background = form.boolean("background", false)?;
        let version = form.int("version")?;
        let (session_id, user_id, run_id) = (form.id("session_id")?, form.id("user_id")?, form.id("run_id")?);
        refuse_unsupported(&form)?;
        Ok(Self {
            message,
            stream,
            background,
            only_content: !form.boolean("stream_events", true)?,
            cancel_on_disconnect: on_disconnect(&form)?,
            run_id,
            session_id,
            user_id,
            on_busy: on_busy(&form)?,
            session_state: form.object("session_state")?,
            dependencies: form.object("dependencies")?,
            metadata: metadata(&form, version)?,
            output_schema: output_schema(&form)?,
            media: all_media(&mut form)?,
        })
    }

    /// The command that starts the run of `component`.
    pub fn into_command(self, component: ComponentRef) -> StartRun {
        let mode = match (self.background, self.stream) {
            (false, false) => RunMode::Plain,
            (false, true) => RunMode::Streaming,
            (true, false) => RunMode::Background,
            (true, true) => RunMode::BackgroundStreaming,
        };
        StartRun {
            component,
            run_id: self.run_id,
            session_id: self.session_id,
            user_id: self.user_id,
            message: self.message,
            media: self.media,
            mode,
            on_busy: self.on_busy,
            cancel_on_disconnect: self.cancel_on_disconnect,
            session_state: self.session_state,
            dependencies: self.dependencies,
            metadata: self.metadata,
            output_schema: self.output_schema,
            forked: None,
            base: None,
            replaces: false,
        }
    }
}

/// Refuses what would change the answer and is not there yet, and checks what changes nothing.
fn refuse_unsupported(form: &Fields) -> Result<(), ApiError> {
    // No component looks anything up yet, so there is nothing to narrow; a filter that is none is still told.
    if form.json("knowledge_filters")?.is_some_and(|filter| !filter.is_object() && !filter.is_array()) {
        return Err(At("body", "knowledge_filters").wrong("expected a JSON object or list", Value::Null));
    }
    form.json("factory_input").map(drop)
}

/// The shape of the answer. Raw ones may also be wrapped as providers take them, and have no name of their own.
fn output_schema(form: &Fields) -> Result<Option<OutputSchema>, ApiError> {
    let wrong = |fault: &str| ApiError::unprocessable(format!("Invalid output_schema: {fault}"));
    let raw = form.boolean("use_json_schema", false)?;
    let Some(given) = form.json("output_schema")? else { return Ok(None) };
    let Value::Object(mut given) = given else { return Err(wrong("expected a JSON object schema")) };
    let mut strict = true;
    match given.get("type").and_then(Value::as_str) {
        Some("json_object") if raw => {
            given = Map::from_iter([
                ("type".to_owned(), "object".into()),
                ("additionalProperties".to_owned(), true.into()),
            ]);
        }
        Some("json_schema") if raw => {
            strict =
                given.get("json_schema").and_then(|inner| inner.get("strict")).and_then(Value::as_bool).unwrap_or(true);
            let schema =
                given.get("json_schema").and_then(|inner| inner.get("schema")).and_then(Value::as_object).cloned();
            given = schema.ok_or_else(|| wrong("json_schema.schema must be an object"))?;
        }
        _ => {}
    }
    let mut shape = OutputSchema::new(given, strict).map_err(|fault| wrong(&fault))?;
    if raw {
        shape.name = "dict".to_owned();
    }
    Ok(Some(shape))
}

fn on_busy(form: &Fields) -> Result<OnBusy, ApiError> {
    let Some(text) = form.text("on_busy") else { return Ok(OnBusy::default()) };
    let expected = "'enqueue', 'reject', 'interrupt' or 'parallel'";
    OnBusy::from_str(text).map_err(|_| At("body", "on_busy").no_word(text, expected))
}

fn on_disconnect(form: &Fields) -> Result<bool, ApiError> {
    match form.text("on_disconnect") {
        None | Some("continue") => Ok(false),
        Some("cancel") => Ok(true),
        Some(other) => Err(At("body", "on_disconnect").no_word(other, "'continue' or 'cancel'")),
    }
}

/// What the caller keeps with the run. Components of this server have no versions, so the one asked for is only kept.
fn metadata(form: &Fields, version: Option<i64>) -> Result<Option<Map<String, Value>>, ApiError> {
    let given = form.object("metadata")?;
    let Some(version) = version else { return Ok(given) };
    let mut metadata = given.unwrap_or_default();
    metadata.insert("agno_component_version".to_owned(), version.into());
    Ok(Some(metadata))
}

fn all_media(form: &mut Fields) -> Result<Vec<Media>, ApiError> {
    let mut all = media::uploaded(std::mem::take(&mut form.files), form.list("files_metadata")?)?;
    let lists = [
        ("images", MediaKind::Image),
        ("audio", MediaKind::Audio),
        ("videos", MediaKind::Video),
        ("input_files", MediaKind::File),
    ];
    for (field, kind) in lists {
        for given in form.list(field)? {
            all.push(media::given(field, kind, given)?);
        }
    }
    if all.len() > media::MAX_MEDIA {
        let why = format!("Too many media. Maximum number of media is {}.", media::MAX_MEDIA);
        return Err(ApiError::bad(why));
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use daybook_domain::ids::ComponentId;
    use poem::IntoResponse;
    use serde_json::json;

    use super::*;
    use crate::forms::tests::urlencoded;

    async fn read(fields: &[(&str, &str)]) -> Result<RunRequest, ApiError> {
        RunRequest::read(urlencoded(fields).await)
    }

    async fn refusal(fields: &[(&str, &str)]) -> (u16, Value) {
        let response = read(fields).await.err().unwrap().into_response();
        (response.status().as_u16(), response.into_body().into_json().await.unwrap())
    }

    const HELLO: (&str, &str) = ("message", "Hello");

    fn guide() -> ComponentRef {
        ComponentRef::agent(ComponentId::parse("a").unwrap())
    }

    #[tokio::test]
    async fn a_bare_message_is_streamed() {
        let request = read(&[HELLO, ("zzz", "unknown extra")]).await.unwrap();
        assert!(request.stream && !request.background && !request.only_content && !request.cancel_on_disconnect);
        let command = request.into_command(guide());
        assert_eq!((command.message.as_str(), command.mode), ("Hello", RunMode::Streaming));
        assert_eq!((command.on_busy, command.metadata), (OnBusy::Enqueue, None));
    }

    #[tokio::test]
    async fn every_field_reaches_the_command() {
        let fields = [
            HELLO,
            ("stream", "false"),
            ("background", "on"),
            ("session_id", "s"),
            ("user_id", "u"),
            ("run_id", "r"),
            ("session_state", "{\"a\":1}"),
            ("dependencies", "{\"d\":2}"),
            ("metadata", "{\"m\":3}"),
            ("version", "7"),
            ("on_busy", "reject"),
            ("on_disconnect", "cancel"),
        ];
        let command = read(&fields).await.unwrap().into_command(guide());
        assert_eq!(command.mode, RunMode::Background);
        assert_eq!(command.session_id, SessionId::parse("s").ok());
        assert_eq!(command.user_id, UserId::parse("u").ok());
        assert_eq!(command.run_id, RunId::parse("r").ok());
        assert_eq!(Value::from(command.session_state), json!({"a": 1}));
        assert_eq!(Value::from(command.dependencies), json!({"d": 2}));
        assert_eq!(Value::from(command.metadata), json!({"m": 3, "agno_component_version": 7}));
        assert_eq!(command.on_busy, OnBusy::Reject);
        assert!(command.cancel_on_disconnect);
    }

    #[tokio::test]
    async fn wrong_fields_are_named_as_recorded() {
        let missing = json!([{"type": "missing", "loc": ["body", "message"], "msg": "Field required", "input": null}]);
        assert_eq!(refusal(&[("stream", "false")]).await, (422, json!({"detail": missing.clone()})));
        assert_eq!(refusal(&[("message", "")]).await, (422, json!({"detail": missing})));
        let (status, body) = refusal(&[HELLO, ("version", "abc")]).await;
        let msg = "Input should be a valid integer, unable to parse string as an integer";
        let expected = json!([{"type": "int_parsing", "loc": ["body", "version"], "msg": msg, "input": "abc"}]);
        assert_eq!((status, body), (422, json!({"detail": expected})));
        let expected = json!({"detail": "Invalid metadata parameter: expected a JSON object"});
        assert_eq!(refusal(&[HELLO, ("metadata", "[1]")]).await, (400, expected));
        let expected = json!({"detail": "Invalid output_schema: expected a JSON object schema"});
        assert_eq!(refusal(&[HELLO, ("output_schema", "[1]")]).await, (422, expected));
    }

    #[tokio::test]
    async fn the_shape_of_the_answer_is_read_plain_and_raw() {
        let shape = async |schema: &str, raw: &str| {
            let fields = [HELLO, ("output_schema", schema), ("use_json_schema", raw)];
            let shape = read(&fields).await.unwrap().output_schema.unwrap();
            (shape.name, Value::Object(shape.schema), shape.strict)
        };
        let plain = "{\"type\": \"object\", \"title\": \"Out\"}";
        let object = json!({"type": "object", "title": "Out"});
        assert_eq!(shape(plain, "false").await, ("Out".to_owned(), object.clone(), true));
        assert_eq!(shape(plain, "true").await, ("dict".to_owned(), object.clone(), true));
        let wrapped = json!({"type": "json_schema", "json_schema": {"name": "x", "strict": false, "schema": object}});
        assert_eq!(shape(&wrapped.to_string(), "true").await, ("dict".to_owned(), object, false));
        let any = json!({"type": "object", "additionalProperties": true});
        assert_eq!(shape("{\"type\": \"json_object\"}", "true").await, ("dict".to_owned(), any, true));
        let bare = [HELLO, ("output_schema", "{\"type\": \"json_schema\"}"), ("use_json_schema", "true")];
        let expected = json!({"detail": "Invalid output_schema: json_schema.schema must be an object"});
        assert_eq!(refusal(&bare).await, (422, expected));
        assert!(read(&[HELLO]).await.unwrap().output_schema.is_none());
    }

    #[tokio::test]
    async fn what_cannot_be_done_is_said() {
        for field in ["metadata", "files_metadata", "images", "knowledge_filters", "session_state"] {
            let (status, body) = refusal(&[HELLO, (field, "nope")]).await;
            assert_eq!((status, &body["detail"][0]["loc"]), (422, &json!(["body", field])));
        }
        for (field, value) in [("on_busy", "zzz"), ("on_disconnect", "zzz"), ("run_id", "a\u{0}"), ("images", "{}")] {
            assert_eq!(refusal(&[HELLO, (field, value)]).await.0, 422, "{field}");
        }
        for (schema, fault) in
            [("{}", "root must declare"), ("{\"type\": \"object\", \"properties\": 5}", "properties")]
        {
            let (status, body) = refusal(&[HELLO, ("output_schema", schema)]).await;
            assert!(status == 422 && body["detail"].as_str().unwrap().contains(fault), "{body}");
        }
    }
}
