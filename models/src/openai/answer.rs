//! One streamed answer: rig's items in, the port's events out, with the clock running.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use daybook_domain::message::{CallMetrics, ToolCall};
use daybook_domain::usage::Usage;
use futures::StreamExt;
use rig_core::message::{self, AssistantContent};
use rig_core::operation::Completion;
use rig_core::streaming::{Item, PartKind, StreamEvent, Streamed};
use secrecy::SecretString;
use serde_json::{Map, Value};
use tokio::time::{Instant, timeout_at};

use super::error::model_error;
use super::wire::Seen;
use crate::answer::nothing;
use crate::options::Timeouts;
use crate::port::{ChatEvent, ChatResponse, ModelError};
use crate::text::fresh_call_id;

/// An answer on its way. Dropping it closes the connection.
pub(super) struct Live {
    /// Gone when the answer ended, one way or the other.
    reply: Option<Streamed<Completion>>,
    seen: Arc<Seen>,
    timeouts: Timeouts,
    api_key: Option<SecretString>,
    started: Instant,
    /// When the next piece must be here.
    deadline: Instant,
    first_piece: Option<Duration>,
    ready: VecDeque<ChatEvent>,
    answer: ChatResponse,
    reasoning: String,
    /// rig's numbers of the parts that are calls, in the order of `answer.tool_calls`.
    call_parts: Vec<usize>,
    told: Map<String, Value>,
}

impl Live {
    /// The answer `reply` brings, for a call that began at `started`.
    pub(super) fn new(
        reply: Streamed<Completion>,
        seen: Arc<Seen>,
        timeouts: Timeouts,
        api_key: Option<SecretString>,
        started: Instant,
    ) -> Self {
        Self {
            reply: Some(reply),
            seen,
            timeouts,
            api_key,
            started,
            deadline: started + timeouts.first_token,
            first_piece: None,
            ready: VecDeque::new(),
            answer: ChatResponse::default(),
            reasoning: String::new(),
            call_parts: Vec::new(),
            told: Map::new(),
        }
    }

