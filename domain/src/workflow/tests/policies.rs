//! What happens when steps fail, and what people are asked.

use serde_json::{Value, json};

use super::super::*;
use super::sim::*;
use crate::run::RunEvent;
use crate::tool::Effect;

fn with(step: Step, policies: Policies) -> Step {
    Step { policies, ..step }
}

fn reviewed(step: Step, review: HumanReview) -> Step {
    with(step, Policies { review, ..Policies::default() })
}

fn confirmed(step: Step, on_reject: OnReject) -> Step {
    let confirmation = Some(Confirmation { message: Some("Really?".into()), on_reject });
    reviewed(step, HumanReview { confirmation, ..HumanReview::default() })
}

fn yes(confirmed: bool) -> StepAnswer {
    StepAnswer { confirmed: Some(confirmed), ..StepAnswer::default() }
}

fn failing(on_error: OnError) -> Sim {
    let bad = with(function("bad"), Policies { on_error, ..Policies::default() });
    let mut sim = Sim::new(config(vec![function("a"), bad, function("b")]));
    sim.act = Box::new(|start| match start.step.name.as_str() {
        "bad" => Outcome::Fails("on purpose"),
        name => Outcome::Says(json!(name)),
    });
    sim
}

#[test]
fn a_failed_step_is_skipped_by_default() {
    let mut sim = failing(OnError::default());
    assert_eq!(sim.run(0), Some(FlowEnd::Succeed));
    assert_eq!(sim.names(), ["a", "bad", "b"]);
    let bad = sim.flow().results()[1].clone();
    assert_eq!((bad.success, bad.error.as_deref()), (false, Some("on purpose")));
    assert_eq!(bad.content, json!("Step skipped due to error: on purpose"));
}

#[test]
fn a_failed_step_fails_the_workflow_where_it_must() {
    let mut sim = failing(OnError::Fail);
    assert_eq!(sim.run(0), Some(FlowEnd::Fail("Step \"bad\" failed: on purpose".into())));
    assert_eq!(sim.names(), ["a", "bad"]);
    assert_eq!(sim.flow().results().len(), 2);
}

#[test]
fn a_person_runs_a_failed_step_again_or_skips_it() {
    let mut sim = failing(OnError::Pause);
    sim.person = Box::new(|asked| {
        assert_eq!(asked.ask, Ask::Failure);
        yes(true)
    });
    assert_eq!(sim.run(2), None);
    assert_eq!(sim.names(), ["a", "bad", "bad", "bad"]);
    sim.person = Box::new(|_| yes(false));
    assert_eq!(sim.run(1), Some(FlowEnd::Succeed));
    assert_eq!(sim.names(), ["a", "bad", "bad", "bad", "b"]);
    assert!(!sim.flow().results()[1].success);
}

#[test]
fn retries_wait_longer_each_time_and_come_to_an_end() {
    let retries = Retries { count: 3, delay_ms: 100, exponential: true, cap_ms: 250 };
    let bad = with(function("bad"), Policies { retries, ..Policies::default() });
    let mut sim = Sim::new(config(vec![bad]));
    sim.act = Box::new(|_| Outcome::Fails("again"));
    assert_eq!(sim.run(0), Some(FlowEnd::Succeed));
    let times =
        |wanted: &dyn Fn(&RunEvent) -> Option<i64>| -> Vec<i64> { sim.events.iter().filter_map(wanted).collect() };
    let started = times(&|event| if let RunEvent::StepStarted(e) = event { Some(e.at_ms) } else { None });
    let ended = times(&|event| if let RunEvent::StepEnded(e) = event { Some(e.at_ms) } else { None });
    let waits: Vec<i64> = started[1..].iter().zip(&ended).map(|(start, end)| start - end - 1).collect();
    assert_eq!(waits, [100, 200, 250]);
    // Each is to have another outcome, so each has another key.
    let keys: std::collections::HashSet<String> = sim
        .events
        .iter()
        .filter_map(|event| if let RunEvent::StepStarted(e) = event { Some(e.idempotency_key.clone()) } else { None })
        .collect();
    assert_eq!(keys.len(), 4);
}

