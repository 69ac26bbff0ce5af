//! A model's entry: its shape, and what is wrong with it.

use std::collections::HashMap;

use daybook_models::{Api, CacheTime, Effort, ModelOptions, Reasoning, SetupError, Timeouts};
use schemars::JsonSchema;
use secrecy::SecretString;
use serde::Deserialize;

use super::Mistake;
use super::place::{Location, Spanned};
use crate::error::Error;
use crate::models::{ModelDefinition, TimeoutsDefinition};

/// Each retry waits longer than the one before; more than this would keep a run busy for hours.
const MAX_RETRIES: u32 = 20;

/// What a model's server speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
enum Provider {
    Demo,
    #[serde(rename = "openai")]
    OpenAi,
    #[serde(rename = "openai-responses")]
    OpenAiResponses,
    Anthropic,
    Gemini,
    Ollama,
}

// One shape for all providers: a tagged enum would lose the places of what is inside it.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Model {
    /// Who it is of: openai is any server that speaks OpenAI's chat completions, demo answers offline from a script.
    provider: Provider,
    /// The provider's id of the model.
    #[serde(default)]
    id: Option<Spanned<String>>,
    /// Where the provider is, if not at its own address.
    #[serde(default)]
    base_url: Option<Spanned<String>>,
    /// The key; without base_url the provider's own variable unless said, such as ANTHROPIC_API_KEY.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    api_key: Option<Spanned<SecretString>>,
    /// The most tokens of an answer whose agent does not say.
    #[serde(default)]
    max_tokens: Option<Spanned<u64>>,
    /// How the model thinks before it speaks; the provider's default unless said.
    #[serde(default)]
    reasoning: Option<Spanned<ReasoningDefinition>>,
    /// Of anthropic: how long the beginning of a prompt is kept for the next call; not at all unless said.
    #[serde(default)]
    prompt_cache: Option<Spanned<CacheWord>>,
    /// Of OpenAI: requests with the same key find each other's cached prompts more often.
    #[serde(default)]
    prompt_cache_key: Option<Spanned<String>>,
    /// Of ollama: how long the model stays in memory after a call, such as 5m, or "-1" for ever.
    #[serde(default)]
    keep_alive: Option<Spanned<String>>,
    /// Of ollama: the size of the context window, in tokens.
    #[serde(default)]
    context_tokens: Option<Spanned<u64>>,
    /// How long to wait for what.
    #[serde(default)]
    timeouts: Option<Spanned<TimeoutsDefinition>>,
    /// Calls after the first, when it failed before it said anything; 2 unless said, 20 at most.
    #[serde(default)]
    retries: Option<Spanned<u32>>,
}

/// How a model thinks before it speaks.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct ReasoningDefinition {
    /// How much.
    effort: Option<EffortWord>,
    /// The most tokens of it; of anthropic and gemini.
    budget_tokens: Option<u64>,
    /// Whether its thoughts are wanted; yes unless said.
    show: Option<bool>,
}

#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum EffortWord {
    None,
    Minimal,
    Low,
    Medium,
    High,
    XHigh,
    Max,
}

#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
enum CacheWord {
    #[serde(rename = "5m")]
    FiveMinutes,
    #[serde(rename = "1h")]
    OneHour,
}

impl From<EffortWord> for Effort {
    fn from(word: EffortWord) -> Self {
        match word {
            EffortWord::None => Self::None,
            EffortWord::Minimal => Self::Minimal,
            EffortWord::Low => Self::Low,
            EffortWord::Medium => Self::Medium,
            EffortWord::High => Self::High,
            EffortWord::XHigh => Self::XHigh,
            EffortWord::Max => Self::Max,
        }
    }
}

impl From<CacheWord> for CacheTime {
    fn from(word: CacheWord) -> Self {
        match word {
            CacheWord::FiveMinutes => Self::FiveMinutes,
            CacheWord::OneHour => Self::OneHour,
        }
    }
}

impl From<&ReasoningDefinition> for Reasoning {
    fn from(given: &ReasoningDefinition) -> Self {
        Self { effort: given.effort.map(Effort::from), budget_tokens: given.budget_tokens, show: given.show }
    }
}

