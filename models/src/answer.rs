//! One answer as it grows: what a provider's events say goes in, the port's events come out.

use std::collections::VecDeque;
use std::time::Duration;

use daybook_domain::message::{CallMetrics, Replay, ToolCall};
use daybook_domain::usage::Usage;
use serde_json::{Map, Value};
use tokio::time::Instant;

use crate::port::{ChatEvent, ChatResponse, ModelError};
use crate::text::fresh_call_id;

/// An answer on its way.
pub(crate) struct Answer {
    started: Instant,
    first_piece: Option<Duration>,
    ready: VecDeque<ChatEvent>,
    text: String,
    reasoning: String,
    calls: Vec<ToolCall>,
    about: Map<String, Value>,
    /// Tokens, as far as told.
    pub(crate) usage: Usage,
    /// Why it stopped, in the port's words, once told.
    pub(crate) finish: Option<String>,
    /// Why the model, or a filter, refuses, once told.
    pub(crate) refusal: Option<String>,
    /// What must be given back with it.
    pub(crate) replay: Option<Replay>,
}

impl Answer {
    /// The answer to a call that began at `started`.
    pub(crate) fn new(started: Instant) -> Self {
        Self {
            started,
            first_piece: None,
            ready: VecDeque::new(),
            text: String::new(),
            reasoning: String::new(),
            calls: Vec::new(),
            about: Map::new(),
            usage: Usage::default(),
            finish: None,
            refusal: None,
            replay: None,
        }
    }

    /// The next event that is ready.
    pub(crate) fn next(&mut self) -> Option<ChatEvent> {
        self.ready.pop_front()
    }

    /// Whether a piece of it was there.
    pub(crate) fn has_begun(&self) -> bool {
        self.first_piece.is_some()
    }

    /// A sign of the answer that is shown to nobody: it counts as the first piece.
    pub(crate) fn begun(&mut self) {
        self.first_piece.get_or_insert_with(|| self.started.elapsed());
    }

    /// More text.
    pub(crate) fn text(&mut self, text: &str) {
        if !text.is_empty() {
            self.text.push_str(text);
            self.piece(ChatEvent::Text(text.to_owned()));
        }
    }

    /// More thoughts.
    pub(crate) fn reasoning(&mut self, text: &str) {
        if !text.is_empty() {
            self.reasoning.push_str(text);
            self.piece(ChatEvent::Reasoning(text.to_owned()));
        }
    }

    /// A call begins; gives its index. Its id is the provider's, unless that is missing or another call's of this
    /// answer.
    pub(crate) fn start_call(&mut self, id: Option<&str>, name: &str) -> usize {
        let given = id.filter(|id| !id.is_empty() && self.calls.iter().all(|call| call.id != *id));
        let id = given.map_or_else(fresh_call_id, str::to_owned);
        self.calls.push(ToolCall { id, name: name.to_owned(), arguments: String::new() });
        self.begun();
        self.calls.len() - 1
    }

    /// More of a call's arguments.
    pub(crate) fn arguments(&mut self, index: usize, delta: &str) {
        let Some(call) = self.calls.get_mut(index) else { return };
        if delta.is_empty() {
            return;
        }
        call.arguments.push_str(delta);
        let (id, name, delta) = (call.id.clone(), call.name.clone(), delta.to_owned());
        self.piece(ChatEvent::ToolArguments { index, id, name, delta });
    }

    /// A call's arguments as the provider tells them at once, when it told no pieces of them.
    pub(crate) fn whole_arguments(&mut self, index: usize, arguments: &str) {
        if self.calls.get(index).is_some_and(|call| call.arguments.is_empty()) {
            self.arguments(index, if arguments.trim().is_empty() { "{}" } else { arguments });
        }
    }

    /// A call, by its index.
    pub(crate) fn call(&self, index: usize) -> Option<&ToolCall> {
        self.calls.get(index)
    }

    /// What the provider told about the response; told on when it is news.
    pub(crate) fn about(&mut self, told: &[(&str, Option<&str>)]) {
        let mut news = false;
        for (key, value) in told {
            let Some(value) = value.filter(|value| !value.is_empty()) else { continue };
            if self.about.get(*key).and_then(Value::as_str) != Some(value) {
                self.about.insert((*key).to_owned(), value.into());
                news = true;
            }
        }
        if news {
            self.ready.push_back(ChatEvent::ProviderData(Value::Object(self.about.clone())));
        }
    }

    fn piece(&mut self, event: ChatEvent) {
        self.begun();
        self.ready.push_back(event);
    }

    /// The provider ended the answer: makes the whole of it the last event.
    ///
    /// # Errors
    /// [`ModelError::Refused`] when nothing was said because of a refusal, [`ModelError::Malformed`] when nothing was
    /// said without a reason.
    pub(crate) fn end(&mut self) -> Result<(), ModelError> {
        if self.text.is_empty() && self.calls.is_empty() {
            match (self.refusal.take(), self.finish.as_deref()) {
                (Some(why), _) => return Err(ModelError::Refused(why)),
                (None, Some(word @ ("refusal" | "content_filter"))) => {
                    return Err(ModelError::Refused(format!("it stopped with {word} and said no more")));
                }
                (None, None) => return Err(nothing()),
                (None, Some("tool_calls" | "function_call")) => {
                    return Err(ModelError::Malformed("the model asked for a tool without naming it".to_owned()));
                }
                (None, Some(_)) => {}
            }
        }
        let usual = if self.calls.is_empty() { "stop" } else { "tool_calls" };
        let response = ChatResponse {
            text: std::mem::take(&mut self.text),
            reasoning: Some(std::mem::take(&mut self.reasoning)).filter(|text| !text.is_empty()),
            replay: self.replay.take(),
            tool_calls: std::mem::take(&mut self.calls),
            finish_reason: self.finish.take().unwrap_or_else(|| usual.to_owned()),
            provider_data: (!self.about.is_empty()).then(|| Value::Object(std::mem::take(&mut self.about))),
            metrics: CallMetrics {
                usage: self.usage,
                time_to_first_token: self.first_piece.map(|time| time.as_secs_f64()),
                duration: self.started.elapsed().as_secs_f64(),
            },
        };
        self.ready.push_back(ChatEvent::Done(Box::new(response)));
        Ok(())
    }
}

/// The answer that has nothing in it.
pub(crate) fn nothing() -> ModelError {
    ModelError::Malformed("the model answered nothing".to_owned())
}
