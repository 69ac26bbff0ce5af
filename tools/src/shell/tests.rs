use std::fs;
use std::process::Stdio;
use std::time::Instant;

use daybook_domain::tool::Gate;
use serde_json::json;
use tempfile::TempDir;

use super::*;
use crate::testing::{arguments, context};
use crate::{Choice, choose};

struct Place {
    dir: TempDir,
    tool: Arc<dyn Tool>,
}

impl Place {
    fn new(change: impl FnOnce(&mut ShellOptions)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut options = ShellOptions { shell: true, ..ShellOptions::new(dir.path()) };
        change(&mut options);
        let tool = shell(&options).unwrap().remove(0);
        Self { dir, tool }
    }

    async fn run(&self, command: &str) -> Result<String, ToolError> {
        let call = self.tool.call(context(), arguments(json!({"command": command})));
        call.await.map(|output| output.text)
    }

    /// The process ids that a command wrote to files, once all are there.
    async fn pids(&self, names: &[&str]) -> Vec<String> {
        pids(self.dir.path(), names).await
    }
}

async fn pids(dir: &Path, names: &[&str]) -> Vec<String> {
    let mut pids = Vec::new();
    for name in names {
        let began = Instant::now();
        loop {
            match fs::read_to_string(dir.join(name)) {
                Ok(pid) if pid.ends_with('\n') => {
                    pids.push(pid.trim().to_owned());
                    break;
                }
                _ => assert!(began.elapsed() < Duration::from_secs(20), "{name} was not written"),
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    pids
}

/// Whether it has ended, also when nobody has asked how.
fn gone(pid: &str) -> bool {
    let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { return true };
    let state = stat.rsplit_once(") ").map(|(_, rest)| rest.chars().next());
    matches!(state, Some(Some('Z' | 'X')))
}

async fn all_gone(pids: &[String]) {
    let began = Instant::now();
    while !pids.iter().all(|pid| gone(pid)) {
        assert!(began.elapsed() < Duration::from_secs(10), "{pids:?} live on");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A shell, its child, a grandchild that nobody waits for, and one that left their process group.
const FAMILY: &str = "echo $$ > one; (setsid sh -c 'echo $$ > four; exec sleep 1000' >/dev/null 2>&1 &); sh -c 'echo $$ > two; (sh -c \"echo \\$\\$ > three; sleep 1000\" &) ; sleep 1000'; true";

#[test]
fn a_person_is_always_asked() {
    let place = Place::new(|_| {});
    let spec = place.tool.spec();
    assert_eq!((&spec.gate, spec.effect, spec.retries), (&Gate::Confirmation, Effect::Unsafe, 0));
    assert!(spec.timeout_seconds > 60 && place.tool.must_ask());
    for rule in [json!({"confirmation": false}), json!({"external": true}), json!({"user_input": []})] {
        let choice: Choice = serde_json::from_value(json!({"rules": {"run_command": rule}})).unwrap();
        assert!(choose("shell", vec![Arc::clone(&place.tool)], &choice).is_err());
    }
}

#[tokio::test]
async fn a_command_gives_its_code_and_both_outputs() {
    let place = Place::new(|_| {});
    let ran = place.run("echo one; echo two >&2; exit 3").await.unwrap();
    assert_eq!(ran, "exit code: 3\nstdout:\none\n\nstderr:\ntwo\n");
    assert!(place.run("kill -TERM $$").await.unwrap().starts_with("ended by signal 15\n"));
    let dir = fs::canonicalize(place.dir.path()).unwrap();
    assert!(place.run("pwd -P").await.unwrap().contains(&format!("stdout:\n{}\n", dir.display())));
    assert_eq!(place.run("cat; echo end").await.unwrap(), "exit code: 0\nstdout:\nend\n\nstderr:\n", "no input");
    for command in ["", " ", "a\0b"] {
        assert!(matches!(place.run(command).await, Err(ToolError::Arguments(_))));
    }
}

#[tokio::test]
async fn only_the_listed_programs_run_and_no_shell() {
    let place = Place::new(|options| {
        options.shell = false;
        options.allow = vec!["echo".to_owned(), "/bin/cat".to_owned()];
    });
    let ran = place.run("echo 'a  b' \"$HOME\" ; rm -rf x | cat > y && `id` *").await.unwrap();
    assert_eq!(ran, "exit code: 0\nstdout:\na  b $HOME ; rm -rf x | cat > y && `id` *\n\nstderr:\n");
    assert!(place.run("/bin/cat /dev/null").await.is_ok());
    for command in ["sh -c 'echo x'", "./echo", "/bin/echo", "cat x", "A=b echo", "'echo ' x", "echo 'open", "# echo"] {
        let fault = place.run(command).await;
        assert!(matches!(fault, Err(ToolError::Arguments(_))), "{command}: {fault:?}");
    }
    for command in ["ls; id", "", "echo 'open", "echo\0", "ls"] {
        let fault = place.tool.check(&arguments(json!({"command": command})));
        assert!(matches!(fault, Err(ToolError::Arguments(_))), "{command:?} is known before anybody is asked");
    }
    assert_eq!(place.tool.check(&arguments(json!({"command": "echo x"}))), Ok(()));
    let prefixed =
        choose("shell", vec![Arc::clone(&place.tool)], &Choice { prefix: Some("x_".into()), ..Choice::default() });
    let prefixed = crate::altered(prefixed.unwrap().remove(0), |spec| spec);
    assert!(prefixed.check(&arguments(json!({"command": "ls"}))).is_err());
    let known = place.run("ls").await.unwrap_err().to_string();
    assert!(known.contains("echo, /bin/cat"), "{known}");
    // A program of the same name in the directory is not taken.
    fs::write(place.dir.path().join("echo"), "#!/bin/sh\ntouch stolen\n").unwrap();
    place.run("echo x").await.unwrap();
    assert!(!place.dir.path().join("stolen").exists());
}

#[tokio::test]
async fn nothing_of_the_environment_but_what_is_named_is_seen() {
    assert!(std::env::vars_os().count() > 2, "there is something to hide");
    let seen = |text: &str| -> Vec<String> {
        let lines = text.lines().filter_map(|line| line.split_once('=')).map(|(name, _)| name.to_owned());
        let mut names: Vec<String> = lines.filter(|name| !["PWD", "SHLVL", "_", "OLDPWD"].contains(&&**name)).collect();
        names.sort();
        names
    };
    let nothing = Place::new(|_| {}).run("env").await.unwrap();
    assert_eq!(seen(&nothing), ["DAYBOOK_FAMILY", "PATH"]);
    assert!(nothing.contains("PATH=/usr/local/bin:/usr/bin:/bin\n"));
    // Cargo sets this one.
    let one = Place::new(|options| {
        options.environment = vec!["CARGO_MANIFEST_DIR".to_owned(), "THERE_IS_NONE".to_owned(), "PATH".to_owned()];
    });
    let text = one.run("env").await.unwrap();
    assert_eq!(seen(&text), ["CARGO_MANIFEST_DIR", "DAYBOOK_FAMILY", "PATH"]);
    assert!(text.contains(&format!("CARGO_MANIFEST_DIR={}\n", env!("CARGO_MANIFEST_DIR"))));
}

#[tokio::test]
async fn output_is_bounded_while_it_is_read() {
    let place = Place::new(|options| options.max_output_bytes = NonZeroU32::new(1000).unwrap());
    let ran =
        place.run("head -c 300000000 /dev/zero | tr '\\0' x; echo end; head -c 5000 /dev/zero >&2").await.unwrap();
    assert!(ran.len() < 2_300 && ran.contains("[299999004 bytes left out]"), "{}: {ran}", ran.len());
    assert!(ran.contains("xend\n\nstderr:\n"), "the end is kept: {ran}");
}

#[tokio::test]
async fn the_whole_family_dies_when_the_time_is_over() {
    let place = Place::new(|options| options.timeout_seconds = NonZeroU32::MIN);
    let began = Instant::now();
    let fault = place.run(&format!("echo before; {FAMILY}")).await.unwrap_err();
    assert!(
        matches!(&fault, ToolError::Failed(said) if said.contains("1 seconds") && said.contains("before")),
        "{fault}"
    );
    assert!(began.elapsed() < Duration::from_secs(4));
    all_gone(&place.pids(&["one", "two", "three", "four"]).await).await;
}

#[tokio::test]
async fn the_whole_family_dies_when_the_call_is_dropped() {
    let place = Place::new(|_| {});
    let pids = tokio::select! {
        ran = place.run(FAMILY) => panic!("{ran:?}"),
        pids = place.pids(&["one", "two", "three", "four"]) => pids,
    };
    all_gone(&pids).await;
}

#[tokio::test]
async fn what_a_command_left_running_dies_with_it() {
    let place = Place::new(|_| {});
    let began = Instant::now();
    let ran = place.run("sh -c 'echo $$ > left; exec sleep 1000' & while ! [ -s left ]; do :; done; echo done").await;
    assert_eq!(ran.unwrap(), "exit code: 0\nstdout:\ndone\n\nstderr:\n");
    // It is in a session and a group of its own, and nobody's child.
    let ran =
        place.run("(setsid sh -c 'echo $$ > far; exec sleep 1000' &); while ! [ -s far ]; do :; done; echo done").await;
    assert_eq!(ran.unwrap(), "exit code: 0\nstdout:\ndone\n\nstderr:\n");
    assert!(began.elapsed() < Duration::from_secs(10), "it does not wait for it");
    all_gone(&place.pids(&["left", "far"]).await).await;
}

const AS_SERVER: &str = "DAYBOOK_TEST_SHELL_DIRECTORY";

/// Not a test: the server that the next test kills.
#[tokio::test]
#[ignore = "run by the test of a server that is killed"]
async fn a_server_that_will_be_killed() {
    let Some(dir) = std::env::var_os(AS_SERVER) else { return };
    let tool = shell(&ShellOptions { shell: true, ..ShellOptions::new(dir) }).unwrap().remove(0);
    let _ = tool.call(context(), arguments(json!({"command": FAMILY}))).await;
}

#[tokio::test]
async fn the_whole_family_dies_with_a_server_that_is_killed() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = tokio::process::Command::new(std::env::current_exe().unwrap());
    server.args(["--ignored", "--exact", "shell::tests::a_server_that_will_be_killed"]).env(AS_SERVER, dir.path());
    let mut server = server.stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true).spawn().unwrap();
    let pids = pids(dir.path(), &["one", "two", "three", "four"]).await;
    assert!(!pids.iter().any(|pid| gone(pid)));
    server.kill().await.unwrap();
    all_gone(&pids).await;
}

#[test]
fn options_that_contradict_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let fault = |change: fn(&mut ShellOptions)| {
        let mut options = ShellOptions { allow: vec!["echo".to_owned()], ..ShellOptions::new(dir.path()) };
        change(&mut options);
        shell(&options).map(|_| ()).unwrap_err().to_string()
    };
    assert!(fault(|options| options.shell = true).contains("exclude each other"));
    assert!(fault(|options| options.allow.clear()).contains("shell: true"));
    assert!(fault(|options| options.allow.push("no-such-program".to_owned())).contains("install it"));
    for program in ["", "./echo", "bin/echo", "/", "/bin"] {
        let mut options = ShellOptions::new(dir.path());
        options.allow = vec![program.to_owned()];
        assert!(matches!(shell(&options).map(|_| ()), Err(ShellError::Program { .. })), "{program}");
    }
    assert!(fault(|options| options.environment.push("A=b".to_owned())).contains("names only"));
    assert!(fault(|options| options.directory = "/no/such/place".into()).contains("create it"));
    assert!(fault(|options| options.timeout_seconds = NonZeroU32::MAX).contains("the most is 3600"));
    let given = json!({"directory": "/tmp", "allow": ["git"], "timeout_seconds": 5, "environment": ["HOME"]});
    assert!(serde_json::from_value::<ShellOptions>(given).is_ok());
    assert!(serde_json::from_value::<ShellOptions>(json!({"directory": "/", "sandbox": true})).is_err());
}
