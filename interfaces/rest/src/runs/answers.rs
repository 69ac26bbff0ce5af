//! The answers that clients give to what a paused run asks: in the tool calls themselves, as agents' clients send them, or
//! in the requirements, as teams' clients do.

use daybook_domain::exact::inexact_number;
use daybook_domain::ids::RunId;
use daybook_domain::run::Answer;
use serde_json::error::Category;
use serde_json::{Map, Value};

use crate::errors::ApiError;
use crate::forms::Fields;
use crate::strict_json;

/// A field that holds answers.
#[derive(Clone, Copy)]
pub(super) struct Field(pub &'static str);

impl Field {
    /// What the field holds cannot be read.
    pub fn invalid(self, what: &str) -> ApiError {
        ApiError::bad(format!("Invalid structure or content for {}: {what}", self.0))
    }

    /// The objects in the field's list; none when it is absent.
    ///
    /// # Errors
    /// 400 for what is no JSON, or no list of objects.
    pub fn objects(self, fields: &Fields) -> Result<Vec<Map<String, Value>>, ApiError> {
        let object = |item| match item {
            Value::Object(object) => Ok(object),
            _ => Err(self.invalid("each item is a JSON object")),
        };
        match self.json(fields)? {
            Value::Null => Ok(Vec::new()),
            Value::Array(items) => items.into_iter().map(object).collect(),
            // The words clients know.
            Value::Object(_) => Err(self.invalid("'str' object has no attribute 'get'")),
            _ => Err(self.invalid("expected a JSON list")),
        }
    }

    fn json(self, fields: &Fields) -> Result<Value, ApiError> {
        let Some(text) = fields.text(self.0) else { return Ok(Value::Null) };
        if let Some(number) = inexact_number(text) {
            let number: String = number.chars().take(40).collect();
            let why = "cannot be kept exactly: give it as a text, or with fewer digits";
            return Err(self.invalid(&format!("the number {number} {why}")));
        }
        strict_json::parse(text).map_err(|error| match error.classify() {
            Category::Data => ApiError::bad(format!("Invalid JSON in {} field: {error}", self.0)),
            _ => ApiError::bad(format!("Invalid JSON in {} field", self.0)),
        })
    }
}

/// The answers in `tools`, a list of tool calls.
///
/// # Errors
/// 400 for what is no JSON, or no list of tool calls.
pub(super) fn in_tools(fields: &Fields) -> Result<Vec<Answer>, ApiError> {
    let field = Field("tools");
    let objects = field.objects(fields)?;
    objects.iter().map(|tool| answer(tool).map_err(|what| field.invalid(&what))).collect()
}

/// The answers in `requirements`, a list of what a paused run asked.
///
/// # Errors
/// 400 for what is no JSON, or no list of requirements.
pub(super) fn in_requirements(fields: &Fields) -> Result<Vec<Answer>, ApiError> {
    let field = Field("requirements");
    let objects = field.objects(fields)?;
    objects.into_iter().map(|needed| required(needed).map_err(|what| field.invalid(&what))).collect()
}

/// The answer to one requirement: its call's, with what was said beside the call.
pub(super) fn required(mut needed: Map<String, Value>) -> Result<Answer, String> {
    let Some(Value::Object(mut tool)) = needed.remove("tool_execution") else {
        return Err("tool_execution is missing".to_owned());
    };
    let beside = [
        ("confirmation", "confirmed"),
        ("confirmation_note", "confirmation_note"),
        ("external_execution_result", "result"),
    ];
    for (name, of_call) in beside {
        let Some(said) = needed.remove(name).filter(|said| !said.is_null()) else { continue };
        match tool.get(of_call).filter(|known| !known.is_null()) {
            Some(known) if *known != said => return Err(format!("{name} and tool_execution.{of_call} differ")),
            _ => drop(tool.insert(of_call.to_owned(), said)),
        }
    }
    for list in ["user_input_schema", "user_feedback_schema"] {
        if let Some(said) = needed.remove(list).filter(|said| !said.is_null()) {
            tool.insert(list.to_owned(), said);
        }
    }
    // The run that asks, where it is not the one that is continued.
    Ok(Answer { run: run_of(&needed, "member_run_id")?, ..answer(&tool)? })
}

/// The run that `needed` names, if it does.
pub(super) fn run_of(needed: &Map<String, Value>, name: &str) -> Result<Option<RunId>, String> {
    match needed.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(run)) => RunId::parse(run).map(Some).map_err(|error| format!("{name}: {error}")),
        Some(_) => Err(format!("{name} must be a text")),
    }
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
        run: None,
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
pub(super) fn by_name(
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
    use crate::forms::tests::urlencoded;

    async fn fields(name: &str, value: &Value) -> Fields {
        urlencoded(&[(name, &value.to_string())]).await
    }

    fn is_refused(read: Result<Vec<Answer>, ApiError>) -> bool {
        matches!(read, Err(ApiError::Bad(_)))
    }

    #[tokio::test]
    async fn answers_are_read_from_tool_calls() {
        let tools = json!([{"tool_call_id": "c", "tool_name": "t", "tool_args": {"a": 1}, "confirmed": false,
            "confirmation_note": "no", "result": {"x": 1}, "user_input_schema": [{"name": "to", "value": "bob"}],
            "user_feedback_schema": [{"question": "Where?", "selected_options": ["Oslo"]}]}]);
        let read = in_tools(&fields("tools", &tools).await).unwrap();
        let expected = Answer {
            run: None,
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

    #[tokio::test]
    async fn what_is_no_tool_call_is_refused() {
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
            assert!(is_refused(in_tools(&fields("tools", &wrong).await)), "{wrong}");
        }
    }

    #[tokio::test]
    async fn answers_are_read_from_requirements_and_their_calls() {
        let read = async |requirement: Value| in_requirements(&fields("requirements", &json!([requirement])).await);
        let call = json!({"tool_call_id": "c", "confirmed": null, "confirmation_note": null, "result": null});
        let said =
            read(json!({"confirmation": false, "confirmation_note": "no", "tool_execution": call})).await.unwrap();
        assert_eq!(
            (said[0].call_id.as_str(), said[0].confirmed, said[0].note.as_deref()),
            ("c", Some(false), Some("no"))
        );
        let said = read(json!({"tool_execution": {"tool_call_id": "c", "confirmed": true}})).await.unwrap();
        assert_eq!(said[0].confirmed, Some(true));
        let of_member = json!({"member_run_id": "m1", "tool_execution": {"tool_call_id": "c", "confirmed": true}});
        assert_eq!(read(of_member).await.unwrap()[0].run, RunId::parse("m1").ok());
        let said = read(json!({"external_execution_result": "done", "tool_execution": call})).await.unwrap();
        assert_eq!(said[0].result.as_deref(), Some("done"));
        let filled = json!([{"name": "to", "value": "bob"}]);
        let said = read(json!({"user_input_schema": filled, "tool_execution": call})).await.unwrap();
        assert_eq!(said[0].values, json!({"to": "bob"}).as_object().cloned());
        let contrary = json!({"confirmation": true, "tool_execution": {"tool_call_id": "c", "confirmed": false}});
        let nobody = json!({"member_run_id": 7, "tool_execution": {"tool_call_id": "c", "confirmed": true}});
        for wrong in [json!({}), json!({"tool_execution": 1}), json!(1), contrary, nobody] {
            assert!(is_refused(read(wrong.clone()).await), "{wrong}");
        }
        assert!(is_refused(in_requirements(&urlencoded(&[("requirements", "{nope")]).await)));
    }
}
