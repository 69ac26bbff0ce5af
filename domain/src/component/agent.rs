//! What an agent, or a team's leader, is.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::state::{ComponentKind, ComponentRef};
use super::team::TeamConfig;
use crate::ids::ComponentId;
use crate::output::OutputSchema;
use crate::tool::ToolSpec;

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

/// Everything about an agent, or a team, that shapes its runs. A run keeps the configuration it started with.
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
    /// Whom it leads: it is a team's leader then, and the team has its id and name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub team: Option<TeamConfig>,
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
    /// What it is: an agent, or a team.
    pub fn component(&self) -> ComponentRef {
        let kind = if self.team.is_some() { ComponentKind::Team } else { ComponentKind::Agent };
        ComponentRef { kind, id: self.id.clone() }
    }

    /// The system message: description, role, then instructions, each a line; `None` when there is nothing to say.
    pub fn system_prompt(&self) -> Option<String> {
        let mut lines: Vec<String> = self.description.iter().cloned().collect();
        lines.extend(self.role.iter().map(|role| format!("<your_role>\n{role}\n</your_role>")));
        match self.instructions.as_slice() {
            [] => {}
            [one] => lines.push(one.clone()),
            many => lines.extend(many.iter().map(|line| format!("- {line}"))),
        }
        lines.extend(self.team.iter().map(|team| team.briefing.clone()));
        (!lines.is_empty()).then(|| lines.join("\n"))
    }

    /// The tools its model sees: its own, then those by which a leader hands work out.
    pub fn all_tools(&self) -> impl Iterator<Item = &ToolSpec> {
        self.tools.iter().chain(self.team.iter().flat_map(|team| &team.tools))
    }
}
