//! What a paused workflow asks of a person about its steps, and whether an answer fits.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::output::StepType;
use super::place::Place;
use super::policy::{HumanReview, OnReject};
use crate::run::{AnswerError, ChildRef, InputField};

/// What a paused run waits for: an answer about one step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StepRequirement {
    /// Where the step is.
    pub place: Place,
    /// Its name.
    pub name: String,
    /// Its type.
    #[serde(default)]
    pub kind: StepType,
    /// What is asked.
    pub ask: Ask,
    /// How often the step was asked about before in this run, in whatever iteration: an answer to an earlier question is
    /// none to this one.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub number: u32,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands references")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// What is asked about a step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Ask {
    /// Whether it may run, and with what.
    Before(Before),
    /// Which steps a router runs.
    Routes {
        /// What the person is asked.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        message: Option<String>,
        /// The steps to choose among.
        choices: Vec<String>,
        /// Whether several may be chosen.
        many: bool,
    },
    /// Whether its output is right; a no runs it again.
    Output {
        /// What the person is asked.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        message: Option<String>,
        /// How often the person has said no.
        rejections: u32,
        /// How often a no runs it again.
        max_rejections: u32,
    },
    /// It failed: whether it runs again. Otherwise the workflow goes on without it.
    Failure,
    /// A crash hid its outcome: whether it runs again, or what its outcome was. Otherwise it counts as failed.
    UnknownOutcome,
    /// What its child run asks: the answers are for that run.
    Executor {
        /// The run.
        child: ChildRef,
        /// Its name for people.
        name: String,
        /// What it asks about its own steps, where it is a workflow.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        steps: Vec<StepRequirement>,
    },
}

/// What is asked before a step runs, all at once.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Before {
    /// Whether it needs a yes.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub confirmation: bool,
    /// What the person is asked who confirms it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// What a no means.
    pub on_reject: OnReject,
    /// Whether its input may be changed.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub input: bool,
    /// Whether values are filled in.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub values: bool,
    /// What the person is asked who fills them in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub values_message: Option<String>,
    /// The values; any when empty.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub fields: Vec<InputField>,
}

impl Before {
    /// What a step's policy asks before it runs; `None` when nothing.
    pub fn of(review: &HumanReview) -> Option<Self> {
        let HumanReview { confirmation, user_input, input, output: _ } = review;
        if confirmation.is_none() && user_input.is_none() && input.is_none() {
            return None;
        }
        let confirmed = confirmation.as_ref().map(|asked| (asked.message.clone(), asked.on_reject));
        let reviewed = input.as_ref().map(|asked| (asked.message.clone(), asked.on_reject));
        let (message, on_reject) = confirmed.or(reviewed).unwrap_or_default();
        Some(Self {
            confirmation: confirmation.is_some() || input.is_some(),
            message,
            on_reject,
            input: input.is_some(),
            values: user_input.is_some(),
            values_message: user_input.as_ref().and_then(|asked| asked.message.clone()),
            fields: user_input.iter().flat_map(|asked| asked.fields.clone()).collect(),
        })
    }
}

/// An answer as callers give it: whichever part fits what is asked.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct StepAnswer {
    /// The step's id.
    pub step_id: String,
    /// Which question it answers, where the caller says so; the one that is open otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub number: Option<u32>,
    /// Yes or no.
    #[serde(default)]
    pub confirmed: Option<bool>,
    /// Why, or what to do better.
    #[serde(default)]
    pub feedback: Option<String>,
    /// What is filled in.
    #[serde(default)]
    pub values: Option<Map<String, Value>>,
    /// The steps that a router runs.
    #[serde(default)]
    pub choices: Option<Vec<String>>,
    /// What takes the place of the step's input.
    #[serde(default)]
    pub input: Option<Value>,
    /// What takes the place of the step's output, or is its output.
    #[serde(default)]
    pub output: Option<Value>,
}

/// An answer that fits.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct StepGiven {
    /// Yes or no.
    pub confirmed: bool,
    /// Why, or what to do better.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub feedback: Option<String>,
    /// What was filled in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub values: Option<Map<String, Value>>,
    /// The steps that a router runs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub choices: Vec<String>,
    /// What takes the place of the step's input.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input: Option<Value>,
    /// What takes the place of the step's output, or is its output.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<Value>,
}

