//! What providers say when they say no, by status or in the stream, in the port's words: their own message where they
//! gave one, bounded, and without the key.

use std::time::Duration;

use chrono::{DateTime, Utc};
use reqwest::header::{HeaderMap, RETRY_AFTER};
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;

use crate::port::ModelError;
use crate::text::{MAX_MESSAGE_BYTES, bounded};

/// The longest a provider may ask us to wait.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(60);

/// Words in the codes and types of errors, and the HTTP status each stands for. The first that fits counts.
/// From the error pages of OpenAI, Anthropic and Gemini.
const STATUS_OF_WORD: &[(&str, u16)] = &[
    ("rate_limit", 429),
    ("resource_exhausted", 429),
    ("insufficient_quota", 429),
    ("overloaded", 529),
    ("unavailable", 503),
    ("timeout", 504),
    ("deadline_exceeded", 504),
    ("server_error", 500),
    ("api_error", 500),
    ("internal", 500),
    ("authentication", 401),
    ("unauthenticated", 401),
    ("permission", 403),
    ("not_found", 404),
    ("too_large", 413),
    ("billing", 402),
    ("invalid", 400),
    ("image", 400),
    ("policy", 400),
];

/// The port's error for an answer that is none. `status` is absent for an error inside a stream.
pub(crate) fn refusal(
    status: Option<u16>,
    headers: Option<&HeaderMap>,
    body: &str,
    api_key: Option<&SecretString>,
) -> ModelError {
    let json = serde_json::from_str::<Value>(body).unwrap_or_default();
    let status = status.unwrap_or_else(|| stated_status(&json));
    let message = ["/error/message", "/message", "/detail", "/error", "/0/error/message"]
        .iter()
        .find_map(|place| json.pointer(place).and_then(Value::as_str))
        .map(|message| clean(message, api_key))
        .filter(|message| !message.is_empty())
        .unwrap_or_else(|| match clean(body, api_key) {
            body if body.is_empty() => format!("The model's server answered with status {status} and no message"),
            body => format!("The model's server answered with status {status}: {body}"),
        });
    let retry_after = headers
        .and_then(|headers| headers.get(RETRY_AFTER))
        .and_then(|value| value.to_str().ok())
        .and_then(wait_asked_for)
        .or_else(|| retry_delay(&json));
    ModelError::Status { status, message, retry_after }
}

/// `text` without the key, bounded.
pub(crate) fn clean(text: &str, api_key: Option<&SecretString>) -> String {
    let text = match api_key.map(ExposeSecret::expose_secret) {
        Some(key) if !key.is_empty() => text.replace(key, "[api key]"),
        _ => text.to_owned(),
    };
    bounded(&text, MAX_MESSAGE_BYTES)
}

/// The status an error inside a stream stands for.
fn stated_status(body: &Value) -> u16 {
    let code = body.pointer("/error/code").or_else(|| body.get("code"));
    if let Some(code) = code.and_then(Value::as_u64).and_then(|code| u16::try_from(code).ok())
        && (400..600).contains(&code)
    {
        return code;
    }
    let names = [code, body.pointer("/error/type"), body.pointer("/error/status")];
    let names: Vec<String> =
        names.iter().filter_map(|name| name.and_then(Value::as_str)).map(str::to_ascii_lowercase).collect();
    let named = |word: &str| names.iter().any(|name| name.contains(word));
    STATUS_OF_WORD.iter().find(|(word, _)| named(word)).map_or(500, |(_, status)| *status)
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

/// Google's way to ask for a wait: a `RetryInfo` among the error's details, such as `"13s"`.
fn retry_delay(body: &Value) -> Option<Duration> {
    let details = body.pointer("/error/details")?.as_array()?;
    let delay = details.iter().find_map(|detail| detail.get("retryDelay")?.as_str())?;
    wait_asked_for(delay.trim_end_matches('s'))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

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
        let cases = [
            (json!({"error": {"code": 502}}), 502),
            (json!({"error": {"code": "rate_limit_exceeded"}}), 429),
            (json!({"error": {"type": "invalid_request_error"}}), 400),
            (json!({"error": {"type": "overloaded_error"}}), 529),
            (json!({"error": {"status": "RESOURCE_EXHAUSTED"}}), 429),
            (json!({"error": {"code": 7}}), 500),
            (json!({"type": "error", "code": "server_error"}), 500),
        ];
        for (body, status) in cases {
            assert_eq!(stated_status(&body), status, "{body}");
        }
    }

    #[test]
    fn googles_wait_is_in_the_body() {
        let info = json!({"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "13s"});
        let body = json!({"error": {"code": 429, "message": "quota", "details": [{"x": 1}, info]}}).to_string();
        let told =
            ModelError::Status { status: 429, message: "quota".into(), retry_after: Some(Duration::from_secs(13)) };
        assert_eq!(refusal(Some(429), None, &body, None), told);
    }
}
