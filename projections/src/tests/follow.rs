//! The views hold what the log says, at once.

use daybook_domain::component::ComponentKind;
use daybook_domain::ids::RunId;
use daybook_domain::run::RunStatus;
use daybook_domain::session::SessionState;

use super::world::*;
use crate::{RunFilter, Runner, SessionFilter, SessionSort, Views};

#[tokio::test]
async fn a_read_right_after_an_append_sees_it_also_on_a_node_that_posts_nothing() {
    let world = World::new().await;
    let runner = Runner::start(world.store.clone(), LOG);
    for (views, n) in [(runner.views().patient(), 1), (Views::new(world.another().await).patient(), 2)] {
        let (s, r) = (format!("s{n}"), format!("r{n}"));
        let mut events = vec![accepted(&r, &s, Some("alice"), "a", "Hello", NOW)];
        let begun = vec![created(&s, Some("alice"), "a", None, NOW), admitted(&r, NOW)];
        world.append(vec![session_write(&s, begun.clone()), run_write(&r, &s, &events)]).await;
        let read = views.run(LOG, None, &run(&r)).await.unwrap();
        assert_eq!(read.lag, 0);
        let row = read.value.unwrap();
        assert_eq!((row.state.status, row.seq > 0), (RunStatus::Running, true));
        assert_eq!(row.state, fold(&events));

        events.push(succeeded(NOW + 2));
        world.append(vec![run_write(&r, &s, &events[1..]), session_write(&s, vec![left(&r, NOW + 2)])]).await;
        let after = views.run(LOG, Some(&user("alice")), &run(&r)).await.unwrap().value.unwrap();
        assert_eq!((after.state, after.seq), (fold(&events), row.seq));
        assert_eq!(views.run(LOG, Some(&user("bob")), &run(&r)).await.unwrap().value, None);
        assert_eq!(views.run(LOG, None, &run("nobody")).await.unwrap().value, None);

        let read = views.session(LOG, None, &session(&s)).await.unwrap();
        let row = read.value.unwrap();
        let mut expected = SessionState::default();
        begun.iter().chain([&left(&r, NOW + 2)]).for_each(|event| expected.evolve(event));
        assert_eq!((read.lag, &row.state, row.name()), (0, &expected, "Hello"));
        assert_eq!(views.session(LOG, Some(&user("bob")), &session(&s)).await.unwrap().value, None);
    }
    runner.stop().await;
    world.end().await;
}

#[tokio::test]
async fn zero_characters_pass_through_every_text() {
    let world = World::new().await;
    let runner = Runner::start(world.store.clone(), LOG);
    let views = runner.views().patient();
    let events = [accepted("r", "s", None, "a", "mess\0age", NOW), failed("fai\0lure", NOW + 1)];
    let begun = created("s", None, "a", Some("na\0me"), NOW);
    world.append(vec![session_write("s", vec![begun]), run_write("r", "s", &events)]).await;
    world.append(vec![session_write("t", vec![created("t", None, "a", None, NOW)])]).await;
    world.append(vec![run_write("q", "t", &[accepted("q", "t", None, "a", "first\0", NOW)])]).await;

    let row = views.run(LOG, None, &run("r")).await.unwrap().value.unwrap();
    assert_eq!(row.state, fold(&events), "the fold keeps them");
    let row = views.session(LOG, None, &session("s")).await.unwrap().value.unwrap();
    assert_eq!(row.state.name.as_deref(), Some("na\0me"));
    assert_eq!(row.state.metadata.unwrap().get("no\0te").unwrap(), "x\0y");
    let row = views.session(LOG, None, &session("t")).await.unwrap().value.unwrap();
    assert_eq!(row.name(), "first\u{FFFD}", "a column shows them");
    let filter = SessionFilter { name_contains: Some("A\0M".to_owned()), ..SessionFilter::default() };
    let page = views.sessions(LOG, None, &filter).await.unwrap().value;
    assert_eq!((page.rows.len(), page.total), (1, 1));
    assert!(runner.status().await.unwrap().iter().all(|projection| projection.parked.is_empty()));
    runner.stop().await;
    world.end().await;
}

