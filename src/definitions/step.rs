//! The steps of a workflow in the file.

use std::collections::BTreeMap;
use std::num::{NonZeroU32, NonZeroU64};

use daybook_domain::component::ComponentKind;
use daybook_domain::tool::Effect;
use daybook_domain::workflow::{Expression, Selector, WorkflowConfig};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use super::Mistake;
use super::agent::{Known, Who};
use super::circle::Link;
use super::place::{Location, Spanned};
use super::policy::{OnError, OutputReview, Policies, Question, Retries, UserInput};
use crate::agent::{check_line, check_text, unknown_tool};
use crate::workflow::{Runs, StepDefinition, steps_of, unseen};

/// Steps beside each other.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(transparent)]
pub(super) struct Steps(Vec<Step>);

// One shape for all kinds: a tagged enum would lose the places of what is inside it.
/// A step, which runs exactly one of `agent`, `team`, `workflow`, `tool`, `if`, `parallel`, `loop`, `choose`, `ask` and `steps`.
/// Texts that decide or make values are expressions in CEL.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Step {
    /// Its name, by which expressions find its output.
    name: Spanned<String>,
    /// What it does, for people.
    #[serde(default)]
    description: Option<Spanned<String>>,
    /// An agent, by id, or described here.
    #[serde(default)]
    agent: Option<Spanned<Who>>,
    /// A team, by id.
    #[serde(default)]
    team: Option<Spanned<String>>,
    /// Another workflow, by id.
    #[serde(default)]
    workflow: Option<Spanned<String>>,
    /// With those: what it is told (an expression); what was said last unless said.
    #[serde(default)]
    input: Option<Spanned<String>>,
    /// A tool, by the name that agents use.
    #[serde(default)]
    tool: Option<Spanned<String>>,
    /// With `tool`: its arguments; texts are expressions, anything else stands for itself.
    #[serde(default)]
    arguments: Option<Spanned<BTreeMap<String, Spanned<Value>>>>,
    /// A test (an expression): the steps under `then` run when it holds, those under `else` when it does not.
    #[serde(default, rename = "if")]
    test: Option<Spanned<String>>,
    /// With `if`.
    #[serde(default)]
    then: Option<Spanned<Steps>>,
    /// With `if`.
    #[serde(default, rename = "else")]
    otherwise: Option<Spanned<Steps>>,
    /// Steps that run beside each other.
    #[serde(default)]
    parallel: Option<Spanned<Steps>>,
    /// With `parallel`: the most that run at the same time.
    #[serde(default)]
    limit: Option<Spanned<NonZeroU32>>,
    /// Steps that run again and again.
    #[serde(default, rename = "loop")]
    again: Option<Spanned<Steps>>,
    /// With `loop`: ends it when it holds after an iteration (an expression).
    #[serde(default)]
    until: Option<Spanned<String>>,
    /// With `loop`: the most iterations.
    #[serde(default)]
    max_iterations: Option<Spanned<NonZeroU32>>,
    /// With `loop`: whether an iteration goes on from what the one before it said; no unless said.
    #[serde(default)]
    forward: Option<Spanned<bool>>,
    /// Says which of `choices` runs: the name of one, or a list of names (an expression).
    #[serde(default)]
    choose: Option<Spanned<String>>,
    /// A person says which of `choices` runs.
    #[serde(default)]
    ask: Option<Spanned<Ask>>,
    /// With `choose` and `ask`.
    #[serde(default)]
    choices: Option<Spanned<Steps>>,
    /// With `choose` and `ask`: whether several may be chosen; no unless said.
    #[serde(default)]
    many: Option<Spanned<bool>>,
    /// Steps one after the other, under one name.
    #[serde(default)]
    steps: Option<Spanned<Steps>>,
    /// How often it is tried again when it failed; never unless said.
    #[serde(default)]
    retries: Option<Retries>,
    /// Seconds one attempt may take; without end unless said.
    #[serde(default)]
    timeout_seconds: Option<NonZeroU64>,
    /// What becomes of the workflow when it failed for good; it goes on unless said.
    #[serde(default)]
    on_error: Option<OnError>,
    /// A person says whether it may run.
    #[serde(default)]
    confirm: Option<Question>,
    /// A person fills in values for it.
    #[serde(default)]
    user_input: Option<UserInput>,
    /// A person sees its input first, and may change it.
    #[serde(default)]
    review_input: Option<Question>,
    /// A person sees its output, and may change it.
    #[serde(default)]
    review_output: Option<OutputReview>,
}