impl Provider {
    /// The variables its key may stand in, the first that is set counts.
    fn key_variables(self) -> &'static [&'static str] {
        match self {
            Self::Demo => &[],
            Self::OpenAi | Self::OpenAiResponses => &["OPENAI_API_KEY"],
            Self::Anthropic => &["ANTHROPIC_API_KEY"],
            Self::Gemini => &["GEMINI_API_KEY", "GOOGLE_API_KEY"],
            // A server of one's own asks for none, and is not told one unasked.
            Self::Ollama => &[],
        }
    }

    /// An id to show as an example.
    fn example(self) -> &'static str {
        match self {
            Self::Demo | Self::OpenAi | Self::OpenAiResponses => "gpt-5-mini",
            Self::Anthropic => "claude-sonnet-4-5",
            Self::Gemini => "gemini-2.5-flash",
            Self::Ollama => "qwen3",
        }
    }
}

impl Model {
    /// The model, when nothing is wrong with its entry, which stands at `place`.
    pub(super) fn check(
        self,
        name: &str,
        place: Location,
        environment: &HashMap<String, String>,
    ) -> Result<ModelDefinition, Mistake> {
        let given = self.given();
        let at = |option: &str| given.iter().find(|(name, _)| *name == option).map_or(place, |(_, at)| *at);
        let model = match self.provider {
            Provider::Demo => {
                return match given.first() {
                    None => Ok(ModelDefinition::Demo),
                    Some((name, at)) => {
                        Err(Mistake::at(*at, format!("{name}: the scripted demo model has no such setting")))
                    }
                };
            }
            Provider::OpenAi => self.served(Api::OpenAiChat, place, environment)?,
            Provider::OpenAiResponses => self.served(Api::OpenAiResponses, place, environment)?,
            Provider::Anthropic => self.served(Api::Anthropic, place, environment)?,
            Provider::Gemini => self.served(Api::Gemini, place, environment)?,
            Provider::Ollama => self.served(Api::Ollama, place, environment)?,
        };
        // Setting it up finds what is wrong with it.
        match model.build(name) {
            Ok(_) => Ok(model),
            Err(Error::Model { source, .. }) => {
                let option = match source {
                    SetupError::BaseUrl { .. } => "base_url",
                    SetupError::ApiKey(_) => "api_key",
                    SetupError::Option { option, .. } => option,
                    SetupError::NoModel | SetupError::Client { .. } => "id",
                };
                Err(Mistake::at(at(option), source.to_string()))
            }
            Err(error) => Err(Mistake::at(place, error.to_string())),
        }
    }

    /// What is written in the entry, beside its provider.
    fn given(&self) -> Vec<(&'static str, Location)> {
        fn at<T>(name: &'static str, field: Option<&Spanned<T>>) -> Option<(&'static str, Location)> {
            field.map(|field| (name, field.referenced))
        }
        let all = [
            at("id", self.id.as_ref()),
            at("base_url", self.base_url.as_ref()),
            at("api_key", self.api_key.as_ref()),
            at("max_tokens", self.max_tokens.as_ref()),
            at("reasoning", self.reasoning.as_ref()),
            at("prompt_cache", self.prompt_cache.as_ref()),
            at("prompt_cache_key", self.prompt_cache_key.as_ref()),
            at("keep_alive", self.keep_alive.as_ref()),
            at("context_tokens", self.context_tokens.as_ref()),
            at("timeouts", self.timeouts.as_ref()),
            at("retries", self.retries.as_ref()),
        ];
        all.into_iter().flatten().collect()
    }

    /// The options of a protocol, which refuses itself what it does not have.
    fn served(
        &self,
        api: Api,
        place: Location,
        environment: &HashMap<String, String>,
    ) -> Result<ModelDefinition, Mistake> {
        let mut options = ModelOptions::new(api, self.id(place)?);
        let host = variable(environment, "OLLAMA_HOST").filter(|_| api == Api::Ollama);
        if let Some(base_url) = self.base_url.as_ref().map(|url| url.value.clone()).or_else(|| host.map(ollama_host)) {
            options.base_url = base_url;
        }
        options.api_key = self.api_key(place, environment)?;
        options.max_tokens = self.max_tokens()?;
        options.reasoning = self.reasoning.as_ref().map(|given| Reasoning::from(&given.value));
        options.prompt_cache = self.prompt_cache.as_ref().map(|word| word.value.into());
        options.prompt_cache_key = self.prompt_cache_key.as_ref().map(|key| key.value.clone());
        options.keep_alive = self.keep_alive.as_ref().map(|time| time.value.clone());
        options.context_tokens = self.context_tokens.as_ref().map(|size| size.value);
        options.timeouts = self.timeouts();
        options.retry.max_retries = self.retries(options.retry.max_retries)?;
        Ok(ModelDefinition::Served(Box::new(options)))
    }

