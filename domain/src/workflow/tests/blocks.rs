//! Every kind of block, and what steps see of those before them.

use serde_json::json;

use super::super::*;
use super::sim::*;

#[test]
fn steps_run_in_order_and_each_goes_on_from_the_one_before() {
    let mut sim = Sim::new(config(vec![function("a"), function("b"), function("c")]));
    assert_eq!(sim.run(0), Some(FlowEnd::Succeed));
    let ran: Vec<(&str, &str)> = sim.ran.iter().map(|(name, from)| (name.as_str(), from.as_str())).collect();
    assert_eq!(ran, [("a", ""), ("b", "a said"), ("c", "b said")]);
    assert_eq!(sim.state.content(), "c said");
    assert_eq!(sim.flow().results().len(), 3);
}

#[test]
fn a_condition_runs_one_of_its_branches() {
    for (holds, ran, content) in [
        (true, vec!["a", "yes", "end"], "Condition if completed with 1 results (if branch)"),
        (false, vec!["a", "no", "end"], "Condition if completed with 1 results (else branch)"),
    ] {
        let steps = vec![function("a"), condition("if", vec![function("yes")], vec![function("no")]), function("end")];
        let mut sim = Sim::new(config(steps));
        sim.rule = Box::new(move |_| json!(holds));
        assert_eq!(sim.run(0), Some(FlowEnd::Succeed));
        assert_eq!(sim.names(), ran);
        assert_eq!(sim.flow().results()[1].content, json!(content));
    }
}

#[test]
fn what_a_block_did_not_say_does_not_hide_what_was_said_before() {
    let mut sim = Sim::new(config(vec![function("a"), condition("if", vec![function("yes")], vec![]), function("b")]));
    sim.rule = Box::new(|_| json!(false));
    assert_eq!(sim.run(0), Some(FlowEnd::Succeed));
    assert_eq!(sim.ran[1], ("b".to_owned(), "a said".to_owned()));
    let mut last = Sim::new(config(vec![function("a"), condition("if", vec![function("yes")], vec![])]));
    last.rule = Box::new(|_| json!(false));
    last.run(0);
    assert_eq!(last.state.content(), "a said");
}

#[test]
fn steps_beside_each_other_see_the_same_and_are_told_together() {
    let steps = vec![function("a"), parallel("par", vec![function("x"), function("y")], None), function("z")];
    let mut sim = Sim::new(config(steps));
    assert_eq!(sim.run(0), Some(FlowEnd::Succeed));
    assert_eq!(&sim.ran[1..3], [("x".into(), "a said".into()), ("y".into(), "a said".into())]);
    let par = sim.flow().results()[1].clone();
    let content = "## Parallel Execution Results\n\n### ✅ SUCCESS: x\nx said\n\n### ✅ SUCCESS: y\ny said";
    assert_eq!(par.content, json!(content));
    assert_eq!(par.told(), "=== x ===\nx said\n\n=== y ===\ny said");
    assert_eq!(par.said(), &json!("y said"));
}

#[test]
fn who_runs_later_in_a_parallel_block_sees_no_more() {
    let block = parallel("par", vec![function("x"), group("in", vec![function("y"), function("z")])], Some(1));
    let mut sim = Sim::new(config(vec![function("a"), block]));
    sim.act = Box::new(|start| {
        assert!(start.facts.output("x").is_none());
        Outcome::Says(json!(format!("{} said", start.step.name)))
    });
    assert_eq!(sim.run(0), Some(FlowEnd::Succeed));
    let ran: Vec<(&str, &str)> = sim.ran.iter().map(|(name, from)| (name.as_str(), from.as_str())).collect();
    assert_eq!(ran, [("a", ""), ("x", "a said"), ("y", "a said"), ("z", "y said")]);
}

#[test]
fn a_parallel_block_runs_no_more_than_its_limit() {
    let names = ["a", "b", "c", "d", "e"];
    let steps = vec![parallel("par", names.map(function).to_vec(), Some(2))];
    let config = config(steps);
    let flow = FlowState::default();
    let mut sim = Sim::new(config.clone());
    let nothing = std::collections::HashSet::new();
    let Move::Enter(entered) =
        next(&config, &flow, Now { ms: 0, in_flight: &nothing, waiting: &nothing, cancelling: false }).moves.remove(0)
    else {
        panic!("the block is entered first")
    };
    sim.happen(crate::run::RunEvent::BlockDecided(entered));
    let flow = sim.flow();
    let moves = next(&config, &flow, Now { ms: 0, in_flight: &nothing, waiting: &nothing, cancelling: false }).moves;
    let started: Vec<&str> = moves
        .iter()
        .filter_map(|it| if let Move::Start(start) = it { Some(start.step.name.as_str()) } else { None })
        .collect();
    assert_eq!(started, ["a", "b"]);
    assert_eq!(sim.run(0), Some(FlowEnd::Succeed));
    assert_eq!(sim.names(), names);
}

