//! What happens to approvals, as the program is told of it.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use backon::{ExponentialBuilder, Retryable};
use daybook_domain::approval::{ApprovalEvent, ApprovalRequested, ApprovalState, ApprovalStatus, Verdict};
use daybook_projections::Follower;
use futures::FutureExt;
use futures::future::BoxFuture;

use crate::handle::Handle;

/// The longest that one call of a hook may take.
const LIMIT: Duration = Duration::from_secs(60);

/// How often a call is repeated; after 1, 4 and 16 seconds.
const REPEATS: usize = 3;

/// Who is told.
pub(crate) type ApprovalHook =
    Arc<dyn Fn(Handle, ApprovalNotice) -> BoxFuture<'static, Result<(), String>> + Send + Sync>;

/// Something happened to an approval: what [`Builder::on_approval`](crate::Builder::on_approval) is told.
#[derive(Debug, Clone, PartialEq)]
pub struct ApprovalNotice {
    /// What happened.
    pub news: ApprovalNews,
    /// What was asked: for which tool and arguments, of which run, by which rule.
    pub requested: ApprovalRequested,
    /// When it happened, in unix milliseconds.
    pub at_ms: i64,
}

/// What may happen to an approval.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ApprovalNews {
    /// A run asks for it. Not told once it was decided, and so never of decisions that are only recorded (`Audit`).
    Requested,
    /// Nobody has decided for another while. Not told once it was decided.
    Reminded {
        /// Counts the reminders from 1.
        count: u32,
    },
    /// The call may run.
    Approved {
        /// Who decided, as it was said.
        by: Option<String>,
    },
    /// The call may not run.
    Rejected {
        /// Who decided, as it was said.
        by: Option<String>,
    },
    /// Nobody decided in time.
    Expired,
    /// Its run was stopped.
    Cancelled,
}

/// Tells `hooks` from now on.
pub(crate) fn follow(follower: &Follower, handle: Handle, hooks: Vec<ApprovalHook>) {
    let hooks: Arc<[ApprovalHook]> = hooks.into();
    follower.follow(move |event, state| tell(hooks.clone(), handle.clone(), ApprovalNotice::of(&event, state)));
}

/// Tells nothing more; a call that goes on has `grace` to end.
pub(crate) async fn stop(follower: Option<&Follower>, grace: Duration) {
    if let Some(follower) = follower {
        follower.stop(grace).await;
    }
}

impl ApprovalNotice {
    /// What is told of an event, with the approval as it stands by now; nothing when it is of no use any more.
    fn of(event: &ApprovalEvent, state: ApprovalState) -> Option<Self> {
        let waits = state.status == ApprovalStatus::Pending;
        let by = state.resolved_by().map(str::to_owned);
        let requested = state.visible()?.clone();
        let (news, at_ms) = match event {
            ApprovalEvent::Requested(asked) if waits => (ApprovalNews::Requested, asked.at_ms),
            ApprovalEvent::Reminded(reminded) if waits => {
                (ApprovalNews::Reminded { count: reminded.count }, reminded.at_ms)
            }
            ApprovalEvent::Resolved(resolved) => match resolved.verdict {
                Verdict::Approved => (ApprovalNews::Approved { by }, resolved.at_ms),
                Verdict::Rejected => (ApprovalNews::Rejected { by }, resolved.at_ms),
            },
            ApprovalEvent::Expired(expired) => (ApprovalNews::Expired, expired.at_ms),
            ApprovalEvent::Cancelled(cancelled) => (ApprovalNews::Cancelled, cancelled.at_ms),
            ApprovalEvent::Requested(_) | ApprovalEvent::Reminded(_) | ApprovalEvent::Deleted(_) => return None,
        };
        Some(Self { news, requested, at_ms })
    }
}

async fn tell(hooks: Arc<[ApprovalHook]>, handle: Handle, notice: Option<ApprovalNotice>) {
    let Some(notice) = notice else { return };
    let delays =
        ExponentialBuilder::default().with_min_delay(Duration::from_secs(1)).with_factor(4.0).with_max_times(REPEATS);
    for hook in hooks.iter() {
        let (approval, news) = (&notice.requested.approval_id, &notice.news);
        let told = (|| call(hook, handle.clone(), notice.clone())).retry(delays).notify(|error, wait| {
            tracing::warn!(%approval, ?news, error, ?wait, "on_approval failed and is called again");
        });
        if let Err(error) = told.await {
            tracing::error!(%approval, ?news, error, "on_approval failed and is not told of this again");
        }
    }
}

