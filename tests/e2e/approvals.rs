//! Runs that wait for a person, over kills and across servers: what was decided runs, once.

use serde_json::{Value, json};

use crate::support::{Script, Server, World, eventually, text};

const AGENT: &str = "asking-agent";

/// A run that waits for an approval, and the approval's id.
async fn paused(server: &Server, tool: &str, session: &str) -> (String, String) {
    let message = Script::call(&[(tool, json!({}))]).then_say(&["All ", "done."]).message();
    let fields = [("message", message.as_str()), ("session_id", session), ("user_id", "alice"), ("stream", "false")];
    let run = server.api.run(AGENT, &fields).await;
    assert_eq!(run["status"], "PAUSED", "{run}");
    (text(&run["run_id"]).to_owned(), text(&run["tools"][0]["approval_id"]).to_owned())
}

async fn resolve(server: &Server, approval: &str, status: &str) -> (u16, Value) {
    resolve_as(server, approval, json!({"status": status, "resolved_by": "boss"})).await
}

async fn resolve_as(server: &Server, approval: &str, body: Value) -> (u16, Value) {
    let body = body.to_string();
    let path = format!("/approvals/{approval}/resolve");
    let request = server.api.post(&path).header("content-type", "application/json").body(body);
    let response = request.send().await.unwrap();
    let status = response.status().as_u16();
    (status, serde_json::from_str(&response.text().await.unwrap()).unwrap())
}

async fn go_on(server: &Server, run: &str, session: &str, tools: &Value) -> (u16, Value) {
    let tools = tools.to_string();
    let fields = [("session_id", session), ("stream", "false"), ("tools", tools.as_str())];
    let request = server.api.post(&format!("/agents/{AGENT}/runs/{run}/continue")).form(&fields);
    let response = request.send().await.unwrap();
    let status = response.status().as_u16();
    (status, serde_json::from_str(&response.text().await.unwrap()).unwrap())
}

#[tokio::test]
async fn what_is_approved_after_a_kill_runs_once() {
    let world = World::new().await;
    let server = world.server().await;
    let (run, approval) = paused(&server, "ask_unsafe", "s").await;
    server.kill().await;
    let server = world.server().await;
    let listed = server.api.ok("/approvals?status=pending").await;
    assert_eq!((&listed["meta"]["total_count"], &listed["data"][0]["id"]), (&json!(1), &json!(approval)));
    assert_eq!(server.api.ok("/approvals/count").await, json!({"count": 1}));
    let (status, resolved) = resolve(&server, &approval, "approved").await;
    assert_eq!((status, &resolved["status"], &resolved["resolved_by"]), (200, &json!("approved"), &json!("boss")));
    // Nobody is connected: it goes on by itself.
    let seen = server.api.until(AGENT, &run, "s", "COMPLETED").await;
    assert_eq!(seen["content"], "All done.");
    assert_eq!(seen["metadata"]["approval"]["id"], json!(approval));
    assert_eq!(world.calls().len(), 1);
    let (status, refused) = resolve(&server, &approval, "rejected").await;
    assert_eq!(status, 409);
    assert!(text(&refused["detail"]).contains("already 'approved'") && text(&refused["detail"]).contains("boss"));
    world.database().assert_ended_once(&run).await;
}

#[tokio::test]
async fn an_approval_that_nobody_gives_in_time_is_refused_by_the_clock() {
    let world = World::new().await;
    let server = world.server().await;
    let (run, approval) = paused(&server, "ask_briefly", "s").await;
    let seen = eventually("the clock has refused the call", async || {
        let seen = server.api.look(AGENT, &run, "s").await.ok()?;
        (seen["status"] == "COMPLETED").then_some(seen)
    })
    .await;
    assert_eq!((&seen["content"], world.calls().len()), (&json!("All done."), 0));
    let shown = server.api.ok(&format!("/approvals/{approval}")).await;
    assert_eq!(shown["status"], "expired", "{shown}");
    assert_eq!(resolve(&server, &approval, "approved").await.0, 409);
}

