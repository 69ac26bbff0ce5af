//! What agents find by the names of tools and sources.

use daybook_domain::tool::{Effect, Gate};
use daybook_tools::{Choice, FixedSource, FunctionTool, ToolContext, ToolRule};

use super::*;
use crate::agent::built_in_tools;

#[derive(serde::Deserialize, schemars::JsonSchema)]
struct Nothing {}

fn tool(name: &str) -> Arc<dyn Tool> {
    let call = |_: ToolContext, _: Nothing| async { Ok(String::new()) };
    Arc::new(FunctionTool::new(name, "Does nothing.", Effect::Pure, call))
}

fn given(name: &str, tools: &[&str], choice: Choice) -> SourceDefinition {
    let source = FixedSource::new(name, tools.iter().map(|name| tool(name)).collect());
    let kind = SourceKind::Given(Arc::new(source));
    SourceDefinition { name: name.to_owned(), place: None, kind, choice, optional: false }
}

fn careful(name: &str, choice: Choice) -> SourceDefinition {
    let kind = SourceKind::BuiltIn(vec!["calculator".to_owned()]);
    SourceDefinition { name: name.to_owned(), place: None, kind, choice, optional: false }
}

fn prefix(prefix: &str) -> Choice {
    Choice { prefix: Some(prefix.to_owned()), ..Choice::default() }
}

async fn toolbox(definitions: Vec<SourceDefinition>) -> Result<Toolbox, String> {
    let own = built_in_tools();
    let sources = open(definitions, &own, &[]).await.map_err(|error| error.to_string())?;
    Toolbox::new(own, &sources)
}

fn names(toolbox: &Toolbox, named: &str) -> Vec<String> {
    toolbox.named(named).unwrap().iter().map(|tool| tool.spec().name.clone()).collect()
}

#[tokio::test]
async fn a_source_is_named_whole_or_by_one_of_its_tools() {
    let toolbox =
        toolbox(vec![given("a", &["x", "y"], prefix("a_")), given("b", &["x"], Choice::default())]).await.unwrap();
    assert_eq!(names(&toolbox, "a"), ["a_x", "a_y"]);
    assert_eq!((names(&toolbox, "a.y"), names(&toolbox, "b.x")), (vec!["a_y".to_owned()], vec!["x".to_owned()]));
    assert_eq!(names(&toolbox, "calculator"), ["calculator"]);
    let told = |name| toolbox.named(name).map(|_| ()).unwrap_err();
    assert_eq!(told("a.a_y"), "the source \"a\" has no tool \"a_y\"; it has: x, y");
    assert_eq!(told("c"), "there is no tool \"c\"; there are: calculator, current_time, read_result, a, b");
    let all: Vec<_> = toolbox.all().keys().map(String::as_str).collect();
    assert_eq!(all, ["a_x", "a_y", "calculator", "current_time", "read_result", "x"]);
}

#[tokio::test]
async fn one_name_stands_for_one_tool() {
    let plain = Choice::default;
    let told = |definitions| async { toolbox(definitions).await.map(|_| ()).unwrap_err() };
    let two = told(vec![given("a", &["x"], plain()), given("b", &["x"], plain())]).await;
    assert_eq!(two, "the source \"a\" and the source \"b\" both have a tool \"x\": give the source a `prefix`");
    let own = told(vec![given("a", &["calculator"], plain())]).await;
    assert!(own.starts_with("the server itself and the source \"a\" both have"), "{own}");
    assert!(told(vec![given("calculator", &["x"], plain())]).await.contains("has the name of a tool"));
    assert!(told(vec![given("a", &["x"], plain()), given("a", &["y"], plain())]).await.contains("two sources have"));
    let behind = told(vec![careful("a", prefix("m_")), given("b", &["m_calculator"], plain())]).await;
    assert!(behind.contains("both have a tool \"m_calculator\""), "{behind}");
}

#[tokio::test]
async fn a_tool_of_the_server_may_stand_under_several_rules() {
    let ask = ToolRule { confirmation: Some(true), ..ToolRule::default() };
    let rules = [("calculator".to_owned(), ask)].into();
    let asks = Choice { rules, ..Choice::default() };
    let toolbox = toolbox(vec![careful("a", asks), careful("b", Choice::default())]).await.unwrap();
    let gate = |name: &str| toolbox.named(name).unwrap()[0].spec().gate.clone();
    assert_eq!([gate("a"), gate("b"), gate("calculator")], [Gate::Confirmation, Gate::None, Gate::None]);
}

#[tokio::test]
async fn all_that_is_wrong_is_told_at_once() {
    let deny = |name: &str| Choice { deny: vec![name.to_owned()], ..Choice::default() };
    let wrong = vec![given("a", &["x"], deny("y")), given("b", &["x"], deny("z"))];
    let told = toolbox(wrong).await.map(|_| ()).unwrap_err();
    assert!(told.contains("the tools of a: `deny` names \"y\"") && told.contains("\nthe tools of b: "), "{told}");
}