    fn id(&self, place: Location) -> Result<String, Mistake> {
        let example = self.provider.example();
        let missing = || format!("id is missing: expected the provider's id of the model, such as {example}");
        let id = self.id.as_ref().ok_or_else(|| Mistake::at(place, missing()))?;
        if id.value.trim().is_empty() {
            return Err(Mistake::at(id.referenced, "id: expected the provider's id of the model"));
        }
        Ok(id.value.clone())
    }

    /// The key as given, or the provider's own variable: another server is not sent it unasked.
    fn api_key(&self, place: Location, environment: &HashMap<String, String>) -> Result<Option<SecretString>, Mistake> {
        if let Some(key) = &self.api_key {
            return Ok(Some(key.value.clone()));
        }
        let names = self.provider.key_variables();
        if self.base_url.is_some() || names.is_empty() {
            return Ok(None);
        }
        match names.iter().find_map(|name| variable(environment, name)) {
            Some(key) => Ok(Some(SecretString::from(key.to_owned()))),
            None => {
                let why = format!("api_key is missing, and so is the environment's variable {}", names.join(" or "));
                Err(Mistake::at(place, why))
            }
        }
    }

    fn max_tokens(&self) -> Result<Option<u64>, Mistake> {
        match &self.max_tokens {
            Some(most) if most.value == 0 => Err(Mistake::at(most.referenced, "max_tokens: it must be at least 1")),
            most => Ok(most.as_ref().map(|most| most.value)),
        }
    }

    fn timeouts(&self) -> Timeouts {
        self.timeouts.as_ref().map_or_else(Timeouts::default, |given| Timeouts::from(&given.value))
    }

    fn retries(&self, usual: u32) -> Result<u32, Mistake> {
        match &self.retries {
            Some(retries) if retries.value > MAX_RETRIES => {
                Err(Mistake::at(retries.referenced, format!("retries: {MAX_RETRIES} are the most")))
            }
            retries => Ok(retries.as_ref().map_or(usual, |retries| retries.value)),
        }
    }
}

fn variable<'a>(environment: &'a HashMap<String, String>, name: &str) -> Option<&'a str> {
    environment.get(name).map(|value| value.trim()).filter(|value| !value.is_empty())
}

/// An address from `OLLAMA_HOST`, which may leave out the scheme and the port, and may be one to listen on.
/// Source: <https://docs.ollama.com/faq>, "How can I expose Ollama on my network".
fn ollama_host(host: &str) -> String {
    let (scheme, rest) = host.split_once("://").unwrap_or(("http", host));
    let rest = rest.trim_end_matches('/');
    let rest = rest.replacen("0.0.0.0", "127.0.0.1", 1);
    let address = rest.rsplit_once(']').map_or(rest.as_str(), |(_, port)| port);
    let port = match scheme {
        _ if address.contains([':', '/']) => "",
        "https" => ":443",
        _ if host.contains("://") => ":80",
        _ => ":11434",
    };
    format!("{scheme}://{rest}{port}")
}

#[cfg(test)]
mod tests {
    use super::ollama_host;

    #[test]
    fn ollamas_host_is_read_as_ollama_reads_it() {
        for (host, address) in [
            ("0.0.0.0", "http://127.0.0.1:11434"),
            ("gpu:9999", "http://gpu:9999"),
            ("http://gpu", "http://gpu:80"),
            ("https://gpu/", "https://gpu:443"),
            ("[::1]", "http://[::1]:11434"),
            ("[::1]:7", "http://[::1]:7"),
            ("https://gpu.example/ollama", "https://gpu.example/ollama"),
        ] {
            assert_eq!(ollama_host(host), address);
        }
    }
}
