//! `query_database`.

use std::collections::HashMap;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::value::RawValue;
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Column as _, Executor as _, SqlSafeStr as _, Statement as _};
use tokio::sync::SemaphorePermit;
use tokio::time::timeout;

use super::answer::Answer;
use super::connect::{Database, words};
use super::look;
use super::scan::{Scan, scan};
use crate::{ToolError, ToolOutput};

#[derive(Deserialize, JsonSchema)]
pub(super) struct Arguments {
    /// One query, such as `SELECT name, total FROM orders ORDER BY total DESC LIMIT 10`.
    sql: String,
}

/// Functions that are VOLATILE because they tell something new each time, and do nothing else.
pub(super) const HARMLESS: [&str; 17] = [
    "clock_timestamp",
    "gen_random_uuid",
    "pg_blocking_pids",
    "pg_database_size",
    "pg_indexes_size",
    "pg_is_in_recovery",
    "pg_last_wal_receive_lsn",
    "pg_last_wal_replay_lsn",
    "pg_last_xact_replay_timestamp",
    "pg_relation_size",
    "pg_table_size",
    "pg_total_relation_size",
    "random",
    "random_normal",
    "timeofday",
    "uuidv4",
    "uuidv7",
];

/// Functions of extensions that run a query they are given as a text, whose words cannot be looked at.
const RUN_TEXTS: [&str; 6] = ["crosstab", "crosstab2", "crosstab3", "crosstab4", "connectby", "xpath_table"];

/// Of these names, those of functions that act: whatever acts must be declared VOLATILE.
const NOT_HARMLESS: &str = "SELECT DISTINCT p.proname::text FROM pg_catalog.pg_proc p \
    WHERE p.proname::text = ANY ($1::text[]) \
      AND (p.provolatile = 'v' AND NOT p.proname::text = ANY ($2::text[]) \
           AND NOT (p.proname::text = ANY ($3::text[]) AND p.pronamespace = 'pg_catalog'::pg_catalog.regnamespace) \
           OR p.proname::text = ANY ($4::text[])) \
    ORDER BY 1";

/// How many rows are fetched at a time: of what is too much, so much is held.
const FETCH: &str = "FETCH FORWARD 20 FROM daybook_answer";
const FETCHED: usize = 20;

pub(super) async fn query(database: &Database, arguments: &Arguments) -> Result<ToolOutput, ToolError> {
    let scanned = scan(&arguments.sql).map_err(ToolError::Arguments)?;
    let permit = database.permit().await.map_err(ToolError::failed)?;
    let patience = database.patience();
    let late = |_| Err(ToolError::failed(format!("no answer for {} seconds; ask for less", patience.as_secs())));
    timeout(patience, within(database, permit, &scanned)).await.unwrap_or_else(late)
}

pub(super) async fn within(
    database: &Database,
    permit: SemaphorePermit<'_>,
    scanned: &Scan<'_>,
) -> Result<ToolOutput, ToolError> {
    let mut lease = database.transaction(permit).await?;
    let answer = ask(database, &mut lease.connection, scanned).await;
    lease.end(answer.is_ok()).await;
    answer
}

async fn ask(database: &Database, connection: &mut PgConnection, scanned: &Scan<'_>) -> Result<ToolOutput, ToolError> {
    refuse(&acting(database, connection, &scanned.called).await?)?;
    // Alone first: it must be a statement by itself, so that nothing of it reaches out of the parentheses below.
    let alone = AssertSqlSafe(scanned.query.to_owned()).into_sql_str();
    let prepared = (&mut *connection).prepare(alone).await.map_err(|error| fault(&error))?;
    let columns: Vec<String> = prepared.columns().iter().map(|column| column.name().to_owned()).collect();
    let parameters = prepared.parameters().map_or(0, |given| given.map_left(<[_]>::len).into_inner());
    if parameters > 0 {
        return Err(ToolError::Arguments("the query has parameters such as $1; write the values instead".to_owned()));
    }
    if columns.is_empty() {
        return Err(ToolError::Arguments("the query gives no columns; select something".to_owned()));
    }
    refuse(&look::acting(database, connection, scanned.query, &scanned.attributes).await?)?;
    let cursor = AssertSqlSafe(cursor(scanned.query, columns.len(), database.max_bytes));
    sqlx::query(cursor).persistent(false).execute(&mut *connection).await.map_err(|error| fault(&error))?;
    fetch(database, connection, columns).await.map(|answer| answer.to_json().into())
}