#[test]
fn a_loop_ends_when_its_test_holds_or_at_its_cap() {
    let until = |steps, max_iterations| {
        let until = Some(Expression::Cel("enough".into()));
        step("loop", StepKind::Loop(LoopStep { steps, until, max_iterations, forward: true }))
    };
    for (max, ran) in [(10, 3), (2, 2)] {
        let mut sim = Sim::new(config(vec![function("a"), until(vec![function("body")], max), function("b")]));
        sim.rule = Box::new(|question| {
            assert_eq!(
                question.facts.iteration,
                Some(if let About::Until(number) = question.about { number } else { 0 })
            );
            assert_eq!(question.facts.output("body").unwrap().content, json!("body said"));
            json!(question.about == About::Until(3))
        });
        assert_eq!(sim.run(0), Some(FlowEnd::Succeed));
        assert_eq!(sim.names().iter().filter(|name| **name == "body").count(), ran);
        let content = format!("Loop loop completed {ran} iterations with {ran} total steps");
        assert_eq!(sim.flow().results()[1].content, json!(content));
    }
}

#[test]
fn iterations_start_anew_or_go_on_from_each_other() {
    for (forward, second) in [(false, "a said"), (true, "body said")] {
        let body = StepKind::Loop(LoopStep { steps: vec![function("body")], until: None, max_iterations: 2, forward });
        let mut sim = Sim::new(config(vec![function("a"), step("loop", body)]));
        sim.run(0);
        assert_eq!(sim.ran[2].1, second);
    }
}

#[test]
fn a_router_runs_what_was_chosen_in_that_order() {
    let choices = vec![function("x"), function("y"), function("z")];
    let mut sim = Sim::new(config(vec![router("route", choices, true), function("end")]));
    sim.rule = Box::new(|_| json!(["z", "x"]));
    assert_eq!(sim.run(0), Some(FlowEnd::Succeed));
    assert_eq!(sim.names(), ["z", "x", "end"]);
    let route = sim.flow().results()[0].clone();
    assert_eq!(route.steps.iter().map(|step| step.name.as_str()).collect::<Vec<_>>(), ["z", "x"]);
    assert_eq!(route.content, json!("Router route completed with 2 results"));
}

#[test]
fn outputs_are_found_by_name_also_within_blocks() {
    let inner = group("group", vec![function("x"), function("y")]);
    let steps =
        vec![function("a"), inner, parallel("par", vec![group("in", vec![function("p"), function("q")])], None)];
    let mut sim = Sim::new(config(steps));
    sim.act = Box::new(|start| {
        let seen = |name| start.facts.output(name).is_some();
        match start.step.name.as_str() {
            "y" => assert!(seen("a") && seen("x") && !seen("group")),
            "q" => assert!(seen("a") && seen("x") && seen("y") && seen("group") && seen("p")),
            _ => {}
        }
        Outcome::Says(json!(start.facts.outputs.len()))
    });
    assert_eq!(sim.run(0), Some(FlowEnd::Succeed));
    // What is in a block is seen through the block: a, group, p.
    assert_eq!(sim.state.content(), "3");
}

#[test]
fn who_stops_ends_the_workflow_after_what_runs_beside_it() {
    let inner = parallel("par", vec![function("stop"), function("other")], None);
    let steps = vec![repeat("loop", vec![group("group", vec![inner, function("never")])], 5), function("nor this")];
    let mut sim = Sim::new(config(steps));
    sim.act = Box::new(|start| match start.step.name.as_str() {
        "stop" => Outcome::Stops(json!("enough")),
        name => Outcome::Says(json!(name)),
    });
    assert_eq!(sim.run(0), Some(FlowEnd::Succeed));
    assert_eq!(sim.names(), ["stop", "other"]);
    let results = sim.flow().results();
    assert!(results[0].stop && results[0].success);
    assert_eq!(results[0].content, json!("Loop loop completed 1 iterations with 1 total steps"));
}

#[test]
fn a_long_loop_stays_small() {
    let size = |iterations| {
        let body = vec![function("x"), parallel("par", vec![function("y"), function("z")], None)];
        let mut sim = Sim::new(config(vec![repeat("loop", body, iterations)]));
        // Before its end, when it is largest.
        let mut largest = 0;
        assert_eq!(sim.run(0), Some(FlowEnd::Succeed));
        let mut state = crate::run::RunState::default();
        for event in &sim.events {
            state.evolve(event);
            if state.updated_ms % 50 == 0 {
                largest = largest.max(serde_json::to_string(&state.flow).unwrap().len());
            }
        }
        let bytes: usize = sim.events.iter().map(|event| event.store().unwrap().payload.len()).sum();
        (largest, sim.events.len(), bytes)
    };
    let (small, rows, bytes) = size(100);
    let (large, many_rows, many_bytes) = size(1000);
    assert!(large < small + small / 10, "{small} bytes after 100 iterations, {large} after 1000");
    // Three events begin and end a run and its loop.
    assert_eq!((many_rows - 4) / 1000, (rows - 4) / 100);
    assert!(many_bytes < bytes * 11, "{bytes} bytes for 100 iterations, {many_bytes} for 1000");
}
