//! Compacting a session, as a client does it.

use serde_json::{Value, json};

use crate::support::{Api, Script, Server, World, answer, eventually, text};

/// A server whose `compacts` keeps one run word for word, as `grows` does until it has much, and `plain` compacts nothing.
async fn server(world: &World) -> Server {
    let file = world.dir.path().join("daybook.yaml");
    let definitions = json!({
        "models": {"main": {"provider": "openai", "id": "fake-gpt", "base_url": world.model.url, "api_key": "k",
            "retries": 0}},
        "agents": [
            {"id": "compacts", "history_runs": 1, "compaction": {}},
            {"id": "grows", "history_runs": 1, "compaction": {"after_tokens": 1000}},
            {"id": "plain", "history_runs": 1},
        ],
    });
    std::fs::write(&file, definitions.to_string()).unwrap();
    world.serve(&file).await
}

async fn compact(api: &Api, agent: &str, session: &str, user: &str, status: u16) -> Value {
    let path = format!("/agents/{agent}/sessions/{session}/compact?user_id={user}");
    answer(api.post(&path).send().await.unwrap(), status).await
}

/// What the model was told last, without the system message.
fn told(world: &World) -> Vec<String> {
    let request = world.model.requests().pop().unwrap();
    let messages = request["messages"].as_array().unwrap().iter();
    messages.map(|message| text(&message["content"]).to_owned()).collect()
}

#[tokio::test]
async fn a_session_is_compacted_once_for_its_owner_and_later_runs_see_the_summary() {
    let world = World::new().await;
    let server = server(&world).await;
    let say = async |server: &Server, agent: &str, words: &str, session: &str| {
        let fields = [("message", words), ("session_id", session), ("user_id", "alice")];
        let run = server.api.run(agent, &fields).await;
        assert_eq!(run["status"], "COMPLETED");
        run
    };
    say(&server, "plain", "Hello", "p").await;
    let nothing = compact(&server.api, "plain", "p", "alice", 200).await;
    let expected = json!({"status": "not_enabled", "message": "Compaction is not enabled on this agent.",
        "compacted": false, "record": null, "metrics": null});
    assert_eq!(nothing, expected);
    let first = say(&server, "compacts", "I like tea", "s").await;
    let nothing = compact(&server.api, "compacts", "s", "alice", 200).await;
    assert_eq!((&nothing["status"], &nothing["compacted"]), (&json!("nothing_to_fold"), &json!(false)));
    say(&server, "compacts", "I live in Oslo", "s").await;

    // Whose it is not, or what is not there, is not found.
    for (agent, session, user) in
        [("compacts", "s", "bob"), ("compacts", "nowhere", "alice"), ("plain", "s", "alice"), ("gone", "s", "alice")]
    {
        compact(&server.api, agent, session, user, 404).await;
    }
    let asked = world.model.requests().len();
    let done = compact(&server.api, "compacts", "s", "alice", 200).await;
    assert_eq!((&done["status"], &done["compacted"]), (&json!("compacted"), &json!(true)), "{done}");
    assert_eq!(world.model.requests().len(), asked + 1);
    let record = &done["record"];
    assert_eq!((&record["summary"], &record["messages_compacted"]), (&json!("Hi Alice!"), &json!(2)));
    assert_eq!(record["runs"], json!([first["run_id"]]));
    assert_eq!(done["metrics"]["details"]["compaction_model"][0]["total_tokens"], 15);
    let again = compact(&server.api, "compacts", "s", "alice", 200).await;
    assert_eq!((&again["status"], &again["record"]), (&json!("already_compacted"), &Value::Null));
    assert_eq!(world.model.requests().len(), asked + 1);

    // What was summarised can be read as before, and what it cost counts for the session.
    let run = server.api.look("compacts", text(&first["run_id"]), "s").await.unwrap();
    assert_eq!((&run["content"], &run["input"]["input_content"]), (&json!("Hi Alice!"), &json!("I like tea")));
    let metrics = server.api.ok("/sessions/s?type=agent").await["metrics"].clone();
    assert_eq!((&metrics["total_tokens"], &metrics["details"]["model"][0]["total_tokens"]), (&json!(45), &json!(30)));
    assert_eq!(metrics["details"]["compaction_model"][0]["total_tokens"], 15);

    // It outlives the server.
    server.kill().await;
    let server = self::server(&world).await;
    let last = say(&server, "compacts", "Where do I live?", "s").await;
    let summary = "[The earlier part of this conversation, summarised]\nHi Alice!";
    assert_eq!(told(&world), [summary, "I live in Oslo", "Hi Alice!", "Where do I live?"]);
    let shown = server.api.look("compacts", text(&last["run_id"]), "s").await.unwrap()["messages"].clone();
    assert_eq!((&shown[0]["content"], &shown[0]["from_history"]), (&json!(summary), &json!(true)));
    assert_eq!(shown[0]["id"], record["id"]);
}

#[tokio::test]
async fn a_session_that_grows_is_compacted_by_itself() {
    let world = World::new().await;
    let server = server(&world).await;
    // Some 625 tokens each.
    let long = Script::long(1, 2500).message();
    for _ in 0..2 {
        server.api.run("grows", &[("message", &*long), ("session_id", "s")]).await;
    }
    eventually("a summary", async || {
        let session = server.api.ok("/sessions/s?type=agent").await;
        session["metrics"]["details"].get("compaction_model").map(drop)
    })
    .await;
    server.api.run("grows", &[("message", "And now?"), ("session_id", "s")]).await;
    let told = told(&world);
    assert_eq!((told.len(), told[0].ends_with("summarised]\nHi Alice!")), (4, true), "{told:?}");
    let nothing = compact(&server.api, "grows", "s", "alice", 200).await;
    assert_eq!(nothing["status"], "compacted", "asked for, it does not wait until there is much: {nothing}");
}
