//! Ways out of the directory, and things in it that are no files.

use std::fs;
use std::os::unix::fs::symlink;

use proptest::prelude::*;
use serde_json::json;

use super::*;

#[tokio::test]
async fn paths_that_are_none_are_refused() {
    let place = Place::new();
    for path in ["", "/etc/passwd", "../outside/secret.txt", "a/../../outside/secret.txt", "a\0b", "..", "a/../b"] {
        place.refused(path).await;
    }
    place.refused(&"x".repeat(256)).await;
    place.refused(&"x/".repeat(5000)).await;
    place.refused(&place.base.path().join("outside/secret.txt").display().to_string()).await;
    for path in [".", "./", "./."] {
        for (tool, given) in every(path).into_iter().filter(|(tool, _)| !["list_files", "search_files"].contains(tool))
        {
            assert!(matches!(place.call(tool, given).await, Err(ToolError::Arguments(_))), "{tool} {path}");
        }
    }
    assert_eq!(place.outside().len(), 3);
}

#[tokio::test]
async fn links_that_lead_out_are_not_followed() {
    let place = Place::new();
    let (root, base) = (place.root(), place.base.path());
    let before = place.outside();
    symlink(base.join("outside/secret.txt"), root.join("absolute")).unwrap();
    symlink("../outside/secret.txt", root.join("relative")).unwrap();
    symlink("../outside", root.join("dir")).unwrap();
    symlink("relative", root.join("chain1")).unwrap();
    symlink("chain1", root.join("chain2")).unwrap();
    symlink("/proc/self/root", root.join("magic")).unwrap();
    symlink("loop", root.join("loop")).unwrap();
    symlink("../outside/new.txt", root.join("dangling")).unwrap();
    for path in ["absolute", "relative", "chain1", "chain2", "loop", "dangling"] {
        for (tool, given) in every(path).into_iter().filter(|(tool, _)| *tool != "delete_file") {
            let answer = place.call(tool, given).await;
            assert!(matches!(answer, Err(ToolError::Arguments(_))), "{tool} {path:?}: {answer:?}");
        }
    }
    for path in ["dir/secret.txt", "dir/new.txt", "dir/deep/new/file.txt", "magic/etc/passwd", "loop/x"] {
        for (tool, given) in every(path) {
            let answer = place.call(tool, given).await;
            assert!(matches!(answer, Err(ToolError::Arguments(_))), "{tool} {path:?}: {answer:?}");
        }
    }
    for path in ["dir", "magic"] {
        place.refused_but_deleted(path).await;
    }
    let all = place.call("search_files", json!({"text": "SECRET"})).await.unwrap();
    assert_eq!(all, "[not found in 0 files]\n");
    let listed = place.call("list_files", json!({"recursive": true})).await.unwrap();
    assert!(listed.contains("relative -> ../outside/secret.txt\n") && !listed.contains("deep"), "{listed}");
    // The link goes, not what it leads to.
    assert!(place.call("delete_file", json!({"path": "relative"})).await.unwrap().starts_with("deleted"));
    assert_eq!(place.outside(), before);
}

impl Place {
    async fn refused_but_deleted(&self, path: &str) {
        for (tool, given) in every(path) {
            let answer = self.call(tool, given).await;
            let deleted = tool == "delete_file" && answer.is_ok();
            assert!(deleted || matches!(answer, Err(ToolError::Arguments(_))), "{tool} {path:?}: {answer:?}");
        }
    }
}

#[tokio::test]
async fn links_within_are_followed_but_not_replaced() {
    let place = Place::new();
    place.put("real/a.txt", "one");
    symlink("real", place.root().join("dir")).unwrap();
    symlink("real/a.txt", place.root().join("file")).unwrap();
    symlink("../real/a.txt", place.root().join("real/up")).unwrap();
    for path in ["dir/a.txt", "file", "real/up"] {
        assert_eq!(place.call("read_file", json!({"path": path})).await.unwrap(), "one");
    }
    let fault = place.call("write_file", json!({"path": "file", "content": "x"})).await.unwrap_err();
    assert!(fault.to_string().contains("is a link"), "{fault}");
    place.call("write_file", json!({"path": "dir/a.txt", "content": "two"})).await.unwrap();
    assert_eq!(place.get("real/a.txt"), "two");
}

