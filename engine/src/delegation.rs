//! What a leader's call hands out, and to whom: read from its arguments and the team's list of tasks alone.

use daybook_domain::component::{CREATE_TASK, DELEGATE, DELEGATE_ALL, EXECUTE_TASKS, Member, TeamConfig, UPDATE_TASK};
use daybook_domain::run::{Task, TaskStatus, ToolOutcome, ToolRecord};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

/// The most characters of an answer that other members are told.
const SHARED: usize = 2_000;

/// What a call is to do.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Order {
    /// Have members work, at the same time.
    Hand(Vec<Assignment>),
    /// Change the list of tasks.
    Change(TaskChange),
}

/// One member's work.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Assignment {
    pub member: Member,
    /// What it is told.
    pub task: String,
    /// The task of the list that it works off.
    pub task_id: Option<String>,
}

/// A change of the list of tasks.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum TaskChange {
    Create { title: String, description: String, member: Member, depends_on: Vec<String> },
    Settle { id: String, status: TaskStatus, result: Option<String> },
}

#[derive(Deserialize)]
struct ToOne {
    member_id: String,
    task: String,
}

#[derive(Deserialize)]
struct ToAll {
    task: String,
}

#[derive(Deserialize)]
struct NewTask {
    title: String,
    description: String,
    member_id: String,
    #[serde(default)]
    depends_on: Vec<String>,
}

#[derive(Deserialize)]
struct TaskIds {
    task_ids: Vec<String>,
}

#[derive(Deserialize)]
struct Settled {
    task_id: String,
    status: TaskStatus,
    result: Option<String>,
}

/// Reads the call `tool` of a leader. `again` says that its work was handed out before.
///
/// # Errors
/// What is wrong, for the leader.
pub(crate) fn read_order(
    team: &TeamConfig,
    tasks: &[Task],
    tool: &str,
    arguments: &Map<String, Value>,
    again: bool,
) -> Result<Order, String> {
    match tool {
        DELEGATE => {
            let ToOne { member_id, task } = read(arguments)?;
            Ok(Order::Hand(vec![Assignment { member: member(team, &member_id)?, task, task_id: None }]))
        }
        DELEGATE_ALL => {
            let ToAll { task } = read(arguments)?;
            let work = |member: &Member| Assignment { member: member.clone(), task: task.clone(), task_id: None };
            Ok(Order::Hand(team.members.iter().map(work).collect()))
        }
        CREATE_TASK => {
            let NewTask { title, description, member_id, depends_on } = read(arguments)?;
            if let Some(unknown) = depends_on.iter().find(|id| tasks.iter().all(|task| task.id != **id)) {
                return Err(format!("there is no task {unknown:?} to wait for: create it first"));
            }
            let member = member(team, &member_id)?;
            Ok(Order::Change(TaskChange::Create { title, description, member, depends_on }))
        }
        EXECUTE_TASKS => {
            let TaskIds { task_ids } = read(arguments)?;
            let mut work = Vec::with_capacity(task_ids.len());
            for (at, id) in task_ids.iter().enumerate() {
                if task_ids[..at].contains(id) {
                    return Err(format!("task {id:?} is named twice"));
                }
                work.push(assignment(team, tasks, id, again)?);
            }
            Ok(Order::Hand(work))
        }
        UPDATE_TASK => {
            let Settled { task_id, status, result } = read(arguments)?;
            let task = find(tasks, &task_id)?;
            match task.status {
                TaskStatus::InProgress => Err(format!("task {task_id:?} is being worked on")),
                _ if !status.is_settled() => Err("the status is completed, failed or skipped".to_owned()),
                _ => Ok(Order::Change(TaskChange::Settle { id: task_id, status, result })),
            }
        }
        other => Err(format!("there is no way to hand out work that is called {other:?}")),
    }
}

fn read<T: DeserializeOwned>(arguments: &Map<String, Value>) -> Result<T, String> {
    serde_json::from_value(Value::Object(arguments.clone())).map_err(|error| error.to_string())
}

fn member(team: &TeamConfig, id: &str) -> Result<Member, String> {
    let unknown =
        || format!("There is no member {id:?} in the team. Name one of these by its id:\n\n{}", team.roster());
    team.member(id).cloned().ok_or_else(unknown)
}

fn find<'a>(tasks: &'a [Task], id: &str) -> Result<&'a Task, String> {
    let known = || tasks.iter().map(|task| task.id.as_str()).collect::<Vec<_>>().join(", ");
    tasks.iter().find(|task| task.id == id).ok_or_else(|| format!("there is no task {id:?}; there are: {}", known()))
}

fn assignment(team: &TeamConfig, tasks: &[Task], id: &str, again: bool) -> Result<Assignment, String> {
    let task = find(tasks, id)?;
    let open = task.status == TaskStatus::Pending || (again && task.status == TaskStatus::InProgress);
    if !open {
        return Err(format!("task {id:?} is {} already", task.status.as_str()));
    }
    let unsettled = |id: &&String| find(tasks, id).is_ok_and(|task| !task.status.is_settled());
    if let Some(first) = task.depends_on.iter().find(unsettled) {
        return Err(format!("task {id:?} waits for task {first:?}, which is not done"));
    }
    let text = task.description.get().cloned().unwrap_or_default();
    // What it waited for is what it builds upon.
    let known = |id: &String| {
        let task = find(tasks, id).ok()?;
        let result = task.result.get().cloned().flatten()?;
        Some(format!("<result of=\"{}\">\n{result}\n</result>", task.title.get().cloned().unwrap_or_default()))
    };
    let lines: Vec<String> = std::iter::once(text).chain(task.depends_on.iter().filter_map(known)).collect();
    Ok(Assignment {
        member: member(team, task.member.as_str())?,
        task: lines.join("\n\n"),
        task_id: Some(id.to_owned()),
    })
}

