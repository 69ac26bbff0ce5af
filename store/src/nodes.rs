//! Nodes and the leases they hold on run trees. All times are the database's.

use daybook_domain::{LogId, RunId};
use sqlx::PgPool;

use crate::error::StoreError;
use crate::types::{Abilities, Lease, NodeInfo, StrandedLease};

pub(crate) async fn join(pool: &PgPool, node: &NodeInfo) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO nodes (node_id, host, pid, started_at, heartbeat_at, components, models, tools) \
         VALUES ($1, $2, $3, clock_timestamp(), clock_timestamp(), $4, $5, $6) \
         ON CONFLICT (node_id) DO UPDATE SET host = excluded.host, pid = excluded.pid, \
         heartbeat_at = excluded.heartbeat_at, components = excluded.components, models = excluded.models, \
         tools = excluded.tools",
    )
    .bind(&node.id)
    .bind(&node.host)
    .bind(i64::from(node.pid))
    .bind(&node.abilities.components)
    .bind(&node.abilities.models)
    .bind(&node.abilities.tools)
    .execute(pool)
    .await?;
    Ok(())
}

pub(crate) async fn heartbeat(pool: &PgPool, node_id: &str) -> Result<bool, StoreError> {
    // A heartbeat lost in a crash of the database is made up for by the next: do not wait for the disk.
    let done = sqlx::query(
        "UPDATE nodes SET heartbeat_at = clock_timestamp() \
         WHERE node_id = $1 AND set_config('synchronous_commit', 'off', true) = 'off'",
    )
    .bind(node_id)
    .execute(pool)
    .await?;
    Ok(done.rows_affected() > 0)
}

/// Gives all the node's leases up and removes it; the same whether it leaves or is found dead.
pub(crate) async fn remove(pool: &PgPool, node_id: &str) -> Result<(), StoreError> {
    sqlx::query(
        "WITH freed AS (UPDATE leases SET node_id = NULL WHERE node_id = $1) DELETE FROM nodes WHERE node_id = $1",
    )
    .bind(node_id)
    .execute(pool)
    .await?;
    Ok(())
}

pub(crate) async fn on_host(pool: &PgPool, host: &str) -> Result<Vec<(String, u32)>, StoreError> {
    let rows: Vec<(String, i64)> = sqlx::query_as("SELECT node_id, pid FROM nodes WHERE host = $1 ORDER BY node_id")
        .bind(host)
        .fetch_all(pool)
        .await?;
    Ok(rows.into_iter().filter_map(|(id, pid)| Some((id, u32::try_from(pid).ok()?))).collect())
}

pub(crate) async fn claim(
    pool: &PgPool,
    log: LogId,
    node_id: &str,
    components: &[String],
    tools: &[String],
    limit: i64,
) -> Result<Vec<Lease>, StoreError> {
    let rows: Vec<(String, i64, String)> =
        sqlx::query_as("SELECT tree, new_epoch, of_component FROM claim_leases($1, $2, $3, $4, $5)")
            .bind(log.0)
            .bind(node_id)
            .bind(components)
            .bind(tools)
            .bind(limit)
            .fetch_all(pool)
            .await?;
    rows.into_iter()
        .map(|(tree, epoch, component)| Ok(Lease { tree: tree_id(tree)?, epoch: epoch as u64, component }))
        .collect()
}

pub(crate) async fn claim_one(
    pool: &PgPool,
    log: LogId,
    node_id: &str,
    tree: &RunId,
) -> Result<Option<Lease>, StoreError> {
    let row: Option<(String, i64, String)> =
        sqlx::query_as("SELECT tree, new_epoch, of_component FROM claim_lease($1, $2, $3)")
            .bind(log.0)
            .bind(node_id)
            .bind(tree.as_str())
            .fetch_optional(pool)
            .await?;
    Ok(row.map(|(_, epoch, component)| Lease { tree: tree.clone(), epoch: epoch as u64, component }))
}

