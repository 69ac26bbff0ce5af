//! Questions of a model with choices: what can be asked, and what a person may choose.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::requirement::{Answer, AnswerError, Decision, Given, decided};
use crate::message::ToolCall;

/// A question of the model with its options.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Question {
    /// What is asked.
    pub question: String,
    /// A short label.
    #[serde(default)]
    pub header: Option<String>,
    /// What can be chosen.
    #[serde(default)]
    pub options: Vec<Choice>,
    /// Whether several can be.
    #[serde(default)]
    pub multi_select: bool,
}

/// An option of a question.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Choice {
    /// Its text.
    pub label: String,
    /// What it means.
    #[serde(default)]
    pub description: Option<String>,
}

pub(super) fn chosen(call: &ToolCall, answer: &Answer) -> Result<Option<Given>, AnswerError> {
    if answer.confirmed == Some(false) {
        return Ok(Some(decided(false, Decision::Chosen, answer)));
    }
    let Some(choices) = answer.choices.as_ref().filter(|choices| choices.values().any(|value| !value.is_null())) else {
        return Ok(None);
    };
    let (mut values, mut told) = (Map::new(), Vec::new());
    let questions = questions(call);
    if let Some(other) = choices.keys().find(|name| questions.iter().all(|question| question.question != **name)) {
        return Err(AnswerError::Unfit(format!("there is no question {other:?}")));
    }
    for question in questions {
        let labels = question.labels(choices.get(&question.question))?;
        told.push(serde_json::json!({"question": question.question, "selected": labels}));
        values.insert(question.question, labels.into());
    }
    let result = Some(format!("User feedback received: {}", Value::Array(told)));
    Ok(Some(Given { values: Some(values), result, ..Given::only(Decision::Chosen) }))
}

impl Question {
    fn labels(&self, chosen: Option<&Value>) -> Result<Vec<String>, AnswerError> {
        let unfit = |what: &str| AnswerError::Unfit(format!("the question {:?} {what}", self.question));
        let list = chosen.and_then(Value::as_array).ok_or_else(|| unfit("has no answer: give a list of labels"))?;
        let labels: Option<Vec<String>> = list.iter().map(|label| label.as_str().map(str::to_owned)).collect();
        let labels = labels.ok_or_else(|| unfit("takes labels, which are texts"))?;
        if let Some(label) = twice(labels.iter().map(String::as_str)) {
            return Err(unfit(&format!("has the label {label:?} twice")));
        }
        if labels.is_empty() || (labels.len() > 1 && !self.multi_select) {
            return Err(unfit(if self.multi_select { "takes at least one label" } else { "takes one label" }));
        }
        if let Some(other) = labels.iter().find(|label| self.options.iter().all(|option| option.label != **label)) {
            return Err(unfit(&format!("has no option {other:?}")));
        }
        Ok(labels)
    }
}

/// The questions of a call that asks for choices; none where its arguments are not such.
pub fn questions(call: &ToolCall) -> Vec<Question> {
    read(call).unwrap_or_default()
}

fn read(call: &ToolCall) -> Result<Vec<Question>, String> {
    let asked = call.parsed()?.remove("questions").ok_or("the argument `questions` is missing")?;
    serde_json::from_value(asked).map_err(|error| format!("`questions` cannot be read: {error}"))
}

/// Whether a person can answer what the call asks.
///
/// # Errors
/// A sentence that says why nobody can, fit for the model to read.
pub fn can_be_answered(call: &ToolCall) -> Result<(), String> {
    let fault = match read(call) {
        Err(fault) => Some(fault),
        Ok(questions) if questions.is_empty() => Some("`questions` is empty".to_owned()),
        Ok(questions) => twice(questions.iter().map(|question| question.question.as_str()))
            .map(|question| format!("the question {question:?} is asked twice"))
            .or_else(|| questions.iter().find_map(Question::fault)),
    };
    let Some(fault) = fault else { return Ok(()) };
    Err(format!(
        "{} asked nobody: {fault}. Give `questions` as a list of {{\"question\": text, \"options\": [{{\"label\": text, \
         \"description\": text}}], \"multi_select\": true or false}}, each question and each label of it once",
        call.name
    ))
}

impl Question {
    fn fault(&self) -> Option<String> {
        let labels = || self.options.iter().map(|option| option.label.as_str());
        if self.question.trim().is_empty() {
            Some("a question has no words".to_owned())
        } else if self.options.is_empty() {
            Some(format!("the question {:?} has no options", self.question))
        } else if labels().any(|label| label.trim().is_empty()) {
            Some(format!("an option of the question {:?} has no label", self.question))
        } else {
            twice(labels()).map(|label| format!("the question {:?} has the option {label:?} twice", self.question))
        }
    }
}

/// What stands there a second time.
fn twice<'a>(mut words: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let mut seen = HashSet::new();
    words.find(|word| !seen.insert(*word))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_nobody_could_answer_is_not_asked() {
        let check = |arguments: Value| {
            can_be_answered(&ToolCall { id: "c".into(), name: "ask".into(), arguments: arguments.to_string() })
        };
        let one = |options: Value| json!({"questions": [{"question": "Where?", "options": options}]});
        assert_eq!(check(one(json!([{"label": "Oslo"}, {"label": "Rome", "description": "South"}]))), Ok(()));
        let twice = json!({"question": "Where?", "options": [{"label": "Oslo"}]});
        for (wrong, why) in [
            (json!({}), "is missing"),
            (json!({"questions": []}), "is empty"),
            (json!({"questions": "Where?"}), "cannot be read"),
            (one(json!(["Oslo", "Rome"])), "cannot be read"),
            (one(json!([])), "has no options"),
            (json!({"questions": [{"question": "Where?"}]}), "has no options"),
            (json!({"questions": [{"question": " ", "options": [{"label": "Oslo"}]}]}), "has no words"),
            (one(json!([{"label": ""}])), "has no label"),
            (one(json!([{"label": "Oslo"}, {"label": "Oslo"}])), "option \"Oslo\" twice"),
            (json!({"questions": [twice, twice]}), "is asked twice"),
        ] {
            let told = check(wrong.clone()).unwrap_err();
            assert!(told.contains(why) && told.contains("Give `questions` as"), "{wrong}: {told}");
        }
    }
}
