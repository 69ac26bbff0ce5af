//! The events about a team's list of tasks.

use daybook_domain::run::{Task, TaskStatus};
use serde::ser::SerializeMap;
use serde_json::{Value, json};

use super::maybe;

/// One task, new or further than before.
pub(super) fn one<M: SerializeMap>(map: &mut M, task: &Task, created: bool) -> Result<(), M::Error> {
    map.serialize_entry("task_id", &task.id)?;
    maybe(map, "title", task.title.get())?;
    if created {
        maybe(map, "description", task.description.get())?;
        map.serialize_entry("dependencies", &task.depends_on)?;
    } else {
        maybe(map, "result", task.result.get().and_then(Option::as_ref))?;
    }
    map.serialize_entry("assignee", task.member.as_str())?;
    map.serialize_entry("status", task.status.as_str())
}

/// The whole list.
pub(super) fn all<M: SerializeMap>(map: &mut M, tasks: &[Task]) -> Result<(), M::Error> {
    let settled = tasks.iter().filter(|task| task.status.is_settled()).count();
    map.serialize_entry("task_summary", &format!("{settled} of {} tasks are settled.", tasks.len()))?;
    map.serialize_entry("goal_complete", &(settled == tasks.len()))?;
    map.serialize_entry("tasks", &tasks.iter().map(shown).collect::<Vec<_>>())?;
    let failed = tasks.iter().filter(|task| task.status == TaskStatus::Failed).count();
    let completed = (settled == tasks.len()).then(|| match failed {
        0 => "All tasks are settled.".to_owned(),
        n => format!("All tasks are settled; {n} of them failed."),
    });
    maybe(map, "completion_summary", completed)
}

fn shown(task: &Task) -> Value {
    json!({
        "id": task.id,
        "title": task.title.get(),
        "description": task.description.get(),
        "status": task.status.as_str(),
        "assignee": task.member.as_str(),
        "dependencies": task.depends_on,
        "result": task.result.get().cloned().flatten(),
    })
}

#[cfg(test)]
mod tests {
    use daybook_engine::FrameBody;

    use super::super::tests::team;
    use super::super::{Event, name};
    use super::*;

    fn task(id: &str, status: &str) -> Value {
        json!({"id": id, "title": ["Look"], "description": ["Look it up."], "member": "writer", "status": status})
    }

    fn shown(body: Value) -> (&'static str, Value) {
        let body: FrameBody = serde_json::from_value(body).unwrap();
        let run = team();
        (name(run.component.kind, &body), Event { index: None, at: 1, run: &run, body: &body }.value())
    }

    #[test]
    fn a_task_is_told_when_it_is_new_and_when_it_comes_further() {
        let (name, new) = shown(json!({"t": "task", "task": task("1", "pending"), "created": true}));
        assert_eq!((name, &new["task_id"], &new["title"]), ("TeamTaskCreated", &json!("1"), &json!("Look")));
        assert_eq!((&new["description"], &new["assignee"]), (&json!("Look it up."), &json!("writer")));
        assert_eq!((&new["status"], &new["dependencies"]), (&json!("pending"), &json!([])));
        let mut done = task("1", "completed");
        done["result"] = json!(["Found."]);
        let (name, done) = shown(json!({"t": "task", "task": done, "created": false}));
        assert_eq!(
            (name, &done["status"], &done["result"]),
            ("TeamTaskUpdated", &json!("completed"), &json!("Found."))
        );
    }

    #[test]
    fn the_list_says_whether_all_is_settled() {
        let list = |first, second| {
            let (name, list) = shown(json!({"t": "tasks", "tasks": [task("1", first), task("2", second)]}));
            assert_eq!((name, list["tasks"].as_array().unwrap().len()), ("TeamTaskStateUpdated", 2));
            (list["goal_complete"].clone(), list["task_summary"].clone(), list.get("completion_summary").cloned())
        };
        let open = list("completed", "in_progress");
        assert_eq!(open, (json!(false), json!("1 of 2 tasks are settled."), None));
        let settled = Some(json!("All tasks are settled; 1 of them failed."));
        assert_eq!(list("failed", "skipped"), (json!(true), json!("2 of 2 tasks are settled."), settled));
    }
}
