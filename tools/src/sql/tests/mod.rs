//! Against a real PostgreSQL: what is read, and all the ways in which a query might do more.

mod attacks;
mod server;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use self::server::{Base, run};
use super::*;
use crate::ToolError;
use crate::testing::{arguments, context};

struct Asked {
    base: Base,
    tools: BTreeMap<String, Arc<dyn Tool>>,
}

impl Asked {
    /// The tools as `reader`, on a database with some tables.
    async fn new(change: impl FnOnce(&mut SqlOptions)) -> Self {
        let base = Base::create().await;
        run(
            &base.admin,
            "CREATE TABLE customers (id int PRIMARY KEY, name text NOT NULL);
             CREATE TABLE orders (id int PRIMARY KEY, customer int REFERENCES customers, total numeric);
             COMMENT ON TABLE orders IS 'What was\n bought'; COMMENT ON COLUMN orders.total IS 'In euros';
             INSERT INTO customers VALUES (1, 'Ada'), (2, 'Bo');
             INSERT INTO orders VALUES (10, 1, 12345678901234567890.50), (11, 2, 7);
             CREATE TABLE secrets (word text); INSERT INTO secrets VALUES ('SECRET');
             CREATE SCHEMA side; CREATE TABLE side.things (thing text); INSERT INTO side.things VALUES ('here');
             GRANT SELECT ON customers, orders TO reader; GRANT USAGE ON SCHEMA side TO reader;
             GRANT SELECT ON side.things TO reader; GRANT SELECT ON secrets TO other;",
        )
        .await;
        let mut options = SqlOptions::new(base.url("reader"));
        change(&mut options);
        let tools = sql(&options).await.unwrap().into_iter().map(|tool| (tool.spec().name.clone(), tool)).collect();
        Self { base, tools }
    }

    async fn call(&self, tool: &str, given: Value) -> Result<String, ToolError> {
        self.tools[tool].call(context(), arguments(given)).await.map(|output| output.text)
    }

    async fn query(&self, sql: &str) -> Result<Value, ToolError> {
        self.call("query_database", json!({"sql": sql})).await.map(|text| serde_json::from_str(&text).unwrap())
    }

    async fn rows(&self, sql: &str) -> Value {
        self.query(sql).await.unwrap()["rows"].take()
    }
}

