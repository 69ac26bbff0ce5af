//! The database's shape: migrations run under an advisory lock, and what older versions are served.

use semver::Version;
use sqlx::PgPool;
use sqlx::migrate::Migrator;

use crate::error::StoreError;
use crate::types::{MigrateError, MigrateOutcome};

static MIGRATIONS: Migrator = sqlx::migrate!("../migrations");

/// Versions of the wire's own schemas that this program serves; they differ in nothing the log keeps.
const OLDEST: &str = "2.0.0";
const NEWEST: &str = "3.1.10";
const SERVED: (Version, Version) = (Version::new(2, 0, 0), Version::new(3, 1, 10));

/// Brings the database to this program's shape. Returns whether anything was done.
pub(crate) async fn run(pool: &PgPool) -> Result<bool, StoreError> {
    let before = applied(pool).await?;
    let mut connection = pool.acquire().await?;
    if let Err(error) = MIGRATIONS.run_direct(None, &mut *connection, false).await {
        // It may still hold the lock, which goes with the connection.
        connection.close().await.ok();
        return Err(match error {
            sqlx::migrate::MigrateError::VersionMissing(version) => StoreError::NewerDatabase(version),
            sqlx::migrate::MigrateError::Execute(error) => error.into(),
            other => StoreError::Migration(other),
        });
    }
    drop(connection);
    Ok(applied(pool).await? != before)
}

/// How a database's migrations are to this program's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Applied {
    /// Those that both have.
    pub known: usize,
    /// Those that the database lacks.
    pub pending: usize,
    /// Those that only the database has: a newer program made them.
    pub unknown: usize,
    /// Those that broke off.
    pub failed: usize,
}

/// What was applied to the database behind `db`.
pub(crate) async fn applied_to(db: &mut sqlx::PgConnection) -> Result<Applied, StoreError> {
    let exists: bool =
        sqlx::query_scalar("SELECT to_regclass('_sqlx_migrations') IS NOT NULL").fetch_one(&mut *db).await?;
    let rows: Vec<(i64, bool)> = match exists {
        true => sqlx::query_as("SELECT version, success FROM _sqlx_migrations").fetch_all(db).await?,
        false => Vec::new(),
    };
    let ours: Vec<i64> = MIGRATIONS.iter().map(|migration| migration.version).collect();
    let known = rows.iter().filter(|(version, success)| *success && ours.contains(version)).count();
    Ok(Applied {
        known,
        pending: ours.len() - known,
        unknown: rows.iter().filter(|(version, _)| !ours.contains(version)).count(),
        failed: rows.iter().filter(|(_, success)| !success).count(),
    })
}

async fn applied(pool: &PgPool) -> Result<i64, StoreError> {
    let exists: bool = sqlx::query_scalar("SELECT to_regclass('_sqlx_migrations') IS NOT NULL").fetch_one(pool).await?;
    if !exists {
        return Ok(0);
    }
    Ok(sqlx::query_scalar("SELECT count(*) FROM _sqlx_migrations WHERE success").fetch_one(pool).await?)
}

/// Checks that `target` is served, and migrates.
pub(crate) async fn to(pool: &PgPool, target: Option<&str>) -> Result<MigrateOutcome, MigrateError> {
    if let Some(target) = target {
        let version = Version::parse(target.trim().trim_start_matches('v'))
            .map_err(|_| MigrateError::BadVersion(target.to_owned()))?;
        if version < SERVED.0 || version > SERVED.1 {
            return Err(MigrateError::Incompatible { target: target.to_owned(), oldest: OLDEST, newest: NEWEST });
        }
    }
    let changed = run(pool).await?;
    Ok(MigrateOutcome { target: target.unwrap_or("latest").to_owned(), changed })
}