#[tokio::test]
async fn whose_run_it_is_may_not_decide_where_another_has_to_and_a_note_reaches_the_model() {
    let world = World::new().await;
    let server = world.server().await;
    let (run, approval) = paused(&server, "ask_another", "s").await;
    for own in ["alice", " Alice"] {
        let own = json!({"status": "approved", "resolved_by": own});
        let (status, refused) = resolve_as(&server, &approval, own).await;
        assert_eq!(status, 403, "{refused}");
    }
    for nobody in [json!({"status": "approved"}), json!({"status": "approved", "resolved_by": " "})] {
        let (status, refused) = resolve_as(&server, &approval, nobody).await;
        assert_eq!((status, text(&refused["detail"]).contains("resolved_by")), (400, true), "{refused}");
    }
    let note = json!({"status": "rejected", "resolved_by": "boss", "resolution_data": {"note": "not on a Friday"}});
    assert_eq!(resolve_as(&server, &approval, note).await.0, 200);
    let seen = server.api.until(AGENT, &run, "s", "COMPLETED").await;
    let told = seen["messages"].as_array().unwrap().iter().find(|message| message["role"] == "tool").unwrap();
    assert!(text(&told["content"]).contains("not on a Friday"), "{told}");
    assert!(world.calls().is_empty());
}

#[tokio::test]
async fn a_kill_between_the_start_of_an_approved_call_and_its_result_never_runs_an_unsafe_one_twice() {
    let world = World::new().await;
    let server = world.server().await;
    world.hold_tools();
    let mut runs = Vec::new();
    for (n, tool) in ["ask_pure", "ask_idempotent", "ask_unsafe"].into_iter().enumerate() {
        let (run, approval) = paused(&server, tool, tool).await;
        assert_eq!(resolve(&server, &approval, "approved").await.0, 200);
        world.called(n + 1).await;
        runs.push((tool, run));
    }
    server.kill().await;
    world.let_tools_go();
    let server = world.server().await;
    for (tool, run) in &runs[..2] {
        server.api.until(AGENT, run, tool, "COMPLETED").await;
    }
    let (tool, run) = &runs[2];
    let seen = server.api.until(AGENT, run, tool, "PAUSED").await;
    let calls = |tool: &str| -> Vec<String> {
        world.calls().into_iter().filter(|(name, _, _)| name == tool).map(|(_, _, key)| key).collect()
    };
    assert_eq!((calls("ask_pure").len(), calls("ask_idempotent").len(), calls("ask_unsafe").len()), (2, 2, 1));
    assert_eq!(calls("ask_idempotent")[0], calls("ask_idempotent")[1], "with the same key");
    assert_eq!(seen["requirements"][0]["kind"], "unknown_outcome");
    assert!(text(&seen["content"]).contains("may have run already"), "{seen}");
    // The approval was for one call. Whether it is made again, another says.
    let mut call = seen["tools"][0].clone();
    let again = text(&call["approval_id"]).to_owned();
    assert_eq!(server.api.ok("/approvals/count").await, json!({"count": 1}));
    let listed = server.api.ok("/approvals?status=pending&pause_type=unknown_outcome").await;
    assert_eq!((&listed["data"][0]["id"], &listed["data"][0]["tool_name"]), (&json!(again), &json!(tool)), "{listed}");
    for (confirmed, refused) in [(Value::Null, 400), (json!(true), 403), (json!(false), 403)] {
        call["confirmed"] = confirmed;
        assert_eq!(go_on(&server, run, tool, &json!([call])).await.0, refused);
    }
    assert_eq!(calls("ask_unsafe").len(), 1);
    call["confirmed"] = Value::Null;
    call["result"] = json!("it was done");
    let (status, ended) = go_on(&server, run, tool, &json!([call])).await;
    assert_eq!((status, &ended["status"]), (200, &json!("COMPLETED")));
    assert_eq!(calls("ask_unsafe").len(), 1);
    for (_, run) in &runs {
        world.database().assert_ended_once(run).await;
    }
}