#[tokio::test]
async fn queries_are_answered() {
    let asked = Asked::new(|_| {}).await;
    let answer =
        asked.query("SELECT c.id, o.id, name, total FROM customers c JOIN orders o ON customer = c.id ORDER BY 1;");
    assert_eq!(answer.await.unwrap()["columns"], json!(["id", "id", "name", "total"]), "names may be alike");
    let given = json!({"sql": "WITH x AS (SELECT total FROM orders) SELECT * FROM x ORDER BY 1 DESC -- the most"});
    let text = asked.call("query_database", given).await.unwrap();
    assert_eq!(text, r#"{"columns":["total"],"rows":[[12345678901234567890.50],[7]]}"#, "no digit is lost");
    let kinds =
        "SELECT 1::int8 a, 'x'::name b, ARRAY[1,2] c, NULL d, true e, '{\"k\": [1]}'::jsonb f, '\\x00ff'::bytea g,
                 'NaN'::float8 h, date '2026-01-02' i, row(1, 'x') j, interval '1 day' k, $$it's$$ l";
    let expected = json!([[1, "x", [1, 2], null, true, {"k": [1]}, "\\x00ff", "NaN", "2026-01-02", {"f1": 1, "f2": "x"}, "1 day", "it's"]]);
    assert_eq!(asked.rows(kinds).await, expected);
    assert_eq!(asked.rows("VALUES (1), (2)").await, json!([[1], [2]]));
    assert_eq!(asked.rows("TABLE side.things").await, json!([["here"]]));
    assert_eq!(asked.query("SELECT 1 AS a WHERE false").await.unwrap(), json!({"columns": ["a"], "rows": []}));
    assert_eq!(asked.rows("SELECT random() < 2, pg_table_size('orders') > 0").await, json!([[true, true]]));
    assert_eq!(asked.tools["query_database"].spec().effect, Effect::Pure);
}

#[tokio::test]
async fn faults_are_told_and_what_comes_after_is_answered() {
    let asked = Asked::new(|_| {}).await;
    for (query, words) in [
        ("SELECT nope FROM orders", "column \"nope\" does not exist"),
        ("SELECT * FROM secrets", "permission denied"),
        ("SELECT 1 FROM", "syntax error"),
        ("SELECT 1/0", "division by zero"),
        ("SELECT $1::int", "write the values"),
        ("SELECT", "no columns"),
        ("SELECT lower('x', 1)", "No function matches"),
    ] {
        let fault = asked.query(query).await.unwrap_err();
        assert!(matches!(&fault, ToolError::Arguments(said) if said.contains(words)), "{query}: {fault:?}");
        assert_eq!(asked.rows("SELECT 1").await, json!([[1]]));
    }
}

#[tokio::test]
async fn answers_are_bounded_in_rows_and_bytes() {
    let asked = Asked::new(|options| {
        options.max_rows = NonZeroU32::new(50).unwrap();
        options.max_result_bytes = NonZeroU32::new(2_000).unwrap();
    })
    .await;
    let answer = asked.query("SELECT generate_series(1, 1000000000) n").await.unwrap();
    assert_eq!(answer["rows"].as_array().unwrap().len(), 50);
    assert_eq!(answer["note"], "there are more rows; these are the first 50");
    let exactly = asked.query("SELECT generate_series(1, 50) n").await.unwrap();
    assert_eq!((exactly["rows"].as_array().unwrap().len(), &exactly["note"]), (50, &Value::Null));
    let wide = asked.query("SELECT repeat('x', 900) FROM generate_series(1, 10)").await.unwrap();
    assert_eq!(wide["rows"].as_array().unwrap().len(), 2);
    assert!(wide["note"].as_str().unwrap().contains("row 3 and what follows did not fit"), "{wide}");
    let one = asked.query("SELECT repeat('x', 100000000)").await.unwrap();
    assert!(one.to_string().len() < 400 && one["note"].as_str().unwrap().contains("row 1 "), "{one}");
}

#[tokio::test]
async fn a_slow_query_ends_and_the_next_is_answered() {
    let asked = Asked::new(|options| options.statement_timeout_seconds = NonZeroU32::MIN).await;
    let slow = "SELECT count(*) FROM generate_series(1, 1000000000000) a";
    let began = Instant::now();
    let fault = asked.query(slow).await.unwrap_err();
    assert!(matches!(&fault, ToolError::Failed(said) if said.contains("too long")), "{fault:?}");
    assert!(began.elapsed() < Duration::from_secs(5));
    assert_eq!(asked.rows("SELECT 1").await, json!([[1]]));
}

#[tokio::test]
async fn a_dropped_call_gives_its_connection_up_and_the_server_ends_the_query() {
    let asked = Asked::new(|options| options.statement_timeout_seconds = NonZeroU32::new(60).unwrap()).await;
    let slow = "SELECT count(*) FROM generate_series(1, 1000000000000) a";
    for _ in 0..3 {
        let dropped = tokio::time::timeout(Duration::from_millis(400), asked.query(slow)).await;
        assert!(dropped.is_err());
    }
    let began = Instant::now();
    assert_eq!(asked.rows("SELECT 1").await, json!([[1]]));
    assert!(began.elapsed() < Duration::from_secs(2), "no connection is held");
    let running = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'reader' AND datname = current_database() \
                   AND state = 'active'";
    let mut left: i64 = 1;
    while left > 0 {
        assert!(began.elapsed() < Duration::from_secs(20), "{left} still run");
        tokio::time::sleep(Duration::from_millis(100)).await;
        left = sqlx::query_scalar(running).fetch_one(&asked.base.admin).await.unwrap();
    }
}

#[tokio::test]
async fn many_calls_share_two_connections_and_dead_ones_are_replaced() {
    let asked = Asked::new(|_| {}).await;
    let calls = (0..20).map(|_| asked.rows("SELECT count(*) FROM orders"));
    assert!(futures::future::join_all(calls).await.iter().all(|rows| *rows == json!([[2]])));
    let ours = "SELECT count(pg_terminate_backend(pid, 5000)) FROM pg_stat_activity \
                WHERE usename = 'reader' AND datname = current_database()";
    let count: i64 = sqlx::query_scalar(ours).fetch_one(&asked.base.admin).await.unwrap();
    assert!((1..=2).contains(&count), "{count}");
    assert_eq!(asked.rows("SELECT 1").await, json!([[1]]));
}

#[tokio::test]
async fn a_call_that_only_waited_for_others_says_so() {
    let asked = Asked::new(|options| options.statement_timeout_seconds = NonZeroU32::MIN).await;
    let mut options = SqlOptions::new(asked.base.url("reader"));
    options.statement_timeout_seconds = NonZeroU32::MIN;
    let database = Arc::new(Database::new(&options).unwrap());
    let tools = tools(&options, &database);
    let busy = [database.permit().await.unwrap(), database.permit().await.unwrap()];
    let ask = async || tools[0].call(context(), arguments(json!({"sql": "SELECT 1"}))).await;
    let fault = ask().await.unwrap_err().to_string();
    assert!(fault.contains("all 2 connections") && fault.contains("try again"), "{fault}");
    drop(busy);
    assert!(ask().await.is_ok());
}

#[tokio::test]
async fn the_database_is_described() {
    let asked = Asked::new(|_| {}).await;
    let all = asked.call("describe_database", json!({})).await.unwrap();
    let expected = "public.customers (table)\n  id integer not null\n  name text not null\n  PRIMARY KEY (id)\n\
                    public.orders (table) -- What was bought\n  id integer not null\n  customer integer\n  \
                    total numeric -- In euros\n  \
                    PRIMARY KEY (id); FOREIGN KEY (customer) REFERENCES customers(id)\n\
                    side.things (table)\n  thing text\n";
    assert_eq!(all, expected, "and nothing that may not be read");
    let one = asked.call("describe_database", json!({"table": "side.th"})).await.unwrap();
    assert_eq!(one, "side.things (table)\n  thing text\n");
    assert!(asked.call("describe_database", json!({"table": "'; DROP"})).await.unwrap().contains("nothing"));
    let side = Asked::new(|options| {
        options.schemas = vec!["side".to_owned()];
        options.max_result_bytes = NonZeroU32::new(90).unwrap();
    })
    .await;
    assert!(side.call("describe_database", json!({})).await.unwrap().starts_with("side.things"));
    assert_eq!(side.rows("SELECT * FROM things").await, json!([["here"]]), "found without its schema");
    run(&side.base.admin, "CREATE TABLE side.more (a int, b int, c int, d int); GRANT SELECT ON side.more TO reader")
        .await;
    let cut = side.call("describe_database", json!({})).await.unwrap();
    assert!(cut.ends_with("[there is more than fits; ask for a table by its name]\n"), "{cut}");
}

#[tokio::test]
async fn logins_that_could_do_more_are_refused() {
    let base = Base::create().await;
    let open = async |login: &str, change: fn(&mut SqlOptions)| {
        let mut options = SqlOptions::new(base.url(login));
        change(&mut options);
        sql(&options).await.map(|tools| tools.len())
    };
    assert_eq!(open("reader", |_| {}).await, Ok(2));
    for (login, powers) in [("daybook", "a superuser"), ("powerful", "pg_read_server_files"), ("sneaky", "a superuser")]
    {
        let error = open(login, |_| {}).await.unwrap_err();
        assert_eq!(error, SqlError::Powers { login: login.to_owned(), powers: powers.to_owned() });
        assert!(error.to_string().contains("CREATE ROLE reader"), "{error}");
        // A role with less does not help: a query could go back.
        assert!(open(login, |options| options.role = Some("reader".to_owned())).await.is_err());
        assert_eq!(open(login, |options| options.allow_superuser = true).await, Ok(2));
    }
    let role = open("writer", |options| options.role = Some("other".to_owned())).await.unwrap_err();
    assert!(matches!(&role, SqlError::Role { role, .. } if role == "other"), "{role:?}");
    assert_eq!(open("reader", |options| options.role = Some("other".to_owned())).await, Ok(2));
    let limit = open("reader", |options| options.statement_timeout_seconds = NonZeroU32::new(4000).unwrap()).await;
    assert!(matches!(limit, Err(SqlError::Limit { .. })));
}

#[tokio::test]
async fn the_url_is_in_no_message() {
    for url in ["postgres://user:hunter2@127.0.0.1:1/base", "postgres://user:hunter2@127.0.0.1:port/base", "hunter2"] {
        let options = SqlOptions::new(url.into());
        let error = sql(&options).await.map(|_| ()).unwrap_err();
        for words in [error.to_string(), format!("{error:?}"), format!("{options:?}")] {
            assert!(!words.contains("hunter2"), "{words}");
        }
        if let Ok(tools) = sql_lazily(&options) {
            let fault = tools[0].call(context(), arguments(json!({"sql": "SELECT 1"}))).await.unwrap_err();
            assert!(
                fault.to_string().contains("cannot be reached") && !fault.to_string().contains("hunter2"),
                "{fault}"
            );
        }
    }
    let given = json!({"url": "postgres://a@b/c", "role": "r", "schemas": ["s"], "max_rows": 5});
    assert!(serde_json::from_value::<SqlOptions>(given).is_ok());
    assert!(serde_json::from_value::<SqlOptions>(json!({"url": "x", "writable": true})).is_err());
}
