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
//! let running = Daybook::builder()
//!     .tool(weather)
//!     .agent(AgentDefinition::new("guide").instruction("Be brief.").tool("get_weather").history_runs(3))
//!     .port(8000)
//!     .build()
//!     .await?
//!     .start();
//! match running.agent("guide").run("How is the weather in Oslo?").session("thread-42").await {
//!     Ok(answer) => println!("{}", answer.content),
//!     Err(error) => println!("no answer: {error}"),
//! }
//! running.until_signal().await
//! # }
//! ```
//!
//! More: own routes, progress of tools, hooks, own models, in `docs/embedding.md` and `examples/`.

/// The code of the page is tested with the code it is about.
#[cfg(doctest)]
#[doc = include_str!("../docs/embedding.md")]
struct EmbeddingPage;

#[cfg(doctest)]
#[doc = include_str!("../docs/approvals.md")]
struct ApprovalsPage;

#[cfg(doctest)]
#[doc = include_str!("../docs/teams.md")]
struct TeamsPage;

#[cfg(doctest)]
#[doc = include_str!("../docs/workflows.md")]
struct WorkflowsPage;

mod agent;
mod attachment;
mod builder;
pub mod cli;
mod clock;
mod config;
mod database;
mod definitions;
mod demo;
mod doctor;
mod error;
mod graph;
mod handle;
mod hooks;
mod host;
mod init;
mod key;
mod logging;
mod models;
mod notices;
mod reload;
mod run;
mod server;
mod sources;
mod team;
mod workflow;

pub use agent::{AgentDefinition, built_in_tools};
pub use attachment::Attachment;
pub use builder::{Builder, install_crypto};
pub use config::{ConfigError, Limits, LogFormat, Settings};
pub use definitions::{Definitions, DefinitionsError, Mistake, schema};
pub use error::Error;
pub use handle::Handle;
pub use notices::{ApprovalNews, ApprovalNotice};
pub use run::{Accepted, AgentHandle, Answer, Call, Events, Pieces, RunError, Whole};
pub use server::{Daybook, Running};
pub use sources::SourcesError;
pub use team::TeamDefinition;
pub use workflow::{StepDefinition, WorkflowDefinition};

pub use daybook_domain as domain;
pub use daybook_domain::approval::ApprovalRequested;
pub use daybook_domain::component::{Compaction, OnMemberError, TeamMode};
pub use daybook_domain::media::MediaKind;
pub use daybook_domain::output::OutputSchema;
pub use daybook_domain::run::{InputField, OnBusy, RunStatus};
pub use daybook_domain::tool::{ApprovalKind, ApprovalRule, Effect, Gate, OnExpiry, ToolSpec};
pub use daybook_domain::workflow::{
    Confirmation, Expression, HumanReview, InputReview, OnError, OnReject, OutputReview, Policies, Retries, Selector,
    UserInput,
};
pub use daybook_engine::{
    Asked, Engine, ExecuteError, Fault, Frame, FrameBody, Functions, QueryError, Rule, StepFunction, StepInput,
    StepSaid,
};
pub use daybook_models::{
    Api, CacheTime, ChatEvent, ChatModel, ChatRequest, ChatResponse, ChatStream, DemoModel, Effort, ModelError,
    ModelInfo, ModelOptions, ProviderModel, Reasoning, RetryPolicy, Timeouts,
};
pub use daybook_rest::{Caller, OpenApi};
pub use daybook_store::MasterKey;
pub use daybook_tools::{
    ApprovalOptions, Choice, FilesError, FilesOptions, FixedSource, FunctionTool, HttpOptions, McpOptions, McpSource,
    OpenApiAuth, OpenApiOptions, OpenApiSource, ShellError, ShellOptions, SourceError, SqlError, SqlOptions, SqlSource,
    Tool, ToolContext, ToolError, ToolOutput, ToolRule, ToolSet, ToolSource, altered, choose, files, http_tools, shell,
    sql, sql_lazily,
};
