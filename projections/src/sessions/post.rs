//! Posts `session_view` and `session_counts`.

use std::collections::{BTreeMap, HashSet};

use daybook_domain::run::RunEvent;
use daybook_domain::session::SessionState;
use daybook_domain::{DomainEvent, SessionId, UserId};
use daybook_store::Entry;
use sqlx::PgConnection;

use crate::error::ApplyError;
use crate::kinds;
use crate::projection::{Projection, Scope};
use crate::text;

/// How much of a first message a name shows, in characters.
const FIRST_MESSAGE_CHARS: usize = 1000;

/// Posts the view of sessions.
pub(crate) struct Sessions;

/// A row on its way from the table through the batch and back.
#[derive(Default)]
struct Folding {
    state: SessionState,
    first_message: Option<String>,
    seq: u64,
    position: u64,
}

/// How many sessions were created: by (everyone, owner, kind, component).
type Counts = BTreeMap<(bool, String, &'static str, String), i64>;

impl Projection for Sessions {
    const NAME: &'static str = "sessions";
    const VERSION: i32 = 1;

    fn wants(kind: &str) -> bool {
        // A run's acceptance tells the first message.
        kinds::is_session(kind) || kind == "RunAccepted"
    }

    async fn apply(db: &mut PgConnection, scope: Scope, events: &[Entry]) -> Result<(), ApplyError> {
        let mut rows = load(db, scope, events).await?;
        let mut counts = Counts::new();
        for recorded in events {
            match &recorded.event {
                DomainEvent::Session(event) => {
                    let session = recorded.stream.as_session().ok_or_else(|| {
                        ApplyError::Event(format!("{} is not the stream of a session", recorded.stream))
                    })?;
                    let row = rows.entry(session).or_default();
                    if recorded.position <= row.position {
                        continue;
                    }
                    let existed = row.state.exists();
                    row.state.evolve(event);
                    row.position = recorded.position;
                    if !existed && row.state.exists() {
                        row.seq = recorded.position;
                        count(&mut counts, &row.state);
                    }
                }
                DomainEvent::Run(RunEvent::Accepted(accepted)) => {
                    // A session made by this very run may come after it: such a session is named when it is created.
                    if let Some(row) = rows.get_mut(&accepted.session_id)
                        && row.first_message.is_none()
                    {
                        row.first_message = accepted.message.get().map(|text| text::cut(text, FIRST_MESSAGE_CHARS));
                    }
                }
                _ => {}
            }
        }
        save(db, scope, &rows).await?;
        add(db, scope, counts).await
    }

    async fn clear(db: &mut PgConnection, scope: Scope) -> Result<(), sqlx::Error> {
        for delete in [
            "DELETE FROM session_view WHERE log_id = $1 AND version = $2",
            "DELETE FROM session_counts WHERE log_id = $1 AND version = $2",
        ] {
            sqlx::query(delete).bind(scope.log.0).bind(scope.version).execute(&mut *db).await?;
        }
        Ok(())
    }
}

fn component(state: &SessionState) -> (&'static str, String) {
    state.component.as_ref().map_or(("", String::new()), |c| (c.kind.as_str(), c.id.as_str().to_owned()))
}

fn owner(state: &SessionState) -> String {
    state.user_id.as_ref().map_or("", UserId::as_str).to_owned()
}

fn count(counts: &mut Counts, state: &SessionState) {
    let (kind, id) = component(state);
    *counts.entry((true, String::new(), kind, id.clone())).or_default() += 1;
    *counts.entry((false, owner(state), kind, id)).or_default() += 1;
}

/// The rows of the batch's sessions, as far as they began before it.
async fn load(
    db: &mut PgConnection,
    scope: Scope,
    events: &[Entry],
) -> Result<BTreeMap<SessionId, Folding>, ApplyError> {
    let new: HashSet<SessionId> =
        events.iter().filter(|event| event.version == 1).filter_map(|event| event.stream.as_session()).collect();
    let wanted = events.iter().filter_map(|recorded| match &recorded.event {
        DomainEvent::Run(RunEvent::Accepted(accepted)) => Some(accepted.session_id.clone()),
        _ => recorded.stream.as_session(),
    });
    let old: HashSet<String> = wanted.filter(|session| !new.contains(session)).map(String::from).collect();
    if old.is_empty() {
        return Ok(BTreeMap::new());
    }
    // The sums hide log and version from the indexes that begin with them, of which all rows would be walked over.
    let rows: Vec<(String, String, Option<String>, i64, i64)> = sqlx::query_as(
        "SELECT session_id, state, first_message, seq, position FROM session_view \
         WHERE session_id = ANY($3) AND log_id + 0 = $1 AND version + 0 = $2",
    )
    .bind(scope.log.0)
    .bind(scope.version)
    .bind(Vec::from_iter(old))
    .fetch_all(db)
    .await?;
    let mut folds = BTreeMap::new();
    for (session, state, first_message, seq, position) in rows {
        let session = SessionId::parse(session).map_err(|error| ApplyError::Event(error.to_string()))?;
        let state = serde_json::from_str(&state)?;
        let (seq, position) = (seq.unsigned_abs(), position.unsigned_abs());
        folds.insert(session, Folding { state, first_message, seq, position });
    }
    Ok(folds)
}

/// The columns of the rows to write, for UNNEST.
#[derive(Default)]
struct Columns {
    session: Vec<String>,
    owner: Vec<String>,
    kind: Vec<&'static str>,
    component: Vec<String>,
    name: Vec<String>,
    first_message: Vec<Option<String>>,
    created: Vec<i64>,
    updated: Vec<i64>,
    seq: Vec<i64>,
    position: Vec<i64>,
    state: Vec<String>,
}

impl Columns {
    fn push(&mut self, session: &SessionId, row: &Folding) -> Result<(), ApplyError> {
        if !row.state.exists() {
            return Err(ApplyError::Event(format!("session {session} has events but was never created")));
        }
        let (kind, component) = component(&row.state);
        self.session.push(session.as_str().to_owned());
        self.owner.push(owner(&row.state));
        self.kind.push(kind);
        self.component.push(component);
        self.name.push(text::clean(row.state.name.as_deref().unwrap_or_default()).into_owned());
        self.first_message.push(row.first_message.clone());
        self.created.push(row.state.created_at);
        self.updated.push(row.state.updated_at);
        self.seq.push(row.seq.cast_signed());
        self.position.push(row.position.cast_signed());
        self.state.push(serde_json::to_string(&row.state)?);
        Ok(())
    }
}

async fn save(db: &mut PgConnection, scope: Scope, rows: &BTreeMap<SessionId, Folding>) -> Result<(), ApplyError> {
    if rows.is_empty() {
        return Ok(());
    }
    let mut columns = Columns::default();
    for (session, row) in rows {
        columns.push(session, row)?;
    }
    sqlx::query(
        "INSERT INTO session_view (log_id, version, session_id, owner_id, component_kind, component_id, name, \
             first_message, created_at, updated_at, seq, position, state) \
         SELECT $1, $2, * FROM UNNEST($3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[], \
             $9::bigint[], $10::bigint[], $11::bigint[], $12::bigint[], $13::text[]) \
         ON CONFLICT (log_id, version, session_id) DO UPDATE SET name = excluded.name, \
             first_message = excluded.first_message, updated_at = excluded.updated_at, \
             position = excluded.position, state = excluded.state",
    )
    .bind(scope.log.0)
    .bind(scope.version)
    .bind(columns.session)
    .bind(columns.owner)
    .bind(columns.kind)
    .bind(columns.component)
    .bind(columns.name)
    .bind(columns.first_message)
    .bind(columns.created)
    .bind(columns.updated)
    .bind(columns.seq)
    .bind(columns.position)
    .bind(columns.state)
    .execute(db)
    .await?;
    Ok(())
}

async fn add(db: &mut PgConnection, scope: Scope, counts: Counts) -> Result<(), ApplyError> {
    if counts.is_empty() {
        return Ok(());
    }
    let (mut everyone, mut owners, mut kinds, mut components, mut ns) = (vec![], vec![], vec![], vec![], vec![]);
    for ((all, owner, kind, component), n) in counts {
        everyone.push(all);
        owners.push(owner);
        kinds.push(kind);
        components.push(component);
        ns.push(n);
    }
    sqlx::query(
        "INSERT INTO session_counts AS c (log_id, version, everyone, owner_id, component_kind, component_id, n) \
         SELECT $1, $2, * FROM UNNEST($3::bool[], $4::text[], $5::text[], $6::text[], $7::bigint[]) \
         ON CONFLICT (log_id, version, everyone, owner_id, component_kind, component_id) \
         DO UPDATE SET n = c.n + excluded.n",
    )
    .bind(scope.log.0)
    .bind(scope.version)
    .bind(everyone)
    .bind(owners)
    .bind(kinds)
    .bind(components)
    .bind(ns)
    .execute(db)
    .await?;
    Ok(())
}
