//! Statements that try to write, to get out, or to leave something behind.

use sqlx::PgPool;

use super::super::query;
use super::super::scan::Scan;
use super::*;

/// None of these is a query, or none that only reads.
const STATEMENTS: &[&str] = &[
    // Ends and changes of the transaction.
    "COMMIT",
    "ROLLBACK",
    "END",
    "ABORT",
    "COMMIT AND CHAIN",
    "SAVEPOINT a",
    "BEGIN READ WRITE",
    "SET TRANSACTION READ WRITE",
    "SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE",
    "SET transaction_read_only = off",
    "SET default_transaction_read_only = off",
    "PREPARE TRANSACTION 'x'",
    // Who runs it, and how.
    "SET ROLE other",
    "RESET ROLE",
    "RESET ALL",
    "SET SESSION AUTHORIZATION other",
    "SET LOCAL statement_timeout = 0",
    "SET search_path = side",
    // Writes.
    "INSERT INTO writable VALUES (2)",
    "INSERT INTO writable VALUES (2) RETURNING *",
    "UPDATE writable SET n = 9",
    "DELETE FROM writable",
    "MERGE INTO writable USING writable w ON false WHEN NOT MATCHED THEN INSERT VALUES (3)",
    "TRUNCATE writable",
    "WITH x AS (INSERT INTO writable VALUES (2) RETURNING n) SELECT * FROM x",
    "WITH x AS (DELETE FROM writable RETURNING n) TABLE x",
    "SELECT * FROM (WITH x AS (UPDATE writable SET n = 9 RETURNING n) SELECT * FROM x) y",
    "SELECT * INTO stolen FROM customers",
    "SELECT * FROM writable FOR UPDATE",
    "SELECT * FROM writable FOR KEY SHARE",
    "CREATE TABLE stolen AS SELECT * FROM customers",
    "CREATE TABLE stolen (n int)",
    "CREATE TEMP TABLE kept (n int)",
    "CREATE VIEW stolen AS SELECT 1",
    "CREATE FUNCTION stolen() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    "CREATE ROLE stolen",
    "ALTER TABLE writable ADD COLUMN more int",
    "DROP TABLE writable",
    "GRANT SELECT ON writable TO other",
    "COMMENT ON TABLE writable IS 'x'",
    "REFRESH MATERIALIZED VIEW m",
    "LOCK TABLE writable",
    "VACUUM",
    "ANALYZE writable",
    "CHECKPOINT",
    "REINDEX TABLE writable",
    "CLUSTER",
    // Code, files, programs.
    "DO $$ BEGIN INSERT INTO writable VALUES (2); END $$",
    "CALL add_one()",
    "COPY writable FROM STDIN",
    "COPY customers TO STDOUT",
    "COPY customers TO '/tmp/daybook-stolen'",
    "COPY customers TO PROGRAM 'cat'",
    "COPY (SELECT 1) TO PROGRAM 'cat'",
    "LOAD 'auto_explain'",
    // What stays on a connection.
    "LISTEN news",
    "NOTIFY news, 'x'",
    "PREPARE kept AS SELECT 1",
    "EXECUTE kept",
    "DECLARE kept CURSOR WITH HOLD FOR SELECT 1",
    "FETCH 1 FROM daybook_answer",
    "CLOSE ALL",
    "DEALLOCATE ALL",
    "DISCARD ALL",
    // Queries within others.
    "EXPLAIN SELECT 1",
    "EXPLAIN ANALYZE INSERT INTO writable VALUES (2)",
    "EXPLAIN (ANALYZE) DELETE FROM writable",
    "SHOW ALL",
    // More than one.
    "SELECT 1; INSERT INTO writable VALUES (2)",
    "SELECT 1; COMMIT; INSERT INTO writable VALUES (2)",
    "; COMMIT; DELETE FROM writable",
    "SELECT 1) q; COMMIT; DELETE FROM writable; SELECT (1",
    "SELECT 1) q(c1); COMMIT; --",
    "SELECT 1) q(c1) UNION ALL SELECT (SELECT word FROM secrets",
    "SELECT 1) q(c1) -- ",
    "SELECT 1 /* ",
    "SELECT '",
    "/* */ COMMIT",
    "(COMMIT)",
];

