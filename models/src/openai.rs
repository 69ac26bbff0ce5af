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
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt;
use rig_core::Model;
use rig_core::providers::openai::OpenAIConfig;
use rig_core::providers::openai::wire::{Auth, Chat, OPENAI};
use secrecy::{ExposeSecret, SecretString};
use tokio::time::Instant;

use crate::port::{ChatModel, ChatRequest, ChatStream, ModelError, ModelInfo};
use crate::retry::{RetryPolicy, Retrying};
use answer::Live;
use http::Http;
use wire::{DaybookChat, Seen};

/// How long to wait for what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// For a connection. 10 s.
    pub connect: Duration,
    /// From the start of the call to the first piece of the answer. 120 s.
    pub first_token: Duration,
    /// From one piece of the answer to the next. 60 s.
    pub between_tokens: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            first_token: Duration::from_secs(120),
            between_tokens: Duration::from_secs(60),
        }
    }
}

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
            timeouts: Timeouts::default(),
            retry: RetryPolicy::default(),
        }
    }
}

/// Why a model could not be set up from its options.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// The address is none.
    #[error("base_url `{url}` of model `{model}` must be an http:// or https:// address without a password: {reason}")]
    BaseUrl {
        /// The model.
        model: String,
        /// The address as given, without what might be a password.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// No model is named.
    #[error("a model needs its provider's id, such as `gpt-5-mini`: set `id`")]
    NoModel,
    /// The key cannot be sent in a header.
    #[error("the API key of model `{0}` holds characters no key has (a line break, perhaps): set it again")]
    ApiKey(String),
    /// The HTTP client could not be built.
    #[error("the HTTP client for model `{model}` could not be built: {reason}")]
    Client {
        /// The model.
        model: String,
        /// The client's own words.
        reason: String,
    },
}

/// A model behind an OpenAI-compatible chat-completions server. Does not retry: see [`OpenAiChat::retrying`].
#[derive(Clone)]
pub struct OpenAiChat {
    info: ModelInfo,
    chat: Chat,
    http: Http,
    timeouts: Timeouts,
    api_key: Option<SecretString>,
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
        let model = options.model.trim();
        if model.is_empty() {
            return Err(SetupError::NoModel);
        }
        check_base_url(model, &options.base_url)?;
        let key = options.api_key.as_ref().map_or("", |key| key.expose_secret());
        if reqwest::header::HeaderValue::from_str(&format!("Bearer {key}")).is_err() {
            return Err(SetupError::ApiKey(model.to_owned()));
        }
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

fn check_base_url(model: &str, base_url: &str) -> Result<(), SetupError> {
    let wrong = |url: &str, reason: &str| SetupError::BaseUrl {
        model: model.to_owned(),
        url: url.to_owned(),
        reason: reason.to_owned(),
    };
    match reqwest::Url::parse(base_url) {
        Err(error) => Err(wrong(base_url.rsplit('@').next().unwrap_or_default(), &error.to_string())),
        Ok(url) if !matches!(url.scheme(), "http" | "https") => Err(wrong(url.scheme(), "it has another scheme")),
        Ok(url) if !url.username().is_empty() || url.password().is_some() => {
            Err(wrong(url.host_str().unwrap_or_default(), "put the key into api_key"))
        }
        Ok(url) if url.query().is_some() || url.fragment().is_some() => {
            Err(wrong(url.host_str().unwrap_or_default(), "it must end before any ? or #"))
        }
        Ok(_) => Ok(()),
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
            .stream(request::parameters(&request)?)
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