#[tokio::test]
async fn a_decision_on_one_server_is_carried_out_though_the_other_asked_and_twenty_decide_at_once() {
    let world = World::new().await;
    let (one, other) = (world.server().await, world.server().await);
    let (run, approval) = paused(&one, "ask_unsafe", "s").await;
    let deciders = (0..20).map(|n| {
        let server = if n % 2 == 0 { &one } else { &other };
        resolve(server, &approval, if n % 3 == 0 { "rejected" } else { "approved" })
    });
    let decided = futures::future::join_all(deciders).await;
    assert_eq!(decided.iter().filter(|(status, _)| *status == 200).count(), 1, "{decided:?}");
    assert_eq!(decided.iter().filter(|(status, _)| *status == 409).count(), 19, "{decided:?}");
    let seen = other.api.until(AGENT, &run, "s", "COMPLETED").await;
    let approved = seen["metadata"]["approval"]["status"] == "approved";
    assert_eq!(world.calls().len(), usize::from(approved));
    world.database().assert_ended_once(&run).await;
}

#[tokio::test]
async fn no_route_lets_other_arguments_run_than_those_that_were_asked_about() {
    let world = World::new().await;
    let server = world.server().await;
    let (run, approval) = paused(&server, "ask_unsafe", "s").await;
    let seen = server.api.look(AGENT, &run, "s").await.unwrap();
    let mut call = seen["tools"][0].clone();
    call["confirmed"] = json!(true);
    assert_eq!(go_on(&server, &run, "s", &json!([call])).await.0, 403, "an approval is not bypassed");
    call["tool_args"] = json!({"seconds": 1});
    for tools in
        [json!([call]), json!([{"tool_call_id": "zzz", "confirmed": true}]), json!([]), json!({"a": 1}), json!([5])]
    {
        let (status, answer) = go_on(&server, &run, "s", &tools).await;
        assert!((400..=403).contains(&status) && answer["detail"].is_string(), "{tools}: {status} {answer}");
    }
    for body in ["", "{", "[]", "{}", "{\"status\":\"maybe\"}", "{\"status\":\"approved\",\"resolved_by\":7}"] {
        let request = server.api.post(&format!("/approvals/{approval}/resolve")).body(body.to_owned());
        assert_eq!(request.send().await.unwrap().status(), 422, "{body}");
    }
    assert_eq!(server.api.look(AGENT, &run, "s").await.unwrap(), seen, "nothing has changed");
    assert!(world.calls().is_empty());
    assert_eq!(server.api.cancel(AGENT, &run, "s").await, 200);
    let cancelled = server.api.ok(&format!("/approvals/{approval}/status")).await;
    assert_eq!(cancelled["status"], "cancelled");
}

#[tokio::test]
async fn a_decision_that_contradicts_itself_or_is_no_form_is_refused_with_the_reason() {
    let world = World::new().await;
    let server = world.server().await;
    let message = Script::call(&[("run_elsewhere", json!({"command": "ls"}))]).then_say(&["Done."]).message();
    let fields = [("message", message.as_str()), ("session_id", "s"), ("stream", "false")];
    let run = server.api.run(AGENT, &fields).await;
    let (id, call) = (text(&run["run_id"]), text(&run["tools"][0]["tool_call_id"]));
    let path = format!("/agents/{AGENT}/runs/{id}/continue");
    let before = server.api.look(AGENT, id, "s").await.unwrap();
    let told = async |kind: &str, body: String| {
        let response = server.api.post(&path).header("content-type", kind).body(body).send().await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    };
    let form = "application/x-www-form-urlencoded";
    let one = format!("[{{\"tool_call_id\": \"{call}\", \"result\": \"one\"}}]");
    let twice = format!("[{{\"tool_call_id\": \"{call}\", \"result\": \"one\", \"result\": \"two\"}}]");
    let json = json!({"session_id": "s", "tools": []}).to_string();
    for (kind, body, status, why) in [
        (form, format!("session_id=s&stream=false&tools={one}&tools=[]"), 422, "more than once"),
        (form, format!("session_id=s&stream=false&tools={twice}"), 400, "result\\\" stands twice"),
        ("application/json", json, 400, "as a form"),
    ] {
        let answer = told(kind, body.clone()).await;
        assert!(answer.0 == status && answer.1.contains(why), "{body}: {answer:?}");
    }
    assert_eq!(server.api.look(AGENT, id, "s").await.unwrap(), before, "nothing has changed");
    assert_eq!(told(form, format!("session_id=s&stream=false&tools={one}")).await.0, 200);
}

