//! The database's shape, and whose it is.

use serde_json::{Value, json};

use crate::support::{PATIENCE, World, text};

#[tokio::test]
async fn migrations_answer_as_the_contract_says() {
    let world = World::new().await;
    let server = world.server().await;
    let ask = async |path: &str| {
        let answer = server.api.post(path).send().await.unwrap();
        (answer.status().as_u16(), answer.json::<Value>().await.unwrap())
    };
    for (path, message) in [
        ("/databases/all/migrate", "All databases migrated successfully to latest version"),
        ("/databases/main-db/migrate", "Database migrated successfully to latest version"),
        ("/databases/main-db/migrate?target_version=2.5.0", "Database migrated successfully to version 2.5.0"),
    ] {
        assert_eq!(ask(path).await, (200, json!({"message": message})), "{path}");
    }
    assert_eq!(ask("/databases/zzz/migrate").await, (404, json!({"detail": "No database found with id 'zzz'"})));
    let (status, told) = ask("/databases/main-db/migrate?target_version=99.0.0").await;
    assert_eq!(status, 409, "{told}");
    assert!(text(&told["detail"]).contains("99.0.0"), "{told}");
    let (status, told) = ask("/databases/main-db/migrate?target_version=zzz").await;
    assert_eq!(status, 422, "{told}");
    assert!(told.to_string().contains("zzz"), "{told}");
    // All of it changed nothing.
    let run = server.api.run("my-agent", &[("message", "Hello"), ("session_id", "s")]).await;
    assert_eq!(run["status"], "COMPLETED");
}

#[tokio::test]
async fn a_database_newer_than_the_program_is_refused_with_a_clear_message() {
    let world = World::new().await;
    assert!(world.server().await.terminate().await.success());
    sqlx::query(
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
         VALUES (99990101000000, 'of the future', true, '\\x00', 0)",
    )
    .execute(&world.database().sql)
    .await
    .unwrap();
    let ended = tokio::time::timeout(PATIENCE, world.command().output()).await.expect("it ends").unwrap();
    assert!(!ended.status.success());
    let told = String::from_utf8_lossy(&ended.stderr);
    assert!(told.contains("newer") && told.contains("99990101000000"), "{told}");
}

#[tokio::test]
async fn a_database_with_another_master_key_is_refused() {
    let world = World::new().await;
    assert!(world.server().await.terminate().await.success());
    let mut command = world.command();
    command.env("DAYBOOK_MASTER_KEY", "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=");
    let ended = tokio::time::timeout(PATIENCE, command.output()).await.expect("it ends").unwrap();
    assert!(!ended.status.success());
    let told = String::from_utf8_lossy(&ended.stderr);
    assert!(told.contains("master key"), "{told}");
}

#[tokio::test]
async fn two_servers_that_start_at_once_on_an_empty_database_both_serve() {
    let world = World::new().await;
    let (one, other) = tokio::join!(world.server(), world.server());
    for (server, session) in [(&one, "a"), (&other, "b")] {
        let run = server.api.run("my-agent", &[("message", "Hello"), ("session_id", session)]).await;
        assert_eq!(run["status"], "COMPLETED");
    }
}
