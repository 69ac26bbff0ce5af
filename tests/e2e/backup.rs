//! A dump of the database is a backup: also without the views, which are posted anew from the log.

use std::path::Path;
use std::process::Stdio;

use daybook_store::embedded::{EmbeddedOptions, look};
use tokio::process::Command;

use crate::support::{Database, World, daybook, text};

/// Runs a program of PostgreSQL's.
async fn postgres(dir: &Path, name: &str, arguments: &[&str]) {
    let options = EmbeddedOptions { dir: dir.to_owned(), bin_dir: None };
    let (programs, _) = look(&options).await.programs.unwrap();
    // What is on the PATH may be a link to it.
    let server = programs.join("postgres").canonicalize().unwrap();
    let mut command = Command::new(server.with_file_name(name));
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).kill_on_drop(true);
    assert!(command.status().await.unwrap().success(), "{name}");
}

#[tokio::test]
async fn a_dump_without_views_and_frames_restores_everything() {
    let mut world = World::new().await;
    let server = world.server().await;
    let mut runs = Vec::new();
    for n in 0..3 {
        let fields = [("message", "Hello"), ("session_id", &format!("s{n}")), ("user_id", "alice")];
        runs.push(server.api.run("my-agent", &fields).await);
    }
    let sessions = server.api.ok("/sessions?type=agent").await;
    assert!(server.terminate().await.success());

    let dump = world.dir.path().join("dump.sql");
    let dump = dump.to_str().unwrap();
    let left_out = ["*_view", "projection_*", "session_counts", "frames*"];
    let left_out = left_out.map(|table| format!("--exclude-table-data={table}"));
    let mut arguments: Vec<&str> = left_out.iter().map(String::as_str).collect();
    arguments.extend(["--no-owner", "--file", dump, &world.database().url]);
    postgres(world.dir.path(), "pg_dump", &arguments).await;
    let restored = Database { key: world.database().key.clone(), ..Database::create().await };
    let restore = ["--no-psqlrc", "--quiet", "--set", "ON_ERROR_STOP=1", "--file", dump, &restored.url];
    postgres(world.dir.path(), "psql", &restore).await;
    let views = restored.count("SELECT count(*) FROM run_view WHERE $1 = ''", "").await;
    assert_eq!(views, 0, "the dump has no views");
    world.database = Some(restored);

    let mut doctor = daybook();
    doctor.arg("doctor").env("DATABASE_URL", &world.database().url).env("DAYBOOK_MASTER_KEY", &world.database().key);
    let told = doctor.output().await.unwrap();
    let told = String::from_utf8_lossy(&told.stdout).into_owned();
    assert!(told.contains("master key"), "{told}");

    let server = world.server().await;
    for run in &runs {
        let (id, session) = (text(&run["run_id"]), text(&run["session_id"]));
        let again = server.api.look("my-agent", id, session).await.unwrap();
        assert_eq!((&again["content"], &again["messages"]), (&run["content"], &run["messages"]));
    }
    assert_eq!(server.api.ok("/sessions?type=agent").await["data"], sessions["data"]);
    let next = server.api.run("my-agent", &[("message", "Again"), ("session_id", "s0"), ("user_id", "alice")]).await;
    assert_eq!(next["status"], "COMPLETED");
}
