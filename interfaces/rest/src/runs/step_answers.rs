//! The answers that clients give to what a paused workflow asks about its steps, in the requirements it told of.

use daybook_domain::run::Answer;
use daybook_domain::workflow::StepAnswer;
use serde_json::{Map, Value};

use super::answers::{self, Field};
use crate::errors::ApiError;
use crate::forms::Fields;

/// Answers to what a paused run asks.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Answers {
    /// About calls, its own and those of runs under it.
    pub calls: Vec<Answer>,
    /// About the steps of a workflow.
    pub steps: Vec<StepAnswer>,
}

impl From<Vec<Answer>> for Answers {
    fn from(calls: Vec<Answer>) -> Self {
        Self { calls, steps: Vec::new() }
    }
}

/// The answers in `step_requirements`.
///
/// # Errors
/// 400 for what is no JSON, or no list of requirements.
pub(super) fn in_step_requirements(fields: &Fields) -> Result<Answers, ApiError> {
    let field = Field("step_requirements");
    let mut read = Answers::default();
    for needed in field.objects(fields)? {
        read.add(&needed).map_err(|what| field.invalid(&what))?;
    }
    Ok(read)
}

impl Answers {
    fn add(&mut self, needed: &Map<String, Value>) -> Result<(), String> {
        if needed.get("requires_executor_input") != Some(&Value::Bool(true)) {
            self.steps.push(step(needed)?);
            return Ok(());
        }
        self.calls.extend(executor(needed)?);
        // A workflow within the workflow asks about steps of its own.
        objects(needed, "executor_step_requirements")?.into_iter().try_for_each(|inner| self.add(inner))
    }
}

/// The answers to what the run of a step asks, and those under it.
fn executor(needed: &Map<String, Value>) -> Result<Vec<Answer>, String> {
    let child = answers::run_of(needed, "executor_run_id")?;
    let answer = |asked: &Map<String, Value>| {
        let answer = answers::required(asked.clone())?;
        Ok(Answer { run: answer.run.or_else(|| child.clone()), ..answer })
    };
    objects(needed, "executor_requirements")?.into_iter().map(answer).collect()
}

fn objects<'a>(needed: &'a Map<String, Value>, list: &str) -> Result<Vec<&'a Map<String, Value>>, String> {
    let object = |item: &'a Value| item.as_object().ok_or_else(|| format!("each item of {list} is a JSON object"));
    match needed.get(list) {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::Array(items)) => items.iter().map(object).collect(),
        Some(_) => Err(format!("{list} must be a list")),
    }
}

fn step(needed: &Map<String, Value>) -> Result<StepAnswer, String> {
    let some = |name: &str| needed.get(name).filter(|value| !value.is_null());
    let text = |name: &str| match some(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(_) => Err(format!("{name} must be a text")),
    };
    let confirmed = match some("confirmed") {
        None => None,
        Some(Value::Bool(yes)) => Some(*yes),
        Some(_) => return Err("confirmed must be true or false".to_owned()),
    };
    Ok(StepAnswer {
        step_id: text("step_id")?.ok_or("step_id is missing")?,
        number: some("retry_count").map(number).transpose()?,
        confirmed,
        feedback: text("rejection_feedback")?,
        values: values(needed)?,
        choices: some("selected_choices").map(choices).transpose()?,
        input: some("edited_input").cloned(),
        output: some("edited_output").cloned(),
    })
}

fn number(count: &Value) -> Result<u32, String> {
    let number = count.as_u64().and_then(|count| u32::try_from(count).ok());
    number.ok_or_else(|| "retry_count must be the number that was told".to_owned())
}

/// What is filled in: in `user_input`, or else in the fields.
fn values(needed: &Map<String, Value>) -> Result<Option<Map<String, Value>>, String> {
    match needed.get("user_input") {
        None | Some(Value::Null) => {
            let mut values = answers::by_name(needed, "user_input_schema", "name", "value")?.unwrap_or_default();
            values.retain(|_, value| !value.is_null());
            Ok(Some(values).filter(|values| !values.is_empty()))
        }
        Some(Value::Object(values)) => Ok(Some(values.clone())),
        Some(_) => Err("user_input must be a JSON object".to_owned()),
    }
}

