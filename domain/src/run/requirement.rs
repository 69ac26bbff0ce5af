//! What a paused run asks of a person, and whether an answer fits.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::feedback::chosen;
use super::input::{InputField, input_fields};
use super::state::RunStatus;
use super::tools::ToolRecord;
use crate::ids::{ApprovalId, RunId};
use crate::tool::{Gate, ToolSpec};

/// What the model is told of a call that was rejected without a note.
pub const REJECTED: &str = "Function call was rejected by the user";

/// What a paused run waits for: an answer about one tool call.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Requirement {
    /// The tool call it is about.
    pub call_id: String,
    /// What is asked of a person.
    pub kind: RequirementKind,
    /// For arguments that a person fills in: all arguments of the tool.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fields: Vec<InputField>,
    /// For work done elsewhere: whether nothing is said about it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub silent: bool,
    /// The approval that answers it; no other answer counts then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approval: Option<ApprovalId>,
    /// Whether the decision is recorded as an approval.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub audited: bool,
}

/// The kinds of requirements.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RequirementKind {
    /// Whether to run an unsafe tool again whose outcome is unknown, or what its result was.
    UnknownOutcome,
    /// Whether a tool may run.
    Confirmation,
    /// Some of a tool's arguments.
    UserInput,
    /// Choices among what the model offers.
    UserFeedback,
    /// The result of a tool that runs elsewhere.
    ExternalExecution,
}

impl RequirementKind {
    /// Whether the answer to it lets a tool run: where an approval is required, the approval is that answer.
    pub fn lets_run(self) -> bool {
        matches!(self, Self::Confirmation | Self::UnknownOutcome)
    }

    /// The kind on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::UnknownOutcome => "unknown_outcome",
            Self::Confirmation => "confirmation",
            Self::UserInput => "user_input",
            Self::UserFeedback => "user_feedback",
            Self::ExternalExecution => "external_execution",
        }
    }
}

/// What a person decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decision {
    /// The tool runs.
    Confirmed,
    /// It does not; the model is told why.
    Rejected,
    /// It runs with what was filled in.
    Filled,
    /// What was chosen is its result.
    Chosen,
    /// It ran elsewhere, and this is its result.
    Executed,
    /// It runs again.
    RunAgain,
}

/// An answer as callers give it: whichever part fits what is asked.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// The run that asks, where the caller names it: one under the run that is continued.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<RunId>,
    /// The tool call.
    pub call_id: String,
    /// The tool, where the caller names it.
    pub tool: Option<String>,
    /// The arguments, where the caller repeats them.
    pub arguments: Option<Map<String, Value>>,
    /// Yes or no.
    pub confirmed: Option<bool>,
    /// Why, for the model.
    pub note: Option<String>,
    /// Values by argument.
    pub values: Option<Map<String, Value>>,
    /// Chosen labels by question.
    pub choices: Option<Map<String, Value>>,
    /// The result of work done elsewhere.
    pub result: Option<String>,
}

/// An answer that fits, as the log takes it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Given {
    /// What was decided.
    pub decision: Decision,
    /// Why, for the model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// Values by argument, or chosen labels by question.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub values: Option<Map<String, Value>>,
    /// The result.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<String>,
}

impl Given {
    /// A decision and nothing else.
    pub fn only(decision: Decision) -> Self {
        Self { decision, note: None, values: None, result: None }
    }
}

/// Why an answer does not fit; nothing has changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AnswerError {
    /// No call of the run has this id.
    #[error("the run has no tool call {0:?}: answer with the tool_call_id of what it waits for")]
    NoSuchCall(String),
    /// The call is another tool's.
    #[error("the tool call {call:?} is of {known:?}, not of {named:?}")]
    OtherTool {
        /// The call.
        call: String,
        /// Its tool.
        known: String,
        /// The tool the caller named.
        named: String,
    },
    /// The arguments are not those that were asked about.
    #[error(
        "the arguments of {0} are not those that were asked about: reject the call with a note that says what to change"
    )]
    OtherArguments(String),
    /// Only an approval answers it: nobody else lets the call run, or rejects it.
    #[error("This run requires admin approval before it can be continued")]
    NeedsApproval,
    /// Its run is over without the answer.
    #[error("the run is {}, and waits for no answers any more: start a new one", .0.as_str())]
    Ended(RunStatus),
    /// It was answered before, otherwise; the first answer wins.
    #[error("the tool call {0:?} was answered already, and the first answer counts")]
    Answered(String),
    /// A step was answered before, otherwise; the first answer wins.
    #[error("{0}")]
    StepAnswered(String),
    /// The answer lacks something or has the wrong type.
    #[error("{0}")]
    Unfit(String),
}

impl Requirement {
    /// A requirement without further parts.
    pub fn new(call_id: impl Into<String>, kind: RequirementKind) -> Self {
        Self { call_id: call_id.into(), kind, fields: Vec::new(), silent: false, approval: None, audited: false }
    }

