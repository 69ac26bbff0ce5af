//! `daybook graph`: what a component is made of, as a Mermaid flowchart.

use std::fmt::Write as _;

use daybook_domain::component::ComponentKind;
use daybook_domain::workflow::{Expression, OnError, Policies, Selector};

use crate::agent::AgentDefinition;
use crate::definitions::Definitions;
use crate::team::{MemberDefinition, TeamDefinition};
use crate::workflow::{Runs, StepDefinition, WorkflowDefinition};

/// How long a text in a node may be, in characters.
const MAX_TEXT: usize = 80;

/// The flowchart of a component, which is named by its id, or as `team:ID` where that is needed; of all there are, and
/// who uses whom, when none is named.
///
/// # Errors
/// Why there is none, for people.
pub(crate) fn mermaid(definitions: &Definitions, component: Option<&str>) -> Result<String, String> {
    let mut chart = Chart { definitions, text: "flowchart TD\n".to_owned(), nodes: 0, depth: 1 };
    match component.map(|name| find(definitions, name)).transpose()? {
        None => chart.overview(),
        Some(Found::Agent(agent)) => drop(chart.agent(agent)),
        Some(Found::Team(team)) => drop(chart.team(team, &mut Vec::new())),
        Some(Found::Workflow(workflow)) => chart.workflow(workflow),
    }
    Ok(chart.text)
}

/// A component of the definitions.
enum Found<'a> {
    Agent(&'a AgentDefinition),
    Team(&'a TeamDefinition),
    Workflow(&'a WorkflowDefinition),
}

fn find<'a>(definitions: &'a Definitions, name: &str) -> Result<Found<'a>, String> {
    let (kind, id) = match name.split_once(':') {
        Some((kind, id)) => (Some(kind.parse::<ComponentKind>().map_err(|_| unknown(definitions, name))?), id),
        None => (None, name),
    };
    let of = |wanted: ComponentKind| kind.is_none_or(|kind| kind == wanted);
    let agents = definitions.agents.iter().filter(|agent| of(ComponentKind::Agent) && agent.id == id);
    let teams = definitions.teams.iter().filter(|team| of(ComponentKind::Team) && team.id() == id);
    let workflows = definitions.workflows.iter().filter(|one| of(ComponentKind::Workflow) && one.id == id);
    let mut found: Vec<Found<'a>> = agents.map(Found::Agent).collect();
    found.extend(teams.map(Found::Team));
    found.extend(workflows.map(Found::Workflow));
    match found.len() {
        0 => Err(unknown(definitions, name)),
        1 => found.pop().ok_or_else(|| unknown(definitions, name)),
        _ => {
            Err(format!("{id:?} is the id of several components: say which, as agent:{id}, team:{id} or workflow:{id}"))
        }
    }
}

fn unknown(definitions: &Definitions, name: &str) -> String {
    let agents = definitions.agents.iter().map(|agent| format!("agent:{}", agent.id));
    let teams = definitions.teams.iter().map(|team| format!("team:{}", team.id()));
    let workflows = definitions.workflows.iter().map(|workflow| format!("workflow:{}", workflow.id));
    let known: Vec<String> = agents.chain(teams).chain(workflows).collect();
    format!("there is no component {name:?}; there are: {}", known.join(", "))
}

/// Where the next step goes on from: a node, and what is written at the arrow.
#[derive(Clone)]
struct Exit {
    node: String,
    label: Option<&'static str>,
}

impl Exit {
    fn of(node: &str) -> Vec<Self> {
        vec![Self { node: node.to_owned(), label: None }]
    }
}

/// A flowchart being written.
struct Chart<'a> {
    definitions: &'a Definitions,
    text: String,
    nodes: usize,
    /// How far lines are indented.
    depth: usize,
}

/// The shape of a node.
#[derive(Clone, Copy)]
enum Shape {
    Box,
    Round,
    Diamond,
    Hexagon,
}

