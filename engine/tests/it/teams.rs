//! Teams: what is handed out to whom, what comes back, and what watchers see of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use daybook_domain::command::{ForkSession, StartRun};
use daybook_domain::component::{AgentConfig, ComponentRef, Member, ModelRef, OnMemberError, TeamConfig, TeamMode};
use daybook_domain::ids::{ComponentId, RunId, SessionId};
use daybook_domain::run::{ErrorKind, RunMode, RunState, RunStatus, TaskStatus};
use daybook_engine::{Engine, Frame, FrameBody, Listing, Outcome, Registry, WatchItem, build_request, json_hash};

use crate::world::*;

/// A leader and members, each with a script of its own.
pub struct Crew {
    pub world: World,
    pub members: BTreeMap<&'static str, Arc<Script>>,
}

impl Crew {
    pub async fn new(members: &[&'static str]) -> Self {
        let world = World::new().await;
        let members = members.iter().map(|name| (*name, world.another_model())).collect();
        Self { world, members }
    }

    fn agent(&self, id: &str, key: &str) -> AgentConfig {
        let model = ModelRef { key: key.into(), id: format!("{key}-1"), ..config().model };
        AgentConfig { id: ComponentId::parse(id).unwrap(), name: id.to_uppercase(), model, ..config() }
    }

    /// Registers the members, and gives them as a leader knows them.
    pub fn members(&self, registry: &mut Registry) -> Vec<Member> {
        registry.add_model("main", self.world.model.clone());
        let mut members = Vec::new();
        for (id, script) in &self.members {
            registry.add_model(*id, script.clone());
            let agent = self.agent(id, id);
            let hash = registry.add_agent(agent.clone(), self.world.tools(Default::default()), Listing::Inner).unwrap();
            members.push(member(&agent, hash));
        }
        members
    }

    pub fn registry(&self, mode: TeamMode, change: impl Fn(&mut TeamConfig)) -> Registry {
        let mut registry = Registry::default();
        let mut team = TeamConfig::new(mode, self.members(&mut registry));
        change(&mut team);
        let leader = AgentConfig { team: Some(team), max_iterations: 10, ..self.agent("crew", "main") };
        registry.add_agent(leader, self.world.tools(Default::default()), Listing::Public).unwrap();
        registry
    }

    /// A team of which all members but the leader's own are in a team below it.
    pub fn nested(&self) -> Registry {
        let mut registry = Registry::default();
        let below = self.members(&mut registry);
        let script = self.members.values().next().unwrap().clone();
        registry.add_model("middle", script);
        let inner =
            AgentConfig { team: Some(TeamConfig::new(TeamMode::Coordinate, below)), ..self.agent("inner", "middle") };
        let hash = registry.add_agent(inner.clone(), Default::default(), Listing::Inner).unwrap();
        let team = TeamConfig::new(TeamMode::Coordinate, vec![member(&inner, hash)]);
        let leader = AgentConfig { team: Some(team), ..self.agent("crew", "main") };
        registry.add_agent(leader, Default::default(), Listing::Public).unwrap();
        registry
    }

    pub async fn engine(&self, mode: TeamMode) -> Engine {
        self.world.engine_from(self.registry(mode, |_| ())).await
    }

    pub fn says(&self, member: &str, turns: impl IntoIterator<Item = Turn>) {
        self.members[member].turns.lock().unwrap().extend(turns);
    }

    /// How often each member's model was called.
    pub fn calls(&self, member: &str) -> usize {
        self.members[member].requests.lock().unwrap().len()
    }

    /// The runs of the tree, the one at the top first.
    pub async fn tree(&self, engine: &Engine, run: &RunId) -> Vec<RunState> {
        let (mut open, mut tree) = (vec![run.clone()], Vec::new());
        while let Some(id) = open.pop() {
            let Some(state) = engine.run(LOG, &id).await.unwrap() else { continue };
            open.extend(state.children().map(|child| child.run_id.clone()));
            tree.push(state);
        }
        tree
    }

    /// Each run of the tree has ended exactly once.
    pub async fn each_ended_once(&self, engine: &Engine, run: &RunId) {
        for state in self.tree(engine, run).await {
            let kinds = self.world.kinds(state.run_id().unwrap()).await;
            let end = |kind: &&String| ["RunSucceeded", "RunFailed", "RunCancelled"].contains(&kind.as_str());
            assert_eq!(kinds.iter().filter(end).count(), 1, "{kinds:?}");
        }
    }
}

fn member(agent: &AgentConfig, config_hash: String) -> Member {
    let (component, name) = (agent.component(), agent.name.clone());
    Member { component, config_hash, name, role: Some("Helps".into()), description: None }
}

pub fn asking(message: &str, session: &str) -> StartRun {
    StartRun { component: ComponentRef::team(ComponentId::parse("crew").unwrap()), ..start(message, session) }
}

pub const TO_A: Turn = Turn::Call(&[("x", "delegate_task_to_member", r#"{"member_id":"a","task":"look"}"#)]);

/// The frames of a run that is over, as somebody gets them who comes late.
pub async fn frames(engine: &Engine, run: &RunId) -> Vec<Arc<Frame>> {
    let mut watch = engine.watch(LOG, run, None).await.unwrap().unwrap();
    let mut frames = Vec::new();
    while let Some(item) = watch.next().await.unwrap() {
        if let WatchItem::Frame(frame) = item {
            frames.push(frame);
        }
    }
    frames
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_works_in_a_run_of_its_own_under_the_leaders() {
    let crew = Crew::new(&["a", "b"]).await;
    let engine = crew.engine(TeamMode::Coordinate).await;
    crew.world.script([TO_A, Turn::Say("All told.")]);
    crew.says("a", [Turn::Call(&[("p", "pure", "{}")]), Turn::Say("Found it")]);
    let run = run(&engine, StartRun { mode: RunMode::Streaming, ..asking("Find it", "s") }).await;
    let state = ended(&engine, &run).await;
    assert_eq!((state.status, state.content().as_str()), (RunStatus::Completed, "All told."));
    assert_eq!((crew.calls("a"), crew.calls("b")), (2, 0));

    let tree = crew.tree(&engine, &run).await;
    let child = &tree[1];
    let parent = child.parent().unwrap();
    assert_eq!((&parent.run_id, &parent.root, parent.cause.as_str(), parent.depth), (&run, &run, "x", 1));
    assert_eq!((child.status, child.content().as_str()), (RunStatus::Completed, "Found it"));
    assert_eq!(state.tools[0].children[0].run_id, *child.run_id().unwrap());
    // The leader reads what the member said; the member was told its task, and nothing else.
    let told = crew.world.model.requests.lock().unwrap().clone();
    assert_eq!(told[1].messages.last().unwrap().content.as_deref(), Some("Found it"));
    let told = crew.members["a"].requests.lock().unwrap()[0].clone();
    assert_eq!(told.messages.iter().filter_map(|message| message.content.as_deref()).next_back(), Some("look"));
    assert!(told.tools.iter().all(|tool| tool.name != "delegate_task_to_member"));
    // Both prompts can be built again.
    for state in &tree {
        let detail = engine.detail(LOG, state.clone()).await.unwrap().unwrap();
        let own = &detail.state.messages[..1];
        let accepted = detail.state.accepted.as_ref().unwrap();
        let rebuilt = build_request(detail.config.agent().unwrap(), accepted, &detail.history, own);
        let recorded =
            crew.world.store.read_stream(LOG, &daybook_domain::StreamId::run(state.run_id().unwrap()), 0).await;
        let hash = recorded.unwrap().into_iter().find_map(|recorded| match recorded.event {
            daybook_domain::DomainEvent::Run(daybook_domain::run::RunEvent::ModelCallRequested(e)) => {
                Some(e.prompt_hash)
            }
            _ => None,
        });
        assert_eq!(json_hash(&rebuilt).unwrap(), hash.unwrap());
    }
    // The session has one run, which cost what both did.
    let session = SessionId::parse("s").unwrap();
    assert_eq!(crew.world.runs_of(&session).await, std::slice::from_ref(&run));
    let spent: u64 = state.spent.total().total_tokens + state.usage.total_tokens;
    assert_eq!(spent, 4 * 3);

    // A copy of the session has runs of its own, at every depth.
    let fork = ForkSession { component: asking("", "s").component, session_id: session, user_id: None };
    let Outcome::Forked { session_id } = engine.execute(envelope(fork)).await.unwrap() else { panic!("no copy") };
    let copied = crew.world.runs_of(&session_id).await[0].clone();
    let copy = crew.tree(&engine, &copied).await;
    assert_eq!((copy.len(), copy[1].content().as_str()), (2, "Found it"));
    assert!(copy[1].run_id() != child.run_id() && copy[1].session_id() == Some(&session_id));
    let parent = copy[1].parent().unwrap();
    assert_eq!((&parent.run_id, &parent.root), (&copied, &copied));
    engine.shutdown().await;
    crew.world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn watchers_see_one_stream_numbered_without_gaps() {
    let crew = Crew::new(&["a", "b"]).await;
    let engine = crew.engine(TeamMode::Collaborate).await;
    let all = Turn::Call(&[("x", "delegate_task_to_members", r#"{"task":"think"}"#)]);
    crew.world.script([all, Turn::Say("Both agree.")]);
    crew.says("a", [Turn::Say("one two three four")]);
    crew.says("b", [Turn::Call(&[("p", "pure", "{}")]), Turn::Say("five six seven eight")]);
    let run = run(&engine, StartRun { mode: RunMode::Streaming, ..asking("Think", "s") }).await;
    let live = frames(&engine, &run).await;
    ended(&engine, &run).await;
    let indexes: Vec<u64> = live.iter().map(|frame| frame.index).collect();
    assert_eq!(indexes, (0..live.len() as u64).collect::<Vec<_>>());
    for name in ["a", "b"] {
        let of = live.iter().filter(|frame| frame.run.component.id.as_str() == name);
        let bodies: Vec<&FrameBody> = of.map(|frame| &frame.body).collect();
        assert!(matches!(bodies[0], FrameBody::RunStarted) && matches!(bodies.last(), Some(FrameBody::Completed(_))));
        let text: String = bodies
            .iter()
            .filter_map(|body| if let FrameBody::Content { text, .. } = body { text.clone() } else { None })
            .collect();
        assert_eq!(text, if name == "a" { "one two three four" } else { "five six seven eight" });
    }
    let Some(FrameBody::Completed(end)) = live.last().map(|frame| &frame.body) else { panic!("no end") };
    let told: Vec<String> = end.children.iter().map(|child| child.state.content()).collect();
    assert_eq!(told, ["one two three four", "five six seven eight"]);

    engine.shutdown().await;
    crew.world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_shown_can_be_shown_again_from_the_log() {
    let crew = Crew::new(&["a"]).await;
    let engine = crew.engine(TeamMode::Coordinate).await;
    let mut seen = Vec::new();
    for (mode, after) in [(RunMode::Streaming, None), (RunMode::Plain, Some(0))] {
        crew.world.script([TO_A, Turn::Say("done")]);
        crew.says("a", [Turn::Call(&[("p", "pure", "{}")]), Turn::Say("Found it")]);
        let run = run(&engine, StartRun { mode, ..asking("Find it", "s") }).await;
        ended(&engine, &run).await;
        // Of a plain run nothing was kept: what comes is made from the events of both runs.
        let mut watch = engine.watch(LOG, &run, after).await.unwrap().unwrap();
        let mut shown = Vec::new();
        while let Some(item) = watch.next().await.unwrap() {
            let WatchItem::Frame(frame) = item else { continue };
            if frame.index > 0 && !matches!(frame.body, FrameBody::Content { .. }) {
                let name = format!("{:?}", frame.body).split([' ', '(']).next().unwrap().to_owned();
                shown.push((frame.run.component.to_string(), name, frame.index));
            }
        }
        seen.push(shown);
    }
    assert_eq!(seen[0].len(), seen[1].len());
    for (live, later) in seen[0].iter().zip(&seen[1]) {
        assert_eq!((&live.0, &live.1), (&later.0, &later.1));
    }
    assert!(seen[1].is_sorted_by_key(|(_, _, index)| *index));
    engine.shutdown().await;
    crew.world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn five_members_work_at_once_and_no_more_than_the_limit() {
    for (limit, expected) in [(8, 5), (2, 2)] {
        let crew = Crew::new(&["a", "b", "c", "d", "e"]).await;
        let engine =
            crew.world.engine_from(crew.registry(TeamMode::Collaborate, |team| team.max_parallel = limit)).await;
        let all = Turn::Call(&[("x", "delegate_task_to_members", r#"{"task":"think"}"#)]);
        crew.world.script([all, Turn::Say("done")]);
        for script in crew.members.values() {
            script.turns.lock().unwrap().push_back(Turn::Hold("ok"));
        }
        let run = run(&engine, asking("Think", "s")).await;
        let asked = || crew.members.keys().filter(|name| crew.calls(name) > 0).count();
        // None is let go on before as many as may are there.
        until("all that may to start", async || asked() == expected).await;
        crew.members.values().for_each(|script| script.go_on.add_permits(1));
        let state = ended(&engine, &run).await;
        assert_eq!((state.status, asked()), (RunStatus::Completed, 5));
        assert!(state.messages.iter().any(|message| {
            message.content.as_ref().is_some_and(|text| text.contains("<member id=\"e\" name=\"E\">\nok"))
        }));
        engine.shutdown().await;
        crew.world.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_routed_request_is_answered_by_the_member() {
    let crew = Crew::new(&["a"]).await;
    let engine = crew.engine(TeamMode::Route).await;
    crew.world.script([TO_A]);
    crew.says("a", [Turn::Say("From A itself")]);
    let run = run(&engine, StartRun { mode: RunMode::Streaming, ..asking("Hello", "s") }).await;
    let state = ended(&engine, &run).await;
    assert_eq!((state.status, state.content().as_str()), (RunStatus::Completed, "From A itself"));
    assert_eq!(crew.world.model.requests.lock().unwrap().len(), 1, "the leader says nothing to it");
    let frames = frames(&engine, &run).await;
    let own: String = frames
        .iter()
        .filter(|frame| frame.run.run_id == run)
        .filter_map(|frame| if let FrameBody::Content { text, .. } = &frame.body { text.clone() } else { None })
        .collect();
    assert_eq!(own, "From A itself");
    engine.shutdown().await;
    crew.world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_routed_to_one_member_only() {
    let crew = Crew::new(&["a", "b"]).await;
    let engine = crew.engine(TeamMode::Route).await;
    let both = Turn::Call(&[
        ("x", "delegate_task_to_member", r#"{"member_id":"a","task":"look"}"#),
        ("y", "delegate_task_to_member", r#"{"member_id":"b","task":"look"}"#),
    ]);
    crew.world.script([both]);
    crew.says("a", [Turn::Say("From A")]);
    let run = run(&engine, asking("Hello", "s")).await;
    let state = ended(&engine, &run).await;
    assert_eq!((state.status, state.content().as_str(), crew.calls("b")), (RunStatus::Completed, "From A", 0));
    engine.shutdown().await;
    crew.world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tasks_are_listed_worked_off_and_told_of() {
    let crew = Crew::new(&["a", "b"]).await;
    let engine = crew.engine(TeamMode::Tasks).await;
    crew.world.script([
        Turn::Call(&[
            ("c1", "create_task", r#"{"title":"Look","description":"Look it up","member_id":"a"}"#),
            ("c2", "create_task", r#"{"title":"Drop","description":"Never mind","member_id":"b"}"#),
        ]),
        Turn::Call(&[(
            "c3",
            "create_task",
            r#"{"title":"Write","description":"Write it","member_id":"b","depends_on":["1"]}"#,
        )]),
        Turn::Call(&[
            ("e0", "execute_tasks", r#"{"task_ids":["3"]}"#),
            ("u", "update_task", r#"{"task_id":"2","status":"skipped"}"#),
        ]),
        Turn::Call(&[("e1", "execute_tasks", r#"{"task_ids":["1"]}"#)]),
        Turn::Call(&[("e3", "execute_tasks", r#"{"task_ids":["3"]}"#)]),
        Turn::Say("All done"),
    ]);
    crew.says("a", [Turn::Say("42")]);
    crew.says("b", [Turn::Say("It is 42.")]);
    let run = run(&engine, StartRun { mode: RunMode::Streaming, ..asking("Write it", "s") }).await;
    let state = ended(&engine, &run).await;
    let stand: Vec<_> = state.tasks.iter().map(|task| (task.id.as_str(), task.status)).collect();
    let (done, skipped) = (TaskStatus::Completed, TaskStatus::Skipped);
    assert_eq!(stand, [("1", done), ("2", skipped), ("3", done)], "{:?}", state.messages);
    let told = |call: &str| {
        let answers =
            |message: &&daybook_domain::message::Message| message.answers.as_ref().is_some_and(|a| a.call_id == call);
        state.messages.iter().find(answers).and_then(|message| message.content.clone()).unwrap()
    };
    assert!(
        told("c1").contains("Task 1") && told("c2").contains("Task 2") && told("e0").contains("waits for task \"1\"")
    );
    assert_eq!((told("e1").as_str(), told("e3").as_str()), ("42", "It is 42."));
    let given = crew.members["b"].requests.lock().unwrap()[0].messages.last().unwrap().content.clone().unwrap();
    assert_eq!(given, "Write it\n\n<result of=\"Look\">\n42\n</result>");
    let frames = frames(&engine, &run).await;
    let created = frames.iter().filter(|frame| matches!(frame.body, FrameBody::Task { created: true, .. })).count();
    assert_eq!(created, 3);
    engine.shutdown().await;
    crew.world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_members_failure_means_is_the_teams_to_say() {
    for (policy, status) in [(OnMemberError::Tell, RunStatus::Completed), (OnMemberError::Fail, RunStatus::Error)] {
        let crew = Crew::new(&["a", "b"]).await;
        let engine =
            crew.world.engine_from(crew.registry(TeamMode::Coordinate, |team| team.on_member_error = policy)).await;
        let both = Turn::Call(&[
            ("x", "delegate_task_to_member", r#"{"member_id":"a","task":"look"}"#),
            ("y", "delegate_task_to_member", r#"{"member_id":"b","task":"look"}"#),
        ]);
        crew.world.script([both, Turn::Say("Without A then")]);
        crew.says("a", [Turn::Fail(400)]);
        crew.says("b", [Turn::Hold("slow")]);
        let run = run(&engine, asking("Find it", "s")).await;
        if policy == OnMemberError::Tell {
            crew.members["b"].go_on.add_permits(1);
        }
        let state = ended(&engine, &run).await;
        assert_eq!(state.status, status);
        if policy == OnMemberError::Fail {
            assert!(
                matches!(&state.error, Some((ErrorKind::MemberError, why)) if why.contains("A did not get it done"))
            );
            // The other is not left running.
            let statuses: Vec<_> = crew.tree(&engine, &run).await.iter().map(|state| state.status).collect();
            assert!(statuses.iter().all(|status| status.is_end()), "{statuses:?}");
        }
        crew.each_ended_once(&engine, &run).await;
        engine.shutdown().await;
        crew.world.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn members_see_of_the_conversation_and_of_each_other_what_they_are_let() {
    let crew = Crew::new(&["a", "b"]).await;
    let shared = |team: &mut TeamConfig| (team.member_history_runs, team.share_interactions) = (1, true);
    let engine = crew.world.engine_from(crew.registry(TeamMode::Coordinate, shared)).await;
    crew.world.script([Turn::Say("Hello Ann"), TO_A]);
    let to_b = Turn::Call(&[("y", "delegate_task_to_member", r#"{"member_id":"b","task":"check"}"#)]);
    crew.world.script([to_b, Turn::Say("done")]);
    crew.says("a", [Turn::Say("It is blue")]);
    crew.says("b", [Turn::Say("Yes")]);
    let first = run(&engine, asking("I am Ann", "s")).await;
    ended(&engine, &first).await;
    let second = run(&engine, asking("What colour?", "s")).await;
    assert_eq!(ended(&engine, &second).await.status, RunStatus::Completed);
    let seen = |name: &str| -> Vec<String> {
        let requests = crew.members[name].requests.lock().unwrap();
        requests[0].messages.iter().skip(1).filter_map(|message| message.content.clone()).collect()
    };
    assert_eq!(seen("a"), ["I am Ann", "Hello Ann", "look"]);
    let b = seen("b");
    assert_eq!(b[..2], ["I am Ann", "Hello Ann"]);
    assert!(b[2].contains("Asked: look\nAnswered: It is blue") && b[2].ends_with("\n\ncheck"), "{b:?}");
    engine.shutdown().await;
    crew.world.close().await;
}
