//! Events of an approval.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::command::Verdict;
use crate::component::ComponentRef;
use crate::event::{DomainEvent, events};
use crate::ids::{ApprovalId, RunId, SessionId, UserId};
use crate::personal::Personal;
use crate::run::Requirement;
use crate::tool::ApprovalRule;

/// A run asked for it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ApprovalRequested {
    /// Its id.
    pub approval_id: ApprovalId,
    /// The run that waits.
    pub run_id: RunId,
    /// The run's session.
    pub session_id: SessionId,
    /// Whose run it is: the requester.
    #[serde(default)]
    pub user_id: Option<UserId>,
    /// What runs.
    pub component: ComponentRef,
    /// The component's name for people.
    pub source_name: String,
    /// What the run waits for.
    pub requirement: Requirement,
    /// The tool.
    pub tool: String,
    /// The arguments it would be called with.
    pub arguments: Personal<Map<String, Value>>,
    /// SHA-256 over the tool's name and those arguments, hex: the approval is for this call and no other.
    pub call_hash: String,
    /// The rule it follows.
    pub rule: ApprovalRule,
    /// Unix milliseconds at which it expires.
    #[serde(default)]
    pub expires_at_ms: Option<i64>,
    /// Unix milliseconds.
    pub at_ms: i64,
}

/// Somebody decided.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ApprovalResolved {
    /// What.
    pub verdict: Verdict,
    /// Who, as the server knows the caller.
    pub by: String,
    /// Who, in the caller's words or by the caller's token.
    #[serde(default)]
    pub resolved_by: Personal<Option<String>>,
    /// What is kept with it.
    #[serde(default)]
    pub data: Personal<Option<Map<String, Value>>>,
    /// Unix milliseconds.
    pub at_ms: i64,
}

/// Nobody has decided for another while.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ApprovalReminded {
    /// Counts the reminders from 1.
    pub count: u32,
    /// Unix milliseconds.
    pub at_ms: i64,
}

/// Nobody decided in time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ApprovalExpired {
    /// Unix milliseconds.
    pub at_ms: i64,
}

/// Its run was stopped.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ApprovalCancelled {
    /// Unix milliseconds.
    pub at_ms: i64,
}

/// It was hidden from lists.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ApprovalDeleted {
    /// Who did.
    pub by: String,
    /// Unix milliseconds.
    pub at_ms: i64,
}

events! {
    /// What happens to an approval.
    ApprovalEvent, "Approval" {
        /// A run asked for it.
        Requested(Box<ApprovalRequested>) = 1,
        /// Somebody decided.
        Resolved(ApprovalResolved) = 1,
        /// Nobody has decided for another while.
        Reminded(ApprovalReminded) = 1,
        /// Nobody decided in time.
        Expired(ApprovalExpired) = 1,
        /// Its run was stopped.
        Cancelled(ApprovalCancelled) = 1,
        /// It was hidden from lists.
        Deleted(ApprovalDeleted) = 1,
    }
}

impl ApprovalEvent {
    pub(crate) fn wrap(self) -> DomainEvent {
        DomainEvent::Approval(self)
    }
}