impl Chart<'_> {
    fn line(&mut self, line: &str) {
        // Writing to a text does not fail.
        let _ = writeln!(self.text, "{}{line}", "    ".repeat(self.depth));
    }

    fn node(&mut self, shape: Shape, lines: &[String]) -> String {
        let id = format!("n{}", self.nodes);
        self.nodes += 1;
        let lines: Vec<String> = lines.iter().map(|line| escaped(line)).collect();
        let label = lines.join("<br/>");
        let node = match shape {
            Shape::Box => format!("{id}[\"{label}\"]"),
            Shape::Round => format!("{id}([\"{label}\"])"),
            Shape::Diamond => format!("{id}{{\"{label}\"}}"),
            Shape::Hexagon => format!("{id}{{{{\"{label}\"}}}}"),
        };
        self.line(&node);
        id
    }

    fn arrow(&mut self, from: &Exit, to: &str) {
        let arrow = from.label.map_or_else(|| "-->".to_owned(), |label| format!("-->|{label}|"));
        self.line(&format!("{} {arrow} {to}", from.node));
    }

    fn arrows(&mut self, from: &[Exit], to: &str) {
        from.iter().for_each(|exit| self.arrow(exit, to));
    }

    fn agent(&mut self, agent: &AgentDefinition) -> String {
        let node = self.node(Shape::Box, &about("agent", &agent.id, agent.name.as_deref(), agent.role.as_deref()));
        for tool in &agent.tools {
            let tool = self.node(Shape::Round, std::slice::from_ref(tool));
            self.line(&format!("{node} -.-> {tool}"));
        }
        node
    }

    /// The leader's node, with the members below it. `above` are the teams it stands in, which are not drawn again.
    fn team(&mut self, team: &TeamDefinition, above: &mut Vec<String>) -> String {
        let leader = &team.leader;
        let mut lines = about("team", team.id(), leader.name.as_deref(), leader.role.as_deref());
        lines.push(team.mode.as_str().to_owned());
        let node = self.node(Shape::Hexagon, &lines);
        for tool in &leader.tools {
            let tool = self.node(Shape::Round, std::slice::from_ref(tool));
            self.line(&format!("{node} -.-> {tool}"));
        }
        above.push(team.id().to_owned());
        for member in &team.members {
            let below = match member {
                MemberDefinition::Own(agent) => self.agent(agent),
                MemberDefinition::Known(id) => self.member(id, above),
            };
            self.line(&format!("{node} --> {below}"));
        }
        above.pop();
        node
    }

    fn member(&mut self, id: &str, above: &mut Vec<String>) -> String {
        let definitions = self.definitions;
        if let Some(agent) = definitions.agents.iter().find(|agent| agent.id == id) {
            return self.agent(agent);
        }
        match definitions.teams.iter().find(|team| team.id() == id) {
            Some(team) if !above.iter().any(|above| above == id) => self.team(team, above),
            _ => self.node(Shape::Box, &about("component", id, None, None)),
        }
    }

    fn workflow(&mut self, workflow: &WorkflowDefinition) {
        let start = self.node(Shape::Round, &about("workflow", &workflow.id, workflow.name.as_deref(), None));
        let exits = self.steps(&workflow.steps, Exit::of(&start));
        let end = self.node(Shape::Round, &["end".to_owned()]);
        self.arrows(&exits, &end);
    }

    /// Steps one after the other; gives where the next one goes on from.
    fn steps(&mut self, steps: &[StepDefinition], from: Vec<Exit>) -> Vec<Exit> {
        steps.iter().fold(from, |from, step| self.step(step, &from))
    }

    fn step(&mut self, step: &StepDefinition, from: &[Exit]) -> Vec<Exit> {
        let mut lines = vec![step.name.clone()];
        let shape = describe(step, &mut lines);
        lines.extend(asked(&step.policies));
        let node = self.node(shape, &lines);
        self.arrows(from, &node);
        match &step.runs {
            Runs::Component { .. } | Runs::Own { .. } | Runs::Tool { .. } | Runs::Function { .. } => Exit::of(&node),
            Runs::Condition { steps, otherwise, .. } => {
                let labelled = |label| vec![Exit { node: node.clone(), label: Some(label) }];
                let mut exits = self.steps(steps, labelled("yes"));
                exits.extend(self.steps(otherwise, labelled("no")));
                exits
            }
            Runs::Parallel { steps, .. } => self.branches(steps, &node),
            Runs::Router { choices, .. } => self.branches(choices, &node),
            Runs::Loop { steps, .. } => {
                let ends = self.steps(steps, Exit::of(&node));
                let back = ends.into_iter().map(|exit| Exit { label: exit.label.or(Some("again")), ..exit });
                let back: Vec<Exit> = back.collect();
                self.arrows(&back, &node);
                vec![Exit { node, label: Some("done") }]
            }
            Runs::Group { steps } => {
                self.line(&format!("subgraph {node}s [\"{}\"]", escaped(&step.name)));
                self.depth += 1;
                let exits = self.steps(steps, Exit::of(&node));
                self.depth -= 1;
                self.line("end");
                exits
            }
        }
    }

    /// Steps that go on from the same node, each by itself.
    fn branches(&mut self, steps: &[StepDefinition], node: &str) -> Vec<Exit> {
        steps.iter().flat_map(|step| self.step(step, &Exit::of(node))).collect()
    }

    /// All components, and who uses whom.
    fn overview(&mut self) {
        let definitions = self.definitions;
        let mut known: Vec<(ComponentKind, String, String)> = Vec::new();
        for agent in &definitions.agents {
            let node = self.node(Shape::Box, &about("agent", &agent.id, agent.name.as_deref(), None));
            known.push((ComponentKind::Agent, agent.id.clone(), node));
        }
        for team in &definitions.teams {
            let node = self.node(Shape::Hexagon, &about("team", team.id(), team.leader.name.as_deref(), None));
            known.push((ComponentKind::Team, team.id().to_owned(), node));
        }
        for workflow in &definitions.workflows {
            let node = self.node(Shape::Round, &about("workflow", &workflow.id, workflow.name.as_deref(), None));
            known.push((ComponentKind::Workflow, workflow.id.clone(), node));
        }
        let node = |kinds: &[ComponentKind], id: &str| {
            let fits = kinds.iter().find_map(|kind| known.iter().find(|one| one.0 == *kind && one.1 == id));
            fits.map(|(_, _, node)| node.clone())
        };
        let mut uses = Vec::new();
        for team in &definitions.teams {
            for member in &team.members {
                if let MemberDefinition::Known(id) = member {
                    let kinds = [ComponentKind::Agent, ComponentKind::Team];
                    uses.push((node(&[ComponentKind::Team], team.id()), node(&kinds, id)));
                }
            }
        }
        for workflow in &definitions.workflows {
            crate::workflow::each(&workflow.steps, &mut |step| {
                if let Runs::Component { kind, id, .. } = &step.runs {
                    uses.push((node(&[ComponentKind::Workflow], &workflow.id), node(&[*kind], id)));
                }
            });
        }
        for (user, used) in uses {
            if let (Some(user), Some(used)) = (user, used) {
                self.line(&format!("{user} --> {used}"));
            }
        }
    }
}

