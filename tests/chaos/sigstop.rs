//! A node that stands still holds nobody up: whatever it was doing, the other node goes on appending.

use std::time::Duration;

use daybook_test_support::eventually;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::time::{sleep, timeout};

use crate::counts::seed;
use crate::ledger::first;
use crate::load::Field;
use crate::progress::say;
use crate::proxy::Side;

/// The longest an append may take; measured where the machine is not shared with other tests.
const LONGEST: Duration = Duration::from_secs(1);

/// How long it stands still at least, and how many appends of the other node are waited for.
const STILL: Duration = Duration::from_millis(1200);
const APPENDS: usize = 3;

#[tokio::test]
#[ignore = "random: make chaos"]
async fn a_node_that_stands_still_holds_nobody_up() {
    freeze(4).await;
}

#[tokio::test]
#[ignore = "long: make chaos"]
async fn whole_a_node_that_stands_still_holds_nobody_up() {
    let longest = freeze(100).await;
    assert!(longest <= LONGEST, "an append took {longest:?} while the other node stood still");
}

/// Stops one node so often, at random moments and in the middle of its transactions; gives the longest time an append of
/// the other one took meanwhile.
async fn freeze(times: usize) -> Duration {
    let seed = seed();
    say(&format!("{times} stops of a node under load; SEED={seed} repeats the schedule"));
    let mut rng = StdRng::seed_from_u64(seed);
    let field = Field::new(seed, Duration::from_secs(3600)).await;
    let stops = async {
        let mut longest = Duration::ZERO;
        for n in 0..times {
            sleep(Duration::from_millis(rng.random_range(0..800))).await;
            longest = longest.max(once(&field, n % 2 == 1, rng.random_range(0..12)).await);
            assert!(field.wrong().is_empty(), "SEED={seed}: {}", first(&field.wrong()));
            if n % 10 == 9 {
                say(&format!("{} stops, the longest append meanwhile took {longest:?}; {}", n + 1, field.counts));
            }
        }
        longest
    };
    // Dropping the load ends it.
    let load = async {
        tokio::join!(field.work(0, Some(0)), field.work(1, Some(0)), field.work(2, Some(1)), field.work(3, Some(1)));
    };
    let longest = tokio::select! {
        longest = stops => longest,
        () = load => panic!("SEED={seed}: {}", first(&field.wrong())),
    };
    say(&format!("{times} stops, the longest append of the other node meanwhile took {longest:?}"));
    longest
}

async fn once(field: &Field, in_transaction: bool, passing: usize) -> Duration {
    let (still, other) = (&field.nodes[0], &field.nodes[1]);
    let caught = if in_transaction {
        // Views are posted in transactions. When there is none for a while, any moment is as good.
        timeout(Duration::from_secs(5), still.proxy.catch(Side::InTransaction, passing)).await.ok().and_then(Result::ok)
    } else {
        None
    };
    still.proxy.pass();
    field.counts.one(if caught.is_some() { "stops in a transaction" } else { "stops at any moment" });
    still.freeze().await;
    other.proxy.take_longest();
    sleep(STILL).await;
    eventually("the other node appends", async || (other.proxy.count() >= APPENDS).then_some(())).await;
    let (_, longest) = other.proxy.take_longest();
    still.thaw().await;
    if let Some(caught) = caught {
        caught.let_go();
    }
    longest
}
