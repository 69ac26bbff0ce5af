//! What is wrong with a configuration is told all at once.

use serde_json::json;

use super::super::*;
use super::sim::*;

fn faults(config: &WorkflowConfig) -> Vec<String> {
    config.mistakes().iter().map(ToString::to_string).collect()
}

#[test]
fn all_mistakes_are_told_with_their_places() {
    let constant = |value| Expression::Constant(value);
    let selector = Selector::Value(constant(json!("nowhere")));
    let confirmation = Some(Confirmation { message: None, on_reject: OnReject::Else });
    let output = Some(OutputReview::default());
    let policies = Policies {
        timeout_seconds: Some(0),
        review: HumanReview { confirmation, output, ..HumanReview::default() },
        ..Policies::default()
    };
    let mut config = config(vec![
        function("same"),
        function("same"),
        repeat("loop", vec![], 0),
        condition("if", vec![], vec![]),
        step("route", StepKind::Router(RouterStep { selector, choices: vec![function("x")], many: false })),
        Step { policies, ..group("outer", vec![parallel("inner", vec![function("")], Some(0))]) },
        step(
            "test",
            StepKind::Condition(ConditionStep {
                test: constant(json!("yes")),
                steps: vec![function("x")],
                else_steps: vec![step(
                    "expr",
                    StepKind::Loop(LoopStep {
                        steps: vec![function("y")],
                        until: Some(Expression::Cel(" ".into())),
                        max_iterations: 1,
                        forward: false,
                    }),
                )],
            }),
        ),
    ]);
    config.max_parallel = 0;
    let faults = faults(&config);
    let wanted = [
        "`max_parallel` must be at least 1",
        "two of its `steps` are called \"same\"",
        "loop: `max_iterations` must be from 1",
        "loop: the loop has no `steps`",
        "if: the condition has neither",
        "route: the router has no choice \"nowhere\"",
        "outer: `timeout_seconds`",
        "outer: `on_reject: else` is for conditions",
        "outer: a block cannot have a timeout",
        "outer: a block cannot have an output review",
        "outer > inner: `limit` must be at least 1",
        "outer > inner > : a step has no name",
        "test: `test` must be true or false, and is \"yes\"",
        "test > expr: `until` is empty",
    ];
    for wanted in wanted {
        assert!(faults.iter().any(|fault| fault.starts_with(wanted)), "{wanted} is missing in {faults:#?}");
    }
    // The function without a name is told of twice: as a step, and as a function.
    assert_eq!(faults.len(), wanted.len() + 1, "{faults:#?}");
}

#[test]
fn an_empty_or_endless_workflow_is_refused() {
    assert!(faults(&config(vec![]))[0].contains("no steps"));
    let deep = (0..MAX_DEPTH).fold(function("x"), |inner, _| group("g", vec![inner]));
    let faults = faults(&config(vec![deep]));
    assert!(faults.len() == 1 && faults[0].contains("at most 16 blocks deep"), "{faults:?}");
}

#[test]
fn what_a_workflow_needs_is_found_wherever_it_is() {
    let tool = |name: &str| {
        let tool = crate::tool::ToolSpec::new(name, "", json!({"type": "object"}));
        let arguments = [("q".to_owned(), Expression::Cel("input".into()))].into();
        step(name, StepKind::Tool(ToolStep { tool, arguments }))
    };
    let inner =
        condition("if", vec![tool("one")], vec![tool("two"), repeat("loop", vec![tool("one"), function("f")], 2)]);
    let config = config(vec![inner]);
    assert_eq!(config.tools().iter().map(|tool| tool.name.as_str()).collect::<Vec<_>>(), ["one", "two"]);
    let functions: Vec<String> =
        config.functions().into_iter().map(|(path, name)| format!("{path:?} {name}")).collect();
    assert_eq!(functions, [r#"["if", "loop", "f"] f"#]);
    let expressions: Vec<&str> = config.expressions().into_iter().map(|(_, what, _)| what).collect();
    assert_eq!(expressions, ["`test`", "`arguments`", "`arguments`", "`arguments`"]);
}
