//! `describe_database`.

use std::fmt::Write as _;

use schemars::JsonSchema;
use serde::Deserialize;
use sqlx::postgres::PgConnection;
use tokio::sync::SemaphorePermit;
use tokio::time::timeout;

use super::connect::Database;
use super::query::fault;
use crate::{ToolError, ToolOutput};

#[derive(Deserialize, JsonSchema)]
pub(super) struct Arguments {
    /// Only tables whose name contains this, or `schema.table`; all when left out.
    #[serde(default)]
    table: Option<String>,
}

/// The columns of what the role may read, in the order of the tables.
const COLUMNS: &str = "\
    SELECT n.nspname::text, c.relname::text, \
           CASE c.relkind WHEN 'v' THEN 'view' WHEN 'm' THEN 'materialized view' WHEN 'f' THEN 'foreign table' \
                          ELSE 'table' END, \
           pg_catalog.obj_description(c.oid, 'pg_class'), \
           a.attname::text, pg_catalog.format_type(a.atttypid, a.atttypmod), a.attnotnull, \
           pg_catalog.col_description(c.oid, a.attnum::pg_catalog.int4), \
           (SELECT pg_catalog.string_agg(pg_catalog.pg_get_constraintdef(k.oid), '; ' ORDER BY k.contype DESC, k.conname) \
              FROM pg_catalog.pg_constraint k WHERE k.conrelid = c.oid AND k.contype IN ('p', 'f', 'u')) \
      FROM pg_catalog.pg_class c \
      JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
      JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped \
     WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND NOT c.relispartition \
       AND (pg_catalog.cardinality($1::text[]) = 0 AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_' \
            OR n.nspname::text = ANY ($1::text[])) \
       AND ($2::text IS NULL OR pg_catalog.strpos(n.nspname::text || '.' || c.relname::text, $2::text) > 0) \
       AND pg_catalog.has_schema_privilege(n.oid, 'USAGE') \
       AND pg_catalog.has_column_privilege(c.oid, a.attnum, 'SELECT') \
     ORDER BY n.nspname, c.relname, a.attnum LIMIT 5000";

/// The longest comment that is shown, in characters.
const MAX_COMMENT: usize = 200;

type Line = (String, String, String, Option<String>, String, String, bool, Option<String>, Option<String>);

pub(super) async fn describe(database: &Database, arguments: &Arguments) -> Result<ToolOutput, ToolError> {
    let permit = database.permit().await.map_err(ToolError::failed)?;
    let patience = database.patience();
    let late = |_| Err(ToolError::failed(format!("no answer for {} seconds", patience.as_secs())));
    timeout(patience, within(database, permit, arguments.table.as_deref())).await.unwrap_or_else(late)
}

async fn within(
    database: &Database,
    permit: SemaphorePermit<'_>,
    table: Option<&str>,
) -> Result<ToolOutput, ToolError> {
    if table.is_some_and(|name| name.contains('\0')) {
        return Err(ToolError::Arguments("the name of the table contains U+0000".to_owned()));
    }
    let mut lease = database.transaction(permit).await?;
    let lines = columns(database, &mut lease.connection, table).await;
    lease.end(lines.is_ok()).await;
    let lines = lines.map_err(|error| fault(&error))?;
    if lines.is_empty() {
        return Ok("[there is nothing of that name that may be read]".into());
    }
    Ok(told(&lines, database.max_bytes).into())
}

async fn columns(
    database: &Database,
    connection: &mut PgConnection,
    table: Option<&str>,
) -> Result<Vec<Line>, sqlx::Error> {
    let asked = sqlx::query_as(COLUMNS).bind(&database.schemas).bind(table).persistent(false);
    asked.fetch_all(connection).await
}

/// What is said where not all fits.
const MORE: &str = "[there is more than fits; ask for a table by its name]\n";

/// A paragraph for each table, as many as fit, with a word about the others.
fn told(lines: &[Line], max_bytes: usize) -> String {
    let mut told = String::new();
    let mut room_for_more = 0;
    for table in lines.chunk_by(|one, other| (&one.0, &one.1) == (&other.0, &other.1)) {
        let paragraph = paragraph(table);
        if told.len() + paragraph.len() > max_bytes {
            told.truncate(room_for_more);
            told.push_str(MORE);
            break;
        }
        told.push_str(&paragraph);
        if told.len() + MORE.len() <= max_bytes {
            room_for_more = told.len();
        }
    }
    told
}

fn paragraph(table: &[Line]) -> String {
    let mut told = String::new();
    let Some((schema, name, kind, comment, .., keys)) = table.first() else { return told };
    let _ = writeln!(told, "{schema}.{name} ({kind}){}", remark(comment.as_deref()));
    for (.., column, kind, not_null, comment, _) in table {
        let not_null = if *not_null { " not null" } else { "" };
        let _ = writeln!(told, "  {column} {kind}{not_null}{}", remark(comment.as_deref()));
    }
    if let Some(keys) = keys {
        let _ = writeln!(told, "  {keys}");
    }
    told
}

/// A comment in one line.
fn remark(comment: Option<&str>) -> String {
    let Some(comment) = comment else { return String::new() };
    let line: Vec<&str> = comment.split_whitespace().collect();
    let line: String = line.join(" ").chars().take(MAX_COMMENT).collect();
    format!(" -- {line}")
}
