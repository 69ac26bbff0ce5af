//! Tools of sources that daybook.yaml describes: used, gated, changed while the server runs, and ended with it.

use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use tokio::process::Command;

use crate::support::{Api, Script, Server, World, daybook, eventually, text};

/// An MCP server that does what `how` says, and writes its process id into `pids`.
fn program(how: &str, pids: &Path) -> String {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tools/tests/mcp_scripted.py");
    format!("[python3, {}, {how}, {}]", script.display(), pids.display())
}

/// Definitions with these sources and one agent, `a`, that has these tools.
fn write(world: &World, sources: &str, tools: &str) -> PathBuf {
    let path = world.dir.path().join("daybook.yaml");
    let url = &world.model.url;
    let model = format!("models: {{main: {{provider: openai, id: fake-gpt, base_url: \"{url}\", retries: 0}}}}\n");
    std::fs::write(&path, format!("{model}tools:\n{sources}agents:\n  - id: a\n    tools: {tools}\n")).unwrap();
    path
}

fn pids(world: &World) -> PathBuf {
    world.dir.path().join("pids")
}

/// The MCP servers that were started.
fn started(world: &World) -> Vec<i32> {
    let lines = std::fs::read_to_string(pids(world)).unwrap_or_default();
    lines.lines().filter_map(|line| line.parse().ok()).collect()
}

/// Waits until none of the MCP servers is there.
async fn all_ended(world: &World) {
    for pid in started(world) {
        eventually("the MCP server ends", async || (kill(Pid::from_raw(pid), None) == Err(Errno::ESRCH)).then_some(()))
            .await;
    }
}

/// A run of the agent to its end or its pause.
async fn run(api: &Api, script: &Script, words: &str) -> Value {
    let message = script.message_after(words);
    api.run("a", &[("message", &message), ("session_id", "s"), ("stream", "false")]).await
}

/// The names of the tools that the model was offered in the runs whose message begins so.
fn offered(world: &World, words: &str) -> Vec<String> {
    let request = world.model.requests_with(words).last().cloned().unwrap();
    let tools = request["tools"].as_array().cloned().unwrap_or_default();
    tools.iter().map(|tool| text(&tool["function"]["name"]).to_owned()).collect()
}

async fn go_on(server: &Server, run: &Value) -> Value {
    let mut tools = run["tools"].clone();
    for tool in tools.as_array_mut().unwrap() {
        if tool["requires_confirmation"] == true {
            tool["confirmed"] = json!(true);
        }
    }
    let tools = tools.to_string();
    let fields = [("session_id", "s"), ("stream", "false"), ("tools", tools.as_str())];
    let path = format!("/agents/a/runs/{}/continue", text(&run["run_id"]));
    server.api.post(&path).form(&fields).send().await.unwrap().json().await.unwrap()
}

#[tokio::test]
async fn tools_of_definitions_are_used_gated_and_ended() {
    let world = World::new().await;
    let notes = world.dir.path().join("notes");
    std::fs::create_dir(&notes).unwrap();
    std::fs::write(notes.join("a.txt"), "buy milk").unwrap();
    let sources = format!(
        "  notes:\n    files: {{root: {}}}\n    allow: [read_file]\n    prefix: notes_\n  \
         scripted:\n    mcp: {{command: {}}}\n    prefix: m_\n  \
         careful:\n    built_in: [calculator]\n    rules: {{calculator: {{confirmation: true}}}}\n  \
         here:\n    shell: {{directory: {}, allow: [ls]}}\n",
        notes.display(),
        program("plain", &pids(&world)),
        notes.display(),
    );
    let config = write(&world, &sources, "[current_time, notes, scripted, careful.calculator, here]");
    let server = world.serve(&config).await;
    let calls = [
        ("notes_read_file", json!({"path": "a.txt"})),
        ("notes_read_file", json!({"path": "../daybook.yaml"})),
        ("m_call", json!({})),
        ("calculator", json!({"expression": "2*21"})),
        ("run_command", json!({"command": "ls"})),
    ];
    let paused = run(&server.api, &Script::call(&calls).then_say(&["done"]), "first ").await;
    assert_eq!(paused["status"], "PAUSED", "{paused}");
    let tools = ["current_time", "notes_read_file", "m_call", "calculator", "run_command"];
    assert_eq!(offered(&world, "first "), tools);
    let ended = go_on(&server, &paused).await;
    assert_eq!((&ended["status"], &ended["content"]), (&json!("COMPLETED"), &json!("done")), "{ended}");
    let result = |at: usize| text(&ended["tools"][at]["result"]).to_owned();
    assert!(result(0).contains("buy milk") && result(2) == "fine" && result(3) == "42", "{ended}");
    assert!(ended["tools"][1]["tool_call_error"] == true && !result(1).contains("fake-gpt"), "{ended}");
    assert!(result(4).contains("a.txt"), "{ended}");
    assert_eq!(started(&world).len(), 1);
    assert!(server.terminate().await.success());
    all_ended(&world).await;
}