#[test]
fn a_step_waits_for_its_confirmation() {
    let steps = || vec![function("a"), confirmed(function("ask"), OnReject::Skip), function("b")];
    let mut sim = Sim::new(config(steps()));
    assert_eq!(sim.run(0), None);
    assert_eq!(sim.names(), ["a"]);
    assert_eq!(sim.run(1), Some(FlowEnd::Succeed));
    assert_eq!(sim.names(), ["a", "ask", "b"]);

    let mut sim = Sim::new(config(steps()));
    sim.person = Box::new(|_| yes(false));
    assert_eq!(sim.run(1), Some(FlowEnd::Succeed));
    assert_eq!(sim.names(), ["a", "b"]);
    assert_eq!(sim.ran[1].1, "a said");
    assert_eq!(sim.flow().results().len(), 2, "what did not run came to nothing");
}

#[test]
fn a_rejection_cancels_where_it_must() {
    let mut sim = Sim::new(config(vec![confirmed(function("ask"), OnReject::Cancel), function("b")]));
    sim.person = Box::new(|_| StepAnswer { feedback: Some("too risky".into()), ..yes(false) });
    assert_eq!(sim.run(1), Some(FlowEnd::Cancel("Step \"ask\" was rejected: too risky".into())));
    assert_eq!(sim.names(), [""; 0]);
}

#[test]
fn a_person_decides_a_condition_that_is_confirmed() {
    for (answer, on_reject, ran) in [
        (true, OnReject::Else, vec!["yes", "b"]),
        (false, OnReject::Else, vec!["no", "b"]),
        (false, OnReject::Skip, vec!["b"]),
    ] {
        let asked = confirmed(condition("if", vec![function("yes")], vec![function("no")]), on_reject);
        let mut sim = Sim::new(config(vec![asked, function("b")]));
        sim.rule = Box::new(|question| panic!("{} is decided by a person", question.step.name));
        sim.person = Box::new(move |_| yes(answer));
        assert_eq!(sim.run(1), Some(FlowEnd::Succeed));
        assert_eq!(sim.names(), ran);
    }
}

#[test]
fn a_person_chooses_the_routes() {
    let choices = vec![function("x"), function("y"), function("z")];
    let selector = Selector::Person { message: Some("Where to?".into()) };
    let route = step("route", StepKind::Router(RouterStep { selector, choices, many: true }));
    let mut sim = Sim::new(config(vec![route]));
    sim.person = Box::new(|asked| {
        let choices = ["x", "y", "z"].map(str::to_owned).to_vec();
        assert_eq!(asked.ask, Ask::Routes { message: Some("Where to?".into()), choices, many: true });
        StepAnswer { choices: Some(vec!["y".into(), "x".into()]), ..StepAnswer::default() }
    });
    assert_eq!(sim.run(1), Some(FlowEnd::Succeed));
    assert_eq!(sim.names(), ["y", "x"]);
}

#[test]
fn an_output_that_is_rejected_is_made_again_with_what_was_said() {
    let output = Some(OutputReview { message: None, max_rejections: 2 });
    let step = reviewed(function("draft"), HumanReview { output, ..HumanReview::default() });
    let mut sim = Sim::new(config(vec![step, function("b")]));
    sim.act = Box::new(|start| Outcome::Says(json!(format!("{} {}", start.step.name, start.attempt))));
    sim.person = Box::new(|asked| match asked.ask {
        Ask::Output { rejections: 0, .. } => StepAnswer { feedback: Some("shorter".into()), ..yes(false) },
        _ => yes(true),
    });
    assert_eq!(sim.run(1), None);
    let rejected = sim.flow().step(&Place::top(0)).unwrap().rejected.clone().unwrap();
    assert_eq!((rejected.content, rejected.feedback.as_deref()), (json!("draft 1"), Some("shorter")));
    assert_eq!(sim.run(1), Some(FlowEnd::Succeed));
    assert_eq!(
        sim.ran,
        [("draft", ""), ("draft", ""), ("b", "draft 2")].map(|(name, from)| (name.into(), from.into()))
    );
}

