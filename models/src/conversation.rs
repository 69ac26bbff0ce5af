//! A conversation in the turns that all protocols but chat completions think in.

use daybook_domain::media::Media;
use daybook_domain::message::{Message, Role};
use serde_json::Value;

use crate::port::ModelError;

/// What the model is told of a call that has no outcome, because its run was stopped: no protocol takes a call without.
const NO_OUTCOME: &str = "[no result: the run was stopped before the call ended]";

/// A conversation.
#[derive(Debug)]
pub(crate) struct Conversation<'a> {
    /// What the system messages say.
    pub(crate) system: String,
    /// The rest, in order.
    pub(crate) turns: Vec<Turn<'a>>,
}

/// One turn.
#[derive(Debug)]
pub(crate) enum Turn<'a> {
    /// The person speaks.
    User(&'a Message),
    /// The model speaks, or asks for tools.
    Assistant(&'a Message),
    /// The outcomes of all calls the model asked for in the turn before.
    Outcomes(Vec<Outcome<'a>>),
}

/// The outcome of a call.
#[derive(Debug)]
pub(crate) struct Outcome<'a> {
    pub(crate) call_id: &'a str,
    pub(crate) tool: &'a str,
    pub(crate) text: &'a str,
    pub(crate) failed: bool,
    pub(crate) media: &'a [Media],
}

impl<'a> Conversation<'a> {
    /// The turns of `messages`.
    ///
    /// # Errors
    /// [`ModelError::Unsupported`] when there are none, or a tool's message answers no call.
    pub(crate) fn of(messages: &'a [Message]) -> Result<Self, ModelError> {
        let mut system: Vec<&str> = Vec::new();
        let mut turns: Vec<Turn<'a>> = Vec::new();
        for message in messages {
            match message.role {
                Role::System => system.extend(message.content.as_deref()),
                Role::User => turns.push(Turn::User(message)),
                Role::Assistant => {
                    turns.push(Turn::Assistant(message));
                    if !message.tool_calls.is_empty() {
                        turns.push(Turn::Outcomes(unanswered(message)));
                    }
                }
                Role::Tool => answer(message, &mut turns)?,
            }
        }
        if turns.is_empty() {
            return Err(ModelError::Unsupported("there is no message to answer".to_owned()));
        }
        Ok(Self { system: system.join("\n"), turns })
    }
}

fn unanswered(message: &Message) -> Vec<Outcome<'_>> {
    let calls = message.tool_calls.iter();
    calls
        .map(|call| Outcome { call_id: &call.id, tool: &call.name, text: NO_OUTCOME, failed: true, media: &[] })
        .collect()
}

/// Puts a tool's message in the place of its call.
fn answer<'a>(message: &'a Message, turns: &mut [Turn<'a>]) -> Result<(), ModelError> {
    let wrong = || ModelError::Unsupported(format!("tool message {} answers no call", message.id));
    let answers = message.answers.as_ref().ok_or_else(wrong)?;
    let place = turns.iter_mut().rev().find_map(|turn| match turn {
        Turn::Outcomes(all) => all.iter_mut().find(|outcome| outcome.call_id == answers.call_id),
        _ => None,
    });
    let outcome = place.ok_or_else(wrong)?;
    outcome.text = message.content.as_deref().unwrap_or_default();
    outcome.failed = answers.failed;
    outcome.media = &message.media;
    Ok(())
}

/// What this protocol and model want given back with `message`; nothing of any other's.
pub(crate) fn replayed<'a>(message: &'a Message, protocol: &str, model: &str) -> &'a [Value] {
    match &message.replay {
        Some(replay) if replay.protocol == protocol && replay.model == model => &replay.items,
        _ => &[],
    }
}
