//! Google's Gemini API, by `streamGenerateContent`. The key goes in a header, never in the address.
//! Source: <https://ai.google.dev/api/generate-content> and the guides on function calling, thinking, thought signatures
//! and structured output there.

mod answer;
mod request;

use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use serde_json::Value;

use crate::options::{Effort, ModelOptions, Reasoning, SetupError, key_header};
use crate::port::{ChatRequest, ModelError};
use crate::provider::{Protocol, Reader};

/// What this protocol's replayed items are marked with.
const PROTOCOL: &str = "gemini";

/// A model behind the Gemini API.
#[derive(Debug)]
pub(crate) struct Gemini {
    model: String,
    key: Option<HeaderValue>,
    max_tokens: Option<u64>,
    reasoning: Option<Reasoning>,
}

impl Gemini {
    pub(crate) fn new(model: &str, options: &ModelOptions) -> Result<Self, SetupError> {
        let name = model.strip_prefix("models/").unwrap_or(model);
        if !name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c)) {
            return Err(options.wrong("id", "expected a name such as gemini-3-flash, of letters, digits, - _ and ."));
        }
        if let Some(Reasoning { effort, budget_tokens, .. }) = options.reasoning {
            if effort.is_some() && budget_tokens.is_some() {
                return Err(options.wrong("reasoning", "set either effort or budget_tokens, the provider takes one"));
            }
            if effort == Some(Effort::Max) {
                return Err(
                    options.wrong("reasoning", "effort is one of none, minimal, low, medium, high or xhigh here")
                );
            }
        }
        Ok(Self {
            model: name.to_owned(),
            key: key_header(model, "", options.api_key.as_ref())?,
            max_tokens: options.max_tokens,
            reasoning: options.reasoning,
        })
    }
}

impl Protocol for Gemini {
    fn path(&self) -> String {
        format!("/models/{}:streamGenerateContent?alt=sse", self.model)
    }

    fn headers(&self) -> HeaderMap {
        self.key.iter().map(|key| (HeaderName::from_static("x-goog-api-key"), key.clone())).collect()
    }

    fn body(&self, request: &ChatRequest) -> Result<Value, ModelError> {
        self.write(request)
    }

    fn reader(&self) -> Box<dyn Reader> {
        Box::new(answer::Chunks::new(&self.model))
    }
}
