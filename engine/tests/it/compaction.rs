//! Sessions whose early part is summarised: what later prompts hold, and that nothing is lost or done twice.

use daybook_domain::command::{CancelRun, CompactSession, ForkSession, StartRun};
use daybook_domain::component::{AgentConfig, Compaction, ComponentRef};
use daybook_domain::event::DomainEvent;
use daybook_domain::ids::{ComponentId, RunId, SessionId, StreamId, UserId};
use daybook_domain::message::Message;
use daybook_domain::run::{RunEvent, RunState, RunStatus};
use daybook_domain::session::{SessionCompacted, SessionEvent, SessionState};
use daybook_engine::{CompactionOutcome, Engine, ExecuteError, Outcome, build_request, json_hash, summary_request};
use daybook_models::ChatRequest;
use daybook_tools::ToolSet;
use tokio::task::JoinSet;

use crate::world::*;

/// An agent that sees two runs word for word; by itself it summarises after so many tokens.
fn compacting(after_tokens: Option<u64>) -> AgentConfig {
    AgentConfig { compaction: Some(Compaction { after_tokens }), ..config() }
}

async fn compacting_engine(world: &World, after_tokens: Option<u64>) -> Engine {
    world.engine_of(compacting(after_tokens), ToolSet::new()).await
}

fn session() -> SessionId {
    SessionId::parse("s").unwrap()
}

fn wish(session: &SessionId) -> CompactSession {
    let component = ComponentRef::agent(ComponentId::parse("my-agent").unwrap());
    CompactSession { component, session_id: session.clone(), user_id: None }
}

async fn compact(engine: &Engine) -> Result<CompactionOutcome, ExecuteError> {
    match engine.execute(envelope(wish(&session()))).await? {
        Outcome::Compaction(came) => Ok(came),
        other => panic!("{other:?}"),
    }
}

fn done(came: Result<CompactionOutcome, ExecuteError>) -> SessionCompacted {
    match came.unwrap() {
        CompactionOutcome::Done(done) => *done,
        other => panic!("{other:?}"),
    }
}

/// Runs to their ends, one after the other.
async fn talk(engine: &Engine, words: &[&str]) -> Vec<RunId> {
    let mut runs = Vec::new();
    for word in words {
        let run = run(engine, start(word, "s")).await;
        assert_eq!(ended(engine, &run).await.status, RunStatus::Completed);
        runs.push(run);
    }
    runs
}

async fn fold(world: &World, session: &SessionId) -> (SessionState, Vec<SessionCompacted>) {
    let (mut state, mut summaries) = (SessionState::default(), Vec::new());
    for recorded in world.store.read_stream(LOG, &StreamId::session(session), 0).await.unwrap() {
        let DomainEvent::Session(event) = recorded.event else { continue };
        state.evolve(&event);
        if let SessionEvent::Compacted(compacted) = event {
            assert_eq!(compacted.version, recorded.version, "it knows its place");
            summaries.push(compacted);
        }
    }
    (state, summaries)
}

/// What a request's messages say, without the system message.
fn said(messages: &[Message]) -> Vec<String> {
    messages.iter().skip(1).filter_map(|message| message.content.clone()).collect()
}

fn asked(world: &World, at: usize) -> Vec<String> {
    said(&world.model.requests.lock().unwrap()[at].messages)
}

fn told(summary: &str) -> String {
    format!("[The earlier part of this conversation, summarised]\n{summary}")
}

/// Builds a run's last request from the log, and holds it against the hash that was recorded with it.
async fn rebuilt(world: &World, engine: &Engine, run: &RunId) -> Vec<String> {
    let (request, hash) = request_of(world, engine, run).await;
    assert_eq!(json_hash(&request).unwrap(), hash);
    said(&request.messages)
}

async fn request_of(world: &World, engine: &Engine, run: &RunId) -> (ChatRequest, String) {
    let recorded = world.store.read_stream(LOG, &StreamId::run(run), 0).await.unwrap();
    let mut requested = None;
    let mut state = RunState::default();
    for recorded in recorded {
        let DomainEvent::Run(event) = recorded.event else { continue };
        state.evolve(&event);
        if let RunEvent::ModelCallRequested(event) = event {
            requested = Some(event);
        }
    }
    let (requested, detail) = (requested.unwrap(), engine.detail(LOG, state).await.unwrap().unwrap());
    let accepted = detail.state.accepted.as_ref().unwrap();
    let own = &detail.state.messages[..requested.own_messages];
    (build_request(detail.config.agent().unwrap(), accepted, &detail.history, own), requested.prompt_hash)
}

