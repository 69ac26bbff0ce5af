//! Sessions that are created before anything runs in them.

use reqwest::Response;
use serde_json::{Value, json};

use crate::support::{Api, Server, World, answer, text};

/// A server with an agent, a team and a workflow; the agent and the team start sessions with a state of their own.
async fn server(world: &World) -> Server {
    let file = world.dir.path().join("daybook.yaml");
    let state = json!({"count": 0, "color": "red"});
    let definitions = json!({
        "models": {"main": {"provider": "openai", "id": "fake-gpt", "base_url": world.model.url, "api_key": "k",
            "retries": 0}},
        "agents": [{"id": "helper", "session_state": state}],
        "teams": [{"id": "crew", "members": ["helper"], "session_state": state}],
        "workflows": [{"id": "flow", "steps": [{"name": "help", "agent": "helper"}]}],
    });
    std::fs::write(&file, definitions.to_string()).unwrap();
    world.serve(&file).await
}

async fn send(api: &Api, query: &str, body: &Value) -> Response {
    api.post(&format!("/sessions{query}")).json(body).send().await.unwrap()
}

async fn create(api: &Api, query: &str, body: &Value, status: u16) -> Value {
    answer(send(api, query, body).await, status).await
}

/// How many sessions there are.
async fn count(api: &Api) -> u64 {
    api.ok("/sessions").await["meta"]["total_count"].as_u64().unwrap()
}

#[tokio::test]
async fn a_session_is_created_and_runs_go_on_from_what_it_was_given() {
    let world = World::new().await;
    let server = server(&world).await;
    let body = json!({"session_id": "made", "session_name": "Made one", "user_id": "alice", "agent_id": "helper",
        "session_state": {"color": "blue", "api_key": "sk-very-secret"}, "metadata": {"m": 2, "password": "very-secret"}});
    let made = create(&server.api, "?type=agent", &body, 201).await;
    assert_eq!((&made["session_id"], &made["agent_session_id"]), (&json!("made"), &json!("made")));
    assert_eq!((&made["session_name"], &made["user_id"]), (&json!("Made one"), &json!("alice")));
    assert_eq!((&made["agent_id"], &made["chat_history"]), (&json!("helper"), &json!([])));
    assert_eq!((&made["session_state"]["color"], &made["metadata"]["m"]), (&json!("blue"), &json!(2)));
    assert!(!made.to_string().contains("very-secret"), "{made}");
    assert_eq!(server.api.ok("/sessions/made?user_id=alice").await, made);
    assert_eq!(server.api.ok("/sessions/made/runs").await, json!([]));

    let fields = [("message", "Hello"), ("session_id", "made"), ("user_id", "alice")];
    assert_eq!(server.api.run("helper", &fields).await["status"], "COMPLETED");
    let seen = server.api.ok("/sessions/made").await;
    assert_eq!((&seen["session_name"], &seen["metadata"]), (&json!("Made one"), &made["metadata"]));
    assert_eq!((&seen["session_state"]["color"], &seen["session_state"]["count"]), (&json!("blue"), &json!(0)));
    assert_eq!(seen["chat_history"].as_array().unwrap().len(), 2);
    assert_eq!(server.api.ok("/sessions?user_id=alice").await["data"][0]["session_id"], "made");

    // Whose it is not may not use it.
    let fields = [("message", "Hello"), ("session_id", "made"), ("user_id", "bob"), ("stream", "false")];
    answer(server.api.request("helper", &fields).send().await.unwrap(), 404).await;
}

#[tokio::test]
async fn teams_and_workflows_have_sessions_too_and_some_are_with_nobody_in_particular() {
    let world = World::new().await;
    let server = server(&world).await;
    let state = json!({"color": "blue"});
    let of_team = create(&server.api, "?type=team", &json!({"team_id": "crew", "session_state": state}), 201).await;
    let of_workflow =
        create(&server.api, "?type=workflow", &json!({"workflow_id": "flow", "session_state": state}), 201).await;
    assert_eq!((&of_team["team_id"], &of_team["session_name"]), (&json!("crew"), &json!("")));
    assert_eq!((&of_workflow["workflow_id"], &of_workflow["session_state"]), (&json!("flow"), &state));
    assert_eq!((&of_workflow["workflow_data"], &of_workflow["metadata"]), (&json!({}), &json!({})));
    let (team, workflow) = (text(&of_team["session_id"]), text(&of_workflow["session_id"]));
    for (kind, id, made) in [("team", team, &of_team), ("workflow", workflow, &of_workflow)] {
        assert_eq!(server.api.ok(&format!("/sessions/{id}")).await, *made);
        let listed = server.api.ok(&format!("/sessions?type={kind}")).await;
        assert_eq!((&listed["meta"]["total_count"], &listed["data"][0]["session_id"]), (&json!(1), &json!(id)));
    }
    let run = server.api.teams().run("crew", &[("message", "Hello"), ("session_id", team)]).await;
    assert_eq!(run["status"], "COMPLETED");
    let seen = server.api.ok(&format!("/sessions/{team}")).await;
    assert_eq!(
        (&seen["session_state"], &seen["session_name"]),
        (&json!({"color": "blue", "count": 0}), &json!("Hello"))
    );
    let run = server.api.workflows().run("flow", &[("message", "Hello"), ("session_id", workflow)]).await;
    assert_eq!(run["status"], "COMPLETED");
    assert_eq!(server.api.ok(&format!("/sessions/{workflow}")).await["session_state"]["color"], "blue");

    // No body at all is enough.
    let bare = answer(server.api.post("/sessions").send().await.unwrap(), 201).await;
    let id = text(&bare["session_id"]);
    assert_eq!((&bare["agent_id"], &bare["session_state"]), (&Value::Null, &json!({})));
    assert_eq!(server.api.ok(&format!("/sessions/{id}")).await, bare);
    assert_eq!(server.api.run("helper", &[("message", "Hello"), ("session_id", id)]).await["status"], "COMPLETED");
    assert_eq!(count(&server.api).await, 3);
}