impl StepRequirement {
    /// What `answer` comes to; `None` when it says nothing about what is asked.
    ///
    /// # Errors
    /// [`AnswerError`] when it does not fit.
    pub fn read(&self, answer: &StepAnswer) -> Result<Option<StepGiven>, AnswerError> {
        let feedback = answer.feedback.clone().filter(|text| !text.trim().is_empty());
        let said = |confirmed| StepGiven { confirmed, feedback: feedback.clone(), ..StepGiven::default() };
        match &self.ask {
            Ask::Before(before) => self.before(before, answer, said),
            Ask::Routes { choices, many, .. } => self.routes(choices, *many, answer),
            // Who changes an output takes it; of a step whose outcome nobody knows, it is the outcome.
            Ask::Output { .. } | Ask::UnknownOutcome => Ok(match (answer.confirmed, &answer.output) {
                (Some(false), _) => Some(said(false)),
                (None, None) => None,
                (_, output) => Some(StepGiven { output: output.clone(), ..said(true) }),
            }),
            Ask::Failure => Ok(answer.confirmed.map(said)),
            Ask::Executor { .. } => Ok(None),
        }
    }

    fn before(
        &self,
        before: &Before,
        answer: &StepAnswer,
        said: impl Fn(bool) -> StepGiven,
    ) -> Result<Option<StepGiven>, AnswerError> {
        let values = answer.values.as_ref().filter(|values| !values.is_empty());
        match answer.confirmed {
            Some(false) => return Ok(Some(said(false))),
            None if values.is_none() => return Ok(None),
            None if before.confirmation => return Err(self.unfit("needs `confirmed` too: whether it may run")),
            _ => {}
        }
        let values = if before.values { self.filled(before, values)? } else { None };
        let input = answer.input.clone().filter(|_| before.input);
        Ok(Some(StepGiven { values, input, ..said(true) }))
    }

    /// What was filled in, without what is null.
    fn filled(
        &self,
        before: &Before,
        values: Option<&Map<String, Value>>,
    ) -> Result<Option<Map<String, Value>>, AnswerError> {
        let mut values = values.cloned().unwrap_or_default();
        values.retain(|_, value| !value.is_null());
        for field in &before.fields {
            match values.get(&field.name) {
                Some(Value::String(text)) if text.is_empty() && field.required => {
                    return Err(self.unfit(&format!("needs a value for {:?}", field.name)));
                }
                Some(value) => field.check(value)?,
                None if field.required => return Err(self.unfit(&format!("needs a value for {:?}", field.name))),
                None => {}
            }
        }
        let known = |name: &String| before.fields.is_empty() || before.fields.iter().any(|field| field.name == *name);
        if let Some(name) = values.keys().find(|name| !known(name)) {
            return Err(self.unfit(&format!("has no field {name:?}")));
        }
        if before.fields.is_empty() && values.is_empty() {
            return Err(self.unfit("needs `user_input`: an object with the values"));
        }
        Ok(Some(values))
    }

    fn routes(&self, choices: &[String], many: bool, answer: &StepAnswer) -> Result<Option<StepGiven>, AnswerError> {
        let Some(chosen) = answer.choices.as_ref().filter(|chosen| !chosen.is_empty()) else { return Ok(None) };
        if let Some(fault) = chosen_badly(choices, many, chosen) {
            return Err(self.unfit(&fault));
        }
        Ok(Some(StepGiven { confirmed: true, choices: chosen.clone(), ..StepGiven::default() }))
    }

    fn unfit(&self, fault: &str) -> AnswerError {
        AnswerError::Unfit(format!("the step {:?} {fault}", self.name))
    }
}

