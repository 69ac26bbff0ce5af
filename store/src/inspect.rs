//! Looks at a database without changing it: what an operator wants to know before and beside a running server.

use std::str::FromStr;
use std::time::{SystemTime, UNIX_EPOCH};

use secrecy::{ExposeSecret, SecretString};
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{Connection, Row};

use crate::crypto::MasterKey;
use crate::error::StoreError;
use crate::keys::fits;
use crate::migrate::{Applied, applied_to};

/// What was found. Counts and names only, nothing personal.
#[derive(Debug, Clone)]
pub struct Inspection {
    /// PostgreSQL's version as a number: 150008 is 15.8.
    pub version: i32,
    /// The role that was let in.
    pub role: String,
    /// What the role lacks to migrate and write; empty when nothing.
    pub lacks: Vec<String>,
    /// How the database's migrations are to this program's.
    pub migrations: Applied,
    /// Whether the key is the database's; none when none was given, or the database remembers none yet.
    pub key_fits: Option<bool>,
    /// How far the database's clock is ahead of this machine's, in milliseconds.
    pub clock_ahead_ms: i64,
    /// The most connections the server takes, and how many there are.
    pub connections: (i64, i64),
    /// The nodes that joined and have not left.
    pub nodes: Vec<NodeSeen>,
}

/// A node as the database knows it.
#[derive(Debug, Clone, PartialEq)]
pub struct NodeSeen {
    /// Its machine.
    pub host: String,
    /// Its process there.
    pub pid: i64,
    /// Seconds since it showed that it lives.
    pub silent_seconds: f64,
}

/// A connection that can change nothing.
///
/// # Errors
/// [`StoreError::BadUrl`], or what the database says.
pub async fn connect_to_look(url: &SecretString) -> Result<PgConnection, StoreError> {
    let options =
        PgConnectOptions::from_str(url.expose_secret()).map_err(|error| StoreError::BadUrl(error.to_string()))?;
    let options = options.application_name("daybook doctor").options([("default_transaction_read_only", "on")]);
    Ok(PgConnection::connect_with(&options).await?)
}

/// Looks at the database behind `db`.
///
/// # Errors
/// [`StoreError`] when it does not answer.
pub async fn inspect(db: &mut PgConnection, key: Option<&MasterKey>) -> Result<Inspection, StoreError> {
    let about = sqlx::query(
        "SELECT current_setting('server_version_num')::int, current_user::text, \
         current_setting('max_connections')::bigint, \
         (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend')",
    );
    let about = about.fetch_one(&mut *db).await?;
    let migrations = applied_to(db).await?;
    Ok(Inspection {
        version: about.try_get(0)?,
        role: about.try_get(1)?,
        connections: (about.try_get(2)?, about.try_get(3)?),
        lacks: lacks(db).await?,
        key_fits: key_fits(db, key).await?,
        clock_ahead_ms: clock_ahead(db).await?,
        nodes: if migrations.known == 0 { Vec::new() } else { nodes(db).await? },
        migrations,
    })
}

async fn lacks(db: &mut PgConnection) -> Result<Vec<String>, StoreError> {
    let (schema, create): (Option<String>, Option<bool>) =
        sqlx::query_as("SELECT current_schema()::text, has_schema_privilege(current_user, current_schema(), 'CREATE')")
            .fetch_one(&mut *db)
            .await?;
    let mut lacks = Vec::new();
    match schema {
        None => lacks.push("a schema to work in".to_owned()),
        Some(schema) if create != Some(true) => {
            lacks.push(format!("the right to create tables in the schema {schema}"))
        }
        Some(_) => {}
    }
    let theirs: Option<String> = sqlx::query_scalar(
        "SELECT pg_get_userbyid(relowner)::text FROM pg_class \
         WHERE oid = to_regclass('events') AND NOT pg_has_role(current_user, relowner, 'USAGE')",
    )
    .fetch_optional(&mut *db)
    .await?;
    lacks.extend(theirs.map(|owner| format!("the ownership of Daybook's tables, which {owner} has")));
    Ok(lacks)
}

async fn key_fits(db: &mut PgConnection, key: Option<&MasterKey>) -> Result<Option<bool>, StoreError> {
    let known: bool = sqlx::query_scalar("SELECT to_regclass('store_meta') IS NOT NULL").fetch_one(&mut *db).await?;
    let Some(key) = key.filter(|_| known) else { return Ok(None) };
    let check: Option<Vec<u8>> =
        sqlx::query_scalar("SELECT value FROM store_meta WHERE name = 'master_check'").fetch_optional(&mut *db).await?;
    check.map(|check| fits(key, &check)).transpose()
}

/// Half the time of the question is taken for the way there.
async fn clock_ahead(db: &mut PgConnection) -> Result<i64, StoreError> {
    let asked = now_ms();
    let theirs: i64 =
        sqlx::query_scalar("SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint").fetch_one(db).await?;
    Ok(theirs - i64::midpoint(asked, now_ms()))
}

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

async fn nodes(db: &mut PgConnection) -> Result<Vec<NodeSeen>, StoreError> {
    let rows: Vec<(String, i64, f64)> = sqlx::query_as(
        "SELECT host, pid, extract(epoch FROM clock_timestamp() - heartbeat_at)::float8 FROM nodes ORDER BY started_at",
    )
    .fetch_all(db)
    .await?;
    Ok(rows.into_iter().map(|(host, pid, silent_seconds)| NodeSeen { host, pid, silent_seconds }).collect())
}
