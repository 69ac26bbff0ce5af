//! A workflow in the file.

use std::num::NonZeroU32;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::Mistake;
use super::agent::Known;
use super::circle::Link;
use super::place::{Location, Spanned};
use super::step::{Components, Looking, Steps};
use crate::agent::{check_id, check_line, check_output, check_text, check_values};
use crate::workflow::WorkflowDefinition;

/// Steps that run one after the other, beside each other, again and again, or as a test or a person decides.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Workflow {
    /// Its id, also in addresses: letters, digits, - _ and dots.
    pub(super) id: Spanned<String>,
    /// Its name for people; the id unless said.
    #[serde(default)]
    name: Option<Spanned<String>>,
    /// What it is, for people.
    #[serde(default)]
    description: Option<Spanned<String>>,
    /// Its steps, one after the other.
    #[serde(default)]
    steps: Steps,
    /// The shape its input must have: the JSON Schema of an object; any text unless said.
    #[serde(default)]
    input_schema: Option<Spanned<Map<String, Value>>>,
    /// What a new session's state starts with.
    #[serde(default)]
    session_state: Option<Spanned<Map<String, Value>>>,
    /// How many earlier runs' input and output the agents of its steps see; 0 unless said.
    #[serde(default)]
    history_runs: u32,
    /// The most steps of one parallel block that run at the same time; 16 unless said.
    #[serde(default)]
    max_parallel: Option<NonZeroU32>,
    /// Shown with the workflow and kept with its runs.
    #[serde(default)]
    metadata: Option<Spanned<Map<String, Value>>>,
}

impl Workflow {
    /// The workflows its steps run, for finding circles.
    pub(super) fn links(&self) -> Vec<Link> {
        self.steps.workflows()
    }

    /// The workflow as code would describe it; what is wrong with it is added to `out`.
    pub(super) fn check(
        self,
        known: Known<'_>,
        components: Components<'_>,
        out: &mut Vec<Mistake>,
    ) -> WorkflowDefinition {
        self.check_itself(out);
        let mut names = self.steps.names();
        names.sort();
        names.dedup();
        let mut looking = Looking::new(&self.id, known, components, names, out);
        let steps = looking.steps(self.steps);
        let bare = WorkflowDefinition::new(self.id.value);
        let workflow = WorkflowDefinition {
            name: self.name.map(|text| text.value),
            description: self.description.map(|text| text.value),
            steps,
            input_schema: self.input_schema.map(|schema| Value::Object(schema.value)),
            session_state: self.session_state.map(|values| values.value).unwrap_or_default(),
            history_runs: self.history_runs,
            max_parallel: self.max_parallel.map_or(bare.max_parallel, NonZeroU32::get),
            metadata: self.metadata.map(|values| values.value).unwrap_or_default(),
            ..bare
        };
        if let Some(outline) = workflow.outline() {
            looking.check_outline(&outline);
        }
        workflow
    }

    fn check_itself(&self, out: &mut Vec<Mistake>) {
        let mut tell = |at: Location, checked: Result<(), String>| {
            out.extend(checked.err().map(|fault| Mistake::at(at, fault)));
        };
        tell(self.id.referenced, check_id(&self.id.value).map(drop));
        if let Some(line) = &self.name {
            tell(line.referenced, check_line("name", &line.value));
        }
        if let Some(text) = &self.description {
            tell(text.referenced, check_text("description", &text.value));
        }
        if let Some(schema) = &self.input_schema {
            let checked = check_output(&Value::Object(schema.value.clone())).map(drop);
            tell(schema.referenced, checked.map_err(|fault| fault.replacen("output_schema", "input_schema", 1)));
        }
        for (what, values) in [("session_state", &self.session_state), ("metadata", &self.metadata)] {
            if let Some(values) = values {
                tell(values.referenced, check_values(what, &values.value));
            }
        }
    }
}