/// What a person who chooses is asked.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct Ask {
    /// What the person is asked.
    message: Option<String>,
}

/// What a step may run, by id.
#[derive(Clone, Copy)]
pub(super) struct Components<'a> {
    /// The agents.
    pub agents: &'a [String],
    /// The teams.
    pub teams: &'a [String],
    /// The workflows.
    pub workflows: &'a [String],
}

impl Steps {
    /// The workflows that steps run, at any depth.
    pub(super) fn workflows(&self) -> Vec<Link> {
        let own =
            |step: &Step| step.workflow.iter().map(|id| Link { to: id.value.clone(), place: id.referenced }).collect();
        self.gather(&own)
    }

    /// The names of the steps, at any depth.
    pub(super) fn names(&self) -> Vec<String> {
        self.gather(&|step: &Step| vec![step.name.value.clone()])
    }

    fn gather<T>(&self, own: &impl Fn(&Step) -> Vec<T>) -> Vec<T> {
        let of = |step: &Step| {
            let inner = step.blocks().into_iter().flat_map(|block| block.value.gather(own)).collect();
            [own(step), inner].into_iter().flatten().collect::<Vec<T>>()
        };
        self.0.iter().flat_map(of).collect()
    }
}

impl Step {
    fn blocks(&self) -> Vec<&Spanned<Steps>> {
        let blocks = [&self.then, &self.otherwise, &self.parallel, &self.again, &self.choices, &self.steps];
        blocks.into_iter().flatten().collect()
    }

    /// What says what it runs.
    fn kinds(&self) -> Vec<(&'static str, Location)> {
        let at = |word, place: Option<Location>| place.map(|place| (word, place));
        let kinds = [
            at("agent", self.agent.as_ref().map(|given| given.referenced)),
            at("team", self.team.as_ref().map(|given| given.referenced)),
            at("workflow", self.workflow.as_ref().map(|given| given.referenced)),
            at("tool", self.tool.as_ref().map(|given| given.referenced)),
            at("if", self.test.as_ref().map(|given| given.referenced)),
            at("parallel", self.parallel.as_ref().map(|given| given.referenced)),
            at("loop", self.again.as_ref().map(|given| given.referenced)),
            at("choose", self.choose.as_ref().map(|given| given.referenced)),
            at("ask", self.ask.as_ref().map(|given| given.referenced)),
            at("steps", self.steps.as_ref().map(|given| given.referenced)),
        ];
        kinds.into_iter().flatten().collect()
    }

    /// What only means something beside others, with what those are.
    fn besides(&self) -> Vec<(&'static str, Location, &'static [&'static str])> {
        let at = |word, place: Option<Location>, kinds| place.map(|place| (word, place, kinds));
        const ROUTERS: &[&str] = &["choose", "ask"];
        let besides = [
            at("input", self.input.as_ref().map(|given| given.referenced), &["agent", "team", "workflow"][..]),
            at("arguments", self.arguments.as_ref().map(|given| given.referenced), &["tool"]),
            at("then", self.then.as_ref().map(|given| given.referenced), &["if"]),
            at("else", self.otherwise.as_ref().map(|given| given.referenced), &["if"]),
            at("limit", self.limit.as_ref().map(|given| given.referenced), &["parallel"]),
            at("until", self.until.as_ref().map(|given| given.referenced), &["loop"]),
            at("max_iterations", self.max_iterations.as_ref().map(|given| given.referenced), &["loop"]),
            at("forward", self.forward.as_ref().map(|given| given.referenced), &["loop"]),
            at("choices", self.choices.as_ref().map(|given| given.referenced), ROUTERS),
            at("many", self.many.as_ref().map(|given| given.referenced), ROUTERS),
        ];
        besides.into_iter().flatten().collect()
    }
}

/// Goes through the steps of one workflow.
pub(super) struct Looking<'a> {
    workflow: String,
    known: Known<'a>,
    components: Components<'a>,
    /// The names of all its steps.
    names: Vec<String>,
    /// Where steps stand, by their names from outside in; the first of several of one path.
    places: BTreeMap<Vec<String>, Location>,
    path: Vec<String>,
    out: &'a mut Vec<Mistake>,
}

