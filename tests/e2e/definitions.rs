//! `daybook init`, `check` and `schema` as their users see them.

use std::path::Path;
use std::process::Output;

use serde_json::{Value, json};
use tokio::time::timeout;

use crate::support::{PATIENCE, Script, Socket, World, daybook, open_dir};

async fn run(dir: &Path, arguments: &[&str]) -> (Option<i32>, String, String) {
    let mut command = daybook();
    command.current_dir(dir).args(arguments).env("KEY", "sk-hush-hush");
    let Output { status, stdout, stderr } = timeout(PATIENCE, command.output()).await.unwrap().unwrap();
    (status.code(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

#[tokio::test]
async fn a_file_is_begun_checked_and_mended() {
    let dir = open_dir();
    let (code, _, told) = run(dir.path(), &["check"]).await;
    assert!(code == Some(2) && told.contains("daybook init"), "{told}");

    let (code, told, _) = run(dir.path(), &["init"]).await;
    assert!(code == Some(0) && told.contains("daybook serve"), "{told}");
    let (code, _, told) = run(dir.path(), &["init"]).await;
    assert!(code == Some(2) && told.contains("--force"), "{told}");
    let (code, told, _) = run(dir.path(), &["check"]).await;
    assert!(code == Some(0) && told.contains("my-agent: model main"), "{told}");

    let text = "models:\n  main:\n    provider: openai\n    id: ${KEY}\n    retries: ${KEY}\nagents:\n  - id: a\n    \
                model: ${KEY}\n    tols: []\n  - id: b\n    model: \"${KEY}\"\n  - id: c\n    model: ${GONE}\n";
    std::fs::write(dir.path().join("mine.yaml"), text).unwrap();
    let (code, out, told) = run(dir.path(), &["check", "mine.yaml"]).await;
    let places = ["mine.yaml:5:14: ", "mine.yaml:9:5: ", "mine.yaml:11:12: ", "mine.yaml:13:12: "];
    let lines: Vec<&str> = told.lines().collect();
    assert_eq!((code, out.as_str(), lines.len()), (Some(2), "", places.len()), "{told}");
    for (line, place) in lines.iter().zip(places) {
        assert!(line.contains(place), "{place} in {line}");
    }
    assert!(!told.contains("hush"), "{told}");
}

#[tokio::test]
async fn teams_and_workflows_are_checked_and_drawn() {
    let dir = open_dir();
    let text = "agents:\n  - id: a\nteams:\n  - id: t\n    members: [a]\nworkflows:\n  - id: w\n    steps:\n      \
                - {name: s, team: t}\n";
    std::fs::write(dir.path().join("daybook.yaml"), text).unwrap();
    let (code, told, _) = run(dir.path(), &["check"]).await;
    assert!(code == Some(0) && told.contains("t: coordinate, a") && told.contains("w: s"), "{told}");
    let (code, drawn, _) = run(dir.path(), &["graph", "w"]).await;
    assert!(code == Some(0) && drawn.starts_with("flowchart TD\n") && drawn.contains("team: t"), "{drawn}");
    let (code, drawn, _) = run(dir.path(), &["graph"]).await;
    assert!(code == Some(0) && drawn.contains("workflow: w") && drawn.contains("agent: a"), "{drawn}");
    let (code, out, told) = run(dir.path(), &["graph", "x"]).await;
    assert!(code == Some(2) && out.is_empty() && told.contains("agent:a, team:t, workflow:w"), "{told}");

    std::fs::write(dir.path().join("daybook.yaml"), text.replace("team: t", "team: x").replace("[a]", "[a, t]"))
        .unwrap();
    let (code, _, told) = run(dir.path(), &["check"]).await;
    assert_eq!((code, told.lines().count()), (Some(2), 2), "{told}");
    assert!(told.contains("daybook.yaml:5:18: team") && told.contains("daybook.yaml:9:25: workflow"), "{told}");
}

#[tokio::test]
async fn a_team_of_the_file_is_served() {
    let world = World::new().await;
    let path = world.dir.path().join("daybook.yaml");
    let model =
        format!("models:\n  main: {{provider: openai, id: fake-gpt, base_url: \"{}\", retries: 0}}\n", world.model.url);
    let team = "teams:\n  - id: t\n    mode: route\n    members:\n      - {id: helper, role: Helps}\n";
    std::fs::write(&path, model + team).unwrap();
    let server = world.serve(&path).await;
    let work = json!({"member_id": "helper", "task": Script::say(&["Done ", "it."]).message()});
    let message = Script::call(&[("delegate_task_to_member", work)]).message();
    let run = server.api.teams().run("t", &[("message", &message), ("session_id", "s")]).await;
    assert_eq!((&run["status"], &run["content"]), (&json!("COMPLETED"), &json!("Done it.")), "{run}");
    assert_eq!(run["member_responses"][0]["agent_id"], "helper", "{run}");
}

#[tokio::test]
async fn a_workflow_of_the_file_is_served_and_goes_on_from_an_answer_on_another_server() {
    let world = World::new().await;
    let path = world.dir.path().join("daybook.yaml");
    let text = format!(
        "models:
  main: {{provider: openai, id: fake-gpt, base_url: \"{}\", retries: 0}}
workflows:
  - id: w
    steps:
      - {{name: ask, agent: {{id: helper}}}}
      - {{name: sum, tool: calculator, arguments: {{expression: \"'2 * ' + string(size(outputs.ask))\"}}}}
      - name: large
        if: double(previous) > 10.0
        then: [{{name: yes, tool: calculator, arguments: {{expression: \"previous + ' + 1'\"}}, confirm: {{message: Go on?}}}}]
",
        world.model.url
    );
    std::fs::write(&path, text).unwrap();
    let (one, other) = (world.serve(&path).await, world.serve(&path).await);
    let message = Script::say(&["sixteen ", "letters."]).message();
    let mut socket = Socket::open(&one.api, "/workflows/ws").await;
    let start =
        json!({"action": "start-workflow", "workflow_id": "w", "message": message, "session_id": "s", "run_id": "r"});
    socket.ask(&start).await;
    let paused = socket.until("WorkflowPaused").await.data;
    let mut asked = paused["step_requirements"].clone();
    assert_eq!(asked[0]["confirmation_message"], "Go on?", "{paused}");
    asked[0]["confirmed"] = json!(true);
    let mut socket = Socket::open(&other.api, "/workflows/ws").await;
    socket
        .ask(&json!({"action": "continue-workflow", "workflow_id": "w", "run_id": "r", "step_requirements": asked}))
        .await;
    let end = socket.until("WorkflowCompleted").await.data;
    assert_eq!((&end["run_id"], &end["content"]), (&json!("r"), &json!("33")), "{end}");
    world.database().assert_ended_once("r").await;
}

#[tokio::test]
async fn the_schema_is_printed_for_editors() {
    let (code, schema, _) = run(Path::new("/"), &["schema"]).await;
    let schema: Value = serde_json::from_str(&schema).unwrap();
    assert_eq!((code, &schema["title"]), (Some(0), &Value::from("daybook.yaml")));
    jsonschema::validator_for(&schema).unwrap();
}

#[tokio::test]
async fn check_refuses_what_serve_would_refuse() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("daybook.yaml");
    std::fs::write(&path, "server:\n  host: 0.0.0.0\n").unwrap();
    let told = daybook().arg("check").arg(&path).output().await.unwrap();
    let said = String::from_utf8_lossy(&told.stderr);
    assert_eq!(told.status.code(), Some(2), "{said}");
    assert!(said.contains("daybook.yaml:2:9: ") && said.contains("--insecure"), "{said}");
}
