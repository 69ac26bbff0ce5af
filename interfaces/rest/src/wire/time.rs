//! Points in time as ISO 8601 in UTC.

use chrono::{DateTime, SecondsFormat, Utc};

/// `2026-11-23T13:55:40Z`, from unix seconds.
pub(crate) fn iso_seconds(at: i64) -> String {
    DateTime::from_timestamp(at, 0).unwrap_or_default().to_rfc3339_opts(SecondsFormat::Secs, true)
}

/// `2026-11-23T13:55:40.123456Z`.
pub(crate) fn iso_micros(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Micros, true)
}

/// `2026-11-23T13:55:40.123000+00:00`, from unix milliseconds.
pub(crate) fn iso_offset(at_ms: i64) -> String {
    let at = DateTime::from_timestamp_millis(at_ms).unwrap_or_default();
    at.to_rfc3339_opts(SecondsFormat::Micros, false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_recorded() {
        assert_eq!(iso_seconds(1_795_442_140), "2026-11-23T13:55:40Z");
        assert_eq!(iso_offset(1_795_442_224_404), "2026-11-23T13:57:04.404000+00:00");
    }
}
