//! Commands of an approval, and why they are refused.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::event::ApprovalRequested;
use super::state::ApprovalStatus;

/// What was decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The call may run.
    Approved,
    /// It may not.
    Rejected,
}

/// What may happen to an approval.
#[derive(Debug, Clone)]
pub enum ApprovalCommand {
    /// A run asks for it.
    Request(Box<ApprovalRequested>),
    /// Somebody decides.
    Resolve {
        /// What.
        verdict: Verdict,
        /// Who, as the server knows the caller.
        by: String,
        /// Who, in the caller's words or by the caller's token.
        resolved_by: Option<String>,
        /// What the decider wants kept with it.
        data: Option<Map<String, Value>>,
        /// Unix milliseconds.
        at_ms: i64,
    },
    /// Nobody has decided for another while.
    Remind {
        /// Unix milliseconds.
        at_ms: i64,
    },
    /// Nobody decided in time.
    Expire {
        /// Unix milliseconds.
        at_ms: i64,
    },
    /// Its run was stopped.
    Cancel {
        /// Unix milliseconds.
        at_ms: i64,
    },
    /// It is hidden from lists; what happened stays.
    Delete {
        /// Who.
        by: String,
        /// Unix milliseconds.
        at_ms: i64,
    },
}

/// Why an approval refuses.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ApprovalError {
    /// There is no such approval, or it was deleted.
    #[error("Approval not found")]
    Unknown,
    /// It was requested before.
    #[error("an approval with this id exists already")]
    Exists,
    /// It is no longer pending; the first decision wins.
    #[error("Approval is already '{}' and cannot be resolved{}", status.as_str(), by.as_ref().map(|by| format!(" (by {by})")).unwrap_or_default())]
    Settled {
        /// What became of it.
        status: ApprovalStatus,
        /// Who decided, where somebody did and said so.
        by: Option<String>,
    },
    /// It is still to be decided; without it its run would wait for ever.
    #[error("Approval is pending: resolve it, or cancel its run, before deleting it")]
    Pending,
    /// The tool's rule wants somebody else than the user whose run it is.
    #[error("{0:?} asked for this approval, and its rule wants somebody else to decide")]
    OwnRequest(String),
    /// The tool's rule wants somebody else than the requester, and the run does not say who that is.
    #[error(
        "the rule of this approval wants somebody else than the requester to decide, and the run was started without a \
         user_id: reject the call, or cancel the run and start it with one"
    )]
    NoRequester,
    /// The tool's rule wants to know who decides.
    #[error(
        "the rule of this approval wants somebody else than the requester to decide: say who you are (resolved_by)"
    )]
    Nameless,
}
