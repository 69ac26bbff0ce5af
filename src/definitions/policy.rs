//! What happens in the file when a step fails, takes long, or needs a person.

use std::num::NonZeroU64;

use daybook_domain::run::InputField;
use daybook_domain::workflow;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

/// How often a step is tried again when it failed, and when.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Retries {
    /// How often, beyond the first attempt; 100 at the most.
    count: u32,
    /// Milliseconds before the first of them; 1000 unless said.
    #[serde(default)]
    delay_ms: Option<u64>,
    /// Whether the wait doubles each time; yes unless said.
    #[serde(default)]
    exponential: Option<bool>,
    /// The longest wait, in milliseconds; 60000 unless said.
    #[serde(default)]
    cap_ms: Option<u64>,
}

/// What becomes of the workflow when a step failed for good.
#[derive(Debug, Clone, Copy, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum OnError {
    /// It fails.
    Fail,
    /// It goes on; the step's output says that it failed.
    #[default]
    Skip,
    /// It pauses, and a person says whether the step runs again or is skipped.
    Pause,
}

/// What becomes of a step that a person did not let run.
#[derive(Debug, Clone, Copy, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum OnReject {
    /// It is left out, and the workflow goes on.
    #[default]
    Skip,
    /// The workflow is cancelled.
    Cancel,
    /// The steps under `else` run.
    Else,
}

/// A person is asked.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Question {
    /// What the person is asked.
    message: Option<String>,
    /// What a no means; the step is left out unless said.
    on_reject: OnReject,
}

/// A person fills in values, which the step gets beside its input.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct UserInput {
    /// What the person is asked.
    message: Option<String>,
    /// The values; any unless said.
    fields: Vec<Field>,
}

/// One value that a person fills in.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Field {
    /// Its name.
    name: String,
    /// What it is; a text unless said.
    #[serde(default, rename = "type")]
    kind: FieldKind,
    /// What it is for, for people.
    #[serde(default)]
    description: Option<String>,
    /// Whether it must be filled in; yes unless said.
    #[serde(default = "yes")]
    required: bool,
    /// The values it may have; any unless said.
    #[serde(default)]
    choices: Vec<Value>,
}

fn yes() -> bool {
    true
}

/// The types of values, as JSON Schema calls them.
#[derive(Debug, Clone, Copy, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum FieldKind {
    #[default]
    String,
    Integer,
    Number,
    Boolean,
    Array,
    Object,
}

impl FieldKind {
    fn as_str(self) -> &'static str {
        match self {
            Self::String => "string",
            Self::Integer => "integer",
            Self::Number => "number",
            Self::Boolean => "boolean",
            Self::Array => "array",
            Self::Object => "object",
        }
    }
}

/// A person sees a step's output before the workflow goes on.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct OutputReview {
    /// What the person is asked.
    message: Option<String>,
    /// How often a no runs the step again; 3 unless said.
    max_rejections: Option<u32>,
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Policies {
    pub retries: Option<Retries>,
    pub timeout_seconds: Option<NonZeroU64>,
    pub on_error: Option<OnError>,
    pub confirm: Option<Question>,
    pub user_input: Option<UserInput>,
    pub review_input: Option<Question>,
    pub review_output: Option<OutputReview>,
}

impl From<Policies> for workflow::Policies {
    fn from(said: Policies) -> Self {
        let review = workflow::HumanReview {
            confirmation: said
                .confirm
                .map(|asked| workflow::Confirmation { message: asked.message, on_reject: asked.on_reject.into() }),
            user_input: said.user_input.map(|asked| workflow::UserInput {
                message: asked.message,
                fields: asked.fields.into_iter().map(Field::into_field).collect(),
            }),
            input: said
                .review_input
                .map(|asked| workflow::InputReview { message: asked.message, on_reject: asked.on_reject.into() }),
            output: said.review_output.map(|asked| {
                let bare = workflow::OutputReview::default();
                let max_rejections = asked.max_rejections.unwrap_or(bare.max_rejections);
                workflow::OutputReview { message: asked.message, max_rejections }
            }),
        };
        Self {
            retries: said.retries.map(Retries::setting).unwrap_or_default(),
            timeout_seconds: said.timeout_seconds.map(NonZeroU64::get),
            on_error: said.on_error.unwrap_or_default().into(),
            review,
        }
    }
}

impl Retries {
    fn setting(self) -> workflow::Retries {
        let bare = workflow::Retries::default();
        workflow::Retries {
            count: self.count,
            delay_ms: self.delay_ms.unwrap_or(bare.delay_ms),
            exponential: self.exponential.unwrap_or(bare.exponential),
            cap_ms: self.cap_ms.unwrap_or(bare.cap_ms),
        }
    }
}

impl Field {
    fn into_field(self) -> InputField {
        InputField {
            name: self.name,
            kind: self.kind.as_str().to_owned(),
            description: self.description,
            required: self.required,
            nullable: false,
            asked: true,
            choices: self.choices,
        }
    }
}

impl From<OnError> for workflow::OnError {
    fn from(then: OnError) -> Self {
        match then {
            OnError::Fail => Self::Fail,
            OnError::Skip => Self::Skip,
            OnError::Pause => Self::Pause,
        }
    }
}

impl From<OnReject> for workflow::OnReject {
    fn from(then: OnReject) -> Self {
        match then {
            OnReject::Skip => Self::Skip,
            OnReject::Cancel => Self::Cancel,
            OnReject::Else => Self::Else,
        }
    }
}
