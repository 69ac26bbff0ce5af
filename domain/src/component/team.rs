//! What makes an agent the leader of a team: its members, and how it hands work to them.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::state::ComponentRef;
use crate::tool::{Effect, ToolSpec};

/// The tool by which a leader hands a task to one member.
pub const DELEGATE: &str = "delegate_task_to_member";

/// The tool by which a leader hands one task to all members.
pub const DELEGATE_ALL: &str = "delegate_task_to_members";

/// The tool by which a leader puts a task on the team's list.
pub const CREATE_TASK: &str = "create_task";

/// The tool by which a leader has members work off tasks of the list.
pub const EXECUTE_TASKS: &str = "execute_tasks";

/// The tool by which a leader settles a task of the list itself.
pub const UPDATE_TASK: &str = "update_task";

/// The most members that work at once, unless configured.
const MAX_PARALLEL: u32 = 8;

/// How a leader works with its members.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TeamMode {
    /// It hands out sub-tasks and writes the answer itself.
    #[default]
    Coordinate,
    /// It hands the whole request to one member, whose answer is the team's.
    Route,
    /// All members work on the same task at once, and it writes the answer.
    Collaborate,
    /// It plans a list of tasks, which members work off until all are done.
    Tasks,
}

impl TeamMode {
    /// The mode's name in definitions.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Coordinate => "coordinate",
            Self::Route => "route",
            Self::Collaborate => "collaborate",
            Self::Tasks => "tasks",
        }
    }

    /// The mode's name on the wire, where `collaborate` is called `broadcast`.
    pub fn on_wire(self) -> &'static str {
        if self == Self::Collaborate { "broadcast" } else { self.as_str() }
    }
}

/// What becomes of a team's run when a member's run fails.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnMemberError {
    /// The leader is told, and goes on.
    #[default]
    Tell,
    /// It fails too.
    Fail,
}

/// One member of a team.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Member {
    /// What it is.
    pub component: ComponentRef,
    /// The hash of the configuration it works with.
    pub config_hash: String,
    /// Its name for people and the leader.
    pub name: String,
    /// What it does in the team.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// What it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
}

/// A leader's team.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TeamConfig {
    /// How they work together.
    #[serde(default)]
    pub mode: TeamMode,
    /// Whom it leads.
    pub members: Vec<Member>,
    /// The tools by which it hands out work. Kept with the configuration, so that a prompt can be built again as it was.
    pub tools: Vec<ToolSpec>,
    /// What the leader is told of its team and its work, likewise.
    pub briefing: String,
    /// The most members that work at once; the others wait.
    pub max_parallel: u32,
    /// How many earlier runs of the session members see; 0 is none.
    #[serde(default)]
    pub member_history_runs: u32,
    /// Whether members are told what others of the same run were asked and answered before.
    #[serde(default)]
    pub share_interactions: bool,
    /// What becomes of the run when a member fails.
    #[serde(default)]
    pub on_member_error: OnMemberError,
}

impl TeamConfig {
    /// A team of these members.
    pub fn new(mode: TeamMode, members: Vec<Member>) -> Self {
        Self {
            mode,
            tools: tools(mode),
            briefing: briefing(mode, &members),
            members,
            max_parallel: MAX_PARALLEL,
            member_history_runs: 0,
            share_interactions: false,
            on_member_error: OnMemberError::default(),
        }
    }

    /// The member of this id.
    pub fn member(&self, id: &str) -> Option<&Member> {
        self.members.iter().find(|member| member.component.id.as_str() == id)
    }

    /// The members as the leader sees them.
    pub fn roster(&self) -> String {
        roster(&self.members)
    }
}

fn roster(members: &[Member]) -> String {
    let line = |label: &str, text: &Option<String>| {
        text.as_ref().map(|text| format!("  {label}: {text}\n")).unwrap_or_default()
    };
    let entry = |member: &Member| {
        format!(
            "<member id=\"{}\" name=\"{}\">\n{}{}</member>\n",
            member.component.id,
            member.name,
            line("Role", &member.role),
            line("Description", &member.description)
        )
    };
    members.iter().map(entry).collect()
}