impl<'a> Looking<'a> {
    /// The steps of `workflow`, which have these names; mistakes are added to `out`.
    pub(super) fn new(
        workflow: &Spanned<String>,
        known: Known<'a>,
        components: Components<'a>,
        names: Vec<String>,
        out: &'a mut Vec<Mistake>,
    ) -> Self {
        let places = BTreeMap::from([(Vec::new(), workflow.referenced)]);
        Self { workflow: workflow.value.clone(), known, components, names, places, path: Vec::new(), out }
    }

    fn tell(&mut self, place: Location, step: Option<&str>, fault: &str) {
        let step = step.map(|step| format!("step {step:?}: ")).unwrap_or_default();
        self.out.push(Mistake::at(place, format!("workflow {:?}: {step}{fault}", self.workflow)));
    }

    /// Adds what is wrong with how the steps stand together.
    pub(super) fn check_outline(mut self, outline: &WorkflowConfig) {
        for mistake in outline.mistakes() {
            let Some(place) = self.places.get(&mistake.path).copied() else { continue };
            // Expressions were read where they stand.
            if !mistake.fault.contains("is empty: write an expression") {
                let step = mistake.path.last().map(String::as_str);
                self.tell(place, step, &in_words_of_the_file(&mistake.fault));
            }
        }
    }

    /// Steps beside each other.
    pub(super) fn steps(&mut self, steps: Steps) -> Vec<StepDefinition> {
        steps.0.into_iter().map(|step| self.step(step)).collect()
    }

    fn step(&mut self, step: Step) -> StepDefinition {
        let name = step.name.value.clone();
        self.path.push(name.clone());
        self.places.entry(self.path.clone()).or_insert(step.name.referenced);
        check_line("name", &name).unwrap_or_else(|fault| self.tell(step.name.referenced, None, &fault));
        if let Some(text) = &step.description {
            let checked = check_text("description", &text.value);
            checked.unwrap_or_else(|fault| self.tell(text.referenced, Some(&name), &fault));
        }
        let description = step.description.as_ref().map(|text| text.value.clone());
        let made = match self.kind(&step) {
            Some(kind) => {
                self.check_besides(&step, kind);
                self.parts(kind, step)
            }
            None => None,
        };
        self.path.pop();
        // What is told already must not look like another mistake.
        let any = Runs::Function { function: "any".to_owned(), effect: Effect::Pure };
        let (runs, policies) = made.unwrap_or((any, Policies::default()));
        StepDefinition { name, description, runs, policies: policies.into() }
    }

    fn check_besides(&mut self, step: &Step, kind: &str) {
        let name = step.name.value.clone();
        for (word, place, kinds) in step.besides() {
            if !kinds.contains(&kind) {
                let fault = format!("{word} means something beside {} only, and this is {kind}", kinds.join(", "));
                self.tell(place, Some(&name), &fault);
            }
        }
    }