#[tokio::test]
async fn a_hard_link_belongs_to_the_directory_and_writing_replaces_it_alone() {
    let place = Place::new();
    fs::hard_link(place.base.path().join("outside/secret.txt"), place.root().join("hard")).unwrap();
    assert_eq!(place.call("read_file", json!({"path": "hard"})).await.unwrap(), "SECRET");
    place.call("write_file", json!({"path": "hard", "content": "mine"})).await.unwrap();
    assert_eq!(place.get("hard"), "mine");
    assert_eq!(fs::read_to_string(place.base.path().join("outside/secret.txt")).unwrap(), "SECRET");
}

#[tokio::test]
async fn what_is_not_a_file_does_not_hang_anything() {
    let place = Place::new();
    let fifo = place.root().join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(place.root().join("socket")).unwrap();
    symlink("fifo", place.root().join("link")).unwrap();
    for path in ["fifo", "socket", "link"] {
        for (tool, given) in every(path).into_iter().filter(|(tool, _)| (*tool, path) != ("delete_file", "link")) {
            let answer = place.call(tool, given).await;
            assert!(matches!(answer, Err(ToolError::Arguments(_))), "{tool} {path}: {answer:?}");
        }
    }
    place.put("a.txt", "needle");
    assert_eq!(place.call("search_files", json!({"text": "needle"})).await.unwrap(), "a.txt:1: needle\n");
    let listed = place.call("list_files", json!({})).await.unwrap();
    assert!(listed.contains("fifo (neither a file nor a directory)"), "{listed}");
    assert!(fifo.exists(), "it is left alone");
}

#[test]
fn whatever_the_path_nothing_outside_is_read_or_changed() {
    let place = Place::new();
    place.put("dir/inner.txt", "inner");
    symlink("../outside", place.root().join("out")).unwrap();
    symlink("/", place.root().join("slash")).unwrap();
    let before = place.outside();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let part = prop_oneof![
        Just("..".to_owned()),
        Just(".".to_owned()),
        Just(String::new()),
        Just("out".to_owned()),
        Just("slash".to_owned()),
        Just("dir".to_owned()),
        Just("secret.txt".to_owned()),
        Just("deep".to_owned()),
        Just("inner.txt".to_owned()),
        Just("proc/self/root".to_owned()),
        Just(place.base.path().display().to_string()),
        any::<String>(),
    ];
    let paths = prop::collection::vec(part, 1..6).prop_map(|parts| parts.join("/"));
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
        cases: 300,
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    let tried = runner.run(&paths, |path| {
        for (tool, given) in every(&path) {
            // The links stay for the next path.
            if tool == "delete_file" && (path.ends_with("out") || path.ends_with("slash")) {
                continue;
            }
            let answer = runtime.block_on(place.call(tool, given));
            let text = answer.unwrap_or_else(|error| error.to_string());
            prop_assert!(!text.contains("SECRET"), "{tool} {path:?}: {text}");
        }
        prop_assert_eq!(place.outside(), before.clone(), "{:?}", path);
        Ok(())
    });
    tried.unwrap();
}

/// The handle, not our check of the text, is what holds: also when the check would let everything pass.
#[test]
fn the_handle_alone_holds() {
    let place = Place::new();
    symlink("../outside", place.root().join("out")).unwrap();
    let root = Root::open(&FilesOptions::new(place.root())).unwrap();
    for path in ["../outside/secret.txt", "out/secret.txt", "/etc/passwd", "x/../../outside/secret.txt"] {
        let path = root::InRoot { path: path.into() };
        assert!(matches!(root.read(&path), Err(ToolError::Arguments(_))), "{path}");
    }
}
