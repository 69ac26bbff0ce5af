//! `GET /approvals` and `GET /approvals/count`.

use std::collections::HashMap;
use std::time::Instant;

use daybook_domain::RunId;
use daybook_domain::approval::ApprovalStatus;
use daybook_domain::component::ComponentKind;
use daybook_domain::ids::{ComponentId, UserId};
use daybook_domain::run::RunStatus;
use daybook_domain::tool::ApprovalKind;
use daybook_projections::{ApprovalFilter, ApprovalPage as Found};
use poem_openapi::param::Query;
use poem_openapi::{Object, OpenApi};

use crate::docs::Tag;
use crate::errors::{ApiError, At};
use crate::guard::{ApprovalsRead, Guard};
use crate::params::{Raw, int_between, query_id, text};
use crate::reads::{self, Answer};
use crate::state::{AppState, LOG};
use crate::wire::{ApprovalPage, ApprovalResponse, PaginationInfo, pause_kind};

/// The most approvals of a page.
const MAX_LIMIT: i64 = 1000;

/// How deep into the list a page may be: rows before it are walked over.
const MAX_SKIPPED: i64 = 1_000_000;

pub(super) struct ListApprovals(pub AppState);

/// How many approvals wait for a decision.
#[derive(Debug, Object)]
struct ApprovalCountResponse {
    /// So many.
    count: u64,
}

#[OpenApi]
impl ListApprovals {
    /// List approvals, newest first
    #[oai(path = "/approvals", method = "get", tag = "Tag::Approvals", operation_id = "list_approvals")]
    #[expect(clippy::too_many_arguments, reason = "the query has that many parameters")]
    async fn list(
        &self,
        _guard: Guard<ApprovalsRead>,
        /// `pending`, `approved`, `rejected`, `expired` or `cancelled` ones only.
        status: Query<Option<Raw<String>>>,
        /// Of an `agent`, a `team` or a `workflow` only.
        source_type: Query<Option<Raw<String>>>,
        /// `required` or `audit` ones only.
        approval_type: Query<Option<Raw<String>>>,
        /// About this kind of pause only, such as `confirmation`.
        pause_type: Query<Option<Raw<String>>>,
        /// Of this agent only.
        agent_id: Query<Option<Raw<String>>>,
        /// Of this team only.
        team_id: Query<Option<Raw<String>>>,
        /// Of this workflow only.
        workflow_id: Query<Option<Raw<String>>>,
        /// For this user only.
        user_id: Query<Option<Raw<String>>>,
        /// Of this schedule only.
        schedule_id: Query<Option<Raw<String>>>,
        /// Of this run only.
        run_id: Query<Option<Raw<String>>>,
        /// The most approvals of a page: 100 when absent, up to 1000.
        limit: Query<Option<Raw<i64>>>,
        /// From 1.
        page: Query<Option<Raw<i64>>>,
    ) -> Result<Answer<ApprovalPage>, ApiError> {
        let begun = Instant::now();
        let (page, limit) = page_and_limit(&page, &limit)?;
        let filter = ApprovalFilter {
            status: read_status(&status)?,
            kind: read_kind(&approval_type)?,
            pause: text(&pause_type).and_then(pause_kind),
            component_kind: text(&source_type).filter(|word| *word == "agent").map(|_| ComponentKind::Agent),
            component_id: query_id::<ComponentId, _>(&agent_id, "agent_id")?,
            user_id: query_id::<UserId, _>(&user_id, "user_id")?,
            run_id: query_id(&run_id, "run_id")?,
            page,
            limit,
        };
        // What there is none of gives nothing, rather than all.
        let nothing = (text(&pause_type).is_some() && filter.pause.is_none())
            || (text(&source_type).is_some() && filter.component_kind.is_none())
            || [&team_id.0, &workflow_id.0, &schedule_id.0].into_iter().any(|other| text(other).is_some());
        let (found, lag) = if nothing {
            (Found { rows: Vec::new(), total: 0 }, 0)
        } else {
            let read = self.0.views.approvals(LOG, None, &filter).await?;
            (read.value, read.lag)
        };
        let (runs, run_lag) = self.runs(&found).await?;
        Ok(reads::answer(shown(&found, &runs, &filter, begun), lag.max(run_lag)))
    }