/// Who is neither root nor the owner of anything.
const NOBODY: u32 = 65534;

/// `daybook serve` as an ordinary user, whoever runs the tests: nothing can be hidden from root.
fn serving_unprivileged(world: &World, config: &Path) -> Command {
    let serving = world.serving(config);
    if !nix::unistd::geteuid().is_root() {
        return serving;
    }
    // Where the tests are built, others may not enter.
    let program = world.dir.path().join("daybook");
    std::fs::copy(serving.as_std().get_program(), &program).unwrap();
    std::os::unix::fs::chown(world.dir.path(), Some(NOBODY), Some(NOBODY)).unwrap();
    let mut command = Command::new(program);
    command.args(serving.as_std().get_args()).uid(NOBODY).gid(NOBODY).kill_on_drop(true);
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_command_does_not_read_the_servers_environment() {
    let world = World::with_private_database().await;
    let sources = format!("  here:\n    shell: {{directory: {}, shell: true}}\n", world.dir.path().display());
    let config = write(&world, &sources, "[here]");
    let mut command = serving_unprivileged(&world, &config);
    command.env("KEY_OF_THE_SERVER", "canary-of-the-server");
    let server = Server::start(command, &world.dir.path().join("server.log")).await;
    let look = r#"id -u; for of in $PPID $$; do tr '\0' '\n' < /proc/$of/environ; cat /proc/$of/maps | wc -l; done"#;
    let paused =
        run(&server.api, &Script::call(&[("run_command", json!({"command": look}))]).then_say(&["done"]), "x ").await;
    let ended = go_on(&server, &paused).await;
    let seen = text(&ended["tools"][0]["result"]);
    assert!(!seen.contains("canary-of-the-server") && seen.contains("denied"), "{seen}");
    // It is not that nothing can be read.
    assert!(seen.contains("DAYBOOK_FAMILY=") && !seen.contains("stdout:\n0\n"), "{seen}");
    assert!(server.terminate().await.success());
}

#[tokio::test]
async fn what_a_source_gains_is_there_for_the_next_run_and_a_reload_starts_nothing_twice() {
    let world = World::new().await;
    let source = |rules: &str| format!("  m:\n    mcp: {{command: {}}}\n{rules}", program("growing", &pids(&world)));
    let config = write(&world, &source(""), "[m]");
    let server = world.serve(&config).await;
    let grow = Script::call(&[("call", json!({}))]).then_say(&["done"]);
    assert_eq!(run(&server.api, &grow, "first ").await["content"], "done");
    assert_eq!(offered(&world, "first "), ["call"]);
    server.logged("the tools of a source are others now").await;
    assert_eq!(run(&server.api, &Script::say(&["ok"]), "second ").await["content"], "ok");
    assert_eq!(offered(&world, "second "), ["call", "grown_1"]);

    // Other rules for the same program: it goes on.
    write(&world, &source("    allow: [grown_1]\n    prefix: x_\n"), "[m]");
    server.signal(Signal::SIGHUP);
    server.logged("the definitions were read again").await;
    assert_eq!(run(&server.api, &Script::say(&["ok"]), "third ").await["content"], "ok");
    assert_eq!((offered(&world, "third "), started(&world).len()), (vec!["x_grown_1".to_owned()], 1));

    // What is wrong changes nothing.
    write(&world, &source("    allow: [nothing]\n"), "[m]");
    server.signal(Signal::SIGHUP);
    server.logged("`allow` names \"nothing\", which is not among its tools: call, grown_1").await;
    assert_eq!(run(&server.api, &Script::say(&["ok"]), "fourth ").await["content"], "ok");
    assert_eq!(offered(&world, "fourth "), ["x_grown_1"]);

    // Left out, it ends with the server.
    write(&world, "", "[]");
    server.signal(Signal::SIGHUP);
    eventually("the agent is without tools", async || {
        run(&server.api, &Script::say(&["ok"]), "fifth ").await;
        offered(&world, "fifth ").is_empty().then_some(())
    })
    .await;
    assert_eq!(started(&world).len(), 1);
    assert!(server.terminate().await.success());
    all_ended(&world).await;
}

#[tokio::test]
async fn a_source_that_does_not_answer_ends_the_start_unless_it_is_optional() {
    let world = World::new().await;
    // A program that is there only later.
    let program = world.dir.path().join("server.sh");
    let sources = |optional: &str| {
        let source = |name: &str| format!("  {name}:\n    mcp: {{command: [sh, {}]}}\n{optional}", program.display());
        source("late") + &format!("{}    prefix: g_\n", source("gone"))
    };
    let config = write(&world, &sources(""), "[late, current_time]");
    let refused = Server::try_start(world.serving(&config), &world.dir.path().join("refused.log")).await;
    let Err(told) = refused else { panic!("it started") };
    for part in ["daybook.yaml:4:5: the tools of late: ", "daybook.yaml:6:5: the tools of gone: ", "server.sh"] {
        assert!(told.contains(part), "{part} is not in:\n{told}");
    }

    let config = write(&world, &sources("    optional: true\n"), "[late, current_time]");
    let server = world.serve(&config).await;
    assert_eq!(run(&server.api, &Script::say(&["ok"]), "before ").await["content"], "ok");
    assert_eq!(offered(&world, "before "), ["current_time"]);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tools/tests/mcp_scripted.py");
    let line = format!("exec python3 {} plain {}\n", script.display(), pids(&world).display());
    std::fs::write(&program, line).unwrap();
    server.logged("the tools of a source are others now; new runs use them source=\"late\"").await;
    assert_eq!(run(&server.api, &Script::say(&["ok"]), "after ").await["content"], "ok");
    assert_eq!(offered(&world, "after "), ["call", "current_time"]);
    server.logged("optional source").await;
    assert!(server.terminate().await.success());
    all_ended(&world).await;
}

#[tokio::test]
async fn names_that_clash_or_are_not_there_are_told_at_the_start() {
    let world = World::new().await;
    let docs = |name: &str| format!("  {name}:\n    files: {{root: .}}\n");
    let m = format!("  m:\n    mcp: {{command: {}}}\n", program("plain", &pids(&world)));
    for (sources, tools, told) in [
        (docs("one") + &docs("two"), "[one]", "both have a tool \"list_files\": give the source a `prefix`"),
        (m.clone(), "[m.cal]", "agent \"a\": the source \"m\" has no tool \"cal\"; it has: call"),
        (m, "[m, m.call]", "agent \"a\": the tool \"call\" is named twice"),
    ] {
        let config = write(&world, &sources, tools);
        let started = Server::try_start(world.serving(&config), &world.dir.path().join("refused.log")).await;
        let Err(error) = started else { panic!("it started: {told}") };
        assert!(error.contains(told), "{told} is not in:\n{error}");
    }
    // What needs neither network nor program is found without serving.
    let config = write(&world, &(docs("one") + &docs("two")), "[one]");
    let checked = daybook().args(["check", "--config"]).arg(&config).output().await.unwrap();
    let told = String::from_utf8(checked.stderr).unwrap();
    assert_eq!(checked.status.code(), Some(2), "{told}");
    assert!(told.contains("daybook.yaml:6:5: the source \"one\" and the source \"two\" both have a tool"), "{told}");
    all_ended(&world).await;
}
