//! A tool that says megabytes: the run goes on with its two ends, and the whole can be had.

use serde_json::{Value, json};

use crate::support::{Script, World, text};

/// What the tool `report` says, without what looks like a token.
fn report(lines: u32) -> String {
    let line = |n: u32| match n == lines / 2 {
        true => "Bearer [redacted]\n".to_owned(),
        false => format!("{n} is größer than € {n}\n"),
    };
    (0..lines).map(line).collect()
}

#[tokio::test]
async fn three_megabytes_are_kept_whole_over_a_restart_and_the_model_is_told_so() {
    let world = World::new().await;
    let server = world.server().await;
    let script = Script::call(&[("report", json!({"lines": 100_000}))]).then_say(&["Seen."]).message();
    let run = server.api.run("report-agent", &[("message", &script), ("session_id", "s")]).await;
    assert_eq!((&run["status"], &run["content"]), (&json!("COMPLETED"), &json!("Seen.")));
    let expected = report(100_000);
    assert!(expected.len() > 3_000_000);
    let whole = &run["tools"][0]["whole_result"];
    assert_eq!(whole["bytes"], expected.len());
    let shown = text(&run["tools"][0]["result"]);
    assert!(
        shown.len() < 65_536 && shown.starts_with("0 is größer") && shown.ends_with("€ 99999\n"),
        "{}",
        shown.len()
    );
    let asked = world.model.requests().pop().unwrap();
    let given = asked["messages"].as_array().unwrap().last().unwrap()["content"].clone();
    assert_eq!(text(&given), shown);
    let note = format!("of {} bytes are left out here. To read on, call read_result with result", expected.len());
    assert!(shown.contains(&note), "{note}");

    let (run, id) = (text(&run["run_id"]).to_owned(), text(&whole["id"]).to_owned());
    let path = |id: &str, session: &str| format!("/agents/report-agent/runs/{run}/results/{id}?session_id={session}");
    let first = server.api.get(&path(&id, "s")).send().await.unwrap();
    assert_eq!(first.headers()["content-type"], "text/plain; charset=utf-8");
    assert!(first.text().await.unwrap() == expected);
    server.kill().await;

    let server = world.server().await;
    let again = server.api.get(&path(text(&whole["sha256"]), "s")).send().await.unwrap();
    assert!(again.text().await.unwrap() == expected);
    let looked = server.api.look("report-agent", &run, "s").await.unwrap();
    assert_eq!(&looked["tools"][0]["whole_result"], whole);
    assert_eq!(
        &looked["messages"].as_array().unwrap().iter().rfind(|said| said["role"] == "tool").unwrap()["whole_result"],
        whole
    );
    for (id, session, status) in [("0123456789abcdef", "s", 404), (id.as_str(), "other", 404), (id.as_str(), "", 422)] {
        assert_eq!(server.api.get(&path(id, session)).send().await.unwrap().status(), status, "{id} {session}");
    }

    // The model reads on, in the run's next turn.
    let read = json!({"result": id, "find": "50001 is"});
    let script = Script::call(&[("read_result", read)]).then_say(&["Read."]).message();
    let more = [("session_id", "s"), ("input", script.as_str()), ("stream", "false")];
    let answer =
        server.api.post(&format!("/agents/report-agent/runs/{run}/continue")).form(&more).send().await.unwrap();
    let next: Value = answer.json().await.unwrap();
    let page = text(&next["tools"][0]["result"]);
    assert!(page.starts_with("[bytes ") && page.contains("]\n50001 is größer than € 50001\n50002 is"), "{page:.200}");
}
