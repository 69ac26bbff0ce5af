//! The file's shape, and the checks that need more than one place of it.

use std::collections::{BTreeMap, HashMap};
use std::num::NonZeroU32;

use daybook_tools::ToolSet;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::model::Model;
use super::place::{Location, Spanned};
use super::tools::Source;
use super::{Definitions, Mistake, Places, server};
use crate::agent::{
    AgentDefinition, check_compaction, check_id, check_line, check_numbers, check_output, check_text, check_values,
    pick_model, unknown_tool,
};
use crate::config::Layer;
use crate::models::DEFAULT_MODEL;

/// What a Daybook serves: models, agents, and the server's settings.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct File {
    /// The server's settings. Each can also come from the environment or the command line, which override it.
    server: Layer,
    /// The models, by the names that agents use.
    models: BTreeMap<String, Spanned<Model>>,
    /// Where tools come from beside those the server has by itself, by the names that agents use.
    tools: BTreeMap<String, Spanned<Source>>,
    /// The agents.
    agents: Vec<Agent>,
}

/// The names that the file may use, also of what is not here because of a mistake.
pub(super) struct Names<'a> {
    /// The models'.
    pub models: Vec<String>,
    /// The tools that the server has by itself.
    pub tools: &'a ToolSet,
    /// The sources' of tools.
    pub sources: Vec<String>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Agent {
    /// Its id, also in addresses: letters, digits, - _ and dots.
    id: Spanned<String>,
    /// Its name for people; the id unless said.
    #[serde(default)]
    name: Option<Spanned<String>>,
    /// What it is, for people and the model.
    #[serde(default)]
    description: Option<Spanned<String>>,
    /// What it does in a team.
    #[serde(default)]
    role: Option<Spanned<String>>,
    /// What the model is told to do: one text or a list.
    #[serde(default)]
    instructions: Option<Spanned<Lines>>,
    /// The name of its model; may be left out where there is one only.
    #[serde(default)]
    model: Option<Spanned<String>>,
    /// The tools it may use, by name: a built-in one, all of a source by its name, or one of them as `source.tool`.
    #[serde(default)]
    tools: Vec<Spanned<String>>,
    /// How many earlier runs of the session the model sees; 0 unless said.
    #[serde(default)]
    history_runs: u32,
    /// How the runs before those are kept: as a summary. Not at all unless said.
    #[serde(default)]
    compaction: Option<Spanned<Compaction>>,
    /// What a new session's state starts with.
    #[serde(default)]
    session_state: Option<Spanned<Map<String, Value>>>,
    /// The most model calls of one run; 25 unless said.
    #[serde(default)]
    max_iterations: Option<NonZeroU32>,
    /// The sampling temperature; the provider's unless said.
    #[serde(default)]
    #[schemars(range(min = 0.0, max = 2.0))]
    temperature: Option<Spanned<f64>>,
    /// The most tokens of one answer; the provider's limit unless said.
    #[serde(default)]
    max_tokens: Option<u64>,
    /// The shape of its answers: the JSON Schema of an object.
    #[serde(default)]
    output_schema: Option<Spanned<Map<String, Value>>>,
    /// How often the model is told that its answer misses its shape, and asked again; 2 unless said.
    #[serde(default)]
    output_repairs: Option<u32>,
    /// Shown with the agent and kept with its runs.
    #[serde(default)]
    metadata: Option<Spanned<Map<String, Value>>>,
}

/// When what was said early in a session is summarised: when somebody asks for it over the API, and...
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Compaction {
    /// By itself once the runs without a summary have more estimated tokens than this; only when asked unless said.
    #[serde(default)]
    #[schemars(range(min = 1000))]
    after_tokens: Option<u64>,
}

impl Compaction {
    fn setting(&self) -> daybook_domain::component::Compaction {
        daybook_domain::component::Compaction { after_tokens: self.after_tokens }
    }
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "expected a text, or a list of texts")]
enum Lines {
    One(String),
    Many(Vec<String>),
}

impl Lines {
    fn all(&self) -> &[String] {
        match self {
            Self::One(line) => std::slice::from_ref(line),
            Self::Many(lines) => lines,
        }
    }
}

