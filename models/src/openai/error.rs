//! rig's errors in the port's words. Messages are the provider's own where it gave one, bounded, and without the key.

use std::error::Error as StdError;
use std::time::Duration;

use chrono::{DateTime, Utc};
use rig_core::error::ProviderError;
use rig_core::http_client;
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;

use super::http::NotAnAnswer;
use super::wire::Seen;
use crate::port::ModelError;
use crate::text::{MAX_MESSAGE_BYTES, bounded};

/// The longest a provider may ask us to wait.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(60);

/// The port's error for `error`, given what the answer had said until then.
pub(super) fn model_error(error: &ProviderError, seen: &Seen, api_key: Option<&SecretString>) -> ModelError {
    if let Some(body) = error.provider_response_body() {
        return refusal(error, body, api_key);
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

/// The answer that has nothing in it.
pub(super) fn nothing() -> ModelError {
    ModelError::Malformed("the model answered nothing".to_owned())
}

fn clean(text: &str, api_key: Option<&SecretString>) -> String {
    let text = match api_key.map(ExposeSecret::expose_secret) {
        Some(key) if !key.is_empty() => text.replace(key, "[api key]"),
        _ => text.to_owned(),
    };
    bounded(&text, MAX_MESSAGE_BYTES)
}

/// The provider said no, by status or in the stream.
fn refusal(error: &ProviderError, body: &str, api_key: Option<&SecretString>) -> ModelError {
    let json = serde_json::from_str::<Value>(body).unwrap_or_default();
    let status = error.provider_response_status().map_or_else(|| stated_status(&json), |status| status.as_u16());
    let message = ["/error/message", "/message", "/detail", "/error"]
        .iter()
        .find_map(|place| json.pointer(place).and_then(Value::as_str))
        .map(|message| clean(message, api_key))
        .filter(|message| !message.is_empty())
        .unwrap_or_else(|| match clean(body, api_key) {
            body if body.is_empty() => format!("The model's server answered with status {status} and no message"),
            body => format!("The model's server answered with status {status}: {body}"),
        });
    let retry_after = error
        .provider_response_headers()
        .and_then(|headers| headers.get(reqwest::header::RETRY_AFTER))
        .and_then(|value| value.to_str().ok())
        .and_then(wait_asked_for);
    ModelError::Status { status, message, retry_after }
}

/// The status an error inside a stream stands for.
fn stated_status(body: &Value) -> u16 {
    let code = body.pointer("/error/code").or_else(|| body.get("code"));
    if let Some(code) = code.and_then(Value::as_u64).and_then(|code| u16::try_from(code).ok())
        && (400..600).contains(&code)
    {
        return code;
    }
    let named = [code.and_then(Value::as_str), body.pointer("/error/type").and_then(Value::as_str)];
    let named = |word: &str| named.iter().flatten().any(|name| name.contains(word));
    if named("rate_limit") {
        429
    } else if named("invalid_request") {
        400
    } else {
        500
    }
}

/// A `Retry-After` in seconds or as a date, at most [`MAX_RETRY_AFTER`].
fn wait_asked_for(value: &str) -> Option<Duration> {
    let value = value.trim();
    let wait = match value.parse::<f64>() {
        Ok(seconds) => Duration::try_from_secs_f64(seconds.clamp(0.0, MAX_RETRY_AFTER.as_secs_f64())).ok()?,
        Err(_) => {
            let until = DateTime::parse_from_rfc2822(value).ok()?;
            until.signed_duration_since(Utc::now()).to_std().unwrap_or_default()
        }
    };
    Some(wait.min(MAX_RETRY_AFTER))
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
    let why = clean(&cause(error));
    match error {
        error if error.is_timeout() && error.is_connect() => ModelError::Timeout(format!("connecting to it: {why}")),
        error if error.is_timeout() => ModelError::Timeout(why),
        error if error.is_builder() => ModelError::Unsupported(why),
        error if error.is_body() || error.is_decode() => ModelError::Truncated(why),
        _ => ModelError::Unreachable(why),
    }
}

/// The innermost causes of `error`. Its own words are left out: they hold the address.
fn cause(error: &reqwest::Error) -> String {
    let mut causes: Vec<String> = Vec::new();
    let mut next = error.source();
    while let Some(source) = next {
        let words = source.to_string();
        if causes.last() != Some(&words) {
            causes.push(words);
        }
        next = source.source();
    }
    if causes.is_empty() { "the connection failed".to_owned() } else { causes.join(": ") }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_are_read_in_seconds_and_dates_and_capped() {
        assert_eq!(wait_asked_for(" 2 "), Some(Duration::from_secs(2)));
        assert_eq!(wait_asked_for("0.5"), Some(Duration::from_millis(500)));
        assert_eq!(wait_asked_for("-3"), Some(Duration::ZERO));
        assert_eq!(wait_asked_for("86400"), Some(MAX_RETRY_AFTER));
        assert_eq!(wait_asked_for("Fri, 31 Dec 2100 23:59:59 GMT"), Some(MAX_RETRY_AFTER));
        assert_eq!(wait_asked_for("Fri, 31 Dec 1999 23:59:59 GMT"), Some(Duration::ZERO));
        assert_eq!(wait_asked_for("soon"), None);
        assert_eq!(wait_asked_for("NaN"), None);
    }

    #[test]
    fn an_echoed_key_is_hidden_and_long_messages_are_cut() {
        let key = SecretString::from("sk-abc");
        assert_eq!(clean("wrong key sk-abc given", Some(&key)), "wrong key [api key] given");
        assert!(clean(&"x".repeat(10_000), None).len() <= MAX_MESSAGE_BYTES + '…'.len_utf8());
    }

    #[test]
    fn errors_in_the_stream_stand_for_a_status() {
        assert_eq!(stated_status(&serde_json::json!({"error": {"code": 502}})), 502);
        assert_eq!(stated_status(&serde_json::json!({"error": {"code": "rate_limit_exceeded"}})), 429);
        assert_eq!(stated_status(&serde_json::json!({"error": {"type": "invalid_request_error"}})), 400);
        assert_eq!(stated_status(&serde_json::json!({"error": {"code": 7}})), 500);
    }
}
