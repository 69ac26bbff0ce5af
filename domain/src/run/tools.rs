//! The tool calls of a run, from the model's wish to their outcome.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::event::{ErrorKind, ToolCallRequested};
use super::pauses::RequirementResolved;
use super::requirement::{Decision, Given, REJECTED, Requirement, RequirementKind};
use super::state::RunState;
use super::tree::ChildRef;
use crate::ids::ApprovalId;
use crate::long_result::WholeResult;
use crate::media::Media;
use crate::message::{Answered, Role, ToolCall};
use crate::tool::Effect;

/// The outcome of a tool call.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToolOutcome {
    /// It answered.
    Completed(String),
    /// It failed, with what the model is told.
    Failed(String),
    /// A person did not let it run, with what the model is told.
    Rejected(String),
    /// Nobody knows.
    Unknown,
}

/// A tool call of the run, from the model's wish to its outcome.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ToolRecord {
    /// What the model asked for.
    pub call: ToolCall,
    /// What a second call does; known once the call was requested.
    pub effect: Effect,
    /// The key every attempt carries.
    pub idempotency_key: String,
    /// How often it was requested.
    pub attempts: u32,
    /// How it went, once known.
    pub outcome: Option<ToolOutcome>,
    /// Where all of its result is, when that was too long.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub whole: Option<WholeResult>,
    /// Unix milliseconds of the request, then of the outcome.
    pub started_ms: i64,
    /// Unix milliseconds of the outcome.
    pub ended_ms: i64,
    /// Seconds the call took.
    pub duration: f64,
    /// What a person was asked about it last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asked: Option<Requirement>,
    /// Unix milliseconds when it was asked.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub asked_ms: i64,
    /// The answer to that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub given: Option<Given>,
    /// Arguments that a person filled in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filled: Option<Map<String, Value>>,
    /// Arguments that a person was asked for and left empty: what the model wrote for them is dropped.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_empty: Vec<String>,
    /// Whether a person let it run.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub confirmed: bool,
    /// Whether a person wants it to run again, though nobody knows what it did.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub again: bool,
    /// The approval it was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approval: Option<ApprovalId>,
    /// The runs that carry it out, where it hands out work.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub children: Vec<ChildRef>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands references")]
fn is_zero(number: &i64) -> bool {
    *number == 0
}

impl ToolRecord {
    /// A call that the model asked for, at `at_ms`.
    pub fn new(call: ToolCall, at_ms: i64) -> Self {
        Self {
            call,
            effect: Effect::Unsafe,
            idempotency_key: String::new(),
            attempts: 0,
            outcome: None,
            whole: None,
            started_ms: at_ms,
            ended_ms: 0,
            duration: 0.0,
            asked: None,
            asked_ms: 0,
            given: None,
            filled: None,
            left_empty: Vec::new(),
            confirmed: false,
            again: false,
            approval: None,
            children: Vec::new(),
        }
    }

    /// The arguments it is called with: the model's, and over them what a person filled in.
    ///
    /// # Errors
    /// A sentence that says what is wrong with the model's.
    pub fn arguments(&self) -> Result<Map<String, Value>, String> {
        Ok(self.with_input(self.call.parsed()?))
    }

    /// The model's arguments with what a person filled in, and without what that person left empty.
    pub fn with_input(&self, mut arguments: Map<String, Value>) -> Map<String, Value> {
        arguments.retain(|name, _| !self.left_empty.contains(name));
        arguments.extend(self.filled.clone().into_iter().flatten());
        arguments
    }

    /// Takes what a person filled in, who was asked what it is asked.
    pub fn fill(&mut self, values: Map<String, Value>) {
        let fields = self.asked.iter().flat_map(|asked| &asked.fields);
        let empty = fields.filter(|field| field.asked && !values.contains_key(&field.name));
        self.left_empty = empty.map(|field| field.name.clone()).collect();
        self.filled = Some(values);
    }

    /// Whether a person is asked about it and has not answered.
    pub fn is_open(&self) -> bool {
        self.asked.is_some() && self.given.is_none()
    }

    fn ask(&mut self, requirement: &Requirement, at_ms: i64) {
        self.asked = Some(requirement.clone());
        self.asked_ms = at_ms;
        self.given = None;
        if let Some(approval) = &requirement.approval {
            self.approval = Some(approval.clone());
        }
    }
}

/// What comes with the words of an outcome.
#[derive(Debug, Default)]
pub(super) struct Attached {
    pub media: Vec<Media>,
    pub whole: Option<WholeResult>,
}

