//! The embedded server, run for real. As root it runs as the user `postgres`.

use std::{ffi::OsString, future::Future, os::unix::fs::PermissionsExt, str::FromStr, time::Duration};

use secrecy::ExposeSecret;
use sqlx::{Connection, PgConnection, postgres::PgConnectOptions};
use tokio::time::{sleep, timeout};

use super::*;

/// A directory that the server's user may enter.
fn home() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o711)).unwrap();
    dir
}

fn options(dir: &Path) -> EmbeddedOptions {
    EmbeddedOptions { dir: dir.to_path_buf(), bin_dir: None }
}

async fn start(dir: &Path) -> Embedded {
    Embedded::start(options(dir)).await.unwrap()
}

async fn connect(embedded: &Embedded) -> Result<PgConnection, sqlx::Error> {
    PgConnection::connect(embedded.url().expose_secret()).await
}

async fn count(embedded: &Embedded) -> i64 {
    let mut connection = connect(embedded).await.unwrap();
    sqlx::query_scalar("SELECT count(*) FROM pages").fetch_one(&mut connection).await.unwrap()
}

async fn write_page(embedded: &Embedded) {
    let mut connection = connect(embedded).await.unwrap();
    sqlx::query("CREATE TABLE IF NOT EXISTS pages (n int)").execute(&mut connection).await.unwrap();
    sqlx::query("INSERT INTO pages VALUES (1)").execute(&mut connection).await.unwrap();
}

/// Waits for a condition; how long it took decides nothing.
async fn until<F: Future<Output = bool>>(mut holds: impl FnMut() -> F) {
    let wait = async {
        while !holds().await {
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(Duration::from_secs(180), wait).await.unwrap();
}

fn kill_hard(pid: u32) {
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid.cast_signed()), nix::sys::signal::Signal::SIGKILL).unwrap();
}

/// A process that has ended and perhaps is not yet reaped has no working directory.
fn is_running(pid: u32) -> bool {
    std::fs::read_link(format!("/proc/{pid}/cwd")).is_ok()
}

#[tokio::test]
async fn keeps_its_data_over_stop_and_start_and_listens_on_the_socket_only() {
    let dir = home();
    let first = start(dir.path()).await;
    write_page(&first).await;
    let mut connection = connect(&first).await.unwrap();
    for (setting, value) in [
        ("listen_addresses", ""),
        ("fsync", "on"),
        ("synchronous_commit", "on"),
        ("wal_compression", "pglz"),
        ("shared_buffers", "256MB"),
        ("max_wal_size", "2GB"),
        ("data_checksums", "on"),
        ("server_encoding", "UTF8"),
    ] {
        let shown: String =
            sqlx::query_scalar("SELECT current_setting($1)").bind(setting).fetch_one(&mut connection).await.unwrap();
        assert_eq!(shown, value, "{setting}");
    }
    let (pid, data) = (first.postmaster_pid(), first.data_dir().to_path_buf());
    assert!(is_running(pid));
    assert_eq!(std::fs::metadata(&data).unwrap().permissions().mode() & 0o777, 0o700);
    first.stop().await.unwrap();
    assert!(!is_running(pid));
    assert!(!data.join("postmaster.pid").exists(), "it was stopped in good order");

    let second = start(dir.path()).await;
    assert_eq!(count(&second).await, 1);
    second.stop().await.unwrap();
}

#[tokio::test]
async fn a_killed_server_comes_back_by_itself_at_the_same_url() {
    let dir = home();
    let embedded = start(dir.path()).await;
    write_page(&embedded).await;
    let url = embedded.url().expose_secret().to_owned();
    for _ in 0..2 {
        let killed = embedded.postmaster_pid();
        kill_hard(killed);
        until(|| async { ![0, killed].contains(&embedded.postmaster_pid()) }).await;
        assert_eq!(count(&embedded).await, 1);
    }
    assert_eq!(embedded.url().expose_secret(), url);
    let pid = embedded.postmaster_pid();
    embedded.stop().await.unwrap();
    assert!(!is_running(pid));
}

#[tokio::test]
async fn what_a_killed_daybook_left_is_adopted_watched_and_stopped() {
    let dir = home();
    let first = start(dir.path()).await;
    write_page(&first).await;
    let pid = first.abandon().await;
    assert!(is_running(pid));

    let second = start(dir.path()).await;
    assert_eq!(second.postmaster_pid(), pid, "the same process");
    assert_eq!(count(&second).await, 1);
    kill_hard(pid);
    until(|| async { ![0, pid].contains(&second.postmaster_pid()) }).await;
    assert_eq!(count(&second).await, 1);

    let pid = second.abandon().await;
    let third = start(dir.path()).await;
    assert_eq!(third.postmaster_pid(), pid);
    third.stop().await.unwrap();
    assert!(!is_running(pid));
}

