//! Opening: migrations, master keys, newer databases, versions asked for.

use daybook_store::{Expected, MasterKey, MigrateError, Store, StoreError, StoreOptions};

use crate::server::*;

#[tokio::test]
async fn several_nodes_may_open_an_empty_database_at_once() {
    let database = Database::create().await;
    let opened = futures::future::join_all((0..4).map(|_| Store::open(database.options()))).await;
    for store in opened {
        let store = store.unwrap();
        store.append(add("a", Expected::Any, &["hello"])).await.unwrap();
        store.close().await;
    }
    let store = database.store().await;
    assert_eq!(store.read_stream(LOG, &stream("a"), 0).await.unwrap().len(), 4);
    store.close().await;
}

#[tokio::test]
async fn another_master_key_is_refused() {
    let (database, store) = fresh().await;
    store.close().await;
    let wrong = StoreOptions::new(database.url(), MasterKey::generate().unwrap());
    assert!(matches!(Store::open(wrong).await, Err(StoreError::WrongMasterKey)));
    database.store().await.close().await;
}

#[tokio::test]
async fn a_database_of_a_newer_program_is_refused_and_left_unlocked() {
    let (database, store) = fresh().await;
    sqlx::query(
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
         VALUES (9001, 'of tomorrow', true, '\\x00', 0)",
    )
    .execute(store.pool())
    .await
    .unwrap();
    for _ in 0..2 {
        let refused = Store::open(database.options()).await;
        assert!(matches!(refused, Err(StoreError::NewerDatabase(9001))), "{refused:?}");
    }
    store.close().await;
}

#[tokio::test]
async fn a_database_that_is_away_is_told_apart() {
    let nobody = "postgres://daybook@localhost/daybook?host=%2Fnonexistent".to_owned();
    let away = Store::open(StoreOptions::new(nobody.into(), MasterKey::generate().unwrap())).await;
    assert!(matches!(away, Err(StoreError::Unavailable(_))), "{away:?}");
    let bad = Store::open(StoreOptions::new("mysql//x".to_owned().into(), MasterKey::generate().unwrap())).await;
    assert!(matches!(bad, Err(StoreError::BadUrl(_))), "{bad:?}");
}

#[tokio::test]
async fn versions_served_are_there_already() {
    let (_database, store) = fresh().await;
    for target in [None, Some("2.0.0"), Some("2.5.0"), Some("3.1.10")] {
        assert!(!store.migrate(target).await.unwrap().changed, "{target:?}");
    }
    assert_eq!(store.migrate(None).await.unwrap().target, "latest");
    for target in ["0.1.0", "1.9.9", "3.1.11", "4.0.0"] {
        assert!(matches!(store.migrate(Some(target)).await, Err(MigrateError::Incompatible { .. })), "{target}");
    }
    for target in ["zzz", "", "2"] {
        assert!(matches!(store.migrate(Some(target)).await, Err(MigrateError::BadVersion(_))), "{target}");
    }
    store.close().await;
}
