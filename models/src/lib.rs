//! The `ChatModel` port with Daybook's own types, and the providers behind it.
//! No provider type leaves this crate: what the log keeps must outlive any client library.

mod answer;
mod anthropic;
mod conversation;
mod demo;
mod frames;
mod gemini;
mod http;
mod lenient;
mod media;
mod ollama;
mod openai;
mod options;
mod port;
mod provider;
mod refusal;
mod responses;
mod retry;
mod schema;
mod text;

use std::collections::BTreeMap;
use std::sync::Arc;

pub use demo::DemoModel;
pub use options::{Api, CacheTime, Effort, ModelOptions, Reasoning, SetupError, Timeouts};
pub use port::{ChatEvent, ChatModel, ChatRequest, ChatResponse, ChatStream, ModelError, ModelInfo};
pub use provider::ProviderModel;
pub use retry::{RetryPolicy, Retrying};

/// The models of a server, by the names its configuration gives them.
pub type Models = BTreeMap<String, Arc<dyn ChatModel>>;
