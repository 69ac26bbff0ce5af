//! Long sessions and many sessions cost what short and few ones do: every list comes from an index.

use daybook_domain::UserId;
use sqlx::{AssertSqlSafe, PgPool};

use super::world::*;
use crate::projection::{Projection, Scope};
use crate::runs::{self, RunFilter, Runs};
use crate::sessions::{SessionFilter, SessionSort, Sessions, page_query};
use crate::{Runner, Views};

const SCOPE: Scope = Scope { log: LOG, version: Runs::VERSION };

async fn many(world: &World) {
    for batch in 0..10 {
        let mut writes = Vec::new();
        for n in 0..100 {
            let id = format!("r{batch}-{n}");
            writes.push(run_write(&id, "long", &[accepted(&id, "long", Some("alice"), "a", "Hello", NOW + n)]));
            let (id, owner) = (format!("s{batch}-{n}"), format!("u{}", n % 10));
            writes.push(session_write(&id, vec![created(&id, Some(&owner), "a", Some("Name"), NOW + n)]));
        }
        world.append(writes).await;
    }
}

async fn caught_up(views: &Views) {
    until(|| async {
        let runs = views.run(LOG, None, &run("r0-0")).await.unwrap().lag;
        runs + views.session(LOG, None, &session("s0-0")).await.unwrap().lag == 0
    })
    .await;
}

/// Every conditions' value in the order of the query, then limit and offset.
async fn plan(pool: &PgPool, sql: &str, texts: &[&str], numbers: &[i64]) -> String {
    let mut query = sqlx::query_scalar::<_, String>(AssertSqlSafe(format!("EXPLAIN {sql}")));
    query = query.bind(SCOPE.log.0).bind(SCOPE.version);
    for text in texts {
        query = query.bind((*text).to_owned());
    }
    for number in numbers {
        query = query.bind(*number);
    }
    query.fetch_all(pool).await.unwrap().join("\n")
}

#[tokio::test]
async fn lists_come_from_an_index() {
    let world = World::new().await;
    let runner = Runner::start(world.store.clone(), LOG);
    many(&world).await;
    caught_up(&runner.views().patient()).await;
    let pool = world.store.pool();
    sqlx::query("ANALYZE run_view, session_view").execute(pool).await.unwrap();

    let query = runs::of_session_query(SCOPE, None, &session("long"), &RunFilter { limit: 20, ..RunFilter::default() });
    let shown = plan(pool, query.sql().as_str(), &["long"], &[20]).await;
    assert!(shown.contains("run_view_by_session") && !shown.contains("Seq Scan") && !shown.contains("Sort"), "{shown}");
    let filter = RunFilter { limit: 20, ..RunFilter::default() };
    let rows = runner.views().patient().runs_of_session(LOG, None, &session("long"), &filter).await.unwrap().value;
    assert_eq!(rows.len(), 20);
    assert_eq!(rows[19].state.run_id(), Some(&run("r9-99")));

    assert_eq!(Sessions::VERSION, SCOPE.version);
    let owner = UserId::parse("u3").unwrap();
    for sort_by in [SessionSort::CreatedAt, SessionSort::UpdatedAt, SessionSort::SessionName, SessionSort::Unsorted] {
        for descending in [false, true] {
            let filter = SessionFilter { sort_by, descending, ..SessionFilter::default() };
            let query = page_query(SCOPE, None, &filter);
            let shown = plan(pool, query.sql().as_str(), &[], &[20, 0]).await;
            assert!(!shown.contains("Seq Scan") && !shown.contains("Sort"), "{filter:?}: {shown}");
            let query = page_query(SCOPE, Some(&owner), &filter);
            let shown = plan(pool, query.sql().as_str(), &["u3"], &[20, 0]).await;
            assert!(!shown.contains("Seq Scan"), "{filter:?}: {shown}");
        }
    }
    runner.stop().await;
    world.end().await;
}