/// The names of the chosen steps: a list, or one text.
fn choices(chosen: &Value) -> Result<Vec<String>, String> {
    let name = |name: &Value| name.as_str().map(str::to_owned);
    let names = match chosen {
        Value::String(one) => Some(vec![one.clone()]),
        Value::Array(names) => names.iter().map(name).collect(),
        _ => None,
    };
    names.ok_or_else(|| "selected_choices must be a list of names".to_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::forms::tests::urlencoded;

    async fn read(requirements: Value) -> Result<Answers, ApiError> {
        in_step_requirements(&urlencoded(&[("step_requirements", &requirements.to_string())]).await)
    }

    #[tokio::test]
    async fn answers_are_read_from_the_requirements_as_clients_send_them_back() {
        let filled = json!([{"name": "environment", "value": "staging"}, {"name": "note", "value": null}]);
        let needed = json!([
            {"step_id": "a", "confirmed": true, "user_input": null, "selected_choices": null},
            {"step_id": "b", "confirmed": null, "user_input_schema": filled},
            {"step_id": "c", "user_input": {"x": 1}, "user_input_schema": filled},
            {"step_id": "d", "selected_choices": ["one"]},
            {"step_id": "e", "confirmed": false, "rejection_feedback": "shorter", "edited_output": "better"},
        ]);
        let steps = read(needed).await.unwrap().steps;
        assert_eq!((steps[0].step_id.as_str(), steps[0].confirmed), ("a", Some(true)));
        assert_eq!((&steps[0].values, &steps[0].choices), (&None, &None));
        assert_eq!(steps[1].values, json!({"environment": "staging"}).as_object().cloned());
        assert_eq!(steps[2].values, json!({"x": 1}).as_object().cloned());
        assert_eq!(steps[3].choices, Some(vec!["one".to_owned()]));
        assert_eq!((steps[4].feedback.as_deref(), &steps[4].output), (Some("shorter"), &Some(json!("better"))));
    }

    #[tokio::test]
    async fn what_the_run_of_a_step_asks_is_answered_there() {
        let call = json!({"tool_call_id": "c1", "tool_name": "t", "confirmed": true});
        let of_member = json!({"tool_execution": call, "member_run_id": "m1"});
        let inner = json!({"step_id": "i1", "confirmed": true});
        let needed = json!([{"step_id": "a", "requires_executor_input": true, "executor_run_id": "r1",
            "executor_requirements": [{"tool_execution": call}, of_member], "executor_step_requirements": [inner]}]);
        let read = read(needed).await.unwrap();
        assert_eq!((read.steps.len(), read.steps[0].step_id.as_str()), (1, "i1"));
        assert_eq!((read.calls[0].call_id.as_str(), read.calls[0].confirmed), ("c1", Some(true)));
        let runs: Vec<_> = read.calls.iter().map(|call| call.run.as_ref().unwrap().as_str()).collect();
        assert_eq!(runs, ["r1", "m1"]);
    }

    #[tokio::test]
    async fn what_is_no_step_requirement_is_refused() {
        for wrong in [
            json!({"a": 1}),
            json!([1]),
            json!([{}]),
            json!([{"step_id": 5}]),
            json!([{"step_id": "a", "confirmed": "yes"}]),
            json!([{"step_id": "a", "user_input": []}]),
            json!([{"step_id": "a", "selected_choices": [1]}]),
            json!([{"requires_executor_input": true, "executor_requirements": {}}]),
            json!([{"requires_executor_input": true, "executor_run_id": 7}]),
            json!([{"requires_executor_input": true, "executor_step_requirements": [{}]}]),
        ] {
            assert!(matches!(read(wrong.clone()).await, Err(ApiError::Bad(_))), "{wrong}");
        }
        let bad = in_step_requirements(&urlencoded(&[("step_requirements", "{nope")]).await);
        assert!(matches!(bad, Err(ApiError::Bad(told)) if told.detail == "Invalid JSON in step_requirements field"));
    }
}
