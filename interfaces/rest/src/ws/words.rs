//! What the server says besides the events of runs. The texts are those that clients of the recorded API know.

use daybook_domain::component::ComponentKind;
use daybook_domain::ids::{RunId, SessionId};
use daybook_domain::run::RunStatus;
use serde_json::{Value, json};

use crate::errors::ApiError;
use crate::wire::stream::Counts;

/// The connection is there.
pub(super) fn connected() -> Value {
    json!({"event": "connected", "message": "Connected to AgentOS.", "requires_auth": false})
}

/// Everybody is who they say, until there is authorization.
pub(super) fn authenticated() -> Value {
    json!({"event": "authenticated", "message": "Authentication successful. You can now send commands."})
}

/// The server is there.
pub(super) fn pong() -> Value {
    json!({"event": "pong"})
}

/// Something is wrong with what the client said, or with a run it watches.
pub(super) fn error(why: &str) -> Value {
    json!({"event": "error", "error": why})
}

/// `answer` to the message that the client calls by this id.
pub(super) fn answering(mut answer: Value, request_id: Option<&str>) -> Value {
    if let Some(id) = request_id {
        answer["request_id"] = id.into();
    }
    answer
}

/// The run waits for its session.
pub(super) fn queued(run: &RunId, session: &SessionId) -> Value {
    let message = "The session has another run under way: this one starts after it.";
    json!({"event": "queued", "run_id": run, "session_id": session, "message": message})
}

/// A request to cancel was taken, whatever becomes of it.
pub(super) fn cancel_requested(run: &RunId) -> Value {
    json!({"event": "cancel_requested", "run_id": run})
}

/// A watch of `run` cannot go on.
pub(super) fn broken(run: &RunId) -> Value {
    let why = "The events broke off: reconnect to the run after the last event you have seen";
    json!({"event": "error", "error": why, "run_id": run})
}

/// What a client that comes back to a run is told about what follows.
pub(super) struct Again<'a> {
    /// The run.
    pub run: &'a RunId,
    /// What it is a run of.
    pub kind: ComponentKind,
    /// Where it stood when the watch began.
    pub status: RunStatus,
    /// What follows.
    pub counts: Counts,
}

impl Again<'_> {
    /// Missed events follow, then live ones; nothing when none was missed.
    pub fn catch_up(&self) -> Option<Value> {
        let Counts { missed, total, .. } = self.counts;
        let message = format!("Catching up on {missed} missed events.");
        let told = json!({
            "event": "catch_up", "run_id": self.run, "status": self.status(), "missed_events": missed,
            "current_event_count": total, "message": message,
        });
        (missed > 0).then_some(told)
    }

    /// Live events follow.
    pub fn subscribed(&self) -> Value {
        let kind = self.kind.as_str();
        json!({
            "event": "subscribed", "run_id": self.run, "status": self.status(),
            "current_event_count": self.counts.total,
            "message": format!("Subscribed to {kind} run. You will receive new events as they occur."),
        })
    }

    /// The events of a run that is over follow.
    pub fn replay(&self) -> Value {
        let (status, Counts { missed, total, after }) = (self.status.as_str(), self.counts);
        let mut told = json!({"event": "replay", "run_id": self.run, "status": status, "total_events": missed});
        let message = match after {
            _ if total == 0 => format!("Run {status} with no stored events: nobody asked for its events."),
            None => format!("Run {status}. Replaying all events."),
            Some(index) => {
                told["total_buffered"] = total.into();
                told["last_event_index_requested"] = index.into();
                format!("Run {status}. Replaying {missed} missed events (of {total} total).")
            }
        };
        told["message"] = message.into();
        told
    }

    fn status(&self) -> String {
        self.status.as_str().to_ascii_lowercase()
    }
}

/// What a request would have been told, as a text.
pub(super) fn of(error: ApiError) -> String {
    match error {
        ApiError::Bad(problem)
        | ApiError::Forbidden(problem)
        | ApiError::NotFound(problem)
        | ApiError::Conflict(problem)
        | ApiError::TooLarge(problem)
        | ApiError::Internal(problem)
        | ApiError::TooMany(problem, _)
        | ApiError::Unavailable(problem, _) => problem.0.detail,
        ApiError::Invalid(invalid) => match invalid.0.detail {
            Value::String(text) => text,
            Value::Array(wrong) => wrong.iter().map(member).collect::<Vec<_>>().join("; "),
            other => other.to_string(),
        },
    }
}

/// What is wrong with one member.
fn member(wrong: &Value) -> String {
    let msg = wrong["msg"].as_str().unwrap_or_default();
    let name = wrong["loc"].as_array().and_then(|loc| loc.last()).and_then(Value::as_str);
    name.map_or_else(|| msg.to_owned(), |name| format!("{name}: {msg}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::errors::At;

    fn again(run: &RunId, status: RunStatus, missed: u64, total: u64, after: Option<u64>) -> Again<'_> {
        Again { run, kind: ComponentKind::Agent, status, counts: Counts { missed, total, after } }
    }

    #[test]
    fn coming_back_is_told_as_recorded() {
        let run = RunId::parse("r").unwrap();
        let live = again(&run, RunStatus::Running, 2, 5, Some(2));
        let catch_up = json!({"event": "catch_up", "run_id": "r", "status": "running", "missed_events": 2,
            "current_event_count": 5, "message": "Catching up on 2 missed events."});
        assert_eq!(live.catch_up(), Some(catch_up));
        assert_eq!(again(&run, RunStatus::Running, 0, 5, Some(4)).catch_up(), None);
        let subscribed = json!({"event": "subscribed", "run_id": "r", "status": "running", "current_event_count": 5,
            "message": "Subscribed to agent run. You will receive new events as they occur."});
        assert_eq!(live.subscribed(), subscribed);
        let replay = json!({"event": "replay", "run_id": "r", "status": "COMPLETED", "total_events": 11,
            "message": "Run COMPLETED. Replaying all events."});
        assert_eq!(again(&run, RunStatus::Completed, 11, 11, None).replay(), replay);
        let rest = again(&run, RunStatus::Completed, 8, 11, Some(2)).replay();
        assert_eq!((&rest["total_events"], &rest["total_buffered"]), (&json!(8), &json!(11)));
        let none = again(&run, RunStatus::Completed, 0, 0, None).replay();
        assert!(none["message"].as_str().unwrap().contains("no stored events"), "{none}");
    }

    #[test]
    fn what_forms_are_told_by_field_is_one_text() {
        assert_eq!(of(ApiError::bad("no")), "no");
        assert_eq!(of(ApiError::unprocessable("no")), "no");
        let no_int = "version: Input should be a valid integer, unable to parse string as an integer";
        assert_eq!(of(At("body", "version").no_int("x")), no_int);
    }

    #[test]
    fn an_answer_names_what_it_answers() {
        assert_eq!(answering(pong(), None), json!({"event": "pong"}));
        assert_eq!(answering(pong(), Some("q")), json!({"event": "pong", "request_id": "q"}));
    }
}
