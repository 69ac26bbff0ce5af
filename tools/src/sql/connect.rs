//! Connections that a query cannot spoil: few, checked when they are opened, and used again only when they are clean.

use std::str::FromStr as _;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use secrecy::ExposeSecret as _;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgDatabaseError};
use sqlx::{ConnectOptions as _, Connection as _, Row as _};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::timeout;

use super::{SqlError, SqlOptions};
use crate::ToolError;

/// The most connections at a time; further calls wait.
const CONNECTIONS: usize = 2;
/// How long a connection may take to open.
const CONNECT: Duration = Duration::from_secs(10);
/// What we wait beyond the database's own limit, for its word to arrive.
const GRACE: Duration = Duration::from_secs(5);
/// How long the end of a call may take.
const CLEAN: Duration = Duration::from_secs(2);

const LONGEST_SECONDS: u32 = 3600;
const MOST_BYTES: u32 = 16 << 20;

/// Roles that reach beyond the database, or into others' sessions.
const POWERFUL: [&str; 4] =
    ["pg_execute_server_program", "pg_read_server_files", "pg_write_server_files", "pg_signal_backend"];

/// Who logs in, whether it is a superuser, and which roles with powers it can become.
const POWERS: &str = "SELECT session_user::text, \
    EXISTS (SELECT FROM pg_catalog.pg_roles r WHERE r.rolsuper AND pg_catalog.pg_has_role(session_user, r.oid, 'MEMBER')), \
    ARRAY(SELECT r.rolname::text FROM pg_catalog.pg_roles r WHERE r.rolname = ANY ($1::text[]) \
          AND pg_catalog.pg_has_role(session_user, r.oid, 'MEMBER') ORDER BY 1)";

/// The limits of one transaction. What the server does not know (a client that has gone, before 14) is left out.
const LIMITS: &str = "SELECT count(pg_catalog.set_config(name, value, true)) \
    FROM (VALUES ('statement_timeout', $1), ('lock_timeout', $1), ('idle_in_transaction_session_timeout', $1), \
                 ('client_connection_check_interval', '1000'), ('standard_conforming_strings', 'on')) wanted (name, value) \
    WHERE name IN (SELECT s.name FROM pg_catalog.pg_settings s)";

const SEARCH_PATH: &str = "SELECT pg_catalog.set_config('search_path', \
    (SELECT pg_catalog.string_agg(pg_catalog.quote_ident(name), ', ') FROM pg_catalog.unnest($1::text[]) name), true)";

/// What a transaction may do.
#[derive(Debug, Clone, Copy)]
pub(super) enum Access {
    /// Read, and nothing else.
    Read,
    /// Write too: only to look at a query, which is not run in it.
    Write,
}

/// A database, and what may be asked of it.
pub(super) struct Database {
    options: PgConnectOptions,
    role: Option<String>,
    pub(super) schemas: Vec<String>,
    pub(super) allow_functions: Vec<String>,
    pub(super) max_rows: usize,
    pub(super) max_bytes: usize,
    statement_timeout: Duration,
    any_login: bool,
    permits: Semaphore,
    idle: Mutex<Vec<PgConnection>>,
}

impl Database {
    pub(super) fn new(given: &SqlOptions) -> Result<Self, SqlError> {
        at_most("statement_timeout_seconds", given.statement_timeout_seconds.get(), LONGEST_SECONDS)?;
        at_most("max_result_bytes", given.max_result_bytes.get(), MOST_BYTES)?;
        at_most("max_rows", given.max_rows.get(), 100_000)?;
        let url = given.url.expose_secret();
        // What comes before `://` is not looked at by sqlx.
        if !["postgres://", "postgresql://"].iter().any(|scheme| url.starts_with(scheme)) {
            return Err(SqlError::Url);
        }
        let options = PgConnectOptions::from_str(url).map_err(|_| SqlError::Url)?;
        // Statements are another's words: they are not logged, and not kept prepared, since DISCARD ALL forgets them.
        let options = options.application_name("daybook").statement_cache_capacity(0).disable_statement_logging();
        Ok(Self {
            options,
            role: given.role.clone(),
            schemas: given.schemas.clone(),
            allow_functions: given.allow_functions.clone(),
            max_rows: usize::try_from(given.max_rows.get()).unwrap_or(usize::MAX),
            max_bytes: usize::try_from(given.max_result_bytes.get()).unwrap_or(usize::MAX),
            statement_timeout: Duration::from_secs(u64::from(given.statement_timeout_seconds.get())),
            any_login: given.allow_superuser,
            permits: Semaphore::new(CONNECTIONS),
            idle: Mutex::default(),
        })
    }

