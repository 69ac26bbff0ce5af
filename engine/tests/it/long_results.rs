//! Results that are too long for a model: what it is given instead, and where the whole is.

use std::sync::Arc;

use daybook_domain::DomainEvent;
use daybook_domain::command::{ContinueFrom, ContinueRun, ForkSession};
use daybook_domain::component::ComponentRef;
use daybook_domain::ids::{ComponentId, RunId, SessionId, StreamId};
use daybook_domain::long_result::{LONGEST, MOST_KEPT, WholeResult};
use daybook_domain::redact::Redactor;
use daybook_domain::run::{RunEvent, RunMode, RunState, RunStatus, ToolOutcome};
use daybook_engine::{Engine, Outcome, build_request, json_hash};
use daybook_tools::{Tool, ToolSet, read_result};

use crate::world::*;

fn session(name: &str) -> SessionId {
    SessionId::parse(name).unwrap()
}

/// The only long result of a run.
fn whole_of(state: &RunState) -> WholeResult {
    let mut all = state.tools.iter().filter_map(|tool| tool.whole.clone());
    let whole = all.next().unwrap();
    assert!(all.next().is_none(), "more than one");
    whole
}

async fn read(engine: &Engine, name: &str, whole: &WholeResult) -> Option<String> {
    engine.whole_result(LOG, &session(name), whole).await.unwrap()
}

fn outcome(state: &RunState) -> &str {
    match state.tools[0].outcome.as_ref().unwrap() {
        ToolOutcome::Completed(text) | ToolOutcome::Failed(text) => text,
        other => panic!("{other:?}"),
    }
}

/// A script's text, which lives as long as the test.
fn leaked(text: String) -> &'static str {
    Box::leak(text.into_boxed_str())
}

