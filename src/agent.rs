//! An agent as its owner describes it, in the definitions or in code.

use daybook_domain::component::{AgentConfig, Compaction, ModelRef};
use daybook_domain::ids::ComponentId;
use daybook_domain::output::OutputSchema;
use daybook_models::{ModelInfo, Models};
use daybook_tools::{Tool, ToolSet, calculator, current_time, read_result};
use serde_json::{Map, Value};
use std::sync::Arc;

use crate::error::Error;
use crate::sources::Toolbox;

/// The most model calls of one run, unless said otherwise.
const MAX_ITERATIONS: u32 = 25;

/// How often an answer that misses its shape is asked for again, unless said otherwise.
const OUTPUT_REPAIRS: u32 = 2;

/// An agent: one model with instructions and tools.
#[derive(Debug, Clone, PartialEq)]
pub struct AgentDefinition {
    pub(crate) id: String,
    pub(crate) name: Option<String>,
    pub(crate) description: Option<String>,
    pub(crate) role: Option<String>,
    pub(crate) instructions: Vec<String>,
    pub(crate) model: Option<String>,
    pub(crate) tools: Vec<String>,
    pub(crate) history_runs: u32,
    pub(crate) compaction: Option<Compaction>,
    pub(crate) session_state: Map<String, Value>,
    pub(crate) max_iterations: u32,
    pub(crate) temperature: Option<f64>,
    pub(crate) max_tokens: Option<u64>,
    pub(crate) output_schema: Option<Value>,
    pub(crate) output_repairs: u32,
    pub(crate) metadata: Map<String, Value>,
}

impl AgentDefinition {
    /// An agent of this id, which is also its name, and nothing else.
    pub fn new(id: impl Into<String>) -> Self {
        Self {
            id: id.into(),
            name: None,
            description: None,
            role: None,
            instructions: Vec::new(),
            model: None,
            tools: Vec::new(),
            history_runs: 0,
            compaction: None,
            session_state: Map::new(),
            max_iterations: MAX_ITERATIONS,
            temperature: None,
            max_tokens: None,
            output_schema: None,
            output_repairs: OUTPUT_REPAIRS,
            metadata: Map::new(),
        }
    }

    /// Its name for people.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// What it is, for people and the model.
    #[must_use]
    pub fn description(mut self, description: impl Into<String>) -> Self {
        self.description = Some(description.into());
        self
    }

    /// What it does in a team.
    #[must_use]
    pub fn role(mut self, role: impl Into<String>) -> Self {
        self.role = Some(role.into());
        self
    }

    /// One more instruction.
    #[must_use]
    pub fn instruction(mut self, instruction: impl Into<String>) -> Self {
        self.instructions.push(instruction.into());
        self
    }

    /// The name of its model. Not needed where there is only one.
    #[must_use]
    pub fn model(mut self, model: impl Into<String>) -> Self {
        self.model = Some(model.into());
        self
    }

    /// One more tool, by name: a built-in one, or one that was given to the builder. The name of a source stands for all
    /// of its tools, `source.tool` for one of them.
    #[must_use]
    pub fn tool(mut self, tool: impl Into<String>) -> Self {
        self.tools.push(tool.into());
        self
    }

    /// How many earlier runs of the session the model sees; none unless said.
    #[must_use]
    pub fn history_runs(mut self, runs: u32) -> Self {
        self.history_runs = runs;
        self
    }

    /// Its sessions can be compacted: its model summarises their earlier runs, and the newest `history_runs` stay word for
    /// word. With [`Compaction::after_tokens`] this happens by itself.
    #[must_use]
    pub fn compaction(mut self, compaction: Compaction) -> Self {
        self.compaction = Some(compaction);
        self
    }

    /// The session state that a new session starts with.
    #[must_use]
    pub fn session_state(mut self, state: Map<String, Value>) -> Self {
        self.session_state = state;
        self
    }

    /// The most model calls of one run; 25 unless said.
    #[must_use]
    pub fn max_iterations(mut self, calls: u32) -> Self {
        self.max_iterations = calls;
        self
    }

    /// The sampling temperature; the provider's default unless said.
    #[must_use]
    pub fn temperature(mut self, temperature: f64) -> Self {
        self.temperature = Some(temperature);
        self
    }

    /// The most tokens of one answer.
    #[must_use]
    pub fn max_tokens(mut self, tokens: u64) -> Self {
        self.max_tokens = Some(tokens);
        self
    }