#[tokio::test]
async fn runs_of_a_session_are_filtered_and_the_newest_are_kept() {
    let world = World::new().await;
    let runner = Runner::start(world.store.clone(), LOG);
    let views = runner.views().patient();
    world.append(vec![session_write("s", vec![created("s", Some("alice"), "a", None, NOW)])]).await;
    for n in 0..6 {
        let (id, component) = (format!("r{n}"), if n < 4 { "a" } else { "b" });
        let mut events = vec![accepted(&id, "s", Some("alice"), component, "m", NOW + n)];
        if n % 2 == 0 {
            events.push(succeeded(NOW + n));
        }
        world.append(vec![run_write(&id, "s", &events)]).await;
    }
    world.append(vec![run_write("other", "s2", &[accepted("other", "s2", None, "a", "m", NOW)])]).await;

    let all = RunFilter::default();
    let cases = [
        (all.clone(), vec!["r0", "r1", "r2", "r3", "r4", "r5"]),
        (RunFilter { limit: 2, ..all.clone() }, vec!["r4", "r5"]),
        (RunFilter { component: Some(agent("b")), ..all.clone() }, vec!["r4", "r5"]),
        (RunFilter { statuses: Some(vec![RunStatus::Completed]), ..all.clone() }, vec!["r0", "r2", "r4"]),
        (RunFilter { statuses: Some(vec![]), ..all.clone() }, vec![]),
        (RunFilter { created_after: Some(NOW + 4), ..all.clone() }, vec!["r4", "r5"]),
        (RunFilter { created_before: Some(NOW + 1), ..all.clone() }, vec!["r0", "r1"]),
    ];
    for (filter, expected) in cases {
        let rows = views.runs_of_session(LOG, None, &session("s"), &filter).await.unwrap().value;
        let ids: Vec<String> = rows.iter().map(|row| row.state.run_id().unwrap().to_string()).collect();
        assert_eq!(ids, expected, "{filter:?}");
    }
    let ids = ["r1", "nope", "other"].map(|id| RunId::parse(id).unwrap());
    let rows = views.runs(LOG, ids.to_vec()).await.unwrap().value;
    let mut found: Vec<String> = rows.iter().map(|row| row.state.run_id().unwrap().to_string()).collect();
    found.sort();
    assert_eq!(found, ["other", "r1"]);
    let alice = views.runs_of_session(LOG, Some(&user("alice")), &session("s"), &all).await.unwrap().value;
    let bob = views.runs_of_session(LOG, Some(&user("bob")), &session("s"), &all).await.unwrap().value;
    assert_eq!((alice.len(), bob.len()), (6, 0));
    runner.stop().await;
    world.end().await;
}

#[tokio::test]
async fn sessions_come_in_pages_with_totals() {
    let world = World::new().await;
    let runner = Runner::start(world.store.clone(), LOG);
    let views = runner.views().patient();
    // s0 to s9; even ones are alice's, the first four with agent a. The order of creation times is reversed.
    for n in 0..10 {
        let (id, owner) = (format!("s{n}"), if n % 2 == 0 { "alice" } else { "bob" });
        let (component, name) = (if n < 4 { "a" } else { "b" }, format!("Name {}", (n + 3) % 10));
        let at = NOW + 100 - n;
        world.append(vec![session_write(&id, vec![created(&id, Some(owner), component, Some(&name), at)])]).await;
    }
    world.append(vec![session_write("s5", vec![left("r", NOW + 500)])]).await;

    let all = SessionFilter { descending: false, ..SessionFilter::default() };
    let (alice, bob) = (user("alice"), user("bob"));
    let named = |part: &str| Some(part.to_owned());
    let cases = [
        (None, SessionFilter { limit: 3, ..all.clone() }, vec!["s9", "s8", "s7"], 10),
        (None, SessionFilter { limit: 3, page: 4, ..all.clone() }, vec!["s0"], 10),
        (None, SessionFilter { limit: 3, page: 9, ..all.clone() }, vec![], 10),
        (None, SessionFilter { limit: 2, descending: true, ..all.clone() }, vec!["s0", "s1"], 10),
        (None, SessionFilter { limit: 2, sort_by: SessionSort::Unsorted, ..all.clone() }, vec!["s0", "s1"], 10),
        (None, SessionFilter { limit: 2, sort_by: SessionSort::SessionName, ..all.clone() }, vec!["s7", "s8"], 10),
        (
            None,
            SessionFilter { limit: 1, sort_by: SessionSort::UpdatedAt, descending: true, ..all.clone() },
            vec!["s5"],
            10,
        ),
        (Some(&alice), SessionFilter { limit: 2, ..all.clone() }, vec!["s8", "s6"], 5),
        (None, SessionFilter { user_id: Some(bob.clone()), limit: 1, ..all.clone() }, vec!["s9"], 5),
        (Some(&alice), SessionFilter { user_id: Some(bob.clone()), ..all.clone() }, vec![], 0),
        (Some(&alice), SessionFilter { component_id: Some(agent("a").id), ..all.clone() }, vec!["s2", "s0"], 2),
        (None, SessionFilter { component_id: Some(agent("a").id), limit: 1, ..all.clone() }, vec!["s3"], 4),
        (None, SessionFilter { kind: Some(ComponentKind::Agent), limit: 1, ..all.clone() }, vec!["s9"], 10),
        (None, SessionFilter { name_contains: named("ME 4"), ..all.clone() }, vec!["s1"], 1),
        (None, SessionFilter { name_contains: named("%"), ..all.clone() }, vec![], 0),
    ];
    for (owner, filter, expected, total) in cases {
        let page = views.sessions(LOG, owner, &filter).await.unwrap().value;
        let ids: Vec<String> = page.rows.iter().map(|row| row.state.session_id.clone().unwrap().into()).collect();
        assert_eq!((ids, page.total), (expected.iter().map(|id| (*id).to_owned()).collect(), total), "{filter:?}");
    }
    runner.stop().await;
    world.end().await;
}
