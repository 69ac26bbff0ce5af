//! The Tool port and the tools that come with Daybook.
//! A tool says what a second call of it does ([`Effect`](daybook_domain::tool::Effect)); recovery depends on it.

mod builtin;
mod function;
mod mcp;
mod port;
mod source;

pub use builtin::{calculator, current_time};
pub use function::FunctionTool;
pub use mcp::{McpOptions, McpSource};
pub use port::{Tool, ToolContext, ToolError, ToolOutput, ToolSet};
pub use source::{SourceError, ToolSource};
