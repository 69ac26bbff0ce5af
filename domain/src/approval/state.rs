//! The fold of an approval's stream.

use aws_lc_rs::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use unicode_normalization::UnicodeNormalization;

use super::command::{ApprovalCommand, ApprovalError, Verdict};
use super::event::{
    ApprovalCancelled, ApprovalDeleted, ApprovalEvent, ApprovalExpired, ApprovalReminded, ApprovalRequested,
    ApprovalResolved,
};
use crate::tool::OnExpiry;

/// The states of an approval, with their names on the wire.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ApprovalStatus {
    /// Nobody has decided.
    #[default]
    Pending,
    /// The call may run.
    Approved,
    /// It may not.
    Rejected,
    /// Nobody decided in time.
    Expired,
    /// Its run was stopped.
    Cancelled,
}

impl ApprovalStatus {
    /// The status on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Approved => "approved",
            Self::Rejected => "rejected",
            Self::Expired => "expired",
            Self::Cancelled => "cancelled",
        }
    }
}

/// The fold of an approval's stream.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ApprovalState {
    /// What was asked, once it was.
    pub requested: Option<ApprovalRequested>,
    /// What became of it.
    pub status: ApprovalStatus,
    /// The decision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolved: Option<ApprovalResolved>,
    /// How often was reminded.
    #[serde(default)]
    pub reminders: u32,
    /// Whether it is hidden from lists.
    #[serde(default)]
    pub deleted: bool,
    /// Unix milliseconds of the last event.
    pub updated_ms: i64,
}

impl ApprovalState {
    /// What was asked, unless it never was or was deleted.
    pub fn visible(&self) -> Option<&ApprovalRequested> {
        self.requested.as_ref().filter(|_| !self.deleted)
    }

    /// Who decided, as it was said.
    pub fn resolved_by(&self) -> Option<&str> {
        self.resolved.as_ref()?.resolved_by.get()?.as_deref()
    }

    /// Unix milliseconds of the next thing to do for it: the next reminder, or its expiry.
    pub fn due_ms(&self) -> Option<i64> {
        let requested = self.requested.as_ref().filter(|_| self.status == ApprovalStatus::Pending && !self.deleted)?;
        let seconds = |seconds: u64| i64::try_from(seconds).unwrap_or(i64::MAX / 2).saturating_mul(1000);
        let every = requested.rule.remind_every_seconds.map(seconds);
        let reminder =
            every.map(|every| requested.at_ms.saturating_add(every.saturating_mul(i64::from(self.reminders) + 1)));
        let expiry = requested.expires_at_ms.filter(|_| requested.rule.on_expiry != OnExpiry::Wait);
        reminder.into_iter().chain(expiry).min()
    }

    /// What happens on `command`; nothing when it changes nothing.
    ///
    /// # Errors
    /// [`ApprovalError`] when the approval does not allow it.
    pub fn decide(&self, command: ApprovalCommand) -> Result<Vec<ApprovalEvent>, ApprovalError> {
        if let ApprovalCommand::Request(requested) = command {
            let fresh = self.requested.is_none();
            return if fresh { Ok(vec![ApprovalEvent::Requested(requested)]) } else { Err(ApprovalError::Exists) };
        }
        let requested = self.visible().ok_or(ApprovalError::Unknown)?;
        let pending = self.status == ApprovalStatus::Pending;
        Ok(match command {
            ApprovalCommand::Request(_) => vec![],
            ApprovalCommand::Resolve { verdict, by, resolved_by, data, at_ms } => {
                if !pending {
                    let by = self.resolved_by().map(str::to_owned);
                    return Err(ApprovalError::Settled { status: self.status, by });
                }
                may_decide(requested, verdict, &by, resolved_by.as_deref())?;
                let (resolved_by, data) = (resolved_by.into(), data.into());
                vec![ApprovalEvent::Resolved(ApprovalResolved { verdict, by, resolved_by, data, at_ms })]
            }
            // The clock's commands come late, or twice: they change nothing then.
            ApprovalCommand::Remind { at_ms } if pending => {
                vec![ApprovalEvent::Reminded(ApprovalReminded { count: self.reminders + 1, at_ms })]
            }
            ApprovalCommand::Expire { at_ms } if pending => vec![ApprovalEvent::Expired(ApprovalExpired { at_ms })],
            ApprovalCommand::Cancel { at_ms } if pending => vec![ApprovalEvent::Cancelled(ApprovalCancelled { at_ms })],
            ApprovalCommand::Remind { .. } | ApprovalCommand::Expire { .. } | ApprovalCommand::Cancel { .. } => vec![],
            ApprovalCommand::Delete { .. } if pending => return Err(ApprovalError::Pending),
            ApprovalCommand::Delete { by, at_ms } => vec![ApprovalEvent::Deleted(ApprovalDeleted { by, at_ms })],
        })
    }

    /// Takes `event` into the state.
    pub fn evolve(&mut self, event: &ApprovalEvent) {
        self.updated_ms = match event {
            ApprovalEvent::Requested(e) => {
                self.requested = Some((**e).clone());
                e.at_ms
            }
            ApprovalEvent::Resolved(e) => {
                self.status = match e.verdict {
                    Verdict::Approved => ApprovalStatus::Approved,
                    Verdict::Rejected => ApprovalStatus::Rejected,
                };
                self.resolved = Some(e.clone());
                e.at_ms
            }
            ApprovalEvent::Reminded(e) => {
                self.reminders = e.count;
                e.at_ms
            }
            ApprovalEvent::Expired(e) => {
                self.status = ApprovalStatus::Expired;
                e.at_ms
            }
            ApprovalEvent::Cancelled(e) => {
                self.status = ApprovalStatus::Cancelled;
                e.at_ms
            }
            ApprovalEvent::Deleted(e) => {
                self.deleted = true;
                e.at_ms
            }
        };
    }
}

/// Four eyes: neither the caller nor whom the caller names may be the requester, however the name is spelled. Where nobody
/// knows who the requester is, nobody can be told from them: then the call may be rejected, and not approved.
fn may_decide(
    requested: &ApprovalRequested,
    verdict: Verdict,
    by: &str,
    resolved_by: Option<&str>,
) -> Result<(), ApprovalError> {
    if !requested.rule.not_by_requester {
        return Ok(());
    }
    let resolved_by = resolved_by.map(spelled_alike).filter(|name| !name.is_empty()).ok_or(ApprovalError::Nameless)?;
    let Some(user) = &requested.user_id else {
        return if verdict == Verdict::Rejected { Ok(()) } else { Err(ApprovalError::NoRequester) };
    };
    let own = spelled_alike(user.as_str());
    let is_own = resolved_by == own || by.strip_prefix("user:").is_some_and(|by| spelled_alike(by) == own);
    if is_own { Err(ApprovalError::OwnRequest(user.to_string())) } else { Ok(()) }
}

/// A name without what people do not see as a difference: case, width, composition of letters, and spaces around it.
fn spelled_alike(name: &str) -> String {
    let folded: String = name.nfkc().flat_map(char::to_lowercase).nfkc().collect();
    folded.trim().to_owned()
}

/// SHA-256 over a tool's name and its arguments (keys sorted, no spaces), hex.
pub fn call_hash(tool: &str, arguments: &Map<String, Value>) -> String {
    let mut call = json!([tool, arguments]);
    call.sort_all_objects();
    hex::encode(digest(&SHA256, call.to_string().as_bytes()))
}
