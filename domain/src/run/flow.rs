//! The steps of a workflow's run, as part of the run.

use super::command::RunError;
use super::event::RunEvent;
use super::state::{RunState, RunStatus};
use crate::component::ComponentKind;
use crate::workflow::{Ask, FlowState, StepRecord, StepRequirement};

impl RunState {
    /// Whether it is a workflow's run.
    pub fn is_flow(&self) -> bool {
        self.component().is_some_and(|component| component.kind == ComponentKind::Workflow)
    }

    /// What was asked about the steps of a workflow and nobody has answered.
    pub fn open_steps(&self) -> impl Iterator<Item = (&StepRequirement, &StepRecord)> {
        self.flow.iter().flat_map(|flow| flow.open())
    }

    pub(super) fn flow_mut(&mut self) -> &mut FlowState {
        self.flow.get_or_insert_default()
    }

    /// Whether an event of a step fits where the steps stand.
    pub(super) fn check_step(&self, event: &RunEvent) -> Result<(), RunError> {
        let nothing = FlowState::default();
        let flow = self.flow.as_deref().unwrap_or(&nothing);
        let (fits, place) = match event {
            RunEvent::StepStarted(e) => (flow.may_start(e), &e.place),
            RunEvent::StepEnded(e) => (flow.may_end(e), &e.place),
            RunEvent::BlockDecided(e) => (flow.may_decide(e), &e.place),
            RunEvent::BlockEnded(e) => (flow.may_end_block(e), &e.place),
            RunEvent::StepAnswered(e) => (self.status == RunStatus::Paused && flow.is_asked(&e.place), &e.place),
            _ => return Ok(()),
        };
        if fits { Ok(()) } else { Err(RunError::NoSuchStep(place.to_string())) }
    }
}

impl RunEvent {
    /// How many frames it is shown as; `flow` says whether it is of a workflow's run, whose end and pauses look different.
    pub fn frame_count(&self, flow: bool) -> u64 {
        match self {
            Self::AnswerMissed(_)
            | Self::ModelCallFailed(_)
            | Self::ToolOutcomeUnknown(_)
            | Self::RequirementResolved(_)
            | Self::StepAnswered(_)
            | Self::Replaced(_)
            | Self::CancelRequested(_) => 0,
            Self::StepEnded(e) => u64::from(e.frames),
            Self::BlockDecided(e) => e.decision.frames(),
            // That a step failed was shown when it did.
            Self::Paused(e) if flow => {
                1 + e.steps.iter().filter(|asked| !matches!(asked.ask, Ask::Failure)).count() as u64
            }
            Self::Continued(e) if flow => e.steps.len() as u64,
            Self::Succeeded(_) if flow => 1,
            Self::ToolCallFailed(_)
            | Self::TaskChanged(_)
            | Self::Paused(_)
            | Self::Succeeded(_)
            | Self::Cancelled(_) => 2,
            _ => 1,
        }
    }
}
