//! Connections lost in the middle, and requests the database refuses.

use std::collections::HashMap;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};

use daybook_store::{AppendError, Expected, Store, StoreError};
use futures::future::join_all;
use secrecy::ExposeSecret;
use sqlx::postgres::PgConnectOptions;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinSet;

use crate::server::*;

/// A batch is tried once more than this, so that the speed of the machine does not decide whether it is given up.
const CUTS_A_ROUND: usize = 3;

/// How many cuts are still to come in this round, and how many there were in all.
#[derive(Default)]
struct Cuts {
    due: AtomicUsize,
    done: AtomicUsize,
}

/// Cuts the connection that appends, wherever it is in that, as often as it is due.
async fn cut_appends(admin: sqlx::PgPool, cuts: Arc<Cuts>) {
    loop {
        if cuts.due.load(Ordering::SeqCst) > 0 {
            let cut: Vec<bool> = sqlx::query_scalar(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                 WHERE datname = current_database() AND query LIKE '%append_batch%' AND pid <> pg_backend_pid() \
                 LIMIT 1",
            )
            .fetch_all(&admin)
            .await
            .unwrap();
            cuts.due.fetch_sub(cut.len(), Ordering::SeqCst);
            cuts.done.fetch_add(cut.len(), Ordering::SeqCst);
        }
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_connections_cut_all_the_time_each_request_is_written_exactly_once() {
    let (database, store) = fresh().await;
    let admin = sqlx::PgPool::connect(database.url().expose_secret()).await.unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    let cuts = Arc::new(Cuts::default());
    tasks.spawn(cut_appends(admin.clone(), cuts.clone()));
    let mut written: HashMap<String, u32> = HashMap::new();
    let mut round = 0;
    while round < 20 || cuts.done.load(Ordering::SeqCst) < 20 {
        assert!(round < 10_000, "nothing is cut: the test tests nothing");
        cuts.due.store(CUTS_A_ROUND, Ordering::SeqCst);
        let texts: Vec<String> = (0..20).map(|n| format!("{round}/{n}")).collect();
        // Any: nothing but the store itself keeps these from being written twice.
        let results = join_all(texts.iter().map(|text| store.append(add("a", Expected::Any, &[text])))).await;
        for (text, result) in texts.iter().zip(results) {
            match result {
                Ok(_) => *written.entry(format!("{:?}", said(text))).or_default() += 1,
                // Allowed to give up, not to be wrong; counted as seen if it is there.
                Err(AppendError::Store(StoreError::Unavailable(_))) => {}
                Err(other) => panic!("{other:?}"),
            }
        }
        round += 1;
    }
    tasks.shutdown().await;
    assert!(written.len() > 200, "only {} were acknowledged", written.len());
    let mut read: HashMap<String, u32> = HashMap::new();
    for record in store.read_stream(LOG, &stream("a"), 0).await.unwrap() {
        *read.entry(format!("{:?}", record.event)).or_default() += 1;
    }
    assert!(read.values().all(|times| *times == 1));
    assert!(written.keys().all(|text| read.contains_key(text)), "an acknowledged event is missing");
    let head = store.head(LOG).await.unwrap();
    assert_eq!(head as usize, read.len());
    admin.close().await;
    store.close().await;
}

const CALM: u8 = 0;
/// The next request for [`MARKED`] does not reach the server.
const CUT_BEFORE: u8 = 1;
/// The next request for [`MARKED`] is executed, and its answer is lost.
const CUT_AFTER: u8 = 2;
const MARKED: &[u8] = b"session:marked";

/// Stands between a store and its server, and cuts connections where it is told to.
async fn proxy(listener: UnixListener, server: std::path::PathBuf, cut: Arc<AtomicU8>) {
    let mut connections = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        connections.spawn(relay(client, server.clone(), cut.clone()));
    }
}

async fn relay(mut client: UnixStream, server: std::path::PathBuf, cut: Arc<AtomicU8>) {
    let Ok(mut server) = UnixStream::connect(server).await else { return };
    let (mut sent, mut answered) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    loop {
        tokio::select! {
            n = client.read(&mut sent) => {
                let Ok(n @ 1..) = n else { return };
                let marked = sent[..n].windows(MARKED.len()).any(|part| part == MARKED);
                let cut = if marked { cut.swap(CALM, Ordering::SeqCst) } else { CALM };
                if cut == CUT_BEFORE || server.write_all(&sent[..n]).await.is_err() {
                    return;
                }
                if cut == CUT_AFTER {
                    // Only after the answer has come is the request known to be executed.
                    assert!(server.read(&mut answered).await.is_ok_and(|n| n > 0), "the server answers");
                    return;
                }
            }
            n = server.read(&mut answered) => {
                let Ok(n @ 1..) = n else { return };
                if client.write_all(&answered[..n]).await.is_err() {
                    return;
                }
            }
        }
    }
}

fn through(database: &Database, dir: &Path) -> (UnixListener, std::path::PathBuf, String) {
    let direct = PgConnectOptions::from_str(database.url().expose_secret()).unwrap();
    let name = format!(".s.PGSQL.{}", direct.get_port());
    let listener = UnixListener::bind(dir.join(&name)).unwrap();
    let encoded = dir.to_str().unwrap().replace('/', "%2F");
    let url = database.url().expose_secret().split_once('?').unwrap().0.to_owned();
    let url = format!("{url}?host={encoded}&port={}&sslmode=disable", direct.get_port());
    (listener, direct.get_socket().unwrap().join(name), url)
}

#[tokio::test]
async fn an_append_whose_answer_is_lost_is_neither_lost_nor_written_twice() {
    let database = Database::create().await;
    let dir = tempfile::tempdir().unwrap();
    let (listener, server, url) = through(&database, dir.path());
    let cut = Arc::new(AtomicU8::new(CALM));
    let mut tasks = JoinSet::new();
    tasks.spawn(proxy(listener, server, cut.clone()));
    let mut options = database.options();
    options.database_url = url.into();
    let store = Store::open(options).await.unwrap();
    store.append(add("other", Expected::Any, &["x"])).await.unwrap();
    let (mut position, mut version) = (1, 0);
    for way in [CALM, CUT_BEFORE, CUT_AFTER, CUT_BEFORE, CUT_AFTER] {
        cut.store(way, Ordering::SeqCst);
        let marked = store.append(add("marked", Expected::Any, &["y", "z"])).await.unwrap();
        assert_eq!(cut.load(Ordering::SeqCst), CALM, "the connection was cut");
        (position, version) = (position + 2, version + 2);
        assert_eq!((marked.last_position, marked.versions), (position, vec![version]), "way {way}");
    }
    let last = store.read_after(LOG, position - 1, 10).await.unwrap();
    assert_eq!(last.len(), 1);
    store.close().await;
    tasks.shutdown().await;
}

#[tokio::test]
async fn a_request_the_database_refuses_fails_alone() {
    let (_database, store) = fresh().await;
    sqlx::raw_sql("ALTER TABLE events ADD CONSTRAINT no_mallory CHECK (principal <> 'mallory') NOT VALID")
        .execute(store.pool())
        .await
        .unwrap();
    let results = join_all((0..20).map(|n| {
        let mut request = add(&format!("s{n}"), Expected::Version(0), &["x"]);
        if n == 7 {
            request.meta.principal = "mallory".to_owned();
        }
        store.append(request)
    }))
    .await;
    for (n, result) in results.into_iter().enumerate() {
        match result {
            Ok(_) => assert_ne!(n, 7),
            Err(error) => {
                assert_eq!(n, 7, "{error:?}");
                assert!(matches!(error, AppendError::Store(StoreError::Database(_))), "{error:?}");
            }
        }
    }
    assert_eq!(store.head(LOG).await.unwrap(), 19);
    store.close().await;
}
