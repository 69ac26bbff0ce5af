//! The view of runs: the fold of each run's stream, found by id and by session.

use std::collections::{BTreeMap, HashMap};

use daybook_domain::component::ComponentRef;
use daybook_domain::run::{RunState, RunStatus};
use daybook_domain::{DomainEvent, RunId, SessionId, UserId};
use daybook_store::Entry;
use sqlx::{PgConnection, PgPool, Postgres, QueryBuilder};

use crate::error::{ApplyError, ViewError};
use crate::kinds;
use crate::projection::{Projection, Scope};

/// A run as the view has it.
#[derive(Debug, Clone, PartialEq)]
pub struct RunRow {
    /// The fold of its stream.
    pub state: RunState,
    /// The order of acceptance: the position of its first event.
    pub seq: i64,
}

/// Which runs of a session.
#[derive(Debug, Clone, PartialEq)]
pub struct RunFilter {
    /// Of this component only.
    pub component: Option<ComponentRef>,
    /// In one of these states only.
    pub statuses: Option<Vec<RunStatus>>,
    /// Accepted at this time or later; unix seconds.
    pub created_after: Option<i64>,
    /// Accepted at this time or earlier; unix seconds.
    pub created_before: Option<i64>,
    /// The most to give; the newest are kept.
    pub limit: u32,
}

impl Default for RunFilter {
    fn default() -> Self {
        Self { component: None, statuses: None, created_after: None, created_before: None, limit: 1000 }
    }
}

pub(crate) const ONE: &str = "SELECT state, seq FROM run_view \
     WHERE run_id = $3 AND log_id = $1 AND version = $2 AND ($4::text IS NULL OR owner_id = $4)";

pub(crate) const BY_IDS: &str =
    "SELECT state, seq FROM run_view WHERE run_id = ANY($3) AND log_id = $1 AND version = $2";

/// Posts `run_view`.
pub(crate) struct Runs;

/// A row on its way from the table through the batch and back.
#[derive(Default)]
struct Folding {
    state: RunState,
    seq: u64,
    position: u64,
}

impl Projection for Runs {
    const NAME: &'static str = "runs";
    const VERSION: i32 = 1;

    fn wants(kind: &str) -> bool {
        kinds::is_run(kind)
    }

    async fn apply(db: &mut PgConnection, scope: Scope, events: &[Entry]) -> Result<(), ApplyError> {
        let mut rows = load(db, scope, events).await?;
        for recorded in events {
            let (DomainEvent::Run(event), Some(run)) = (&recorded.event, recorded.stream.as_run()) else {
                return Err(ApplyError::Event(format!("{} is not the stream of a run", recorded.stream)));
            };
            let row = rows.entry(run).or_default();
            if recorded.position <= row.position {
                continue;
            }
            row.state.evolve(event);
            row.position = recorded.position;
            if row.seq == 0 {
                row.seq = recorded.position;
            }
        }
        save(db, scope, &rows).await
    }

    async fn clear(db: &mut PgConnection, scope: Scope) -> Result<(), sqlx::Error> {
        let delete = "DELETE FROM run_view WHERE log_id = $1 AND version = $2";
        sqlx::query(delete).bind(scope.log.0).bind(scope.version).execute(db).await?;
        Ok(())
    }
}

/// The rows of the runs that began before this batch.
async fn load(db: &mut PgConnection, scope: Scope, events: &[Entry]) -> Result<BTreeMap<RunId, Folding>, ApplyError> {
    let began: HashMap<_, _> = events.iter().rev().map(|event| (&event.stream, event.version)).collect();
    let old: Vec<String> =
        began.iter().filter(|(_, version)| **version > 1).filter_map(|(s, _)| s.as_run()).map(String::from).collect();
    if old.is_empty() {
        return Ok(BTreeMap::new());
    }
    let rows: Vec<(String, String, i64, i64)> = sqlx::query_as(
        "SELECT run_id, state, seq, position FROM run_view \
         WHERE run_id = ANY($3) AND log_id = $1 AND version = $2",
    )
    .bind(scope.log.0)
    .bind(scope.version)
    .bind(old)
    .fetch_all(db)
    .await?;
    let mut folds = BTreeMap::new();
    for (run, state, seq, position) in rows {
        let run = RunId::parse(run).map_err(|error| ApplyError::Event(error.to_string()))?;
        let state = serde_json::from_str(&state)?;
        folds.insert(run, Folding { state, seq: seq.unsigned_abs(), position: position.unsigned_abs() });
    }
    Ok(folds)
}

/// The columns of the rows to write, for UNNEST.
#[derive(Default)]
struct Columns {
    run: Vec<String>,
    session: Vec<String>,
    parent: Vec<String>,
    owner: Vec<String>,
    kind: Vec<&'static str>,
    component: Vec<String>,
    status: Vec<&'static str>,
    created: Vec<i64>,
    updated: Vec<i64>,
    seq: Vec<i64>,
    position: Vec<i64>,
    state: Vec<String>,
}

impl Columns {
    fn push(&mut self, run: &RunId, row: &Folding) -> Result<(), ApplyError> {
        let missing = || ApplyError::Event(format!("run {run} has events but was never accepted"));
        let accepted = row.state.accepted.as_ref().ok_or_else(missing)?;
        self.run.push(run.as_str().to_owned());
        self.session.push(accepted.session_id.as_str().to_owned());
        self.parent.push(accepted.parent.as_ref().map_or_else(String::new, |parent| parent.run_id.to_string()));
        self.owner.push(accepted.user_id.as_ref().map_or("", UserId::as_str).to_owned());
        self.kind.push(accepted.component.kind.as_str());
        self.component.push(accepted.component.id.as_str().to_owned());
        self.status.push(row.state.status.as_str());
        self.created.push(accepted.at_ms.div_euclid(1000));
        self.updated.push(row.state.updated_ms.div_euclid(1000));
        self.seq.push(row.seq.cast_signed());
        self.position.push(row.position.cast_signed());
        self.state.push(serde_json::to_string(&row.state)?);
        Ok(())
    }
}