/// Queries that call what acts; what they would change is looked at afterwards.
const CALLS: &[&str] = &[
    "SELECT set_config('transaction_read_only', 'off', true)",
    "SELECT set_config('role', 'other', false)",
    "SELECT set_config('role', 'none', true), query_to_xml('SELECT word FROM secrets', true, true, '')",
    "SELECT pg_catalog . set_config ('statement_timeout', '0', false)",
    "SELECT \"set_config\" /* ( */ ('daybook.kept', 'x', false)",
    "SELECT U&\"set\\005fconfig\"('daybook.kept', 'x', false)",
    "SELECT SET_CONFIG('daybook.kept', 'x', false)",
    "SELECT E'\\' ', set_config('daybook.kept', 'x', false), ' '",
    "SELECT $a$ ' $a$, set_config('daybook.kept', 'x', false), $$ ' $$",
    "SELECT 1 FROM (VALUES (set_config('daybook.kept', 'x', false))) v",
    "SELECT 1 LIMIT length(set_config('daybook.kept', '1', false))",
    "SELECT query_to_xml('INSERT INTO writable VALUES (2)', true, true, '')",
    "SELECT query_to_xml('SELECT set_config(''daybook.kept'', ''x'', false)', true, true, '')",
    "SELECT * FROM ts_stat('SELECT to_tsvector(set_config(''daybook.kept'', ''x'', false))')",
    "SELECT nextval('counter')",
    "SELECT setval('counter', 99)",
    "SELECT add_two()",
    "SELECT * FROM add_two()",
    "SELECT lo_create(4242)",
    "SELECT lo_from_bytea(4242, 'x')",
    "SELECT lo_import('/etc/hostname')",
    "SELECT pg_read_file('/etc/hostname')",
    "SELECT * FROM pg_ls_dir('.')",
    "SELECT pg_sleep(30)",
    "SELECT TREAT(30 AS pg_sleep)",
    "SELECT pg_advisory_lock(1)",
    "SELECT pg_try_advisory_lock(1)",
    "SELECT pg_notify('news', 'x')",
    "SELECT pg_export_snapshot()",
    "SELECT pg_logical_emit_message(false, 'a', 'b')",
    "SELECT setseed(0.5)",
    "SELECT cursor_to_xml('daybook_answer', 1, true, true, '')",
    "SELECT pg_stat_reset()",
];

/// Only the first wall stands before these: what they do is not of the transaction.
const BEYOND: &[&str] = &[
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()",
    "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()",
    "SELECT dblink_connect('c', 'dbname=x'), dblink_exec('c', 'INSERT INTO writable VALUES (2)')",
    "SELECT * FROM dblink('dbname=x', 'SELECT 1') AS t(a int)",
    "SELECT * FROM crosstab('SELECT 1, 2, pg_sleep(9)') AS t(a int, b int)",
];

async fn prepare(admin: &PgPool) {
    run(
        admin,
        "CREATE TABLE writable (n int); INSERT INTO writable VALUES (1); GRANT ALL ON writable TO reader;
         GRANT CREATE, USAGE ON SCHEMA public TO reader; CREATE SEQUENCE counter; GRANT ALL ON SEQUENCE counter TO reader;
         CREATE FUNCTION add_two() RETURNS int LANGUAGE sql AS 'INSERT INTO writable VALUES (2) RETURNING n';
         CREATE PROCEDURE add_one() LANGUAGE sql AS 'INSERT INTO writable VALUES (1)';
         CREATE EXTENSION dblink; CREATE EXTENSION tablefunc;",
    )
    .await;
}

