//! A mixed load on two nodes, while nodes are killed, stopped and terminated, and PostgreSQL is killed.

use std::sync::Mutex;
use std::time::Duration;

use futures::future::join_all;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::time::{Instant, sleep};

use crate::counts::{now_ms, number, seed};
use crate::ledger::{Stops, first, reckon};
use crate::load::Field;
use crate::progress::say;

/// How a schedule of faults goes.
struct Schedule {
    lasting: Duration,
    workers: u64,
    /// Between two faults of one node, in seconds.
    pause: std::ops::Range<f64>,
    frozen: Duration,
    /// Between two kills of PostgreSQL.
    kills: Duration,
}

#[tokio::test]
#[ignore = "random: make chaos"]
async fn a_mixed_load_survives_its_nodes_and_its_database() {
    let schedule = Schedule {
        lasting: Duration::from_secs(20),
        workers: 6,
        pause: 2.0..5.0,
        frozen: Duration::from_secs(7),
        kills: Duration::from_secs(11),
    };
    go(schedule).await;
}

#[tokio::test]
#[ignore = "long: make chaos"]
async fn whole_a_mixed_load_survives_its_nodes_and_its_database() {
    let schedule = Schedule {
        lasting: Duration::from_secs(60 * number("MINUTES", 30)),
        workers: 10,
        pause: 2.0..20.0,
        frozen: Duration::from_secs(10),
        kills: Duration::from_secs(number("KILL_EVERY", 120)),
    };
    go(schedule).await;
}

async fn go(schedule: Schedule) {
    let seed = seed();
    say(&format!("{} s of mixed load on two nodes; SEED={seed} repeats the schedule", schedule.lasting.as_secs()));
    let field = Field::new(seed, schedule.lasting).await;
    let stops = Mutex::new(Stops::new());
    let workers = async {
        join_all((0..schedule.workers).map(|worker| field.work(worker, None))).await;
    };
    let faults = async {
        tokio::join!(
            disturb(&field, &schedule, 0, &stops),
            disturb(&field, &schedule, 1, &stops),
            kill_postgres(&field, &schedule)
        );
    };
    let telling = async {
        while field.goes_on() {
            sleep(Duration::from_secs(5)).await;
            say(&field.counts.to_string());
        }
    };
    tokio::join!(workers, faults, telling);
    let mut wrong = field.wrong();
    if wrong.is_empty() {
        say("every run is looked at again");
        wrong = reckon(&field, &stops.into_inner().unwrap()).await;
    }
    say(&format!("SEED={seed}: {}", field.counts));
    assert!(wrong.is_empty(), "SEED={seed}: {}", first(&wrong));
    assert!(field.counts.of("COMPLETED") > 0, "nothing was done");
}

/// Kills, stops and terminates one node by turns, as chance has it.
async fn disturb(field: &Field, schedule: &Schedule, node: usize, stops: &Mutex<Stops>) {
    let mut rng = StdRng::seed_from_u64(field.seed ^ (0xfa17 + node as u64));
    let node = &field.nodes[node];
    loop {
        let pause = Duration::from_secs_f64(rng.random_range(schedule.pause.clone()));
        let what = rng.random_range(0..3);
        if !wait(field, pause).await {
            return;
        }
        match what {
            0 => {
                node.kill().await;
                field.counts.one("nodes killed");
                node.start_again(&field.world).await;
            }
            1 => {
                let (pid, from) = (node.pid().await, now_ms());
                node.freeze().await;
                sleep(schedule.frozen).await;
                node.thaw().await;
                stops.lock().unwrap().entry(pid).or_default().push((from, now_ms()));
                field.counts.one("nodes stopped for a while");
            }
            _ => {
                node.terminate().await;
                field.counts.one("nodes terminated");
                node.start_again(&field.world).await;
            }
        }
    }
}

async fn kill_postgres(field: &Field, schedule: &Schedule) {
    while wait(field, schedule.kills).await {
        let mut postgres = field.world.postgres.lock().await;
        postgres.kill().await;
        field.counts.one("PostgreSQL killed");
        postgres.start_again().await;
    }
}

/// False when the load ends before.
async fn wait(field: &Field, time: Duration) -> bool {
    let end = Instant::now() + time;
    while Instant::now() < end && field.goes_on() {
        sleep(Duration::from_millis(50)).await;
    }
    field.goes_on()
}
