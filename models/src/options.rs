//! What all providers are set up with.

use std::fmt;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};

use crate::retry::RetryPolicy;

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

/// How much a model thinks before it speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Effort {
    /// Not at all.
    None,
    /// As little as can be.
    Minimal,
    /// Little.
    Low,
    /// In between.
    Medium,
    /// Much.
    High,
    /// More.
    XHigh,
    /// As much as can be.
    Max,
}

impl Effort {
    /// Its name in all protocols and in the definitions.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Minimal => "minimal",
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
            Self::XHigh => "xhigh",
            Self::Max => "max",
        }
    }
}

/// Whether and how a model thinks before it speaks. What is absent is the provider's default.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Reasoning {
    /// How much.
    pub effort: Option<Effort>,
    /// How many tokens of it at most.
    pub budget_tokens: Option<u64>,
    /// Whether the thoughts, or what the provider tells of them, are wanted. They are, unless this says no.
    pub show: Option<bool>,
}

/// How long a provider keeps the beginning of a prompt for the next call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CacheTime {
    /// Five minutes after it was last used.
    FiveMinutes,
    /// An hour after it was last used.
    OneHour,
}

/// The protocols.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Api {
    /// OpenAI's chat completions, also of the many servers that speak them.
    OpenAiChat,
    /// Anthropic's Messages.
    Anthropic,
    /// OpenAI's Responses.
    OpenAiResponses,
    /// Google's Gemini, by `streamGenerateContent`.
    Gemini,
    /// Ollama's own chat.
    Ollama,
}

impl Api {
    /// Where the provider is, unless said otherwise.
    pub fn base_url(self) -> &'static str {
        match self {
            Self::Anthropic => "https://api.anthropic.com",
            Self::OpenAiChat | Self::OpenAiResponses => "https://api.openai.com/v1",
            Self::Gemini => "https://generativelanguage.googleapis.com/v1beta",
            Self::Ollama => "http://localhost:11434",
        }
    }

    /// The provider's name, for people.
    pub fn provider_name(self) -> &'static str {
        match self {
            Self::Anthropic => "Anthropic",
            Self::OpenAiChat | Self::OpenAiResponses => "OpenAI",
            Self::Gemini => "Google",
            Self::Ollama => "Ollama",
        }
    }

    /// The kind of model as clients of the AgentOS API know it.
    pub fn class(self) -> &'static str {
        match self {
            Self::Anthropic => "Claude",
            Self::OpenAiChat => "OpenAIChat",
            Self::OpenAiResponses => "OpenAIResponses",
            Self::Gemini => "Gemini",
            Self::Ollama => "Ollama",
        }
    }
}

impl fmt::Display for Api {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Anthropic => "anthropic",
            Self::OpenAiChat => "openai",
            Self::OpenAiResponses => "openai-responses",
            Self::Gemini => "gemini",
            Self::Ollama => "ollama",
        })
    }
}

/// Where a model is and how to call it. Options that its protocol does not have are refused, not ignored.
#[derive(Debug, Clone)]
pub struct ModelOptions {
    /// What it speaks.
    pub api: Api,
    /// The provider's id of the model.
    pub model: String,
    /// The address that the protocol's path is appended to.
    pub base_url: String,
    /// The key; none for servers that ask for none.
    pub api_key: Option<SecretString>,
    /// The most tokens of an answer whose request does not say.
    pub max_tokens: Option<u64>,
    /// How it thinks.
    pub reasoning: Option<Reasoning>,
    /// Anthropic only: how long it keeps the beginning of the prompt, which it does not do unasked.
    pub prompt_cache: Option<CacheTime>,
    /// OpenAI only: requests with the same key find each other's cached prompts more often.
    pub prompt_cache_key: Option<String>,
    /// Ollama only: how long the model stays in memory after a call, such as `5m`, or `-1` for ever.
    pub keep_alive: Option<String>,
    /// Ollama only: the size of the context window, in tokens.
    pub context_tokens: Option<u64>,
    /// How long to wait.
    pub timeouts: Timeouts,
    /// How often to try again, and when.
    pub retry: RetryPolicy,
}

