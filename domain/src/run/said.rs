//! What was said in a run, and what of it counts: an answer that missed its shape stays recorded, and is no part of it.

use super::state::RunState;
use crate::message::{Message, Role};

impl RunState {
    /// Everything the model said in this run, in order, without answers that missed their shape and were asked for again:
    /// what a watcher's text frames add up to.
    pub fn content(&self) -> String {
        self.said().filter_map(|message| message.content.as_deref()).chain(self.partial.as_deref()).collect()
    }

    /// What the model said last.
    pub fn answer(&self) -> Option<&str> {
        self.said().filter_map(|message| message.content.as_deref()).last()
    }

    fn said(&self) -> impl Iterator<Item = &Message> {
        standing(self.own_messages()).filter(|message| message.role == Role::Assistant)
    }

    /// What the model thought aloud, all of it.
    pub fn reasoning(&self) -> String {
        self.own_messages().iter().filter_map(|message| message.reasoning.as_deref()).collect()
    }

    /// What was said in this run itself, without what it took over from another.
    pub fn own_messages(&self) -> &[Message] {
        self.messages.get(self.base..).unwrap_or_default()
    }

    /// What later runs see of this one: all messages but the answers that missed their shape, and what was said to that.
    pub fn for_history(&self) -> Vec<Message> {
        standing(&self.messages).cloned().collect()
    }

    /// How often this run's model was told that its answer misses its shape.
    pub fn repairs(&self) -> u32 {
        let count = self.own_messages().iter().filter(|message| message.repair).count();
        u32::try_from(count).unwrap_or(u32::MAX)
    }

    /// Whether the model was just told that its answer misses its shape, and has not answered that.
    pub(super) fn is_being_repaired(&self) -> bool {
        self.own_messages().last().is_some_and(|message| message.repair)
    }

    /// Whether the last message is an answer: what the model says when it calls no tools.
    pub(super) fn ends_with_an_answer(&self) -> bool {
        let last = self.own_messages().last().filter(|_| self.open_call.is_none());
        last.is_some_and(|message| message.role == Role::Assistant && message.tool_calls.is_empty())
    }
}

/// `messages` without the repairs and the answers they are about.
fn standing(messages: &[Message]) -> impl Iterator<Item = &Message> {
    let missed = |at: usize| messages.get(at + 1).is_some_and(|next| next.repair);
    messages.iter().enumerate().filter(move |(at, message)| !message.repair && !missed(*at)).map(|(_, message)| message)
}
