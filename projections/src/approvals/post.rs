//! Posts `approval_view`, `approval_counts` and `timers`.

use std::collections::BTreeMap;

use daybook_domain::approval::ApprovalState;
use daybook_domain::{ApprovalId, DomainEvent, StreamId, UserId};
use daybook_store::Entry;
use sqlx::PgConnection;

use super::kind_name;
use crate::error::ApplyError;
use crate::kinds;
use crate::projection::{Projection, Scope};

/// Posts the view of approvals.
pub(crate) struct Approvals;

/// A row on its way from the table through the batch and back.
#[derive(Default)]
struct Folding {
    state: ApprovalState,
    seq: u64,
    position: u64,
}

/// What an approval is counted under.
type Sort = (String, &'static str, String, &'static str, &'static str, &'static str);

impl Folding {
    /// Nothing where it is not shown.
    fn sort(&self) -> Option<Sort> {
        let requested = self.state.visible()?;
        Some((
            requested.user_id.as_ref().map_or("", UserId::as_str).to_owned(),
            requested.component.kind.as_str(),
            requested.component.id.as_str().to_owned(),
            kind_name(requested.rule.kind),
            requested.requirement.kind.as_str(),
            self.state.status.as_str(),
        ))
    }
}

impl Projection for Approvals {
    const NAME: &'static str = "approvals";
    const VERSION: i32 = 1;

    fn wants(kind: &str) -> bool {
        kinds::is_approval(kind)
    }

    async fn apply(db: &mut PgConnection, scope: Scope, events: &[Entry]) -> Result<(), ApplyError> {
        let mut rows = load(db, scope, events).await?;
        let mut counts: BTreeMap<Sort, i64> = BTreeMap::new();
        for recorded in events {
            let (DomainEvent::Approval(event), Some(id)) = (&recorded.event, recorded.stream.as_approval()) else {
                return Err(ApplyError::Event(format!("{} is not the stream of an approval", recorded.stream)));
            };
            let row = rows.entry(id).or_default();
            if recorded.position <= row.position {
                continue;
            }
            let before = row.sort();
            row.state.evolve(event);
            row.position = recorded.position;
            if row.seq == 0 {
                row.seq = recorded.position;
            }
            before.into_iter().for_each(|sort| *counts.entry(sort).or_default() -= 1);
            row.sort().into_iter().for_each(|sort| *counts.entry(sort).or_default() += 1);
        }
        save(db, scope, &rows).await?;
        set_timers(db, scope, &rows).await?;
        add(db, scope, counts).await
    }

    async fn clear(db: &mut PgConnection, scope: Scope) -> Result<(), sqlx::Error> {
        for delete in [
            "DELETE FROM approval_view WHERE log_id = $1 AND version = $2",
            "DELETE FROM approval_counts WHERE log_id = $1 AND version = $2",
            "DELETE FROM timers WHERE log_id = $1 AND version = $2",
        ] {
            sqlx::query(delete).bind(scope.log.0).bind(scope.version).execute(&mut *db).await?;
        }
        Ok(())
    }
}

/// The rows of the approvals that began before this batch.
async fn load(
    db: &mut PgConnection,
    scope: Scope,
    events: &[Entry],
) -> Result<BTreeMap<ApprovalId, Folding>, ApplyError> {
    let old: Vec<String> = events
        .iter()
        .filter(|event| event.version > 1)
        .filter_map(|event| event.stream.as_approval())
        .map(String::from)
        .collect();
    if old.is_empty() {
        return Ok(BTreeMap::new());
    }
    let rows: Vec<(String, String, i64, i64)> = sqlx::query_as(
        "SELECT approval_id, state, seq, position FROM approval_view \
         WHERE approval_id = ANY($3) AND log_id = $1 AND version = $2",
    )
    .bind(scope.log.0)
    .bind(scope.version)
    .bind(old)
    .fetch_all(db)
    .await?;
    let mut folds = BTreeMap::new();
    for (id, state, seq, position) in rows {
        let id = ApprovalId::parse(id).map_err(|error| ApplyError::Event(error.to_string()))?;
        let state = serde_json::from_str(&state)?;
        folds.insert(id, Folding { state, seq: seq.unsigned_abs(), position: position.unsigned_abs() });
    }
    Ok(folds)
}

/// The columns of the rows to write, for UNNEST.
#[derive(Default)]
struct Columns {
    id: Vec<String>,
    run: Vec<String>,
    owner: Vec<String>,
    kind: Vec<&'static str>,
    component: Vec<String>,
    approval_type: Vec<&'static str>,
    pause_type: Vec<&'static str>,
    status: Vec<&'static str>,
    shown: Vec<bool>,
    seq: Vec<i64>,
    position: Vec<i64>,
    state: Vec<String>,
}

