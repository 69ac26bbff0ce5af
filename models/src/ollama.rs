//! Ollama's own chat, streamed as lines of JSON.
//! Source: <https://docs.ollama.com/api/chat> and the pages on streaming, thinking, tool calling, structured outputs and
//! errors there.

mod answer;
mod request;

use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use serde_json::Value;

use crate::options::{Effort, ModelOptions, Reasoning, SetupError, key_header};
use crate::port::{ChatRequest, ModelError};
use crate::provider::{Protocol, Reader};

/// A model behind an Ollama server.
#[derive(Debug)]
pub(crate) struct Ollama {
    model: String,
    key: Option<HeaderValue>,
    max_tokens: Option<u64>,
    context_tokens: Option<u64>,
    reasoning: Option<Reasoning>,
    keep_alive: Option<String>,
}

impl Ollama {
    pub(crate) fn new(model: &str, options: &ModelOptions) -> Result<Self, SetupError> {
        if let Some(Reasoning { effort, budget_tokens, show }) = options.reasoning {
            let wrong = |reason: &str| Err(options.wrong("reasoning", reason));
            if budget_tokens.is_some() {
                return wrong("there is no budget_tokens here; set effort");
            }
            if show == Some(false) {
                return wrong("thoughts cannot be hidden here; effort: none turns them off");
            }
            if matches!(effort, Some(Effort::Minimal | Effort::XHigh)) {
                return wrong("effort is one of none, low, medium, high or max here");
            }
        }
        if options.context_tokens == Some(0) {
            return Err(options.wrong("context_tokens", "it must be at least 1"));
        }
        Ok(Self {
            model: model.to_owned(),
            key: key_header(model, "Bearer ", options.api_key.as_ref())?,
            max_tokens: options.max_tokens,
            context_tokens: options.context_tokens,
            reasoning: options.reasoning,
            keep_alive: options.keep_alive.clone(),
        })
    }
}

impl Protocol for Ollama {
    fn path(&self) -> String {
        "/api/chat".to_owned()
    }

    fn headers(&self) -> HeaderMap {
        self.key.iter().map(|key| (AUTHORIZATION, key.clone())).collect()
    }

    fn body(&self, request: &ChatRequest) -> Result<Value, ModelError> {
        self.write(request)
    }

    fn reader(&self) -> Box<dyn Reader> {
        Box::new(answer::Lines::default())
    }

    fn is_lines(&self) -> bool {
        true
    }
}
