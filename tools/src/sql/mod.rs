//! Tools that read a PostgreSQL database, and cannot change it. Four walls, each of which a statement must pass:
//! - it is read as words first (`scan`): a query, one, which calls no function that acts (`NOT_HARMLESS`); then as
//!   PostgreSQL reads it (`look`): it runs no such function behind operators, casts, views and the like either;
//! - it stands where PostgreSQL's grammar takes a query and nothing else: `DECLARE ... CURSOR FOR SELECT ... FROM (it)`,
//!   by the extended protocol, which takes one statement;
//! - its transaction is read-only and always rolled back;
//! - the connection is cleaned by `DISCARD ALL` before it is used again, and closed when anything failed.
//!
//! What remains: a function that acts and is declared STABLE or IMMUTABLE is believed; a text that stands for a value of a
//! composite type runs the checks of its domains while it is read; and on a standby, or without the right TEMPORARY, `look`
//! knows only the names that stand as attributes.
//!
//! The fifth is not ours: what the login may do. A query can go back from `role` to the login, should one of the other
//! walls fall, so logins that could reach beyond the database (superusers, roles that read files or run programs) are
//! refused. Give it a login that can only read.

mod answer;
mod connect;
mod describe;
mod look;
mod query;
mod scan;
#[cfg(test)]
mod tests;

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use daybook_domain::tool::Effect;
use schemars::JsonSchema;
use secrecy::SecretString;
use serde::Deserialize;

use self::connect::Database;
use crate::{FunctionTool, SourceError, Tool, ToolContext, ToolSource};

/// The database that an agent reads, and how much of it at a time.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SqlOptions {
    /// Where it is: `postgres://user:password@host/database`. Best a login that can only read.
    #[schemars(with = "String")]
    pub url: SecretString,
    /// The role that queries run as (SET ROLE); the login itself unless said.
    #[serde(default)]
    pub role: Option<String>,
    /// The longest a query may take, in seconds; 10 unless said, at most 3600.
    #[serde(default = "statement_timeout_seconds")]
    pub statement_timeout_seconds: NonZeroU32,
    /// The most rows of one answer; 100 unless said.
    #[serde(default = "max_rows")]
    pub max_rows: NonZeroU32,
    /// The most bytes of one answer, with a word about what did not fit; 65,536 (64 KiB) unless said, at most 16,777,216.
    /// One of less than 512 is not held to exactly: that word alone takes up to 256.
    #[serde(default = "max_result_bytes")]
    pub max_result_bytes: NonZeroU32,
    /// The schemas that are described, and searched for names without a schema; all that the role may use unless said.
    /// It keeps nobody from reading others: that is what the role's rights are for.
    #[serde(default)]
    pub schemas: Vec<String>,
    /// Functions that queries may run although they are declared VOLATILE, as any function is of which nothing is said:
    /// by name without a schema. Only those that change nothing, neither here nor elsewhere. It counts for what a query
    /// calls, and for what is behind its operators, casts, aggregates, domains, views and row security.
    #[serde(default)]
    pub allow_functions: Vec<String>,
    /// Whether a login is taken that could do more than read: a superuser, or a member of a role that reads files, writes
    /// files, runs programs or ends other sessions.
    #[serde(default)]
    pub allow_superuser: bool,
}

impl SqlOptions {
    /// Reads the database at this URL, with the usual limits.
    pub fn new(url: SecretString) -> Self {
        Self {
            url,
            role: None,
            statement_timeout_seconds: statement_timeout_seconds(),
            max_rows: max_rows(),
            max_result_bytes: max_result_bytes(),
            schemas: Vec::new(),
            allow_functions: Vec::new(),
            allow_superuser: false,
        }
    }
}

fn statement_timeout_seconds() -> NonZeroU32 {
    NonZeroU32::MIN.saturating_add(9)
}

fn max_rows() -> NonZeroU32 {
    NonZeroU32::MIN.saturating_add(99)
}

fn max_result_bytes() -> NonZeroU32 {
    NonZeroU32::MIN.saturating_add((64 << 10) - 1)
}