impl RunState {
    /// The call of this id.
    pub fn tool(&self, call_id: &str) -> Option<&ToolRecord> {
        self.tools.iter().find(|tool| tool.call.id == call_id)
    }

    /// The long result of this id that this run got, or took over from another.
    pub fn whole_result(&self, id: &str) -> Option<&WholeResult> {
        self.messages.iter().filter_map(|message| message.whole.as_ref()).find(|whole| whole.is_called(id))
    }

    fn tool_mut(&mut self, call_id: &str) -> Option<&mut ToolRecord> {
        self.tools.iter_mut().find(|tool| tool.call.id == call_id)
    }

    /// The requirements that nobody has answered.
    pub fn open_requirements(&self) -> impl Iterator<Item = (&Requirement, &ToolRecord)> {
        self.requirements
            .iter()
            .filter_map(|needed| Some((needed, self.tool(&needed.call_id)?)))
            .filter(|(_, tool)| tool.is_open())
    }

    pub(super) fn tool_requested(&mut self, e: &ToolCallRequested) {
        if let Some(tool) = self.tool_mut(&e.call_id) {
            tool.effect = e.effect;
            tool.idempotency_key.clone_from(&e.idempotency_key);
            tool.attempts = e.attempt;
            tool.started_ms = e.at_ms;
            tool.again = false;
            tool.children.clone_from(&e.children);
        }
    }

    pub(super) fn asked(&mut self, requirements: &[Requirement], at_ms: i64) {
        for needed in requirements {
            if let Some(tool) = self.tool_mut(&needed.call_id) {
                tool.ask(needed, at_ms);
            }
        }
        // What was asked and answered before is still shown.
        self.requirements.retain(|known| requirements.iter().all(|needed| needed.call_id != known.call_id));
        self.requirements.extend_from_slice(requirements);
    }

    pub(super) fn resolved(&mut self, e: &RequirementResolved) {
        if e.fails {
            let tool = self.tool(&e.call_id).map(|tool| tool.call.name.clone()).unwrap_or_default();
            let why = format!("The approval of {tool} expired before anybody decided");
            self.failure = Some((ErrorKind::ApprovalExpired, why));
        }
        let Some(tool) = self.tool_mut(&e.call_id) else { return };
        let given = Given {
            decision: e.decision,
            note: e.note.get().cloned().flatten(),
            values: e.values.get().cloned().flatten(),
            result: e.result.get().cloned().flatten(),
        };
        tool.given = Some(given.clone());
        let unknown = tool.asked.as_ref().is_some_and(|asked| asked.kind == RequirementKind::UnknownOutcome);
        let outcome = match e.decision {
            Decision::Confirmed => {
                tool.confirmed = true;
                return;
            }
            Decision::Filled => {
                tool.fill(given.values.unwrap_or_default());
                return;
            }
            Decision::RunAgain => {
                (tool.outcome, tool.again) = (None, true);
                return;
            }
            Decision::Rejected => {
                let note = given.note.unwrap_or_else(|| if unknown { NOT_AGAIN } else { REJECTED }.to_owned());
                ToolOutcome::Rejected(note)
            }
            Decision::Chosen | Decision::Executed => ToolOutcome::Completed(given.result.unwrap_or_default()),
        };
        self.tool_ended(&e.call_id, outcome, 0.0, e.at_ms, Attached::default());
    }

    pub(super) fn tool_ended(
        &mut self,
        call_id: &str,
        outcome: ToolOutcome,
        duration: f64,
        at_ms: i64,
        attached: Attached,
    ) {
        let Some(tool) = self.tool_mut(call_id) else { return };
        tool.ended_ms = at_ms;
        tool.duration = duration;
        tool.outcome = Some(outcome.clone());
        tool.whole.clone_from(&attached.whole);
        let (content, failed) = match outcome {
            ToolOutcome::Completed(result) => (result, false),
            ToolOutcome::Failed(error) | ToolOutcome::Rejected(error) => (error, true),
            // The model hears of it only when a person has said what became of the call.
            ToolOutcome::Unknown => return,
        };
        let arguments = tool.arguments().map_or(Value::Null, Value::Object);
        let answers = Answered { call_id: call_id.to_owned(), tool: tool.call.name.clone(), arguments, failed };
        self.push_message(Role::Tool, Some(content), at_ms, |message| {
            message.answers = Some(answers);
            (message.media, message.whole) = (attached.media, attached.whole);
        });
    }
}

/// What the model is told of a call that a crash hid, when a person does not want it to run again.
const NOT_AGAIN: &str = "It is not known whether the call was carried out, and it is not to be run again";
