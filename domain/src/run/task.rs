//! The list of tasks that a team works off.

use serde::{Deserialize, Serialize};

use super::state::RunState;
use crate::ids::ComponentId;
use crate::personal::Personal;

/// How far a task is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TaskStatus {
    /// Nobody works on it yet.
    #[default]
    Pending,
    /// Its member works on it.
    InProgress,
    /// Done.
    Completed,
    /// Tried, without success.
    Failed,
    /// Not needed any more.
    Skipped,
}

impl TaskStatus {
    /// The status on the wire and for the leader.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::InProgress => "in_progress",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Skipped => "skipped",
        }
    }

    /// Whether nobody works on it any more.
    pub fn is_settled(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Skipped)
    }
}

/// A task of a team's list.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Task {
    /// Its id in this run: `1`, `2`, ...
    pub id: String,
    /// A few words.
    pub title: Personal<String>,
    /// What is to be done.
    pub description: Personal<String>,
    /// The member who is to do it.
    pub member: ComponentId,
    /// The tasks that must be settled before.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub depends_on: Vec<String>,
    /// How far it is.
    pub status: TaskStatus,
    /// What came of it.
    #[serde(default, skip_serializing_if = "Personal::is_absent")]
    pub result: Personal<Option<String>>,
}

/// A task was added, or came further.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TaskChanged {
    /// The task as it stands now.
    pub task: Task,
    /// The index of the frame that says so, which one about the whole list follows.
    pub frame: u64,
    /// Unix milliseconds.
    pub at_ms: i64,
}

impl RunState {
    /// The task of this id.
    pub fn task(&self, id: &str) -> Option<&Task> {
        self.tasks.iter().find(|task| task.id == id)
    }

    pub(super) fn task_changed(&mut self, task: &Task) {
        match self.tasks.iter_mut().find(|known| known.id == task.id) {
            Some(known) => known.clone_from(task),
            None => self.tasks.push(task.clone()),
        }
    }
}