/// Where the text stands, only a query can stand. Its columns get names of their own, as theirs may be alike, and its rows
/// are made JSON and cut to what an answer may hold by the server, so that no row is larger here.
fn cursor(query: &str, columns: usize, max_bytes: usize) -> String {
    let names: Vec<String> = (1..=columns).map(|number| format!("c{number}")).collect();
    let names = names.join(", ");
    // Its last line may be a comment.
    format!(
        "DECLARE daybook_answer NO SCROLL CURSOR FOR SELECT pg_catalog.left(pg_catalog.row_to_json(q)::pg_catalog.text, \
         {max_bytes}) FROM (\n{query}\n) q({names})"
    )
}

/// Of the names that the query calls, those of functions that act: known before anything is made of the query.
async fn acting(
    database: &Database,
    connection: &mut PgConnection,
    called: &[String],
) -> Result<Vec<String>, ToolError> {
    if called.is_empty() {
        return Ok(Vec::new());
    }
    let texts = |list: &[&str]| list.iter().map(|name| (*name).to_owned()).collect::<Vec<String>>();
    sqlx::query_scalar(NOT_HARMLESS)
        .bind(called)
        .bind(&database.allow_functions)
        .bind(texts(&HARMLESS))
        .bind(texts(&RUN_TEXTS).into_iter().filter(|name| !database.allow_functions.contains(name)).collect::<Vec<_>>())
        .persistent(false)
        .fetch_all(connection)
        .await
        .map_err(|error| fault(&error))
}

fn refuse(acting: &[String]) -> Result<(), ToolError> {
    if acting.is_empty() {
        return Ok(());
    }
    let acting = acting.join(", ");
    Err(ToolError::Arguments(format!(
        "the query runs {acting}, by name or behind an operator, a cast, a view or the like, which may do more than read \
         (it is VOLATILE); do without it. If it only reads, the owner of the database can declare it STABLE, or name it in \
         the option `allow_functions`"
    )))
}

async fn fetch(database: &Database, connection: &mut PgConnection, columns: Vec<String>) -> Result<Answer, ToolError> {
    let mut answer = Answer::new(columns, database.max_rows, database.max_bytes)?;
    loop {
        let rows = sqlx::query_scalar(FETCH).persistent(false).fetch_all(&mut *connection).await;
        let rows: Vec<String> = rows.map_err(|error| fault(&error))?;
        let last = rows.len() < FETCHED;
        for row in rows {
            // What the server cut is no JSON any more, and is too long in any case.
            let values = serde_json::from_str::<HashMap<String, Box<RawValue>>>(&row).ok();
            if !answer.add(values) {
                return Ok(answer);
            }
        }
        if last {
            return Ok(answer);
        }
    }
}

/// What the model reads of a failure: what lies in its query it can mend.
pub(super) fn fault(error: &sqlx::Error) -> ToolError {
    let code = error.as_database_error().and_then(|said| said.code()).unwrap_or_default().into_owned();
    match code.as_str() {
        "57014" | "55P03" | "25P03" => ToolError::failed("the query took too long and was ended; ask for less"),
        code if ["22", "25", "42", "0A", "21"].iter().any(|class| code.starts_with(class)) => {
            ToolError::Arguments(format!("the database does not take the query: {}", words(error)))
        }
        _ => ToolError::failed(format!("the query failed: {}", words(error))),
    }
}