#[test]
fn an_output_that_is_rejected_too_often_fails_the_step() {
    let output = Some(OutputReview { message: None, max_rejections: 2 });
    let step = reviewed(function("draft"), HumanReview { output, ..HumanReview::default() });
    let mut sim = Sim::new(config(vec![step, function("b")]));
    sim.person = Box::new(|_| yes(false));
    assert_eq!(sim.run(9), Some(FlowEnd::Succeed));
    assert_eq!(sim.names(), ["draft", "draft", "draft", "b"]);
    assert_eq!(sim.flow().results()[0].error.as_deref(), Some("its output was rejected 3 times"));
}

#[test]
fn a_person_may_change_an_output() {
    let output = Some(OutputReview::default());
    let step = reviewed(function("draft"), HumanReview { output, ..HumanReview::default() });
    let mut sim = Sim::new(config(vec![step, function("b")]));
    sim.person = Box::new(|_| StepAnswer { output: Some(json!("better")), ..StepAnswer::default() });
    assert_eq!(sim.run(1), Some(FlowEnd::Succeed));
    assert_eq!(sim.ran[1].1, "better");
}

#[test]
fn nobody_is_asked_while_something_runs_beside_it() {
    let beside =
        parallel("par", vec![confirmed(function("ask"), OnReject::Skip), function("x"), function("y")], Some(1));
    let mut sim = Sim::new(config(vec![beside]));
    assert_eq!(sim.run(0), None);
    assert_eq!(sim.names(), ["x", "y"]);
    assert_eq!(sim.run(1), Some(FlowEnd::Succeed));
    assert_eq!(sim.names(), ["x", "y", "ask"]);
}

#[test]
fn an_unsafe_step_that_a_crash_hid_is_asked_about() {
    let lost = || {
        let steps = vec![with_effect("send", Effect::Unsafe), function("b")];
        let mut sim = Sim::new(config(steps));
        sim.act = Box::new(|_| Outcome::Lost);
        assert_eq!(sim.run(0), None);
        Sim::at(sim.config, sim.events)
    };
    let asked = |answer: StepAnswer| -> Box<Person> {
        Box::new(move |asked| {
            assert_eq!(asked.ask, Ask::UnknownOutcome);
            answer.clone()
        })
    };
    let mut again = lost();
    again.person = asked(yes(true));
    assert_eq!(again.run(1), Some(FlowEnd::Succeed));
    assert_eq!(again.names(), ["send", "b"]);

    let mut done = lost();
    done.person = asked(StepAnswer { output: Some(json!("sent")), ..StepAnswer::default() });
    assert_eq!(done.run(1), Some(FlowEnd::Succeed));
    assert_eq!(done.ran, [("b".to_owned(), "sent".to_owned())]);

    let mut left = lost();
    left.person = asked(yes(false));
    assert_eq!(left.run(1), Some(FlowEnd::Succeed));
    assert_eq!(left.names(), ["b"]);
    assert!(!left.flow().results()[0].success);
}

#[test]
fn what_a_person_filled_in_stays_with_the_step() {
    let user_input = Some(UserInput::default());
    let review = HumanReview { user_input, input: Some(InputReview::default()), ..HumanReview::default() };
    let mut sim = Sim::new(config(vec![reviewed(function("a"), review)]));
    sim.person = Box::new(|_| {
        let values = json!({"environment": "staging"}).as_object().cloned();
        StepAnswer { values, input: Some(json!("Bye")), ..yes(true) }
    });
    assert_eq!(sim.run(1), Some(FlowEnd::Succeed));
    let before = sim.flow().step(&Place::top(0)).unwrap().before.clone().unwrap();
    assert_eq!(Value::from(before.values.unwrap()), json!({"environment": "staging"}));
    assert_eq!(before.input, Some(json!("Bye")));
}
