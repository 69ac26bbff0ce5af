//! Messages between people, models and tools, as runs hold them.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::exact::inexact_number;
use crate::long_result::WholeResult;
use crate::media::Media;
use crate::usage::Usage;

/// The longest arguments of a call, in bytes as the model wrote them: they stand in events and in every further prompt.
pub const MOST_ARGUMENTS: usize = 1 << 20;

/// How much is kept of longer ones, for who reads the run.
const KEPT_OF_LONGER: usize = 16 << 10;

/// Behind the beginning of arguments that were too long. What ends so is no JSON.
const CUT: &str = " bytes of arguments, too many to be kept]";

/// Who speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Instructions.
    System,
    /// The person, or who acts for one.
    User,
    /// The model.
    Assistant,
    /// A tool's outcome.
    Tool,
}

/// A tool call as a model asked for it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ToolCall {
    /// The call's id: the provider's, or ours where it gave none. Unique in its run.
    pub id: String,
    /// The tool's name.
    pub name: String,
    /// The arguments, byte for byte as the model wrote them; they need not be valid JSON.
    pub arguments: String,
}

impl ToolCall {
    /// The arguments as a JSON object.
    ///
    /// # Errors
    /// A sentence that says what is wrong with them, fit for the model to read.
    pub fn parsed(&self) -> Result<Map<String, Value>, String> {
        if self.arguments.ends_with(CUT) {
            return Err(format!(
                "{} was not called: its arguments had more than {MOST_ARGUMENTS} bytes, the most there may be: give less, \
                 or make several calls",
                self.name
            ));
        }
        if self.arguments.trim().is_empty() {
            return Ok(Map::new());
        }
        match serde_json::from_str::<Value>(&self.arguments) {
            Ok(Value::Object(map)) => Ok(map),
            Ok(_) => Err(format!("the arguments of {} must be a JSON object", self.name)),
            Err(error) => Err(format!("the arguments of {} are not valid JSON: {error}", self.name)),
        }
    }
}

impl Message {
    /// Words of this speaker, and nothing else. `created_at` is in Unix seconds.
    pub fn said(id: String, role: Role, content: Option<String>, created_at: i64) -> Self {
        Self {
            id,
            role,
            content,
            reasoning: None,
            tool_calls: Vec::new(),
            answers: None,
            media: Vec::new(),
            whole: None,
            repair: false,
            provider_data: None,
            replay: None,
            metrics: None,
            created_at,
        }
    }
}

/// What is kept of a call's arguments: all, or of those that no call may have the beginning.
pub fn kept_arguments(arguments: String) -> String {
    let length = arguments.len();
    if length <= MOST_ARGUMENTS {
        return arguments;
    }
    let beginning = &arguments[..arguments.floor_char_boundary(KEPT_OF_LONGER)];
    format!("{beginning}\n[cut: {length}{CUT}")
}

impl ToolCall {
    /// As [`ToolCall::parsed`], for a call that is to be made: with each number as the model wrote it.
    ///
    /// # Errors
    /// A sentence that says what is wrong with the arguments, fit for the model to read.
    pub fn exactly(&self) -> Result<Map<String, Value>, String> {
        let arguments = self.parsed()?;
        let Some(number) = inexact_number(&self.arguments) else { return Ok(arguments) };
        let number: String = number.chars().take(40).collect();
        Err(format!(
            "{} was not called: the number {number} in its arguments cannot be kept exactly (whole numbers have at most 64 \
             bits, others at most 17 digits): give it as a text, or with fewer digits",
            self.name
        ))
    }
}

/// How a model call went, beside its words.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct CallMetrics {
    /// Tokens.
    pub usage: Usage,
    /// Seconds to the first token; absent when there was none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_to_first_token: Option<f64>,
    /// Seconds for the whole call.
    pub duration: f64,
}

/// What a provider wants given back with a message of its model, word for word: thoughts, and the signatures by which it
/// knows them. Only the provider's own code reads the items.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Replay {
    /// The protocol the items are written in, such as `anthropic`.
    pub protocol: String,
    /// The provider's id of the model that made them; no other is given them.
    pub model: String,
    /// The items, in their order. Empty when they may not be kept, because they held a secret.
    pub items: Vec<Value>,
}

/// A message of a conversation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Message {
    /// Its id, a UUID derived from its run and place, so that every fold gives the same.
    pub id: String,
    /// Who speaks.
    pub role: Role,
    /// What was said; absent for a turn of tool calls only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<String>,
    /// What the model thought aloud.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reasoning: Option<String>,
    /// Tools the model asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tool_calls: Vec<ToolCall>,
    /// For a tool's outcome: the call it answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answers: Option<Answered>,
    /// For a tool's outcome that was too long: where all of it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub whole: Option<WholeResult>,
    /// Whether Daybook itself says it, in the person's place: it tells the model why the answer before does not fit.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub repair: bool,
    /// Media that came with it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub media: Vec<Media>,
    /// What the provider told about the response (ids, fingerprints).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider_data: Option<Value>,
    /// What the provider wants given back with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replay: Option<Replay>,
    /// How the call that made it went.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metrics: Option<CallMetrics>,
    /// Unix seconds.
    pub created_at: i64,
}

/// What an image, a sound or a file is taken to have, in tokens: providers count them each in their own way.
const TOKENS_OF_MEDIA: usize = 1_000;

impl Message {
    /// About how many tokens a prompt has for it: a fourth of its bytes, and a fixed number for what is not text. It is
    /// the same on every machine and asks nobody; real counts differ by a third or so.
    pub fn estimated_tokens(&self) -> u64 {
        let calls = self.tool_calls.iter().map(|call| call.name.len() + call.arguments.len());
        let bytes = self.content.as_ref().map_or(0, String::len) + calls.sum::<usize>();
        let media = self.media.iter().map(|media| media.text_bytes().map_or(TOKENS_OF_MEDIA, |bytes| bytes / 4));
        // Role and form.
        (4 + bytes.div_ceil(4) + media.sum::<usize>()) as u64
    }
}

/// The call a tool message answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Answered {
    /// The call's id.
    pub call_id: String,
    /// The tool's name.
    pub tool: String,
    /// The arguments it was called with, null when they were not JSON.
    pub arguments: Value,
    /// Whether the call failed.
    pub failed: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_that_are_too_long_are_kept_in_part_and_never_called_with() {
        let fitting = format!("{{\"a\":\"{}\"}}", "ö".repeat((MOST_ARGUMENTS - 8) / 2));
        assert_eq!((fitting.len(), kept_arguments(fitting.clone())), (MOST_ARGUMENTS, fitting));
        // Of these the beginning alone would be arguments.
        for long in
            [format!("{{}}{}", " ".repeat(MOST_ARGUMENTS)), format!("{{\"a\":\"{}\"}}", "ö".repeat(MOST_ARGUMENTS))]
        {
            let kept = kept_arguments(long.clone());
            assert!(kept.len() < KEPT_OF_LONGER + 100 && kept.contains(&long.len().to_string()), "{}", kept.len());
            let call = ToolCall { id: "c".into(), name: "send".into(), arguments: kept };
            let told = call.parsed().unwrap_err();
            assert!(told.starts_with("send was not called: its arguments had more than 1048576 bytes"), "{told}");
        }
    }
}
