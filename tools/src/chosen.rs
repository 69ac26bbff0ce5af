//! Which tools of a source are taken, under which names, and what the owner says of them otherwise than the source.
//! Works over any tools: a changed tool is the same code behind another [`ToolSpec`].

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use async_trait::async_trait;
use daybook_domain::tool::{ApprovalKind, ApprovalRule, Effect, Gate, OnExpiry, ToolSpec};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::text::renamed;
use crate::{SourceError, Tool, ToolContext, ToolError, ToolOutput};

/// The longest name of a tool, in characters: what providers of models take.
const MAX_NAME: usize = 64;

/// Which tools of a source are taken, and what is said of them. Names are those of the source, without the prefix.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Choice {
    /// Put before every name, such as `github_`, so that tools of two sources can be told apart: letters, digits, - and
    /// _. With it a name may have 64 characters.
    pub prefix: Option<String>,
    /// The only tools that are taken; all of them unless said.
    pub allow: Option<Vec<String>>,
    /// Tools that are not taken.
    pub deny: Vec<String>,
    /// What is said of single tools otherwise than the source does.
    pub rules: BTreeMap<String, ToolRule>,
}

/// What is said of one tool otherwise than its source does. What is left out stays as the source has it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ToolRule {
    /// What it does, for the model.
    pub description: Option<String>,
    /// What calling it again does: `pure` changes nothing, `idempotent` changes the world once per idempotency key, and
    /// `unsafe` may do harm, so that after a crash a person is asked. Not for tools that must ask, such as
    /// `run_command`.
    #[schemars(schema_with = "effects")]
    pub effect: Option<Effect>,
    /// The longest one call may take, in seconds; at least 1.
    #[schemars(range(min = 1))]
    pub timeout_seconds: Option<u64>,
    /// How often a call that failed is tried again at once. Not for unsafe tools, nor for those that must ask.
    pub retries: Option<u32>,
    /// Whether a person is asked if it may run. `false` takes away a confirmation that the source asks for, except from
    /// tools that must ask, such as `run_command`.
    pub confirmation: Option<bool>,
    /// The arguments that a person fills in before it runs; all of them when the list is empty.
    pub user_input: Option<Vec<String>>,
    /// Whether a person chooses among what its argument `questions` offers, and the choices are its result.
    pub feedback: Option<bool>,
    /// Whether it runs elsewhere, and its result comes with the continuation of the run.
    pub external: Option<bool>,
    /// Whether the wait for an external result is left without words to the person who talks to the agent.
    pub silent: Option<bool>,
    /// The approval its calls need.
    pub approval: Option<ApprovalOptions>,
}

/// The approval that a tool's calls need.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ApprovalOptions {
    /// `required`: a call runs only when an approval of its exact arguments was granted. `audit`: what was decided is
    /// recorded as an approval.
    #[schemars(schema_with = "kinds")]
    pub kind: ApprovalKind,
    /// Seconds until it expires, at least 1; never unless said.
    #[serde(default)]
    #[schemars(range(min = 1))]
    pub expires_after_seconds: Option<u64>,
    /// What happens then: `deny` rejects the call and the run goes on (the default), `fail` ends the run, `wait` keeps
    /// waiting. Only together with `expires_after_seconds`.
    #[serde(default)]
    #[schemars(schema_with = "expiries")]
    pub on_expiry: Option<OnExpiry>,
    /// Seconds between reminders while nobody has decided, at least 1; none unless said.
    #[serde(default)]
    #[schemars(range(min = 1))]
    pub remind_every_seconds: Option<u64>,
    /// Whether the user whose run it is may not decide.
    #[serde(default)]
    pub not_by_requester: bool,
}

fn effects(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"enum": ["pure", "idempotent", "unsafe", null]})
}

fn kinds(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string", "enum": ["required", "audit"]})
}

fn expiries(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"enum": ["deny", "fail", "wait", null]})
}

/// The chosen ones of a source's tools, in their order, each as its rule says.
///
/// # Errors
/// A name that the source does not have, a tool both allowed and denied, names that no model takes, or a rule that
/// contradicts itself or its tool. The message names the source and says how to mend it.
pub fn choose(source: &str, tools: Vec<Arc<dyn Tool>>, choice: &Choice) -> Result<Vec<Arc<dyn Tool>>, SourceError> {
    chosen(tools, choice).map_err(|fault| SourceError { source_name: source.to_owned(), fault })
}

