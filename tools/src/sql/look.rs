//! What a query would run, as PostgreSQL itself reads it: not only the functions it calls by name, but those behind
//! operators, casts, aggregates, the checks of domains, attributes (`t.f` for `f(t)`), views and row security.
//!
//! PostgreSQL shows a query that it has read in one place only: as the rule of a view. So the query becomes a temporary
//! view, in a transaction of its own that may write and is always rolled back. Making a view runs nothing of it, and takes
//! no query that changes data; only texts that stand for values are turned into these, as whenever a query is prepared.
//!
//! Views and functions of the system are not looked into, nor are functions that are declared STABLE or IMMUTABLE.

use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Executor as _};

use super::connect::{Access, Database};
use super::query::{HARMLESS, fault};
use crate::ToolError;

/// Whether a temporary view can be made: not on a standby, and not without the right TEMPORARY on the database.
const CAN_LOOK: &str = "SELECT NOT pg_catalog.pg_is_in_recovery() \
    AND pg_catalog.has_database_privilege(pg_catalog.current_database(), 'TEMPORARY')";

/// Of the functions that the view `daybook_look` would run, those that act. Rules, policies and checks are kept as trees
/// in text, where a field says of which object (by its oid) it tells. An oid that is taken for one although it stands in a
/// name at most refuses a query.
const ACTING: &str = "WITH RECURSIVE trees (tree) AS ( \
      SELECT r.ev_action::pg_catalog.text FROM pg_catalog.pg_rewrite r \
       WHERE r.ev_class = 'pg_temp.daybook_look'::pg_catalog.regclass \
    UNION \
      SELECT more.tree FROM trees t CROSS JOIN LATERAL ( \
        SELECT r.ev_action::pg_catalog.text \
          FROM pg_catalog.regexp_matches(t.tree, ' :relid ([0-9]+)', 'g') m \
          JOIN pg_catalog.pg_class c ON c.oid = m[1]::pg_catalog.oid AND c.relkind = 'v' AND c.oid >= 16384 \
          JOIN pg_catalog.pg_rewrite r ON r.ev_class = c.oid AND r.ev_type = '1' \
        UNION ALL \
        SELECT p.polqual::pg_catalog.text \
          FROM pg_catalog.regexp_matches(t.tree, ' :relid ([0-9]+)', 'g') m \
          JOIN pg_catalog.pg_policy p ON p.polrelid = m[1]::pg_catalog.oid AND p.polcmd IN ('r', '*') \
        UNION ALL \
        SELECT k.conbin::pg_catalog.text \
          FROM pg_catalog.regexp_matches(t.tree, ' :resulttype ([0-9]+)', 'g') m \
          JOIN pg_catalog.pg_constraint k ON k.contypid = m[1]::pg_catalog.oid \
        UNION ALL \
        SELECT ' :resulttype ' || d.typbasetype::pg_catalog.text \
          FROM pg_catalog.regexp_matches(t.tree, ' :resulttype ([0-9]+)', 'g') m \
          JOIN pg_catalog.pg_type d ON d.oid = m[1]::pg_catalog.oid AND d.typtype = 'd' \
      ) more (tree) WHERE more.tree IS NOT NULL \
    ), operators (id) AS ( \
      SELECT m[1]::pg_catalog.oid \
        FROM trees t, pg_catalog.regexp_matches(t.tree, ' :(?:opno|eqop|sortop) ([0-9]+)', 'g') m \
      UNION \
      SELECT pg_catalog.unnest(pg_catalog.string_to_array(m[1], ' '))::pg_catalog.oid \
        FROM trees t, pg_catalog.regexp_matches(t.tree, ' :opnos \\(o ([0-9]+(?: [0-9]+)*)\\)', 'g') m \
    ), called (id) AS ( \
      SELECT m[1]::pg_catalog.oid FROM trees t, pg_catalog.regexp_matches(t.tree, \
        ' :(?:funcid|opfuncid|aggfnoid|winfnoid|startInRangeFunc|endInRangeFunc|tsmhandler) ([0-9]+)', 'g') m \
      UNION SELECT o.oprcode::pg_catalog.oid FROM pg_catalog.pg_operator o JOIN operators ON o.oid = operators.id \
    ), run (id) AS ( \
      SELECT id FROM called \
      UNION \
      SELECT pg_catalog.unnest(ARRAY[a.aggtransfn, a.aggfinalfn, a.aggcombinefn, a.aggserialfn, a.aggdeserialfn, \
                                     a.aggmtransfn, a.aggminvtransfn, a.aggmfinalfn])::pg_catalog.oid \
        FROM pg_catalog.pg_aggregate a JOIN called ON a.aggfnoid::pg_catalog.oid = called.id \
    ) \
    SELECT DISTINCT p.proname::pg_catalog.text FROM pg_catalog.pg_proc p JOIN run ON p.oid = run.id \
     WHERE p.provolatile = 'v' AND NOT p.proname::pg_catalog.text = ANY ($1::pg_catalog.text[]) \
       AND NOT (p.proname::pg_catalog.text = ANY ($2::pg_catalog.text[]) \
                AND p.pronamespace = 'pg_catalog'::pg_catalog.regnamespace) \
     ORDER BY 1";

/// Where nothing can be looked at: of these names, which stand as attributes do, those that act when a row is their
/// argument.
const ACTING_ATTRIBUTES: &str = "SELECT DISTINCT p.proname::pg_catalog.text FROM pg_catalog.pg_proc p \
      JOIN pg_catalog.pg_type a ON a.oid = p.proargtypes[0] AND a.typtype IN ('c', 'p') \
     WHERE p.provolatile = 'v' AND p.proname::pg_catalog.text = ANY ($1::pg_catalog.text[]) \
       AND NOT p.proname::pg_catalog.text = ANY ($2::pg_catalog.text[]) \
     ORDER BY 1";

/// The names of the functions that the query would run and that may do more than read. The query must have been prepared
/// by itself before, and is given back a read-only transaction.
///
/// # Errors
/// [`ToolError`] when the database does not take the query.
pub(super) async fn acting(
    database: &Database,
    connection: &mut PgConnection,
    query: &str,
    attributes: &[String],
) -> Result<Vec<String>, ToolError> {
    let can_look: bool = sqlx::query_scalar(CAN_LOOK)
        .persistent(false)
        .fetch_one(&mut *connection)
        .await
        .map_err(|error| fault(&error))?;
    if !can_look {
        let named = sqlx::query_scalar(ACTING_ATTRIBUTES).bind(attributes).bind(&database.allow_functions);
        return named.persistent(false).fetch_all(connection).await.map_err(|error| fault(&error));
    }
    database.begin_again(connection, Access::Write).await?;
    let acting = looked(database, connection, query).await.map_err(|error| fault(&error))?;
    database.begin_again(connection, Access::Read).await?;
    Ok(acting)
}

async fn looked(database: &Database, connection: &mut PgConnection, query: &str) -> Result<Vec<String>, sqlx::Error> {
    // The parentheses hold it: alone, it is a statement. Its last line may be a comment.
    let view = format!("CREATE TEMPORARY VIEW daybook_look AS SELECT pg_catalog.count(*) FROM (\n{query}\n) q");
    (&mut *connection).execute(sqlx::query(AssertSqlSafe(view)).persistent(false)).await?;
    let acting = sqlx::query_scalar(ACTING)
        .bind(&database.allow_functions)
        .bind(HARMLESS.map(str::to_owned).to_vec())
        .persistent(false);
    acting.fetch_all(connection).await
}
