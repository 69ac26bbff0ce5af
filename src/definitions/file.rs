//! The file's shape, and the checks that need more than one place of it.

use std::collections::{BTreeMap, HashMap};
use std::num::NonZeroU32;

use daybook_models::SetupError;
use secrecy::SecretString;
use serde::Deserialize;
use serde_json::{Map, Value};
use serde_saphyr::granit_parser::{Event, Parser, ScalarStyle};
use serde_saphyr::{Location, Spanned};

use super::{Definitions, Mistake, Places, server};
use crate::agent::{
    AgentDefinition, check_id, check_line, check_numbers, check_text, check_values, pick_model, unknown_tool,
};
use crate::config::Layer;
use crate::error::Error;
use crate::models::{DEFAULT_MODEL, ModelDefinition, OpenAiDefinition, TimeoutsDefinition};

/// A definitions file is written by people; more than this is a mistake of its own.
const MAX_BYTES: usize = 4_000_000;
/// Each retry waits longer than the one before; more than this would keep a run busy for hours.
const MAX_RETRIES: u32 = 20;

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct File {
    server: Layer,
    models: BTreeMap<String, Spanned<Model>>,
    agents: Vec<Agent>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Provider {
    Demo,
    OpenAi,
}

// One shape for all providers: a tagged enum would lose the places of what is inside it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Model {
    provider: Provider,
    #[serde(default)]
    id: Option<Spanned<String>>,
    #[serde(default)]
    base_url: Option<Spanned<String>>,
    #[serde(default)]
    api_key: Option<Spanned<SecretString>>,
    #[serde(default)]
    timeouts: Option<Spanned<TimeoutsDefinition>>,
    #[serde(default)]
    retries: Option<Spanned<u32>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Agent {
    id: Spanned<String>,
    #[serde(default)]
    name: Option<Spanned<String>>,
    #[serde(default)]
    description: Option<Spanned<String>>,
    #[serde(default)]
    role: Option<Spanned<String>>,
    #[serde(default)]
    instructions: Option<Spanned<Lines>>,
    #[serde(default)]
    model: Option<Spanned<String>>,
    #[serde(default)]
    tools: Vec<Spanned<String>>,
    #[serde(default)]
    history_runs: u32,
    #[serde(default)]
    session_state: Option<Spanned<Map<String, Value>>>,
    #[serde(default)]
    max_iterations: Option<NonZeroU32>,
    #[serde(default)]
    temperature: Option<Spanned<f64>>,
    #[serde(default)]
    max_tokens: Option<u64>,
    #[serde(default)]
    metadata: Option<Spanned<Map<String, Value>>>,
}

#[derive(Debug, Deserialize)]
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

/// Reads the text; the first mistake of its shape ends it.
pub(super) fn read(text: &str, environment: HashMap<String, String>) -> Result<File, Mistake> {
    if text.len() > MAX_BYTES {
        let message = format!("the file has {} bytes; {MAX_BYTES} are the most", text.len());
        return Err(Mistake { line: 1, column: 1, message });
    }
    // Snippets would show the lines around a mistake, and a key may stand there.
    let options = serde_saphyr::options! { with_snippet: false }.with_properties(environment);
    let file = serde_saphyr::from_str_with_options(text, options).map_err(|error| Mistake::from_yaml(&error, text))?;
    unclosed(text).map_or(Ok(file), Err)
}

/// The first unquoted value with a `${` that is never closed: the parser takes it for an ordinary text.
fn unclosed(text: &str) -> Option<Mistake> {
    let open = |value: &str| {
        let value = value.replace("$${", "");
        let (opened, closed) = (value.matches("${").count(), value.matches('}').count());
        opened > closed
    };
    Parser::new_from_str(text).flatten().find_map(|(event, span)| match event {
        Event::Scalar(value, ScalarStyle::Plain, ..) if open(&value) => Some(Mistake {
            line: u64::try_from(span.start.line()).unwrap_or_default(),
            column: u64::try_from(span.start.col() + 1).unwrap_or_default(),
            message: "${ is not closed: expected ${NAME} or ${NAME:-default}; write $${ for the characters themselves"
                .to_owned(),
        }),
        _ => None,
    })
}

impl File {
    /// What the file says, when every name in it leads somewhere.
    pub(super) fn check(self, tools: &[String], places: Places) -> Result<Definitions, Vec<Mistake>> {
        let mut mistakes = server::check(&self.server, &places);
        let mut models = Vec::new();
        let names: Vec<String> = match self.models.is_empty() {
            true => vec![DEFAULT_MODEL.to_owned()],
            false => self.models.keys().cloned().collect(),
        };
        for (name, model) in self.models {
            match model.value.check(&name, model.referenced) {
                Ok(model) => models.push((name, model)),
                Err(mistake) => mistakes.push(mistake),
            }
        }
        let mut seen: HashMap<String, u64> = HashMap::new();
        let mut agents = Vec::new();
        for agent in self.agents {
            agent.check(&names, tools, &mut seen, &mut mistakes);
            agents.push(agent.into_definition());
        }
        mistakes.sort_by_key(|mistake| (mistake.line, mistake.column));
        if mistakes.is_empty() {
            Ok(Definitions { server: self.server, models, agents, places })
        } else {
            Err(mistakes)
        }
    }
}

impl Model {
    fn check(self, name: &str, place: Location) -> Result<ModelDefinition, Mistake> {
        match self.provider {
            Provider::Demo => {
                let strange = [
                    self.id.map(|field| ("id", field.referenced)),
                    self.base_url.map(|field| ("base_url", field.referenced)),
                    self.api_key.map(|field| ("api_key", field.referenced)),
                    self.timeouts.map(|field| ("timeouts", field.referenced)),
                    self.retries.map(|field| ("retries", field.referenced)),
                ];
                match strange.into_iter().flatten().next() {
                    None => Ok(ModelDefinition::Demo),
                    Some((name, at)) => {
                        Err(Mistake::at(at, format!("{name}: the scripted demo model has no such setting")))
                    }
                }
            }
            Provider::OpenAi => {
                let id = self.id.ok_or_else(|| {
                    Mistake::at(place, "id is missing: expected the provider's id of the model, such as gpt-5-mini")
                })?;
                if id.value.trim().is_empty() {
                    return Err(Mistake::at(id.referenced, "id: expected the provider's id of the model"));
                }
                if let Some(retries) = self.retries.as_ref().filter(|retries| retries.value > MAX_RETRIES) {
                    return Err(Mistake::at(retries.referenced, format!("retries: {MAX_RETRIES} are the most")));
                }
                let url_at = self.base_url.as_ref().map_or(place, |field| field.referenced);
                let key_at = self.api_key.as_ref().map_or(place, |field| field.referenced);
                let model = ModelDefinition::OpenAi(OpenAiDefinition {
                    id: id.value,
                    base_url: self.base_url.map(|field| field.value),
                    api_key: self.api_key.map(|field| field.value),
                    timeouts: self.timeouts.map(|field| field.value).unwrap_or_default(),
                    retries: self.retries.map(|field| field.value),
                });
                // Setting it up finds what is wrong with it.
                match model.build(name) {
                    Ok(_) => Ok(model),
                    Err(Error::Model { source, .. }) => {
                        let at = match source {
                            SetupError::BaseUrl { .. } => url_at,
                            SetupError::ApiKey(_) => key_at,
                            _ => place,
                        };
                        Err(Mistake::at(at, source.to_string()))
                    }
                    Err(error) => Err(Mistake::at(place, error.to_string())),
                }
            }
        }
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
            if !tools.contains(&tool.value) {
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
            session_state: self.session_state.map(|values| values.value).unwrap_or_default(),
            max_iterations: self.max_iterations.map_or(bare.max_iterations, NonZeroU32::get),
            temperature: self.temperature.map(|temperature| temperature.value),
            max_tokens: self.max_tokens,
            metadata: self.metadata.map(|values| values.value).unwrap_or_default(),
            ..bare
        }
    }
}