fn chosen(tools: Vec<Arc<dyn Tool>>, choice: &Choice) -> Result<Vec<Arc<dyn Tool>>, String> {
    choice.check(&tools)?;
    let prefix = choice.prefix.as_deref().unwrap_or_default();
    let plain = ToolRule::default();
    let mut taken = Vec::new();
    for tool in tools {
        let name = &tool.spec().name;
        if !choice.takes(name) {
            continue;
        }
        let rule = choice.rules.get(name).unwrap_or(&plain);
        if prefix.is_empty() && *rule == plain {
            taken.push(tool);
            continue;
        }
        let mut spec = rule.applied(&*tool).map_err(|fault| format!("the rule of {name:?}: {fault}"))?;
        spec.name = prefixed(prefix, name)?;
        taken.push(Arc::new(Changed { spec, tool }));
    }
    Ok(taken)
}

impl Choice {
    /// Whether every name leads somewhere, and to one place only.
    fn check(&self, tools: &[Arc<dyn Tool>]) -> Result<(), String> {
        let mut known = BTreeSet::new();
        for tool in tools {
            if !known.insert(tool.spec().name.as_str()) {
                return Err(format!("it has two tools named {:?}; give one of them another name", tool.spec().name));
            }
        }
        let allow = self.allow.as_deref().unwrap_or_default();
        if self.allow.is_some() && allow.is_empty() {
            return Err("`allow` lists nothing, so that no tool is left; leave it out to take all".to_owned());
        }
        let lists = [("allow", allow), ("deny", &self.deny)].map(|(list, names)| (list, names.iter().collect()));
        let rules: (&str, Vec<&String>) = ("rules", self.rules.keys().collect());
        for (list, names) in lists.into_iter().chain([rules]) {
            if let Some(name) = names.into_iter().find(|name| !known.contains(name.as_str())) {
                let known: Vec<&str> = known.into_iter().collect();
                let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
                return Err(format!("`{list}` names {name:?}, which is not among its tools: {known}"));
            }
        }
        match allow.iter().find(|name| self.deny.contains(name)) {
            Some(name) => Err(format!("{name:?} stands in `allow` and in `deny`; take it out of one of them")),
            None => Ok(()),
        }
    }

    fn takes(&self, name: &String) -> bool {
        self.allow.as_ref().is_none_or(|allow| allow.contains(name)) && !self.deny.contains(name)
    }
}

/// The name the model calls.
fn prefixed(prefix: &str, name: &str) -> Result<String, String> {
    let whole = format!("{prefix}{name}");
    let fits = |letter: char| letter.is_ascii_alphanumeric() || "-_".contains(letter);
    if !prefix.chars().all(fits) {
        return Err(format!("the prefix {prefix:?} may have letters, digits, - and _ only"));
    }
    if !prefix.is_empty() && whole.chars().count() > MAX_NAME {
        return Err(format!("{whole:?} is longer than {MAX_NAME} characters; take a shorter prefix"));
    }
    Ok(whole)
}

impl ToolRule {
    /// The tool's own words, changed as this says.
    fn applied(&self, tool: &dyn Tool) -> Result<ToolSpec, String> {
        let mut spec = tool.spec().clone();
        if tool.must_ask() && (self.effect.is_some() || self.retries.is_some()) {
            // Or else a crash would call it a second time, and nobody would be asked about that.
            return Err("what a second call of it does cannot be said: it can do anything that the server's user may \
                        do; take out effect and retries"
                .to_owned());
        }
        if let Some(description) = &self.description {
            if description.trim().is_empty() {
                return Err("`description` is empty; say what the tool does, or leave it out".to_owned());
            }
            spec.description.clone_from(description);
        }
        if let Some(effect) = self.effect {
            spec.effect = effect;
        }
        if let Some(timeout) = self.timeout_seconds {
            spec.timeout_seconds = at_least_one("timeout_seconds", timeout)?;
        }
        spec.retries = self.retries_of(&spec)?;
        spec.gate = self.gate_of(&spec)?;
        if tool.must_ask() && spec.gate != tool.spec().gate {
            return Err(
                "what a person is asked before it runs cannot be changed: it can do anything that the server's \
                        user may do; take out confirmation, user_input, feedback and external"
                    .to_owned(),
            );
        }
        if let Some(approval) = &self.approval {
            spec.approval = Some(approval.rule()?);
        }
        Ok(spec)
    }

    fn retries_of(&self, spec: &ToolSpec) -> Result<u32, String> {
        match (self.retries, spec.effect) {
            (Some(1..), Effect::Unsafe) => {
                Err("an unsafe tool is never tried again; say `effect: idempotent` if a second \
                                                call does no harm, or take out `retries`"
                    .to_owned())
            }
            (None, Effect::Unsafe) => Ok(0),
            (retries, _) => Ok(retries.unwrap_or(spec.retries)),
        }
    }