/// What the leader is told.
fn briefing(mode: TeamMode, members: &[Member]) -> String {
    let work = match mode {
        TeamMode::Coordinate => {
            "Answer the request with the help of your members.\n\
             - Give each part of the work to the member whose role fits it, with `delegate_task_to_member`. Parts that do \
             not depend on each other go out in the same turn: they are then worked on at the same time.\n\
             - What needs no member you do yourself.\n\
             - Check what comes back. Ask again, more precisely, or ask another member, when it misses the point; say so in \
             your answer when something could not be found out.\n\
             - The answer is yours: one text, not a row of reports."
        }
        TeamMode::Route => {
            "Hand the request to the one member whose role fits it best, with `delegate_task_to_member`. What that member \
             answers goes to the user as it is. Answer yourself only when no member fits."
        }
        TeamMode::Collaborate => {
            "Hand the request to all members at once, with `delegate_task_to_members`. Weigh what they answer, settle where \
             they differ, and write one answer."
        }
        TeamMode::Tasks => {
            "Work towards the request by a list of tasks.\n\
             - Put each piece of work on the list with `create_task`: who does it, and which tasks must be done before.\n\
             - Have members do tasks with `execute_tasks`; those named in one call are worked on at the same time.\n\
             - Settle a task yourself with `update_task` when nobody need do it any more.\n\
             - When every task is done, failed or skipped, write the answer."
        }
    };
    format!(
        "<team>\nYou lead a team.\n<members>\n{}</members>\n{work}\nMembers see neither this conversation nor each other's \
         work: write into a task all that is needed to do it. Name members by their ids.\n</team>",
        roster(members)
    )
}

fn tools(mode: TeamMode) -> Vec<ToolSpec> {
    let member = json!({"type": "string", "description": "The id of the member."});
    let task = json!({"type": "string", "description": "What is to be done, with all that is needed to do it."});
    match mode {
        TeamMode::Coordinate | TeamMode::Route => vec![handing(
            DELEGATE,
            "Hands a task to a member and gives its answer.",
            json!({"member_id": member, "task": task}),
            &["member_id", "task"],
        )],
        TeamMode::Collaborate => vec![handing(
            DELEGATE_ALL,
            "Hands one task to all members and gives their answers.",
            json!({"task": task}),
            &["task"],
        )],
        TeamMode::Tasks => vec![
            handing(
                CREATE_TASK,
                "Puts a task on the list and gives its id.",
                json!({
                    "title": {"type": "string", "description": "A few words."},
                    "description": task,
                    "member_id": {"type": "string", "description": "The id of the member who is to do it."},
                    "depends_on": {"type": "array", "items": {"type": "string"},
                        "description": "The ids of tasks that must be done before."},
                }),
                &["title", "description", "member_id"],
            ),
            handing(
                EXECUTE_TASKS,
                "Has the members of these tasks do them, at the same time, and gives their results.",
                json!({"task_ids": {"type": "array", "items": {"type": "string"}, "minItems": 1,
                    "description": "The ids of the tasks."}}),
                &["task_ids"],
            ),
            handing(
                UPDATE_TASK,
                "Settles a task that no member need do any more.",
                json!({
                    "task_id": {"type": "string", "description": "The id of the task."},
                    "status": {"type": "string", "enum": ["completed", "failed", "skipped"]},
                    "result": {"type": "string", "description": "What came of it."},
                }),
                &["task_id", "status"],
            ),
        ],
    }
}

/// What is asked for twice goes on as the same member's run.
fn handing(name: &str, description: &str, properties: Value, required: &[&str]) -> ToolSpec {
    let parameters = json!({
        "type": "object", "properties": properties, "required": required, "additionalProperties": false,
    });
    ToolSpec::new(name, description, parameters).effect(Effect::Idempotent)
}
