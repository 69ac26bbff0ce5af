//! The fold of a session's stream: who owns it, which run holds it, who waits, and its state.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::command::{Admission, AdmitRun, BeginSession, SessionError};
use super::event::{
    SessionCompacted, SessionCreated, SessionEvent, SessionRunAdmitted, SessionRunEnded, SessionStateChanged,
    StatePatch,
};
use crate::component::ComponentRef;
use crate::ids::{RunId, SessionId, UserId};
use crate::run::{OnBusy, RunStatus};
use crate::usage::Usage;

/// The most runs that may wait for one session.
pub const MAX_QUEUE: usize = 256;

/// How many ended runs the fold remembers, newest last: no agent's history may look back further.
pub(super) const REMEMBERED_RUNS: usize = 100;

/// What a session's runs and their summaries cost together.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct SessionTotals {
    /// Tokens of all runs and summaries.
    pub usage: Usage,
    /// Those of the runs by (model id, provider), in order of first use.
    pub by_model: Vec<((String, String), Usage)>,
    /// Of the tokens, those of summaries, likewise.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub summaries: Vec<((String, String), Usage)>,
}

/// The summary in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summarised {
    /// The version of its event in the session's stream.
    pub version: u64,
    /// How many of the [`SessionState::recent`] runs, oldest first, it stands for.
    pub runs: usize,
}

/// The fold of a session's stream.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct SessionState {
    /// Its id, once created.
    pub session_id: Option<SessionId>,
    /// Whom it belongs to.
    pub user_id: Option<UserId>,
    /// The component it is a conversation with.
    pub component: Option<ComponentRef>,
    /// Its name, unless it has none or it was erased.
    pub name: Option<String>,
    /// What its creator keeps with it.
    pub metadata: Option<Map<String, Value>>,
    /// Its state.
    pub state: Map<String, Value>,
    /// The run that holds it.
    pub active: Option<RunId>,
    /// Runs that wait, next first.
    pub queue: VecDeque<RunId>,
    /// Runs beside the active one.
    pub parallel: Vec<RunId>,
    /// Successfully ended runs, newest last; the last [`REMEMBERED_RUNS`] only.
    pub recent: VecDeque<RunId>,
    /// The summary that stands for earlier runs, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub summarised: Option<Summarised>,
    /// How many runs it ever let in.
    pub run_count: u64,
    /// What they and their summaries cost.
    pub totals: SessionTotals,
    /// Unix seconds.
    pub created_at: i64,
    /// Unix seconds.
    pub updated_at: i64,
}

impl SessionState {
    /// Whether the session exists.
    pub fn exists(&self) -> bool {
        self.session_id.is_some()
    }

    /// Whether `run` may go now: it holds the session or runs beside it.
    pub fn may_run(&self, run: &RunId) -> bool {
        self.active.as_ref() == Some(run) || self.parallel.contains(run)
    }

    /// Begins the session. Of what is recorded, the first event is its creation; the second, where it begins with a state,
    /// is that.
    ///
    /// # Errors
    /// [`SessionError`] when it is there already, as the caller's or as another user's.
    pub fn begin(&self, command: BeginSession) -> Result<Vec<SessionEvent>, SessionError> {
        if self.exists() {
            let own = self.is_for(command.user_id.as_ref());
            return Err(if own { SessionError::Exists(command.session_id) } else { SessionError::Foreign });
        }
        let mut events = vec![SessionEvent::Created(SessionCreated {
            session_id: command.session_id,
            user_id: command.user_id,
            component: command.component,
            name: command.name.into(),
            metadata: command.metadata.into(),
            at: command.at,
        })];
        let patch = StatePatch { set: command.state, unset: Vec::new() };
        if !patch.is_empty() {
            let (patch, at) = (patch.into(), command.at);
            events.push(SessionEvent::StateChanged(SessionStateChanged { run_id: None, patch, at }));
        }
        Ok(events)
    }

    /// Whether `user` may use it: it is theirs, or nobody's in particular.
    fn is_for(&self, user: Option<&UserId>) -> bool {
        self.user_id.is_none() || self.user_id.as_ref() == user
    }