impl File {
    /// What the file says; names in it that lead nowhere are added to `mistakes`.
    pub(super) fn check(
        self,
        names: Names<'_>,
        places: Places,
        environment: &HashMap<String, String>,
        mistakes: &mut Vec<Mistake>,
    ) -> Definitions {
        let Names { models: mut names, tools: built_in, sources: known } = names;
        mistakes.extend(server::check(&self.server, &places));
        let mut models = Vec::new();
        if names.is_empty() {
            names.push(DEFAULT_MODEL.to_owned());
        }
        for (name, model) in self.models {
            match model.value.check(&name, model.referenced, environment) {
                Ok(model) => models.push((name, model)),
                Err(mistake) => mistakes.push(mistake),
            }
        }
        let mut sources = Vec::new();
        for (name, source) in self.tools {
            match source.value.check(&name, source.referenced, places.path(), built_in) {
                Ok(source) => sources.push(source),
                Err(wrong) => mistakes.extend(wrong),
            }
        }
        let tools: Vec<String> = built_in.keys().cloned().chain(known).collect();
        let mut seen: HashMap<String, u64> = HashMap::new();
        let mut agents = Vec::new();
        for agent in self.agents {
            agent.check(&names, &tools, &mut seen, mistakes);
            agents.push(agent.into_definition());
        }
        Definitions { server: self.server, models, sources, agents, places }
    }
}

impl Agent {
    fn check(&self, models: &[String], tools: &[String], seen: &mut HashMap<String, u64>, out: &mut Vec<Mistake>) {
        let id = &self.id.value;
        let place = self.id.referenced;
        if let Err(fault) = check_id(id) {
            out.push(Mistake::at(place, fault));
        }
        if let Some(line) = seen.insert(id.clone(), place.line()) {
            out.push(Mistake::at(place, format!("the agent {id:?} is defined already, on line {line}")));
        }
        let named = self.model.as_ref();
        if let Err(fault) = pick_model(named.map(|model| model.value.as_str()), models.iter()) {
            out.push(Mistake::at(named.map_or(place, |model| model.referenced), format!("agent {id:?}: {fault}")));
        }
        for (at, tool) in self.tools.iter().enumerate() {
            // Which tools a source has is known when it is asked.
            let source = tool.value.split_once('.').map_or(tool.value.as_str(), |(source, _)| source);
            if !tools.iter().any(|known| *known == tool.value || known == source) {
                let fault = unknown_tool(&tool.value, tools.iter());
                out.push(Mistake::at(tool.referenced, format!("agent {id:?}: {fault}")));
            } else if self.tools[..at].iter().any(|other| other.value == tool.value) {
                let fault = format!("agent {id:?}: the tool {:?} is named twice", tool.value);
                out.push(Mistake::at(tool.referenced, fault));
            }
        }
        self.check_texts(out);
        if let Some(temperature) = &self.temperature
            && let Err(fault) = check_numbers(Some(temperature.value), 1)
        {
            out.push(Mistake::at(temperature.referenced, fault));
        }
        if let Some(compaction) = &self.compaction
            && let Err(fault) = check_compaction(Some(compaction.value.setting()), self.history_runs)
        {
            out.push(Mistake::at(compaction.referenced, fault));
        }
    }

    fn check_texts(&self, out: &mut Vec<Mistake>) {
        let mut tell = |at: Location, checked: Result<(), String>| {
            out.extend(checked.err().map(|fault| Mistake::at(at, fault)));
        };
        for (what, line) in [("name", &self.name), ("role", &self.role)] {
            if let Some(line) = line {
                tell(line.referenced, check_line(what, &line.value));
            }
        }
        if let Some(text) = &self.description {
            tell(text.referenced, check_text("description", &text.value));
        }
        if let Some(lines) = &self.instructions {
            let checked = lines.value.all().iter().try_for_each(|line| check_text("instructions", line));
            tell(lines.referenced, checked);
        }
        if let Some(schema) = &self.output_schema {
            tell(schema.referenced, check_output(&Value::Object(schema.value.clone())).map(drop));
        }
        for (what, values) in [("session_state", &self.session_state), ("metadata", &self.metadata)] {
            if let Some(values) = values {
                tell(values.referenced, check_values(what, &values.value));
            }
        }
    }

    fn into_definition(self) -> AgentDefinition {
        let bare = AgentDefinition::new(self.id.value);
        AgentDefinition {
            name: self.name.map(|text| text.value),
            description: self.description.map(|text| text.value),
            role: self.role.map(|text| text.value),
            instructions: self.instructions.map_or_else(Vec::new, |lines| lines.value.all().to_vec()),
            model: self.model.map(|model| model.value),
            tools: self.tools.into_iter().map(|tool| tool.value).collect(),
            history_runs: self.history_runs,
            compaction: self.compaction.map(|compaction| compaction.value.setting()),
            session_state: self.session_state.map(|values| values.value).unwrap_or_default(),
            max_iterations: self.max_iterations.map_or(bare.max_iterations, NonZeroU32::get),
            temperature: self.temperature.map(|temperature| temperature.value),
            max_tokens: self.max_tokens,
            output_schema: self.output_schema.map(|schema| Value::Object(schema.value)),
            output_repairs: self.output_repairs.unwrap_or(bare.output_repairs),
            metadata: self.metadata.map(|values| values.value).unwrap_or_default(),
            ..bare
        }
    }
}