/// Everything that the statements above try to change.
async fn state(admin: &PgPool) -> Vec<(String, String)> {
    const STATE: &str = "
        SELECT 'writable', (SELECT string_agg(n::text, ',') FROM writable)
        UNION ALL SELECT 'tables', (SELECT string_agg(relname || relnatts, ',' ORDER BY relname) FROM pg_class
                                     WHERE relnamespace = 'public'::regnamespace)
        UNION ALL SELECT 'temporary', (SELECT count(*)::text FROM pg_class WHERE relpersistence = 't')
        UNION ALL SELECT 'functions', (SELECT count(*)::text FROM pg_proc)
        UNION ALL SELECT 'roles', (SELECT count(*)::text FROM pg_roles)
        UNION ALL SELECT 'rights', (SELECT relacl::text FROM pg_class WHERE relname = 'writable')
        UNION ALL SELECT 'counter', (SELECT last_value || ' ' || is_called FROM counter)
        UNION ALL SELECT 'large objects', (SELECT count(*)::text FROM pg_largeobject_metadata)
        UNION ALL SELECT 'locks', (SELECT count(*)::text FROM pg_locks WHERE locktype = 'advisory')
        UNION ALL SELECT 'comments', (SELECT count(*)::text FROM pg_description WHERE objoid = 'writable'::regclass)
        UNION ALL SELECT 'transactions', (SELECT count(*)::text FROM pg_prepared_xacts)";
    let rows: Vec<(String, Option<String>)> = sqlx::query_as(STATE).fetch_all(admin).await.unwrap();
    rows.into_iter().map(|(what, how)| (what, how.unwrap_or_default())).collect()
}

/// What a call finds on its connection, when nothing was left there. (Of a setting that PostgreSQL does not know, the name
/// stays known to the connection, without a value.)
const LEFT: &str = "SELECT current_user, session_user, current_setting('transaction_read_only'),
    current_setting('statement_timeout'), nullif(current_setting('daybook.kept', true), ''), current_setting('search_path'),
    (SELECT count(*) FROM pg_cursors WHERE name <> 'daybook_answer'), (SELECT count(*) FROM pg_listening_channels())";