#[tokio::test]
async fn a_thousand_runs_that_wait_cost_a_new_one_nothing() {
    let world = World::new().await;
    let server = world.server().await;
    let touched = async |session: &str| {
        let message = Script::say(&["hi"]).message();
        let before = rows(&world).await;
        let fields = [("message", message.as_str()), ("session_id", session), ("stream", "false")];
        assert_eq!(server.api.run("my-agent", &fields).await["status"], "COMPLETED");
        rows(&world).await - before
    };
    let first = touched("before").await;
    for batch in 0..20 {
        let waiting = (0..50).map(|n| {
            let server = &server;
            async move { paused(server, "ask_unsafe", &format!("w-{batch}-{n}")).await }
        });
        futures::future::join_all(waiting).await;
    }
    assert_eq!(server.api.ok("/approvals/count").await, json!({"count": 1000}));
    let leases = world.database().count("SELECT count(*) FROM leases WHERE tree_id <> $1", "").await;
    assert_eq!(leases, 0, "a run that waits is on no node");
    assert_eq!(touched("after").await, first);
    server.kill().await;
    let server = world.server().await;
    let page = server.api.ok("/approvals?limit=10&page=3").await;
    assert_eq!((page["data"].as_array().unwrap().len(), &page["meta"]["total_pages"]), (10, &json!(100)));
}

/// How many rows a run leaves in the log.
async fn rows(world: &World) -> i64 {
    world.database().count("SELECT count(*) FROM events WHERE stream_id <> $1", "").await
}

#[tokio::test]
async fn a_continuation_with_the_same_key_is_one_however_often_it_is_sent() {
    let world = World::new().await;
    let server = world.server().await;
    let first = server.api.run("my-agent", &[("message", "Hello"), ("session_id", "s"), ("stream", "false")]).await;
    let path = format!("/agents/my-agent/runs/{}/continue", text(&first["run_id"]));
    let go_on = async |input: &str| {
        let fields = [("session_id", "s"), ("stream", "false"), ("input", input)];
        let request = server.api.post(&path).header("Idempotency-Key", "k").form(&fields);
        let response = request.send().await.unwrap();
        (response.status().as_u16(), response.json::<Value>().await.unwrap())
    };
    let (status, more) = go_on("and more").await;
    assert_eq!((status, more["run_id"] == first["run_id"]), (200, false), "{more}");
    assert_eq!(go_on("and more").await, (200, more));
    assert_eq!(go_on("something else").await.0, 409);
    assert_eq!(world.model.requests().len(), 2);
}