/// What the members of this run were asked and answered so far, for the next; nothing when there was nothing.
pub(crate) fn interactions(team: &TeamConfig, tools: &[ToolRecord]) -> Option<String> {
    let told = |tool: &ToolRecord| {
        let Some(ToolOutcome::Completed(answer)) = &tool.outcome else { return None };
        let ToOne { member_id, task } = read(&tool.call.parsed().ok()?).ok()?;
        let name = team.member(&member_id)?.name.clone();
        let answer: String = answer.chars().take(SHARED).collect();
        Some(format!("<member name=\"{name}\">\nAsked: {task}\nAnswered: {answer}\n</member>\n"))
    };
    let all: String = tools.iter().filter(|tool| tool.call.name == DELEGATE).filter_map(told).collect();
    (!all.is_empty()).then(|| format!("<done_so_far>\n{all}</done_so_far>"))
}

#[cfg(test)]
mod tests {
    use daybook_domain::component::{ComponentRef, TeamMode};
    use daybook_domain::ids::ComponentId;
    use serde_json::json;

    use super::*;

    fn team(mode: TeamMode) -> TeamConfig {
        let member = |id: &str| Member {
            component: ComponentRef::agent(ComponentId::parse(id).unwrap()),
            config_hash: String::new(),
            name: id.to_uppercase(),
            role: None,
            description: None,
        };
        TeamConfig::new(mode, vec![member("a"), member("b")])
    }

    fn task(id: &str, status: TaskStatus, depends_on: &[&str]) -> Task {
        Task {
            id: id.into(),
            title: format!("T{id}").into(),
            description: format!("Do {id}").into(),
            member: ComponentId::parse("a").unwrap(),
            depends_on: depends_on.iter().map(|id| (*id).to_owned()).collect(),
            status,
            result: Some(format!("R{id}")).into(),
        }
    }

    fn order(tasks: &[Task], tool: &str, arguments: Value, again: bool) -> Result<Order, String> {
        let arguments = arguments.as_object().cloned().unwrap();
        read_order(&team(TeamMode::Tasks), tasks, tool, &arguments, again)
    }

    #[test]
    fn a_task_goes_to_the_member_it_names_and_to_no_stranger() {
        let Ok(Order::Hand(work)) = order(&[], DELEGATE, json!({"member_id": "b", "task": "x"}), false) else {
            panic!()
        };
        assert_eq!((work[0].member.name.as_str(), work[0].task.as_str()), ("B", "x"));
        let fault = order(&[], DELEGATE, json!({"member_id": "z", "task": "x"}), false).unwrap_err();
        assert!(fault.contains("no member \"z\"") && fault.contains("<member id=\"a\" name=\"A\">"), "{fault}");
        let Ok(Order::Hand(all)) = order(&[], DELEGATE_ALL, json!({"task": "x"}), false) else { panic!() };
        assert_eq!(all.len(), 2);
        assert!(order(&[], DELEGATE, json!({"member_id": 5}), false).is_err());
    }

    #[test]
    fn tasks_are_done_once_and_after_those_they_wait_for() {
        let ids = |ids: &[&str]| json!({"task_ids": ids});
        let tasks = [
            task("1", TaskStatus::Completed, &[]),
            task("2", TaskStatus::Pending, &["1"]),
            task("3", TaskStatus::Pending, &["2"]),
            task("4", TaskStatus::InProgress, &[]),
        ];
        let Ok(Order::Hand(work)) = order(&tasks, EXECUTE_TASKS, ids(&["2"]), false) else { panic!() };
        assert_eq!(work[0].task, "Do 2\n\n<result of=\"T1\">\nR1\n</result>");
        let refused = |wanted: &[&str]| order(&tasks, EXECUTE_TASKS, ids(wanted), false).unwrap_err();
        assert!(refused(&["1"]).contains("completed already") && refused(&["3"]).contains("waits for task \"2\""));
        assert!(refused(&["4"]).contains("in_progress") && refused(&["9"]).contains("no task \"9\""));
        assert!(refused(&["2", "2"]).contains("twice"));
        assert!(order(&tasks, EXECUTE_TASKS, ids(&["4"]), true).is_ok(), "after a crash it goes on");
        let settle = |id: &str| json!({"task_id": id, "status": "skipped"});
        assert!(order(&tasks, UPDATE_TASK, settle("3"), false).is_ok());
        assert!(order(&tasks, UPDATE_TASK, settle("4"), false).is_err());
        let create = json!({"title": "t", "description": "d", "member_id": "a", "depends_on": ["7"]});
        assert!(order(&tasks, CREATE_TASK, create, false).unwrap_err().contains("no task \"7\""));
    }
}