    /// What says what it runs, if exactly one thing does.
    fn kind(&mut self, step: &Step) -> Option<&'static str> {
        let name = step.name.value.clone();
        match step.kinds().as_slice() {
            [(kind, _)] => Some(kind),
            [] => {
                let fault = "what it runs is missing: expected one of agent, team, workflow, tool, if, parallel, loop, \
                             choose, ask, steps";
                self.tell(step.name.referenced, Some(&name), fault);
                None
            }
            [(one, _), (other, place), ..] => {
                self.tell(*place, Some(&name), &format!("{one} and {other} exclude each other: make two steps"));
                None
            }
        }
    }

    fn parts(&mut self, kind: &str, step: Step) -> Option<(Runs, Policies)> {
        let (name, place) = (step.name.value, step.name.referenced);
        let policies = Policies {
            retries: step.retries,
            timeout_seconds: step.timeout_seconds,
            on_error: step.on_error,
            confirm: step.confirm,
            user_input: step.user_input,
            review_input: step.review_input,
            review_output: step.review_output,
        };
        let input = self.expression(&name, "input", step.input);
        let block = |looking: &mut Self, word: &str, steps: Option<Spanned<Steps>>| match steps {
            Some(steps) => Some(looking.steps(steps.value)),
            None => {
                looking.tell(place, Some(&name), &format!("{word} is missing"));
                None
            }
        };
        let runs = match kind {
            "agent" => self.agent(&name, step.agent?, input),
            "team" => self.component(&name, ComponentKind::Team, step.team?, input),
            "workflow" => self.component(&name, ComponentKind::Workflow, step.workflow?, input),
            "tool" => self.tool(&name, &step.tool?, step.arguments),
            "if" => {
                let test = self.expression(&name, "if", step.test)?;
                let steps = block(self, "then", step.then)?;
                let otherwise = match step.otherwise {
                    Some(steps) => block(self, "else", Some(steps))?,
                    None => Vec::new(),
                };
                Runs::Condition { test, steps, otherwise }
            }
            "parallel" => {
                let limit = step.limit.map(|limit| limit.value.get());
                Runs::Parallel { steps: block(self, "parallel", step.parallel)?, limit }
            }
            "loop" => {
                let steps = block(self, "loop", step.again)?;
                let until = self.expression(&name, "until", step.until);
                let Some(most) = step.max_iterations else {
                    self.tell(place, Some(&name), "max_iterations is missing: no loop runs without end");
                    return None;
                };
                let forward = step.forward.is_some_and(|forward| forward.value);
                Runs::Loop { steps, until, max_iterations: most.value.get(), forward }
            }
            "steps" => Runs::Group { steps: block(self, "steps", step.steps)? },
            _ => {
                let chosen = self.expression(&name, "choose", step.choose).map(Selector::Value);
                let asked = || Selector::Person { message: step.ask.and_then(|ask| ask.value.message) };
                let choices = block(self, "choices", step.choices)?;
                let many = step.many.is_some_and(|many| many.value);
                Runs::Router { selector: chosen.unwrap_or_else(asked), choices, many }
            }
        };
        Some((runs, policies))
    }

    fn expression(&mut self, step: &str, what: &str, text: Option<Spanned<String>>) -> Option<Expression> {
        let text = text?;
        let expression = Expression::Cel(text.value);
        let fault = match steps_of(&expression) {
            Ok(looked_at) => unseen(&looked_at, &self.names),
            Err(fault) => Some(fault),
        };
        if let Some(fault) = fault {
            self.tell(text.referenced, Some(step), &format!("{what}: {fault}"));
        }
        Some(expression)
    }

    fn agent(&mut self, step: &str, who: Spanned<Who>, input: Option<Expression>) -> Runs {
        match who.value {
            Who::Known(id) => {
                self.component(step, ComponentKind::Agent, Spanned { value: id, referenced: who.referenced }, input)
            }
            Who::Own(agent) => {
                agent.check("agent", self.known, self.out);
                Runs::Own { agent: Box::new(agent.into_definition()), input }
            }
        }
    }

    fn component(&mut self, step: &str, kind: ComponentKind, id: Spanned<String>, input: Option<Expression>) -> Runs {
        let known = match kind {
            ComponentKind::Agent => self.components.agents,
            ComponentKind::Team => self.components.teams,
            ComponentKind::Workflow => self.components.workflows,
        };
        if !known.contains(&id.value) {
            let (kind, there) = (kind.as_str(), if known.is_empty() { "none".to_owned() } else { known.join(", ") });
            self.tell(id.referenced, Some(step), &format!("there is no {kind} {:?}; there are: {there}", id.value));
        }
        Runs::Component { kind, id: id.value, input }
    }

    fn tool(
        &mut self,
        step: &str,
        tool: &Spanned<String>,
        arguments: Option<Spanned<BTreeMap<String, Spanned<Value>>>>,
    ) -> Runs {
        // Which tools a source has is known when it is asked.
        let source = tool.value.split_once('.').map_or(tool.value.as_str(), |(source, _)| source);
        if !self.known.tools.iter().any(|known| *known == tool.value || known == source) {
            let fault = unknown_tool(&tool.value, self.known.tools.iter());
            self.tell(tool.referenced, Some(step), &fault);
        }
        let given = arguments.map(|given| given.value).unwrap_or_default();
        let arguments = given.into_iter().filter_map(|(name, value)| {
            let argument = match value.value {
                Value::String(text) => {
                    let text = Spanned { value: text, referenced: value.referenced };
                    self.expression(step, &name, Some(text))?
                }
                other => Expression::Constant(other),
            };
            Some((name, argument))
        });
        Runs::Tool { tool: tool.value.clone(), arguments: arguments.collect() }
    }
}

/// What the domain says of steps, with the words that the file has for their parts.
fn in_words_of_the_file(fault: &str) -> String {
    let words = [
        ("neither `steps`", "neither `then`"),
        ("`else_steps`", "`else`"),
        ("`test`", "`if`"),
        ("`selector`", "`choose`"),
    ];
    words.iter().fold(fault.to_owned(), |fault, (domain, file)| fault.replace(domain, file))
}
