//! `POST /agents/{agent_id}/runs/{run_id}/continue`.

use daybook_domain::command::{ContinueFrom, ContinueRun};
use daybook_domain::component::ComponentRef;
use daybook_domain::exact::inexact_number;
use daybook_domain::ids::{RunId, SessionId, UserId};
use daybook_domain::run::{Answer, RunMode};
use daybook_engine::ExecuteError;
use poem_openapi::param::Path;
use poem_openapi::{Object, OpenApi};
use serde_json::error::Category;
use serde_json::{Map, Value};

use super::answer::{Answered, Going, Started};
use crate::docs::Tag;
use crate::errors::ApiError;
use crate::forms::{Fields, Form};
use crate::guard::{AgentsRun, Guard};
use crate::state::AppState;
use crate::strict_json;
use crate::wire::stream::Events;

pub(super) struct ContinueAgentRun(pub AppState);

/// How a run goes on.
#[derive(Debug, Object)]
pub(super) struct ContinueForm {
    /// The tool calls a paused run told of, with the answers (JSON list): `confirmed` and `confirmation_note`, values in
    /// `user_input_schema`, `selected_options` in `user_feedback_schema`, or `result`. Each may be answered alone.
    #[oai(default)]
    pub tools: String,
    /// What is said next, where an ended run is gone on from.
    pub input: Option<String>,
    /// Up to where an ended run's messages are taken over: `end`, `last_user`, or how many.
    #[oai(default = "end")]
    pub continue_from: String,
    /// Whether a new run goes on in any case.
    #[oai(default)]
    pub fork: bool,
    /// Whether the last answer is given anew, in a new run.
    #[oai(default)]
    pub regenerate: bool,
    /// With `regenerate`: whether the new answer takes the old one's place in the conversation; true unless said.
    pub replace_original: Option<bool>,
    /// With `regenerate`: what the new answer should heed.
    pub additional_instructions: Option<String>,
    /// The run's session.
    pub session_id: Option<String>,
    /// Whom the run is for.
    pub user_id: Option<String>,
    /// Whether the answer comes in pieces, as events.
    #[oai(default = "yes")]
    pub stream: bool,
    /// Whether the run goes on without the caller.
    #[oai(default)]
    pub background: bool,
}

/// The fields that are read.
const FIELDS: [&str; 11] = [
    "tools",
    "input",
    "continue_from",
    "fork",
    "regenerate",
    "replace_original",
    "additional_instructions",
    "session_id",
    "user_id",
    "stream",
    "background",
];

fn end() -> String {
    "end".to_owned()
}

fn yes() -> bool {
    true
}

#[OpenApi]
impl ContinueAgentRun {
    /// Continue a run of an agent
    ///
    /// Answers what a paused run asks; once everything is answered, it goes on. An ended run is gone on from in a new
    /// one. Answers that match nothing, are incomplete or of the wrong type are refused and change nothing.
    #[oai(
        path = "/agents/:agent_id/runs/:run_id/continue",
        method = "post",
        tag = "Tag::Agents",
        operation_id = "continue_agent_run",
        request_header(
            name = "Idempotency-Key",
            ty = "String",
            description = "The same key with the same fields is executed once; with others it is a 409."
        )
    )]
    async fn go_on(
        &self,
        guard: Guard<AgentsRun>,
        /// The agent.
        agent_id: Path<String>,
        /// The run.
        run_id: Path<String>,
        form: Form<ContinueForm>,
    ) -> Result<Started, ApiError> {
        let fields = form.0;
        fields.once(&FIELDS)?;
        let tools = tools(&fields)?;
        let agent = self.0.known_agent(&agent_id)?.config.id.clone();
        let (stream, background) = (fields.boolean("stream", true)?, fields.boolean("background", false)?);
        let run = super::run_id(&run_id)?;
        let command = read(&fields, ComponentRef::agent(agent), run.clone(), answers(tools)?, stream, background)?;
        match self.0.engine.execute(guard.envelope(command)).await {
            Ok(outcome) => {
                let going = Going::of(outcome).ok_or_else(super::run_not_found)?;
                going.answer(&self.0, stream, background, false).await
            }
            // Who asks for a stream is told in the stream.
            Err(error @ ExecuteError::UnknownRun(_)) if stream => {
                Ok(Started::Answered(Answered::Pieces(Events::failed(&error.to_string()))))
            }
            Err(error) => Err(error.into()),
        }
    }
}

