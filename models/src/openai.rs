//! OpenAI's chat completions, which many servers speak, streamed. Not all of them stream when asked to, and most differ
//! from OpenAI somewhere: what is read of their answers (see `chunk`) is read leniently.
//! Source: <https://platform.openai.com/docs/api-reference/chat> and `chat-streaming` there.

mod answer;
mod chunk;
mod request;

use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use serde_json::Value;

use crate::options::{Effort, ModelOptions, Reasoning, SetupError, key_header};
use crate::port::{ChatRequest, ModelError};
use crate::provider::{Protocol, Reader};

/// A model behind a server that speaks chat completions.
#[derive(Debug)]
pub(crate) struct Chat {
    model: String,
    key: Option<HeaderValue>,
    max_tokens: Option<u64>,
    effort: Option<Effort>,
    prompt_cache_key: Option<String>,
}

impl Chat {
    pub(crate) fn new(model: &str, options: &ModelOptions) -> Result<Self, SetupError> {
        if let Some(Reasoning { budget_tokens, show, .. }) = options.reasoning
            && (budget_tokens.is_some() || show.is_some())
        {
            let why = "chat completions know effort only; openai-responses shows thoughts";
            return Err(options.wrong("reasoning", why));
        }
        Ok(Self {
            model: model.to_owned(),
            key: key_header(model, "Bearer ", options.api_key.as_ref())?,
            max_tokens: options.max_tokens,
            effort: options.reasoning.and_then(|reasoning| reasoning.effort),
            prompt_cache_key: options.prompt_cache_key.clone(),
        })
    }

    /// The name of the limit of tokens. OpenAI's models that think refuse the old one, other servers know no other.
    fn limit(&self) -> &'static str {
        if thinks(&self.model) { "max_completion_tokens" } else { "max_tokens" }
    }
}

/// Whether `model` is one of OpenAI's that think. A gateway's name for one, with a slash in it, is not OpenAI's.
fn thinks(model: &str) -> bool {
    if model.contains('/') || model.starts_with("gpt-5.3-chat") {
        return false;
    }
    if let Some(rest) = model.strip_prefix("gpt-") {
        let generation = rest.split(['.', '-']).next().unwrap_or_default();
        return matches!(generation.as_bytes(), [b'5'..=b'9']) || generation == "daybreak";
    }
    match model.as_bytes() {
        [b'o', digit, rest @ ..] => {
            digit.is_ascii_digit() && rest.first().is_none_or(|next| *next == b'-' || next.is_ascii_digit())
        }
        _ => false,
    }
}

impl Protocol for Chat {
    fn path(&self) -> String {
        "/chat/completions".to_owned()
    }

    fn headers(&self) -> HeaderMap {
        self.key.iter().map(|key| (AUTHORIZATION, key.clone())).collect()
    }

    fn body(&self, request: &ChatRequest) -> Result<Value, ModelError> {
        self.write(request)
    }

    fn reader(&self) -> Box<dyn Reader> {
        Box::new(answer::Chunks::default())
    }

    fn may_be_whole(&self) -> bool {
        true
    }
}
