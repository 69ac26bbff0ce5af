//! What runs are continued with: the forms of agents, teams and workflows.

use poem_openapi::Object;
use poem_openapi::types::Type;

use super::answers;
use super::step_answers::{Answers, in_step_requirements};
use crate::errors::ApiError;
use crate::forms::Fields;
use crate::kind::{Agents, Kind, Teams, Workflows};

/// A kind whose runs can be continued.
pub(super) trait Continues: Kind {
    /// The form as it is described.
    type Form: Type + 'static;
    /// The field with the answers.
    const ANSWERS: &'static str;

    /// The answers in the form.
    ///
    /// # Errors
    /// 400 for what cannot be read.
    fn answers(fields: &Fields) -> Result<Answers, ApiError>;

    /// Whether the form is one that leaves a paused run as it is.
    fn leaves_paused(_fields: &Fields) -> bool {
        false
    }
}

/// How a run of an agent goes on.
#[derive(Debug, Object)]
pub(super) struct ContinueAgentForm {
    /// The tool calls a paused run told of, with the answers (JSON list): `confirmed` and `confirmation_note`, values in
    /// `user_input_schema`, `selected_options` in `user_feedback_schema`, or `result`. Each may be answered alone.
    #[oai(default)]
    pub tools: String,
    /// What is said next, where an ended run is gone on from.
    pub input: Option<String>,
    /// Up to where an ended run's messages are taken over: `end`, `last_user`, or how many.
    #[oai(default = "end")]
    pub continue_from: String,
    /// Whether a new run goes on in any case.
    #[oai(default)]
    pub fork: bool,
    /// Whether the last answer is given anew, in a new run.
    #[oai(default)]
    pub regenerate: bool,
    /// With `regenerate`: whether the new answer takes the old one's place in the conversation; true unless said.
    pub replace_original: Option<bool>,
    /// With `regenerate`: what the new answer should heed.
    pub additional_instructions: Option<String>,
    /// The run's session.
    pub session_id: Option<String>,
    /// Whom the run is for.
    pub user_id: Option<String>,
    /// Whether the answer comes in pieces, as events.
    #[oai(default = "yes")]
    pub stream: bool,
    /// Whether the run goes on without the caller.
    #[oai(default)]
    pub background: bool,
}

/// How a run of a team goes on.
#[derive(Debug, Object)]
pub(super) struct ContinueTeamForm {
    /// What a paused run asked, of the leader's calls and the members', with the answers (JSON list): `confirmation` and
    /// `confirmation_note`, values in `user_input_schema`, `selected_options` in `user_feedback_schema`, or
    /// `external_execution_result`; they may also stand in the `tool_execution`. Each may be answered alone. (`tools`
    /// answers nothing: a paused run stays paused.)
    #[oai(default)]
    pub requirements: String,
    /// What is said next, where an ended run is gone on from.
    pub input: Option<String>,
    /// Up to where an ended run's messages are taken over: `end`, `last_user`, or how many.
    #[oai(default = "end")]
    pub continue_from: String,
    /// Whether a new run goes on in any case.
    #[oai(default)]
    pub fork: bool,
    /// Whether the last answer is given anew, in a new run.
    #[oai(default)]
    pub regenerate: bool,
    /// With `regenerate`: whether the new answer takes the old one's place in the conversation; true unless said.
    pub replace_original: Option<bool>,
    /// With `regenerate`: what the new answer should heed.
    pub additional_instructions: Option<String>,
    /// The run's session.
    pub session_id: Option<String>,
    /// Whom the run is for.
    pub user_id: Option<String>,
    /// Whether the answer comes in pieces, as events.
    #[oai(default = "yes")]
    pub stream: bool,
    /// Whether the run goes on without the caller.
    #[oai(default)]
    pub background: bool,
}

/// How a run of a workflow goes on.
#[derive(Debug, Object)]
pub(super) struct ContinueWorkflowForm {
    /// What a paused run asked about its steps, with the answers (JSON list): `confirmed` and `rejection_feedback`,
    /// `user_input` or values in `user_input_schema`, `selected_choices`, `edited_output`, or `edited_input`. What the run of
    /// a step asks is answered in `executor_requirements`. Each may be answered alone.
    #[oai(default)]
    pub step_requirements: String,
    /// The run's session.
    pub session_id: Option<String>,
    /// Whom the run is for.
    pub user_id: Option<String>,
    /// Whether the answer comes in pieces, as events.
    #[oai(default = "yes")]
    pub stream: bool,
    /// Whether the run goes on without the caller.
    #[oai(default)]
    pub background: bool,
    /// What a component's factory is given (JSON). Components of this server have none.
    pub factory_input: Option<String>,
}

fn end() -> String {
    "end".to_owned()
}

fn yes() -> bool {
    true
}

impl Continues for Agents {
    type Form = ContinueAgentForm;
    const ANSWERS: &'static str = "tools";

    fn answers(fields: &Fields) -> Result<Answers, ApiError> {
        answers::in_tools(fields).map(Answers::from)
    }
}

impl Continues for Teams {
    type Form = ContinueTeamForm;
    const ANSWERS: &'static str = "requirements";

    fn answers(fields: &Fields) -> Result<Answers, ApiError> {
        answers::in_requirements(fields).map(Answers::from)
    }

    /// As agents' clients answer: those of teams have always got the run back unchanged.
    fn leaves_paused(fields: &Fields) -> bool {
        fields.text(Self::ANSWERS).is_none() && fields.text("tools").is_some()
    }
}

impl Continues for Workflows {
    type Form = ContinueWorkflowForm;
    const ANSWERS: &'static str = "step_requirements";

    fn answers(fields: &Fields) -> Result<Answers, ApiError> {
        in_step_requirements(fields)
    }
}