    /// The shape of its answers: the JSON Schema of an object, such as `schemars::schema_for!` makes of a type. A run's
    /// content is then an object of that shape, and its content type the schema's title.
    #[must_use]
    pub fn output_schema(mut self, schema: impl Into<Value>) -> Self {
        self.output_schema = Some(schema.into());
        self
    }

    /// How often the model is told that its answer misses the shape, its own or the one that a run asks for, and asked
    /// again; 2 unless said. Each time is one of the run's `max_iterations`; 0 takes the first answer as it is.
    #[must_use]
    pub fn output_repairs(mut self, times: u32) -> Self {
        self.output_repairs = times;
        self
    }

    /// Shown with the agent and kept with its runs.
    #[must_use]
    pub fn metadata(mut self, metadata: Map<String, Value>) -> Self {
        self.metadata = metadata;
        self
    }

    /// The configuration its runs pin, and the code of its tools.
    pub(crate) fn resolve(self, models: &Models, toolbox: &Toolbox) -> Result<(AgentConfig, ToolSet), Error> {
        let id = check_id(&self.id).map_err(|fault| Error::Agent { agent: self.id.clone(), fault })?;
        let fault = |fault: String| Error::Agent { agent: self.id.clone(), fault };
        let model = self.model_among(models).map_err(fault)?;
        let named = self.tools_among(toolbox).map_err(fault)?;
        check_numbers(self.temperature, self.max_iterations).map_err(fault)?;
        check_compaction(self.compaction, self.history_runs).map_err(fault)?;
        self.check_texts().map_err(fault)?;
        let output = self.output_schema.as_ref().map(check_output).transpose().map_err(fault)?;
        // The registry replaces these by the tools' own, in this order.
        let specs = named.iter().map(|tool| tool.spec().clone()).collect();
        let own = named.into_iter().map(|tool| (tool.spec().name.clone(), tool)).collect();
        let config = AgentConfig {
            name: self.name.unwrap_or_else(|| id.to_string()),
            id,
            description: self.description,
            role: self.role,
            instructions: self.instructions,
            model,
            temperature: self.temperature,
            max_tokens: self.max_tokens,
            output_schema: output,
            output_repairs: self.output_repairs,
            tools: specs,
            history_runs: self.history_runs,
            compaction: self.compaction,
            session_state: self.session_state,
            max_iterations: self.max_iterations,
            metadata: self.metadata,
            team: None,
        };
        Ok((config, own))
    }

    fn check_texts(&self) -> Result<(), String> {
        for (what, text) in [("name", &self.name), ("role", &self.role)] {
            text.as_deref().map_or(Ok(()), |text| check_line(what, text))?;
        }
        self.description.as_deref().map_or(Ok(()), |text| check_text("description", text))?;
        self.instructions.iter().try_for_each(|text| check_text("instructions", text))?;
        check_values("session_state", &self.session_state)?;
        check_values("metadata", &self.metadata)
    }

    fn model_among(&self, models: &Models) -> Result<ModelRef, String> {
        let key = pick_model(self.model.as_deref(), models.keys())?;
        let info = models.get(&key).map(|model| model.info().clone());
        let ModelInfo { id, provider, class } = info.ok_or_else(|| format!("there is no model {key:?}"))?;
        Ok(ModelRef { key, id, provider, class })
    }

    /// Its tools, in the order it names them.
    fn tools_among(&self, toolbox: &Toolbox) -> Result<Vec<Arc<dyn Tool>>, String> {
        let mut named: Vec<Arc<dyn Tool>> = Vec::new();
        for name in &self.tools {
            for tool in toolbox.named(name)? {
                let tool_name = &tool.spec().name;
                if named.iter().any(|other| other.spec().name == *tool_name) {
                    return Err(format!("the tool {tool_name:?} is named twice"));
                }
                named.push(tool);
            }
        }
        Ok(named)
    }
}

/// The tools every server has, by name.
pub fn built_in_tools() -> ToolSet {
    [calculator(), current_time(), read_result()]
        .into_iter()
        .map(|tool| (tool.spec().name.clone(), Arc::new(tool) as Arc<dyn daybook_tools::Tool>))
        .collect()
}

