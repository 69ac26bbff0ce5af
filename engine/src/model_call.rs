//! One model call of a run: pieces go to the watchers at once, the whole becomes the outcome.

use std::time::Instant;

use daybook_domain::message::{MOST_ARGUMENTS, Replay, kept_arguments};
use daybook_domain::run::{ErrorKind, ModelCallCompleted, ModelCallFailed, RequestedCall, RunEvent};
use daybook_models::{ChatEvent, ChatResponse, ModelError};
use futures::StreamExt;
use serde_json::Value;

use crate::drive::{Driver, Exit};
use crate::frame::FrameBody;
use crate::plan::{ModelCall, Partial};

/// What the watchers have seen of an answer.
#[derive(Default)]
struct Seen {
    text: String,
    provider_data: Option<Value>,
    /// When the first piece was shown.
    begun: Option<Instant>,
}

impl Driver {
    /// Calls the model; gives its outcome, or nothing when the run was cancelled meanwhile.
    pub async fn call_model(&mut self, call: ModelCall) -> Result<Vec<RunEvent>, Exit> {
        self.partial = Partial::default();
        let mut seen = Seen::default();
        let called = Instant::now();
        let (cancelled, stopping) = (self.cancelled.clone(), self.engine.stopping.clone());
        let outcome = tokio::select! {
            biased;
            () = cancelled.cancelled() => None,
            () = stopping.cancelled() => return Err(Exit::Moved),
            outcome = self.stream(&call, &mut seen) => Some(outcome?),
        };
        let at_ms = self.engine.now_ms();
        Ok(match outcome {
            None => {
                self.partial = Partial {
                    text: Some(seen.text).filter(|text| !text.is_empty()),
                    provider_data: seen.provider_data,
                    time_to_first_token: seen.begun.map(|begun| begun.duration_since(called).as_secs_f64()),
                };
                self.catch_up().await?;
                vec![]
            }
            Some(Ok(response)) => self.answered(call.call_id, response, at_ms),
            Some(Err(error)) => vec![RunEvent::ModelCallFailed(ModelCallFailed {
                call_id: call.call_id,
                error: kind(&error),
                message: self.engine.redactor.text(&error.to_string()).into(),
                partial: Some(seen.text).filter(|text| !text.is_empty()).into(),
                at_ms,
            })],
        })
    }

    async fn stream(&self, call: &ModelCall, seen: &mut Seen) -> Result<Result<ChatResponse, ModelError>, Exit> {
        let Some(model) = self.component.model.clone() else {
            let key = self.component.config.model().map(|model| model.key.as_str()).unwrap_or_default();
            let message = format!("this server no longer has the model {key:?} that the run started with");
            return Ok(Err(ModelError::Unsupported(message)));
        };
        let mut request = call.request.clone();
        for message in &mut request.messages {
            self.engine.inline_media(self.live.log, &self.live.hub.meta.session_id, &mut message.media).await?;
        }
        while self.live.start_unless_closing(|| ()).is_none() {
            // A cancel is being recorded: its token drops this future, unless the log does not take it.
            self.live.may_start().await;
        }
        let mut pieces = match model.stream(request).await {
            Ok(pieces) => pieces,
            Err(error) => return Ok(Err(error)),
        };
        while let Some(piece) = pieces.next().await {
            match piece {
                Ok(ChatEvent::Done(response)) => return Ok(Ok(*response)),
                Ok(piece) => self.show_chat(piece, seen),
                Err(error) => return Ok(Err(error)),
            }
        }
        Ok(Err(ModelError::Truncated("it ended without an end".to_owned())))
    }

    /// Whether the answer must have a shape: half of it has none, so it is shown as a whole.
    fn is_shaped(&self) -> bool {
        self.meta.output.is_some()
    }

    fn show_chat(&self, piece: ChatEvent, seen: &mut Seen) {
        let provider_data = seen.provider_data.clone();
        if matches!(piece, ChatEvent::Text(_) | ChatEvent::Reasoning(_)) && seen.begun.is_none() {
            // Clients of the AgentOS API count on an empty piece before the first word.
            seen.begun = Some(Instant::now());
            let (text, provider_data) = (Some(String::new()), provider_data.clone());
            if !self.is_shaped() {
                self.show_piece(FrameBody::Content { text, reasoning: None, provider_data });
            }
        }
        let piece = match piece {
            ChatEvent::Text(text) => {
                let text = self.engine.redactor.text(&text);
                seen.text.push_str(&text);
                if self.is_shaped() {
                    return;
                }
                FrameBody::Content { text: Some(text), reasoning: None, provider_data }
            }
            ChatEvent::Reasoning(text) => {
                let text = self.engine.redactor.text(&text);
                FrameBody::Content { text: None, reasoning: Some(text), provider_data: None }
            }
            ChatEvent::ProviderData(data) => {
                seen.provider_data = Some(data);
                return;
            }
            ChatEvent::ToolArguments { .. } | ChatEvent::Done(_) => return,
        };
        self.show_piece(piece);
    }

    /// The outcome of a call that the model answered, and that the answer misses its shape where it does. Such an answer is
    /// recorded and not shown: the one that is shown is the one that counts.
    fn answered(&mut self, call_id: String, response: ChatResponse, at_ms: i64) -> Vec<RunEvent> {
        let missed = self.missed(&call_id, &response);
        if self.is_shaped() && missed.is_none() && !response.text.is_empty() {
            let text = Some(self.engine.redactor.text(&response.text));
            self.show_piece(FrameBody::Content { text, reasoning: None, provider_data: None });
        }
        std::iter::once(self.completed(call_id, response, at_ms)).chain(missed).collect()
    }

    fn completed(&mut self, call_id: String, response: ChatResponse, at_ms: i64) -> RunEvent {
        let redactor = &self.engine.redactor;
        let mut tool_calls = Vec::with_capacity(response.tool_calls.len());
        for call in response.tool_calls {
            let kept = kept_arguments(redactor.json(&call.arguments));
            if kept != call.arguments && call.arguments.len() <= MOST_ARGUMENTS {
                self.arguments.insert(call.id.clone(), call.arguments);
            }
            tool_calls.push(RequestedCall { id: call.id, name: call.name, arguments: kept.into() });
        }
        RunEvent::ModelCallCompleted(ModelCallCompleted {
            call_id,
            text: redactor.text(&response.text).into(),
            reasoning: response.reasoning.map(|text| redactor.text(&text)).into(),
            replay: response.replay.map(|replay| unless_secret(redactor, replay)).into(),
            tool_calls,
            finish_reason: response.finish_reason,
            provider_data: response.provider_data,
            metrics: response.metrics,
            frame: 0,
            at_ms,
        })
    }
}

/// What may be kept of what a provider wants given back: all of it word for word, or, where it holds a secret, nothing.
fn unless_secret(redactor: &daybook_domain::redact::Redactor, mut replay: Replay) -> Replay {
    let mut clean = replay.items.clone();
    clean.iter_mut().for_each(|item| redactor.value(item));
    if clean != replay.items {
        replay.items.clear();
    }
    replay
}

fn kind(error: &ModelError) -> ErrorKind {
    match error {
        ModelError::Timeout(_) => ErrorKind::ModelTimeout,
        _ => ErrorKind::ModelProviderError,
    }
}
