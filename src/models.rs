//! Models as definitions describe them, and the one that answers when none is defined.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use daybook_models::{Api, ChatModel, DemoModel, ModelOptions, ProviderModel, Timeouts};
use schemars::JsonSchema;
use secrecy::SecretString;
use serde::Deserialize;

use crate::error::Error;

/// The name of the model that is there when none is defined.
pub(crate) const DEFAULT_MODEL: &str = "default";

/// OpenAI's model when `OPENAI_API_KEY` is set and nothing says which.
const OPENAI_MODEL: &str = "gpt-5-mini";

/// A model as it is described.
#[derive(Debug, Clone)]
pub(crate) enum ModelDefinition {
    /// The scripted one.
    Demo,
    /// One behind a server.
    Served(Box<ModelOptions>),
}

/// How long to wait for what, in seconds.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct TimeoutsDefinition {
    pub connect_seconds: NonZeroU32,
    pub first_token_seconds: NonZeroU32,
    pub between_tokens_seconds: NonZeroU32,
}

impl Default for TimeoutsDefinition {
    fn default() -> Self {
        let usual = Timeouts::default();
        let seconds =
            |time: Duration| u32::try_from(time.as_secs()).ok().and_then(NonZeroU32::new).unwrap_or(NonZeroU32::MIN);
        Self {
            connect_seconds: seconds(usual.connect),
            first_token_seconds: seconds(usual.first_token),
            between_tokens_seconds: seconds(usual.between_tokens),
        }
    }
}

impl From<&TimeoutsDefinition> for Timeouts {
    fn from(definition: &TimeoutsDefinition) -> Self {
        let time = |seconds: NonZeroU32| Duration::from_secs(seconds.get().into());
        Self {
            connect: time(definition.connect_seconds),
            first_token: time(definition.first_token_seconds),
            between_tokens: time(definition.between_tokens_seconds),
        }
    }
}

impl ModelDefinition {
    /// Where it is, and whether a key is set; none when it needs no network.
    pub(crate) fn place(&self) -> Option<(&str, bool)> {
        match self {
            Self::Demo => None,
            Self::Served(options) => Some((&options.base_url, options.api_key.is_some())),
        }
    }

    /// The model, ready to be called. `name` is its name in the definitions, for messages.
    pub(crate) fn build(&self, name: &str) -> Result<Arc<dyn ChatModel>, Error> {
        let wrong = |source| Error::Model { name: name.to_owned(), source };
        Ok(match self {
            Self::Demo => Arc::new(DemoModel::default()),
            Self::Served(options) => Arc::new(ProviderModel::retrying(options).map_err(wrong)?),
        })
    }
}

/// The model of those who defined none: OpenAI's with `OPENAI_API_KEY` (and `OPENAI_BASE_URL`, `OPENAI_MODEL`), the
/// scripted one without. `get` looks a variable up.
pub(crate) fn default_model(get: impl Fn(&str) -> Option<String>) -> Result<Arc<dyn ChatModel>, Error> {
    default_definition(get).build(DEFAULT_MODEL)
}

/// As [`default_model`], as it is described.
pub(crate) fn default_definition(get: impl Fn(&str) -> Option<String>) -> ModelDefinition {
    let text = |name: &str| get(name).filter(|value| !value.trim().is_empty());
    match text("OPENAI_API_KEY") {
        None => ModelDefinition::Demo,
        Some(key) => {
            let model = text("OPENAI_MODEL").unwrap_or_else(|| OPENAI_MODEL.to_owned());
            let usual = ModelOptions::new(Api::OpenAiChat, model);
            ModelDefinition::Served(Box::new(ModelOptions {
                base_url: text("OPENAI_BASE_URL").unwrap_or_else(|| usual.base_url.clone()),
                api_key: Some(SecretString::from(key)),
                ..usual
            }))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_key_the_scripted_model_answers() {
        let none = default_model(|_| None).unwrap();
        assert_eq!(none.info().id, "demo");
        let empty = default_model(|name| (name == "OPENAI_API_KEY").then(String::new)).unwrap();
        assert_eq!(empty.info().id, "demo");
    }

    #[test]
    fn with_a_key_openai_answers_unless_the_address_is_wrong() {
        let key = |name: &str| (name == "OPENAI_API_KEY").then(|| "sk-hush".to_owned());
        let model = default_model(key).unwrap();
        assert_eq!((model.info().id.as_str(), model.info().provider.as_str()), (OPENAI_MODEL, "OpenAI"));
        let wrong = |name: &str| match name {
            "OPENAI_BASE_URL" => Some("nowhere".to_owned()),
            _ => key(name),
        };
        let Err(error) = default_model(wrong) else { panic!("accepted") };
        assert!(error.to_string().starts_with("model \"default\": base_url"), "{error}");
        assert!(!error.to_string().contains("sk-hush"));
    }
}
