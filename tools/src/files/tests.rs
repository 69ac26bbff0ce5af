mod escape;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use daybook_domain::media::MediaContent;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::*;
use crate::testing::{arguments, context};

/// A directory with a secret beside it.
struct Place {
    base: TempDir,
    tools: BTreeMap<String, Arc<dyn Tool>>,
}

impl Place {
    fn new() -> Self {
        Self::with(|_| {})
    }

    fn with(change: impl FnOnce(&mut FilesOptions)) -> Self {
        let base = tempfile::tempdir().unwrap();
        fs::create_dir_all(base.path().join("outside/deep")).unwrap();
        fs::create_dir(base.path().join("root")).unwrap();
        fs::write(base.path().join("outside/secret.txt"), "SECRET").unwrap();
        let mut options = FilesOptions { write: true, ..FilesOptions::new(base.path().join("root")) };
        change(&mut options);
        let tools = files(&options).unwrap().into_iter().map(|tool| (tool.spec().name.clone(), tool)).collect();
        Self { base, tools }
    }

    fn root(&self) -> std::path::PathBuf {
        self.base.path().join("root")
    }

    fn put(&self, path: &str, content: impl AsRef<[u8]>) {
        let path = self.root().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    fn get(&self, path: &str) -> String {
        fs::read_to_string(self.root().join(path)).unwrap()
    }

    async fn output(&self, tool: &str, given: Value) -> Result<ToolOutput, ToolError> {
        let call = self.tools[tool].call(context(), arguments(given));
        tokio::time::timeout(Duration::from_secs(20), call).await.expect("it does not hang")
    }

    async fn call(&self, tool: &str, given: Value) -> Result<String, ToolError> {
        self.output(tool, given).await.map(|output| output.text)
    }

    /// Calls everything with a path; all must refuse it as an argument.
    async fn refused(&self, path: &str) {
        for (tool, given) in every(path) {
            let answer = self.call(tool, given).await;
            assert!(matches!(answer, Err(ToolError::Arguments(_))), "{tool} {path:?}: {answer:?}");
        }
    }

    fn outside(&self) -> Vec<(String, String)> {
        let mut all = Vec::new();
        let mut dirs = vec![self.base.path().to_owned()];
        while let Some(dir) = dirs.pop() {
            for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
                if entry.path() == self.root() {
                    continue;
                }
                let text = fs::read_to_string(entry.path()).unwrap_or_default();
                all.push((entry.path().display().to_string(), text));
                if entry.file_type().unwrap().is_dir() {
                    dirs.push(entry.path());
                }
            }
        }
        all
    }
}

