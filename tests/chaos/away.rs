//! PostgreSQL stops under load, or its disk is full: 503 with a reason meanwhile, recovery by itself, nothing lost.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use daybook_test_support::{eventually, open_dir, text};
use futures::future::join_all;
use reqwest::header::RETRY_AFTER;
use serde_json::Value;
use tokio::time::sleep;

use crate::counts::seed;
use crate::guardian;
use crate::ledger::{Stops, first, reckon};
use crate::load::Field;
use crate::node::World;
use crate::postgres::Postgres;
use crate::progress::say;

/// Enough for the log of a short load, and soon full.
const DISK: &str = "size=400m,mode=0755";

#[tokio::test]
#[ignore = "random: make chaos"]
async fn a_database_that_stops_under_load_costs_nothing_but_time() {
    let field = Field::new(seed(), Duration::from_secs(3600)).await;
    let outage = async {
        has_completed(&field, 5).await;
        field.world.postgres.lock().await.stop().await;
        is_refused_with_a_reason(&field).await;
        field.world.postgres.lock().await.start_again().await;
        recovers(&field).await;
    };
    under_load(&field, outage).await;
}

#[tokio::test]
#[ignore = "long: make chaos"]
async fn whole_a_database_that_is_away_for_a_while_costs_nothing_but_time() {
    let field = Field::new(seed(), Duration::from_secs(3600)).await;
    let outages = async {
        for seconds in [0, 5, 30, 60] {
            has_completed(&field, 20).await;
            field.world.postgres.lock().await.stop().await;
            is_refused_with_a_reason(&field).await;
            sleep(Duration::from_secs(seconds)).await;
            field.world.postgres.lock().await.start_again().await;
            recovers(&field).await;
            say(&format!("away for {seconds} s and more: {}", field.counts));
        }
    };
    under_load(&field, outages).await;
}

#[tokio::test]
#[ignore = "long: make chaos"]
async fn whole_a_full_disk_costs_nothing_but_time() {
    let dir = open_dir().keep();
    guardian::made(&dir);
    let mount =
        Command::new("mount").args(["-t", "tmpfs", "-o", DISK, "tmpfs"]).arg(&dir).stderr(Stdio::null()).status();
    if !mount.is_ok_and(|status| status.success()) {
        say("skipped: a file system of its own for PostgreSQL needs the right to mount one (root)");
        return;
    }
    guardian::mounted(&dir);
    let world = World::on(Postgres::start_in(&dir).await).await;
    let field = Field::on(world, seed(), Duration::from_secs(3600)).await;
    let outages = async {
        for seconds in [5, 30] {
            has_completed(&field, 20).await;
            let ballast = fill(&dir);
            is_refused_with_a_reason(&field).await;
            sleep(Duration::from_secs(seconds)).await;
            std::fs::remove_file(ballast).unwrap();
            // A PostgreSQL that cannot write its log gives up and is started again by whoever runs it.
            field.world.postgres.lock().await.start_unless_it_runs().await;
            recovers(&field).await;
            say(&format!("the disk was full for {seconds} s and more: {}", field.counts));
        }
    };
    under_load(&field, outages).await;
}

/// Writes until nothing more fits.
fn fill(dir: &Path) -> PathBuf {
    let path = dir.join("ballast");
    let mut file: File = OpenOptions::new().create(true).append(true).open(&path).unwrap();
    let mut size = 1 << 20;
    while size >= 512 {
        if file.write_all(&vec![0; size]).is_err() {
            size /= 2;
        }
    }
    path
}

/// The load lasts as long as the outages, and then everything is as its clients were told.
async fn under_load(field: &Field, outages: impl Future<Output = ()>) {
    let load = join_all((0..6).map(|worker| field.work(worker, None)));
    let outages = async {
        outages.await;
        field.end();
    };
    tokio::join!(load, outages);
    let mut wrong = field.wrong();
    if wrong.is_empty() {
        wrong = reckon(field, &Stops::new()).await;
    }
    say(&format!("SEED={}: {}", field.seed, field.counts));
    assert!(wrong.is_empty(), "SEED={}: {}", field.seed, first(&wrong));
}

/// So many more runs have completed.
async fn has_completed(field: &Field, more: usize) {
    let before = field.counts.of("COMPLETED");
    eventually("runs complete", async || {
        (field.counts.of("COMPLETED") >= before + more || !field.goes_on()).then_some(())
    })
    .await;
}

async fn is_refused_with_a_reason(field: &Field) {
    for node in &field.nodes {
        let reason = eventually("a run is refused", async || {
            let fields = [("message", "Hello"), ("stream", "false")];
            let request = node.up().request("my-agent", &fields).timeout(Duration::from_secs(50));
            let answer = request.send().await.ok().filter(|answer| answer.status() == 503)?;
            assert!(answer.headers().contains_key(RETRY_AFTER), "503 says when to try again");
            answer.json::<Value>().await.ok()
        })
        .await;
        assert!(text(&reason["detail"]).contains("database"), "{reason}");
    }
}

async fn recovers(field: &Field) {
    for node in &field.nodes {
        eventually(&format!("{} is ready again", node.name), async || {
            let answer = node.up().get("/ready").send().await.ok()?;
            (answer.status() == 200).then_some(())
        })
        .await;
    }
    has_completed(field, 5).await;
}
