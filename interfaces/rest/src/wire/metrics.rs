//! What runs and model calls cost, without the zeros.

use daybook_domain::message::CallMetrics;
use daybook_domain::session::SessionTotals;
use daybook_domain::usage::{Spent, Usage};
use serde_json::{Value, json};

use super::members::Members;

/// The provider's name where costs are broken down, which is longer than elsewhere.
fn provider_in_details(provider: &str) -> String {
    if provider == "OpenAI" { "OpenAI Chat".to_owned() } else { provider.to_owned() }
}

fn tokens(members: Members, usage: &Usage) -> Members {
    members
        .count("input_tokens", usage.input_tokens)
        .count("output_tokens", usage.output_tokens)
        .count("total_tokens", usage.total_tokens)
        .count("cache_read_tokens", usage.cache_read_tokens)
        .count("cache_write_tokens", usage.cache_write_tokens)
        .count("reasoning_tokens", usage.reasoning_tokens)
}

fn detail(model: &str, provider: &str, usage: &Usage) -> Value {
    tokens(Members::default(), usage).with("id", model).with("provider", provider_in_details(provider)).done()
}

/// What a run cost; `duration` and `time_to_first_token` in seconds.
pub(crate) fn of_run(
    usage: &Usage,
    time_to_first_token: Option<f64>,
    duration: Option<f64>,
    model: &str,
    provider: &str,
) -> Value {
    // A model that was cut off has answered, though it told no tokens.
    let answered = *usage != Usage::default() || time_to_first_token.is_some();
    let details = answered.then(|| json!({"model": [detail(model, provider, usage)]}));
    tokens(Members::default(), usage)
        .maybe("time_to_first_token", time_to_first_token)
        .maybe("duration", duration)
        .maybe("details", details)
        .done()
}

/// What runs under another one cost it, `time_to_first_token` and `duration` in seconds.
pub(crate) fn of_spent(spent: &Spent, time_to_first_token: Option<f64>, duration: f64) -> Value {
    let each: Vec<Value> = spent.0.iter().map(|((model, provider), usage)| detail(model, provider, usage)).collect();
    tokens(Members::default(), &spent.total())
        .maybe("time_to_first_token", time_to_first_token)
        .with("duration", duration)
        .with("details", json!({ "model": each }))
        .done()
}

/// What a model call cost.
pub(crate) fn of_call(metrics: &CallMetrics) -> Value {
    tokens(Members::default(), &metrics.usage)
        .with("duration", metrics.duration)
        .maybe("time_to_first_token", metrics.time_to_first_token)
        .done()
}

/// What a summary cost; `duration` in seconds.
pub(crate) fn of_summary((model, provider): &(String, String), usage: &Usage, duration: f64) -> Value {
    let details = json!({"compaction_model": [detail(model, provider, usage)]});
    tokens(Members::default(), usage).with("duration", duration).with("details", details).done()
}

/// What a session's runs and their summaries cost together.
pub(crate) fn of_session(totals: &SessionTotals) -> Value {
    let each = |of: &[((String, String), Usage)]| -> Vec<Value> {
        of.iter().map(|((model, provider), usage)| detail(model, provider, usage)).collect()
    };
    let details = (totals.usage != Usage::default()).then(|| {
        let details = Members::default().with("model", each(&totals.by_model));
        details.list("compaction_model", each(&totals.summaries)).done()
    });
    tokens(Members::default(), &totals.usage).maybe("details", details).done()
}
