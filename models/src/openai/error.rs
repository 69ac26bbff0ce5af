//! rig's errors in the port's words.

use rig_core::error::ProviderError;
use rig_core::http_client;
use secrecy::SecretString;

use super::http::NotAnAnswer;
use super::wire::Seen;
use crate::answer::nothing;
use crate::port::ModelError;
use crate::refusal::{clean, refusal};

/// The port's error for `error`, given what the answer had said until then.
pub(super) fn model_error(error: &ProviderError, seen: &Seen, api_key: Option<&SecretString>) -> ModelError {
    if let Some(body) = error.provider_response_body() {
        let status = error.provider_response_status().map(|status| status.as_u16());
        return refusal(status, error.provider_response_headers(), body, api_key);
    }
    let clean = |text: &str| clean(text, api_key);
    match error {
        ProviderError::Http(error) => transport(error, &clean),
        ProviderError::Json(error) => ModelError::Malformed(clean(&format!("{error}, in: {}", seen.noted().excerpt))),
        ProviderError::Truncated => unfinished(seen, &clean),
        ProviderError::Url(error) => ModelError::Unsupported(clean(&error.to_string())),
        ProviderError::Request(error) => ModelError::Unsupported(clean(&error.to_string())),
        ProviderError::UnsupportedOption(option) => ModelError::Unsupported(clean(&option.to_string())),
        ProviderError::Response(message) | ProviderError::Provider(message) => ModelError::Malformed(clean(message)),
        other => ModelError::Malformed(clean(&other.to_string())),
    }
}

/// The bytes did not get through.
fn transport(error: &http_client::Error, clean: &dyn Fn(&str) -> String) -> ModelError {
    let http_client::Error::Instance(instance) = error else {
        return match error {
            http_client::Error::StreamEnded => ModelError::Truncated("the connection was closed".to_owned()),
            other => ModelError::Unsupported(clean(&other.to_string())),
        };
    };
    if let Some(NotAnAnswer(why)) = instance.downcast_ref() {
        return ModelError::Malformed(clean(why));
    }
    let Some(error) = instance.downcast_ref::<reqwest::Error>() else {
        return ModelError::Unreachable(clean(&instance.to_string()));
    };
    crate::http::transport(error, clean)
}

/// The stream ended before the answer did.
fn unfinished(seen: &Seen, clean: &dyn Fn(&str) -> String) -> ModelError {
    let noted = seen.noted();
    if noted.chunks && !noted.done {
        return ModelError::Truncated("the connection was closed before the answer was complete".to_owned());
    }
    if noted.chunks || noted.done || noted.excerpt.is_empty() {
        return nothing();
    }
    ModelError::Malformed(clean(&format!("no part of a chat answer: {}", noted.excerpt)))
}
