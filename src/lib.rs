//! Daybook in your own program: an agent server that records everything in one append-only log.
//!
//! ```no_run
//! use daybook::{AgentDefinition, Daybook, Effect, FunctionTool, ToolContext};
//!
//! #[derive(serde::Deserialize, schemars::JsonSchema)]
//! struct Weather {
//!     city: String,
//! }
//!
//! # async fn example() -> Result<(), daybook::Error> {
//! let weather = FunctionTool::new(
//!     "get_weather",
//!     "Weather of a city.",
//!     Effect::Pure,
//!     |_: ToolContext, args: Weather| async move { Ok(format!("Sunny in {}, 21C", args.city)) },
//! );
//! Daybook::builder()
//!     .tool(weather)
//!     .agent(AgentDefinition::new("guide").instruction("Be brief.").tool("get_weather").history_runs(3))
//!     .port(8000)
//!     .build()
//!     .await?
//!     .serve()
//!     .await
//! # }
//! ```

mod agent;
mod builder;
pub mod cli;
mod config;
mod database;
mod definitions;
mod demo;
mod error;
mod host;
mod init;
mod key;
mod logging;
mod models;
mod reload;
mod server;

pub use agent::AgentDefinition;
pub use builder::{Builder, install_crypto};
pub use config::{ConfigError, Limits, LogFormat, Settings};
pub use definitions::{Definitions, DefinitionsError, Mistake, schema};
pub use error::Error;
pub use server::{Daybook, Running};

pub use daybook_domain as domain;
pub use daybook_domain::tool::{Effect, ToolSpec};
pub use daybook_engine::Engine;
pub use daybook_models::{
    ChatEvent, ChatModel, ChatRequest, ChatResponse, ChatStream, DemoModel, ModelError, ModelInfo, OpenAiChat,
    OpenAiOptions, RetryPolicy, Timeouts,
};
pub use daybook_store::MasterKey;
pub use daybook_tools::{FunctionTool, Tool, ToolContext, ToolError};
