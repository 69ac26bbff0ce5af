//! What the clock demands: approvals that remind or expire are looked at when their time has come, on whichever node is
//! first.

use std::collections::HashSet;
use std::time::Duration;

use daybook_domain::LogId;
use daybook_domain::command::{Command, Envelope, Principal};
use daybook_domain::ids::ApprovalId;
use daybook_engine::{Engine, ExecuteError};
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
    let mut kept = HashSet::new();
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
            if let Err(error) = engine.execute(command).await
                && is_news(&mut kept, &id, &error)
            {
                tracing::warn!(approval = %id, %error, "an approval that is due was not seen to; it is tried again");
            }
        }
    }
}

/// Whether it need be said that an approval was not seen to. One whose run nobody can go on with waits for a person who
/// puts back what that needs, and is told of once.
fn is_news(kept: &mut HashSet<ApprovalId>, id: &ApprovalId, error: &ExecuteError) -> bool {
    !matches!(error, ExecuteError::NobodyCan(_)) || kept.insert(id.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_approval_that_must_wait_for_a_tool_is_told_of_once() {
        let (mut kept, lacks) = (HashSet::new(), || ExecuteError::NobodyCan("the tool \"deploy\"".to_owned()));
        let [one, other] = ["one", "other"].map(|id| ApprovalId::parse(id).unwrap());
        let mut told = |id, error| is_news(&mut kept, id, &error);
        assert!(told(&one, lacks()) && told(&other, lacks()));
        assert!(!told(&one, lacks()) && !told(&other, lacks()));
        assert!(told(&one, ExecuteError::Contended) && told(&one, ExecuteError::Contended));
    }
}