#[tokio::test]
async fn what_a_person_chooses_is_the_tools_result_and_what_was_not_offered_changes_nothing() {
    let world = World::new().await;
    let server = world.server().await;
    let questions = json!({"questions": [
        {"question": "Where?", "header": "Place", "options": [{"label": "Oslo", "description": "North"}, {"label": "Rome"}]},
        {"question": "What?", "options": [{"label": "Sea"}, {"label": "Hills"}], "multi_select": true}]});
    let message = Script::call(&[("ask_choice", questions)]).then_say(&["All ", "done."]).message();
    let run = server.api.run(AGENT, &[("message", message.as_str()), ("session_id", "s")]).await;
    assert_eq!((&run["status"], &run["content"]), (&json!("PAUSED"), &json!("I have a question.")), "{run}");
    assert_eq!(run["requirements"][0]["kind"], "user_feedback");
    let call = &run["tools"][0];
    let offered = json!([
        {"question": "Where?", "header": "Place", "multi_select": false, "selected_options": null, "options": [
            {"label": "Oslo", "description": "North", "selected": false},
            {"label": "Rome", "description": null, "selected": false}]},
        {"question": "What?", "header": null, "multi_select": true, "selected_options": null, "options": [
            {"label": "Sea", "description": null, "selected": false},
            {"label": "Hills", "description": null, "selected": false}]}]);
    assert_eq!((&call["user_feedback_schema"], &call["answered"]), (&offered, &Value::Null));

    let run = text(&run["run_id"]);
    let before = server.api.look(AGENT, run, "s").await.unwrap();
    let choosing = |place: Value, kind: Value| {
        let mut call = call.clone();
        call["user_feedback_schema"][0]["selected_options"] = place;
        call["user_feedback_schema"][1]["selected_options"] = kind;
        json!([call])
    };
    for (place, kind, why) in [
        (json!(["Paris"]), json!(["Sea"]), "no option \"Paris\""),
        (json!(["Oslo", "Rome"]), json!(["Sea"]), "takes one label"),
        (json!(["Oslo"]), Value::Null, "has no answer"),
        (json!("Oslo"), json!(["Sea"]), "has no answer"),
        (json!([5]), json!(["Sea"]), "which are texts"),
        (Value::Null, Value::Null, ""),
    ] {
        let (status, refused) = go_on(&server, run, "s", &choosing(place, kind)).await;
        assert_eq!((status, text(&refused["detail"]).contains(why)), (400, true), "{why}: {refused}");
    }
    assert_eq!(server.api.look(AGENT, run, "s").await.unwrap(), before, "nothing has changed");

    let (status, ended) = go_on(&server, run, "s", &choosing(json!(["Oslo"]), json!(["Sea", "Hills"]))).await;
    assert_eq!((status, &ended["status"], &ended["content"]), (200, &json!("COMPLETED"), &json!("All done.")));
    let result = r#"User feedback received: [{"question":"Where?","selected":["Oslo"]},{"question":"What?","selected":["Sea","Hills"]}]"#;
    let call = &ended["tools"][0];
    assert_eq!((&call["result"], &call["answered"]), (&json!(result), &json!(true)), "{call}");
    assert_eq!(call["user_feedback_schema"][0]["options"][0]["selected"], true);
    let told = world.model.requests().pop().unwrap();
    let told = told["messages"].as_array().unwrap().iter().find(|message| message["role"] == "tool").unwrap();
    assert_eq!(told["content"], result, "the model is told");
    world.database().assert_ended_once(run).await;
}

#[tokio::test]
async fn a_silent_wait_for_work_elsewhere_is_marked_and_has_no_words() {
    let world = World::new().await;
    let server = world.server().await;
    let words = "I have tools to execute, but it needs external execution.";
    let (seen, unseen) = (("run_elsewhere", json!({"command": "ls"})), ("run_unseen", json!({"command": "ls"})));
    for (session, calls, silent, said) in [
        ("aloud", vec![seen.clone()], vec![Value::Null], words),
        ("silent", vec![unseen.clone()], vec![json!(true)], ""),
        // What else is asked is still said.
        ("both", vec![seen, unseen], vec![Value::Null, json!(true)], words),
    ] {
        let message = Script::call(&calls).then_say(&["All ", "done."]).message();
        let fields = [("message", message.as_str()), ("session_id", session)];
        let frames = server.api.stream(AGENT, &fields).await.rest().await;
        let paused = &frames.last().unwrap().data;
        let marks = |run: &Value| -> Vec<Value> {
            let tools = run["tools"].as_array().unwrap();
            tools.iter().map(|tool| tool["external_execution_silent"].clone()).collect()
        };
        assert_eq!((&paused["event"], &paused["content"]), (&json!("RunPaused"), &json!(said)), "{session}: {paused}");
        assert_eq!(marks(paused), silent, "{session}");
        let run = text(&paused["run_id"]);
        let shown = server.api.look(AGENT, run, session).await.unwrap();
        assert_eq!((&shown["content"], marks(&shown)), (&json!(said), silent), "{session}: {shown}");
        // It waits like any other.
        let mut tools = shown["tools"].clone();
        tools.as_array_mut().unwrap().iter_mut().for_each(|tool| tool["result"] = json!("file.txt"));
        let (status, ended) = go_on(&server, run, session, &tools).await;
        assert_eq!((status, &ended["status"]), (200, &json!("COMPLETED")), "{session}: {ended}");
        assert_eq!((&ended["content"], &ended["tools"][0]["result"]), (&json!("All done."), &json!("file.txt")));
    }
}
