//! OpenAI's Responses API, streamed and stateless: nothing is stored at the provider, so the whole conversation is sent
//! every time, and encrypted thoughts are given back while tools are called.
//! Source: <https://platform.openai.com/docs/api-reference/responses> and `responses-streaming` there.

mod answer;
mod request;

use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use serde_json::Value;

use crate::options::{ModelOptions, Reasoning, SetupError, key_header};
use crate::port::{ChatRequest, ModelError};
use crate::provider::{Protocol, Reader};

/// What this protocol's replayed items are marked with.
const PROTOCOL: &str = "openai-responses";

/// A model behind the Responses API.
#[derive(Debug)]
pub(crate) struct Responses {
    model: String,
    key: Option<HeaderValue>,
    max_tokens: Option<u64>,
    reasoning: Option<Reasoning>,
    prompt_cache_key: Option<String>,
}

impl Responses {
    pub(crate) fn new(model: &str, options: &ModelOptions) -> Result<Self, SetupError> {
        if options.reasoning.is_some_and(|reasoning| reasoning.budget_tokens.is_some()) {
            return Err(options.wrong("reasoning", "there is no budget_tokens here; set effort"));
        }
        Ok(Self {
            model: model.to_owned(),
            key: key_header(model, "Bearer ", options.api_key.as_ref())?,
            max_tokens: options.max_tokens,
            reasoning: options.reasoning,
            prompt_cache_key: options.prompt_cache_key.clone(),
        })
    }

    /// Whether it thinks: other models refuse to be asked for encrypted thoughts.
    fn thinks(&self) -> bool {
        let id = self.model.rsplit('/').next().unwrap_or_default();
        let known = ["o1", "o3", "o4", "gpt-5", "gpt-6"].iter().any(|start| id.starts_with(start));
        self.reasoning.is_some() || known && !id.contains("-chat")
    }
}

impl Protocol for Responses {
    fn path(&self) -> String {
        "/responses".to_owned()
    }

    fn headers(&self) -> HeaderMap {
        self.key.iter().map(|key| (AUTHORIZATION, key.clone())).collect()
    }

    fn body(&self, request: &ChatRequest) -> Result<Value, ModelError> {
        self.write(request)
    }

    fn reader(&self) -> Box<dyn Reader> {
        Box::new(answer::Events::new(&self.model))
    }
}
