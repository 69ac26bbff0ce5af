//! The Tool port and the tools that come with Daybook.
//! A tool says what a second call of it does ([`Effect`](daybook_domain::tool::Effect)); recovery depends on it.

mod altered;
mod builtin;
mod chosen;
mod content;
mod family;
mod files;
mod function;
mod http;
mod mcp;
pub mod net;
mod openapi;
mod port;
mod read_result;
mod secrets;
mod shell;
mod source;
mod sql;
#[cfg(test)]
mod testing;
mod text;
mod validate;

pub use altered::altered;
pub use builtin::{calculator, current_time};
pub use chosen::{ApprovalOptions, Choice, ToolRule, choose};
pub use files::{FilesError, FilesOptions, files};
pub use function::FunctionTool;
pub use http::{HttpOptions, http_tools};
pub use mcp::{McpOptions, McpSource};
pub use openapi::{OpenApiAuth, OpenApiOptions, OpenApiSource};
pub use port::{Tool, ToolContext, ToolError, ToolOutput, ToolSet, WholeResults};
pub use read_result::read_result;
pub use shell::{ShellError, ShellOptions, shell};
pub use source::{FixedSource, SourceError, ToolSource};
pub use sql::{SqlError, SqlOptions, SqlSource, sql, sql_lazily};
pub use validate::{ArgumentCheck, SchemaCheck};
