//! Workflows: read whole, and every mistake at its place.

use std::collections::BTreeMap;

use daybook_domain::run::InputField;
use daybook_domain::workflow::{Expression, Selector};

use super::*;
use crate::{
    AgentDefinition, Confirmation, InputReview, OnError, OnReject, OutputReview, Retries, StepDefinition, UserInput,
    WorkflowDefinition,
};

fn cel(text: &str) -> Expression {
    Expression::Cel(text.to_owned())
}

#[test]
fn a_workflow_is_read_whole() {
    let text = "
agents: [{id: a}]
teams: [{id: t, members: [a]}]
workflows:
  - id: other
    steps: [{name: only, agent: a}]
  - id: w
    name: W
    description: All there is.
    input_schema: {type: object}
    session_state: {n: 1}
    history_runs: 2
    max_parallel: 4
    metadata: {m: 1}
    steps:
      - name: first
        description: Begins.
        agent: a
        input: \"'say: ' + input\"
        retries: {count: 2, delay_ms: 5, exponential: false}
        timeout_seconds: 30
        on_error: fail
      - {name: second, team: t, confirm: {message: Now?, on_reject: cancel}}
      - {name: third, workflow: other, review_input: {}, review_output: {max_rejections: 1}}
      - {name: own, agent: {id: mine, role: Helps}}
      - {name: sum, tool: calculator, arguments: {expression: input, precision: 3}}
      - name: maybe
        if: outputs.first == 'x'
        then: [{name: y, agent: a}]
        else: [{name: n, agent: a}]
      - {name: both, parallel: [{name: p1, agent: a}, {name: p2, agent: a}], limit: 1}
      - {name: again, loop: [{name: body, agent: a}], until: iteration > 2, max_iterations: 9, forward: true}
      - {name: way, choose: \"'l'\", choices: [{name: l, agent: a}, {name: r, agent: a}], many: true}
      - {name: asked, ask: {message: Which?}, choices: [{name: l, agent: a}]}
      - name: last
        steps: [{name: g, agent: a}]
      - name: filled
        agent: a
        user_input: {message: Fill in., fields: [{name: env, choices: [a, b]}, {name: n, type: integer, required: false}]}
";
    let a = |name: &str| StepDefinition::agent(name, "a");
    let field = |name: &str, kind: &str, required, choices: Vec<serde_json::Value>| InputField {
        name: name.to_owned(),
        kind: kind.to_owned(),
        description: None,
        required,
        nullable: false,
        asked: true,
        choices,
    };
    let fields = vec![field("env", "string", true, vec![json!("a"), json!("b")]), field("n", "integer", false, vec![])];
    let asked = Confirmation { message: Some("Now?".to_owned()), on_reject: OnReject::Cancel };
    let map = |value: serde_json::Value| value.as_object().cloned().unwrap();
    let expected = WorkflowDefinition::new("w")
        .name("W")
        .description("All there is.")
        .input_schema(json!({"type": "object"}))
        .session_state(map(json!({"n": 1})))
        .history_runs(2)
        .max_parallel(4)
        .metadata(map(json!({"m": 1})))
        .step(
            a("first")
                .description("Begins.")
                .input(cel("'say: ' + input"))
                .retries(Retries { count: 2, delay_ms: 5, exponential: false, ..Retries::default() })
                .timeout_seconds(30)
                .on_error(OnError::Fail),
        )
        .step(StepDefinition::team("second", "t").confirm(asked))
        .step(
            StepDefinition::workflow("third", "other")
                .review_input(InputReview::default())
                .review_output(OutputReview { max_rejections: 1, ..OutputReview::default() }),
        )
        .step(StepDefinition::own_agent("own", AgentDefinition::new("mine").role("Helps")))
        .step(StepDefinition::tool(
            "sum",
            "calculator",
            [("expression".to_owned(), cel("input")), ("precision".to_owned(), Expression::Constant(json!(3)))],
        ))
        .step(StepDefinition::condition("maybe", cel("outputs.first == 'x'"), [a("y")], [a("n")]))
        .step(StepDefinition::parallel("both", [a("p1"), a("p2")]).limit(1))
        .step(StepDefinition::repeat("again", Some(cel("iteration > 2")), 9, [a("body")]).forward())
        .step(StepDefinition::router("way", Selector::Value(cel("'l'")), [a("l"), a("r")]).many())
        .step(StepDefinition::router("asked", Selector::Person { message: Some("Which?".to_owned()) }, [a("l")]))
        .step(StepDefinition::group("last", [a("g")]))
        .step(a("filled").user_input(UserInput { message: Some("Fill in.".to_owned()), fields }));
    assert_eq!(parse(text).unwrap().workflows[1], expected);
    assert!(fits_the_schema(text));
}

#[test]
fn all_mistakes_of_workflows_are_told_at_once_each_at_its_place() {
    let text = "
agents: [{id: a}]
workflows:
  - id: empty
  - id: w
    steps:
      - name: nothing
      - {name: both, agent: a, tool: calculator}
      - {name: gone, agent: b}
      - {name: gone, team: t}
      - {name: sub, workflow: missing}
      - {name: tool, tool: webb}
      - {name: expr, agent: a, input: input +}
      - {name: looks, agent: a, input: outputs.nowhere}
      - {name: strange, agent: a, input: inpt}
      - {name: maybe, if: \"true\", then: []}
      - {name: other, if: \"true\"}
      - {name: round, loop: [{name: body, agent: a}]}
      - {name: way, choose: \"'x'\"}
      - {name: misplaced, agent: a, limit: 3}
      - {name: no, agent: a, confirm: {on_reject: else}}
      - {name: \"\", agent: a}
      - name: deep
        steps:
          - name: deeper
            parallel:
              - {name: x, agent: a}
              - {name: x, agent: {id: own, tools: [nope]}}
      - {name: often, parallel: [{name: z, agent: a}], retries: {count: 1}}
  - id: one
    steps: [{name: s, workflow: two}]
  - id: two
    steps:
      - name: g
        steps: [{name: s, workflow: one}]
  - id: one
    steps: [{name: s, agent: a}]
";
    let shown = parse(text).map(|_| ()).unwrap_err().to_string();
    let expected = [
        "4:9: workflow \"empty\": the workflow has no steps: give it at least one",
        "5:9: workflow \"w\": two of its `steps` are called \"gone\": give each its own name",
        "7:15: workflow \"w\": step \"nothing\": what it runs is missing: expected one of agent, team, ",
        "8:38: workflow \"w\": step \"both\": agent and tool exclude each other: make two steps",
        "9:29: workflow \"w\": step \"gone\": there is no agent \"b\"; there are: a",
        "10:28: workflow \"w\": step \"gone\": there is no team \"t\"; there are: none",
        "11:31: workflow \"w\": step \"sub\": there is no workflow \"missing\"; there are: empty, w, one, two, one",
        "12:28: workflow \"w\": step \"tool\": there is no tool \"webb\"; there are: calculator",
        "13:39: workflow \"w\": step \"expr\": input: ",
        "14:40: workflow \"w\": step \"looks\": input: there is no step \"nowhere\" to look at; there are: ",
        "15:42: workflow \"w\": step \"strange\": input: ",
        "16:16: workflow \"w\": step \"maybe\": the condition has neither `then` nor `else`: give it some",
        "17:16: workflow \"w\": step \"other\": then is missing",
        "18:16: workflow \"w\": step \"round\": max_iterations is missing: no loop runs without end",
        "19:16: workflow \"w\": step \"way\": choices is missing",
        "20:44: workflow \"w\": step \"misplaced\": limit means something beside parallel only, and this is agent",
        "21:16: workflow \"w\": step \"no\": `on_reject: else` is for conditions",
        "22:16: workflow \"w\": step \"\": a step has no name: name it",
        "25:19: workflow \"w\": step \"deeper\": two of its `steps` are called \"x\": give each its own name",
        "28:52: agent \"own\": there is no tool \"nope\"; there are: ",
        "29:16: workflow \"w\": step \"often\": a block cannot have retries: give it to the steps in it",
        "31:33: workflow \"one\": it would run itself, by way of two, one",
        "36:9: the workflow \"one\" is defined already, on line 30",
    ];
    let lines: Vec<&str> = shown.lines().collect();
    for (line, expected) in lines.iter().zip(expected) {
        assert!(line.strip_prefix("daybook.yaml:").unwrap().starts_with(expected), "{line}\ninstead of {expected}");
    }
    assert_eq!(lines.len(), expected.len(), "{shown}");
}

#[test]
fn an_argument_is_an_expression_when_it_is_a_text_and_itself_otherwise() {
    let text =
        "workflows: [{id: w, steps: [{name: s, tool: calculator, arguments: {a: input, b: true, c: [x], d: '1'}}]}]";
    let step = &parse(text).unwrap().workflows[0].steps[0];
    let crate::workflow::Runs::Tool { arguments, .. } = &step.runs else { panic!("{step:?}") };
    let constant = |value| Expression::Constant(value);
    let expected = [("a", cel("input")), ("b", constant(json!(true))), ("c", constant(json!(["x"]))), ("d", cel("1"))];
    let expected: BTreeMap<String, Expression> =
        expected.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    assert_eq!(*arguments, expected);
    assert!(
        mistake("workflows: [{id: w, steps: [{name: s, tool: calculator, arguments: {a: 'x y'}}]}]").contains("a: ")
    );
}
