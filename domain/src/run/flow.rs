//! The steps of a workflow's run, as part of the run.

use super::command::RunError;
use super::event::{ErrorKind, RunEvent};
use super::state::{RunState, RunStatus};
use crate::component::ComponentKind;
use crate::message::Role;
use crate::workflow::{AfterError, Ask, FlowState, StepRecord, StepRequirement, as_text, step_failed};

impl RunState {
    /// Whether it is a workflow's run.
    pub fn is_flow(&self) -> bool {
        self.component().is_some_and(|component| component.kind == ComponentKind::Workflow)
    }

    /// What was asked about the steps of a workflow and nobody has answered.
    pub fn open_steps(&self) -> impl Iterator<Item = (&StepRequirement, &StepRecord)> {
        self.flow.iter().flat_map(|flow| flow.open())
    }

    /// Whether it asks a person something itself, and nobody has answered.
    pub fn is_asking(&self) -> bool {
        self.open_requirements().next().is_some() || self.open_steps().next().is_some()
    }

    pub(super) fn flow_mut(&mut self) -> &mut FlowState {
        self.flow.get_or_insert_default()
    }

    /// Takes an event of a step into the state.
    pub(super) fn step_changed(&mut self, event: &RunEvent) {
        match event {
            RunEvent::StepStarted(e) => {
                self.status = RunStatus::Running;
                self.flow_mut().started(e);
                self.saw(e.frame + 1, e.at_ms);
            }
            RunEvent::StepEnded(e) => {
                self.flow_mut().ended(e);
                self.spent.extend(&e.spent);
                if e.then == Some(AfterError::Fail) {
                    let error = e.error.get().cloned().flatten().unwrap_or_default();
                    self.failure = Some((ErrorKind::StepError, step_failed(&e.name, &error)));
                }
                let frames = self.flow_mut().frames_of_end(e);
                self.saw(e.frame + frames, e.at_ms);
            }
            RunEvent::BlockDecided(e) => {
                self.status = RunStatus::Running;
                self.flow_mut().decided(e);
                self.saw(e.frame + e.decision.frames(), e.at_ms);
            }
            RunEvent::BlockEnded(e) => {
                self.flow_mut().block_ended(e);
                self.saw(e.frame + 1, e.at_ms);
            }
            RunEvent::StepAnswered(e) => {
                self.flow_mut().answered(e);
                self.saw(self.next_frame, e.at_ms);
            }
            _ => {}
        }
    }

    /// What a workflow came to is its answer, like an agent's.
    pub(super) fn answer_of_flow(&mut self, at_ms: i64) {
        if self.is_flow() {
            let said = self.flow.as_ref().and_then(|flow| flow.content()).map(|said| as_text(&said));
            self.push_message(Role::Assistant, said, at_ms, |_| ());
        }
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
    /// How many frames a pause, the going on after it, or a good end is shown as. Those of a workflow's run look different.
    pub(super) fn frame_count(&self, flow: bool) -> u64 {
        match self {
            // That a step failed was shown when it did.
            Self::Paused(e) if flow => {
                1 + e.steps.iter().filter(|asked| !matches!(asked.ask, Ask::Failure)).count() as u64
            }
            Self::Continued(e) if flow => e.steps.len() as u64,
            Self::Succeeded(_) if flow => 1,
            Self::Succeeded(_) => 2,
            _ => 1,
        }
    }
}