async fn call(hook: &ApprovalHook, handle: Handle, notice: ApprovalNotice) -> Result<(), String> {
    // What the program does must not keep others from being told.
    let done = AssertUnwindSafe(async { hook(handle, notice).await }).catch_unwind();
    match tokio::time::timeout(LIMIT, done).await {
        Ok(Ok(done)) => done,
        Ok(Err(_)) => Err("it panicked".to_owned()),
        Err(_) => Err(format!("it took longer than {} seconds", LIMIT.as_secs())),
    }
}

#[cfg(test)]
mod tests {
    use daybook_domain::approval::{
        ApprovalCancelled, ApprovalDeleted, ApprovalExpired, ApprovalReminded, ApprovalResolved,
    };
    use daybook_domain::component::ComponentRef;
    use daybook_domain::ids::{ApprovalId, ComponentId, RunId, SessionId};
    use daybook_domain::run::{Requirement, RequirementKind};
    use daybook_domain::tool::{ApprovalKind, ApprovalRule};

    use super::*;

    fn requested() -> ApprovalRequested {
        ApprovalRequested {
            approval_id: ApprovalId::parse("a").unwrap(),
            run_id: RunId::parse("r").unwrap(),
            session_id: SessionId::parse("s").unwrap(),
            user_id: None,
            component: ComponentRef::agent(ComponentId::parse("clerk").unwrap()),
            source_name: "Clerk".to_owned(),
            requirement: Requirement::new("c", RequirementKind::Confirmation),
            tool: "pay".to_owned(),
            arguments: serde_json::Map::new().into(),
            call_hash: "h".to_owned(),
            rule: ApprovalRule::new(ApprovalKind::Required),
            expires_at_ms: None,
            at_ms: 1,
        }
    }

    /// What is told of `event` when it and `later` have happened.
    fn told(event: &ApprovalEvent, later: &[ApprovalEvent]) -> Option<(ApprovalNews, i64)> {
        let mut state = ApprovalState::default();
        let asked = ApprovalEvent::Requested(Box::new(requested()));
        [&asked, event].into_iter().chain(later).for_each(|event| state.evolve(event));
        ApprovalNotice::of(event, state).map(|notice| (notice.news, notice.at_ms))
    }

    #[test]
    fn every_event_is_told_while_it_is_of_use() {
        let resolved = |verdict| {
            let resolved_by = Some("boss".to_owned()).into();
            ApprovalEvent::Resolved(ApprovalResolved {
                verdict,
                by: "b".to_owned(),
                resolved_by,
                data: None.into(),
                at_ms: 4,
            })
        };
        let by = || Some("boss".to_owned());
        let asked = ApprovalEvent::Requested(Box::new(requested()));
        let reminded = ApprovalEvent::Reminded(ApprovalReminded { count: 2, at_ms: 3 });
        let expired = ApprovalEvent::Expired(ApprovalExpired { at_ms: 5 });
        let cancelled = ApprovalEvent::Cancelled(ApprovalCancelled { at_ms: 6 });
        let deleted = ApprovalEvent::Deleted(ApprovalDeleted { by: "b".to_owned(), at_ms: 7 });
        assert_eq!(told(&asked, &[]), Some((ApprovalNews::Requested, 1)));
        assert_eq!(told(&reminded, &[]), Some((ApprovalNews::Reminded { count: 2 }, 3)));
        let (approved, rejected) = (resolved(Verdict::Approved), resolved(Verdict::Rejected));
        assert_eq!(told(&approved, &[]), Some((ApprovalNews::Approved { by: by() }, 4)));
        assert_eq!(told(&rejected, &[]), Some((ApprovalNews::Rejected { by: by() }, 4)));
        assert_eq!(told(&expired, &[]), Some((ApprovalNews::Expired, 5)));
        assert_eq!(told(&cancelled, &[]), Some((ApprovalNews::Cancelled, 6)));
        for moot in [&asked, &reminded] {
            assert_eq!(told(moot, std::slice::from_ref(&expired)), None);
        }
        assert_eq!(told(&approved, std::slice::from_ref(&deleted)), None);
        assert_eq!(told(&deleted, &[]), None);
    }
}