    /// A place among the few that use a connection at a time.
    ///
    /// # Errors
    /// When none becomes free for as long as one call may take.
    pub(super) async fn permit(&self) -> Result<SemaphorePermit<'_>, SqlError> {
        let closed = |_| SqlError::Unreachable("it is no longer used".to_owned());
        let free = timeout(self.patience(), self.permits.acquire()).await;
        free.map_err(|_| SqlError::Busy { connections: CONNECTIONS })?.map_err(closed)
    }

    /// The longest a call may take once it has a connection, and the longest it waits for one.
    pub(super) fn patience(&self) -> Duration {
        self.statement_timeout + GRACE
    }

    /// Whether it answers, and the login and the role are fit.
    pub(super) async fn check(&self) -> Result<(), SqlError> {
        let mut lease = self.lease(self.permit().await?).await?;
        let begun = self.begin(&mut lease.connection, Access::Read).await;
        lease.end(begun.is_ok()).await;
        begun
    }

    /// A connection with a read-only transaction on it. When the lease is dropped instead of ended, the connection is
    /// closed, and the server ends what runs on it.
    pub(super) async fn transaction<'a>(&'a self, permit: SemaphorePermit<'a>) -> Result<Lease<'a>, ToolError> {
        let mut lease = self.lease(permit).await.map_err(ToolError::failed)?;
        match self.begin(&mut lease.connection, Access::Read).await {
            Ok(()) => Ok(lease),
            Err(error) => {
                lease.end(false).await;
                Err(ToolError::failed(error))
            }
        }
    }

    /// Rolls back what the connection's transaction did, and begins another.
    pub(super) async fn begin_again(&self, connection: &mut PgConnection, access: Access) -> Result<(), ToolError> {
        let ended = sqlx::raw_sql("ROLLBACK").execute(&mut *connection).await;
        ended.map_err(|error| ToolError::failed(unreachable(error)))?;
        self.begin(connection, access).await.map_err(ToolError::failed)
    }

    async fn lease<'a>(&'a self, permit: SemaphorePermit<'a>) -> Result<Lease<'a>, SqlError> {
        loop {
            let kept = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let Some(mut connection) = kept else { break };
            // The server may have been started again since.
            if matches!(timeout(CLEAN, connection.ping()).await, Ok(Ok(()))) {
                return Ok(Lease { database: self, connection, _permit: permit });
            }
        }
        let connection = self.open().await?;
        Ok(Lease { database: self, connection, _permit: permit })
    }

    async fn open(&self) -> Result<PgConnection, SqlError> {
        let slow = |_| SqlError::Unreachable(format!("no answer for {} seconds", CONNECT.as_secs()));
        let opened = timeout(CONNECT, PgConnection::connect_with(&self.options)).await.map_err(slow)?;
        let mut connection = opened.map_err(unreachable)?;
        if self.any_login {
            return Ok(connection);
        }
        let powers = sqlx::query(POWERS).bind(POWERFUL.map(str::to_owned).to_vec()).persistent(false);
        let row = powers.fetch_one(&mut connection).await.map_err(unreachable)?;
        let read = || Ok((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?));
        let (login, superuser, roles): (String, bool, Vec<String>) = read().map_err(unreachable)?;
        let powers = if superuser { "a superuser".to_owned() } else { roles.join(", ") };
        if powers.is_empty() { Ok(connection) } else { Err(SqlError::Powers { login, powers }) }
    }

    async fn begin(&self, connection: &mut PgConnection, access: Access) -> Result<(), SqlError> {
        let begin = match access {
            Access::Read => "BEGIN READ ONLY",
            Access::Write => "BEGIN READ WRITE",
        };
        sqlx::raw_sql(begin).execute(&mut *connection).await.map_err(unreachable)?;
        let milliseconds = self.statement_timeout.as_millis().to_string();
        sqlx::query(LIMITS)
            .bind(milliseconds)
            .persistent(false)
            .execute(&mut *connection)
            .await
            .map_err(unreachable)?;
        if !self.schemas.is_empty() {
            let path = sqlx::query(SEARCH_PATH).bind(&self.schemas).persistent(false);
            path.execute(&mut *connection).await.map_err(unreachable)?;
        }
        if let Some(role) = &self.role {
            // The last: from here on, nothing is done with the login's rights.
            let take = sqlx::query("SELECT pg_catalog.set_config('role', $1, true)").bind(role).persistent(false);
            let fault = |error: sqlx::Error| SqlError::Role { role: role.clone(), fault: words(&error) };
            take.execute(&mut *connection).await.map_err(fault)?;
        }
        Ok(())
    }
}

fn at_most(option: &'static str, given: u32, most: u32) -> Result<(), SqlError> {
    if given > most { Err(SqlError::Limit { option, given, most }) } else { Ok(()) }
}

/// A connection in use.
pub(super) struct Lease<'a> {
    database: &'a Database,
    pub(super) connection: PgConnection,
    _permit: SemaphorePermit<'a>,
}

impl Lease<'_> {
    /// Ends the transaction. The connection is kept when all went well and it could be made as new; else it is closed.
    pub(super) async fn end(mut self, well: bool) {
        if well && matches!(timeout(CLEAN, clean(&mut self.connection)).await, Ok(Ok(()))) {
            self.database.idle.lock().unwrap_or_else(PoisonError::into_inner).push(self.connection);
        } else {
            // In good order, so that the server need not wonder.
            let _ = timeout(CLEAN, self.connection.close()).await;
        }
    }
}

async fn clean(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::raw_sql("ROLLBACK").execute(&mut *connection).await?;
    sqlx::raw_sql("DISCARD ALL").execute(connection).await.map(|_| ())
}

fn unreachable(error: sqlx::Error) -> SqlError {
    SqlError::Unreachable(words(&error))
}

/// What the database says, with its hints; of other errors only their kind where they could name more than that.
pub(super) fn words(error: &sqlx::Error) -> String {
    match error {
        sqlx::Error::Database(said) => {
            let mut words = said.message().to_owned();
            if let Some(said) = said.try_downcast_ref::<PgDatabaseError>() {
                for more in [said.detail(), said.hint()].into_iter().flatten() {
                    words.push_str("; ");
                    words.push_str(more);
                }
            }
            words
        }
        sqlx::Error::Configuration(_) => "the URL does not fit".to_owned(),
        other => other.to_string(),
    }
}