/// An id that also fits into an address.
pub(crate) fn check_id(id: &str) -> Result<ComponentId, String> {
    const USE: &str = "but ids are part of addresses; use letters, digits, - _ or .";
    if let Some(bad) = id.chars().find(|c| !c.is_alphanumeric() && !"-_.".contains(*c)) {
        return Err(format!("the id {id:?} holds {bad:?}, {USE}"));
    }
    if id == "." || id == ".." {
        return Err(format!("the id {id:?} leads to another place, {USE}"));
    }
    ComponentId::parse(id).map_err(|error| error.to_string())
}

/// A text of one line: a name, a role.
pub(crate) fn check_line(what: &str, text: &str) -> Result<(), String> {
    match text.chars().find(|c| c.is_control()) {
        Some(bad) => Err(format!("{what}: expected a line of text, found the control character {bad:?}")),
        None => Ok(()),
    }
}

/// A text of lines: a description, instructions.
pub(crate) fn check_text(what: &str, text: &str) -> Result<(), String> {
    match text.chars().find(|c| c.is_control() && !matches!(c, '\n' | '\r' | '\t')) {
        Some(bad) => Err(format!("{what}: expected a text, found the control character {bad:?}")),
        None => Ok(()),
    }
}

/// Values for the database, which keeps no zero character.
pub(crate) fn check_values(what: &str, values: &Map<String, Value>) -> Result<(), String> {
    fn holds_zero(value: &Value) -> bool {
        match value {
            Value::String(text) => text.contains('\0'),
            Value::Array(items) => items.iter().any(holds_zero),
            Value::Object(map) => map.iter().any(|(key, value)| key.contains('\0') || holds_zero(value)),
            _ => false,
        }
    }
    match values.iter().any(|(key, value)| key.contains('\0') || holds_zero(value)) {
        true => Err(format!("{what}: a text in it holds the character '\\0', which cannot be stored")),
        false => Ok(()),
    }
}

/// The model named, or the only one there is.
pub(crate) fn pick_model<'a>(
    named: Option<&str>,
    mut known: impl ExactSizeIterator<Item = &'a String> + Clone,
) -> Result<String, String> {
    let list = || known.clone().map(String::as_str).collect::<Vec<_>>().join(", ");
    match named {
        Some(name) if known.clone().any(|key| key == name) => Ok(name.to_owned()),
        Some(name) => Err(format!("the model {name:?} is not defined; defined are: {}", list())),
        None if known.len() == 1 => Ok(known.next().cloned().unwrap_or_default()),
        None if known.len() == 0 => Err("no model is defined".to_owned()),
        None => Err(format!("no model is named, and there are several: say which of {}", list())),
    }
}

/// What to say of a tool that is not there.
pub(crate) fn unknown_tool<'a>(name: &str, known: impl Iterator<Item = &'a String>) -> String {
    let known: Vec<&str> = known.map(String::as_str).collect();
    format!("there is no tool {name:?}; there are: {}", known.join(", "))
}

/// The shape of answers.
pub(crate) fn check_output(schema: &Value) -> Result<OutputSchema, String> {
    let Value::Object(map) = schema else {
        return Err("output_schema: expected a JSON Schema of an object".to_owned());
    };
    check_values("output_schema", map)?;
    OutputSchema::new(map.clone(), true).map_err(|fault| format!("output_schema: {fault}"))
}

/// The numbers that have bounds.
pub(crate) fn check_numbers(temperature: Option<f64>, max_iterations: u32) -> Result<(), String> {
    if temperature.is_some_and(|value| !(0.0..=2.0).contains(&value)) {
        return Err("temperature must be a number from 0 to 2".to_owned());
    }
    if max_iterations == 0 {
        return Err("max_iterations must be at least 1".to_owned());
    }
    Ok(())
}

/// The fewest tokens after which a session is compacted by itself: a summary has about as many.
const MIN_AFTER_TOKENS: u64 = 1_000;

/// The most runs that stay word for word where the others are summarised; a session's fold knows the newest 100.
const MAX_KEPT_RUNS: u32 = 50;

