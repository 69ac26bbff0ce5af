//! A process may die at any moment: what goes on afterwards comes to the same, and nothing that ended runs again.

use std::collections::HashMap;

use proptest::prelude::*;
use serde_json::json;

use super::super::*;
use super::sim::*;
use crate::run::RunEvent;

fn leaf() -> impl Strategy<Value = Step> {
    (0_u8..4, 0_u8..6).prop_map(|(retries, kind)| {
        let on_error = if kind == 0 { OnError::Pause } else { OnError::Skip };
        let retries = Retries { count: u32::from(retries), delay_ms: 10, ..Retries::default() };
        let confirmation = (kind == 1).then(Confirmation::default);
        let output = (kind == 2).then(OutputReview::default);
        let review = HumanReview { confirmation, output, ..HumanReview::default() };
        let name = if kind == 3 { "flaky" } else { "step" };
        Step { policies: Policies { retries, on_error, review, timeout_seconds: None }, ..function(name) }
    })
}

fn steps(inner: impl Strategy<Value = Step> + 'static) -> BoxedStrategy<Vec<Step>> {
    proptest::collection::vec(inner, 1..4)
        .prop_map(|steps| {
            let named = |(index, step): (usize, Step)| Step { name: format!("{} {index}", step.name), ..step };
            steps.into_iter().enumerate().map(named).collect::<Vec<_>>()
        })
        .boxed()
}

fn any_step() -> impl Strategy<Value = Step> {
    leaf().prop_recursive(3, 24, 4, |inner| {
        let inner = steps(inner);
        prop_oneof![
            inner.clone().prop_map(|steps| group("group", steps)),
            (inner.clone(), 1_u32..4).prop_map(|(steps, limit)| parallel("par", steps, Some(limit))),
            (inner.clone(), 1_u32..4).prop_map(|(steps, times)| repeat("loop", steps, times)),
            (inner.clone(), inner.clone()).prop_map(|(steps, other)| condition("if", steps, other)),
            inner.prop_map(|steps| router("route", steps, true)),
        ]
    })
}

/// What a step says depends on what it is and what it goes on from; flaky ones fail the first time.
fn acts(sim: &mut Sim) {
    sim.act = Box::new(|start| match start.round {
        0 if start.step.name.starts_with("flaky") => Outcome::Fails("flaky"),
        _ => Outcome::Says(json!(format!("{} at {}", start.step.name, start.place))),
    });
    sim.rule = Box::new(|question| match &question.step.kind {
        StepKind::Router(router) => json!([router.choices[question.place.as_str().len() % router.choices.len()].name]),
        _ => json!(question.place.as_str().len() % 2 == 0),
    });
}

fn outcomes(events: &[RunEvent]) -> HashMap<(String, u32), usize> {
    let mut all = HashMap::new();
    for event in events {
        if let RunEvent::StepStarted(e) = event {
            *all.entry((e.place.to_string(), e.attempt)).or_default() += 1;
        }
    }
    all
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn after_a_crash_it_comes_to_the_same(steps in steps(any_step()), cuts in proptest::collection::vec(any::<prop::sample::Index>(), 6)) {
        let config = config(steps);
        prop_assert_eq!(config.mistakes(), vec![]);
        let mut whole = Sim::new(config.clone());
        acts(&mut whole);
        prop_assert_eq!(whole.run(usize::MAX), Some(FlowEnd::Succeed));
        // Every attempt is recorded once, and the fold is empty of what is over.
        prop_assert!(outcomes(&whole.events).values().all(|count| *count == 1));
        prop_assert!(whole.flow().steps().all(|(place, _)| place.is_top()));
        for cut in cuts {
            // A pause and its answers stand together.
            let cut = 1 + cut.index(whole.events.len() - 1);
            let events = whole.events[..cut].to_vec();
            let mut rest = Sim::at(config.clone(), events.clone());
            if rest.state.status == crate::run::RunStatus::Paused || rest.state.status.is_end() {
                continue;
            }
            acts(&mut rest);
            prop_assert_eq!(rest.run(usize::MAX), Some(FlowEnd::Succeed));
            prop_assert_eq!(rest.state.content(), whole.state.content());
            let said = |sim: &Sim| sim.flow().results().iter().flat_map(StepOutput::all).map(|output| {
                (output.place.clone(), output.content.clone(), output.success)
            }).collect::<Vec<_>>();
            prop_assert_eq!(said(&rest), said(&whole));
            // At most what ran when it was cut off runs once more, as a further attempt with the same key.
            let lost = Sim::at(config.clone(), events).flow().running().count();
            let (before, after) = (outcomes(&whole.events).len(), outcomes(&rest.events).len());
            prop_assert_eq!(after, before + lost);
        }
    }

    #[test]
    fn a_configuration_is_read_as_it_was_written(steps in steps(any_step())) {
        let config = config(steps);
        let text = serde_json::to_string(&config).unwrap();
        prop_assert_eq!(serde_json::from_str::<WorkflowConfig>(&text).unwrap(), config.clone());
        for (place, step) in config.walk() {
            let path = config.path(&place);
            prop_assert_eq!(path.last(), Some(&step.name));
            prop_assert_eq!(path.len(), place.indexes().len());
        }
    }
}

#[test]
fn a_state_is_read_as_it_was_written() {
    let body = vec![function("x"), parallel("par", vec![function("y"), function("z")], None)];
    let mut sim = Sim::new(config(vec![function("a"), repeat("loop", body, 3)]));
    sim.act =
        Box::new(|start| if start.place.as_str() == "1.i2.1.1" { Outcome::Lost } else { Outcome::Says(json!(1)) });
    assert_eq!(sim.run(0), None);
    let flow = sim.flow();
    let text = serde_json::to_string(&flow).unwrap();
    assert_eq!(serde_json::from_str::<FlowState>(&text).unwrap(), flow);
}

#[test]
fn what_ran_when_its_run_was_cancelled_came_to_nothing() {
    let started = |place: &str, name: &str| -> StepStarted {
        let executor = json!({"kind": "function", "name": "sleep"});
        let event = json!({"place": place, "name": name, "executor": executor, "attempt": 1, "effect": "pure",
            "idempotency_key": "k", "frame": 1, "at_ms": 1});
        serde_json::from_value(event).unwrap()
    };
    let mut flow = FlowState::default();
    flow.started(&started("0", "first"));
    flow.started(&started("1.0", "inner"));
    flow.cut_off();
    assert_eq!(flow.running().count(), 0);
    let results = flow.results();
    assert_eq!(results.len(), 1);
    assert_eq!((results[0].name.as_str(), results[0].success), ("first", false));
    assert_eq!(results[0].error.as_deref(), Some("Cancelled during execution"));
}