#[tokio::test]
async fn starts_after_both_were_killed_even_when_the_old_pid_is_somebody_elses() {
    let dir = home();
    let first = start(dir.path()).await;
    write_page(&first).await;
    let data = first.data_dir().to_path_buf();
    // A query that runs on does not notice that its postmaster is gone, and keeps the shared memory.
    let mut connection = connect(&first).await.unwrap();
    let busy = sqlx::query("DO $$ BEGIN LOOP END LOOP; END $$").execute(&mut connection);
    let watching = async {
        let mut other = connect(&first).await.unwrap();
        loop {
            let found: bool = sqlx::query_scalar(
                "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE query LIKE 'DO %' AND state = 'active')",
            )
            .fetch_one(&mut other)
            .await
            .unwrap();
            if found {
                break;
            }
        }
    };
    tokio::select! {
        _ = busy => panic!("the query does not end"),
        () = watching => {}
    }
    let pid = first.abandon().await;
    kill_hard(pid);
    until(|| async { !is_running(pid) }).await;
    let pid_file = data.join("postmaster.pid");
    let stale = std::fs::read_to_string(&pid_file).unwrap();
    let mut stranger = sleeper(&data);
    std::fs::write(&pid_file, stale.replacen(&pid.to_string(), &stranger.id().to_string(), 1)).unwrap();

    let second = start(dir.path()).await;
    assert_eq!(count(&second).await, 1);
    assert!(stranger.try_wait().unwrap().is_none(), "the stranger was left alone");
    stranger.kill().unwrap();
    stranger.wait().unwrap();
    second.stop().await.unwrap();
}

/// A process of the data's owner that is no PostgreSQL.
fn sleeper(data: &Path) -> std::process::Child {
    use std::os::unix::{fs::MetadataExt, process::CommandExt};
    let meta = std::fs::metadata(data).unwrap();
    let mut command = std::process::Command::new("sleep");
    command.arg("600").current_dir("/");
    if nix::unistd::geteuid().is_root() {
        command.uid(meta.uid()).gid(meta.gid());
    }
    command.spawn().unwrap()
}

#[tokio::test]
async fn a_second_on_the_same_directory_is_refused_and_the_first_goes_on() {
    let dir = home();
    let first = start(dir.path()).await;
    let refused = Embedded::start(options(&dir.path().join("."))).await.unwrap_err().to_string();
    let canonical = dir.path().canonicalize().unwrap();
    assert_eq!(
        refused,
        format!(
            "Another Daybook (pid {}) is using {}; stop it or choose another directory with --data-dir.",
            std::process::id(),
            canonical.display()
        )
    );
    assert!(connect(&first).await.is_ok());
    first.stop().await.unwrap();
}

#[tokio::test]
async fn a_dropped_one_ends_and_lets_go() {
    let dir = home();
    let first = start(dir.path()).await;
    let pid = first.postmaster_pid();
    drop(first);
    until(|| async { !is_running(pid) }).await;
    let second = start(dir.path()).await;
    second.stop().await.unwrap();
}

#[tokio::test]
async fn what_a_killed_first_start_left_is_cleared() {
    let dir = home();
    for unfinished in ["postgres.new", "postgres.new-0190"] {
        std::fs::create_dir(dir.path().join(unfinished)).unwrap();
        std::fs::write(dir.path().join(unfinished).join("half"), "").unwrap();
    }
    start(dir.path()).await.stop().await.unwrap();
    let names = std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let left: Vec<_> = names.filter(|name| name.starts_with("postgres.new") || name.ends_with(".tmp")).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test]
async fn a_start_that_is_given_up_leaves_no_process_and_the_next_one_succeeds() {
    let dir = home();
    let data = dir.path().canonicalize().unwrap().join("postgres");
    let unfinished = || {
        let mut names = std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name());
        names.any(|name| name.to_string_lossy().starts_with("postgres.new"))
    };
    tokio::select! {
        biased;
        () = until(|| async { unfinished() }) => {}
        started = Embedded::start(options(dir.path())) => panic!("{started:?}"),
    }
    start(dir.path()).await.stop().await.unwrap();

    for _ in 0..3 {
        tokio::select! {
            biased;
            () = until(|| async { data.join("postmaster.pid").exists() }) => {}
            started = Embedded::start(options(dir.path())) => started.unwrap().stop().await.unwrap(),
        }
        until(|| async { postmaster::processes_of(&data).is_empty() }).await;
    }
    start(dir.path()).await.stop().await.unwrap();
}