async fn save(db: &mut PgConnection, scope: Scope, rows: &BTreeMap<RunId, Folding>) -> Result<(), ApplyError> {
    if rows.is_empty() {
        return Ok(());
    }
    let mut columns = Columns::default();
    for (run, row) in rows {
        columns.push(run, row)?;
    }
    sqlx::query(
        "INSERT INTO run_view (log_id, version, run_id, session_id, parent_id, owner_id, component_kind, component_id, \
             status, created_at, updated_at, seq, position, state) \
         SELECT $1, $2, * FROM UNNEST($3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[], \
             $9::text[], $10::bigint[], $11::bigint[], $12::bigint[], $13::bigint[], $14::text[]) \
         ON CONFLICT (log_id, version, run_id) DO UPDATE SET status = excluded.status, \
             updated_at = excluded.updated_at, position = excluded.position, state = excluded.state",
    )
    .bind(scope.log.0)
    .bind(scope.version)
    .bind(columns.run)
    .bind(columns.session)
    .bind(columns.parent)
    .bind(columns.owner)
    .bind(columns.kind)
    .bind(columns.component)
    .bind(columns.status)
    .bind(columns.created)
    .bind(columns.updated)
    .bind(columns.seq)
    .bind(columns.position)
    .bind(columns.state)
    .execute(db)
    .await?;
    Ok(())
}

fn read((state, seq): (String, i64)) -> Result<RunRow, ViewError> {
    let state = serde_json::from_str(&state)
        .map_err(|source| ViewError::Unreadable { what: format!("the run accepted at position {seq}"), source })?;
    Ok(RunRow { state, seq })
}

pub(crate) async fn one(
    pool: &PgPool,
    scope: Scope,
    owner: Option<&UserId>,
    run: &RunId,
) -> Result<Option<RunRow>, ViewError> {
    let row: Option<(String, i64)> = sqlx::query_as(ONE)
        .bind(scope.log.0)
        .bind(scope.version)
        .bind(run.as_str())
        .bind(owner.map(UserId::as_str))
        .fetch_optional(pool)
        .await?;
    row.map(read).transpose()
}

pub(crate) async fn statuses(
    pool: &PgPool,
    scope: Scope,
    runs: Vec<RunId>,
) -> Result<HashMap<RunId, RunStatus>, ViewError> {
    let ids: Vec<String> = runs.into_iter().map(String::from).collect();
    let rows: Vec<(String, String)> =
        sqlx::query_as("SELECT run_id, status FROM run_view WHERE run_id = ANY($3) AND log_id = $1 AND version = $2")
            .bind(scope.log.0)
            .bind(scope.version)
            .bind(ids)
            .fetch_all(pool)
            .await?;
    let known = |(run, status): (String, String)| {
        let status = serde_json::from_value(serde_json::Value::String(status)).ok()?;
        Some((RunId::parse(run).ok()?, status))
    };
    Ok(rows.into_iter().filter_map(known).collect())
}

pub(crate) async fn by_ids(pool: &PgPool, scope: Scope, runs: Vec<RunId>) -> Result<Vec<RunRow>, ViewError> {
    let ids: Vec<String> = runs.into_iter().map(String::from).collect();
    let rows: Vec<(String, i64)> =
        sqlx::query_as(BY_IDS).bind(scope.log.0).bind(scope.version).bind(ids).fetch_all(pool).await?;
    rows.into_iter().map(read).collect()
}

pub(crate) async fn of_session(
    pool: &PgPool,
    scope: Scope,
    owner: Option<&UserId>,
    session: &SessionId,
    filter: &RunFilter,
) -> Result<Vec<RunRow>, ViewError> {
    let mut query = of_session_query(scope, owner, session, filter);
    let rows: Vec<(String, i64)> = query.build_query_as().fetch_all(pool).await?;
    // The newest were picked; they are told oldest first.
    rows.into_iter().rev().map(read).collect()
}

/// Only the conditions that are asked for, so that the plan is the index's whatever was planned before.
pub(crate) fn of_session_query(
    scope: Scope,
    owner: Option<&UserId>,
    session: &SessionId,
    filter: &RunFilter,
) -> QueryBuilder<Postgres> {
    let mut query = QueryBuilder::new("SELECT state, seq FROM run_view WHERE log_id = ");
    query.push_bind(scope.log.0).push(" AND version = ").push_bind(scope.version);
    query.push(" AND parent_id = '' AND session_id = ").push_bind(session.as_str().to_owned());
    if let Some(owner) = owner {
        query.push(" AND owner_id = ").push_bind(owner.as_str().to_owned());
    }
    if let Some(component) = &filter.component {
        query.push(" AND component_kind = ").push_bind(component.kind.as_str());
        query.push(" AND component_id = ").push_bind(component.id.as_str().to_owned());
    }
    if let Some(statuses) = &filter.statuses {
        let names: Vec<&'static str> = statuses.iter().map(|status| status.as_str()).collect();
        query.push(" AND status = ANY(").push_bind(names).push(")");
    }
    if let Some(after) = filter.created_after {
        query.push(" AND created_at >= ").push_bind(after);
    }
    if let Some(before) = filter.created_before {
        query.push(" AND created_at <= ").push_bind(before);
    }
    query.push(" ORDER BY seq DESC LIMIT ").push_bind(i64::from(filter.limit));
    query
}