    /// What is asked of a person: the one thing this asks for, or what the tool has unless this takes it away.
    fn gate_of(&self, spec: &ToolSpec) -> Result<Gate, String> {
        let asked = |on: Option<bool>, name: &'static str, gate: Gate| (on == Some(true)).then_some((name, gate));
        let silent = self.silent.unwrap_or(false);
        let fields = self.user_input.clone().map(|fields| ("user_input", Gate::UserInput { fields }));
        let gates: Vec<(&str, Gate)> = [
            asked(self.confirmation, "confirmation", Gate::Confirmation),
            fields,
            asked(self.feedback, "feedback", Gate::Feedback),
            asked(self.external, "external", Gate::External { silent }),
        ]
        .into_iter()
        .flatten()
        .collect();
        let gate = match gates.as_slice() {
            [] => self.left_of(&spec.gate),
            [(_, gate)] => gate.clone(),
            [(one, _), (other, _), ..] => {
                return Err(format!("`{one}` and `{other}` exclude each other; take out one of them"));
            }
        };
        self.fits(gate, spec)
    }

    /// The tool's own gate, unless this takes it away.
    fn left_of(&self, own: &Gate) -> Gate {
        let kept = match own {
            Gate::None | Gate::UserInput { .. } => None,
            Gate::Confirmation => self.confirmation,
            Gate::Feedback => self.feedback,
            Gate::External { .. } => self.external,
        };
        match (own, self.silent) {
            _ if kept == Some(false) => Gate::None,
            (Gate::External { .. }, Some(silent)) => Gate::External { silent },
            _ => own.clone(),
        }
    }

    /// Whether the tool has the arguments that the gate is about.
    fn fits(&self, gate: Gate, spec: &ToolSpec) -> Result<Gate, String> {
        if self.silent.is_some() && !matches!(gate, Gate::External { .. }) {
            return Err("`silent` is about external tools; add `external: true`, or take it out".to_owned());
        }
        let asked = match &gate {
            Gate::UserInput { fields } if self.user_input.is_some() => fields.as_slice(),
            Gate::Feedback if self.feedback.is_some() => &["questions".to_owned()],
            _ => return Ok(gate),
        };
        let known = spec.parameters.get("properties").and_then(Value::as_object);
        let has = |name: &String| known.is_some_and(|known| known.contains_key(name));
        match asked.iter().find(|name| !has(name)) {
            None => Ok(gate),
            Some(name) => {
                let known: Vec<&str> = known.into_iter().flat_map(Map::keys).map(String::as_str).collect();
                let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
                Err(format!("a person would fill in {name:?}, which is not among the tool's arguments: {known}"))
            }
        }
    }
}

impl ApprovalOptions {
    fn rule(&self) -> Result<ApprovalRule, String> {
        if self.on_expiry.is_some() && self.expires_after_seconds.is_none() {
            return Err("`on_expiry` needs `expires_after_seconds`: without it an approval never expires".to_owned());
        }
        let rule = ApprovalRule {
            expires_after_seconds: self.expires_after_seconds,
            on_expiry: self.on_expiry.unwrap_or_default(),
            remind_every_seconds: self.remind_every_seconds,
            not_by_requester: self.not_by_requester,
            ..ApprovalRule::new(self.kind)
        };
        rule.fault().map_or(Ok(rule), |fault| Err(fault.to_owned()))
    }
}

fn at_least_one(name: &str, seconds: u64) -> Result<u64, String> {
    if seconds == 0 { Err(format!("`{name}` is in seconds, and at least 1")) } else { Ok(seconds) }
}

/// A tool of which something else is said.
struct Changed {
    spec: ToolSpec,
    tool: Arc<dyn Tool>,
}

#[async_trait]
impl Tool for Changed {
    fn spec(&self) -> &ToolSpec {
        &self.spec
    }

    fn must_ask(&self) -> bool {
        self.tool.must_ask()
    }

    fn check(&self, arguments: &Map<String, Value>) -> Result<(), ToolError> {
        let checked = self.tool.check(arguments);
        checked.map_err(|fault| renamed(fault, &self.tool.spec().name, &self.spec.name))
    }

    async fn call(&self, context: ToolContext, arguments: Map<String, Value>) -> Result<ToolOutput, ToolError> {
        let called = self.tool.call(context, arguments).await;
        called.map_err(|fault| renamed(fault, &self.tool.spec().name, &self.spec.name))
    }
}

#[cfg(test)]
mod tests;