    /// Count the approvals that wait for a decision
    #[oai(path = "/approvals/count", method = "get", tag = "Tag::Approvals", operation_id = "get_approval_count")]
    async fn count(
        &self,
        _guard: Guard<ApprovalsRead>,
        /// For this user only.
        user_id: Query<Option<Raw<String>>>,
    ) -> Result<Answer<ApprovalCountResponse>, ApiError> {
        let user: Option<UserId> = query_id(&user_id, "user_id")?;
        let read = self.0.views.pending_approvals(LOG, user.as_ref()).await?;
        Ok(reads::answer(ApprovalCountResponse { count: read.value }, read.lag))
    }
}

impl ListApprovals {
    /// Where the runs of a page stand.
    async fn runs(&self, found: &Found) -> Result<(HashMap<RunId, RunStatus>, u64), ApiError> {
        let runs = found.rows.iter().filter_map(|row| Some(row.state.requested.as_ref()?.run_id.clone())).collect();
        let read = self.0.views.run_statuses(LOG, runs).await?;
        Ok((read.value, read.lag))
    }
}

fn read_status(raw: &Option<Raw<String>>) -> Result<Option<ApprovalStatus>, ApiError> {
    use ApprovalStatus as S;
    let Some(word) = text(raw) else { return Ok(None) };
    let all = [S::Pending, S::Approved, S::Rejected, S::Expired, S::Cancelled];
    let expected = "'pending', 'approved', 'rejected', 'expired' or 'cancelled'";
    let status = all.into_iter().find(|status| status.as_str() == word);
    status.map(Some).ok_or_else(|| At("query", "status").no_literal(word, expected))
}

fn read_kind(raw: &Option<Raw<String>>) -> Result<Option<ApprovalKind>, ApiError> {
    match text(raw) {
        None => Ok(None),
        Some("required") => Ok(Some(ApprovalKind::Required)),
        Some("audit") => Ok(Some(ApprovalKind::Audit)),
        Some(other) => Err(At("query", "approval_type").no_literal(other, "'required' or 'audit'")),
    }
}

fn page_and_limit(page: &Option<Raw<i64>>, limit: &Option<Raw<i64>>) -> Result<(u32, u32), ApiError> {
    let limit = int_between(limit, "limit", 1, MAX_LIMIT)?.unwrap_or(100);
    let number = int_between(page, "page", 1, i64::from(u32::MAX))?.unwrap_or(1);
    if (number - 1).saturating_mul(limit) > MAX_SKIPPED {
        return Err(At("query", "page").too_large(text(page).unwrap_or_default(), MAX_SKIPPED / limit + 1));
    }
    Ok((u32::try_from(number).unwrap_or(1), u32::try_from(limit).unwrap_or(100)))
}

fn shown(found: &Found, runs: &HashMap<RunId, RunStatus>, filter: &ApprovalFilter, begun: Instant) -> ApprovalPage {
    let status = |run: &RunId| runs.get(run).copied();
    let data = found.rows.iter().filter_map(|row| {
        let run = row.state.requested.as_ref().and_then(|requested| status(&requested.run_id));
        ApprovalResponse::of(&row.state, run)
    });
    let limit = u64::from(filter.limit);
    let meta = PaginationInfo {
        page: filter.page.into(),
        limit,
        total_pages: found.total.div_ceil(limit.max(1)),
        total_count: found.total,
        search_time_ms: begun.elapsed().as_secs_f64() * 1000.0,
    };
    ApprovalPage { data: data.collect(), meta }
}