    /// The next event; none after the end or an error.
    pub(super) async fn next(&mut self) -> Option<Result<ChatEvent, ModelError>> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(Ok(event));
            }
            let read = timeout_at(self.deadline, self.reply.as_mut()?.next()).await;
            let failure = match read {
                Ok(Some(Ok(Item::Event(event)))) => {
                    self.deadline = Instant::now() + self.timeouts.between_tokens;
                    self.tell_provider_data();
                    self.take(event);
                    continue;
                }
                Ok(Some(Ok(Item::Unknown(_)))) => continue,
                Ok(Some(Err(error))) => model_error(&error, &self.seen, self.api_key.as_ref()),
                Ok(None) => match self.end().await {
                    Ok(()) => continue,
                    Err(error) => error,
                },
                Err(_) => self.too_slow(),
            };
            self.reply = None;
            return Some(Err(failure));
        }
    }

    fn too_slow(&self) -> ModelError {
        ModelError::Timeout(match self.first_piece {
            None => format!("no answer within {:?}", self.timeouts.first_token),
            Some(_) => format!("nothing more for {:?}", self.timeouts.between_tokens),
        })
    }

    /// Passes on what the provider told about the response, when there is more than before.
    fn tell_provider_data(&mut self) {
        let noted = self.seen.noted();
        if noted.provider_data != self.told {
            self.told.clone_from(&noted.provider_data);
            self.ready.push_back(ChatEvent::ProviderData(Value::Object(self.told.clone())));
        }
    }

    fn take(&mut self, event: StreamEvent) {
        match event {
            StreamEvent::Text { text, .. } => {
                self.answer.text.push_str(&text);
                self.piece(ChatEvent::Text(text));
            }
            StreamEvent::Reasoning { text, .. } => {
                self.reasoning.push_str(&text);
                self.piece(ChatEvent::Reasoning(text));
            }
            StreamEvent::Start { part, kind: PartKind::ToolCall, name } => {
                self.start_call(part.index(), name.map(String::from).unwrap_or_default());
            }
            StreamEvent::Arguments { part, json } => {
                let Some(index) = self.call_parts.iter().position(|known| *known == part.index()) else { return };
                let call = &mut self.answer.tool_calls[index];
                call.arguments.push_str(&json);
                let (id, name) = (call.id.clone(), call.name.clone());
                self.piece(ChatEvent::ToolArguments { index, id, name, delta: json });
            }
            StreamEvent::End { part, content: AssistantContent::ToolCall(whole) } => {
                self.end_call(part.index(), &whole);
            }
            StreamEvent::Start { .. } | StreamEvent::End { .. } => {}
        }
    }

    fn piece(&mut self, event: ChatEvent) {
        self.first_piece.get_or_insert_with(|| self.started.elapsed());
        self.ready.push_back(event);
    }

    /// A call began. Its id is the provider's, unless that is missing or another call's of this answer.
    fn start_call(&mut self, part: usize, name: String) {
        let given = self.seen.noted().named_calls.get(self.call_parts.len()).cloned().flatten();
        let calls = &mut self.answer.tool_calls;
        let id = given.filter(|id| calls.iter().all(|call| call.id != *id)).unwrap_or_else(fresh_call_id);
        calls.push(ToolCall { id, name, arguments: String::new() });
        self.call_parts.push(part);
        self.first_piece.get_or_insert_with(|| self.started.elapsed());
    }

    /// A call ended. Some servers send arguments as an object instead of a text: then there were no pieces of it.
    fn end_call(&mut self, part: usize, whole: &message::ToolCall) {
        let Some(index) = self.call_parts.iter().position(|known| *known == part) else { return };
        let call = &mut self.answer.tool_calls[index];
        if call.arguments.is_empty() {
            if let Some(text) = &whole.function.invalid_arguments {
                call.arguments.clone_from(text);
            } else if !whole.function.arguments.is_empty() {
                call.arguments = Value::Object(whole.function.arguments.clone()).to_string();
            }
        }
    }

    /// The provider ended the answer: makes the whole of it the last event.
    async fn end(&mut self) -> Result<(), ModelError> {
        let Some(reply) = self.reply.take() else { return Ok(()) };
        let end = reply.finish().await.map_err(|error| model_error(&error, &self.seen, self.api_key.as_ref()))?;
        self.tell_provider_data();
        let stated = self.seen.noted().finish.take();
        let mut answer = std::mem::take(&mut self.answer);
        answer.reasoning = (!self.reasoning.is_empty()).then(|| std::mem::take(&mut self.reasoning));
        if answer.text.is_empty() && answer.tool_calls.is_empty() {
            match stated.as_deref() {
                None => return Err(nothing()),
                Some("tool_calls" | "function_call") => {
                    return Err(ModelError::Malformed("the model asked for a tool without naming it".to_owned()));
                }
                Some(_) => {}
            }
        }
        let usual = if answer.tool_calls.is_empty() { "stop" } else { "tool_calls" };
        answer.finish_reason = stated.unwrap_or_else(|| usual.to_owned());
        answer.provider_data = (!self.told.is_empty()).then(|| Value::Object(std::mem::take(&mut self.told)));
        answer.metrics = CallMetrics {
            usage: usage(&end.usage),
            time_to_first_token: self.first_piece.map(|time| time.as_secs_f64()),
            duration: self.started.elapsed().as_secs_f64(),
        };
        self.ready.push_back(ChatEvent::Done(Box::new(answer)));
        Ok(())
    }
}

fn usage(usage: &rig_core::completion::Usage) -> Usage {
    let input_tokens = usage.input_tokens.unwrap_or_default();
    let output_tokens = usage.output_tokens.unwrap_or_default();
    Usage {
        input_tokens,
        output_tokens,
        total_tokens: usage.total_tokens.unwrap_or_else(|| input_tokens.saturating_add(output_tokens)),
        cache_read_tokens: usage.cached_input_tokens.unwrap_or_default(),
        cache_write_tokens: usage.cache_creation_input_tokens.unwrap_or_default(),
        reasoning_tokens: usage.reasoning_tokens.unwrap_or_default(),
    }
}
