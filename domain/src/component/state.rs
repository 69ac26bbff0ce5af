//! Configurations, their hash, and the fold of a configuration's stream.

use aws_lc_rs::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::command::{ComponentError, Configure};
use super::event::{ComponentConfigured, ComponentEvent};
use crate::ids::ComponentId;
use crate::output::OutputSchema;
use crate::tool::ToolSpec;

/// The kinds of components.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ComponentKind {
    /// One model with instructions and tools.
    Agent,
}

impl ComponentKind {
    /// The kind's name on the wire and in views.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Agent => "agent",
        }
    }
}

/// A component by kind and id.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ComponentRef {
    /// Its kind.
    pub kind: ComponentKind,
    /// Its id.
    pub id: ComponentId,
}

impl ComponentRef {
    /// The agent of this id.
    pub fn agent(id: ComponentId) -> Self {
        Self { kind: ComponentKind::Agent, id }
    }
}

impl std::fmt::Display for ComponentRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.kind.as_str(), self.id)
    }
}

/// A model by the name it was registered under, and what it calls itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelRef {
    /// The name models are looked up by in this server.
    pub key: String,
    /// The provider's id of the model, such as `gpt-5`.
    pub id: String,
    /// The provider's name, such as `OpenAI`.
    pub provider: String,
    /// The provider's class name on the wire, such as `OpenAIChat`.
    pub class: String,
}

/// Earlier runs than the last `history_runs` are summarised when somebody asks for it, and later prompts carry the summary
/// in their place.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Compaction {
    /// They are also summarised by themselves, once the runs without a summary have more estimated tokens than this.
    /// Until then the model sees all of these, and never more of them than twice as many tokens, except that it always
    /// sees `history_runs` of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after_tokens: Option<u64>,
}

/// Everything about an agent that shapes its runs. A run keeps the configuration it started with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AgentConfig {
    /// The agent's id.
    pub id: ComponentId,
    /// Its name for people.
    pub name: String,
    /// What it is, for people and the model.
    #[serde(default)]
    pub description: Option<String>,
    /// What it does in a team.
    #[serde(default)]
    pub role: Option<String>,
    /// How it should behave.
    #[serde(default)]
    pub instructions: Vec<String>,
    /// The model it speaks with.
    pub model: ModelRef,
    /// Sampling temperature, the provider's default when absent.
    #[serde(default)]
    pub temperature: Option<f64>,
    /// The most tokens one answer may have.
    #[serde(default)]
    pub max_tokens: Option<u64>,
    /// The shape of its answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_schema: Option<OutputSchema>,
    /// How often the model is told that its answer misses its shape, and asked again.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub output_repairs: u32,
    /// Its tools.
    #[serde(default)]
    pub tools: Vec<ToolSpec>,
    /// How many earlier runs of the session the model sees; 0 is none.
    #[serde(default)]
    pub history_runs: u32,
    /// How what was said before those runs is kept; not at all when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compaction: Option<Compaction>,
    /// The session state a new session starts with.
    #[serde(default)]
    pub session_state: Map<String, Value>,
    /// The most model calls of one run.
    #[serde(default = "default_max_iterations")]
    pub max_iterations: u32,
    /// Shown with the agent and kept with its runs.
    #[serde(default)]
    pub metadata: Map<String, Value>,
}

/// The most model calls of one run, unless configured.
fn default_max_iterations() -> u32 {
    25
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands references")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

impl AgentConfig {
    /// The system message: description, role, then instructions, each a line; `None` when there is nothing to say.
    pub fn system_prompt(&self) -> Option<String> {
        let mut lines: Vec<String> = self.description.iter().cloned().collect();
        lines.extend(self.role.iter().map(|role| format!("<your_role>\n{role}\n</your_role>")));
        match self.instructions.as_slice() {
            [] => {}
            [one] => lines.push(one.clone()),
            many => lines.extend(many.iter().map(|line| format!("- {line}"))),
        }
        (!lines.is_empty()).then(|| lines.join("\n"))
    }
}

/// SHA-256 of the canonical JSON (keys sorted, no spaces), hex.
///
/// # Errors
/// When serde_json cannot write the configuration.
pub fn config_hash(config: &AgentConfig) -> serde_json::Result<String> {
    let mut value = serde_json::to_value(config)?;
    // Some dependency turns on serde_json's preserve_order for the whole build, so sorting is ours to do.
    value.sort_all_objects();
    Ok(hex::encode(digest(&SHA256, serde_json::to_string(&value)?.as_bytes())))
}

/// The fold of a configuration's stream.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct ComponentState {
    /// The configuration, once recorded.
    pub configured: Option<ComponentConfigured>,
}

impl ComponentState {
    /// What happens on `command`.
    ///
    /// # Errors
    /// [`ComponentError::HashTaken`] when the stream holds another configuration.
    pub fn decide(&self, command: Configure) -> Result<Vec<ComponentEvent>, ComponentError> {
        let hash = config_hash(&command.config).unwrap_or_default();
        match &self.configured {
            None => Ok(vec![ComponentEvent::Configured(ComponentConfigured { hash, config: command.config })]),
            Some(known) if known.hash == hash => Ok(vec![]),
            Some(known) => Err(ComponentError::HashTaken(known.hash.clone())),
        }
    }

    /// Takes `event` into the state.
    pub fn evolve(&mut self, event: &ComponentEvent) {
        let ComponentEvent::Configured(configured) = event;
        self.configured = Some(configured.clone());
    }
}
