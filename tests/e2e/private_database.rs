//! Daybook with the PostgreSQL it runs itself: kill -9 of either, and of both.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::support::{PATIENCE, Script, World, answer, check_order, eventually, said, text};

fn kill_postgres(world: &World) -> Pid {
    let pid = world.postgres().expect("PostgreSQL runs");
    kill(pid, Signal::SIGKILL).unwrap();
    pid
}

#[tokio::test]
async fn a_run_survives_a_kill_of_daybook_and_of_its_postgresql() {
    let world = World::with_private_database().await;
    let server = world.server().await;
    let script = Script::say(&["one ", "two ", "three"]).hold(2, "third").message();
    let mut watch = server.api.stream("my-agent", &[("message", &script), ("session_id", "s"), ("run_id", "r")]).await;
    watch.until_said("one two ").await;
    kill_postgres(&world);
    server.kill().await;
    let before = watch.rest().await;

    world.model.open("third");
    let server = world.server().await;
    let ended = server.api.until("my-agent", "r", "s", "COMPLETED").await;
    assert_eq!(ended["content"], "one two three");
    let last = before.iter().filter_map(|frame| frame.id).max();
    let both = [before, server.api.resume("my-agent", "r", "s", last).await.rest().await].concat();
    check_order(&both);
    assert_eq!(said(&both), "one two three");
    assert!(server.terminate().await.success());
    assert_eq!(world.postgres(), None, "it stops with the server");
}

#[tokio::test]
async fn a_run_survives_a_kill_of_postgresql_alone_and_of_daybook_alone() {
    let world = World::with_private_database().await;
    let server = world.server().await;
    let script = |gate: &str| Script::say(&["one ", "two"]).hold(1, gate).message();
    let first = server.api.background("my-agent", &[("message", &script("a")), ("session_id", "a")]).await;
    world.model.arrived("a", 1).await;
    let killed = kill_postgres(&world);
    world.model.open("a");
    assert_eq!(server.api.until("my-agent", &first, "a", "COMPLETED").await["content"], "one two");
    // Backends of the killed one may have answered until they noticed.
    let again = async || world.postgres().filter(|running| *running != killed);
    let running = eventually("PostgreSQL is started again", again).await;

    // Some of the server's connections may still be those that were cut.
    let message = script("b");
    let fields = [("message", &*message), ("session_id", "b"), ("stream", "false"), ("background", "true")];
    let request = server.api.request("my-agent", &fields).header("Idempotency-Key", "second");
    let second = text(&answer(server.api.persist(request).await, 202).await["run_id"]).to_owned();
    world.model.arrived("b", 1).await;
    server.kill().await;
    world.model.open("b");
    let server = world.server().await;
    assert_eq!(world.postgres(), Some(running), "the one that still ran is used");
    assert_eq!(server.api.until("my-agent", &second, "b", "COMPLETED").await["content"], "one two");
    assert!(server.terminate().await.success());
}

#[tokio::test]
async fn frames_that_were_sent_are_there_to_resume_also_after_a_kill_of_postgresql() {
    let world = World::with_private_database().await;
    let server = world.server().await;
    let mut watching = Vec::new();
    for n in 0..8 {
        let gate = format!("gate {n}");
        let script = Script::say(&["one ", "two ", "three"]).hold(2, &gate).message();
        let (session, run) = (format!("s{n}"), format!("r{n}"));
        let fields = [("message", script.as_str()), ("session_id", &session), ("run_id", &run)];
        watching.push((session.clone(), run.clone(), server.api.stream("my-agent", &fields).await));
    }
    for (_, _, watch) in &mut watching {
        watch.until_said("one two ").await;
    }
    kill_postgres(&world);
    (0..8).for_each(|n| world.model.open(&format!("gate {n}")));
    for (session, run, watch) in watching {
        let frames = watch.rest().await;
        assert_eq!(said(&frames), "one two three");
        let again = server.api.resume("my-agent", &run, &session, None).await.rest().await;
        assert_eq!(again[1..], frames[..], "what {run}'s watcher saw");
    }
    assert!(server.terminate().await.success());
}

#[tokio::test]
async fn a_second_server_on_the_same_directory_says_so_and_ends() {
    let world = World::with_private_database().await;
    let server = world.server().await;
    let second = tokio::time::timeout(PATIENCE, world.command().output()).await.unwrap().unwrap();
    assert!(!second.status.success());
    let told = String::from_utf8_lossy(&second.stderr);
    assert!(told.contains("Another Daybook") && told.contains(&*world.data_dir().to_string_lossy()), "{told}");
    // The first goes on as if nothing had been.
    let run = server.api.run("my-agent", &[("message", "Hello"), ("session_id", "s")]).await;
    assert_eq!(run["content"], "Hi Alice!");
    assert!(server.terminate().await.success());
    eventually("PostgreSQL is down", async || world.postgres().is_none().then_some(())).await;
}