fn about(kind: &str, id: &str, name: Option<&str>, role: Option<&str>) -> Vec<String> {
    let named = name.filter(|name| *name != id).map(str::to_owned);
    let id = format!("{kind}: {id}");
    named.into_iter().chain([id]).chain(role.map(str::to_owned)).collect()
}

/// What a step runs, in words; gives the shape of its node.
fn describe(step: &StepDefinition, lines: &mut Vec<String>) -> Shape {
    let (line, shape) = match &step.runs {
        Runs::Component { kind, id, .. } => (format!("{}: {id}", kind.as_str()), Shape::Box),
        Runs::Own { agent, .. } => (format!("agent: {}", agent.id), Shape::Box),
        Runs::Tool { tool, .. } => (format!("tool: {tool}"), Shape::Box),
        Runs::Function { function, .. } => (format!("function: {function}"), Shape::Box),
        Runs::Condition { test, .. } => (format!("if {}", shown(test)), Shape::Diamond),
        Runs::Parallel { limit: Some(limit), .. } => (format!("beside each other, {limit} at a time"), Shape::Hexagon),
        Runs::Parallel { limit: None, .. } => ("beside each other".to_owned(), Shape::Hexagon),
        Runs::Loop { until, max_iterations, .. } => {
            let until = until.as_ref().map(|until| format!(", until {}", shown(until))).unwrap_or_default();
            (format!("{max_iterations} times at the most{until}"), Shape::Hexagon)
        }
        Runs::Router { selector: Selector::Value(value), .. } => (format!("choose {}", shown(value)), Shape::Diamond),
        Runs::Router { selector: Selector::Person { .. }, .. } => ("a person chooses".to_owned(), Shape::Diamond),
        Runs::Group { .. } => ("one after the other".to_owned(), Shape::Box),
    };
    lines.push(line);
    shape
}

/// What a person is asked about a step, and what happens when it fails, in words.
fn asked(policies: &Policies) -> Vec<String> {
    let review = &policies.review;
    let words = [
        review.confirmation.as_ref().map(|_| "a person confirms"),
        review.user_input.as_ref().map(|_| "a person fills in"),
        review.input.as_ref().map(|_| "a person sees its input"),
        review.output.as_ref().map(|_| "a person sees its output"),
        (policies.on_error == OnError::Fail).then_some("a failure ends the workflow"),
        (policies.on_error == OnError::Pause).then_some("a failure asks a person"),
    ];
    words.into_iter().flatten().map(str::to_owned).collect()
}

fn shown(expression: &Expression) -> String {
    match expression {
        Expression::Cel(text) => text.split_whitespace().collect::<Vec<_>>().join(" "),
        Expression::Function(name) => format!("{name}()"),
        Expression::Constant(value) => value.to_string(),
    }
}

