//! Commands of a session, and why they are refused.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::component::ComponentRef;
use crate::ids::{RunId, SessionId, UserId};
use crate::run::OnBusy;

/// Let a run into the session, which is created when it is not there.
#[derive(Debug, Clone)]
pub struct AdmitRun {
    /// The session.
    pub session_id: SessionId,
    /// The run.
    pub run_id: RunId,
    /// Who the run is for.
    pub user_id: Option<UserId>,
    /// The component that runs.
    pub component: ComponentRef,
    /// What to do when the session is busy.
    pub on_busy: OnBusy,
    /// A new session's name; views show the first message of one without.
    pub name: Option<String>,
    /// What the component starts a session's state with.
    pub default_state: Map<String, Value>,
    /// What the caller wants merged into the state.
    pub state: Option<Map<String, Value>>,
    /// Unix seconds.
    pub at: i64,
}

/// Begin a session before anything runs in it.
#[derive(Debug, Clone)]
pub struct BeginSession {
    /// The session.
    pub session_id: SessionId,
    /// Whom it belongs to; nobody in particular when absent.
    pub user_id: Option<UserId>,
    /// The component it is a conversation with.
    pub component: Option<ComponentRef>,
    /// Its name; views show the first message of one without.
    pub name: Option<String>,
    /// What its creator keeps with it.
    pub metadata: Option<Map<String, Value>>,
    /// What its state begins with.
    pub state: Map<String, Value>,
    /// Unix seconds.
    pub at: i64,
}

/// How a run was let into its session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Admission {
    /// It holds the session.
    Active,
    /// It waits its turn.
    Queued,
    /// It goes next, and the run that holds the session is to be cancelled.
    Interrupting,
    /// It runs beside whatever runs.
    Parallel,
}

/// Why a session refuses.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SessionError {
    /// The session belongs to somebody else; to a stranger it does not exist.
    #[error("Session not found")]
    Foreign,
    /// It was begun before. The words are those that clients know.
    #[error("Session with id '{0}' already exists. Use PATCH /sessions/{0} to update it.")]
    Exists(SessionId),
    /// `on_busy=reject` and a run holds the session.
    #[error("The session is busy with run {0}: wait for it, or ask with on_busy=enqueue")]
    Busy(RunId),
    /// The queue is full.
    #[error("The session's queue is full ({0} runs wait): try again later")]
    QueueFull(usize),
}