fn read(
    fields: &Fields,
    component: ComponentRef,
    run_id: RunId,
    answers: Vec<Answer>,
    stream: bool,
    background: bool,
) -> Result<ContinueRun, ApiError> {
    let session_id: Option<SessionId> = fields.id("session_id")?;
    let session_id = session_id.ok_or_else(|| no_session(fields))?;
    // Whom a run is for was said when it was started.
    let _: Option<UserId> = fields.id("user_id")?;
    let regenerate = fields.boolean("regenerate", false)?;
    let text = |name| fields.text(name).map(str::to_owned);
    let additional = text("additional_instructions");
    if !regenerate && (additional.is_some() || fields.text("replace_original").is_some()) {
        return Err(ApiError::bad("replace_original and additional_instructions are only valid with regenerate=true"));
    }
    Ok(ContinueRun {
        component,
        run_id,
        session_id,
        answers,
        input: additional.or(text("input")),
        from: continue_from(fields)?,
        fork: fields.boolean("fork", false)?,
        regenerate,
        replace_original: fields.boolean("replace_original", true)?,
        mode: match (background, stream) {
            (false, false) => RunMode::Plain,
            (false, true) => RunMode::Streaming,
            (true, false) => RunMode::Background,
            (true, true) => RunMode::BackgroundStreaming,
        },
    })
}

fn no_session(fields: &Fields) -> ApiError {
    let why = "session_id is required for this action";
    let Some(kind) = fields.no_form() else { return ApiError::bad(why) };
    let kind: String = kind.chars().take(100).collect();
    ApiError::bad(format!(
        "{why}: send the fields as a form (multipart/form-data or application/x-www-form-urlencoded), not as {kind}"
    ))
}

fn continue_from(fields: &Fields) -> Result<ContinueFrom, ApiError> {
    match fields.text("continue_from").map(str::trim) {
        None | Some("" | "end") => Ok(ContinueFrom::End),
        Some("last_user") => Ok(ContinueFrom::LastUser),
        Some(number) => number
            .parse()
            .map(ContinueFrom::Message)
            .map_err(|_| ApiError::bad("Invalid continue_from. Use 'end', 'last_user', or a numeric message index.")),
    }
}

fn tools(fields: &Fields) -> Result<Value, ApiError> {
    let Some(text) = fields.text("tools") else { return Ok(Value::Null) };
    if let Some(number) = inexact_number(text) {
        let number: String = number.chars().take(40).collect();
        let why = "cannot be kept exactly: give it as a text, or with fewer digits";
        return Err(ApiError::bad(format!("Invalid structure or content for tools: the number {number} {why}")));
    }
    strict_json::parse(text).map_err(|error| match error.classify() {
        Category::Data => ApiError::bad(format!("Invalid JSON in tools field: {error}")),
        _ => ApiError::bad("Invalid JSON in tools field"),
    })
}

/// The answers in a list of tool calls.
fn answers(tools: Value) -> Result<Vec<Answer>, ApiError> {
    let invalid = |what: &str| ApiError::bad(format!("Invalid structure or content for tools: {what}"));
    let list = match tools {
        Value::Null => return Ok(Vec::new()),
        Value::Array(list) => list,
        // The words clients know.
        Value::Object(_) => return Err(invalid("'str' object has no attribute 'get'")),
        _ => return Err(invalid("expected a JSON list of tool calls")),
    };
    list.into_iter()
        .map(|tool| match tool {
            Value::Object(tool) => answer(&tool).map_err(|what| invalid(&what)),
            _ => Err(invalid("each tool call is a JSON object")),
        })
        .collect()
}