    /// What `answer` comes to; `None` when it says nothing about what is asked.
    ///
    /// # Errors
    /// [`AnswerError`] when it does not fit.
    pub fn read(&self, tool: &ToolRecord, answer: &Answer) -> Result<Option<Given>, AnswerError> {
        let call = &tool.call;
        if let Some(named) = answer.tool.as_ref().filter(|named| **named != call.name) {
            let (id, known, named) = (call.id.clone(), call.name.clone(), named.clone());
            return Err(AnswerError::OtherTool { call: id, known, named });
        }
        let given = match self.kind {
            RequirementKind::Confirmation => answer.confirmed.map(|yes| decided(yes, Decision::Confirmed, answer)),
            RequirementKind::UserInput => self.filled(tool, answer)?,
            RequirementKind::UserFeedback => chosen(call, answer)?,
            RequirementKind::ExternalExecution => executed(answer),
            RequirementKind::UnknownOutcome => {
                executed(answer).or_else(|| answer.confirmed.map(|yes| decided(yes, Decision::RunAgain, answer)))
            }
        };
        let Some(given) = given else { return Ok(None) };
        let same = |arguments: &Map<String, Value>| {
            let known = if self.kind == RequirementKind::UserInput { call.parsed() } else { tool.arguments() };
            // What a person fills in, a client may have put there already.
            let asked = |name: &String| self.fields.iter().any(|field| field.asked && field.name == *name);
            let rest = |map: &Map<String, Value>| -> Map<String, Value> {
                map.iter().filter(|(name, _)| !asked(name)).map(|(name, value)| (name.clone(), value.clone())).collect()
            };
            rest(arguments) == rest(&known.unwrap_or_default())
        };
        if given.decision != Decision::Rejected && !answer.arguments.as_ref().is_none_or(same) {
            return Err(AnswerError::OtherArguments(call.name.clone()));
        }
        Ok(Some(given))
    }

    fn filled(&self, tool: &ToolRecord, answer: &Answer) -> Result<Option<Given>, AnswerError> {
        if answer.confirmed == Some(false) {
            return Ok(Some(decided(false, Decision::Filled, answer)));
        }
        let Some(values) = &answer.values else { return Ok(None) };
        let asked: Vec<&InputField> = self.fields.iter().filter(|field| field.asked).collect();
        let value = |field: &InputField| values.get(&field.name).filter(|value| !value.is_null());
        // Values that are all empty are what was shown: only a yes makes them an answer.
        let empty = asked.iter().all(|field| value(field).is_none()) && !asked.is_empty();
        if empty && answer.confirmed != Some(true) {
            return Ok(None);
        }
        self.leaves_the_rest(tool, values)?;
        let mut filled = Map::new();
        for field in asked {
            match value(field) {
                Some(value) => {
                    field.check(value)?;
                    filled.insert(field.name.clone(), value.clone());
                }
                // Somebody who leaves it empty, beside others that are filled in, says that there is none.
                None if field.required && field.nullable => {
                    filled.insert(field.name.clone(), Value::Null);
                }
                None if field.required => {
                    return Err(AnswerError::Unfit(format!("the field {:?} has no value", field.name)));
                }
                None => {}
            }
        }
        Ok(Some(Given { values: Some(filled), ..Given::only(Decision::Filled) }))
    }

    /// Whether what was sent back of arguments that nobody was asked for is as it was shown.
    fn leaves_the_rest(&self, tool: &ToolRecord, values: &Map<String, Value>) -> Result<(), AnswerError> {
        let known = tool.call.parsed().unwrap_or_default();
        for (name, value) in values {
            let Some(field) = self.fields.iter().find(|field| field.name == *name) else {
                return Err(AnswerError::Unfit(format!("there is no field {name:?}")));
            };
            let same = value.is_null() || known.get(name) == Some(value);
            if !field.asked && !same {
                return Err(AnswerError::OtherArguments(tool.call.name.clone()));
            }
        }
        Ok(())
    }
}

pub(super) fn decided(yes: bool, decision: Decision, answer: &Answer) -> Given {
    let decision = if yes { decision } else { Decision::Rejected };
    Given { note: answer.note.clone().filter(|note| !note.trim().is_empty()), ..Given::only(decision) }
}

fn executed(answer: &Answer) -> Option<Given> {
    let result = answer.result.clone()?;
    Some(Given { result: Some(result), ..Given::only(Decision::Executed) })
}

/// What must be asked before a call of `spec` may go on, as far as it was not answered; `None` when nothing must.
pub fn needed(spec: &ToolSpec, tool: &ToolRecord) -> Option<Requirement> {
    // What was requested once had been let through.
    if tool.attempts > 0 || tool.outcome.is_some() {
        return None;
    }
    let requirement = |kind| Requirement::new(tool.call.id.clone(), kind);
    if let Gate::UserInput { fields } = &spec.gate
        && tool.filled.is_none()
    {
        let fields = input_fields(&spec.parameters, fields);
        return Some(Requirement { fields, audited: audited(spec), ..requirement(RequirementKind::UserInput) });
    }
    // An approval needs something to decide.
    let confirms = spec.gate == Gate::Confirmation || (spec.gate.is_none() && spec.approval.is_some());
    if (confirms || spec.needs_approval()) && !tool.confirmed {
        return Some(Requirement { audited: audited(spec), ..requirement(RequirementKind::Confirmation) });
    }
    match spec.gate {
        Gate::Feedback => Some(Requirement { audited: audited(spec), ..requirement(RequirementKind::UserFeedback) }),
        Gate::External { silent } => {
            Some(Requirement { silent, audited: audited(spec), ..requirement(RequirementKind::ExternalExecution) })
        }
        _ => None,
    }
}

/// What must be asked about a call whose outcome nobody knows; `spec` is its tool, where it is known.
pub fn after_a_crash(spec: Option<&ToolSpec>, call_id: &str) -> Requirement {
    let audited = spec.is_some_and(audited);
    Requirement { audited, ..Requirement::new(call_id, RequirementKind::UnknownOutcome) }
}

fn audited(spec: &ToolSpec) -> bool {
    spec.approval.is_some() && !spec.needs_approval()
}