/// What is wrong with the steps that were chosen of a router; `None` when they can run.
pub fn chosen_badly(choices: &[String], many: bool, chosen: &[String]) -> Option<String> {
    if let Some(other) = chosen.iter().find(|name| !choices.contains(name)) {
        return Some(format!("has no choice {other:?}; there are: {}", choices.join(", ")));
    }
    if chosen.len() > 1 && !many {
        return Some(format!("takes one choice, not {}: {}", chosen.len(), chosen.join(", ")));
    }
    let twice = chosen.iter().enumerate().find(|(at, name)| chosen[..*at].contains(name));
    twice.map(|(_, name)| format!("was given the choice {name:?} twice"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::policy::{Confirmation, InputReview, UserInput};
    use super::*;

    fn field(name: &str, kind: &str, required: bool, choices: Vec<Value>) -> InputField {
        let (name, kind) = (name.to_owned(), kind.to_owned());
        InputField { name, kind, description: None, required, nullable: false, asked: true, choices }
    }

    fn asked(ask: Ask) -> StepRequirement {
        StepRequirement { place: Place::top(0), name: "deploy".into(), kind: StepType::Step, ask, number: 0 }
    }

    fn before(confirmation: bool, values: bool) -> StepRequirement {
        let fields = vec![field("environment", "string", true, vec![json!("staging"), json!("production")])];
        let user_input = values.then_some(UserInput { message: None, fields });
        let confirmation = confirmation.then(Confirmation::default);
        let review = HumanReview { confirmation, user_input, ..HumanReview::default() };
        asked(Ask::Before(Before::of(&review).unwrap()))
    }

    fn map(value: Value) -> Option<Map<String, Value>> {
        value.as_object().cloned()
    }

    #[test]
    fn a_confirmation_is_a_yes_or_a_no() {
        let read = |confirmed| before(true, false).read(&StepAnswer { confirmed, ..StepAnswer::default() });
        assert_eq!(read(None), Ok(None));
        assert_eq!(read(Some(true)).unwrap().unwrap(), StepGiven { confirmed: true, ..StepGiven::default() });
        assert_eq!(read(Some(false)).unwrap().unwrap(), StepGiven::default());
    }

    #[test]
    fn values_are_held_against_their_fields() {
        let read = |values| before(false, true).read(&StepAnswer { values, ..StepAnswer::default() });
        assert_eq!(read(None), Ok(None));
        let given = read(map(json!({"environment": "staging"}))).unwrap().unwrap();
        assert_eq!((given.confirmed, given.values), (true, map(json!({"environment": "staging"}))));
        for wrong in
            [json!({"environment": "moon"}), json!({"environment": 1}), json!({"environment": "staging", "x": 1})]
        {
            assert!(read(map(wrong.clone())).is_err(), "{wrong}");
        }
        let only_yes = StepAnswer { confirmed: Some(true), ..StepAnswer::default() };
        assert!(before(false, true).read(&only_yes).unwrap_err().to_string().contains("\"environment\""));
        let only_values = StepAnswer { values: map(json!({"environment": "staging"})), ..StepAnswer::default() };
        assert!(before(true, true).read(&only_values).unwrap_err().to_string().contains("confirmed"));
    }

    #[test]
    fn routes_are_those_there_are() {
        let choices = vec!["a".to_owned(), "b".to_owned()];
        let read = |many, chosen: &[&str]| {
            let choices = choices.clone();
            let answer = StepAnswer {
                choices: Some(chosen.iter().map(|name| (*name).to_owned()).collect()),
                ..StepAnswer::default()
            };
            asked(Ask::Routes { message: None, choices, many }).read(&answer)
        };
        assert_eq!(read(false, &[]), Ok(None));
        assert_eq!(read(true, &["b", "a"]).unwrap().unwrap().choices, ["b", "a"]);
        for (many, wrong) in [(false, vec!["c"]), (false, vec!["a", "b"]), (true, vec!["a", "a"])] {
            assert!(read(many, &wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn who_changes_an_output_takes_it() {
        let review = asked(Ask::Output { message: None, rejections: 0, max_rejections: 3 });
        let edited = StepAnswer { output: Some(json!("better")), ..StepAnswer::default() };
        let given = review.read(&edited).unwrap().unwrap();
        assert_eq!((given.confirmed, given.output), (true, Some(json!("better"))));
        let no = StepAnswer { confirmed: Some(false), feedback: Some("shorter".into()), ..StepAnswer::default() };
        let given = review.read(&no).unwrap().unwrap();
        assert_eq!((given.confirmed, given.feedback.as_deref()), (false, Some("shorter")));
        assert_eq!(asked(Ask::Failure).read(&edited), Ok(None));
    }

    #[test]
    fn an_input_is_changed_only_where_that_is_asked() {
        let answer = StepAnswer { confirmed: Some(true), input: Some(json!("x")), ..StepAnswer::default() };
        assert_eq!(before(true, false).read(&answer).unwrap().unwrap().input, None);
        let review = HumanReview { input: Some(InputReview::default()), ..HumanReview::default() };
        let given = asked(Ask::Before(Before::of(&review).unwrap())).read(&answer).unwrap().unwrap();
        assert_eq!(given.input, Some(json!("x")));
    }
}
