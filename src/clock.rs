//! What the clock demands: approvals that remind or expire are looked at when their time has come, on whichever node is
//! first.

use std::time::Duration;

use daybook_domain::LogId;
use daybook_domain::command::{Command, Envelope, Principal};
use daybook_engine::Engine;
use daybook_projections::Views;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How often it is looked for what is due: what is due is done this much late at most, while the database answers.
const TICK: Duration = Duration::from_secs(1);

/// The most approvals taken at once; the rest follow a second later, or go to other nodes.
const AT_ONCE: u32 = 100;

/// The clock of a node.
pub(crate) struct Clock {
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Clock {
    /// Starts looking. Must be called inside a tokio runtime.
    pub fn start(engine: Engine, views: Views) -> Self {
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let stopping = stop.clone();
        tasks.spawn(async move { stopping.run_until_cancelled(Box::pin(watch(engine, views))).await });
        tasks.close();
        Self { tasks, stop }
    }

    /// Stops, and returns when nothing is being done any more.
    pub async fn stop(&self) {
        self.stop.cancel();
        self.tasks.wait().await;
    }
}

async fn watch(engine: Engine, views: Views) {
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let now_ms = chrono::Utc::now().timestamp_millis();
        let due = match views.claim_due_approvals(LogId::DEFAULT, now_ms, AT_ONCE).await {
            Ok(due) => due,
            Err(error) => {
                tracing::warn!(%error, "it was not seen which approvals are due; it is tried again");
                continue;
            }
        };
        for id in due {
            let command = Envelope::new(Principal::system(), "clock", Command::WatchApproval(id.clone()));
            if let Err(error) = engine.execute(command).await {
                tracing::warn!(approval = %id, %error, "an approval that is due was not seen to; it is tried again");
            }
        }
    }
}
