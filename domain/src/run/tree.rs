//! Runs under runs: members of a team and what the steps of a workflow run.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use super::event::RunEvent;
use super::requirement::Requirement;
use super::state::RunState;
use super::tools::ToolRecord;
use crate::component::ComponentRef;
use crate::ids::{ComponentId, RunId};

/// Whose child a run is. All runs of a tree are worked on under the root's lease, and their frames are numbered together.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Parent {
    /// The run that started it.
    pub run_id: RunId,
    /// The run at the top of the tree.
    pub root: RunId,
    /// What of that run it is for: a tool call's id, or a step's place.
    pub cause: String,
    /// How many runs are above it.
    pub depth: u32,
    /// The lease's epoch when it was accepted.
    pub epoch: u64,
    /// The step it runs in, where a workflow is above it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<StepOf>,
}

/// A step of a workflow's run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StepOf {
    /// The workflow.
    pub workflow_id: ComponentId,
    /// Its run.
    pub workflow_run_id: RunId,
    /// The step's id on the wire.
    pub step_id: String,
    /// Its name.
    pub step_name: String,
    /// Where it stands: a number, or a list of numbers when it is inside another step.
    pub step_index: Value,
}

/// A child run, as its parent names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChildRef {
    /// The run.
    pub run_id: RunId,
    /// What runs.
    pub component: ComponentRef,
}

/// What a child run asks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MemberAsk {
    /// The run that asks.
    pub run_id: RunId,
    /// What runs.
    pub component: ComponentRef,
    /// Its name for people.
    pub name: String,
    /// What it asks.
    pub requirement: Requirement,
    /// About which call.
    pub tool: ToolRecord,
}

/// The run that carries out `cause` of `parent`, its `index`-th: whoever goes on with the parent goes on with this one.
pub fn child_run_id(parent: &RunId, cause: &str, index: usize) -> RunId {
    RunId::from(Uuid::new_v5(&Uuid::NAMESPACE_OID, format!("daybook {parent} child {cause} {index}").as_bytes()))
}

impl RunEvent {
    /// The child runs that it names as begun.
    pub fn children_mut(&mut self) -> &mut [ChildRef] {
        match self {
            Self::ToolCallRequested(requested) => &mut requested.children,
            Self::StepStarted(started) => started.child.as_mut_slice(),
            _ => &mut [],
        }
    }
}

impl RunState {
    /// The run at the top of its tree: itself, unless it is a child run.
    pub fn root(&self) -> Option<&RunId> {
        let accepted = self.accepted.as_ref()?;
        Some(accepted.parent.as_ref().map_or(&accepted.run_id, |parent| &parent.root))
    }

    /// Whose child it is.
    pub fn parent(&self) -> Option<&Parent> {
        self.accepted.as_ref().and_then(|accepted| accepted.parent.as_deref())
    }

    /// The runs that carry out its calls and its steps, in order.
    pub fn children(&self) -> impl Iterator<Item = ChildRef> {
        let of_steps = self.flow.iter().flat_map(|flow| flow.children());
        self.tools.iter().flat_map(|tool| tool.children.iter().cloned()).chain(of_steps)
    }

    /// Those of them that carry out calls and steps without an outcome.
    pub fn open_children(&self) -> impl Iterator<Item = &ChildRef> {
        let running = self.flow.iter().flat_map(|flow| flow.running());
        let of_steps = running.filter_map(|(_, _, work)| work.child.as_ref());
        self.tools.iter().filter(|tool| tool.outcome.is_none()).flat_map(|tool| &tool.children).chain(of_steps)
    }
}