#[tokio::test]
async fn a_directory_that_cannot_be_one_and_a_file_that_cannot_be_written_are_named() {
    let dir = home();
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    for wrong in [file.clone(), file.join("below")] {
        let error = Embedded::start(options(&wrong)).await.unwrap_err();
        assert!(matches!(&error, EmbeddedError::BadDir { dir, .. } if *dir == wrong), "{error}");
    }
    for name in ["postgres.hba.tmp", "postgres.hba"] {
        let dir = home();
        let path = dir.path().canonicalize().unwrap().join(name);
        std::fs::create_dir(&path).unwrap();
        let error = Embedded::start(options(dir.path())).await.unwrap_err().to_string();
        assert!(error.contains(&format!("{}: ", path.display())), "{error}");
    }
}

#[tokio::test]
async fn without_binaries_it_names_the_package() {
    let dir = home();
    let path = tempfile::tempdir().unwrap();
    let search = Search { bin_dir: None, path: OsString::from(path.path()), places: &[] };
    let error = Embedded::start_with(dir.path(), &search).await.unwrap_err().to_string();
    assert!(error.contains("install the package postgresql") && error.contains("DATABASE_URL"), "{error}");

    std::fs::write(path.path().join("apt-get"), "").unwrap();
    let error = Embedded::start_with(dir.path(), &search).await.unwrap_err().to_string();
    assert!(error.contains("`apt-get install postgresql`"), "{error}");
    assert!(!error.contains('\n'));

    let search = Search { bin_dir: Some(path.path().to_path_buf()), ..search };
    let error = Embedded::start_with(dir.path(), &search).await.unwrap_err();
    assert!(matches!(error, EmbeddedError::BadBinDir { .. }), "{error}");
    assert!(!dir.path().join("postgres").exists());
}

#[tokio::test]
async fn data_of_another_version_is_left_alone() {
    let dir = home();
    let data = dir.path().join("postgres");
    std::fs::create_dir(&data).unwrap();
    std::fs::write(data.join("PG_VERSION"), "9\n").unwrap();
    let error = Embedded::start(options(dir.path())).await.unwrap_err().to_string();
    assert!(error.contains("was written by PostgreSQL 9, but this machine only has"), "{error}");
    assert!(data.join("PG_VERSION").exists());
}

#[test]
fn a_long_or_odd_directory_gets_a_short_socket_and_a_url_that_reads_back() {
    let dir = home();
    let long = dir.path().join("ü + %".to_owned() + &"x".repeat(100));
    let (site, _lock) = Site::prepare(&long).unwrap();
    assert!(site.socket_dir.starts_with("/tmp") && site.socket_dir.as_os_str().len() < 90, "{site:?}");
    let (again, _) = (site.clone(), drop(_lock));
    assert_eq!(Site::prepare(&long).unwrap().0.socket_dir, again.socket_dir);
    // Another user's directory under that name is not trusted.
    std::fs::set_permissions(&again.socket_dir, std::fs::Permissions::from_mode(0o777)).unwrap();
    assert!(matches!(Site::prepare(&long), Err(EmbeddedError::SocketDir { .. })));
    std::fs::remove_dir(&again.socket_dir).unwrap();
}

#[tokio::test]
async fn a_directory_with_spaces_works_and_its_url_reads_back() {
    let dir = home();
    let odd = dir.path().join("a b+c%20ü");
    let embedded = start(&odd).await;
    let read = PgConnectOptions::from_str(embedded.url().expose_secret()).unwrap();
    assert_eq!(read.get_socket(), Some(&embedded.site.socket_dir));
    assert_eq!(read.get_database(), Some("daybook"));
    write_page(&embedded).await;
    assert_eq!(count(&embedded).await, 1);
    embedded.stop().await.unwrap();
}

#[tokio::test]
async fn as_root_a_closed_directory_gets_its_data_elsewhere_with_a_note() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let closed = tempfile::tempdir().unwrap();
    std::fs::set_permissions(closed.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
    let dir = closed.path().join(".daybook");
    let embedded = start(&dir).await;
    write_page(&embedded).await;
    let base = embedded.data_dir().parent().unwrap().to_path_buf();
    assert!(base.starts_with("/var/lib/daybook"), "{}", base.display());
    embedded.stop().await.unwrap();

    let embedded = start(&dir).await;
    assert_eq!(count(&embedded).await, 1);
    embedded.stop().await.unwrap();

    std::fs::remove_dir_all(&base).unwrap();
    let error = Embedded::start(options(&dir)).await.unwrap_err().to_string();
    assert!(error.contains("is gone") && error.contains("postgres.location"), "{error}");
}