fn every(path: &str) -> [(&'static str, Value); 6] {
    [
        ("list_files", json!({"path": path, "recursive": true})),
        ("read_file", json!({"path": path})),
        ("search_files", json!({"path": path, "text": "SECRET"})),
        ("write_file", json!({"path": path, "content": "x"})),
        ("edit_file", json!({"path": path, "old_text": "SECRET", "new_text": "x"})),
        ("delete_file", json!({"path": path})),
    ]
}

#[test]
fn effects_are_as_recovery_needs_them_and_writing_is_off_unless_said() {
    let place = Place::new();
    let effects: Vec<_> = place.tools.iter().map(|(name, tool)| (name.as_str(), tool.spec().effect)).collect();
    let expected = [
        ("delete_file", Effect::Idempotent),
        ("edit_file", Effect::Unsafe),
        ("list_files", Effect::Pure),
        ("read_file", Effect::Pure),
        ("search_files", Effect::Pure),
        ("write_file", Effect::Idempotent),
    ];
    assert_eq!(effects, expected);
    assert_eq!(Place::with(|options| options.write = false).tools.len(), 3);
    let options: FilesOptions = serde_json::from_value(json!({"root": "/nowhere/at/all"})).unwrap();
    assert!(!options.write && options.max_file_bytes.get() == 1 << 20);
    assert!(files(&options).map(|_| ()).unwrap_err().to_string().contains("create it"));
    assert!(serde_json::from_value::<FilesOptions>(json!({"root": "/", "wirte": true})).is_err());
}

#[tokio::test]
async fn text_is_read_in_parts() {
    let place = Place::with(|options| options.max_file_bytes = NonZeroU32::new(20_000).unwrap());
    let read = async |path: &str, offset: Value, limit: Value| {
        place.call("read_file", json!({"path": path, "offset": offset, "limit": limit})).await
    };
    place.put("a.txt", "one\r\ntwo\nthree");
    assert_eq!(read("a.txt", Value::Null, Value::Null).await.unwrap(), "one\r\ntwo\nthree");
    let part = read("a.txt", json!(2), json!(1)).await.unwrap();
    assert_eq!(part, "two\n[lines 2 to 2 of 3; read on with offset 3]");
    assert_eq!(read("a.txt", json!(3), Value::Null).await.unwrap(), "three\n[lines 3 to 3 of 3]");
    assert!(matches!(read("a.txt", json!(4), Value::Null).await, Err(ToolError::Arguments(_))));
    assert!(matches!(read("a.txt", json!(0), Value::Null).await, Err(ToolError::Arguments(_))));
    place.put("empty", "");
    assert_eq!(read("empty", Value::Null, Value::Null).await.unwrap(), "[\"empty\" is empty]");
    place.put("long", "åäö\n".repeat(5_000));
    let long = read("long", json!(1), json!(1)).await.unwrap();
    assert!(long.contains("[lines 1 to 1 of 2857; read on with offset 2; of its 35000 bytes only"), "{long}");
    let default = read("long", Value::Null, Value::Null).await.unwrap();
    assert!(default.contains("[lines 1 to 2000 of 2857"), "the usual limit");
    place.put("data", [0, 1, 2, 255]);
    assert_eq!(
        read("data", Value::Null, Value::Null).await.unwrap(),
        "[\"data\" is binary: application/octet-stream, 4 bytes]"
    );
    assert!(matches!(read("nope", Value::Null, Value::Null).await, Err(ToolError::Arguments(_))));
    let big = Place::new();
    big.put("line", "x".repeat(200_000));
    let line = big.call("read_file", json!({"path": "line"})).await.unwrap();
    assert!(line.len() < 132_000 && line.contains("[line 1 of 1 has 200000 bytes"), "{}", &line[line.len() - 90..]);
    big.put("lines", "0123456789\n".repeat(90_000));
    let lines = big.call("read_file", json!({"path": "lines", "limit": 100_000})).await.unwrap();
    assert!(lines.len() < 132_000 && lines.contains("read on with offset 11916"), "{}", &lines[lines.len() - 90..]);
}

#[tokio::test]
async fn pictures_are_shown() {
    let place = Place::with(|options| options.max_file_bytes = NonZeroU32::new(100).unwrap());
    let png = b"\x89PNG\r\n\x1a\nrest".to_vec();
    place.put("a.png", &png);
    let output = place.output("read_file", json!({"path": "a.png"})).await.unwrap();
    assert_eq!(output.media.len(), 1);
    let media = &output.media[0];
    assert_eq!((media.mime_type.as_deref(), media.filename.as_deref()), (Some("image/png"), Some("a.png")));
    use base64::Engine as _;
    let encoded = base64::engine::general_purpose::STANDARD.encode(&png);
    assert_eq!(media.content, MediaContent::Base64(encoded));
    place.put("big.png", [png, vec![0; 200]].concat());
    let output = place.output("read_file", json!({"path": "big.png"})).await.unwrap();
    assert!(output.media.is_empty() && output.text.contains("100 are the most"), "{}", output.text);
}

#[tokio::test]
async fn lists_are_bounded_and_say_so() {
    let place = Place::with(|options| options.max_entries = NonZeroU32::new(3).unwrap());
    assert_eq!(place.call("list_files", json!({})).await.unwrap(), "[nothing]\n");
    place.put("a.md", "12");
    place.put("b/c.md", "1");
    place.put("b/d/e.txt", "1");
    assert_eq!(place.call("list_files", json!({})).await.unwrap(), "a.md (2 bytes)\nb/\n");
    assert_eq!(place.call("list_files", json!({"path": "b"})).await.unwrap(), "b/c.md (1 bytes)\nb/d/\n");
    let all = place.call("list_files", json!({"recursive": true})).await.unwrap();
    assert!(all.ends_with("b/c.md (1 bytes)\n[these are the first 3; name a directory or a pattern to see others]\n"));
    let some = place.call("list_files", json!({"glob": "*.md", "recursive": true})).await.unwrap();
    assert_eq!(some, "a.md (2 bytes)\nb/c.md (1 bytes)\n");
    let paths = place.call("list_files", json!({"glob": "b/**/*.txt"})).await.unwrap();
    assert_eq!(paths, "b/d/e.txt (1 bytes)\n");
    assert!(matches!(place.call("list_files", json!({"glob": "[a"})).await, Err(ToolError::Arguments(_))));
    assert!(matches!(place.call("list_files", json!({"path": "a.md"})).await, Err(ToolError::Arguments(_))));
    place.put("new\nline", "");
    let listed = place.call("list_files", json!({"glob": "new*"})).await.unwrap();
    assert_eq!(listed, "\"new\\nline\" (0 bytes)\n", "one line each");
    let deep = Place::new();
    deep.put(&format!("{}x", "d/".repeat(40)), "");
    let listed = deep.call("list_files", json!({"recursive": true})).await.unwrap();
    assert!(listed.ends_with("[left out: what is deeper than 32 directories]\n"), "{listed}");
}

#[tokio::test]
async fn a_search_finds_lines_and_is_bounded() {
    let place = Place::with(|options| {
        options.max_entries = NonZeroU32::new(3).unwrap();
        options.max_file_bytes = NonZeroU32::new(1000).unwrap();
    });
    place.put("a.txt", "one\nTwo needle\n");
    place.put("b/c.md", format!("{}needle{}\n", "x".repeat(400), "y".repeat(400)));
    place.put("data", b"needle\0");
    let search = async |given: Value| place.call("search_files", given).await;
    let found = search(json!({"text": "needle"})).await.unwrap();
    assert!(found.starts_with("a.txt:2: Two needle\nb/c.md:1: ...xxx") && found.contains("xneedley"), "{found}");
    assert!(!found.contains("data") && found.len() < 500, "{found}");
    assert_eq!(search(json!({"text": "two", "ignore_case": true})).await.unwrap(), "a.txt:2: Two needle\n");
    assert_eq!(search(json!({"text": "two"})).await.unwrap(), "[not found in 3 files]\n");
    assert_eq!(search(json!({"text": "one", "path": "a.txt"})).await.unwrap(), "a.txt:1: one\n");
    assert_eq!(search(json!({"text": "one", "glob": "*.md"})).await.unwrap(), "[not found in 1 files]\n");
    for text in ["", "  ", "a\nb"] {
        assert!(matches!(search(json!({"text": text})).await, Err(ToolError::Arguments(_))));
    }
    place.put("long", "line\n".repeat(300));
    let found = search(json!({"text": "line"})).await.unwrap();
    assert!(found.starts_with("long:1: line\nlong:2: line\nlong:3: line\n[there are more"), "{found}");
    assert!(found.contains("[of 1 long files only the first 1000 bytes were searched]"), "{found}");
}

#[tokio::test]
async fn files_are_written_as_a_whole() {
    let place = Place::with(|options| options.max_file_bytes = NonZeroU32::new(10).unwrap());
    let write = async |path: &str, content: &str| {
        place.call("write_file", json!({"path": path, "content": content})).await.map_err(|error| error.to_string())
    };
    assert_eq!(write("a/b/c.txt", "one").await.unwrap(), "created \"a/b/c.txt\", 3 bytes");
    fs::set_permissions(place.root().join("a/b/c.txt"), fs::Permissions::from_mode(0o640)).unwrap();
    assert_eq!(write("a/b/c.txt", "").await.unwrap(), "replaced \"a/b/c.txt\", 0 bytes");
    assert_eq!(fs::metadata(place.root().join("a/b/c.txt")).unwrap().permissions().mode() & 0o777, 0o640);
    assert!(write("x", "01234567890").await.unwrap_err().contains("10 are the most"));
    assert!(write("a/b", "x").await.unwrap_err().contains("left alone"));
    assert!(write("a/b/c.txt/d", "x").await.unwrap_err().contains("not a directory"));
    assert_eq!(fs::read_dir(place.root().join("a/b")).unwrap().count(), 1, "nothing is left beside it");
    let delete = async |path: &str| place.call("delete_file", json!({"path": path})).await;
    assert_eq!(delete("a/b/c.txt").await.unwrap(), "deleted \"a/b/c.txt\"");
    assert_eq!(delete("a/b/c.txt").await.unwrap(), "there is no \"a/b/c.txt\"", "a second call finds it done");
    assert_eq!(delete("no/such").await.unwrap(), "there is no \"no/such\"");
    assert!(matches!(delete("a/b").await, Err(ToolError::Arguments(_))));
    assert!(place.root().join("a/b").is_dir());
}

#[tokio::test]
async fn an_edit_needs_its_text_exactly_once() {
    let place = Place::new();
    place.put("a.txt", "one\ntwo aaa\n");
    let edit = async |old: &str, new: &str| {
        let given = json!({"path": "a.txt", "old_text": old, "new_text": new});
        place.call("edit_file", given).await.map_err(|error| error.to_string())
    };
    assert_eq!(edit("two", "2").await.unwrap(), "edited \"a.txt\" at line 2");
    assert_eq!(place.get("a.txt"), "one\n2 aaa\n");
    assert!(edit("two", "x").await.unwrap_err().contains("not in it"));
    assert!(edit("a", "x").await.unwrap_err().contains("more than once"));
    assert!(edit("aa", "x").await.unwrap_err().contains("more than once"), "also where both overlap");
    assert!(edit("", "x").await.unwrap_err().contains("is empty"));
    assert!(edit("one", "one").await.unwrap_err().contains("is what"));
    assert_eq!(place.get("a.txt"), "one\n2 aaa\n");
    place.put("a.txt", [b'o', 0xff]);
    assert!(edit("o", "x").await.unwrap_err().contains("UTF-8"));
}
