//! What events are called, after what the run is of.

use daybook_domain::component::ComponentKind;
use daybook_domain::workflow::{Ask, Decision};
use daybook_engine::FrameBody;

/// The event's name in the stream of a run of this kind.
pub(crate) fn name(kind: ComponentKind, body: &FrameBody) -> &'static str {
    if let Some(name) = of_step(body) {
        return name;
    }
    let [agent, team, workflow] = match body {
        FrameBody::RunStarted => ["RunStarted", "TeamRunStarted", "WorkflowStarted"],
        FrameBody::Restarted { .. } => ["RunRestarted", "TeamRunRestarted", "WorkflowRestarted"],
        FrameBody::ModelRequestStarted => of_model("ModelRequestStarted", "TeamModelRequestStarted"),
        FrameBody::Content { .. } => of_model("RunContent", "TeamRunContent"),
        FrameBody::ModelRequestCompleted { .. } => of_model("ModelRequestCompleted", "TeamModelRequestCompleted"),
        FrameBody::ToolCallStarted { .. } => of_model("ToolCallStarted", "TeamToolCallStarted"),
        FrameBody::ToolProgress { .. } => of_model("CustomEvent", "CustomEvent"),
        FrameBody::ToolCallCompleted { .. } => of_model("ToolCallCompleted", "TeamToolCallCompleted"),
        FrameBody::ToolCallError { .. } => of_model("ToolCallError", "TeamToolCallError"),
        FrameBody::ContentCompleted => of_model("RunContentCompleted", "TeamRunContentCompleted"),
        FrameBody::Completed(_) => ["RunCompleted", "TeamRunCompleted", "WorkflowCompleted"],
        FrameBody::Task { created: true, .. } => of_model("TeamTaskCreated", "TeamTaskCreated"),
        FrameBody::Task { created: false, .. } => of_model("TeamTaskUpdated", "TeamTaskUpdated"),
        FrameBody::Tasks { .. } => of_model("TeamTaskStateUpdated", "TeamTaskStateUpdated"),
        FrameBody::Paused { .. } => ["RunPaused", "TeamRunPaused", "WorkflowPaused"],
        FrameBody::Continued => ["RunContinued", "TeamRunContinued", "WorkflowContinued"],
        FrameBody::Error { .. } => ["RunError", "TeamRunError", "WorkflowError"],
        FrameBody::Cancelled { .. } => ["RunCancelled", "TeamRunCancelled", "WorkflowCancelled"],
        FrameBody::FlowPaused { .. } => ["WorkflowPaused"; 3],
        // Those of steps have names of their own.
        _ => ["CustomEvent"; 3],
    };
    match kind {
        ComponentKind::Agent => agent,
        ComponentKind::Team => team,
        ComponentKind::Workflow => workflow,
    }
}

/// What steps do.
fn of_step(body: &FrameBody) -> Option<&'static str> {
    Some(match body {
        FrameBody::StepStarted { .. } => "StepStarted",
        FrameBody::StepProgress { .. } => "StepProgress",
        FrameBody::StepOutput { .. } => "StepOutput",
        FrameBody::StepCompleted { .. } => "StepCompleted",
        FrameBody::StepError { .. } => "StepError",
        FrameBody::StepPaused(asked) => match asked.requirement.ask {
            Ask::Routes { .. } => "RouterPaused",
            Ask::Output { .. } => "StepOutputReview",
            Ask::Executor { .. } => "StepExecutorPaused",
            Ask::Before(_) | Ask::Failure | Ask::UnknownOutcome => "StepPaused",
        },
        FrameBody::StepContinued { requirement, .. } => match requirement.as_ref().map(|asked| &asked.ask) {
            Some(Ask::Executor { .. }) => "StepExecutorContinued",
            _ => "StepContinued",
        },
        FrameBody::BlockStarted { decision, .. } => of_block(decision)[0],
        FrameBody::BlockCompleted { decision, .. } => of_block(decision)[1],
        FrameBody::IterationStarted { .. } => "LoopIterationStarted",
        FrameBody::IterationCompleted { .. } => "LoopIterationCompleted",
        _ => return None,
    })
}

/// The beginning and the end of a block.
fn of_block(decision: &Decision) -> [&'static str; 2] {
    match decision {
        Decision::Condition { .. } => ["ConditionExecutionStarted", "ConditionExecutionCompleted"],
        Decision::Parallel { .. } => ["ParallelExecutionStarted", "ParallelExecutionCompleted"],
        Decision::Loop { .. } | Decision::Iteration { .. } => ["LoopExecutionStarted", "LoopExecutionCompleted"],
        Decision::Router { .. } => ["RouterExecutionStarted", "RouterExecutionCompleted"],
        Decision::Group { .. } => ["StepsExecutionStarted", "StepsExecutionCompleted"],
    }
}

/// What only agents and leaders do.
fn of_model(agent: &'static str, team: &'static str) -> [&'static str; 3] {
    [agent, team, agent]
}
