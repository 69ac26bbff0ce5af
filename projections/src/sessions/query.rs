//! Reads `session_view` and `session_counts`. A query has only the conditions asked for, so that its plan is the index's.

use daybook_domain::{SessionId, UserId};
use sqlx::{PgPool, Postgres, QueryBuilder};

use super::{SessionFilter, SessionPage, SessionRow, SessionSort};
use crate::error::ViewError;
use crate::projection::Scope;
use crate::text;

/// The sums hide log and version from the indexes that begin with them: a session is found by its id alone.
pub(crate) const ONE: &str = "SELECT state, first_message, seq FROM session_view \
     WHERE session_id = $3 AND log_id + 0 = $1 AND version + 0 = $2 AND ($4::text IS NULL OR owner_id = $4)";

/// Sessions are counted one by one up to here when a filter by name leaves no other way.
const MAX_COUNTED: i64 = 10_000;

type Columns = (String, Option<String>, i64);

fn read((state, first_message, seq): Columns) -> Result<SessionRow, ViewError> {
    let state = serde_json::from_str(&state)
        .map_err(|source| ViewError::Unreadable { what: format!("the session created at position {seq}"), source })?;
    Ok(SessionRow { state, first_message, seq })
}

/// One session, unless it is not there or not the owner's.
pub(crate) async fn one(
    pool: &PgPool,
    scope: Scope,
    owner: Option<&UserId>,
    session: &SessionId,
) -> Result<Option<SessionRow>, ViewError> {
    let row: Option<Columns> = sqlx::query_as(ONE)
        .bind(scope.log.0)
        .bind(scope.version)
        .bind(session.as_str())
        .bind(owner.map(UserId::as_str))
        .fetch_optional(pool)
        .await?;
    row.map(read).transpose()
}

/// A page of sessions and how many there are.
pub(crate) async fn page(
    pool: &PgPool,
    scope: Scope,
    owner: Option<&UserId>,
    filter: &SessionFilter,
) -> Result<SessionPage, ViewError> {
    if let (Some(owner), Some(user)) = (owner, &filter.user_id)
        && owner != user
    {
        return Ok(SessionPage { rows: Vec::new(), total: 0 });
    }
    let owner = owner.or(filter.user_id.as_ref());
    let total = total(pool, scope, owner, filter).await?;
    let rows: Vec<Columns> = page_query(scope, owner, filter).build_query_as().fetch_all(pool).await?;
    Ok(SessionPage { rows: rows.into_iter().map(read).collect::<Result<_, _>>()?, total })
}

async fn total(
    pool: &PgPool,
    scope: Scope,
    owner: Option<&UserId>,
    filter: &SessionFilter,
) -> Result<u64, sqlx::Error> {
    let named = filter.name_contains.is_some();
    let mut query = if named {
        let mut query = QueryBuilder::new("SELECT count(*) FROM (SELECT 1 FROM session_view WHERE ");
        conditions(&mut query, scope, owner, filter);
        query.push(" LIMIT ").push_bind(MAX_COUNTED).push(") AS found");
        query
    } else {
        let mut query = QueryBuilder::new("SELECT coalesce(sum(n), 0)::bigint FROM session_counts WHERE ");
        conditions(&mut query, scope, owner, filter);
        query.push(" AND everyone = ").push_bind(owner.is_none());
        query
    };
    let total: i64 = query.build_query_scalar().fetch_one(pool).await?;
    Ok(total.unsigned_abs())
}

pub(crate) fn page_query(scope: Scope, owner: Option<&UserId>, filter: &SessionFilter) -> QueryBuilder<Postgres> {
    let mut query = QueryBuilder::new("SELECT state, first_message, seq FROM session_view WHERE ");
    conditions(&mut query, scope, owner, filter);
    query.push(match (filter.sort_by, filter.descending) {
        (SessionSort::CreatedAt, false) => " ORDER BY created_at, seq",
        (SessionSort::CreatedAt, true) => " ORDER BY created_at DESC, seq DESC",
        (SessionSort::UpdatedAt, false) => " ORDER BY updated_at, seq",
        (SessionSort::UpdatedAt, true) => " ORDER BY updated_at DESC, seq DESC",
        (SessionSort::SessionName, false) => " ORDER BY left(name, 200), seq",
        (SessionSort::SessionName, true) => " ORDER BY left(name, 200) DESC, seq DESC",
        (SessionSort::Unsorted, _) => " ORDER BY seq",
    });
    let skipped = i64::from(filter.page.saturating_sub(1)) * i64::from(filter.limit);
    query.push(" LIMIT ").push_bind(i64::from(filter.limit)).push(" OFFSET ").push_bind(skipped);
    query
}

fn conditions(query: &mut QueryBuilder<Postgres>, scope: Scope, owner: Option<&UserId>, filter: &SessionFilter) {
    query.push("log_id = ").push_bind(scope.log.0).push(" AND version = ").push_bind(scope.version);
    if let Some(owner) = owner {
        query.push(" AND owner_id = ").push_bind(owner.as_str().to_owned());
    }
    if let Some(kind) = filter.kind {
        query.push(" AND component_kind = ").push_bind(kind.as_str());
    }
    if let Some(component) = &filter.component_id {
        query.push(" AND component_id = ").push_bind(component.as_str().to_owned());
    }
    if let Some(part) = &filter.name_contains {
        query.push(" AND strpos(lower(name), lower(").push_bind(text::clean(part).into_owned()).push(")) > 0");
    }
}