#[tokio::test]
async fn whatever_is_tried_is_refused_and_nothing_is_left() {
    let asked = Asked::new(|options| options.statement_timeout_seconds = NonZeroU32::new(5).unwrap()).await;
    let admin = &asked.base.admin;
    prepare(admin).await;
    // Of the same login, as the server's own connections may be.
    let bystander =
        sqlx::PgPool::connect(secrecy::ExposeSecret::expose_secret(&asked.base.url("reader"))).await.unwrap();
    let pid = "SELECT pg_backend_pid()";
    let before_pid: i32 = sqlx::query_scalar(pid).fetch_one(&bystander).await.unwrap();
    let before = state(admin).await;
    let clean = asked.rows(LEFT).await;
    assert!(clean.to_string().starts_with(r#"[["reader","reader","on","5s",null,"#), "{clean}");
    for statement in STATEMENTS.iter().chain(CALLS).chain(BEYOND) {
        let began = Instant::now();
        let answer = asked.query(statement).await;
        assert!(matches!(answer, Err(ToolError::Arguments(_))), "{statement}: {answer:?}");
        assert!(began.elapsed() < Duration::from_secs(3), "{statement} was run");
        assert_eq!(asked.rows(LEFT).await, clean, "{statement}");
        assert_eq!(state(admin).await, before, "{statement}");
    }
    let after_pid: i32 = sqlx::query_scalar(pid).fetch_one(&bystander).await.unwrap();
    assert_eq!(before_pid, after_pid, "its session was not ended");
}

/// The same with the first wall down: what the scan does not see, the grammar and the transaction hold.
#[tokio::test]
async fn the_other_walls_hold_alone() {
    let mut options = SqlOptions::new(secrecy::SecretString::from(""));
    let asked = Asked::new(|given| {
        given.statement_timeout_seconds = NonZeroU32::MIN;
        options = given.clone();
    })
    .await;
    let admin = &asked.base.admin;
    prepare(admin).await;
    let database = Database::new(&options).unwrap();
    let before = state(admin).await;
    let left = Scan { query: LEFT, called: Vec::new(), attributes: Vec::new() };
    let clean = query::within(&database, database.permit().await.unwrap(), &left).await.unwrap();
    for statement in STATEMENTS {
        let answer = query::within(
            &database,
            database.permit().await.unwrap(),
            &Scan { query: statement, called: Vec::new(), attributes: Vec::new() },
        )
        .await;
        assert!(matches!(answer, Err(ToolError::Arguments(_))), "{statement}: {answer:?}");
        assert_eq!(
            query::within(&database, database.permit().await.unwrap(), &left).await.unwrap(),
            clean,
            "{statement}"
        );
        assert_eq!(state(admin).await, before, "{statement}");
    }
    let volatile = "SELECT DISTINCT proname::text FROM pg_proc WHERE provolatile = 'v'";
    options.allow_functions = sqlx::query_scalar(volatile).fetch_all(admin).await.unwrap();
    let database = Database::new(&options).unwrap();
    for statement in CALLS {
        // Some of these are answered; it is what they leave that counts.
        let answer = query::within(
            &database,
            database.permit().await.unwrap(),
            &Scan { query: statement, called: Vec::new(), attributes: Vec::new() },
        )
        .await;
        assert_eq!(
            query::within(&database, database.permit().await.unwrap(), &left).await.unwrap(),
            clean,
            "{statement}: {answer:?}"
        );
        assert_eq!(state(admin).await, before, "{statement}");
    }
}

/// Ways to run a function without calling it by its name. `act` is VOLATILE, and would be seen by the lock it takes.
const BEHIND: &str = "
    CREATE FUNCTION act(n int) RETURNS int LANGUAGE plpgsql AS 'BEGIN PERFORM pg_advisory_lock(n); RETURN n; END';
    CREATE FUNCTION reads(n int) RETURNS int LANGUAGE plpgsql STABLE AS 'BEGIN RETURN n; END';
    CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t VALUES (1, 'a');
    CREATE FUNCTION touch(t) RETURNS int LANGUAGE sql AS 'SELECT act(1)';
    CREATE FUNCTION look(t) RETURNS int LANGUAGE sql STABLE AS 'SELECT 7';
    CREATE FUNCTION is_so(int, int) RETURNS bool LANGUAGE sql AS 'SELECT act(1) = 1';
    CREATE OPERATOR @@@ (LEFTARG = int, RIGHTARG = int, FUNCTION = is_so);
    CREATE FUNCTION step(int, int) RETURNS int LANGUAGE sql AS 'SELECT act(1)';
    CREATE AGGREGATE all_of (int) (SFUNC = step, STYPE = int, INITCOND = '0');
    CREATE TYPE pair AS (a int);
    CREATE FUNCTION to_int(pair) RETURNS int LANGUAGE sql AS 'SELECT act(1)'; CREATE CAST (pair AS int) WITH FUNCTION to_int(pair);
    CREATE FUNCTION to_text(pair) RETURNS date LANGUAGE sql AS 'SELECT act(1); SELECT current_date';
    CREATE CAST (pair AS date) WITH FUNCTION to_text(pair) AS IMPLICIT;
    CREATE FUNCTION fits(int) RETURNS bool LANGUAGE sql AS 'SELECT act(1) = 1';
    CREATE DOMAIN careful AS int CHECK (fits(value)); CREATE DOMAIN more_careful AS careful;
    CREATE TABLE kept (n careful);
    CREATE VIEW behind AS SELECT act(1) AS x; CREATE VIEW far_behind AS SELECT x + 1 AS y FROM behind;
    CREATE VIEW fine AS SELECT reads(1) AS x, random() < 2 AS y;
    CREATE TABLE guarded (n int); INSERT INTO guarded VALUES (1); ALTER TABLE guarded ENABLE ROW LEVEL SECURITY;
    CREATE POLICY mine ON guarded FOR SELECT USING (act(n) = n);
    GRANT SELECT ON t, kept, behind, far_behind, fine, guarded TO reader;";

#[tokio::test]
async fn what_acts_is_found_behind_other_things_than_its_name() {
    let asked = Asked::new(|_| {}).await;
    let admin = &asked.base.admin;
    prepare(admin).await;
    run(admin, BEHIND).await;
    let before = state(admin).await;
    for (query, function) in [
        ("SELECT t.touch FROM t", "touch"),
        ("SELECT (q.t).touch FROM (SELECT t FROM t) q", "touch"),
        ("SELECT 1 @@@ 2", "is_so"),
        ("SELECT 1 OPERATOR(public.@@@) 2", "is_so"),
        ("SELECT 1 @@@ ANY (ARRAY[1, 2])", "is_so"),
        ("SELECT 1 WHERE (1, 2) IN (SELECT 1, 2 WHERE 3 @@@ 4)", "is_so"),
        ("SELECT all_of(id) FROM t", "step"),
        ("SELECT all_of(id) OVER (ORDER BY id) FROM t", "step"),
        ("SELECT ROW(1)::pair::int", "to_int"),
        ("SELECT CAST(ROW(1)::pair AS int) AS x", "to_int"),
        ("SELECT current_date = ROW(1)::pair", "to_text"),
        ("SELECT 5::careful", "fits"),
        ("SELECT 5::more_careful", "fits"),
        ("SELECT ARRAY[5]::careful[]", "fits"),
        ("SELECT * FROM behind", "act"),
        ("WITH x AS (TABLE far_behind) SELECT * FROM x", "act"),
        ("SELECT (SELECT y FROM far_behind LIMIT 1)", "act"),
        ("SELECT n FROM guarded", "act"),
    ] {
        let fault = asked.query(query).await.unwrap_err();
        let words = format!("the query runs {function}, ");
        assert!(matches!(&fault, ToolError::Arguments(said) if said.contains(&words)), "{query}: {fault}");
        assert_eq!(state(admin).await, before, "{query}");
    }
    for (query, rows) in [
        ("SELECT t.look, t.v FROM t", json!([[7, "a"]])),
        ("SELECT x, y FROM fine", json!([[1, true]])),
        ("SELECT n FROM kept", json!([])),
        ("SELECT ROW(1)::pair, ':funcid 1' AS \":funcid 5\" FROM t", json!([[{"a": 1}, ":funcid 1"]])),
        ("SELECT count(*) > 0 FROM pg_locks", json!([[true]])),
    ] {
        assert_eq!(asked.rows(query).await, rows, "{query}");
    }
    let clean = asked.rows(LEFT).await;
    assert!(
        clean.to_string().starts_with(r#"[["reader","reader","on","#),
        "it reads in a read-only transaction: {clean}"
    );
}

#[tokio::test]
async fn without_the_right_to_look_names_are_looked_at() {
    let asked = Asked::new(|_| {}).await;
    let admin = &asked.base.admin;
    prepare(admin).await;
    run(admin, BEHIND).await;
    let take = "DO $$ BEGIN EXECUTE format('REVOKE TEMPORARY ON DATABASE %I FROM PUBLIC', current_database()); END $$";
    run(admin, take).await;
    let before = state(admin).await;
    for query in ["SELECT t.touch FROM t", "SELECT (t) . \"touch\" FROM t", "SELECT touch(t) FROM t", "SELECT act(1)"] {
        assert!(matches!(asked.query(query).await, Err(ToolError::Arguments(_))), "{query}");
        assert_eq!(state(admin).await, before, "{query}");
    }
    assert_eq!(asked.rows("SELECT t.look, t.v FROM t").await, json!([[7, "a"]]));
}

#[tokio::test]
async fn functions_that_only_read_can_be_allowed() {
    let asked = Asked::new(|options| options.allow_functions = vec!["tell".to_owned()]).await;
    let make = "CREATE FUNCTION tell() RETURNS text LANGUAGE sql AS 'SELECT ''told'''; \
                CREATE FUNCTION other_one() RETURNS text LANGUAGE sql AS 'SELECT ''told'''; \
                CREATE FUNCTION fixed() RETURNS text LANGUAGE sql STABLE AS 'SELECT ''fixed'''; \
                CREATE SCHEMA trick; CREATE FUNCTION trick.random() RETURNS text LANGUAGE sql AS 'SELECT ''x''';";
    run(&asked.base.admin, make).await;
    assert_eq!(asked.rows("SELECT tell(), fixed()").await, json!([["told", "fixed"]]));
    let fault = asked.query("SELECT other_one()").await.unwrap_err().to_string();
    assert!(fault.contains("other_one") && fault.contains("allow_functions"), "{fault}");
    assert!(asked.query("SELECT trick.random()").await.is_err(), "another function with a harmless one's name");
}
