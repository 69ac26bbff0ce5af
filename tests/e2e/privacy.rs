//! What people say is kept as they said it, and lies nowhere in plain bytes.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::multipart::{Form, Part};
use serde_json::{Value, json};

use crate::support::{Script, World, said, text};

/// A sentence that occurs nowhere else.
fn planted(n: usize) -> String {
    format!("the planted sentence number {n} of {}", "ten little secrets")
}

#[tokio::test]
async fn ten_planted_sentences_lie_nowhere_in_plain_bytes() {
    let world = World::new().await;
    let server = world.server().await;
    let said: Vec<String> = (0..10).map(planted).collect();
    // 0: message, 1: tool argument (and result), 2: state, 3: model's text, 4: metadata, 5: dependencies,
    // 6: session state, 7: small file, 8: large file, 9: large binary file.
    let script = Script::call(&[
        ("get_weather", json!({"city": said[1]})),
        ("set_state", json!({"key": "k", "value": said[2]})),
    ])
    .then_say(&["I tell you ", &said[3]])
    .message_after(&format!("{}. ", said[0]));
    let large = format!("{}{}", said[8], " and more".repeat(20_000));
    let mut binary = vec![0xff_u8; 100_000];
    binary.extend_from_slice(said[9].as_bytes());
    let file =
        |bytes: Vec<u8>, name: &'static str, kind: &str| Part::bytes(bytes).file_name(name).mime_str(kind).unwrap();
    let form = Form::new()
        .text("message", script)
        .text("session_id", "s")
        .text("user_id", "alice")
        .text("metadata", json!({"m": said[4]}).to_string())
        .text("dependencies", json!({"d": said[5]}).to_string())
        .text("session_state", json!({"s": said[6]}).to_string())
        .part("files", file(said[7].clone().into_bytes(), "a.txt", "text/plain"))
        .part("files", file(large.into_bytes(), "b.txt", "text/plain"))
        .part("files", file(binary, "c.png", "image/png"));
    let answer = server.api.post("/agents/tool-agent/runs").multipart(form).send().await.unwrap();
    let frames = crate::support::Stream::new(answer).rest().await;
    let run = text(&frames[0].data["run_id"]).to_owned();
    // They were there: the model got them, and whoever may read them does.
    let asked = world.model.requests().iter().map(Value::to_string).collect::<String>();
    for n in [0, 1, 2, 7, 8] {
        assert!(asked.contains(&said[n]), "{n} was never told to the model");
    }
    let shown = server.api.look("tool-agent", &run, "s").await.unwrap().to_string();
    let state = server.api.session_state("s").await.to_string();
    for n in [0, 1, 2, 3, 4] {
        assert!(shown.contains(&said[n]), "{n} is not shown");
    }
    assert!(state.contains(&said[2]) && state.contains(&said[6]), "{state}");
    // Another run has them as history, and a restart writes what was in memory.
    server.api.run("tool-agent", &[("message", "Hello"), ("session_id", "s"), ("user_id", "alice")]).await;
    assert!(server.terminate().await.success());

    let database = world.database();
    for (table, count) in [
        ("events", database.count("SELECT count(*) FROM events WHERE personal IS NOT NULL AND $1 = ''", "").await),
        ("frames", database.count("SELECT count(*) FROM frames WHERE $1 = ''", "").await),
        ("blobs", database.count("SELECT count(*) FROM blobs WHERE $1 = ''", "").await),
    ] {
        assert!(count > 0, "nothing was written to {table}");
    }
    assert_eq!(database.count("SELECT count(*) FROM blobs WHERE $1 = ''", "").await, 2);
    let plain = "SELECT count(*) FROM events WHERE strpos(events::text, $1) > 0";
    assert!(database.count(plain, "tool-agent").await > 0, "what is not personal is found");
    for (n, sentence) in said.iter().enumerate() {
        // Base64 of it, wherever it begins in the bytes around.
        let coded = (0..3).map(|shift| {
            let code = STANDARD.encode([&vec![0; shift][..], sentence.as_bytes()].concat());
            code[4 * usize::from(shift > 0)..code.len() - 4].to_owned()
        });
        for form in coded.chain([sentence.clone(), sentence.to_uppercase()]) {
            for found in [
                "SELECT count(*) FROM events WHERE strpos(events::text, $1) > 0",
                "SELECT count(*) FROM events WHERE position(convert_to($1, 'UTF8') IN personal) > 0",
                "SELECT count(*) FROM frames WHERE position(convert_to($1, 'UTF8') IN body) > 0",
                "SELECT count(*) FROM blobs WHERE position(convert_to($1, 'UTF8') IN body) > 0",
                "SELECT count(*) FROM snapshots WHERE position(convert_to($1, 'UTF8') IN body) > 0",
                "SELECT count(*) FROM commands WHERE strpos(commands::text, $1) > 0",
            ] {
                assert_eq!(database.count(found, &form).await, 0, "sentence {n}: {found}");
            }
        }
    }
}

#[tokio::test]
async fn a_nul_in_every_text_passes_through_log_views_and_api() {
    let world = World::new().await;
    let server = world.server().await;
    let nul = |word: &str| format!("{word}\0{word}");
    let script = Script::call(&[("set_state", json!({"key": nul("key"), "value": nul("value")}))])
        .then_say(&["say\0", "say"])
        .message_after(&format!("{} ", nul("message")));
    let metadata = json!({nul("meta"): nul("meta")}).to_string();
    let state = json!({"own": nul("own")}).to_string();
    let file = Part::bytes(nul("file").into_bytes()).file_name("a.txt").mime_str("text/plain").unwrap();
    let form = Form::new()
        .text("message", script.clone())
        .text("session_id", "s")
        .text("run_id", "r")
        .text("stream", "false")
        .text("metadata", metadata)
        .text("session_state", state)
        .part("files", file);
    let answer = server.api.post("/agents/tool-agent/runs").multipart(form).send().await.unwrap();
    let status = answer.status();
    let plain: Value = answer.json().await.unwrap();
    assert_eq!(status, 200, "{plain}");
    assert_eq!((&plain["status"], &plain["content"]), (&json!("COMPLETED"), &json!("say\0say")));

    // The log keeps it to the byte, as a restart shows; so does what is posted from it.
    server.kill().await;
    let server = world.server().await;
    for run in [plain, server.api.look("tool-agent", "r", "s").await.unwrap()] {
        assert_eq!(run["content"], "say\0say");
        assert_eq!(run["input"]["input_content"], script);
        assert_eq!(run["metadata"][nul("meta")], nul("meta"));
        assert_eq!(run["tools"][0]["tool_args"], json!({"key": nul("key"), "value": nul("value")}));
        assert_eq!(run["tools"][0]["result"], format!("{}={}", nul("key"), nul("value")));
    }
    let state = server.api.session_state("s").await;
    assert_eq!((&state[nul("key")], &state["own"]), (&json!(nul("value")), &json!(nul("own"))));
    let sessions = server.api.ok("/sessions?type=agent").await;
    // Views have no U+0000 where people search and sort.
    assert!(text(&sessions["data"][0]["session_name"]).starts_with("message\u{fffd}message"), "{sessions}");
    assert_eq!(server.api.ok("/sessions/s/runs").await[0]["content"], "say\0say");
    let streamed = server.api.stream("tool-agent", &[("message", &script), ("session_id", "s")]).await.rest().await;
    assert_eq!(said(&streamed), "say\0say");
}