/// What each living node can run; `None` for one that does not say.
pub(crate) async fn living(pool: &PgPool) -> Result<Vec<Option<Abilities>>, StoreError> {
    type Names = Option<Vec<String>>;
    let rows: Vec<(Names, Names, Names)> = sqlx::query_as(
        "SELECT components, models, tools FROM nodes WHERE heartbeat_at >= clock_timestamp() - interval '6 seconds'",
    )
    .fetch_all(pool)
    .await?;
    let abilities = |(components, models, tools): (Names, Names, Names)| {
        Some(Abilities { components: components?, models: models?, tools: tools? })
    };
    Ok(rows.into_iter().map(abilities).collect())
}

pub(crate) async fn stranded(pool: &PgPool, log: LogId, limit: i64) -> Result<Vec<StrandedLease>, StoreError> {
    // Mostly every lease is held: only what is left is held against what nodes can do.
    let rows: Vec<(String, String, Vec<String>)> = sqlx::query_as(
        "WITH living AS MATERIALIZED ( \
             SELECT node_id, components, tools FROM nodes \
             WHERE heartbeat_at >= clock_timestamp() - interval '6 seconds' \
         ), unheld AS MATERIALIZED ( \
             SELECT tree_id, component, tools, claimed_at FROM leases l \
             WHERE log_id = $1 AND NOT EXISTS (SELECT FROM living n WHERE n.node_id = l.node_id) \
         ) \
         SELECT tree_id, component, tools FROM unheld l WHERE NOT EXISTS ( \
             SELECT FROM living n \
             WHERE n.components IS NULL OR l.component = ANY (n.components) AND l.tools <@ n.tools \
         ) ORDER BY claimed_at, tree_id LIMIT $2",
    )
    .bind(log.0)
    .bind(limit)
    .fetch_all(pool)
    .await?;
    rows.into_iter()
        .map(|(tree, component, tools)| Ok(StrandedLease { tree: tree_id(tree)?, component, tools }))
        .collect()
}

/// Every lease a node holds, and its epoch.
pub(crate) async fn leases_of(pool: &PgPool, log: LogId, node_id: &str) -> Result<Vec<(RunId, u64)>, StoreError> {
    let rows: Vec<(String, i64)> =
        sqlx::query_as("SELECT tree_id, epoch FROM leases WHERE log_id = $1 AND node_id = $2")
            .bind(log.0)
            .bind(node_id)
            .fetch_all(pool)
            .await?;
    rows.into_iter().map(|(tree, epoch)| Ok((tree_id(tree)?, epoch as u64))).collect()
}

/// Gives one lease up, if it is still of this epoch: the next claim takes it.
pub(crate) async fn give_up(
    pool: &PgPool,
    log: LogId,
    node_id: &str,
    tree: &RunId,
    epoch: u64,
) -> Result<(), StoreError> {
    sqlx::query("UPDATE leases SET node_id = NULL WHERE log_id = $1 AND tree_id = $2 AND node_id = $3 AND epoch = $4")
        .bind(log.0)
        .bind(tree.as_str())
        .bind(node_id)
        .bind(epoch as i64)
        .execute(pool)
        .await?;
    Ok(())
}

fn tree_id(tree: String) -> Result<RunId, StoreError> {
    RunId::parse(tree).map_err(|error| StoreError::Invalid(format!("a lease's run id: {error}")))
}

pub(crate) async fn lease(
    pool: &PgPool,
    log: LogId,
    tree: &RunId,
) -> Result<Option<(Option<String>, u64)>, StoreError> {
    let row: Option<(Option<String>, i64)> =
        sqlx::query_as("SELECT node_id, epoch FROM leases WHERE log_id = $1 AND tree_id = $2")
            .bind(log.0)
            .bind(tree.as_str())
            .fetch_optional(pool)
            .await?;
    Ok(row.map(|(node, epoch)| (node, epoch as u64)))
}