/// A text as it may stand in a node.
fn escaped(text: &str) -> String {
    let mut short: String = text.chars().take(MAX_TEXT).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    let mut out = String::with_capacity(short.len());
    for letter in short.chars() {
        match letter {
            '"' => out.push_str("#quot;"),
            '#' => out.push_str("#35;"),
            '<' => out.push_str("#lt;"),
            '>' => out.push_str("#gt;"),
            '&' => out.push_str("#amp;"),
            letter if letter.is_control() => out.push(' '),
            letter => out.push(letter),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::path::Path;

    use super::*;
    use crate::agent::built_in_tools;

    fn definitions(text: &str) -> Definitions {
        Definitions::parse(Path::new("f"), text, &HashMap::new(), &built_in_tools()).unwrap()
    }

    const TEXT: &str = "
agents:
  - {id: a, role: Finds facts, tools: [calculator]}
  - {id: b, name: Bee}
teams:
  - {id: inner, members: [b], mode: route}
  - {id: outer, name: The Team, members: [a, inner, {id: own}]}
workflows:
  - id: w
    steps:
      - {name: first, agent: a, confirm: {message: Now?}}
      - name: test
        if: input.contains(\"<x>\")
        then: [{name: yes it is, team: outer}]
      - name: both
        parallel: [{name: p1, agent: a}, {name: p2, tool: calculator, on_error: fail}]
        limit: 1
      - name: refine
        loop: [{name: body, agent: b}]
        until: previous == \"ok\"
        max_iterations: 3
      - name: way
        ask: {}
        choices: [{name: left, agent: a}, {name: right, agent: b}]
      - name: last
        steps: [{name: g1, agent: a}]
";

    #[test]
    fn a_team_is_drawn_with_its_members_at_any_depth() {
        let expected = "flowchart TD
    n0{{\"The Team<br/>team: outer<br/>coordinate\"}}
    n1[\"agent: a<br/>Finds facts\"]
    n2([\"calculator\"])
    n1 -.-> n2
    n0 --> n1
    n3{{\"team: inner<br/>route\"}}
    n4[\"Bee<br/>agent: b\"]
    n3 --> n4
    n0 --> n3
    n5[\"agent: own\"]
    n0 --> n5
";
        assert_eq!(mermaid(&definitions(TEXT), Some("outer")).unwrap(), expected);
    }

    #[test]
    fn a_workflow_is_drawn_step_by_step() {
        let expected = "flowchart TD
    n0([\"workflow: w\"])
    n1[\"first<br/>agent: a<br/>a person confirms\"]
    n0 --> n1
    n2{\"test<br/>if input.contains(#quot;#lt;x#gt;#quot;)\"}
    n1 --> n2
    n3[\"yes it is<br/>team: outer\"]
    n2 -->|yes| n3
    n4{{\"both<br/>beside each other, 1 at a time\"}}
    n3 --> n4
    n2 -->|no| n4
    n5[\"p1<br/>agent: a\"]
    n4 --> n5
    n6[\"p2<br/>tool: calculator<br/>a failure ends the workflow\"]
    n4 --> n6
    n7{{\"refine<br/>3 times at the most, until previous == #quot;ok#quot;\"}}
    n5 --> n7
    n6 --> n7
    n8[\"body<br/>agent: b\"]
    n7 --> n8
    n8 -->|again| n7
    n9{\"way<br/>a person chooses\"}
    n7 -->|done| n9
    n10[\"left<br/>agent: a\"]
    n9 --> n10
    n11[\"right<br/>agent: b\"]
    n9 --> n11
    n12[\"last<br/>one after the other\"]
    n10 --> n12
    n11 --> n12
    subgraph n12s [\"last\"]
        n13[\"g1<br/>agent: a\"]
        n12 --> n13
    end
    n14([\"end\"])
    n13 --> n14
";
        assert_eq!(mermaid(&definitions(TEXT), Some("w")).unwrap(), expected);
    }

    #[test]
    fn all_components_are_drawn_with_who_uses_whom() {
        let chart = mermaid(&definitions(TEXT), None).unwrap();
        assert_eq!(chart.lines().filter(|line| line.contains('"')).count(), 5, "{chart}");
        // inner: b; outer: a, inner.
        for arrow in ["n2 --> n1", "n3 --> n0", "n3 --> n2", "n4 --> n3"] {
            assert!(chart.contains(arrow), "{arrow} is not in {chart}");
        }
    }

    #[test]
    fn what_is_meant_must_be_clear() {
        let twice = definitions("agents: [{id: x}, {id: y}]\nteams: [{id: x, members: [y]}]\n");
        assert!(mermaid(&twice, Some("x")).unwrap_err().contains("say which, as agent:x, team:x"));
        assert!(mermaid(&twice, Some("team:x")).unwrap().contains("team: x"));
        let unknown = mermaid(&twice, Some("z")).unwrap_err();
        assert_eq!(unknown, "there is no component \"z\"; there are: agent:x, agent:y, team:x");
        assert!(mermaid(&twice, Some("task:x")).is_err());
    }

    #[test]
    fn a_text_breaks_no_node() {
        let long = "x".repeat(200);
        let text = escaped(&format!("a \"b\" #1 <c>\n{long}"));
        assert!(!text.contains(['"', '<', '>', '\n']) && text.ends_with('…'), "{text}");
    }
}
