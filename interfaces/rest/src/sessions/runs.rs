//! `GET /sessions/{session_id}/runs`.

use daybook_domain::run::RunStatus;
use daybook_projections::RunFilter;
use poem_openapi::OpenApi;
use poem_openapi::param::{Path, Query};

use crate::docs::Tag;
use crate::errors::ApiError;
use crate::guard::{Guard, SessionsRead};
use crate::params::{Raw, SessionType, int_between, query_id, run_status, session_type, text};
use crate::reads::{self, Answer};
use crate::runs::shown_with_those_under;
use crate::state::{AppState, LOG};
use crate::wire::{Lean, RunItem};

/// What callers may ask for; the last is never given: nothing is made again in place.
const STATUSES: [&str; 7] = ["CANCELLED", "COMPLETED", "ERROR", "PAUSED", "PENDING", "REGENERATED", "RUNNING"];

pub(super) struct SessionRuns(pub AppState);

#[OpenApi]
impl SessionRuns {
    /// List the runs of a session, oldest first
    ///
    /// The runs of members and steps come before the run that they are part of. The query chooses among the others.
    #[oai(
        path = "/sessions/:session_id/runs",
        method = "get",
        tag = "Tag::Sessions",
        operation_id = "get_session_runs"
    )]
    #[expect(clippy::too_many_arguments, reason = "the query has that many parameters")]
    async fn list(
        &self,
        _guard: Guard<SessionsRead>,
        /// The session.
        session_id: Path<String>,
        /// The kind of session; the session's own kind decides.
        r#type: Query<Option<Raw<SessionType>>>,
        /// Of this user only.
        user_id: Query<Option<Raw<String>>>,
        /// Accepted at this time or later; unix seconds.
        created_after: Query<Option<Raw<i64>>>,
        /// Accepted at this time or earlier; unix seconds.
        created_before: Query<Option<Raw<i64>>>,
        /// In one of these states only.
        status: Query<Option<Vec<Raw<String>>>>,
        /// The database.
        db_id: Query<Option<Raw<String>>>,
        /// The table.
        table: Query<Option<Raw<String>>>,
    ) -> Result<Answer<Vec<Lean<RunItem>>>, ApiError> {
        session_type(&r#type)?;
        let user = query_id(&user_id, "user_id")?;
        let filter = RunFilter {
            created_after: int_between(&created_after, "created_after", i64::MIN, i64::MAX)?,
            created_before: int_between(&created_before, "created_before", i64::MIN, i64::MAX)?,
            statuses: status.as_deref().map(statuses).transpose()?,
            ..RunFilter::default()
        };
        self.0.check_database(text(&db_id), text(&table))?;
        let missing = || ApiError::not_found(format!("Session with ID {} not found", *session_id));
        let (row, lag) = super::session(&self.0, &session_id, user.as_ref(), missing).await?;
        let Some(id) = &row.state.session_id else { return Ok(reads::answer(Vec::new(), 0)) };
        let read = self.0.views.runs_of_session(LOG, None, id, &filter).await?;
        let runs = shown_with_those_under(&self.0, &read.value).await?;
        Ok(reads::answer(runs.into_iter().map(Lean).collect(), lag.max(read.lag)))
    }
}

/// The states asked for.
fn statuses(asked: &[Raw<String>]) -> Result<Vec<RunStatus>, ApiError> {
    let asked: Vec<String> = asked.iter().map(|raw| raw.0.to_ascii_uppercase()).collect();
    let unknown: Vec<&String> = asked.iter().filter(|word| !STATUSES.contains(&word.as_str())).collect();
    if !unknown.is_empty() {
        return Err(ApiError::bad(format!(
            "Invalid status value(s) {}; expected one of {}",
            listed(unknown.into_iter()),
            listed(STATUSES.iter()),
        )));
    }
    Ok(asked.iter().filter_map(|word| run_status(word)).collect())
}

/// `['A', 'B']`.
fn listed(words: impl Iterator<Item = impl std::fmt::Display>) -> String {
    let quoted: Vec<String> = words.map(|word| format!("'{word}'")).collect();
    format!("[{}]", quoted.join(", "))
}

#[cfg(test)]
mod tests {
    use poem::IntoResponse;
    use poem_openapi::types::ParseFromParameter;
    use serde_json::{Value, json};

    use super::*;

    fn raw(text: &str) -> Raw<String> {
        Raw::parse_from_parameter(text).ok().unwrap()
    }

    #[tokio::test]
    async fn an_unknown_status_is_refused_as_recorded() {
        assert_eq!(statuses(&[raw("completed"), raw("ERROR")]).unwrap(), [RunStatus::Completed, RunStatus::Error]);
        let response = statuses(&[raw("zzz")]).unwrap_err().into_response();
        assert_eq!(response.status(), 400);
        let body: Value = response.into_body().into_json().await.unwrap();
        let detail = "Invalid status value(s) ['ZZZ']; expected one of \
            ['CANCELLED', 'COMPLETED', 'ERROR', 'PAUSED', 'PENDING', 'REGENERATED', 'RUNNING']";
        assert_eq!(body, json!({ "detail": detail }));
    }
}
