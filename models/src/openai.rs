//! Any server that speaks OpenAI's chat-completions protocol, through rig-core. Always streamed, with usage.
//! rig frames, decodes and normalises the answers; the messages are written here (see `request`), because rig's own
//! encoding loses what the log promises to keep: exact arguments, file names, plain system strings, long call ids.

mod answer;
mod error;
mod http;
mod request;
mod wire;

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use futures::StreamExt;
use rig_core::Model;
use rig_core::providers::openai::OpenAIConfig;
use rig_core::providers::openai::wire::{Auth, Chat, OPENAI};
use secrecy::{ExposeSecret, SecretString};
use tokio::time::Instant;

use crate::options::{Effort, SetupError, Timeouts, check_model, key_header};
use crate::port::{ChatModel, ChatRequest, ChatStream, ModelError, ModelInfo};
use crate::retry::{RetryPolicy, Retrying};
use answer::Live;
use http::Http;
use wire::{DaybookChat, Seen};

/// Where a model is and how to call it.
#[derive(Debug, Clone)]
pub struct OpenAiOptions {
    /// The address that `/chat/completions` is appended to, such as `https://api.openai.com/v1`.
    pub base_url: String,
    /// The key, sent as a bearer token; none for servers that ask for none.
    pub api_key: Option<SecretString>,
    /// The provider's id of the model.
    pub model: String,
    /// The provider's name, for people: `OpenAI`.
    pub provider_name: String,
    /// The kind of model as clients of the AgentOS API know it: `OpenAIChat`.
    pub class: String,
    /// The most tokens of an answer whose request does not say.
    pub max_tokens: Option<u64>,
    /// How much the model thinks before it speaks; for models that take `reasoning_effort`.
    pub reasoning_effort: Option<Effort>,
    /// Requests with the same key find each other's cached prompts more often; for servers that take
    /// `prompt_cache_key`.
    pub prompt_cache_key: Option<String>,
    /// How long to wait.
    pub timeouts: Timeouts,
    /// How often to try again, and when.
    pub retry: RetryPolicy,
}

impl OpenAiOptions {
    /// `model` at OpenAI itself, without a key, with the usual timeouts and retries.
    pub fn new(model: impl Into<String>) -> Self {
        Self {
            base_url: "https://api.openai.com/v1".to_owned(),
            api_key: None,
            model: model.into(),
            provider_name: "OpenAI".to_owned(),
            class: "OpenAIChat".to_owned(),
            max_tokens: None,
            reasoning_effort: None,
            prompt_cache_key: None,
            timeouts: Timeouts::default(),
            retry: RetryPolicy::default(),
        }
    }
}

/// A model behind an OpenAI-compatible chat-completions server. Does not retry: see [`OpenAiChat::retrying`].
#[derive(Clone)]
pub struct OpenAiChat {
    info: ModelInfo,
    chat: Chat,
    http: Http,
    timeouts: Timeouts,
    api_key: Option<SecretString>,
    defaults: request::Defaults,
}

impl fmt::Debug for OpenAiChat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenAiChat")
            .field("info", &self.info)
            .field("base_url", &self.chat.provider.base_url)
            .field("timeouts", &self.timeouts)
            .finish_non_exhaustive()
    }
}

impl OpenAiChat {
    /// The model `options` describe. Connects to nothing yet.
    ///
    /// # Errors
    /// [`SetupError`] when the address, model or key cannot be right.
    pub fn new(options: &OpenAiOptions) -> Result<Self, SetupError> {
        let model = check_model(&options.model, &options.base_url)?;
        key_header(model, "Bearer ", options.api_key.as_ref())?;
        let key = options.api_key.as_ref().map_or("", |key| key.expose_secret());
        // OpenAI's own dialect knows which models want `max_completion_tokens`; servers that send no finish reason
        // before `[DONE]` are understood too.
        let dialect = OPENAI.with_quirks(OPENAI.quirks.done_without_finish_reason());
        let provider = OpenAIConfig::with_key(&dialect, key)
            .with_base_url(options.base_url.trim_end_matches('/'))
            .with_auth(Auth::OptionalBearer);
        let http = Http::new(options.timeouts.connect)
            .map_err(|error| SetupError::Client { model: model.to_owned(), reason: error.to_string() })?;
        Ok(Self {
            info: ModelInfo {
                id: model.to_owned(),
                provider: options.provider_name.clone(),
                class: options.class.clone(),
            },
            chat: Chat::new(provider, model),
            http,
            timeouts: options.timeouts,
            api_key: options.api_key.clone(),
            defaults: request::Defaults {
                max_tokens: options.max_tokens,
                reasoning_effort: options.reasoning_effort,
                prompt_cache_key: options.prompt_cache_key.clone(),
            },
        })
    }

    /// The model `options` describe, tried again as `options.retry` says.
    ///
    /// # Errors
    /// As [`OpenAiChat::new`].
    pub fn retrying(options: &OpenAiOptions) -> Result<Retrying<Self>, SetupError> {
        Ok(Retrying::new(Self::new(options)?, options.retry))
    }
}

#[async_trait]
impl ChatModel for OpenAiChat {
    fn info(&self) -> &ModelInfo {
        &self.info
    }

    async fn stream(&self, request: ChatRequest) -> Result<ChatStream, ModelError> {
        let started = Instant::now();
        let seen = Arc::new(Seen::default());
        let wire = DaybookChat::new(self.chat.clone(), request::messages(&request.messages)?, Arc::clone(&seen));
        let reply = Model::new(wire, self.http.clone())
            .stream(request::parameters(&request, &self.defaults)?)
            .map_err(|error| error::model_error(&error, &seen, self.api_key.as_ref()))?;
        let live = Live::new(reply, seen, self.timeouts, self.api_key.clone(), started);
        Ok(futures::stream::unfold(live, |mut live| async move { live.next().await.map(|piece| (piece, live)) })
            .boxed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(base_url: &str) -> OpenAiOptions {
        OpenAiOptions { base_url: base_url.to_owned(), ..OpenAiOptions::new("gpt-5") }
    }

    #[test]
    fn wrong_options_are_refused_with_a_reason() {
        assert!(matches!(OpenAiChat::new(&options("localhost")), Err(SetupError::BaseUrl { .. })));
        assert!(matches!(OpenAiChat::new(&options("ftp://h/v1")), Err(SetupError::BaseUrl { .. })));
        let Err(error) = OpenAiChat::new(&options("https://me:s3cret@h/v1")) else { panic!("accepted") };
        assert!(!error.to_string().contains("s3cret"), "{error}");
        assert!(matches!(OpenAiChat::new(&OpenAiOptions::new("  ")), Err(SetupError::NoModel)));
        let key = OpenAiOptions { api_key: Some("two\nlines".into()), ..OpenAiOptions::new("gpt-5") };
        assert!(matches!(OpenAiChat::new(&key), Err(SetupError::ApiKey(_))));
    }

    #[test]
    fn debug_shows_no_key() {
        let options = OpenAiOptions { api_key: Some("sk-secret".into()), ..OpenAiOptions::new("gpt-5") };
        let model = OpenAiChat::retrying(&options).unwrap();
        assert!(!format!("{options:?} {model:?}").contains("sk-secret"));
    }
}