/// Why there are no tools for a database, or why one of its calls could not begin. Never holds the URL.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SqlError {
    /// The URL is none.
    #[error("the database's URL cannot be read; it has the form postgres://user:password@host:5432/database")]
    Url,
    /// A limit is beyond what makes sense.
    #[error("`{option}` is {given}; the most is {most}")]
    Limit {
        /// Which option.
        option: &'static str,
        /// What it is.
        given: u32,
        /// What it may be.
        most: u32,
    },
    /// Other calls use all connections, and none came free.
    #[error("all {connections} connections to the database are busy with other queries; try again later")]
    Busy {
        /// How many there are at a time.
        connections: usize,
    },
    /// It does not answer, or does not let us in.
    #[error("the database cannot be reached: {0}; check its URL, and that it runs and lets this server in")]
    Unreachable(String),
    /// The role cannot be taken.
    #[error("queries cannot run as the role {role:?}: {fault}; grant it to the login, or leave `role` out")]
    Role {
        /// Which role.
        role: String,
        /// What the database says.
        fault: String,
    },
    /// The login may do more than a query should be able to.
    #[error(
        "the login {login:?} is, or can become, {powers}, so that a query could do more than read. Make a login for it: \
         CREATE ROLE reader LOGIN PASSWORD '...'; GRANT USAGE ON SCHEMA public TO reader; GRANT SELECT ON ALL TABLES IN \
         SCHEMA public TO reader; and give its URL. Or set `allow_superuser: true` if you accept that"
    )]
    Powers {
        /// Who logs in.
        login: String,
        /// What it has: `a superuser`, or the names of roles.
        powers: String,
    },
}

/// `query_database` and `describe_database`, of a database that answers and whose login is fit.
///
/// # Errors
/// [`SqlError`]: a wrong option, no database, or a login that may do too much. The message says how to mend it.
pub async fn sql(options: &SqlOptions) -> Result<Vec<Arc<dyn Tool>>, SqlError> {
    let database = Arc::new(Database::new(options)?);
    database.check().await?;
    Ok(tools(options, &database))
}

/// The same, of a database that need not run yet: every new connection is checked as [`sql`] does, and a call fails when
/// it does not pass.
///
/// # Errors
/// [`SqlError`] of a wrong option.
pub fn sql_lazily(options: &SqlOptions) -> Result<Vec<Arc<dyn Tool>>, SqlError> {
    Ok(tools(options, &Arc::new(Database::new(options)?)))
}

/// The tools of [`sql`] as a source: whenever they are asked for, the database must answer and its login be fit.
#[derive(Debug)]
pub struct SqlSource {
    name: String,
    options: SqlOptions,
}

impl SqlSource {
    /// The database of these options under this name. It is not asked yet.
    ///
    /// # Errors
    /// [`SourceError`] of a wrong option.
    pub fn new(name: impl Into<String>, options: SqlOptions) -> Result<Self, SourceError> {
        let name = name.into();
        match Database::new(&options) {
            Ok(_) => Ok(Self { name, options }),
            Err(error) => Err(SourceError { source_name: name, fault: error.to_string() }),
        }
    }
}

#[async_trait]
impl ToolSource for SqlSource {
    fn name(&self) -> &str {
        &self.name
    }

    async fn tools(&self) -> Result<Vec<Arc<dyn Tool>>, SourceError> {
        let fault = |error: SqlError| SourceError { source_name: self.name.clone(), fault: error.to_string() };
        sql(&self.options).await.map_err(fault)
    }
}

fn tools(options: &SqlOptions, database: &Arc<Database>) -> Vec<Arc<dyn Tool>> {
    // Longer than what we wait ourselves, so that our own words arrive.
    let timeout = database.patience() * 2 + Duration::from_secs(5);
    let (rows, seconds) = (options.max_rows, options.statement_timeout_seconds);
    let asks = format!(
        "Runs one read-only query (SELECT, WITH, VALUES or TABLE) on a PostgreSQL database, for at most {seconds} seconds. \
         Gives JSON with the columns' names and at most {rows} rows. See describe_database for what there is.",
    );
    let query = {
        let database = Arc::clone(database);
        FunctionTool::new("query_database", asks, Effect::Pure, move |_: ToolContext, arguments: query::Arguments| {
            let database = Arc::clone(&database);
            async move { query::query(&database, &arguments).await }
        })
    };
    let database = Arc::clone(database);
    let describe = FunctionTool::new(
        "describe_database",
        "The tables and views of the PostgreSQL database, with their columns, types, keys and comments.",
        Effect::Pure,
        move |_: ToolContext, arguments: describe::Arguments| {
            let database = Arc::clone(&database);
            async move { describe::describe(&database, &arguments).await }
        },
    );
    vec![Arc::new(query.timeout(timeout)), Arc::new(describe.timeout(timeout))]
}
