//! The port: what the engine asks of a model and what it gets back.

use std::time::Duration;

use async_trait::async_trait;
use daybook_domain::message::{CallMetrics, Message, Replay, ToolCall};
use daybook_domain::output::OutputSchema;
use daybook_domain::tool::ToolSpec;
use futures::stream::BoxStream;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What a model is, for people, logs and the wire.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelInfo {
    /// The provider's id of the model, such as `gpt-5`.
    pub id: String,
    /// The provider's name, such as `OpenAI`.
    pub provider: String,
    /// The name clients of the AgentOS API know the kind of model by, such as `OpenAIChat`.
    pub class: String,
}

/// One call of a model. Serialisable, so that it can be hashed and rebuilt.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ChatRequest {
    /// The conversation, system message first if there is one. Media are inline or by address here, never blobs.
    pub messages: Vec<Message>,
    /// The tools it may ask for.
    pub tools: Vec<ToolSpec>,
    /// Sampling temperature, the provider's default when absent.
    pub temperature: Option<f64>,
    /// The most tokens of the answer.
    pub max_tokens: Option<u64>,
    /// The shape of the answer: then its text is JSON of that shape.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_schema: Option<OutputSchema>,
}

/// A model's answer, whole.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ChatResponse {
    /// What it said.
    pub text: String,
    /// What it thought aloud.
    pub reasoning: Option<String>,
    /// What the provider wants given back with this answer while its tools are called.
    pub replay: Option<Replay>,
    /// The tools it asked for, with ids that are unique in this answer and never empty.
    pub tool_calls: Vec<ToolCall>,
    /// Why it stopped: `stop`, `tool_calls`, `length`, `content_filter`, `refusal` or the provider's own word.
    pub finish_reason: String,
    /// What the provider told about the response, such as `{"id": ..., "system_fingerprint": ...}`.
    pub provider_data: Option<Value>,
    /// Tokens and times.
    pub metrics: CallMetrics,
}

/// A piece of an answer as it arrives.
#[derive(Debug, Clone, PartialEq)]
pub enum ChatEvent {
    /// More text.
    Text(String),
    /// More of what it thinks aloud.
    Reasoning(String),
    /// More of a tool call's arguments.
    ToolArguments {
        /// Which call of this answer, from 0.
        index: usize,
        /// The call's id, once known.
        id: String,
        /// The tool's name, once known.
        name: String,
        /// The fragment.
        delta: String,
    },
    /// What the provider told about the response before its end.
    ProviderData(Value),
    /// The end, and the whole. Always the last; a stream that ends without it is an error.
    Done(Box<ChatResponse>),
}

/// The pieces of one answer.
pub type ChatStream = BoxStream<'static, Result<ChatEvent, ModelError>>;

/// Why a model gave no answer. Messages are for people and hold no secrets.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ModelError {
    /// The provider refused: rate limit, overload, bad request, bad key.
    #[error("{message}")]
    Status {
        /// The HTTP status.
        status: u16,
        /// The provider's own message, or one of ours when it gave none.
        message: String,
        /// How long it asked to wait.
        retry_after: Option<Duration>,
    },
    /// No connection.
    #[error("The model's server could not be reached: {0}")]
    Unreachable(String),
    /// It took too long; says what did and how long.
    #[error("The model took too long: {0}")]
    Timeout(String),
    /// The answer ended in the middle.
    #[error("The model's answer broke off in the middle: {0}")]
    Truncated(String),
    /// The answer is not what the protocol says.
    #[error("The model's answer could not be understood: {0}")]
    Malformed(String),
    /// The model, or a filter before it, refused to say anything; says why, as far as the provider told.
    #[error("The model refused to answer: {0}")]
    Refused(String),
    /// The request cannot be sent to this model at all.
    #[error("This request does not fit the model: {0}")]
    Unsupported(String),
}

impl ModelError {
    /// Whether the same request may succeed a little later.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Status { status, .. } => matches!(status, 408 | 409 | 425 | 429 | 500..=599),
            Self::Unreachable(_) | Self::Timeout(_) | Self::Truncated(_) => true,
            Self::Malformed(_) | Self::Refused(_) | Self::Unsupported(_) => false,
        }
    }
}

/// A model that converses.
#[async_trait]
pub trait ChatModel: Send + Sync + 'static {
    /// What it is.
    fn info(&self) -> &ModelInfo;

    /// Calls the model once. Dropping the stream, or this future, drops the call.
    ///
    /// # Errors
    /// [`ModelError`], here before the first piece or in the stream after it.
    async fn stream(&self, request: ChatRequest) -> Result<ChatStream, ModelError>;
}
