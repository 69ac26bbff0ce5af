//! Why components cannot be registered, for the person who defines them.

use daybook_domain::component::ComponentRef;

/// Why components cannot be registered.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// Two components of one kind with one id.
    #[error("two {kind}s have the id {id:?}: give each its own")]
    Duplicate {
        /// What they are.
        kind: &'static str,
        /// Their id.
        id: String,
    },
    /// An agent names a model that is not there.
    #[error("agent {agent:?} uses the model {model:?}, which is not defined; defined are: {known}")]
    UnknownModel {
        /// The agent.
        agent: String,
        /// The model it names.
        model: String,
        /// The models there are.
        known: String,
    },
    /// The rule of a tool's approval cannot be followed.
    #[error("the approval of the tool {tool:?} of agent {agent:?}: {fault}")]
    Rule {
        /// The agent.
        agent: String,
        /// The tool.
        tool: String,
        /// What is wrong, and how to mend it.
        fault: &'static str,
    },
    /// A component runs another one that was not added before it.
    #[error("the {kind} {id:?} runs a {child} that is not known: add what it runs before it")]
    UnknownChild {
        /// What the component is.
        kind: &'static str,
        /// Its id.
        id: String,
        /// What it runs.
        child: ComponentRef,
    },
    /// A workflow cannot be run.
    #[error("the workflow {id:?} cannot be run:\n  - {}", .faults.join("\n  - "))]
    Workflow {
        /// The workflow.
        id: String,
        /// All that is wrong with it, each with the steps it is about.
        faults: Vec<String>,
    },
    /// Components run each other too deep.
    #[error("the {kind} {id:?} has more than {most} levels of runs under it: no run has more than that above it")]
    TooDeep {
        /// What the component is.
        kind: &'static str,
        /// Its id.
        id: String,
        /// The most levels.
        most: u32,
    },
    /// The configuration cannot be written as JSON.
    #[error("the configuration of {0:?} cannot be written: {1}")]
    Json(String, serde_json::Error),
}