impl ModelOptions {
    /// `model` at its provider, without a key, with the provider's own defaults, the usual timeouts and retries.
    pub fn new(api: Api, model: impl Into<String>) -> Self {
        Self {
            api,
            model: model.into(),
            base_url: api.base_url().to_owned(),
            api_key: None,
            max_tokens: None,
            reasoning: None,
            prompt_cache: None,
            prompt_cache_key: None,
            keep_alive: None,
            context_tokens: None,
            timeouts: Timeouts::default(),
            retry: RetryPolicy::default(),
        }
    }

    /// Refuses what the protocol does not have.
    pub(crate) fn check_given(&self) -> Result<(), SetupError> {
        let only = |set: bool, option, whose: &[Api]| match set && !whose.contains(&self.api) {
            true => {
                let whose: Vec<String> = whose.iter().map(Api::to_string).collect();
                let verb = if whose.len() == 1 { "has" } else { "have" };
                let reason = format!("{} has no such option, only {} {verb} it", self.api, whose.join(" and "));
                Err(self.wrong(option, reason))
            }
            false => Ok(()),
        };
        only(self.prompt_cache.is_some(), "prompt_cache", &[Api::Anthropic])?;
        only(self.prompt_cache_key.is_some(), "prompt_cache_key", &[Api::OpenAiChat, Api::OpenAiResponses])?;
        only(self.keep_alive.is_some(), "keep_alive", &[Api::Ollama])?;
        only(self.context_tokens.is_some(), "context_tokens", &[Api::Ollama])?;
        if self.max_tokens == Some(0) {
            return Err(self.wrong("max_tokens", "it must be at least 1"));
        }
        Ok(())
    }

    /// An option that cannot be right.
    pub(crate) fn wrong(&self, option: &'static str, reason: impl Into<String>) -> SetupError {
        SetupError::Option { model: self.model.clone(), option, reason: reason.into() }
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
    /// An option that the protocol does not have, or a value it cannot have.
    #[error("{option} of model `{model}`: {reason}")]
    Option {
        /// The model.
        model: String,
        /// The option.
        option: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// The HTTP client could not be built.
    #[error("the HTTP client for model `{model}` could not be built: {reason}")]
    Client {
        /// The model.
        model: String,
        /// The client's own words.
        reason: String,
    },
}

/// The model's id, when it and the address can be right.
pub(crate) fn check_model<'a>(model: &'a str, base_url: &str) -> Result<&'a str, SetupError> {
    let model = model.trim();
    if model.is_empty() {
        return Err(SetupError::NoModel);
    }
    let wrong = |url: &str, reason: &str| {
        Err(SetupError::BaseUrl { model: model.to_owned(), url: url.to_owned(), reason: reason.to_owned() })
    };
    match reqwest::Url::parse(base_url) {
        Err(error) => wrong(base_url.rsplit('@').next().unwrap_or_default(), &error.to_string()),
        Ok(url) if !matches!(url.scheme(), "http" | "https") => wrong(url.scheme(), "it has another scheme"),
        Ok(url) if !url.username().is_empty() || url.password().is_some() => {
            wrong(url.host_str().unwrap_or_default(), "put the key into api_key")
        }
        Ok(url) if url.query().is_some() || url.fragment().is_some() => {
            wrong(url.host_str().unwrap_or_default(), "it must end before any ? or #")
        }
        Ok(_) => Ok(model),
    }
}

/// The key as the value of a header, after `scheme`; none when there is no key.
pub(crate) fn key_header(
    model: &str,
    scheme: &str,
    key: Option<&SecretString>,
) -> Result<Option<reqwest::header::HeaderValue>, SetupError> {
    let Some(key) = key.map(ExposeSecret::expose_secret).filter(|key| !key.is_empty()) else { return Ok(None) };
    let mut value = reqwest::header::HeaderValue::from_str(&format!("{scheme}{key}"))
        .map_err(|_| SetupError::ApiKey(model.to_owned()))?;
    value.set_sensitive(true);
    Ok(Some(value))
}