impl Columns {
    fn push(&mut self, id: &ApprovalId, row: &Folding) -> Result<(), ApplyError> {
        let missing = || ApplyError::Event(format!("approval {id} has events but was never requested"));
        let requested = row.state.requested.as_ref().ok_or_else(missing)?;
        self.id.push(id.as_str().to_owned());
        self.run.push(requested.run_id.as_str().to_owned());
        self.owner.push(requested.user_id.as_ref().map_or("", UserId::as_str).to_owned());
        self.kind.push(requested.component.kind.as_str());
        self.component.push(requested.component.id.as_str().to_owned());
        self.approval_type.push(kind_name(requested.rule.kind));
        self.pause_type.push(requested.requirement.kind.as_str());
        self.status.push(row.state.status.as_str());
        self.shown.push(!row.state.deleted);
        self.seq.push(row.seq.cast_signed());
        self.position.push(row.position.cast_signed());
        self.state.push(serde_json::to_string(&row.state)?);
        Ok(())
    }
}

async fn save(db: &mut PgConnection, scope: Scope, rows: &BTreeMap<ApprovalId, Folding>) -> Result<(), ApplyError> {
    let mut columns = Columns::default();
    for (id, row) in rows {
        columns.push(id, row)?;
    }
    sqlx::query(
        "INSERT INTO approval_view (log_id, version, approval_id, run_id, owner_id, component_kind, component_id, \
             approval_type, pause_type, status, shown, seq, position, state) \
         SELECT $1, $2, * FROM UNNEST($3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[], \
             $9::text[], $10::text[], $11::bool[], $12::bigint[], $13::bigint[], $14::text[]) \
         ON CONFLICT (approval_id, log_id, version) DO UPDATE SET status = excluded.status, shown = excluded.shown, \
             position = excluded.position, state = excluded.state",
    )
    .bind(scope.log.0)
    .bind(scope.version)
    .bind(columns.id)
    .bind(columns.run)
    .bind(columns.owner)
    .bind(columns.kind)
    .bind(columns.component)
    .bind(columns.approval_type)
    .bind(columns.pause_type)
    .bind(columns.status)
    .bind(columns.shown)
    .bind(columns.seq)
    .bind(columns.position)
    .bind(columns.state)
    .execute(db)
    .await?;
    Ok(())
}

/// The next time something is due, for each approval of the batch; none where nothing is.
async fn set_timers(
    db: &mut PgConnection,
    scope: Scope,
    rows: &BTreeMap<ApprovalId, Folding>,
) -> Result<(), ApplyError> {
    let (mut streams, mut dues, mut gone) = (vec![], vec![], vec![]);
    for (id, row) in rows {
        let stream = StreamId::approval(id).as_str().to_owned();
        match row.state.due_ms() {
            Some(due) => {
                streams.push(stream);
                dues.push(due);
            }
            None => gone.push(stream),
        }
    }
    sqlx::query("DELETE FROM timers WHERE log_id = $1 AND version = $2 AND stream_id = ANY($3)")
        .bind(scope.log.0)
        .bind(scope.version)
        .bind(gone)
        .execute(&mut *db)
        .await?;
    sqlx::query(
        "INSERT INTO timers (log_id, version, stream_id, due_ms) \
         SELECT $1, $2, * FROM UNNEST($3::text[], $4::bigint[]) \
         ON CONFLICT (stream_id, log_id, version) DO UPDATE SET due_ms = excluded.due_ms, claimed_until = 0",
    )
    .bind(scope.log.0)
    .bind(scope.version)
    .bind(streams)
    .bind(dues)
    .execute(db)
    .await?;
    Ok(())
}

async fn add(db: &mut PgConnection, scope: Scope, counts: BTreeMap<Sort, i64>) -> Result<(), ApplyError> {
    let (mut owners, mut kinds, mut components) = (vec![], vec![], vec![]);
    let (mut types, mut pauses, mut statuses, mut ns) = (vec![], vec![], vec![], vec![]);
    for ((owner, kind, component, approval_type, pause_type, status), n) in counts.into_iter().filter(|(_, n)| *n != 0)
    {
        owners.push(owner);
        kinds.push(kind);
        components.push(component);
        types.push(approval_type);
        pauses.push(pause_type);
        statuses.push(status);
        ns.push(n);
    }
    sqlx::query(
        "INSERT INTO approval_counts AS c (log_id, version, owner_id, component_kind, component_id, approval_type, \
             pause_type, status, n) \
         SELECT $1, $2, * FROM UNNEST($3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[], \
             $9::bigint[]) \
         ON CONFLICT (log_id, version, owner_id, component_kind, component_id, approval_type, pause_type, status) \
         DO UPDATE SET n = c.n + excluded.n",
    )
    .bind(scope.log.0)
    .bind(scope.version)
    .bind(owners)
    .bind(kinds)
    .bind(components)
    .bind(types)
    .bind(pauses)
    .bind(statuses)
    .bind(ns)
    .execute(db)
    .await?;
    Ok(())
}
