//! What events are called, after what the run is of.

use daybook_domain::component::ComponentKind;
use daybook_engine::FrameBody;

/// The event's name in the stream of a run of this kind.
pub(crate) fn name(kind: ComponentKind, body: &FrameBody) -> &'static str {
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
    };
    match kind {
        ComponentKind::Agent => agent,
        ComponentKind::Team => team,
        ComponentKind::Workflow => workflow,
    }
}

/// What only agents and leaders do.
fn of_model(agent: &'static str, team: &'static str) -> [&'static str; 3] {
    [agent, team, agent]
}
