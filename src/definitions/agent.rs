//! An agent in the file. The leader of a team is written like one, with its team beside it.

use std::collections::HashMap;
use std::num::NonZeroU32;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::{Map, Value};

use super::Mistake;
use super::place::{Location, Spanned};
use crate::agent::{
    AgentDefinition, check_compaction, check_id, check_line, check_numbers, check_output, check_text, check_values,
    pick_model, unknown_tool,
};

/// An entry with all that an agent has, and more. (Flattened, its fields would lose their places.)
macro_rules! like_an_agent {
    ($(#[$doc:meta])* $name:ident { $($more:tt)* }) => {
        $(#[$doc])*
        #[derive(Debug, serde::Deserialize, schemars::JsonSchema)]
        #[serde(deny_unknown_fields)]
        pub(super) struct $name {
            /// Its id, also in addresses: letters, digits, - _ and dots.
            pub(super) id: Spanned<String>,
            /// Its name for people; the id unless said.
            #[serde(default)]
            pub(super) name: Option<Spanned<String>>,
            /// What it is, for people and the model.
            #[serde(default)]
            pub(super) description: Option<Spanned<String>>,
            /// What it does in a team.
            #[serde(default)]
            pub(super) role: Option<Spanned<String>>,
            /// What the model is told to do: one text or a list.
            #[serde(default)]
            pub(super) instructions: Option<Spanned<Lines>>,
            /// The name of its model; may be left out where there is one only.
            #[serde(default)]
            pub(super) model: Option<Spanned<String>>,
            /// The tools it may use, by name: a built-in one, all of a source by its name, or one of them as `source.tool`.
            #[serde(default)]
            pub(super) tools: Vec<Spanned<String>>,
            /// How many earlier runs of the session the model sees; 0 unless said.
            #[serde(default)]
            pub(super) history_runs: u32,
            /// How the runs before those are kept: as a summary. Not at all unless said.
            #[serde(default)]
            pub(super) compaction: Option<Spanned<Compaction>>,
            /// What a new session's state starts with.
            #[serde(default)]
            pub(super) session_state: Option<Spanned<Map<String, Value>>>,
            /// The most model calls of one run; 25 unless said.
            #[serde(default)]
            pub(super) max_iterations: Option<NonZeroU32>,
            /// The sampling temperature; the provider's unless said.
            #[serde(default)]
            #[schemars(range(min = 0.0, max = 2.0))]
            pub(super) temperature: Option<Spanned<f64>>,
            /// The most tokens of one answer; the provider's limit unless said.
            #[serde(default)]
            pub(super) max_tokens: Option<u64>,
            /// The shape of its answers: the JSON Schema of an object.
            #[serde(default)]
            pub(super) output_schema: Option<Spanned<Map<String, Value>>>,
            /// How often the model is told that its answer misses its shape, and asked again; 2 unless said.
            #[serde(default)]
            pub(super) output_repairs: Option<u32>,
            /// Shown with the agent and kept with its runs.
            #[serde(default)]
            pub(super) metadata: Option<Spanned<Map<String, Value>>>,
            $($more)*
        }
    };
}
pub(super) use like_an_agent;

like_an_agent! {
    /// One model with instructions and tools.
    Agent {}
}

/// When what was said early in a session is summarised: when somebody asks for it over the API, and...
#[derive(Debug, serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Compaction {
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

#[derive(Debug, serde::Deserialize, JsonSchema)]
#[serde(untagged, expecting = "expected a text, or a list of texts")]
pub(super) enum Lines {
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

/// What agents may name.
#[derive(Clone, Copy)]
pub(super) struct Known<'a> {
    /// The models.
    pub models: &'a [String],
    /// The tools, and the sources of tools.
    pub tools: &'a [String],
}

/// Notes that an id is taken; tells where it stood before.
pub(super) fn take_id(kind: &str, id: &Spanned<String>, seen: &mut HashMap<String, u64>, out: &mut Vec<Mistake>) {
    let place = id.referenced;
    if let Some(line) = seen.insert(id.value.clone(), place.line()) {
        out.push(Mistake::at(place, format!("the {kind} {:?} is defined already, on line {line}", id.value)));
    }
}

impl Agent {
    /// Adds what is wrong with it to `out`; `kind` is what it is called there.
    pub(super) fn check(&self, kind: &str, known: Known<'_>, out: &mut Vec<Mistake>) {
        let Known { models, tools } = known;
        let id = &self.id.value;
        let place = self.id.referenced;
        if let Err(fault) = check_id(id) {
            out.push(Mistake::at(place, fault));
        }
        let named = self.model.as_ref();
        if let Err(fault) = pick_model(named.map(|model| model.value.as_str()), models.iter()) {
            out.push(Mistake::at(named.map_or(place, |model| model.referenced), format!("{kind} {id:?}: {fault}")));
        }
        for (at, tool) in self.tools.iter().enumerate() {
            // Which tools a source has is known when it is asked.
            let source = tool.value.split_once('.').map_or(tool.value.as_str(), |(source, _)| source);
            if !tools.iter().any(|known| *known == tool.value || known == source) {
                let fault = unknown_tool(&tool.value, tools.iter());
                out.push(Mistake::at(tool.referenced, format!("{kind} {id:?}: {fault}")));
            } else if self.tools[..at].iter().any(|other| other.value == tool.value) {
                let fault = format!("{kind} {id:?}: the tool {:?} is named twice", tool.value);
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

    /// The agent, as code would describe it.
    pub(super) fn into_definition(self) -> AgentDefinition {
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

/// An agent or another component by id, or an agent described where it is used, which is nobody else's.
#[derive(Debug)]
pub(super) enum Who {
    /// By id.
    Known(String),
    /// Described here.
    Own(Box<Agent>),
}

impl Who {
    /// Its id.
    pub(super) fn id(&self) -> &str {
        match self {
            Self::Known(id) => id,
            Self::Own(agent) => &agent.id.value,
        }
    }
}

// Derived, an untagged choice would lose the places of what is inside it.
impl<'de> Deserialize<'de> for Who {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Choice;

        impl<'de> Visitor<'de> for Choice {
            type Value = Who;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an id, or an agent as `key: value` lines")
            }

            fn visit_str<E>(self, id: &str) -> Result<Who, E> {
                Ok(Who::Known(id.to_owned()))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Who, A::Error> {
                Agent::deserialize(MapAccessDeserializer::new(map)).map(|agent| Who::Own(Box::new(agent)))
            }
        }

        deserializer.deserialize_any(Choice)
    }
}

impl JsonSchema for Who {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Who".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        schemars::json_schema!({"anyOf": [String::json_schema(generator), generator.subschema_for::<Agent>()]})
    }
}
