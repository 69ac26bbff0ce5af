//! `GET /sessions`.

use std::time::Instant;

use daybook_projections::{SessionFilter, SessionSort};
use poem_openapi::OpenApi;
use poem_openapi::param::Query;

use crate::docs::Tag;
use crate::errors::{ApiError, At};
use crate::guard::{Guard, SessionsRead};
use crate::params::{Raw, SessionType, SortOrder, int_between, query_id, session_type, sort_order, text};
use crate::reads::{self, Answer};
use crate::state::{AppState, LOG};
use crate::wire::{PaginationInfo, SessionPage, SessionSchema};

/// The most sessions of a page.
const MAX_LIMIT: i64 = 1000;

/// How deep into the list a page may be: rows before it are walked over.
const MAX_SKIPPED: i64 = 1_000_000;

pub(super) struct ListSessions(pub AppState);

#[OpenApi]
impl ListSessions {
    /// List sessions
    #[oai(path = "/sessions", method = "get", tag = "Tag::Sessions", operation_id = "get_sessions")]
    #[expect(clippy::too_many_arguments, reason = "the query has that many parameters")]
    async fn list(
        &self,
        _guard: Guard<SessionsRead>,
        /// With components of this kind only.
        r#type: Query<Option<Raw<SessionType>>>,
        /// With this component only.
        component_id: Query<Option<Raw<String>>>,
        /// Of this user only.
        user_id: Query<Option<Raw<String>>>,
        /// Whose name contains this.
        session_name: Query<Option<Raw<String>>>,
        /// The most sessions of a page: 20 when absent, up to 1000.
        limit: Query<Option<Raw<i64>>>,
        /// From 1.
        page: Query<Option<Raw<i64>>>,
        /// `created_at`, `updated_at` or `session_name`; another word sorts by nothing.
        sort_by: Query<Option<Raw<String>>>,
        /// Largest first when absent.
        sort_order: Query<Option<Raw<SortOrder>>>,
        /// The database.
        db_id: Query<Option<Raw<String>>>,
        /// The table.
        table: Query<Option<Raw<String>>>,
    ) -> Result<Answer<SessionPage>, ApiError> {
        let kind = session_type(&r#type)?;
        let (page, limit) = page_and_limit(&page, &limit)?;
        let filter = SessionFilter {
            kind: kind.map(super::component_kind),
            component_id: query_id(&component_id, "component_id")?,
            user_id: query_id(&user_id, "user_id")?,
            name_contains: text(&session_name).map(str::to_owned),
            sort_by: text(&sort_by).map_or(SessionSort::CreatedAt, SessionSort::from_name),
            descending: self::sort_order(&sort_order)? == SortOrder::Desc,
            page,
            limit,
        };
        self.0.check_database(text(&db_id), text(&table))?;
        self.read(&filter).await
    }
}

impl ListSessions {
    async fn read(&self, filter: &SessionFilter) -> Result<Answer<SessionPage>, ApiError> {
        let begun = Instant::now();
        let read = self.0.views.sessions(LOG, None, filter).await?;
        let sessions = read.value.rows.iter().map(|row| SessionSchema::of(&row.state, row.name())).collect();
        Ok(reads::answer(shown(sessions, filter, read.value.total, begun), read.lag))
    }
}

/// The page, from 1, and how many sessions it may hold.
fn page_and_limit(page: &Option<Raw<i64>>, limit: &Option<Raw<i64>>) -> Result<(u32, u32), ApiError> {
    let limit = int_between(limit, "limit", 1, MAX_LIMIT)?.unwrap_or(20);
    let number = int_between(page, "page", 1, i64::from(u32::MAX))?.unwrap_or(1);
    if (number - 1).saturating_mul(limit) > MAX_SKIPPED {
        let most = MAX_SKIPPED / limit + 1;
        return Err(At("query", "page").too_large(text(page).unwrap_or_default(), most));
    }
    Ok((u32::try_from(number).unwrap_or(1), u32::try_from(limit).unwrap_or(20)))
}

fn shown(data: Vec<SessionSchema>, filter: &SessionFilter, total: u64, begun: Instant) -> SessionPage {
    let limit = u64::from(filter.limit);
    let search_time_ms = begun.elapsed().as_secs_f64() * 1000.0;
    let meta = PaginationInfo {
        page: filter.page.into(),
        limit,
        total_pages: total.div_ceil(limit.max(1)),
        total_count: total,
        search_time_ms,
    };
    SessionPage { data, meta }
}

#[cfg(test)]
mod tests {
    use poem_openapi::types::ParseFromParameter;

    use super::*;

    fn raw(text: &str) -> Option<Raw<i64>> {
        Raw::parse_from_parameter(text).ok()
    }

    #[test]
    fn pages_are_bounded() {
        assert_eq!(page_and_limit(&None, &None).unwrap(), (1, 20));
        assert_eq!(page_and_limit(&raw("999"), &raw("20")).unwrap(), (999, 20));
        assert!(page_and_limit(&raw("0"), &None).is_err());
        assert!(page_and_limit(&None, &raw("0")).is_err());
        assert!(page_and_limit(&None, &raw("1001")).is_err());
        assert!(page_and_limit(&raw("1002"), &raw("1000")).is_err());
        assert!(page_and_limit(&raw("1001"), &raw("1000")).is_ok());
    }
}
