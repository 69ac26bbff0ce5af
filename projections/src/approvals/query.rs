//! Reads `approval_view`, `approval_counts` and `timers`. A query has only the conditions asked for.

use daybook_domain::{ApprovalId, StreamId, UserId};
use sqlx::{PgPool, Postgres, QueryBuilder};

use super::{ApprovalFilter, ApprovalPage, ApprovalRow, kind_name};
use crate::error::ViewError;
use crate::projection::Scope;

/// How long who claims a timer has for it, in milliseconds.
const CLAIM_MS: i64 = 30_000;

fn read((state, seq): (String, i64)) -> Result<ApprovalRow, ViewError> {
    let state = serde_json::from_str(&state)
        .map_err(|source| ViewError::Unreadable { what: format!("the approval asked at position {seq}"), source })?;
    Ok(ApprovalRow { state, seq })
}

/// A page of approvals and how many there are.
pub(crate) async fn page(
    pool: &PgPool,
    scope: Scope,
    owner: Option<&UserId>,
    filter: &ApprovalFilter,
) -> Result<ApprovalPage, ViewError> {
    if let (Some(owner), Some(user)) = (owner, &filter.user_id)
        && owner != user
    {
        return Ok(ApprovalPage { rows: Vec::new(), total: 0 });
    }
    let owner = owner.or(filter.user_id.as_ref());
    let total: i64 = total_query(scope, owner, filter).build_query_scalar().fetch_one(pool).await?;
    let rows: Vec<(String, i64)> = page_query(scope, owner, filter).build_query_as().fetch_all(pool).await?;
    let rows = rows.into_iter().map(read).collect::<Result<_, _>>()?;
    Ok(ApprovalPage { rows, total: total.unsigned_abs() })
}

/// How many wait for a decision.
pub(crate) async fn pending(pool: &PgPool, scope: Scope, owner: Option<&UserId>) -> Result<u64, ViewError> {
    let mut query = QueryBuilder::new("SELECT coalesce(sum(n), 0)::bigint FROM approval_counts WHERE ");
    query.push("log_id = ").push_bind(scope.log.0).push(" AND version = ").push_bind(scope.version);
    query.push(" AND status = 'pending'");
    if let Some(owner) = owner {
        query.push(" AND owner_id = ").push_bind(owner.as_str().to_owned());
    }
    let total: i64 = query.build_query_scalar().fetch_one(pool).await?;
    Ok(total.unsigned_abs())
}

fn total_query(scope: Scope, owner: Option<&UserId>, filter: &ApprovalFilter) -> QueryBuilder<Postgres> {
    // A run has few: they are counted one by one.
    let mut query = if filter.run_id.is_some() {
        QueryBuilder::new("SELECT count(*) FROM approval_view WHERE shown AND ")
    } else {
        QueryBuilder::new("SELECT coalesce(sum(n), 0)::bigint FROM approval_counts WHERE ")
    };
    conditions(&mut query, scope, owner, filter);
    query
}

pub(crate) fn page_query(scope: Scope, owner: Option<&UserId>, filter: &ApprovalFilter) -> QueryBuilder<Postgres> {
    let mut query = QueryBuilder::new("SELECT state, seq FROM approval_view WHERE shown AND ");
    conditions(&mut query, scope, owner, filter);
    let skipped = i64::from(filter.page.saturating_sub(1)) * i64::from(filter.limit);
    query.push(" ORDER BY seq DESC LIMIT ").push_bind(i64::from(filter.limit)).push(" OFFSET ").push_bind(skipped);
    query
}

fn conditions(query: &mut QueryBuilder<Postgres>, scope: Scope, owner: Option<&UserId>, filter: &ApprovalFilter) {
    query.push("log_id = ").push_bind(scope.log.0).push(" AND version = ").push_bind(scope.version);
    if let Some(run) = &filter.run_id {
        query.push(" AND run_id = ").push_bind(run.as_str().to_owned());
    }
    if let Some(status) = filter.status {
        query.push(" AND status = ").push_bind(status.as_str());
    }
    if let Some(owner) = owner {
        query.push(" AND owner_id = ").push_bind(owner.as_str().to_owned());
    }
    if let Some(kind) = filter.kind {
        query.push(" AND approval_type = ").push_bind(kind_name(kind));
    }
    if let Some(pause) = filter.pause {
        query.push(" AND pause_type = ").push_bind(pause.as_str());
    }
    if let Some(kind) = filter.component_kind {
        query.push(" AND component_kind = ").push_bind(kind.as_str());
    }
    if let Some(component) = &filter.component_id {
        query.push(" AND component_id = ").push_bind(component.as_str().to_owned());
    }
}

/// The approvals of which the clock demands something at `now_ms`, claimed for the caller for a while.
pub(crate) async fn claim_due(
    pool: &PgPool,
    scope: Scope,
    now_ms: i64,
    limit: i64,
) -> Result<Vec<ApprovalId>, ViewError> {
    let streams: Vec<String> = sqlx::query_scalar(
        "UPDATE timers t SET claimed_until = $3 + $4 WHERE t.log_id = $1 AND t.version = $2 AND t.stream_id IN ( \
             SELECT d.stream_id FROM timers d WHERE d.log_id = $1 AND d.version = $2 AND d.due_ms <= $3 \
                 AND d.claimed_until <= $3 ORDER BY d.due_ms LIMIT $5 FOR UPDATE SKIP LOCKED) \
         RETURNING t.stream_id",
    )
    .bind(scope.log.0)
    .bind(scope.version)
    .bind(now_ms)
    .bind(CLAIM_MS)
    .bind(limit)
    .fetch_all(pool)
    .await?;
    Ok(streams.into_iter().filter_map(|stream| StreamId::from_log(stream).as_approval()).collect())
}
