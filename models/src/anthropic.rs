//! Anthropic's Messages API, streamed.
//! Source: <https://platform.claude.com/docs/en/api/messages> and the guides on streaming, thinking, tool use,
//! structured outputs and prompt caching there.

mod answer;
mod request;

use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use serde_json::Value;

use crate::options::{CacheTime, Effort, ModelOptions, Reasoning, SetupError, key_header};
use crate::port::{ChatRequest, ModelError};
use crate::provider::{Protocol, Reader};

/// What this protocol's replayed items are marked with.
const PROTOCOL: &str = "anthropic";
/// The version of the protocol that is spoken here.
const VERSION: &str = "2023-06-01";
/// The protocol has no default, so this is ours.
const MAX_TOKENS: u64 = 8192;
/// The least a thinking budget may be, by the protocol.
const MIN_BUDGET: u64 = 1024;

/// A model behind the Messages API.
#[derive(Debug)]
pub(crate) struct Anthropic {
    model: String,
    key: Option<HeaderValue>,
    max_tokens: u64,
    reasoning: Option<Reasoning>,
    prompt_cache: Option<CacheTime>,
}

impl Anthropic {
    pub(crate) fn new(model: &str, options: &ModelOptions) -> Result<Self, SetupError> {
        let max_tokens = options.max_tokens.unwrap_or(MAX_TOKENS);
        if let Some(Reasoning { effort, budget_tokens, .. }) = options.reasoning {
            let wrong = |reason: &str| Err(options.wrong("reasoning", reason));
            if effort == Some(Effort::Minimal) {
                return wrong("effort is one of none, low, medium, high, xhigh or max here");
            }
            match budget_tokens {
                Some(_) if effort == Some(Effort::None) => {
                    return wrong("effort none leaves nothing for budget_tokens");
                }
                Some(budget) if budget < MIN_BUDGET => return wrong("budget_tokens must be at least 1024"),
                Some(budget) if budget >= max_tokens => {
                    return wrong("budget_tokens must be less than max_tokens, which is 8192 unless set");
                }
                _ => {}
            }
        }
        Ok(Self {
            model: model.to_owned(),
            key: key_header(model, "", options.api_key.as_ref())?,
            max_tokens,
            reasoning: options.reasoning,
            prompt_cache: options.prompt_cache,
        })
    }
}

impl Protocol for Anthropic {
    fn path(&self) -> String {
        "/v1/messages".to_owned()
    }

    fn headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(HeaderName::from_static("anthropic-version"), HeaderValue::from_static(VERSION));
        if let Some(key) = &self.key {
            headers.insert(HeaderName::from_static("x-api-key"), key.clone());
        }
        headers
    }

    fn body(&self, request: &ChatRequest) -> Result<Value, ModelError> {
        self.write(request)
    }

    fn reader(&self) -> Box<dyn Reader> {
        Box::new(answer::Events::new(&self.model))
    }
}