/// What is summarised, and what stays.
pub(crate) fn check_compaction(compaction: Option<Compaction>, history_runs: u32) -> Result<(), String> {
    let Some(compaction) = compaction else { return Ok(()) };
    if !(1..=MAX_KEPT_RUNS).contains(&history_runs) {
        let kept = "the newest of a session's runs stay word for word, the others are summarised";
        return Err(format!("compaction needs history_runs of 1 to {MAX_KEPT_RUNS}, not {history_runs}: {kept}"));
    }
    if compaction.after_tokens.is_some_and(|tokens| tokens < MIN_AFTER_TOKENS) {
        return Err(format!("compaction: after_tokens must be at least {MIN_AFTER_TOKENS}"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use daybook_models::DemoModel;

    use super::*;

    #[derive(schemars::JsonSchema)]
    #[expect(dead_code, reason = "only its shape counts")]
    struct Movie {
        title: String,
    }

    fn models(names: &[&str]) -> Models {
        names.iter().map(|name| ((*name).to_owned(), Arc::new(DemoModel::default()) as _)).collect()
    }

    fn toolbox() -> Toolbox {
        Toolbox::new(built_in_tools(), &[]).unwrap()
    }

    fn fault(agent: AgentDefinition, names: &[&str]) -> String {
        match agent.resolve(&models(names), &toolbox()) {
            Err(error) => error.to_string(),
            Ok((config, _)) => panic!("accepted: {config:?}"),
        }
    }

    #[test]
    fn the_only_model_is_taken_and_tools_keep_their_order() {
        let agent = AgentDefinition::new("a").tool("current_time").tool("calculator").instruction("Be brief.");
        let (config, tools) = agent.resolve(&models(&["main"]), &toolbox()).unwrap();
        assert_eq!((config.model.key.as_str(), config.name.as_str()), ("main", "a"));
        let names: Vec<_> = config.tools.iter().map(|tool| tool.name.as_str()).collect();
        assert_eq!(names, ["current_time", "calculator"]);
        assert_eq!(tools.len(), 2);
        assert_eq!((config.max_iterations, config.output_repairs), (25, 2));
    }

    #[test]
    fn mistakes_are_told_with_what_there_is() {
        let a = || AgentDefinition::new("a");
        assert_eq!(
            fault(a().model("x"), &["main", "other"]),
            "agent \"a\": the model \"x\" is not defined; defined are: main, other"
        );
        assert!(fault(a(), &["main", "other"]).contains("say which of main, other"));
        assert!(fault(a(), &[]).contains("no model is defined"));
        assert!(fault(a().tool("web"), &["main"]).contains("there are: calculator, current_time, read_result"));
        assert!(fault(a().tool("calculator").tool("calculator"), &["main"]).contains("named twice"));
        for (id, fault_of_it) in [("a/b", "'/'"), ("a\\b", "'\\\\'"), (".", "another place"), ("..", "another place")] {
            let fault = fault(AgentDefinition::new(id), &["main"]);
            assert!(fault.contains(fault_of_it), "{fault}");
        }
        assert!(AgentDefinition::new("..a").resolve(&models(&["main"]), &toolbox()).is_ok());
        assert!(fault(a().name("x\0y"), &["main"]).contains("name: expected a line of text"));
        assert!(fault(a().instruction("x\u{1}y"), &["main"]).contains("instructions: expected a text"));
        assert!(a().instruction("x\n\ty").resolve(&models(&["main"]), &toolbox()).is_ok());
        let state = [("k".to_owned(), serde_json::json!([{"a": "x\0"}]))].into_iter().collect();
        assert!(fault(a().session_state(state), &["main"]).contains("session_state: "));
        assert!(fault(a().output_schema(serde_json::json!([1])), &["main"]).contains("output_schema: expected"));
        let list = serde_json::json!({"type": "array"});
        assert!(fault(a().output_schema(list), &["main"]).contains("output_schema: root must declare"));
        let (config, _) =
            a().output_schema(schemars::schema_for!(Movie)).resolve(&models(&["main"]), &toolbox()).unwrap();
        let shape = config.output_schema.unwrap();
        assert_eq!((shape.name.as_str(), shape.schema.contains_key("$schema")), ("Movie", false));
        assert!(fault(AgentDefinition::new(""), &["main"]).contains("must not be empty"));
        assert!(fault(a().temperature(3.0), &["main"]).contains("from 0 to 2"));
        assert!(fault(a().max_iterations(0), &["main"]).contains("at least 1"));
        let compacts = |runs, after_tokens| a().history_runs(runs).compaction(Compaction { after_tokens });
        assert!(fault(compacts(0, None), &["main"]).contains("history_runs of 1 to 50, not 0"));
        assert!(fault(compacts(51, None), &["main"]).contains("history_runs of 1 to 50, not 51"));
        assert!(fault(compacts(1, Some(999)), &["main"]).contains("after_tokens must be at least 1000"));
        assert!(compacts(50, Some(1000)).resolve(&models(&["main"]), &toolbox()).is_ok());
    }
}
