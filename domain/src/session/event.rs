//! Events of a session.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::component::ComponentRef;
use crate::event::{DomainEvent, events};
use crate::ids::{RunId, SessionId, UserId};
use crate::personal::Personal;
use crate::run::RunStatus;
use crate::usage::{Spent, Usage};

/// The session began.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SessionCreated {
    /// Its id.
    pub session_id: SessionId,
    /// Whom it belongs to; nobody for an anonymous caller's.
    #[serde(default)]
    pub user_id: Option<UserId>,
    /// The component it is a conversation with.
    #[serde(default)]
    pub component: Option<ComponentRef>,
    /// Its name for people.
    #[serde(default)]
    pub name: Personal<Option<String>>,
    /// What the creator keeps with it.
    #[serde(default)]
    pub metadata: Personal<Option<Map<String, Value>>>,
    /// Unix seconds.
    pub at: i64,
}

/// A run was let in: at once, beside others, or to wait its turn.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SessionRunAdmitted {
    /// The run.
    pub run_id: RunId,
    /// How it was let in.
    pub admission: super::Admission,
    /// Whether it was let in before, and had paused.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub again: bool,
    /// Unix seconds.
    pub at: i64,
}

/// A run ended and no longer holds the session; the next in the queue, if any, holds it from here on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SessionRunEnded {
    /// The run.
    pub run_id: RunId,
    /// How it ended; PAUSED for a run that waits for a person and lets others by.
    pub status: RunStatus,
    /// What its model calls cost.
    #[serde(default)]
    pub usage: Usage,
    /// The model that answered, for the totals.
    #[serde(default)]
    pub model: Option<(String, String)>,
    /// What its child runs cost.
    #[serde(default, skip_serializing_if = "Spent::is_empty")]
    pub others: Spent,
    /// Unix seconds.
    pub at: i64,
}

/// Another run took an ended one's place in the conversation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SessionRunReplaced {
    /// The ended run.
    pub run_id: RunId,
    /// The other.
    pub by: RunId,
    /// Unix seconds.
    pub at: i64,
}

/// Keys set and removed. Patches of other keys commute, so runs beside each other lose nothing.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct StatePatch {
    /// Keys and their new values.
    #[serde(default)]
    pub set: Map<String, Value>,
    /// Keys removed.
    #[serde(default)]
    pub unset: Vec<String>,
}

impl StatePatch {
    /// Whether it changes nothing.
    pub fn is_empty(&self) -> bool {
        self.set.is_empty() && self.unset.is_empty()
    }

    /// Applies it to `state`.
    pub fn apply(&self, state: &mut Map<String, Value>) {
        for key in &self.unset {
            state.remove(key);
        }
        for (key, value) in &self.set {
            state.insert(key.clone(), value.clone());
        }
    }
}

/// The session's state changed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SessionStateChanged {
    /// By which run; by a caller when absent.
    #[serde(default)]
    pub run_id: Option<RunId>,
    /// How.
    pub patch: Personal<StatePatch>,
    /// Unix seconds.
    pub at: i64,
}

/// Ended runs were summarised: prompts of later runs carry the summary in their place. The runs stay as they are.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SessionCompacted {
    /// This event's own version in the session's stream, by which runs refer to it.
    pub version: u64,
    /// The component whose model wrote the summary.
    pub component: ComponentRef,
    /// The hash of its configuration.
    pub config_hash: String,
    /// The version of the earlier summary that this one takes in and follows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<u64>,
    /// The runs that this one takes in, oldest first, without those of the earlier summary.
    pub runs: Vec<RunId>,
    /// How many messages these have.
    pub messages: u64,
    /// What stands in their place.
    pub summary: Personal<String>,
    /// SHA-256 of the canonical request that the summary answers, hex: proves what was summarised.
    pub source_hash: String,
    /// The id of the first message that later prompts have word for word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_kept: Option<String>,
    /// Id and provider of the model.
    pub model: (String, String),
    /// What its call cost.
    #[serde(default)]
    pub usage: Usage,
    /// Seconds it took.
    pub duration: f64,
    /// Estimated tokens of what a prompt had of earlier runs before.
    pub tokens_before: u64,
    /// Estimated tokens of what it has of them now.
    pub tokens_after: u64,
    /// Unix seconds.
    pub at: i64,
}

events! {
    /// What happens to a session.
    SessionEvent, "Session" {
        /// It began.
        Created(SessionCreated) = 1,
        /// A run was let in.
        RunAdmitted(SessionRunAdmitted) = 1,
        /// A run no longer holds it.
        RunEnded(SessionRunEnded) = 1,
        /// A run is no longer part of the conversation.
        RunReplaced(SessionRunReplaced) = 1,
        /// Its state changed.
        StateChanged(SessionStateChanged) = 1,
        /// Ended runs were summarised.
        Compacted(SessionCompacted) = 1,
    }
}

impl SessionEvent {
    pub(crate) fn wrap(self) -> DomainEvent {
        DomainEvent::Session(self)
    }
}