fn calling(tool: &'static str, arguments: String) -> Turn {
    Turn::Call(Box::leak(Box::new([("a", tool, leaked(arguments))])))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_model_sees_both_ends_and_the_whole_is_kept_without_secrets_also_after_a_restart() {
    let world = World::new().await;
    let engine = world.engine().await;
    world.script([calling("pure", "{\"long\":3000000}".to_owned()), Turn::Say("seen")]);
    let run = run(&engine, start("go", "s")).await;
    let state = ended(&engine, &run).await;
    assert_eq!((state.status, state.content().as_str()), (RunStatus::Completed, "seen"));
    let whole = whole_of(&state);
    let given = long_text(3_000_000);
    let clean = Redactor::built_in().text(&given);
    assert!(given.contains(TOKEN) && !clean.contains(TOKEN));
    assert_eq!(whole.len, clean.len() as u64);
    assert_eq!(read(&engine, "s", &whole).await.as_ref(), Some(&clean));
    let request = world.model.requests.lock().unwrap()[1].clone();
    let told = request.messages.last().unwrap().content.clone().unwrap();
    assert!(told.len() < LONGEST && told == outcome(&state));
    let note = format!("bytes are left out here. They are kept with the run, as result {}.]", whole.id());
    assert!(told.contains(&note) && told.starts_with("0 größer € 🦀\n"), "{note}");
    let end = told.split_once(&note).unwrap().1.trim_start();
    assert!(clean.ends_with(end) && end.len() > 16_000);

    world.kill(engine).await;
    let next = world.engine().await;
    let state = next.run(LOG, &run).await.unwrap().unwrap();
    assert_eq!(read(&next, "s", state.whole_result(whole.id()).unwrap()).await, Some(clean));
    let recorded = world.store.read_stream(LOG, &StreamId::run(&run), 0).await.unwrap();
    let mut requested = recorded.iter().filter_map(|recorded| match &recorded.event {
        DomainEvent::Run(RunEvent::ModelCallRequested(requested)) => Some(requested),
        _ => None,
    });
    let last = requested.next_back().unwrap();
    let own = &state.messages[..last.own_messages];
    let detail = next.detail(LOG, state.clone()).await.unwrap().unwrap();
    let rebuilt = build_request(detail.config.agent().unwrap(), state.accepted.as_ref().unwrap(), &detail.history, own);
    assert_eq!((json_hash(&rebuilt).unwrap(), rebuilt), (last.prompt_hash.clone(), request));
    next.shutdown().await;
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn json_stays_without_its_secrets_though_it_is_cut_and_so_does_a_long_error() {
    let world = World::new().await;
    let engine = world.engine().await;
    world.script([calling("pure", "{\"json\":1}".to_owned())]);
    let first = run(&engine, start("go", "json")).await;
    let state = ended(&engine, &first).await;
    let kept = read(&engine, "json", &whole_of(&state)).await.unwrap();
    assert!(!kept.contains("hunter") && !outcome(&state).contains("hunter"), "{}", &kept[..200]);
    assert_eq!(serde_json::from_str::<serde_json::Value>(&kept).unwrap().as_array().unwrap().len(), 10_000);

    world.script([calling("pure", "{\"error\":100000}".to_owned())]);
    let second = run(&engine, start("go", "error")).await;
    let state = ended(&engine, &second).await;
    assert!(matches!(state.tools[0].outcome, Some(ToolOutcome::Failed(_))));
    let kept = read(&engine, "error", &whole_of(&state)).await.unwrap();
    assert_eq!(kept, Redactor::built_in().text(&long_text(100_000)));
    engine.shutdown().await;
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_short_stays_as_it_is_and_what_is_far_too_long_is_kept_to_its_bound() {
    let world = World::new().await;
    let engine = world.engine().await;
    world.script([calling("pure", "{\"long\":60000}".to_owned())]);
    let short = run(&engine, start("go", "short")).await;
    let state = ended(&engine, &short).await;
    assert!(state.tools[0].whole.is_none() && outcome(&state) == Redactor::built_in().text(&long_text(60_000)));

    world.script([calling("pure", "{\"long\":17000000}".to_owned())]);
    let long = run(&engine, start("go", "long")).await;
    let state = ended(&engine, &long).await;
    let (whole, clean) = (whole_of(&state), Redactor::built_in().text(&long_text(17_000_000)));
    assert_eq!(whole.total(), clean.len() as u64);
    let kept = read(&engine, "long", &whole).await.unwrap();
    assert!(clean.starts_with(&kept) && MOST_KEPT - kept.len() < 4);
    assert!(outcome(&state).contains(&format!("The first {} bytes are kept, no more.", kept.len())));
    engine.shutdown().await;
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_model_reads_on_in_what_it_has_seen_and_in_nothing_else() {
    let world = World::new().await;
    let more: ToolSet = [("read_result".to_owned(), Arc::new(read_result()) as Arc<dyn Tool>)].into();
    let engine = world.engine_of(config(), more).await;
    world.script([calling("pure", "{\"long\":200000}".to_owned())]);
    let first = run(&engine, start("go", "s")).await;
    let state = ended(&engine, &first).await;
    let whole = whole_of(&state);
    assert!(outcome(&state).contains(&format!("call read_result with result \"{}\" and offset 32", whole.id())));

    let ask = format!("{{\"result\":\"{}\",\"find\":\"token \"}}", whole.id());
    let page = async |name: &str| {
        world.script([calling("read_result", ask.clone())]);
        let run = run(&engine, start("read", name)).await;
        ended(&engine, &run).await
    };
    // A later run of the session sees the result in its history.
    let later = page("s").await;
    let text = outcome(&later);
    assert!(matches!(later.tools[0].outcome, Some(ToolOutcome::Completed(_))), "{text}");
    assert!(
        text.starts_with("[bytes ") && text.contains("]\ntoken [redacted]\n") && later.tools[0].whole.is_none(),
        "{text}"
    );
    // Another session does not, though the id is the right one.
    let other = page("other").await;
    assert!(outcome(&other).contains("there is no long result"), "{}", outcome(&other));
    engine.shutdown().await;
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn copies_have_all_of_it_and_erasing_the_original_takes_only_its_own() {
    let world = World::new().await;
    let engine = world.engine().await;
    world.script([calling("pure", "{\"long\":100000}".to_owned())]);
    let source = run(&engine, start("go", "s")).await;
    let state = ended(&engine, &source).await;
    let (whole, clean) = (whole_of(&state), Redactor::built_in().text(&long_text(100_000)));
    // Goes on from the first run, whose messages it has in itself.
    let component = ComponentRef::agent(ComponentId::parse("my-agent").unwrap());
    let more = ContinueRun {
        component: component.clone(),
        run_id: source.clone(),
        session_id: session("s"),
        answers: vec![],
        step_answers: vec![],
        input: Some("more".into()),
        mode: RunMode::Plain,
        fork: true,
        regenerate: false,
        replace_original: false,
        from: ContinueFrom::End,
    };
    let Outcome::Accepted { run_id: forked, .. } = engine.execute(envelope(more)).await.unwrap() else {
        panic!("a run")
    };
    let state = ended(&engine, &forked).await;
    assert_eq!(read(&engine, "s", state.whole_result(whole.id()).unwrap()).await.as_ref(), Some(&clean));

    let copy = ForkSession { component, session_id: session("s"), user_id: None };
    let Outcome::Forked { session_id } = engine.execute(envelope(copy)).await.unwrap() else { panic!("a copy") };
    world.store.erase_session(LOG, &session("s")).await.unwrap();
    assert_eq!(read(&engine, "s", &whole).await, None);
    let gone = engine.run(LOG, &source).await.unwrap().unwrap();
    assert_eq!((gone.whole_result(whole.id()), gone.tools.len()), (None, 1), "the reference is personal too");
    let copied: Vec<RunId> = world.runs_of(&session_id).await;
    assert_eq!(copied.len(), 2);
    for run in copied {
        let state = engine.run(LOG, &run).await.unwrap().unwrap();
        assert_eq!(
            read(&engine, session_id.as_str(), state.whole_result(whole.id()).unwrap()).await.as_ref(),
            Some(&clean)
        );
    }
    engine.shutdown().await;
    world.close().await;
}
