//! An answer that misses its shape, as clients see it.

use serde_json::{Value, json};

use crate::support::{Script, Stream, World, check_order, text};

const WRONG: &str = "{\"title\": \"Up\", \"year\": \"nine\", \"tags\": []}";
const RIGHT: &str = "{\"title\": \"Up\", \"year\": 2009, \"tags\": [\"balloons\"]}";

fn movie() -> Value {
    json!({"title": "Up", "year": 2009, "tags": ["balloons"]})
}

#[tokio::test]
async fn a_run_answers_in_its_shape_at_the_third_try_and_shows_how_it_came_to_it() {
    let world = World::new().await;
    let server = world.server().await;
    let script = Script::say(&["Up, ", "of 2009"]).then_say(&[WRONG]).then_say(&[RIGHT]).message();
    let run = server.api.run("struct-agent", &[("message", &script), ("session_id", "s")]).await;
    assert_eq!(
        (&run["status"], &run["content"], &run["content_type"]),
        (&json!("COMPLETED"), &movie(), &json!("Movie"))
    );
    assert_eq!(run["metrics"]["total_tokens"], 45, "three calls of fifteen");
    let said: Vec<(&Value, &Value, bool)> = run["messages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|message| (&message["role"], &message["content"], message["repair"] == true))
        .collect();
    assert_eq!(said.len(), 6);
    let roles = ["user", "assistant", "user", "assistant", "user", "assistant"];
    assert!(
        said.iter()
            .zip(roles)
            .enumerate()
            .all(|(at, ((is, _, repair), role))| **is == role && *repair == (at == 2 || at == 4))
    );
    assert!(text(said[2].1).contains("no JSON object") && text(said[4].1).contains("at /year: "), "{said:?}");
    assert_eq!((said[1].1, said[3].1, said[5].1), (&json!("Up, of 2009"), &json!(WRONG), &json!(RIGHT)));
    let events = world.database().assert_ended_once(text(&run["run_id"])).await;
    assert_eq!(events.iter().filter(|kind| *kind == "RunAnswerMissed").count(), 2);
}

#[tokio::test]
async fn a_stream_shows_the_mended_answer_alone() {
    let world = World::new().await;
    let server = world.server().await;
    let script = Script::say(&["Up, ", "of 2009"]).then_say(&[RIGHT]).message();
    let frames = server.api.stream("struct-agent", &[("message", &script), ("session_id", "s")]).await.rest().await;
    check_order(&frames);
    let names: Vec<&str> = frames.iter().map(|frame| frame.event.as_str()).collect();
    let call = ["ModelRequestStarted", "ModelRequestCompleted"];
    let last = ["ModelRequestStarted", "RunContent", "ModelRequestCompleted", "RunContentCompleted", "RunCompleted"];
    assert_eq!(names, [&["RunStarted"], &call[..], &last[..]].concat());
    let shown = &frames.iter().find(|frame| frame.event == "RunContent").unwrap().data;
    assert_eq!((&shown["content"], &shown["content_type"]), (&movie(), &json!("Movie")));
    assert_eq!(frames.last().unwrap().data["content"], movie());
    let (run, after) = (text(&frames[0].data["run_id"]), frames[0].data["event_index"].as_u64());
    let resumed: Stream = server.api.resume("struct-agent", run, "s", after).await;
    let again: Vec<Value> =
        resumed.rest().await.into_iter().filter(|frame| frame.event == "RunContent").map(|frame| frame.data).collect();
    assert_eq!(again.iter().map(|data| &data["content"]).collect::<Vec<_>>(), [&movie()]);
}

#[tokio::test]
async fn a_callers_shape_is_mended_twice_and_then_taken_as_it_is() {
    let world = World::new().await;
    let server = world.server().await;
    let schema = json!({"type": "object", "title": "Out", "required": ["a"], "properties": {"a": {"type": "string"}}});
    let ask = async |script: Script| {
        let (message, schema) = (script.message(), schema.to_string());
        server.api.run("my-agent", &[("message", &message), ("output_schema", &schema)]).await
    };
    let mended = ask(Script::say(&["{}"]).then_say(&["{\"a\": \"b\"}"])).await;
    assert_eq!((&mended["content"], &mended["content_type"]), (&json!({"a": "b"}), &json!("Out")));
    let missed = ask(Script::say(&["one"]).then_say(&["two"]).then_say(&["three"]).then_say(&["{\"a\": \"b\"}"])).await;
    assert_eq!((&missed["status"], &missed["content"]), (&json!("COMPLETED"), &json!("three")));
    assert_eq!(missed["content_type"], "str");
}

#[tokio::test]
async fn a_kill_in_the_middle_of_a_repair_goes_on_with_it() {
    let world = World::new().await;
    let server = world.server().await;
    let script = Script::say(&["words"]).then_say(&[RIGHT]).hold(0, "repair").message();
    let run = server.api.background("struct-agent", &[("message", &script), ("session_id", "s")]).await;
    world.model.arrived("repair", 1).await;
    server.kill().await;
    world.model.open("repair");
    let server = world.server().await;
    let done = server.api.until("struct-agent", &run, "s", "COMPLETED").await;
    assert_eq!(done["content"], movie());
    let asked = world.model.requests();
    assert_eq!((asked.len(), &asked[1]["messages"]), (3, &asked[2]["messages"]));
    let events = world.database().assert_ended_once(&run).await;
    assert_eq!(events.iter().filter(|kind| *kind == "RunAnswerMissed").count(), 1);
}
