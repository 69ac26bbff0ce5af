//! Many clients that read slowly, vanish, or wait: the memory stays in its budget, and others are served as before.

use std::time::{Duration, Instant};

use daybook_test_support::{Api, Script};
use futures::future::{join_all, try_join_all};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use reqwest::Url;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::sleep;

use crate::node::{Node, World};
use crate::progress::say;

/// The budget of a node with all streams open, in MB.
const BUDGET: u64 = 600;

const SLOW: usize = 1_000;
const VANISHING: usize = 1_000;
const IDLE: usize = 10_000;

/// What the clients, all of them here, and the node need each.
const FILES: u64 = 12_000;

/// Streams that are watched, by that many each.
const WATCHED: usize = 20;

#[tokio::test]
#[ignore = "long: make chaos"]
async fn whole_slow_vanishing_and_idle_readers_slow_nobody_down() {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    // Only root may go beyond the hard limit.
    let files = hard.max(FILES);
    if setrlimit(Resource::RLIMIT_NOFILE, files, files).is_err() {
        say(&format!("skipped: this needs {FILES} open files (ulimit -n {FILES})"));
        return;
    }
    let world = World::new().await;
    let node = Node::start(&world, "a").await;
    let api = node.up();
    say(if cfg!(debug_assertions) { "a debug build: its figures are no measure" } else { "a release build" });
    figures("nobody else", &node, &api).await;
    slow(&node, &api).await;
    vanishing(&node, &api).await;
    let most = idle(&world, &node, &api).await;
    assert!(most <= BUDGET, "{IDLE} open streams took {most} MB");
}

/// Long answers, and readers who take a kilobyte of them now and then.
async fn slow(node: &Node, api: &Api) {
    let runs = (0..WATCHED).map(|n| format!("long-{n}"));
    for run in runs.clone() {
        let message = Script::long(500, 1000).message();
        api.background(
            "my-agent",
            &[("message", &message), ("session_id", &run), ("run_id", &run), ("stream", "false")],
        )
        .await;
    }
    let readers: Vec<TcpStream> = many(SLOW, |n| watch(api, format!("long-{}", n % WATCHED))).await;
    let reading = join_all(readers.into_iter().map(|mut reader| async move {
        let mut some = vec![0; 1024];
        // Until it is dropped, or has read everything.
        while reader.read(&mut some).await.is_ok_and(|read| read > 0) {
            sleep(Duration::from_millis(250)).await;
        }
    }));
    tokio::select! {
        _ = reading => say("the slow readers have read everything"),
        () = async {
            sleep(Duration::from_secs(3)).await;
            figures(&format!("{SLOW} slow readers"), node, api).await;
        } => {}
    }
    for run in runs {
        api.until("my-agent", &run, &run, "COMPLETED").await;
    }
}

/// Clients that go away in the middle of their streams; their runs go on.
async fn vanishing(node: &Node, api: &Api) {
    let message = Script::say(&["one ", "two ", "three"]).pace(1000).message();
    let (all, mut gone) = (VANISHING / 100, 0);
    let before = memory(node).await;
    for batch in 0..all {
        let streams = many(100, |n| {
            let name = format!("gone-{batch}-{n}");
            let fields = vec![("message", message.clone()), ("session_id", name.clone()), ("run_id", name)];
            async move { post(api, "/agents/my-agent/runs", &fields).await }
        })
        .await;
        gone += streams.len();
    }
    figures(&format!("{gone} clients vanished (before: {before} MB)"), node, api).await;
    for (batch, n) in (0..all).flat_map(|batch| (0..100).map(move |n| (batch, n))) {
        let name = format!("gone-{batch}-{n}");
        api.until("my-agent", &name, &name, "COMPLETED").await;
    }
}

/// Streams where nothing happens; gives the memory with all of them, in MB.
async fn idle(world: &World, node: &Node, api: &Api) -> u64 {
    for n in 0..WATCHED {
        let run = format!("idle-{n}");
        let message = Script::say(&["half ", "whole"]).hold(1, "idle").message();
        api.background("my-agent", &[("message", &message), ("session_id", &run), ("run_id", &run)]).await;
    }
    let mut open = Vec::new();
    while open.len() < IDLE {
        open.extend(many(250, |n| watch(api, format!("idle-{}", n % WATCHED))).await);
    }
    let most = figures(&format!("{} idle streams", open.len()), node, api).await;
    world.base.model.open("idle");
    for n in 0..WATCHED {
        let run = format!("idle-{n}");
        api.until("my-agent", &run, &run, "COMPLETED").await;
    }
    // Each gets its end.
    let ended = join_all(open.into_iter().map(|mut stream| async move {
        let mut rest = Vec::new();
        let read = tokio::time::timeout(Duration::from_secs(60), stream.read_to_end(&mut rest)).await;
        read.is_ok() && rest.windows(12).any(|window| window == b"RunCompleted")
    }))
    .await;
    assert!(ended.iter().all(|ended| *ended), "{} streams saw no end", ended.iter().filter(|ended| !**ended).count());
    most
}

/// Says what a plain run takes now, and how much memory the node has; gives that, in MB.
async fn figures(when: &str, node: &Node, api: &Api) -> u64 {
    let mut times = Vec::new();
    for _ in 0..100 {
        let began = Instant::now();
        api.run("my-agent", &[("message", "Hello")]).await;
        times.push(began.elapsed());
    }
    times.sort_unstable();
    let used = memory(node).await;
    say(&format!(
        "{when}: a plain run takes {:?}, 99 of 100 at most {:?}; the node has {used} MB",
        times[50], times[98]
    ));
    used
}

async fn memory(node: &Node) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", node.pid().await)).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().split(' ').next().unwrap().parse::<u64>().unwrap() / 1024
}

async fn many<F: Future<Output = std::io::Result<TcpStream>>>(
    count: usize,
    open: impl Fn(usize) -> F,
) -> Vec<TcpStream> {
    try_join_all((0..count).map(open)).await.unwrap()
}

async fn watch(api: &Api, run: String) -> std::io::Result<TcpStream> {
    post(api, &format!("/agents/my-agent/runs/{run}/resume"), &[("session_id", run.clone())]).await
}

/// A request by hand, as small as it can be, and the first bytes of its answer. A crowd may be told to come again.
async fn post(api: &Api, path: &str, fields: &[(&str, String)]) -> std::io::Result<TcpStream> {
    let host = api.base.trim_start_matches("http://");
    let url = Url::parse_with_params("http://host/", fields).unwrap();
    let form = url.query().unwrap_or_default();
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\
         content-type: application/x-www-form-urlencoded\r\ncontent-length: {}\r\n\r\n",
        form.len()
    );
    let mut refused = 0;
    loop {
        let mut stream = TcpStream::connect(host).await?;
        stream.write_all(head.as_bytes()).await?;
        stream.write_all(form.as_bytes()).await?;
        let mut status = [0; 12];
        stream.read_exact(&mut status).await?;
        match &status {
            b"HTTP/1.1 200" => return Ok(stream),
            b"HTTP/1.1 503" if refused < 60 => refused += 1,
            other => panic!("{}", String::from_utf8_lossy(other)),
        }
        sleep(Duration::from_secs(1)).await;
    }
}