#[tokio::test(flavor = "multi_thread")]
async fn later_prompts_carry_the_summary_in_place_of_what_it_covers_and_the_runs_stay() {
    let world = World::new().await;
    let engine = compacting_engine(&world, None).await;
    let runs = talk(&engine, &["one", "two", "three"]).await;
    world.script([Turn::Spend("Alice counts, with sk-abcdefghijklmnopqrstuvwxyz0123456789 too.", 7)]);
    let compacted = done(compact(&engine).await);
    assert_eq!((compacted.runs.clone(), compacted.messages), (vec![runs[0].clone()], 2));
    assert_eq!((compacted.previous, compacted.usage.total_tokens), (None, 7));
    let summary = "Alice counts, with [redacted] too.";
    assert_eq!(compacted.summary.get().unwrap(), summary, "secrets are not kept");
    let kept = engine.run(LOG, &runs[1]).await.unwrap().unwrap().messages;
    assert_eq!(compacted.first_kept.as_ref(), Some(&kept[0].id));

    // What was asked can be built again from the log, and proved.
    let covered = engine.run(LOG, &runs[0]).await.unwrap().unwrap();
    assert_eq!(covered.content(), "Hi Alice!", "the run is still there");
    let request = summary_request(&compacting(None), None, &covered.messages);
    assert_eq!(json_hash(&request).unwrap(), compacted.source_hash);
    assert_eq!(world.model.requests.lock().unwrap()[3], request);

    let last = talk(&engine, &["four"]).await.remove(0);
    let expected = [&told(summary), "two", "Hi Alice!", "three", "Hi Alice!", "four"];
    assert_eq!(asked(&world, 4), expected);
    assert_eq!(rebuilt(&world, &engine, &last).await, expected);
    assert_eq!(rebuilt(&world, &engine, &runs[2]).await, ["one", "Hi Alice!", "two", "Hi Alice!", "three"]);
    let state = engine.run(LOG, &last).await.unwrap().unwrap();
    assert_eq!((state.summary, state.history), (Some(compacted.version), runs[1..].to_vec()));
    let (state, summaries) = fold(&world, &session()).await;
    assert_eq!(summaries, std::slice::from_ref(&compacted));
    let of_runs: u64 = state.totals.by_model.iter().map(|(_, usage)| usage.total_tokens).sum();
    let of_summaries = state.totals.summaries[0].1.total_tokens;
    assert_eq!((of_summaries, state.totals.usage.total_tokens), (7, of_runs + 7));

    // The next one takes the first in, and what it covers.
    world.script([Turn::Say("Alice counts to two.")]);
    let next = done(compact(&engine).await);
    assert_eq!((next.previous, next.runs), (Some(compacted.version), vec![runs[1].clone()]));
    let source = asked(&world, 5).remove(0);
    assert!(source.contains(summary) && source.contains("\"two\"") && !source.contains("three"), "{source}");
    // Also in another process, which remembers nothing.
    engine.shutdown().await;
    let engine = compacting_engine(&world, None).await;
    let last = talk(&engine, &["five"]).await.remove(0);
    let expected = [&told("Alice counts to two."), "three", "Hi Alice!", "four", "Hi Alice!", "five"];
    assert_eq!(asked(&world, 6), expected);
    assert_eq!(rebuilt(&world, &engine, &last).await, expected);
    engine.shutdown().await;
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_compacted_is_told_apart_and_asks_no_model() {
    let world = World::new().await;
    let engine = world.engine().await;
    talk(&engine, &["one", "two", "three"]).await;
    assert_eq!(compact(&engine).await.unwrap(), CompactionOutcome::NotEnabled);
    engine.shutdown().await;

    let engine = compacting_engine(&world, None).await;
    done(compact(&engine).await);
    assert_eq!(compact(&engine).await.unwrap(), CompactionOutcome::AlreadyCompacted(2));
    let other = |name: &str, user: Option<&str>| {
        let wish = wish(&SessionId::parse(name).unwrap());
        envelope(CompactSession { user_id: user.map(|user| UserId::parse(user).unwrap()), ..wish })
    };
    let failing = StartRun { session_id: Some(SessionId::parse("failed").unwrap()), ..start("one", "s") };
    world.script([Turn::Fail(400)]);
    let run = run(&engine, failing).await;
    assert_eq!(ended(&engine, &run).await.status, RunStatus::Error);
    let came = engine.execute(other("failed", None)).await.unwrap();
    assert_eq!(came, Outcome::Compaction(CompactionOutcome::NoHistory));
    let short = self::run(&engine, start("one", "short")).await;
    ended(&engine, &short).await;
    let came = engine.execute(other("short", None)).await.unwrap();
    assert_eq!(came, Outcome::Compaction(CompactionOutcome::NothingToFold(2)));

    // Another's session is as unknown as one that is not there.
    let hers = StartRun { user_id: Some(UserId::parse("alice").unwrap()), ..start("one", "hers") };
    let hers = self::run(&engine, hers).await;
    ended(&engine, &hers).await;
    let before = world.model.requests.lock().unwrap().len();
    for wish in [other("nowhere", None), other("hers", None), other("hers", Some("bob"))] {
        assert!(matches!(engine.execute(wish).await, Err(ExecuteError::UnknownSession)));
    }
    let came = engine.execute(other("hers", Some("alice"))).await.unwrap();
    assert_eq!(came, Outcome::Compaction(CompactionOutcome::NothingToFold(2)));
    assert_eq!(world.model.requests.lock().unwrap().len(), before);
    engine.shutdown().await;
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_that_fails_or_says_nothing_changes_nothing() {
    let world = World::new().await;
    let engine = compacting_engine(&world, None).await;
    talk(&engine, &["one", "two", "three"]).await;
    for (status, passes) in [(503, true), (401, false)] {
        world.script([Turn::Fail(status)]);
        let error = compact(&engine).await.unwrap_err();
        assert!(matches!(error, ExecuteError::NoSummary { may_pass, .. } if may_pass == passes), "{error:?}");
        assert!(error.to_string().contains("scripted failure"), "{error}");
    }
    world.script([Turn::Spend(" \n", 5), Turn::Panic]);
    let CompactionOutcome::NoSummary { metrics, .. } = compact(&engine).await.unwrap() else { panic!("a summary") };
    assert_eq!(metrics.unwrap().usage.total_tokens, 5);
    assert!(matches!(compact(&engine).await, Err(ExecuteError::NoSummary { may_pass: false, .. })));
    assert!(fold(&world, &session()).await.1.is_empty());
    let last = talk(&engine, &["four"]).await.remove(0);
    assert_eq!(rebuilt(&world, &engine, &last).await, ["two", "Hi Alice!", "three", "Hi Alice!", "four"]);
    done(compact(&engine).await);
    engine.shutdown().await;
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_called_its_model_before_has_the_same_prompt_after_a_crash() {
    let world = World::new().await;
    let engine = compacting_engine(&world, None).await;
    talk(&engine, &["one", "two", "three"]).await;
    done(compact(&engine).await);
    talk(&engine, &["four"]).await;
    world.script([Turn::Hold("so far"), Turn::Say("Another summary.")]);
    let open = run(&engine, start("five", "s")).await;
    until("the model's call", async || world.model.requests.lock().unwrap().len() == 6).await;
    let second = done(compact(&engine).await);
    world.kill(engine).await;
    let engine = compacting_engine(&world, None).await;
    assert_eq!(ended(&engine, &open).await.status, RunStatus::Completed);
    let requests = world.model.requests.lock().unwrap().clone();
    assert_eq!(requests[7], requests[5], "what it saw first it sees again");
    assert_eq!(said(&requests[7].messages)[0], told("Hi Alice!"));
    let state = engine.run(LOG, &open).await.unwrap().unwrap();
    assert!(state.summary.unwrap() < second.version);
    // A run that calls its model only now sees the newer one.
    let last = talk(&engine, &["six"]).await.remove(0);
    assert_eq!(rebuilt(&world, &engine, &last).await[0], told("Another summary."));
    engine.shutdown().await;
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_while_the_model_writes_loses_nothing_and_the_call_is_made_again() {
    let world = World::new().await;
    let engine = compacting_engine(&world, None).await;
    talk(&engine, &["one", "two", "three"]).await;
    world.script([Turn::Hold("half a")]);
    let mut asking = JoinSet::new();
    asking.spawn({
        let engine = engine.clone();
        async move { compact(&engine).await }
    });
    until("the model's call", async || world.model.requests.lock().unwrap().len() == 4).await;
    world.kill(engine).await;
    assert!(asking.join_all().await.remove(0).is_err());
    assert!(fold(&world, &session()).await.1.is_empty());
    let engine = compacting_engine(&world, None).await;
    done(compact(&engine).await);
    let requests = world.model.requests.lock().unwrap().clone();
    assert_eq!((requests.len(), &requests[4]), (5, &requests[3]));
    engine.shutdown().await;
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_servers_one_wins_and_runs_that_end_meanwhile_do_not_matter() {
    let world = World::new().await;
    let (one, other) = (compacting_engine(&world, None).await, compacting_engine(&world, None).await);
    talk(&one, &["one", "two", "three"]).await;
    world.script([Turn::Hold("a summary"), Turn::Hold("a summary")]);
    let mut asking = JoinSet::new();
    for engine in [one.clone(), other.clone()] {
        asking.spawn(async move { compact(&engine).await.unwrap().name() });
    }
    until("both calls", async || world.model.requests.lock().unwrap().len() == 5).await;
    talk(&other, &["four"]).await;
    world.model.go_on.add_permits(2);
    let mut came = asking.join_all().await;
    came.sort_unstable();
    assert_eq!(came, ["already_compacted", "compacted"]);
    assert_eq!(fold(&world, &session()).await.1.len(), 1);
    one.shutdown().await;
    other.shutdown().await;
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_key_is_the_same_compaction() {
    let world = World::new().await;
    let engine = compacting_engine(&world, None).await;
    talk(&engine, &["one", "two", "three"]).await;
    let keyed = |session: &str| {
        let session = SessionId::parse(session).unwrap();
        daybook_domain::command::Envelope { idempotency_key: Some("k".into()), ..envelope(wish(&session)) }
    };
    let first = engine.execute(keyed("s")).await.unwrap();
    assert!(matches!(&first, Outcome::Compaction(CompactionOutcome::Done(_))), "{first:?}");
    talk(&engine, &["four"]).await;
    assert_eq!(engine.execute(keyed("s")).await.unwrap(), first);
    let other = run(&engine, start("one", "t")).await;
    ended(&engine, &other).await;
    assert!(matches!(engine.execute(keyed("t")).await, Err(ExecuteError::KeyReused)));
    engine.shutdown().await;
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_grows_too_large_is_compacted_by_itself() {
    let world = World::new().await;
    let engine = compacting_engine(&world, Some(55)).await;
    // Some 17 tokens each: four are more than may be, and five no more than twice as many.
    let runs = talk(&engine, &["the first of them all", "the second of them all", "the third of them all"]).await;
    world.script([Turn::Say("Hi Alice!"), Turn::Hold("A summary.")]);
    let fourth = talk(&engine, &["the fourth of them all"]).await.remove(0);
    until("the model is asked", async || world.model.requests.lock().unwrap().len() == 5).await;
    let source = asked(&world, 4).remove(0);
    assert!(source.contains("the second of them all") && !source.contains("the third"), "{source}");
    // A run that comes before the summary sees all of them.
    let fifth = talk(&engine, &["the fifth of them all"]).await.remove(0);
    assert_eq!(rebuilt(&world, &engine, &fifth).await.len(), 9);
    world.model.go_on.add_permits(1);
    until("the summary", async || fold(&world, &session()).await.1.len() == 1).await;
    let (_, summaries) = fold(&world, &session()).await;
    assert_eq!(summaries[0].runs, runs[..2]);
    // More runs than two stay as long as they are small enough.
    let sixth = talk(&engine, &["the sixth of them all"]).await.remove(0);
    let state = engine.run(LOG, &sixth).await.unwrap().unwrap();
    assert_eq!((state.summary, state.history), (Some(summaries[0].version), vec![runs[2].clone(), fourth, fifth]));
    engine.shutdown().await;
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_compaction_that_failed_is_tried_again_and_prompts_stay_bounded() {
    let world = World::new().await;
    let engine = compacting_engine(&world, Some(30)).await;
    for word in ["the first of them all", "the second of them all", "the third of them all"] {
        world.script([Turn::Say("Hi Alice!")]);
        talk(&engine, &[word]).await;
    }
    // The third's end asked for a summary; the script has nothing left but "Hi Alice!".
    until("the summary", async || fold(&world, &session()).await.1.len() == 1).await;
    let asked_before = world.model.requests.lock().unwrap().len();
    for n in 0..4 {
        world.script([Turn::Say("Hi Alice!"), Turn::Fail(500)]);
        talk(&engine, &["one more of them all"]).await;
        until("the failing call", async || world.model.requests.lock().unwrap().len() == asked_before + 2 * (n + 1))
            .await;
    }
    let (state, summaries) = fold(&world, &session()).await;
    assert_eq!((summaries.len(), state.unsummarised().len()), (1, 6));
    // At most 60 tokens of runs, though six have no summary.
    let last = talk(&engine, &["the last of them all"]).await.remove(0);
    let seen = engine.run(LOG, &last).await.unwrap().unwrap().history;
    assert_eq!(seen.len(), 3, "{seen:?}");
    until("the next summary", async || fold(&world, &session()).await.1.len() == 2).await;
    let (state, summaries) = fold(&world, &session()).await;
    assert_eq!((summaries[1].runs.len(), state.unsummarised().len()), (5, 2));
    engine.shutdown().await;
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copied_session_has_its_summaries() {
    let world = World::new().await;
    let engine = compacting_engine(&world, None).await;
    talk(&engine, &["one", "two", "three"]).await;
    world.script([Turn::Say("First summary.")]);
    done(compact(&engine).await);
    let fourth = talk(&engine, &["four"]).await.remove(0);
    world.script([Turn::Call(&[("a", "confirm", r#"{"to":"x"}"#)]), Turn::Say("Second summary.")]);
    let paused = run(&engine, start("ask me", "s")).await;
    assert_eq!(ended(&engine, &paused).await.status, RunStatus::Paused);
    done(compact(&engine).await);
    let cancel = CancelRun { component: None, run_id: paused, session_id: None, reason: None };
    engine.execute(envelope(cancel)).await.unwrap();
    let component = ComponentRef::agent(ComponentId::parse("my-agent").unwrap());
    let fork = ForkSession { component, session_id: session(), user_id: None };
    let Outcome::Forked { session_id: copy } = engine.execute(envelope(fork)).await.unwrap() else { panic!("no copy") };
    let (state, summaries) = fold(&world, &copy).await;
    assert_eq!((state.recent.len(), state.unsummarised().len(), summaries.len()), (4, 2, 2));
    assert_eq!(summaries[1].previous, Some(summaries[0].version));
    assert_eq!(summaries[1].runs, [state.recent[1].clone()]);
    assert_eq!(state.run_count, 5, "a run that ended while it was paused is copied too");
    // A copied run shows what its model saw, though its messages have ids of their own; the next one goes on from there.
    let (shown, _) = request_of(&world, &engine, &state.recent[3]).await;
    assert_eq!(said(&shown.messages), rebuilt(&world, &engine, &fourth).await);
    let command = StartRun { session_id: Some(copy.clone()), ..start("five", "s") };
    let last = run(&engine, command).await;
    ended(&engine, &last).await;
    let expected = [&told("Second summary."), "three", "Hi Alice!", "four", "Hi Alice!", "five"];
    assert_eq!(rebuilt(&world, &engine, &last).await, expected);
    engine.shutdown().await;
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_remembers_what_was_said_forgets_it_when_it_is_erased() {
    let world = World::new().await;
    let engine = compacting_engine(&world, None).await;
    talk(&engine, &["one", "two", "three"]).await;
    done(compact(&engine).await);
    talk(&engine, &["four"]).await;
    assert!(asked(&world, 4).len() > 1, "the node remembers a summary and runs");
    assert!(world.store.erase_session(LOG, &session()).await.unwrap());
    talk(&engine, &["five"]).await;
    assert_eq!(asked(&world, 5), ["five"], "nothing of what was erased is told");
    engine.shutdown().await;
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_summary_is_erased_with_its_session_and_its_absence_stops_nothing() {
    let world = World::new().await;
    let engine = compacting_engine(&world, None).await;
    talk(&engine, &["one", "two", "three"]).await;
    done(compact(&engine).await);
    let stored = world.store.read_raw_after(LOG, 0, 10_000).await.unwrap();
    let stored = stored.iter().find(|raw| raw.kind == "SessionCompacted").unwrap();
    assert!(stored.personal.is_some() && !stored.payload.contains("Alice"), "{}", stored.payload);
    engine.shutdown().await;
    assert!(world.store.erase_session(LOG, &session()).await.unwrap());
    let engine = compacting_engine(&world, None).await;
    let last = talk(&engine, &["four"]).await.remove(0);
    assert_eq!(asked(&world, 4), ["four"], "nothing of what was erased is told");
    assert_eq!(engine.run(LOG, &last).await.unwrap().unwrap().history.len(), 2);
    engine.shutdown().await;
    world.close().await;
}