    /// Lets a run in, creating the session when it is not there.
    ///
    /// # Errors
    /// [`SessionError`] when the session is another user's, busy (and the caller would not wait) or its queue is full.
    pub fn admit(&self, command: AdmitRun) -> Result<(Admission, Vec<SessionEvent>), SessionError> {
        let mut events = Vec::new();
        if !self.exists() {
            events.push(SessionEvent::Created(SessionCreated {
                session_id: command.session_id,
                user_id: command.user_id,
                component: Some(command.component),
                name: command.name.into(),
                metadata: None.into(),
                at: command.at,
            }));
        } else if !self.is_for(command.user_id.as_ref()) {
            return Err(SessionError::Foreign);
        }
        let admission = match (&self.active, command.on_busy) {
            (_, OnBusy::Parallel) => Admission::Parallel,
            (None, _) => Admission::Active,
            (Some(run), OnBusy::Reject) => return Err(SessionError::Busy(run.clone())),
            (Some(_), _) if self.queue.len() >= MAX_QUEUE => return Err(SessionError::QueueFull(self.queue.len())),
            (Some(_), OnBusy::Enqueue) => Admission::Queued,
            (Some(_), OnBusy::Interrupt) => Admission::Interrupting,
        };
        events.push(SessionEvent::RunAdmitted(SessionRunAdmitted {
            run_id: command.run_id.clone(),
            admission,
            again: false,
            at: command.at,
        }));
        let mut set = command.default_state;
        set.retain(|key, _| !self.state.contains_key(key));
        set.extend(command.state.into_iter().flatten());
        set.retain(|key, value| self.state.get(key) != Some(value));
        let patch = StatePatch { set, unset: Vec::new() };
        if !patch.is_empty() {
            events.push(SessionEvent::StateChanged(SessionStateChanged {
                run_id: Some(command.run_id),
                patch: patch.into(),
                at: command.at,
            }));
        }
        Ok((admission, events))
    }

    /// Lets a run that had paused in again: it waits when another holds the session by now.
    pub fn readmit(&self, run_id: RunId, at: i64) -> (Admission, SessionEvent) {
        let admission = if self.active.is_some() { Admission::Queued } else { Admission::Active };
        (admission, SessionEvent::RunAdmitted(SessionRunAdmitted { run_id, admission, again: true, at }))
    }

    /// Takes `event` into the state.
    pub fn evolve(&mut self, event: &SessionEvent) {
        match event {
            SessionEvent::Created(created) => self.created(created),
            SessionEvent::RunAdmitted(admitted) => self.admitted(admitted),
            SessionEvent::RunEnded(ended) => self.ended(ended),
            SessionEvent::RunReplaced(replaced) => {
                if let Some(at) = self.recent.iter().position(|run| *run == replaced.run_id) {
                    self.forget(at);
                }
                self.updated_at = replaced.at;
            }
            SessionEvent::StateChanged(changed) => {
                if let Some(patch) = changed.patch.get() {
                    patch.apply(&mut self.state);
                }
                self.updated_at = changed.at;
            }
            SessionEvent::Compacted(compacted) => self.compacted(compacted),
        }
    }

    fn created(&mut self, created: &SessionCreated) {
        self.session_id = Some(created.session_id.clone());
        self.user_id.clone_from(&created.user_id);
        self.component.clone_from(&created.component);
        self.name = created.name.get().cloned().flatten();
        self.metadata = created.metadata.get().cloned().flatten();
        self.created_at = created.at;
        self.updated_at = created.at;
    }

    fn admitted(&mut self, admitted: &SessionRunAdmitted) {
        let run = admitted.run_id.clone();
        match admitted.admission {
            Admission::Active => self.active = Some(run),
            Admission::Queued => self.queue.push_back(run),
            Admission::Interrupting => self.queue.push_front(run),
            Admission::Parallel => self.parallel.push(run),
        }
        self.run_count += u64::from(!admitted.again);
        self.updated_at = admitted.at;
    }

    fn ended(&mut self, ended: &SessionRunEnded) {
        let run = &ended.run_id;
        self.parallel.retain(|id| id != run);
        self.queue.retain(|id| id != run);
        if self.active.as_ref() == Some(run) {
            self.active = self.queue.pop_front();
        }
        if ended.status == RunStatus::Completed {
            self.recent.push_back(run.clone());
            if self.recent.len() > REMEMBERED_RUNS {
                self.forget(0);
            }
        }
        self.totals.usage += ended.usage;
        if let Some(model) = &ended.model {
            count(&mut self.totals.by_model, model, ended.usage);
        }
        self.totals.usage += ended.others.total();
        for (model, used) in &ended.others.0 {
            count(&mut self.totals.by_model, model, *used);
        }
        self.updated_at = ended.at;
    }

    fn compacted(&mut self, compacted: &SessionCompacted) {
        let before = self.summarised.map_or(0, |summarised| summarised.runs);
        // Runs that it takes in may be forgotten already, in the copy of a session.
        let last = self.recent.iter().rposition(|run| compacted.runs.contains(run));
        let runs = last.map_or(before, |at| before.max(at + 1));
        self.summarised = Some(Summarised { version: compacted.version, runs });
        self.totals.usage += compacted.usage;
        count(&mut self.totals.summaries, &compacted.model, compacted.usage);
        self.updated_at = compacted.at;
    }

    fn forget(&mut self, at: usize) {
        self.recent.remove(at);
        if let Some(summarised) = self.summarised.as_mut().filter(|summarised| at < summarised.runs) {
            summarised.runs -= 1;
        }
    }
}

fn count(totals: &mut Vec<((String, String), Usage)>, model: &(String, String), used: Usage) {
    match totals.iter_mut().find(|(known, _)| known == model) {
        Some((_, usage)) => *usage += used,
        None => totals.push((model.clone(), used)),
    }
}
