//! What compacting a session came to.

use daybook_domain::SessionId;
use daybook_domain::session::{SessionCompacted, SessionState};
use daybook_engine::CompactionOutcome;
use serde_json::{Value, json};

use super::members::Members;
use super::metrics;

/// The answer: whether it was done, in a word and in a sentence, the record of it, and what it cost.
pub(crate) fn compaction(session: &SessionId, came: &CompactionOutcome) -> Value {
    let (done, cost) = match came {
        CompactionOutcome::Done(done) => {
            (Some(done), Some(metrics::of_summary(&done.model, &done.usage, done.duration)))
        }
        CompactionOutcome::NoSummary { model, metrics: Some(cost) } => {
            (None, Some(metrics::of_summary(model, &cost.usage, cost.duration)))
        }
        _ => (None, None),
    };
    json!({
        "status": came.name(),
        "message": sentence(came),
        "compacted": done.is_some(),
        "record": done.map(|done| record(session, done)),
        "metrics": cost,
    })
}

fn sentence(came: &CompactionOutcome) -> String {
    match came {
        CompactionOutcome::Done(done) => {
            let (messages, before, after) = (done.messages, done.tokens_before, done.tokens_after);
            format!("{messages} messages were summarised: about {before} tokens of history became {after}.")
        }
        CompactionOutcome::NotEnabled => "Compaction is not enabled on this agent.".to_owned(),
        CompactionOutcome::NoHistory => "No run of this session has ended well, so there is no history yet.".to_owned(),
        CompactionOutcome::NothingToFold(kept) => {
            format!(
                "There is nothing to summarise: the newest {kept} runs stay word for word, and there are no others."
            )
        }
        CompactionOutcome::AlreadyCompacted(kept) => {
            format!("All runs but the newest {kept}, which stay word for word, are summarised already.")
        }
        CompactionOutcome::NoSummary { .. } => "The model gave no summary. Nothing has changed.".to_owned(),
    }
}

fn record(session: &SessionId, done: &SessionCompacted) -> Value {
    let runs: Vec<&str> = done.runs.iter().map(AsRef::as_ref).collect();
    Members::default()
        .with("id", SessionState::summary_id(session, done.version))
        .with("messages_compacted", done.messages)
        .maybe("summary", done.summary.get().cloned())
        .maybe("first_kept_message_id", done.first_kept.clone())
        // The log has all of them, for ever.
        .with("archived", true)
        .with("tokens_before", done.tokens_before)
        .with("tokens_after", done.tokens_after)
        .with("created_at", done.at)
        .with("runs", runs)
        .done()
}

#[cfg(test)]
mod tests {
    use daybook_domain::component::ComponentRef;
    use daybook_domain::ids::{ComponentId, RunId};
    use daybook_domain::message::CallMetrics;
    use daybook_domain::usage::Usage;

    use super::*;

    #[test]
    fn what_was_done_is_told_with_its_record_and_its_cost() {
        let usage = Usage { input_tokens: 10, output_tokens: 5, total_tokens: 15, ..Usage::default() };
        let done = SessionCompacted {
            version: 9,
            component: ComponentRef::agent(ComponentId::parse("a").unwrap()),
            config_hash: "h".to_owned(),
            previous: None,
            runs: vec![RunId::parse("r1").unwrap()],
            messages: 2,
            summary: "Alice likes tea.".to_owned().into(),
            source_hash: "s".to_owned(),
            first_kept: Some("m3".to_owned()),
            model: ("fake-gpt".to_owned(), "OpenAI".to_owned()),
            usage,
            duration: 1.5,
            tokens_before: 100,
            tokens_after: 20,
            at: 7,
        };
        let session = SessionId::parse("s1").unwrap();
        let cost = json!({"id": "fake-gpt", "provider": "OpenAI Chat",
            "input_tokens": 10, "output_tokens": 5, "total_tokens": 15});
        let metrics = json!({"input_tokens": 10, "output_tokens": 5, "total_tokens": 15, "duration": 1.5,
            "details": {"compaction_model": [cost]}});
        let expected = json!({
            "status": "compacted", "compacted": true, "metrics": metrics,
            "message": "2 messages were summarised: about 100 tokens of history became 20.",
            "record": {"id": SessionState::summary_id(&session, 9), "messages_compacted": 2, "runs": ["r1"],
                "summary": "Alice likes tea.", "first_kept_message_id": "m3", "archived": true,
                "tokens_before": 100, "tokens_after": 20, "created_at": 7},
        });
        assert_eq!(compaction(&session, &CompactionOutcome::Done(Box::new(done))), expected);
    }

    #[test]
    fn what_was_not_done_has_no_record_and_its_cost_if_it_had_one() {
        let session = SessionId::parse("s1").unwrap();
        let recorded = json!({"status": "not_enabled", "message": "Compaction is not enabled on this agent.",
            "compacted": false, "record": null, "metrics": null});
        assert_eq!(compaction(&session, &CompactionOutcome::NotEnabled), recorded);
        let model = ("m".to_owned(), "P".to_owned());
        let usage = Usage { total_tokens: 3, ..Usage::default() };
        let metrics = Some(CallMetrics { usage, time_to_first_token: None, duration: 1.0 });
        let failed = compaction(&session, &CompactionOutcome::NoSummary { model, metrics });
        assert_eq!((&failed["status"], &failed["compacted"]), (&json!("summary_failed"), &json!(false)));
        assert_eq!(failed["metrics"]["details"]["compaction_model"][0]["total_tokens"], 3);
    }
}