fn answer(tool: &Map<String, Value>) -> Result<Answer, String> {
    let text = |name: &str| match tool.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(_) => Err(format!("{name} must be a text")),
    };
    let confirmed = match tool.get("confirmed") {
        None | Some(Value::Null) => None,
        Some(Value::Bool(yes)) => Some(*yes),
        Some(_) => return Err("confirmed must be true or false".to_owned()),
    };
    let arguments = match tool.get("tool_args") {
        None | Some(Value::Null) => None,
        Some(Value::Object(arguments)) => Some(arguments.clone()),
        Some(_) => return Err("tool_args must be a JSON object".to_owned()),
    };
    let result = match tool.get("result") {
        None | Some(Value::Null) => None,
        Some(Value::String(text)) => Some(text.clone()),
        Some(other) => Some(other.to_string()),
    };
    Ok(Answer {
        call_id: text("tool_call_id")?.ok_or_else(|| "tool_call_id is missing".to_owned())?,
        tool: text("tool_name")?,
        arguments,
        confirmed,
        note: text("confirmation_note")?,
        values: by_name(tool, "user_input_schema", "name", "value")?,
        choices: by_name(tool, "user_feedback_schema", "question", "selected_options")?,
        result,
    })
}

/// A list of objects as a map from one member to another.
fn by_name(
    tool: &Map<String, Value>,
    list: &str,
    name: &str,
    value: &str,
) -> Result<Option<Map<String, Value>>, String> {
    let items = match tool.get(list) {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::Array(items)) => items,
        Some(_) => return Err(format!("{list} must be a list")),
    };
    let pair = |item: &Value| {
        let key = item.get(name).and_then(Value::as_str).ok_or_else(|| format!("each item of {list} has a {name}"))?;
        Ok::<_, String>((key.to_owned(), item.get(value).cloned().unwrap_or_default()))
    };
    let mut map = Map::new();
    for item in items {
        let (key, value) = pair(item)?;
        if map.contains_key(&key) {
            return Err(format!("{list} has the {name} {key:?} twice"));
        }
        map.insert(key, value);
    }
    Ok(Some(map))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn answers_are_read_from_tool_calls() {
        let tools = json!([{"tool_call_id": "c", "tool_name": "t", "tool_args": {"a": 1}, "confirmed": false,
            "confirmation_note": "no", "result": {"x": 1}, "user_input_schema": [{"name": "to", "value": "bob"}],
            "user_feedback_schema": [{"question": "Where?", "selected_options": ["Oslo"]}]}]);
        let read = answers(tools).unwrap();
        let expected = Answer {
            call_id: "c".to_owned(),
            tool: Some("t".to_owned()),
            arguments: json!({"a": 1}).as_object().cloned(),
            confirmed: Some(false),
            note: Some("no".to_owned()),
            values: json!({"to": "bob"}).as_object().cloned(),
            choices: json!({"Where?": ["Oslo"]}).as_object().cloned(),
            result: Some("{\"x\":1}".to_owned()),
        };
        assert_eq!(read, [expected]);
    }

    #[test]
    fn what_is_no_tool_call_is_refused() {
        for wrong in [
            json!({"a": 1}),
            json!("x"),
            json!([1]),
            json!([{}]),
            json!([{"tool_call_id": 5}]),
            json!([{"tool_call_id": "c", "confirmed": "yes"}]),
            json!([{"tool_call_id": "c", "tool_args": []}]),
            json!([{"tool_call_id": "c", "user_input_schema": {}}]),
            json!([{"tool_call_id": "c", "user_input_schema": [{"value": 1}]}]),
            json!([{"tool_call_id": "c", "user_input_schema": [{"name": "a", "value": 1}, {"name": "a", "value": 1}]}]),
            json!([{"tool_call_id": "c", "user_feedback_schema": [{"question": "a"}, {"question": "a"}]}]),
        ] {
            assert!(matches!(answers(wrong.clone()), Err(ApiError::Bad(_))), "{wrong}");
        }
    }
}