#[tokio::test]
async fn the_same_id_twice_is_refused_and_the_same_command_twice_is_one_session() {
    let world = World::new().await;
    let server = server(&world).await;
    let body = json!({"session_id": "s", "user_id": "alice", "agent_id": "helper", "session_state": {"a": 1}});
    let keyed = async |server: &Server, body: &Value| {
        server.api.post("/sessions").header("Idempotency-Key", "k").json(body).send().await.unwrap()
    };
    let made = answer(keyed(&server, &body).await, 201).await;
    let exists = json!({"detail": "Session with id 's' already exists. Use PATCH /sessions/s to update it."});
    assert_eq!(create(&server.api, "?type=agent", &body, 409).await, exists);
    let other = json!({"session_id": "s", "user_id": "alice", "team_id": "crew"});
    assert_eq!(create(&server.api, "?type=team", &other, 409).await, exists);
    for stranger in [json!({"session_id": "s", "user_id": "bob"}), json!({"session_id": "s"})] {
        assert_eq!(create(&server.api, "", &stranger, 404).await, json!({"detail": "Session not found"}));
    }
    // One that a run began is there as well.
    server.api.run("helper", &[("message", "Hello"), ("session_id", "begun")]).await;
    create(&server.api, "", &json!({"session_id": "begun", "agent_id": "helper"}), 409).await;

    // The answer to the same command is the same, whatever became of the session, also after a restart.
    let fields = [("message", "Hello"), ("session_id", "s"), ("user_id", "alice"), ("session_state", "{\"a\": 2}")];
    server.api.run("helper", &fields).await;
    assert_eq!(answer(keyed(&server, &body).await, 201).await, made);
    server.kill().await;
    let server = self::server(&world).await;
    assert_eq!(answer(keyed(&server, &body).await, 201).await, made);
    assert_eq!(server.api.ok("/sessions/s").await["session_state"]["a"], 2);
    let told = answer(keyed(&server, &json!({"agent_id": "helper"})).await, 409).await;
    assert!(text(&told["detail"]).contains("Idempotency-Key"), "{told}");
    assert_eq!(count(&server.api).await, 2);
}

#[tokio::test]
async fn a_key_sent_many_times_at_once_makes_one_session() {
    let world = World::new().await;
    let server = server(&world).await;
    let mut asking = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let body = json!({"agent_id": "helper", "session_state": {"a": 1}});
        let request = server.api.post("/sessions").header("Idempotency-Key", "k").json(&body);
        asking.spawn(async move { answer(request.send().await.unwrap(), 201).await });
    }
    let answers = asking.join_all().await;
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:#?}");
    assert_eq!(count(&server.api).await, 1);
}

#[tokio::test]
async fn what_cannot_be_created_is_told_and_nothing_is_there() {
    let world = World::new().await;
    let server = server(&world).await;
    let cases = [
        ("", json!({"agent_id": "nobody"}), 404, "Agent not found"),
        ("?type=team", json!({"team_id": "helper"}), 404, "Team not found"),
        ("?type=workflow", json!({"workflow_id": "crew"}), 404, "Workflow not found"),
        ("?type=agent", json!({"team_id": "crew"}), 422, "team_id"),
        ("?type=team", json!({}), 422, "team_id"),
        ("?type=crowd", json!({}), 422, "type"),
        ("?db_id=other", json!({}), 404, "No database found"),
        ("", json!([1]), 422, "valid dictionary"),
        ("", json!({"session_id": "a\nb"}), 422, "control characters"),
        ("", json!({"session_id": "x".repeat(256)}), 422, "at most 255 bytes"),
        ("", json!({"user_id": 5}), 422, "user_id"),
        ("", json!({"session_name": "x".repeat(1001)}), 422, "1000 characters"),
        ("", json!({"session_state": "a"}), 422, "session_state"),
        ("", json!({"metadata": []}), 422, "metadata"),
        ("", json!({"metadata": {"m": "x".repeat(1 << 20)}}), 413, "maximum size"),
    ];
    for (query, body, status, why) in cases {
        let told = create(&server.api, query, &body, status).await;
        assert!(told["detail"].to_string().contains(why), "{query} {status} {why}: {told}");
    }
    for broken in ["{", "{\"session_id\": \"s\"", "\u{0}", "nope"] {
        let told = answer(server.api.post("/sessions").body(broken).send().await.unwrap(), 422).await;
        assert!(told["detail"].to_string().contains("Invalid JSON"), "{told}");
    }
    assert_eq!(count(&server.api).await, 0);
}
